//! What is accepted and what is refused, with the reason.

use serde_json::json;

use super::mint::*;
use crate::{
    Reason,
    identify::{IssuerPolicy, MAX_TOKEN_BYTES, bearer, claims::accept},
};

type Verdict = Result<(), Reason>;

fn judge(token: &str) -> Verdict {
    verdict(token, &[issuer(key_set(&[&EC, &ED, &RSA]))], NOW).map(drop)
}

#[test]
fn one_bearer_token_in_one_field() {
    use Reason::{TokenMalformed as Malformed, TokenMissing as Missing};
    let fits = format!("Bearer {}", "x".repeat(MAX_TOKEN_BYTES));
    let too_long = format!("Bearer {}", "x".repeat(MAX_TOKEN_BYTES + 1));
    let cases: &[(&[&str], Result<&str, Reason>)] = &[
        (&["Bearer a.b.c"], Ok("a.b.c")),
        (&["bEARER a.b-c_~+/=="], Ok("a.b-c_~+/==")),
        (&[&fits], Ok(&fits[7..])),
        (&[], Err(Missing)),
        (&[""], Err(Missing)),
        (&["Basic dTpw"], Err(Missing)),
        (&["Bearerx a"], Err(Missing)),
        (&["Bearer\ta"], Err(Missing)),
        (&[" Bearer a"], Err(Missing)),
        (&["Bearer"], Err(Malformed)),
        (&["Bearer "], Err(Malformed)),
        (&["Bearer  a"], Err(Malformed)),
        (&["Bearer a "], Err(Malformed)),
        (&["Bearer a b"], Err(Malformed)),
        (&["Bearer a,b"], Err(Malformed)),
        (&["Bearer ="], Err(Malformed)),
        (&["Bearer a=b"], Err(Malformed)),
        (&["Bearer ä"], Err(Malformed)),
        (&["Bearer a\0"], Err(Malformed)),
        (&[&too_long], Err(Malformed)),
        (&["Bearer a", "Bearer a"], Err(Malformed)),
        (&["Bearer a", "Basic dTpw"], Err(Malformed)),
        (&["Basic dTpw", "Bearer a"], Err(Malformed)),
    ];
    for (values, want) in cases {
        let got = bearer(values.iter().map(|value| value.as_bytes())).map_err(|deny| deny.reason);
        assert_eq!(got, *want, "{values:?}");
    }
    assert_eq!(bearer([&b"Bearer \xff"[..]]).unwrap_err().reason, Malformed);
}

#[test]
fn claims() {
    use Reason::*;
    let ok = Ok(());
    let cases: &[(&str, Option<&str>, Verdict)] = &[
        ("jti", Some("1"), ok),
        ("iss", None, Err(TokenIssuer)),
        ("iss", Some(r#""https://idp.test""#), Err(TokenIssuer)),
        ("iss", Some(r#""HTTPS://idp.test/""#), Err(TokenIssuer)),
        ("iss", Some(r#""""#), Err(TokenIssuer)),
        ("iss", Some(r#""https:\/\/idp.test\/""#), ok),
        ("iss", Some("null"), Err(TokenMalformed)),
        ("iss", Some(r#"["https://idp.test/"]"#), Err(TokenMalformed)),
        ("aud", None, Err(TokenAudience)),
        ("aud", Some(r#""api2""#), ok),
        ("aud", Some(r#"["x","api"]"#), ok),
        ("aud", Some("[]"), Err(TokenAudience)),
        ("aud", Some(r#""API""#), Err(TokenAudience)),
        ("aud", Some(r#""api ""#), Err(TokenAudience)),
        ("aud", Some(r#""x,api""#), Err(TokenAudience)),
        ("aud", Some(r#"["api",1]"#), Err(TokenMalformed)),
        ("aud", Some(r#"[["api"]]"#), Err(TokenMalformed)),
        ("aud", Some(r#"{"api":1}"#), Err(TokenMalformed)),
        ("aud", Some("null"), Err(TokenMalformed)),
        ("exp", None, Err(TokenMalformed)),
        ("exp", Some("null"), Err(TokenMalformed)),
        ("exp", Some("true"), Err(TokenMalformed)),
        ("exp", Some(r#""1800000300""#), Err(TokenMalformed)),
        ("exp", Some(r#""2030-01-01T00:00:00Z""#), Err(TokenMalformed)),
        ("exp", Some("[1800000300]"), Err(TokenMalformed)),
        ("exp", Some("1e999"), Err(TokenMalformed)),
        ("exp", Some("NaN"), Err(TokenMalformed)),
        ("exp", Some("Infinity"), Err(TokenMalformed)),
        ("exp", Some("-1"), Err(TokenExpired)),
        ("exp", Some("-1e300"), Err(TokenExpired)),
        ("exp", Some("0"), Err(TokenExpired)),
        ("exp", Some("1800000300.5"), ok),
        ("exp", Some("1.8000003e9"), ok),
        ("exp", Some("1e300"), ok),
        ("exp", Some("18446744073709551615"), ok),
        ("exp", Some("18446744073709551616"), ok),
        ("nbf", Some(r#""1799999990""#), Err(TokenMalformed)),
        ("nbf", Some("null"), Err(TokenMalformed)),
        ("nbf", Some("1e300"), Err(TokenNotYetValid)),
        ("nbf", Some("-5"), ok),
        ("iat", None, ok),
        ("iat", Some("{}"), Err(TokenMalformed)),
        ("iat", Some("1800003600"), Err(TokenNotYetValid)),
        ("sub", None, ok),
        ("sub", Some("7"), Err(TokenMalformed)),
        ("sub", Some("null"), Err(TokenMalformed)),
        // A member twice: at the top, escaped, deeper down.
        ("x", Some(r#"1,"org":"globex""#), Err(TokenMalformed)),
        ("x", Some(r#"1,"\u006frg":"globex""#), Err(TokenMalformed)),
        ("x", Some(r#"{"y":[{"z":1,"z":2}]}"#), Err(TokenMalformed)),
        ("x", Some(r#""\ud800""#), Err(TokenMalformed)),
    ];
    for (name, raw, want) in cases {
        assert_eq!(judge(&EC.token(&claims_with(name, *raw))), *want, "{name}: {raw:?}");
    }
    for payload in ["", "[]", "1", "null", "{", "\u{feff}{}", "x"] {
        assert_eq!(judge(&EC.token(payload)), Err(TokenMalformed), "{payload:?}");
    }
    // Whoever is asked for a verdict on claims judges the issuer too, not only whose keys to try.
    let foreign = claims_with("iss", Some(r#""https://foreign.test/""#));
    assert_eq!(accept(&foreign, &issuer(key_set(&[&EC])), NOW).unwrap_err().reason, TokenIssuer);
    let nested = format!("{}1{}", "[".repeat(500), "]".repeat(500));
    assert_eq!(judge(&EC.token(&claims_with("x", Some(&nested)))), Err(TokenMalformed));
}

#[test]
fn the_clock_at_its_edges() {
    use Reason::*;
    let with_skew = |clock_skew| [IssuerPolicy { clock_skew, ..issuer(key_set(&[&EC])) }];
    let cases: &[(&str, &str, i64, u64, Verdict)] = &[
        ("exp", "1800000000", -1, 0, Ok(())),
        ("exp", "1800000000", 0, 0, Err(TokenExpired)),
        ("exp", "1800000000.5", 0, 0, Ok(())),
        ("exp", "1800000000.5", 1, 0, Err(TokenExpired)),
        ("exp", "1800000000", 29, 30, Ok(())),
        ("exp", "1800000000", 30, 30, Err(TokenExpired)),
        ("nbf", "1800000000", -1, 0, Err(TokenNotYetValid)),
        ("nbf", "1800000000", 0, 0, Ok(())),
        ("nbf", "1800000000.5", 0, 0, Err(TokenNotYetValid)),
        ("nbf", "1800000000", -30, 30, Ok(())),
        ("nbf", "1800000000", -31, 30, Err(TokenNotYetValid)),
        ("iat", "1800000000", -30, 30, Ok(())),
        ("iat", "1800000000", -31, 30, Err(TokenNotYetValid)),
    ];
    for (name, raw, at, skew, want) in cases {
        let payload = claims_with(name, Some(raw));
        let got = verdict(&EC.token(&payload), &with_skew(*skew), NOW.checked_add_signed(*at).unwrap()).map(drop);
        assert_eq!(got, *want, "{name} {raw} at {at} with {skew}");
    }
    // The end of time overflows nothing.
    let token = EC.token(&claims_with("exp", Some("18446744073709551615")));
    assert_eq!(verdict(&token, &with_skew(30), u64::MAX - 1).unwrap().expires_at(), u64::MAX);
    assert_eq!(verdict(&token, &with_skew(30), u64::MAX).unwrap_err(), TokenExpired);
}

#[test]
fn headers() {
    use Reason::*;
    let ok = Ok(());
    let cases: &[(&str, Verdict)] = &[
        (r#"{"alg":"ES256","kid":"ec"}"#, ok),
        (r#" { "alg" : "ES256" , "kid" : "\u0065c" } "#, ok),
        (r#"{"alg":"ES256"}"#, ok),
        (r#"{"alg":"ES256","kid":"ec","x-unknown":{"a":[1]}}"#, ok),
        // Keys in the header are neither followed nor believed, whoever signs.
        (r#"{"alg":"ES256","kid":"ec","jku":"https://evil.test/","jwk":{"kty":"oct"},"x5u":"file:///","x5c":["x"]}"#, ok),
        (r#"{"alg":"ES256","kid":"ec","typ":"jwt"}"#, ok),
        (r#"{"alg":"ES256","kid":"ec","typ":"AT+JWT"}"#, ok),
        (r#"{"alg":"ES256","kid":"ec","typ":"application/at+jwt"}"#, ok),
        (r#"{"alg":"ES256","kid":"ec","typ":"Application/JWT"}"#, ok),
        (r#"{"alg":"ES256","kid":"ec","typ":"JOSE"}"#, Err(TokenMalformed)),
        (r#"{"alg":"ES256","kid":"ec","typ":"secevent+jwt"}"#, Err(TokenMalformed)),
        (r#"{"alg":"ES256","kid":"ec","typ":"dpop+jwt"}"#, Err(TokenMalformed)),
        (r#"{"alg":"ES256","kid":"ec","typ":""}"#, Err(TokenMalformed)),
        (r#"{"alg":"ES256","kid":"ec","typ":null}"#, Err(TokenMalformed)),
        (r#"{"alg":"ES256","kid":"ec","typ":["JWT"]}"#, Err(TokenMalformed)),
        (r#"{"alg":"ES256","kid":"ec","cty":"JWT"}"#, Err(TokenMalformed)),
        (r#"{"alg":"ES256","kid":"ec","cty":"application/jwt"}"#, Err(TokenMalformed)),
        (r#"{"alg":"ES256","kid":"ec","cty":1}"#, Err(TokenMalformed)),
        (r#"{"alg":"ES256","kid":"ec","crit":["exp"],"exp":1}"#, Err(TokenMalformed)),
        (r#"{"alg":"ES256","kid":"ec","crit":[]}"#, Err(TokenMalformed)),
        (r#"{"alg":"ES256","kid":"ec","crit":null}"#, Err(TokenMalformed)),
        (r#"{"alg":"ES256","kid":"ec","crit":["b64"],"b64":false}"#, Err(TokenMalformed)),
        (r#"{"alg":"ES256","kid":"ec","b64":false}"#, Err(TokenMalformed)),
        (r#"{"alg":"ES256","kid":"ec","b64":true}"#, Err(TokenMalformed)),
        (r#"{"alg":"ES256","kid":"ec","zip":"DEF"}"#, Err(TokenMalformed)),
        (r#"{"alg":"ES256","kid":"ec","enc":"A256GCM"}"#, Err(TokenMalformed)),
        (r#"{"kid":"ec"}"#, Err(TokenMalformed)),
        (r#"{"alg":null,"kid":"ec"}"#, Err(TokenMalformed)),
        (r#"{"alg":["ES256"],"kid":"ec"}"#, Err(TokenMalformed)),
        (r#"{"alg":256,"kid":"ec"}"#, Err(TokenMalformed)),
        (r#"{"alg":"ES256","alg":"none","kid":"ec"}"#, Err(TokenMalformed)),
        (r#"{"alg":"ES256","\u0061lg":"ES256","kid":"ec"}"#, Err(TokenMalformed)),
        (r#"{"alg":"ES256","kid":"ec","x":{"y":1,"y":1}}"#, Err(TokenMalformed)),
        (r#"["ES256","ec"]"#, Err(TokenMalformed)),
        ("", Err(TokenMalformed)),
        ("{}", Err(TokenMalformed)),
        (r#"{"alg":"none","kid":"ec"}"#, Err(TokenAlgorithm)),
        (r#"{"alg":"NONE","kid":"ec"}"#, Err(TokenAlgorithm)),
        (r#"{"alg":"","kid":"ec"}"#, Err(TokenAlgorithm)),
        (r#"{"alg":"es256","kid":"ec"}"#, Err(TokenAlgorithm)),
        (r#"{"alg":"HS256","kid":"ec"}"#, Err(TokenAlgorithm)),
        (r#"{"alg":"ES256K","kid":"ec"}"#, Err(TokenAlgorithm)),
        // Real algorithms that are not the key's.
        (r#"{"alg":"RS256","kid":"ec"}"#, Err(TokenAlgorithm)),
        (r#"{"alg":"ES384","kid":"ec"}"#, Err(TokenAlgorithm)),
        (r#"{"alg":"ES256","kid":"rsa"}"#, Err(TokenAlgorithm)),
        (r#"{"alg":"PS256","kid":"rsa"}"#, Err(TokenAlgorithm)),
        (r#"{"alg":"PS256"}"#, Err(TokenAlgorithm)),
        (r#"{"alg":"EdDSA","kid":"ed"}"#, Err(TokenSignature)),
        (r#"{"alg":"RS256"}"#, Err(TokenSignature)),
        (r#"{"alg":"ES256","kid":""}"#, Err(TokenKey)),
        (r#"{"alg":"ES256","kid":"EC"}"#, Err(TokenKey)),
        (r#"{"alg":"ES256","kid":"ec\u0000"}"#, Err(TokenKey)),
        (r#"{"alg":"ES256","kid":"../../../../dev/null"}"#, Err(TokenKey)),
        (r#"{"alg":"ES256","kid":"x' UNION SELECT 'k'--"}"#, Err(TokenKey)),
        (r#"{"alg":"ES256","kid":1}"#, Err(TokenMalformed)),
        (r#"{"alg":"ES256","kid":null}"#, Err(TokenMalformed)),
    ];
    for (header, want) in cases {
        assert_eq!(judge(&EC.sign(header, &good_claims())), *want, "{header}");
    }
}

#[test]
fn forms_and_signatures() {
    use Reason::*;
    let payload = good_claims();
    let good = EC.token(&payload);
    let parts: Vec<_> = good.split('.').collect();
    let [header, body, signature] = parts[..] else { panic!("three parts") };
    let with = |signature: &[u8]| format!("{header}.{body}.{}", b64(signature));
    let raw = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, signature).unwrap();
    // 64 octets leave four unused bits in the last character, so the next one in the alphabet decodes alike where decoding is lax.
    let (kept, last) = signature.split_at(signature.len() - 1);
    let unused_bits = format!("{header}.{body}.{kept}{}", char::from(last.as_bytes()[0] + 1));
    let jwe = [header, "AA", "AA", body, signature].join(".");
    let json = json!({"payload": body, "protected": header, "signature": signature}).to_string();
    let cases = [
        ("good", good.clone(), Ok(())),
        ("EdDSA", ED.token(&payload), Ok(())),
        ("RS256", RSA.token(&payload), Ok(())),
        ("another's key under our kid", STRANGER.token(&payload), Err(TokenSignature)),
        ("payload of another token", format!("{header}.{}.{signature}", b64(claims_with("org", Some(r#""globex""#)))), Err(TokenSignature)),
        ("zero signature (CVE-2022-21449)", with(&[0; 64]), Err(TokenSignature)),
        ("DER signature", EC.sign_der(&EC.header(), &payload), Err(TokenSignature)),
        ("short signature", with(&raw[..63]), Err(TokenSignature)),
        ("long signature", with(&[&raw[..], &[0]].concat()), Err(TokenSignature)),
        ("padded halves", with(&[&[0], &raw[..32], &[0], &raw[32..]].concat()), Err(TokenSignature)),
        ("no signature", format!("{header}.{body}."), Err(TokenMalformed)),
        ("two parts", format!("{header}.{body}"), Err(TokenMalformed)),
        ("four parts", format!("{good}."), Err(TokenMalformed)),
        ("leading dot", format!(".{good}"), Err(TokenMalformed)),
        ("JWE", jwe, Err(TokenMalformed)),
        ("JSON serialisation", json, Err(TokenMalformed)),
        ("detached", format!("{header}..{signature}"), Err(TokenMalformed)),
        ("padding", format!("{good}=="), Err(TokenMalformed)),
        ("payload padded", format!("{header}.{body}=.{signature}"), Err(TokenMalformed)),
        ("unused bits", unused_bits, Err(TokenMalformed)),
        ("standard alphabet", format!("{header}.{body}.+/{}", &signature[2..]), Err(TokenMalformed)),
        ("space before", format!(" {good}"), Err(TokenMalformed)),
        ("line break after", format!("{good}\n"), Err(TokenMalformed)),
        ("line break within", format!("{header}.{body}.\r\n{signature}"), Err(TokenMalformed)),
        ("NUL", format!("{good}\0"), Err(TokenMalformed)),
        ("not ASCII", format!("{good}é"), Err(TokenMalformed)),
        ("empty", String::new(), Err(TokenMalformed)),
        ("dots", "..".into(), Err(TokenMalformed)),
        ("header not UTF-8", format!("{}.{body}.{signature}", b64(b"{\"alg\":\"\xff\"}")), Err(TokenMalformed)),
        ("too long", EC.token(&claims_with("x", Some(&format!("{:?}", "x".repeat(MAX_TOKEN_BYTES))))), Err(TokenMalformed)),
        ("long", EC.token(&claims_with("x", Some(&format!("{:?}", "x".repeat(MAX_TOKEN_BYTES / 2))))), Ok(())),
    ];
    for (what, token, want) in cases {
        assert_eq!(judge(&token), want, "{what}");
    }
}
