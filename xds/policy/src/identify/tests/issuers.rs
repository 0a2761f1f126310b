//! Whose keys are tried, and what comes of issuers and keys that look alike.

use serde_json::json;

use super::mint::*;
use crate::{
    Reason,
    identify::{
        IssuerPolicy,
        keys::{Algorithm, KeySet},
        verify,
    },
};

#[test]
fn issuers_that_share_an_iss() {
    use Reason::*;
    let mut ours = issuer(key_set(&[&EC]));
    let mut other = issuer(key_set(&[&ED]));
    other.name = "other".parse().unwrap();
    other.audiences = vec!["other-api".into()];
    let foreign = IssuerPolicy { issuer: "https://foreign.test/".into(), ..issuer(key_set(&[&RSA])) };
    let payload = good_claims();
    let for_other = claims_with("aud", Some(r#""other-api""#));
    let issuers = [foreign, ours, other];

    assert_eq!(verdict(&EC.token(&payload), &issuers, NOW).unwrap().issuer().as_str(), "corp");
    assert_eq!(verdict(&ED.token(&for_other), &issuers, NOW).unwrap().issuer().as_str(), "other");
    // The key of one does not open the audience of another.
    assert_eq!(verdict(&ED.token(&payload), &issuers, NOW).unwrap_err(), TokenAudience);
    assert_eq!(verdict(&EC.token(&for_other), &issuers, NOW).unwrap_err(), TokenAudience);
    // A key counts for its own issuer only.
    assert_eq!(verdict(&RSA.token(&payload), &issuers, NOW).unwrap_err(), TokenKey);
    // The refusal is that of the issuer that came furthest, in whatever order they stand.
    assert_eq!(verdict(&STRANGER.token(&payload), &issuers, NOW).unwrap_err(), TokenSignature);
    let [foreign, first, second] = issuers;
    let turned = [second, first, foreign];
    assert_eq!(verdict(&STRANGER.token(&payload), &turned, NOW).unwrap_err(), TokenSignature);
    assert_eq!(verdict(&EC.token(&payload), &[], NOW).unwrap_err(), TokenIssuer);
    let deny = verify(&EC.token(&for_other), &turned, NOW).unwrap_err();
    assert_eq!(deny.rule.unwrap().as_str(), "Issuer/corp");

    // The same keys and two audiences.
    ours = issuer(key_set(&[&EC]));
    other = IssuerPolicy { audiences: vec!["other-api".into()], name: "other".parse().unwrap(), ..issuer(key_set(&[&EC])) };
    assert_eq!(verdict(&EC.token(&for_other), &[ours, other], NOW).unwrap().issuer().as_str(), "other");
}

#[test]
fn keys_that_share_a_kid_and_tokens_without_one() {
    use Reason::*;
    let twins: Vec<Signer> = (0..4).map(|_| Signer::ec("twin")).collect();
    let payload = good_claims();
    let issuers = [issuer(key_set(&twins.iter().collect::<Vec<_>>()))];
    for twin in &twins {
        assert!(verdict(&twin.token(&payload), &issuers, NOW).is_ok());
        assert!(verdict(&twin.sign(r#"{"alg":"ES256"}"#, &payload), &issuers, NOW).is_ok());
    }
    assert_eq!(verdict(&STRANGER.sign(r#"{"alg":"ES256"}"#, &payload), &issuers, NOW).unwrap_err(), TokenSignature);

    // Five keys could be meant: none is guessed at. Others of another algorithm do not count.
    let many: Vec<&Signer> = twins.iter().chain([&*EC, &*ED]).collect();
    let issuers = [issuer(key_set(&many))];
    assert_eq!(verdict(&EC.sign(r#"{"alg":"ES256"}"#, &payload), &issuers, NOW).unwrap_err(), TokenKey);
    assert!(verdict(&EC.token(&payload), &issuers, NOW).is_ok());
    assert!(verdict(&ED.sign(r#"{"alg":"EdDSA"}"#, &payload), &issuers, NOW).is_ok());

    // No keys yet.
    let issuers = [issuer(KeySet::default())];
    for header in [EC.header(), r#"{"alg":"ES256"}"#.into()] {
        assert_eq!(verdict(&EC.sign(&header, &payload), &issuers, NOW).unwrap_err(), TokenKey);
    }
}

#[test]
fn an_rsa_key_without_alg_takes_the_issuers_algorithms() {
    let mut jwk = RSA.jwk();
    jwk.as_object_mut().unwrap().remove("alg");
    let jwks = json!({"keys": [jwk]}).to_string();
    for (pinned, want) in [
        (&[Algorithm::Rs256][..], Ok(())),
        (&[Algorithm::Ps256, Algorithm::Rs256], Ok(())),
        (&[Algorithm::Ps256, Algorithm::Es256], Err(Reason::TokenAlgorithm)),
    ] {
        let (keys, faults) = KeySet::parse(jwks.as_bytes(), pinned).unwrap();
        assert_eq!(faults, []);
        assert_eq!(verdict(&RSA.token(&good_claims()), &[issuer(keys)], NOW).map(drop), want, "{pinned:?}");
    }
}
