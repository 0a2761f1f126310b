//! The shared corpora, where they are at hand. Each is judged whole; what is not as its label says stands in a table here, with the reason.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use super::mint::*;
use crate::identify::{
    IssuerPolicy,
    keys::{Algorithm, KeySet},
    token::Jws,
    verify,
};

/// `RINGFENCE_CORPORA`, else `../shared/corpora` beside the repository.
fn corpora() -> Option<PathBuf> {
    let root = match std::env::var_os("RINGFENCE_CORPORA") {
        Some(path) => path.into(),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpora")),
    };
    if root.is_dir() {
        return Some(root);
    }
    println!("skipped: no corpora");
    None
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn parse(path: PathBuf) -> Value {
    serde_json::from_str(&read(path)).unwrap()
}

#[test]
fn attacks() {
    /// Rows that leave the choice to the policy, and what ours is.
    const CHOICES: &[(&str, bool)] = &[
        ("kid-absent", true),              // tried against the keys of its algorithm, a handful at most
        ("typ-JOSE", false),               // says "some JWS", not "a JWT"
        ("payload-lone-surrogate", false), // no Unicode text
        ("claim-exp-ms", true),            // no rule on lifetimes: they are the issuer's affair
        ("claim-iat-future", false),
        ("many-claims", false), // over 8 KiB
    ];
    let Some(root) = corpora() else { return };
    let (keys, faults) = KeySet::parse(read(root.join("jwt/jwks.json")).as_bytes(), &Algorithm::ALL).unwrap();
    // Encryption, 1024 bits, symmetric, unknown kty, broken base64.
    assert_eq!((keys.len(), faults.len()), (4, 5), "{faults:?}");
    let issuer = IssuerPolicy {
        issuer: "https://idp.example/".into(),
        audiences: vec!["ringfence".into()],
        tenant_claim: vec!["tenant".into()],
        clock_skew: 0,
        ..issuer(keys)
    };

    let (mut accepted, mut refused, mut chosen, mut wrong) = (0, 0, 0, Vec::new());
    for line in read(root.join("jwt/attacks.jsonl")).lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let (id, verdict) = (row["id"].as_str().unwrap(), row["verdict"].as_str().unwrap());
        let got = verify(row["jwt"].as_str().unwrap(), [&issuer], row["now"].as_u64().unwrap());
        // Tokens that hold, but for a tenant that is not bound to anybody, are refused one stage later.
        let good = got.as_ref().is_ok_and(|claims| claims.tenant_value() == Some("t1"));
        let want = match verdict {
            "accept" => true,
            "reject" => false,
            _ => {
                chosen += 1;
                CHOICES.iter().find(|(choice, _)| *choice == id).map_or(good, |(_, want)| *want)
            }
        };
        if good {
            accepted += 1
        } else {
            refused += 1
        }
        if good != want {
            wrong.push(format!("{id} ({verdict}): {got:?}"));
        }
    }
    println!("attacks: {accepted} accepted, {refused} refused, {chosen} of them by choice");
    assert_eq!(wrong, [""; 0]);
    assert!(accepted > 0 && refused > 0);
}

/// Whether a JWS verifies under a key or key set of a Wycheproof group.
fn verifies(keys: &Value, jws: &Value) -> Result<(), String> {
    let set =
        if keys.get("keys").is_some() { keys.clone() } else { json!({"keys": if keys.is_array() { keys.clone() } else { json!([keys]) }}) };
    let (keys, _) = KeySet::parse(set.to_string().as_bytes(), &Algorithm::ALL)?;
    let token = jws.as_str().map_or_else(|| jws.to_string(), str::to_string);
    let jws = Jws::parse(&token).map_err(|deny| deny.to_string())?;
    keys.verify(&jws).map_err(|deny| deny.to_string())
}

/// `not_as_labelled`: the valid tests that we refuse besides the symmetric ones, which are all refused.
fn wycheproof(file: &str, not_as_labelled: &[(u64, &str)]) {
    let Some(root) = corpora() else { return };
    let (mut valid, mut invalid, mut symmetric, mut encrypted, mut known, mut wrong) = (0, 0, 0, 0, 0, Vec::new());
    for group in parse(root.join("jwt/wycheproof").join(file))["testGroups"].as_array().unwrap() {
        let keys = group.get("public").or_else(|| group.get("private")).unwrap();
        let is_symmetric = keys.to_string().contains(r#""kty":"oct""#);
        for test in group["tests"].as_array().unwrap() {
            let id = test["tcId"].as_u64().unwrap();
            let got = verifies(keys, test.get("jws").or_else(|| test.get("jwe")).unwrap());
            let is_jwe = test.get("jwe").is_some();
            let exempt = not_as_labelled.iter().any(|(known, _)| *known == id);
            let want = test["result"] == "valid" && !is_symmetric && !is_jwe && !exempt;
            match () {
                () if got.is_ok() != want => wrong.push(format!("{id} {} {}: {got:?}", test["comment"], test["result"])),
                () if is_jwe => encrypted += 1,
                () if is_symmetric => symmetric += 1,
                () if exempt => known += 1,
                () if want => valid += 1,
                () => invalid += 1,
            }
            if is_jwe {
                assert!(Jws::parse(test["jwe"].as_str().unwrap_or("{}")).is_err(), "{id}");
            }
        }
    }
    println!(
        "{file}: {valid} valid pass, {invalid} invalid refused; refused as not ours: {symmetric} symmetric, {encrypted} encrypted, {known} otherwise"
    );
    assert_eq!(wrong, [""; 0]);
    assert_eq!(known, not_as_labelled.len());
}

#[test]
fn wycheproof_signatures() {
    wycheproof(
        "json_web_signature_test.json",
        &[
            (346, "the key's alg says PS256, the token PS384: a key is for one algorithm (RFC 8725 §3.1)"),
            (350, "as 346"),
            (347, "P-521 is not among our algorithms, and the key's alg is misspelt ES521"),
            (351, "as 347"),
        ],
    );
}

#[test]
fn wycheproof_keys() {
    wycheproof("json_web_key_test.json", &[]);
}

#[test]
fn wycheproof_crypto() {
    wycheproof("json_web_crypto_test.json", &[]);
}

#[test]
fn rfc_examples() {
    const APPLY: &[(&str, Result<(), &str>)] = &[
        ("jws-4_1.rsa_v15_signature.json", Ok(())),
        ("jws-4_2.rsa-pss_signature.json", Ok(())),
        ("curve25519-jws.json", Ok(())),
        ("jws-4_3.ecdsa_signature.json", Err("P-521 is not among our algorithms")),
        ("jws-4_4.hmac-sha2_integrity_protection.json", Err("symmetric")),
        ("jws-4_5.signature_with_detached_content.json", Err("symmetric, detached")),
        ("jws-4_6.protecting_specific_header_fields.json", Err("symmetric, JSON serialisation")),
        ("jws-4_7.protecting_content_only.json", Err("symmetric, JSON serialisation")),
        ("jws-4_8.multiple_signatures.json", Err("JSON serialisation")),
        ("rfc7797-4.2.hmac-sha2_b64_false.json", Err("symmetric, JSON serialisation, unencoded payload")),
        ("rfc7797-hmac-sha2_b64_false.json", Err("symmetric, unencoded payload")),
    ];
    let Some(root) = corpora() else { return };
    for (file, want) in APPLY {
        let example = parse(root.join("jwt/rfc7520").join(file));
        let mut keys = example["input"]["key"].clone();
        for key in keys.as_array_mut().map_or_else(Vec::new, |keys| keys.iter_mut().collect()) {
            without_private_members(key);
        }
        without_private_members(&mut keys);
        let output = &example["output"];
        let jws = output.get("compact").unwrap_or(&output["json"]);
        let got = verifies(&keys, jws);
        assert_eq!(got.is_ok(), want.is_ok(), "{file}: {got:?}");
    }
    println!("rfc7520: {} verify, {} do not apply", 3, APPLY.len() - 3);
}

fn without_private_members(key: &mut Value) {
    if let Some(members) = key.as_object_mut() {
        members.retain(|name, _| !["d", "p", "q", "dp", "dq", "qi"].contains(&name.as_str()));
    }
}

#[test]
fn key_sets_of_identity_providers() {
    let Some(root) = corpora() else { return };
    let mut sets = 0;
    for entry in fs::read_dir(root.join("realdata/jwks")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        if !name.contains("-jwks") {
            continue;
        }
        let (keys, faults) = KeySet::parse(&fs::read(&path).unwrap(), &Algorithm::ALL).unwrap_or_else(|error| panic!("{name}: {error}"));
        println!("{name}: {} usable, set aside: {faults:?}", keys.len());
        // Keycloak's set holds an encryption key, the sample an RSA key of 2040 bits.
        let aside = usize::from(["keycloak-jwks.json", "sample-jwks_eddsa.json"].contains(&&*name));
        assert_eq!(faults.len(), aside, "{name}: {faults:?}");
        sets += 1;
    }
    assert!(sets > 0);
}
