use std::os::unix::fs::PermissionsExt;

use super::*;

fn join_token(proof: Result<issue_request::Proof, ProofError>) -> Result<String, String> {
    match proof {
        Ok(issue_request::Proof::JoinToken(token)) => Ok(token),
        Ok(issue_request::Proof::ServiceAccountToken(_)) => panic!("of a service account"),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn a_token_is_one_line_of_bounded_text() {
    for good in ["t0k_-.=~/+", "a\n", "a\r\n", &"x".repeat(MAX_BYTES)] {
        assert_eq!(*read(good.as_bytes()).unwrap().0, good.trim_end(), "{good:.20}");
    }
    for (what, bytes, wanted) in [
        ("empty", b"".to_vec(), "is empty"),
        ("a line end", b"\n".to_vec(), "is empty"),
        ("huge", vec![b'x'; MAX_BYTES + 1], "at most 16384 bytes"),
        ("binary", vec![0xff, 0xfe, 0], "printable ASCII"),
        ("two lines", b"a\nb\n".to_vec(), "printable ASCII"),
        ("spaces", b"a b".to_vec(), "printable ASCII"),
        ("not ASCII", "tökén".into(), "printable ASCII"),
    ] {
        let error = read(&*bytes).unwrap_err().to_string();
        assert!(error.contains(wanted), "{what}: {error}");
    }
    let error = read(io::repeat(b'x')).unwrap_err().to_string();
    assert!(error.contains("at most 16384 bytes"), "what never ends is read no further: {error}");
}

#[tokio::test]
async fn standard_input_is_read_apart_and_used_once() {
    let mut proof = Proof::Stdin(Stdin::Reading(read_apart(|| Ok(&b"s3cret\n"[..]))));
    assert_eq!(join_token(proof.shown().await).unwrap(), "s3cret");
    assert_eq!(join_token(proof.shown().await).unwrap(), "s3cret", "it was not taken");
    assert!(!format!("{proof:?}").contains("s3cret"));
    proof.accepted();
    assert!(join_token(proof.shown().await).unwrap_err().contains("used up"));

    let mut refused = Proof::Stdin(Stdin::Read(read(&b"t"[..]).unwrap()));
    refused.refused();
    assert!(join_token(refused.shown().await).unwrap_err().contains("used up"));

    let mut broken = Proof::Stdin(Stdin::Reading(read_apart(|| Err::<io::Empty, _>(io::ErrorKind::NotConnected.into()))));
    assert!(join_token(broken.shown().await).unwrap_err().contains("cannot be read"));
    let mut empty = Proof::Stdin(Stdin::Reading(read_apart(|| Ok(io::empty()))));
    assert!(join_token(empty.shown().await).unwrap_err().contains("is empty"));
}

#[tokio::test(start_paused = true)]
async fn standard_input_that_stays_open_is_told_and_goes_on_being_read() {
    let (reader, mut writer) = io::pipe().unwrap();
    let mut proof = Proof::Stdin(Stdin::Reading(read_apart(|| Ok(reader))));
    assert!(join_token(proof.shown().await).unwrap_err().contains("has not ended after 30 s"));
    io::Write::write_all(&mut writer, b"late").unwrap();
    drop(writer);
    // The clock of this test runs ahead of the thread that reads.
    tokio::time::resume();
    assert_eq!(join_token(proof.shown().await).unwrap(), "late");
}

#[tokio::test]
async fn a_file_is_its_owners_alone_and_removed_after_use() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    let mut proof = Proof::of(&ProofSource::JoinToken(JoinToken::File(path.clone())));
    assert!(join_token(proof.shown().await).unwrap_err().contains("there is no join token"));
    fs::write(&path, "s3cret\n").unwrap();
    assert!(join_token(proof.shown().await).unwrap_err().contains("others than its owner"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(join_token(proof.shown().await).unwrap(), "s3cret");
    proof.refused();
    assert!(path.exists(), "a better one may be put there");
    proof.accepted();
    assert!(!path.exists());
    proof.accepted();
}

#[tokio::test]
async fn a_service_accounts_token_is_read_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    let mut proof = Proof::of(&ProofSource::ServiceAccountToken { file: path.clone() });
    assert!(proof.shown().await.is_err());
    // As the kubelet does it: a link to a directory, which is replaced.
    std::os::unix::fs::symlink("..data/token", &path).unwrap();
    for token in ["one", "two"] {
        let version = dir.path().join(token);
        fs::create_dir(&version).unwrap();
        fs::write(version.join("token"), token).unwrap();
        std::os::unix::fs::symlink(&version, dir.path().join("..data_tmp")).unwrap();
        fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
        let wanted = issue_request::Proof::ServiceAccountToken(token.into());
        assert_eq!(proof.beside_svid().unwrap(), Some(wanted.clone()));
        assert_eq!(proof.shown().await.unwrap(), wanted);
        proof.accepted();
        proof.refused();
    }
    assert!(path.exists(), "it is not ours");
}
