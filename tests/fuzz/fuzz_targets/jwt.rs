//! Of all that can stand in `Authorization` fields, only the tokens that the issuer's keys signed are verified.
//!
//! An input is the field values, one a line; or, if it begins with `{`, a token's header and payload, one a line and not encoded, which
//! are put before each of the valid signatures.
#![no_main]

use std::{str::from_utf8, sync::LazyLock};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use libfuzzer_sys::fuzz_target;
use ringfence_policy::identify::{
    IssuerPolicy, bearer,
    keys::{Algorithm, KeySet},
    verify,
};

const BEARERS: [&str; 3] =
    [include_str!("../seeds/jwt/es256-bearer"), include_str!("../seeds/jwt/eddsa-bearer"), include_str!("../seeds/jwt/rs256-bearer")];
/// When the valid tokens are.
const NOW: u64 = 1_800_000_000;

/// The issuer of the valid tokens. Their private keys were thrown away.
static ISSUER: LazyLock<IssuerPolicy> = LazyLock::new(|| {
    let (keys, faults) = KeySet::parse(include_bytes!("jwt.jwks.json"), &Algorithm::ALL).expect("the key set is sound");
    assert_eq!((keys.len(), faults), (BEARERS.len(), Vec::new()));
    IssuerPolicy {
        name: "corp".parse().expect("a name"),
        issuer: "https://idp.test/".into(),
        audiences: vec!["api".into()],
        keys,
        tenant_claim: vec!["org".into()],
        clock_skew: 30,
    }
});

/// The valid tokens, which are seen to be so first: else nothing below could fail.
static VALID: LazyLock<[&str; 3]> = LazyLock::new(|| {
    BEARERS.map(|value| {
        let token = bearer([value.as_bytes()]).expect("a bearer token");
        verify(token, [&*ISSUER], NOW).expect("a valid token");
        token
    })
});

fn check(token: &str) {
    let verified = verify(token, [&*ISSUER], NOW).is_ok();
    assert_eq!(verified, VALID.contains(&token), "{token}");
}

fuzz_target!(|input: &[u8]| {
    if input.starts_with(b"{") {
        let mut parts = input.splitn(2, |&octet| octet == b'\n');
        let (Some(header), Some(payload)) = (parts.next(), parts.next()) else { return };
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        for valid in *VALID {
            let signature = valid.rsplit('.').next().expect("three parts");
            check(&format!("{signed}.{signature}"));
        }
        return;
    }
    let values = input.split(|&octet| octet == b'\n');
    let count = values.clone().count();
    if let Ok(token) = bearer(values) {
        assert_eq!(count, 1, "two Authorization fields");
        assert!(from_utf8(input).is_ok_and(|value| value.ends_with(token)));
        check(token);
    }
    if let Ok(text) = from_utf8(input) {
        check(text);
    }
});
