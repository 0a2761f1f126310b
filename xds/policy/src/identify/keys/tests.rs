use serde_json::{Value, json};

use super::{
    super::tests::mint::{EC, ED, RSA, Signer, b64},
    *,
};

fn parse(keys: Vec<Value>) -> Result<(KeySet, Vec<KeyFault>), String> {
    KeySet::parse(json!({"keys": keys, "issuer": "ignored"}).to_string().as_bytes(), &Algorithm::ALL)
}

fn with(mut jwk: Value, name: &str, value: Value) -> Value {
    jwk[name] = value;
    jwk
}

fn rsa(bits: usize, last: u8, e: &[u8]) -> Value {
    let mut n = vec![0xc5; bits / 8];
    n[bits / 8 - 1] = last;
    json!({"kty": "RSA", "n": b64(n), "e": b64(e)})
}

#[test]
fn unusable_keys_are_set_aside_alone() {
    let ec = || EC.jwk();
    let ed = |x: &[u8]| json!({"kty": "OKP", "crv": "Ed25519", "x": b64(x)});
    let mut order_8 = [0; 32];
    order_8.copy_from_slice(&[
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6,
        0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x85,
    ]);
    let sound_n = RSA.jwk()["n"].as_str().unwrap().to_string();
    let good: Vec<Value> = vec![
        ec(),
        ED.jwk(),
        RSA.jwk(),
        with(ec(), "alg", Value::Null),
        with(ec(), "use", Value::Null),
        with(ec(), "kid", Value::Null),
        with(ec(), "key_ops", json!(["sign", "verify"])),
        with(ec(), "x5c", json!(["!"])),
        with(RSA.jwk(), "alg", json!("PS512")),
        with(RSA.jwk(), "e", json!(b64([3]))),
        rsa(2048, 1, &[1, 0, 1]),
        rsa(8192, 1, &[1, 0, 1]),
    ];
    let bad: Vec<(Value, &str)> = vec![
        (json!("key"), "invalid type"),
        (json!([]), "object"),
        (json!({}), "kty"),
        (json!({"kty": 1}), "invalid type"),
        (json!({"kty": "oct", "k": "AAAA"}), "symmetric"),
        (json!({"kty": "future"}), "kty: must be"),
        (with(ec(), "d", json!("AAAA")), "private key"),
        (with(RSA.jwk(), "p", json!("AAAA")), "private key"),
        (with(RSA.jwk(), "qi", json!(1)), "private key"),
        (with(ec(), "use", json!("enc")), "use: must be sig"),
        (with(ec(), "key_ops", json!(["encrypt"])), "key_ops"),
        (with(ec(), "key_ops", json!([])), "key_ops"),
        (with(ec(), "key_ops", json!("verify")), "invalid type"),
        (with(ec(), "crv", json!("P-521")), "crv: must be P-256 or P-384"),
        (with(ec(), "crv", json!("secp256k1")), "crv: must be P-256 or P-384"),
        (with(ec(), "crv", json!("P-384")), "x: must be 48 octets"),
        (with(ec(), "crv", Value::Null), "crv"),
        (with(ec(), "x", json!("!!!")), "x: must be base64url"),
        (with(ec(), "x", json!("AAAA")), "x: must be 32 octets"),
        (with(ec(), "y", Value::Null), "y: is required"),
        (with(ec(), "y", json!(b64([7; 32]))), "point of the curve"),
        (with(with(ec(), "x", json!(b64([0; 32]))), "y", json!(b64([0; 32]))), "point of the curve"),
        (with(ec(), "alg", json!("RS256")), "does not suit"),
        (with(ec(), "alg", json!("ES384")), "does not suit"),
        (with(ec(), "alg", json!("HS256")), "asymmetric"),
        (with(ec(), "alg", json!("ES521")), "alg: must be one of"),
        (with(RSA.jwk(), "alg", json!("RSA-OAEP")), "alg: must be one of"),
        (with(RSA.jwk(), "alg", json!("EdDSA")), "does not suit"),
        (with(RSA.jwk(), "kty", json!("EC")), "crv"),
        (with(RSA.jwk(), "n", json!(format!("{sound_n}="))), "n: must be base64url"),
        (with(RSA.jwk(), "e", json!(b64([1]))), "e: must be odd"),
        (with(RSA.jwk(), "e", json!(b64([2]))), "e: must be odd"),
        (with(RSA.jwk(), "e", json!(b64([0]))), "e: must be odd"),
        (with(RSA.jwk(), "e", json!(b64([1, 0, 0, 0, 1]))), "e: must be odd"),
        (rsa(1024, 1, &[1, 0, 1]), "not 1024"),
        (rsa(2040, 1, &[1, 0, 1]), "not 2040"),
        (rsa(8200, 1, &[1, 0, 1]), "not 8200"),
        (rsa(2048, 2, &[1, 0, 1]), "n: must be odd"),
        (json!({"kty": "RSA", "n": b64(roca_modulus()), "e": "AQAB"}), "CVE-2017-15361"),
        (json!({"kty": "RSA", "n": "", "e": "AQAB"}), "not 0"),
        (json!({"kty": "RSA", "e": "AQAB"}), "n: is required"),
        (with(ED.jwk(), "crv", json!("Ed448")), "crv: must be Ed25519"),
        (with(ED.jwk(), "crv", json!("X25519")), "crv: must be Ed25519"),
        (ed(&[1; 31]), "x: must be 32 octets"),
        (ed(&[0; 32]), "small order"),
        (ed(&[&[1][..], &[0; 31]].concat()), "small order"),
        (ed(&[&[0xec][..], &[0xff; 30], &[0x7f]].concat()), "small order"),
        (ed(&[&[0xee][..], &[0xff; 31]].concat()), "small order"),
        (ed(&order_8), "small order"),
    ];
    for key in good {
        let (set, faults) = parse(vec![key.clone()]).unwrap();
        assert_eq!((set.len(), faults), (1, vec![]), "{key}");
    }
    for (key, want) in &bad {
        let (set, faults) = parse(vec![key.clone(), ec()]).unwrap();
        assert_eq!((set.len(), faults.len()), (1, 1), "{key}");
        assert_eq!(faults[0].index, 0);
        assert!(faults[0].reason.contains(want), "{key}: {}", faults[0].reason);
        assert!(parse(vec![key.clone()]).unwrap_err().contains(want), "{key}");
    }
    let total = bad.len();
    let (_, faults) = parse(bad.into_iter().map(|(key, _)| key).chain([ec()]).collect()).unwrap();
    assert_eq!(faults.iter().map(|fault| fault.index).collect::<Vec<_>>(), (0..total).collect::<Vec<_>>());
}

/// 65537^128, which has 2049 bits: what the generator of CVE-2017-15361 makes is such a power modulo every small prime.
fn roca_modulus() -> Vec<u8> {
    (0..128).fold(vec![1], |number, _| {
        let shifted = number.iter().copied().chain([0, 0]).rev();
        let added = number.iter().copied().rev().chain(std::iter::repeat(0));
        let mut carry = 0;
        let mut product: Vec<u8> = shifted
            .zip(added)
            .map(|(a, b)| {
                let sum = u16::from(a) + u16::from(b) + carry;
                carry = sum >> 8;
                sum as u8
            })
            .collect();
        product.extend((carry > 0).then_some(carry as u8));
        product.reverse();
        product
    })
}

#[test]
fn an_octet_of_sign_before_a_modulus_changes_nothing() {
    let n = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, RSA.jwk()["n"].as_str().unwrap()).unwrap();
    let signed = with(RSA.jwk(), "n", json!(b64([&[0], &n[..]].concat())));
    let (keys, _) = parse(vec![signed]).unwrap();
    let token = RSA.token("{}");
    assert!(keys.verify(&Jws::parse(&token).unwrap()).is_ok());
}

#[test]
fn keys_outside_the_issuers_algorithms_are_set_aside() {
    let jwks = json!({"keys": [EC.jwk(), ED.jwk(), RSA.jwk()]}).to_string();
    let (set, faults) = KeySet::parse(jwks.as_bytes(), &[Algorithm::EdDsa]).unwrap();
    assert_eq!((set.len(), faults.iter().map(|fault| fault.index).collect::<Vec<_>>()), (1, vec![0, 2]));
    assert!(KeySet::parse(jwks.as_bytes(), &[Algorithm::Es384]).unwrap_err().contains("none of the issuer's algorithms"));
    assert!(KeySet::parse(jwks.as_bytes(), &[]).is_err());
}

#[test]
fn a_document_that_is_no_key_set_is_an_error() {
    let key = EC.jwk().to_string();
    let twice = key.replacen('{', r#"{"kid":"other","#, 1);
    let cases: Vec<(String, Result<usize, &str>)> = vec![
        (format!(r#"{{"keys":[{key}]}}"#), Ok(1)),
        (format!("\n {{\"x\":1,\"keys\":[{key}],\"x\":2}} "), Ok(1)),
        (format!(r#"{{"keys":[{twice},{key}]}}"#), Ok(1)),
        (String::new(), Err("JWK set")),
        ("null".into(), Err("JWK set")),
        ("{}".into(), Err("keys")),
        (key.clone(), Err("keys")),
        (format!("[[{key}]]"), Err("JWK set")),
        (r#"{"keys":{}}"#.into(), Err("JWK set")),
        (r#"{"keys":null}"#.into(), Err("JWK set")),
        (r#"{"keys":[]}"#.into(), Err("empty")),
        (format!(r#"{{"keys":[{key}],"keys":[{key}]}}"#), Err("duplicate")),
        (format!(r#"{{"keys":[{key}"#), Err("JWK set")),
        (format!(r#"{{"keys":[{key}]}}x"#), Err("JWK set")),
        (format!("\u{feff}{{\"keys\":[{key}]}}"), Err("JWK set")),
        (format!(r#"{{"keys":[{}]}}"#, vec!["{}"; MAX_KEYS + 1].join(",")), Err("256")),
        (format!(r#"{{"keys":[{key}]}}{}"#, " ".repeat(MAX_KEY_SET_BYTES)), Err("1 MiB")),
    ];
    for (text, want) in cases {
        let shown: String = text.chars().take(80).collect();
        match (KeySet::parse(text.as_bytes(), &Algorithm::ALL), want) {
            (Ok((set, _)), Ok(count)) => assert_eq!(set.len(), count, "{shown}"),
            (Err(error), Err(part)) => assert!(error.contains(part), "{shown}: {error}"),
            (got, want) => panic!("{shown}: {got:?}, not {want:?}"),
        }
    }
    assert!(KeySet::parse(b"{\"keys\":[\"\xff\"]}", &Algorithm::ALL).is_err());
}

#[test]
fn a_kid_stands_on_a_handful_of_keys_at_most() {
    let twins: Vec<Value> = (0..MAX_CANDIDATES + 2).map(|_| Signer::ec("twin").jwk()).collect();
    let (set, faults) = parse(twins).unwrap();
    assert_eq!((set.len(), faults.len()), (MAX_CANDIDATES, 2));
    assert!(faults[0].reason.contains("kid"));
}
