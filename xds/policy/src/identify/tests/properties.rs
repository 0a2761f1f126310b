//! What holds for every input.

use std::sync::LazyLock;

use proptest::{prelude::*, sample::Index};

use super::mint::*;
use crate::identify::{IssuerPolicy, bearer, keys::Algorithm, keys::KeySet, verify};

static ISSUERS: LazyLock<[IssuerPolicy; 1]> = LazyLock::new(|| [issuer(key_set(&[&EC, &ED, &RSA]))]);
static TOKENS: LazyLock<[String; 3]> = LazyLock::new(|| [EC.token(&good_claims()), ED.token(&good_claims()), RSA.token(&good_claims())]);

fn json_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_string()),
        Just("true".to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| n.to_string()),
        "[a-z\\\\\"\u{0}-\u{1f}]{0,6}".prop_map(|s| format!("{s:?}")),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let name = prop_oneof!["iss|aud|exp|nbf|iat|sub|org|alg|kid|typ|crit", "[a-c]"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|all| format!("[{}]", all.join(","))),
            prop::collection::vec((name, inner), 0..6)
                .prop_map(|all| { format!("{{{}}}", all.iter().map(|(n, v)| format!("{n:?}:{v}")).collect::<Vec<_>>().join(",")) }),
        ]
    })
}

proptest! {
    #[test]
    fn a_token_that_was_touched_is_refused(which in 0..3usize, at: Index, to in 0..128u8, edit in 0..3u8) {
        let token = &TOKENS[which];
        prop_assert!(verify(token, &*ISSUERS, NOW).is_ok());
        let mut bytes = token.clone().into_bytes();
        let at = at.index(bytes.len());
        match edit {
            0 => bytes[at] = to,
            1 => bytes.insert(at, to),
            _ => drop(bytes.remove(at)),
        }
        let touched = String::from_utf8(bytes).unwrap();
        prop_assume!(touched != *token);
        prop_assert!(verify(&touched, &*ISSUERS, NOW).is_err());
    }

    #[test]
    fn no_input_panics(text in "\\PC{0,200}", bytes: Vec<u8>) {
        prop_assert!(verify(&text, &*ISSUERS, NOW).is_err());
        let _ = bearer([&bytes[..]]);
        let _ = bearer([&[b"Bearer ", &bytes[..]].concat()[..]]);
        prop_assert!(KeySet::parse(&bytes, &Algorithm::ALL).is_err());
    }

    #[test]
    fn no_header_and_no_claims_panic(header in json_text(), payload in json_text()) {
        let _ = verify(&EC.sign(&header, &payload), &*ISSUERS, NOW);
        if let Ok(claims) = verify(&EC.token(&payload), &*ISSUERS, NOW) {
            prop_assert!(claims.expires_at() > NOW);
        }
        let _ = KeySet::parse(payload.as_bytes(), &Algorithm::ALL);
        let _ = KeySet::parse(format!(r#"{{"keys":[{payload}]}}"#).as_bytes(), &Algorithm::ALL);
    }

    /// Quarters are exact in a double, so integers tell what is right.
    #[test]
    fn times_compare_exactly(exp in -400i64..400, nbf in -400i64..400) {
        let quarters = |offset: i64| format!("{}.{:02}", NOW.checked_add_signed(offset.div_euclid(4)).unwrap(), 25 * offset.rem_euclid(4));
        let with_exp = claims_with("exp", Some(&quarters(exp)));
        let payload = format!(r#"{},"nbf":{}}}"#, with_exp.trim_end_matches('}'), quarters(nbf));
        let skew = 4 * SKEW as i64;
        let good = 0 < exp + skew && nbf <= skew;
        prop_assert_eq!(verify(&EC.token(&payload), &*ISSUERS, NOW).is_ok(), good);
    }
}
