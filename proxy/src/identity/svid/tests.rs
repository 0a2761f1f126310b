use super::*;
use crate::identity::tests::{API, Authority, HOUR, PLANE, bundle, key, me, private};

#[test]
fn a_good_one_is_read_and_what_is_not_good_is_refused_with_the_reason() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (ours, others) = (key(), key());
    let now = Duration::from_secs(2_000_000_000);
    let ago = now - HOUR;
    let cert = |uri: &str, from: Duration, to: Duration| authority.certificate(uri, &ours, from, to);
    let good = || cert(API, ago, now + HOUR);
    let judge = |chain: Vec<CertificateDer<'static>>, key| verified(chain, &private(key), &bundle(1, &[&authority]), &me(), now);

    let svid = judge(vec![good()], &ours).unwrap();
    assert_eq!((svid.id.to_string().as_str(), svid.not_before, svid.not_after), (API, ago, now + HOUR));
    assert!(is_vouched_for(&svid, &bundle(2, &[&other, &authority]), now));
    assert!(!is_vouched_for(&svid, &bundle(2, &[&other]), now));
    assert!(!is_vouched_for(&svid, &bundle(1, &[&authority]), now + 2 * HOUR));

    for (what, chain, wanted) in [
        ("none", vec![], "1 to 8 certificates, and is of 0"),
        ("long", vec![good(); 9], "1 to 8 certificates, and is of 9"),
        ("garbage", vec![CertificateDer::from(vec![0x30, 0x03, 1, 2, 3])], "does not vouch for it"),
        ("another authority's", vec![other.certificate(API, &ours, ago, now + HOUR)], "UnknownIssuer"),
        ("an authority's own", vec![authority.certificate.clone()], "does not vouch for it"),
        ("another workload's", vec![cert("spiffe://here/tenant/acme/workload/web", ago, now + HOUR)], "which this sidecar is not"),
        ("the control plane's", vec![cert(PLANE, ago, now + HOUR)], "which this sidecar is not"),
        ("another domain's", vec![cert("spiffe://there/tenant/acme/workload/api", ago, now + HOUR)], "does not vouch for it"),
        ("expired", vec![cert(API, ago, now - HOUR / 2)], "Expired"),
        ("not valid yet", vec![cert(API, now + HOUR, now + 2 * HOUR)], "NotValidYet"),
        ("good for a year", vec![cert(API, ago, now + 24 * 365 * HOUR)], "more than 31 days"),
    ] {
        let error = judge(chain, &ours).unwrap_err().to_string();
        assert!(error.contains(wanted), "{what}: {error}");
    }
    let error = judge(vec![good()], &others).unwrap_err().to_string();
    assert!(error.contains("cannot be used with this key"), "{error}");
}

#[test]
fn certificates_one_after_another_are_told_apart() {
    let authority = Authority::new();
    let chain = [authority.certificate.clone(), Authority::new().certificate];
    let both = [&*chain[0], &*chain[1]].concat();
    assert_eq!(concatenated(&both, 2).unwrap(), chain);
    assert_eq!(concatenated(&both, 1), None, "too many");
    for (what, bytes) in [
        ("nothing", vec![]),
        ("cut short", both[..both.len() - 1].to_vec()),
        ("with something after them", [both.as_slice(), b"\0"].concat()),
        ("of another shape", b"\x30\x03abc".to_vec()),
        ("endless", vec![0x30, 0x80]),
        ("longer than there is", vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff]),
    ] {
        assert_eq!(concatenated(&bytes, 2), None, "{what}");
    }
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_are_no_certificates(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        proptest::prop_assert_eq!(concatenated(&bytes, 8), None);
    }
}
