//! What verified claims tell a policy.

use super::mint::*;
use crate::identify::{IssuerPolicy, verify};

#[test]
fn what_verified_claims_tell() {
    let claims = |name: &str, raw: &str| verdict(&EC.token(&claims_with(name, Some(raw))), &[issuer(key_set(&[&EC]))], NOW).unwrap();
    let plain = claims("jti", "1");
    assert_eq!((plain.subject(), plain.tenant_value()), (Some("someone"), Some("acme")));
    assert_eq!((plain.issuer().as_str(), plain.expires_at()), ("corp", NOW + 300 + SKEW));

    for (raw, want) in [
        (r#""acme""#, Some("acme")),
        (r#""\u0061cme""#, Some("acme")),
        (r#"" acme""#, Some(" acme")),
        (r#""""#, None),
        (r#""a\r\nx: y""#, None),
        (r#""a\u0000""#, None),
        (r#""a\u0085""#, None),
        (r#"["acme"]"#, None),
        (r#"{"id":"acme"}"#, None),
        ("7", None),
        ("true", None),
        ("null", None),
    ] {
        assert_eq!(claims("org", raw).tenant_value(), want, "{raw}");
    }
    let nested = IssuerPolicy { tenant_claim: vec!["app".into(), "org".into()], ..issuer(key_set(&[&EC])) };
    for (name, raw, want) in [
        ("app", r#"{"org":"acme"}"#, Some("acme")),
        ("app", r#""org""#, None),
        ("app", r#"[{"org":"acme"}]"#, None),
        ("app.org", r#""acme""#, None),
    ] {
        let token = EC.token(&claims_with(name, Some(raw)));
        assert_eq!(verify(&token, [&nested], NOW).unwrap().tenant_value(), want, "{name}: {raw}");
    }

    for (name, raw, wanted, want) in [
        ("scope", r#""read admin""#, "admin", true),
        ("scope", r#""read admin""#, "read", true),
        ("scope", r#""read admin""#, "adm", false),
        ("scope", r#""read admin""#, "Admin", false),
        ("scope", r#""read admin""#, "read admin", false),
        ("scope", r#""read  admin""#, "", false),
        ("scope", r#""\u0061dmin""#, "admin", true),
        ("scope", r#"["admin"]"#, "admin", false),
        ("scope", "1", "1", false),
        ("scp", r#""read admin""#, "admin", true),
        ("scp", r#"["read","admin"]"#, "admin", true),
        ("scp", r#"["read admin"]"#, "admin", false),
        ("scp", r#"["read admin","write"]"#, "write", true),
        ("scp", r#"["read\u0020admin"]"#, "admin", false),
        ("scp", r#"["admin",1]"#, "admin", false),
        ("scp", r#"{"admin":true}"#, "admin", false),
        ("roles", r#"["admin"]"#, "admin", false),
    ] {
        assert_eq!(claims(name, raw).has_scope(wanted), want, "{name}: {raw} has {wanted:?}");
    }

    let rich = claims("plan", r#"{"tier":"gold","seats":5,"ratio":0.50,"trial":false,"tags":["a"],"none":null}"#);
    for (path, want) in [
        ("sub", Some("someone")),
        ("plan.tier", Some("gold")),
        ("plan.seats", Some("5")),
        ("plan.ratio", Some("0.50")),
        ("plan.trial", Some("false")),
        ("plan.tags", None),
        ("plan.none", None),
        ("plan", None),
        ("plan.tier.x", None),
        ("absent", None),
        ("", None),
    ] {
        assert_eq!(rich.claim(path).as_deref(), want, "{path}");
    }
}
