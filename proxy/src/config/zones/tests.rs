//! Zones in pieces, as a control plane would tell them, and the files that they end in.

use std::{fs, os::unix::fs::PermissionsExt};

use ringfence_policy::rpz::{Trigger, text};
use ringfence_xds::zone::{MIN_CHUNK_BYTES, Piece};
use tempfile::TempDir;

use super::*;

struct Source {
    manifest: Arc<Manifest>,
    chunks: Vec<(Digest, Vec<u8>)>,
}

/// A zone of rules that no two share, from one number to another.
fn source(name: &str, rules: std::ops::Range<u32>) -> Source {
    let count = rules.len();
    let lines: String = rules.map(|i| format!("host-{i:06}.example CNAME .\n")).collect();
    let bytes = text::compile(format!("$ORIGIN zone.\n{lines}").as_bytes(), None).bytes.unwrap();
    let digest = Zone::open(bytes.clone().into()).unwrap().checksum().try_into().map(Digest).unwrap();
    let chunks: Vec<(Digest, Vec<u8>)> = bytes.chunks(MIN_CHUNK_BYTES).map(|chunk| (Digest::of(chunk), chunk.to_vec())).collect();
    assert!(chunks.len() > 3, "{count} rules are in {} chunks", chunks.len());
    let pieces = chunks.iter().map(|(digest, data)| Piece { digest: *digest, size: data.len() as u32 }).collect();
    let manifest = Manifest { name: name.into(), digest, size: bytes.len() as u64, pieces, r#override: Default::default(), max_ttl: None };
    Source { manifest: manifest.into(), chunks }
}

impl Source {
    fn missing(&self) -> BTreeSet<String> {
        self.chunks.iter().map(|(digest, _)| digest.to_string()).collect()
    }
}

struct Store {
    zones: Zones,
    state: TempDir,
}

impl Store {
    fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        Self { zones: Zones::new(Some(state.path())).unwrap(), state }
    }

    /// As after a crash: what is in memory is lost.
    fn restarted(self, manifests: &[&Source]) -> (Self, Vec<Result<Zone, String>>) {
        let Self { zones, state } = self;
        // Unfinished files stay behind, as they do when a process is killed.
        std::mem::forget(zones);
        let mut zones = Zones::new(Some(state.path())).unwrap();
        let restored = zones.restore(manifests.iter().map(|source| source.manifest.clone()));
        zones.tidy();
        (Self { zones, state }, restored.into_iter().map(|(_, opened)| opened).collect())
    }

    fn files(&self) -> BTreeSet<String> {
        fs::read_dir(self.state.path().join("zones")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn give(&mut self, source: &Source) {
        for (digest, data) in &source.chunks {
            assert_eq!(self.zones.take(digest, data), []);
        }
    }

    async fn settled(&mut self) -> Option<Failure> {
        let checked = self.zones.checked().await;
        self.zones.settle(checked)
    }

    /// Tells a whole zone.
    async fn gathered(&mut self, source: &Source) -> Zone {
        assert_eq!(self.zones.have(&source.manifest), Ok(None));
        self.give(source);
        assert_eq!(self.settled().await, None);
        self.zones.have(&source.manifest).unwrap().unwrap()
    }
}

#[tokio::test]
async fn a_zone_is_gathered_chunk_by_chunk_and_outlives_a_restart() {
    let mut store = Store::new();
    let source = source("malware", 0..5000);
    assert_eq!(store.zones.have(&source.manifest), Ok(None));
    assert_eq!(store.zones.missing(), source.missing());
    let (last, others) = source.chunks.split_last().unwrap();
    for (digest, data) in others.iter().rev() {
        store.zones.take(digest, data);
    }
    assert_eq!(store.zones.missing(), BTreeSet::from([last.0.to_string()]));
    store.zones.take(&last.0, &last.1);
    assert_eq!(store.zones.missing(), BTreeSet::new());
    assert_eq!(store.settled().await, None);
    let zone = store.zones.have(&source.manifest).unwrap().unwrap();
    assert_eq!(zone.rule_count(Trigger::Qname), 5000);

    let name = source.manifest.digest.to_string();
    assert_eq!(store.files(), BTreeSet::from([name.clone()]));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let dir = store.state.path().join("zones");
    assert_eq!((mode(&dir), mode(&dir.join(name))), (0o700, 0o400));

    let (mut store, restored) = store.restarted(&[&source]);
    assert_eq!(restored, [Ok(zone.clone())]);
    assert_eq!(store.zones.have(&source.manifest), Ok(Some(zone)), "and is not gathered again");
}

#[tokio::test]
async fn of_a_newer_version_only_the_difference_is_asked_for() {
    let mut store = Store::new();
    let (old, new) = (source("malware", 0..5000), source("malware", 0..5001));
    let shared: BTreeSet<String> = old.missing().intersection(&new.missing()).cloned().collect();
    assert!(shared.len() > 1, "an appended rule leaves most chunks as they are");
    let opened = store.gathered(&old).await;
    assert_eq!(store.zones.have(&new.manifest), Ok(None));
    assert_eq!(store.zones.missing(), new.missing().difference(&shared).cloned().collect());
    store.give(&new);
    assert_eq!(store.settled().await, None);
    let newer = store.zones.have(&new.manifest).unwrap().unwrap();
    assert_eq!(newer.rule_count(Trigger::Qname), 5001);

    store.zones.sweep(&HashSet::from([new.manifest.digest]));
    assert_eq!(store.files(), BTreeSet::from([new.manifest.digest.to_string()]));
    assert_eq!(opened.as_bytes().len() as u64, old.manifest.size);
    assert_eq!(Zone::open(opened.as_bytes().clone()), Ok(opened), "whoever has the old one open keeps it whole");
}

#[tokio::test]
async fn two_zones_of_one_content_are_one_file_and_one_mapping() {
    let mut store = Store::new();
    let (one, other) = (source("one", 0..4000), source("other", 0..4000));
    assert_eq!(store.zones.have(&one.manifest), Ok(None));
    assert_eq!(store.zones.have(&other.manifest), Ok(None));
    store.give(&one);
    assert_eq!(store.settled().await, None);
    let opened = [&one, &other].map(|source| store.zones.have(&source.manifest).unwrap().unwrap());
    assert_eq!(opened[0].as_bytes().as_ptr(), opened[1].as_bytes().as_ptr());
    assert_eq!(store.files().len(), 1);
}

#[tokio::test]
async fn an_interrupted_download_goes_on_and_a_killed_one_leaves_nothing() {
    let mut store = Store::new();
    let source = source("malware", 0..5000);
    assert_eq!(store.zones.have(&source.manifest), Ok(None));
    store.zones.take(&source.chunks[0].0, &source.chunks[0].1);
    let left = store.zones.missing();
    assert_eq!(left.len(), source.chunks.len() - 1);
    assert_eq!(store.zones.have(&source.manifest), Ok(None), "the manifest comes again on the next stream");
    assert_eq!(store.zones.missing(), left);

    assert_eq!(store.files().len(), 1);
    let (mut store, _) = store.restarted(&[]);
    assert_eq!(store.files(), BTreeSet::new());
    assert_eq!(store.gathered(&source).await.rule_count(Trigger::Qname), 5000);
}

#[tokio::test]
async fn what_is_not_the_zone_that_was_promised_is_refused_and_removed() {
    let mut store = Store::new();
    let (promised, given) = (source("malware", 0..4000), source("malware", 1..4001));
    let lie = Source {
        manifest: Manifest { digest: promised.manifest.digest, ..Manifest::clone(&given.manifest) }.into(),
        chunks: given.chunks.clone(),
    };
    let mut noise = source("noise", 0..4000);
    for (digest, data) in &mut noise.chunks {
        data.reverse();
        *digest = Digest::of(data);
    }
    let pieces = noise.chunks.iter().map(|(digest, data)| Piece { digest: *digest, size: data.len() as u32 }).collect();
    noise.manifest = Manifest { pieces, ..Manifest::clone(&noise.manifest) }.into();
    for (source, wanted) in [(&lie, "is another than its digest says"), (&noise, "is no compiled policy zone")] {
        assert_eq!(store.zones.have(&source.manifest), Ok(None));
        store.give(source);
        let (name, message) = store.settled().await.unwrap();
        assert_eq!(name, source.manifest.name);
        assert!(message.contains(wanted), "{message}");
        assert_eq!(store.files(), BTreeSet::new());
    }
    // A chunk of another size would end in its neighbour.
    assert_eq!(store.zones.have(&given.manifest), Ok(None));
    let (digest, data) = &given.chunks[1];
    let failures = store.zones.take(digest, &data[1..]);
    assert_eq!(failures, [("malware".into(), format!("cannot be kept: chunk {digest} is not as long as the zone says"))]);
    assert_eq!(store.files(), BTreeSet::new());
}

#[tokio::test]
async fn a_damaged_or_foreign_file_is_no_zone() {
    type Damage = fn(&Path);
    let flip: Damage = |path| {
        let mut bytes = fs::read(path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::remove_file(path).unwrap();
        fs::write(path, bytes).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o400)).unwrap();
    };
    let cut: Damage = |path| {
        let bytes = fs::read(path).unwrap();
        fs::remove_file(path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o400)).unwrap();
    };
    let writable: Damage = |path| fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    let link: Damage = |path| {
        fs::rename(path, path.parent().unwrap().join("../elsewhere")).unwrap();
        std::os::unix::fs::symlink("../elsewhere", path).unwrap();
    };
    let gone: Damage = |path| fs::remove_file(path).unwrap();
    for (damage, wanted) in [(flip, "damaged"), (cut, "header"), (writable, "others may write"), (link, "symbolic"), (gone, "No such file")]
    {
        let mut store = Store::new();
        let source = source("malware", 0..4000);
        store.gathered(&source).await;
        damage(&store.state.path().join("zones").join(source.manifest.digest.to_string()));
        let (mut store, restored) = store.restarted(&[&source]);
        let error = restored[0].as_ref().unwrap_err();
        assert!(error.contains(wanted) || (wanted == "header" && error.contains("damaged")), "{error}");
        assert_eq!(store.files(), BTreeSet::new(), "{wanted}");
        assert_eq!(store.gathered(&source).await.rule_count(Trigger::Qname), 4000, "it can be had again");
    }
}

#[tokio::test]
async fn what_is_given_up_or_superseded_leaves_no_file() {
    let mut store = Store::new();
    let (first, second) = (source("malware", 0..4000), source("malware", 0..5000));
    assert_eq!(store.zones.have(&first.manifest), Ok(None));
    store.give(&first);
    // The newer manifest comes while the older zone is being checked.
    assert_eq!(store.zones.have(&second.manifest), Ok(None));
    assert_eq!(store.settled().await, None);
    assert_eq!(store.files().len(), 1, "of the newer: {:?}", store.files());
    store.give(&second);
    assert_eq!(store.settled().await, None);
    assert_eq!(store.files(), BTreeSet::from([second.manifest.digest.to_string()]));
    store.zones.gather_only(&BTreeSet::new());
    assert_eq!(store.files(), BTreeSet::new());
    assert_eq!(store.zones.missing(), BTreeSet::new());
}

#[tokio::test]
async fn a_sidecar_keeps_so_much_and_no_more() {
    let mut store = Store::new();
    let vast = |name: &str, fill: u8| Manifest {
        name: name.into(),
        digest: Digest([fill; 32]),
        size: MAX_BYTES / 2,
        pieces: vec![Piece { digest: Digest([fill; 32]), size: 1 }],
        r#override: Default::default(),
        max_ttl: None,
    };
    // No disk is needed to tell.
    store.zones.open.extend([1, 2].map(|fill| {
        let manifest = vast("kept", fill);
        (manifest.digest, HeldZone { manifest: manifest.into(), zone: None })
    }));
    let error = store.zones.have(&source("more", 0..4000).manifest).unwrap_err();
    assert_eq!(error, "is one zone too many: those of a sidecar may come to 512 MiB");
}

#[tokio::test]
async fn without_a_state_directory_zones_have_no_name() {
    let source = source("malware", 0..4000);
    let state = tempfile::tempdir().unwrap();
    let mut store = Store { zones: Zones::new(None).unwrap(), state };
    assert_eq!(store.gathered(&source).await.rule_count(Trigger::Qname), 4000);
    store.zones.sweep(&HashSet::new());
    assert_eq!(store.gathered(&source).await.rule_count(Trigger::Qname), 4000);
}
