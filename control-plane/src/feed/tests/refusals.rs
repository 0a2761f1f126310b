//! What is not even dialled.

use std::net::SocketAddr;

use crate::feed::{AuthorityError, JwksUri, JwksUriError, dial};

#[test]
fn what_is_no_uri_of_keys_is_told_by_what_is_wrong() {
    let long = format!("https://a.example/{}", "x".repeat(2048));
    for (text, wanted) in [
        ("https://sso.example.com/keys", Ok(("sso.example.com", 443, "/keys", "sso.example.com"))),
        ("HTTPS://SSO.example.com", Ok(("SSO.example.com", 443, "/", "SSO.example.com"))),
        ("https://sso.example.com:8443/a/b?c=d", Ok(("sso.example.com", 8443, "/a/b?c=d", "sso.example.com:8443"))),
        ("https://keycloak.sso.svc/realms/x", Ok(("keycloak.sso.svc", 443, "/realms/x", "keycloak.sso.svc"))),
        ("https://192.0.2.1:6443/keys", Ok(("192.0.2.1", 6443, "/keys", "192.0.2.1:6443"))),
        ("https://[2001:db8::1]/keys", Ok(("2001:db8::1", 443, "/keys", "[2001:db8::1]"))),
        ("https://xn--bcher-kva.example/", Ok(("xn--bcher-kva.example", 443, "/", "xn--bcher-kva.example"))),
        ("http://sso.example.com/keys", Err(JwksUriError::Http)),
        ("HTTP://sso.example.com/keys", Err(JwksUriError::Http)),
        ("ftp://sso.example.com/keys", Err(JwksUriError::Scheme)),
        ("/keys", Err(JwksUriError::Scheme)),
        ("sso.example.com", Err(JwksUriError::Scheme)),
        ("file:///etc/passwd", Err(JwksUriError::Syntax)),
        ("", Err(JwksUriError::Syntax)),
        ("https://", Err(JwksUriError::Syntax)),
        ("https:///keys", Err(JwksUriError::Syntax)),
        ("https://sso.example.com/a b", Err(JwksUriError::Syntax)),
        ("https://sso.example.com/\r\nx: y", Err(JwksUriError::Syntax)),
        ("https://sso.example.com\\@127.0.0.1/", Err(JwksUriError::Syntax)),
        (&long, Err(JwksUriError::Syntax)),
        ("https://sso.example.com/#keys", Err(JwksUriError::Fragment)),
        ("https://user@sso.example.com/", Err(JwksUriError::User)),
        ("https://user:password@sso.example.com/", Err(JwksUriError::User)),
        ("https://sso.example.com@127.0.0.1/", Err(JwksUriError::User)),
        ("https://sso_.-.example/", Err(JwksUriError::Host)),
        ("https://127.1/", Err(JwksUriError::Host)),
        ("https://0177.0.0.1/", Err(JwksUriError::Host)),
        ("https://2130706433/", Err(JwksUriError::Host)),
        ("https://[::1%25lo]/", Err(JwksUriError::Host)),
        ("https://a..b/", Err(JwksUriError::Host)),
        ("https://sso.example.com:0/", Err(JwksUriError::Port)),
        ("https://sso.example.com:65536/", Err(JwksUriError::Port)),
        ("https://sso.example.com:/", Err(JwksUriError::Port)),
    ] {
        let parsed = text.parse::<JwksUri>();
        let shown = parsed.as_ref().map(|uri| (uri.name().to_str(), uri.port(), uri.target(), uri.authority())).map_err(|error| *error);
        assert_eq!(shown, wanted.map(|(name, port, target, authority)| (name.into(), port, target, authority)), "{text}");
    }
}

#[test]
fn a_file_that_names_no_authority_is_refused() {
    let authority = super::Authority::new().pem;
    let trusting = |pem: &str| "https://sso.example.com/".parse::<JwksUri>().unwrap().trust_only(pem.as_bytes());
    assert_eq!(trusting(&format!("{authority}{authority}")).unwrap().authorities().len(), 2);
    assert_eq!(trusting(""), Err(AuthorityError::None));
    assert_eq!(trusting(&rcgen::KeyPair::generate().unwrap().serialize_pem()), Err(AuthorityError::None));
    let not_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(trusting(&format!("{authority}{not_der}")), Err(AuthorityError::Unusable(2, _))));
    assert!(matches!(trusting("-----BEGIN CERTIFICATE-----\nAAAA\n"), Err(AuthorityError::Pem(_))));
}

#[test]
fn one_bad_address_spoils_all_the_others() {
    let loopback = "127.0.0.1 (loopback) is not dialled without dangerousAllowPrivate: true";
    let metadata = "169.254.169.254 (metadata) must not be dialled";
    for (addresses, strictly, leniently) in [
        (&["192.0.3.1", "2606:4700::1"][..], Ok(()), Ok(())),
        (&["192.0.3.1", "127.0.0.1"], Err(loopback), Ok(())),
        (&["127.0.0.1", "192.0.3.1"], Err(loopback), Ok(())),
        (&["fd00::1"], Err("fd00::1 (private) is not dialled without dangerousAllowPrivate: true"), Ok(())),
        (
            &["192.0.3.1", "10.0.0.1", "169.254.169.254"],
            Err("10.0.0.1 (private) is not dialled without dangerousAllowPrivate: true"),
            Err(metadata),
        ),
        (&["169.254.169.254"], Err(metadata), Err(metadata)),
        (
            &["::ffff:10.0.0.1"],
            Err("::ffff:10.0.0.1 (embedded IPv4) must not be dialled"),
            Err("::ffff:10.0.0.1 (embedded IPv4) must not be dialled"),
        ),
    ] {
        for (allow_private, wanted) in [(false, strictly), (true, leniently)] {
            let addresses: Vec<SocketAddr> = addresses.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 443)).collect();
            let checked = dial::check(addresses.clone(), allow_private).map(drop).map_err(|error| error.to_string());
            assert_eq!(checked, wanted.map_err(str::to_owned), "{addresses:?} {allow_private}");
        }
    }
}
