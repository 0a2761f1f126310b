//! `ringfence token`: a token of a directory's development issuer. Development only: who can read the key can be any tenant.

use std::{
    io::{self, Write},
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use serde_json::{Map, Value, json};

use super::{DEFAULT_DIR, say};
use crate::{
    quickstart::{DEV_KEY_FILE, DevKey, KeyError},
    spec::{self, IssuerSpec, Kind, Object, Parsed, Spec},
};

#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    /// Directory of YAML files, one of them an Issuer with dev-issuer.key.pem beside it
    #[arg(long, default_value = DEFAULT_DIR)]
    dir: PathBuf,
    /// The tenant's name; one that the directory does not know is put into the token as it is
    #[arg(long)]
    tenant: String,
    /// The token's `sub`
    #[arg(long, default_value = "dev-user")]
    subject: String,
    /// How long it is valid: N with s, m, h or d
    #[arg(long, default_value = "1h", value_parser = duration)]
    ttl: Duration,
    /// OAuth scopes, separated by spaces
    #[arg(long)]
    scope: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    #[error("cannot read {}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("{}: {error}", path.display())]
    Key { path: PathBuf, error: KeyError },
    #[error("no Issuer in {} has a {DEV_KEY_FILE} beside it that its JWK set knows (`ringfence validate` tells faults)", .0.display())]
    NoDevIssuer(PathBuf),
    #[error("the issuer's tenantClaim {0:?} descends into another claim")]
    TenantClaim(String),
    #[error("the system's clock is before 1970, or the token would outlive it")]
    Clock,
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

pub(super) fn run(args: &TokenArgs, out: &mut impl Write) -> Result<(), TokenError> {
    let parsed = spec::read_directory(&args.dir).map_err(|error| TokenError::Read { path: args.dir.clone(), error })?;
    let (name, issuer, key) = dev_issuer(&parsed, args)?;
    let value = tenant_value(&parsed, name, &args.tenant).unwrap_or_else(|| {
        say(&format!("ringfence: warning: no tenant {:?} of issuer {name:?} in {}", args.tenant, args.dir.display()));
        &args.tenant
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| TokenError::Clock)?;
    let token = sign(&key, &claims(args, issuer, value, now)?)?;
    writeln!(out, "{token}")?;
    Ok(())
}

fn sign((path, key): &(PathBuf, DevKey), claims: &Map<String, Value>) -> Result<String, TokenError> {
    key.sign(claims).map_err(|error| TokenError::Key { path: path.clone(), error })
}

/// The first issuer with the development key beside its file, where the sidecars would accept what that key signs.
fn dev_issuer<'a>(parsed: &'a Parsed, args: &TokenArgs) -> Result<(&'a str, &'a IssuerSpec, (PathBuf, DevKey)), TokenError> {
    for object in &parsed.objects {
        let Spec::Issuer(issuer) = &object.spec else { continue };
        let path = object.resolve(DEV_KEY_FILE);
        let pem = match spec::read_bounded(&path) {
            Ok(pem) => pem,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(TokenError::Read { path, error }),
        };
        let key = DevKey::from_pem(&pem).map_err(|error| TokenError::Key { path: path.clone(), error })?;
        if knows(issuer, key.kid()) {
            return Ok((&object.key.name, issuer, (path, key)));
        }
    }
    Err(TokenError::NoDevIssuer(args.dir.clone()))
}

fn knows(issuer: &IssuerSpec, kid: &str) -> bool {
    let set: Value = serde_json::from_slice(&issuer.jwks.text).unwrap_or_default();
    set["keys"].as_array().into_iter().flatten().any(|key| key["kid"] == kid)
}

/// What the issuer's tokens say of `tenant`: the first value that means it.
fn tenant_value<'a>(parsed: &'a Parsed, issuer: &str, tenant: &str) -> Option<&'a str> {
    let is_the_tenant = |object: &&std::sync::Arc<Object>| object.key.kind == Kind::Tenant && &*object.key.name == tenant;
    let object = parsed.objects.iter().find(is_the_tenant)?;
    let Spec::Tenant(spec) = &object.spec else { return None };
    let identity = spec.identity.iter().find(|identity| identity.issuer == issuer)?;
    match &identity.values {
        Some(values) => values.first().map(String::as_str),
        None => Some(&object.key.name),
    }
}

/// `now`: since the Unix epoch.
fn claims(args: &TokenArgs, issuer: &IssuerSpec, tenant: &str, now: Duration) -> Result<Map<String, Value>, TokenError> {
    let expires_at = now.checked_add(args.ttl).ok_or(TokenError::Clock)?;
    let mut claims = Map::new();
    claims.insert("iss".into(), json!(issuer.issuer));
    claims.insert("aud".into(), json!(issuer.audiences.first()));
    claims.insert("sub".into(), json!(args.subject));
    claims.insert("iat".into(), json!(now.as_secs()));
    claims.insert("exp".into(), json!(expires_at.as_secs()));
    if let Some(scope) = &args.scope {
        claims.insert("scope".into(), json!(scope));
    }
    let descends = || TokenError::TenantClaim(issuer.tenant_claim.clone());
    let (parents, last) = match issuer.tenant_claim.rsplit_once('.') {
        Some((parents, last)) => (Some(parents), last),
        None => (None, issuer.tenant_claim.as_str()),
    };
    let mut object = &mut claims;
    for parent in parents.into_iter().flat_map(|parents| parents.split('.')) {
        object = object.entry(parent).or_insert_with(|| json!({})).as_object_mut().ok_or_else(descends)?;
    }
    object.insert(last.into(), json!(tenant));
    Ok(claims)
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    const WANTED: &str = "must be a whole number with s, m, h or d, e.g. 1h";
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or(WANTED)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(WANTED.into()),
    };
    let number: u32 = number.parse().map_err(|_| WANTED)?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

/// For the tests of commands that take tokens.
#[cfg(test)]
pub(super) fn for_test(dir: &std::path::Path, tenant: &str, scope: Option<&str>) -> String {
    let (dir, ttl) = (dir.to_owned(), Duration::from_secs(60));
    let args = TokenArgs { dir, tenant: tenant.into(), subject: "alice".into(), ttl, scope: scope.map(Into::into) };
    let mut out = Vec::new();
    run(&args, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, fs};

    use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, jwk::JwkSet};

    use super::*;
    use crate::quickstart;

    fn quickstart_args(dir: &std::path::Path, tenant: &str) -> TokenArgs {
        let ttl = Duration::from_secs(60);
        TokenArgs { dir: dir.to_owned(), tenant: tenant.into(), subject: "alice".into(), ttl, scope: Some("admin read".into()) }
    }

    fn token(args: &TokenArgs) -> Result<String, TokenError> {
        let mut out = Vec::new();
        run(args, &mut out)?;
        let line = String::from_utf8(out).unwrap();
        assert_eq!(line.matches('\n').count(), 1, "the token alone, on one line");
        Ok(line.trim_end().to_owned())
    }

    fn verified(dir: &std::path::Path, token: &str) -> Map<String, Value> {
        let set: JwkSet = serde_json::from_slice(&fs::read(dir.join("dev-issuer.jwks.json")).unwrap()).unwrap();
        let kid = decode_header(token).unwrap().kid.unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&["ringfence-quickstart"]);
        validation.set_issuer(&["https://dev.ringfence.example"]);
        validation.required_spec_claims = HashSet::from(["exp", "iss", "aud"].map(String::from));
        decode(token, &DecodingKey::from_jwk(set.find(&kid).unwrap()).unwrap(), &validation).unwrap().claims
    }

    #[test]
    fn a_token_is_what_the_quickstart_accepts() {
        let dir = tempfile::tempdir().unwrap();
        quickstart::write(dir.path()).unwrap();
        let claims = verified(dir.path(), &token(&quickstart_args(dir.path(), "acme")).unwrap());
        assert_eq!((&claims["tenant"], &claims["sub"], &claims["scope"]), (&json!("org_acme"), &json!("alice"), &json!("admin read")));
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 60);
        // Unknown: its bare name.
        let claims = verified(dir.path(), &token(&quickstart_args(dir.path(), "initech")).unwrap());
        assert_eq!(claims["tenant"], "initech");
    }

    #[test]
    fn the_tenant_claim_descends_by_dots() {
        let dir = tempfile::tempdir().unwrap();
        quickstart::write(dir.path()).unwrap();
        let file = dir.path().join("dev-issuer.yaml");
        let with_claim = |claim: &str| {
            let text = include_str!("../quickstart/dev-issuer.yaml");
            fs::write(&file, text.replace("tenantClaim: tenant", &format!("tenantClaim: {claim}"))).unwrap();
            token(&quickstart_args(dir.path(), "globex"))
        };
        assert_eq!(verified(dir.path(), &with_claim("app.org.id").unwrap())["app"], json!({"org": {"id": "org_globex"}}));
        assert!(matches!(with_claim("iss.org"), Err(TokenError::TenantClaim(_))));
    }

    #[test]
    fn a_key_that_the_issuer_does_not_know_signs_nothing() {
        let dir = tempfile::tempdir().unwrap();
        quickstart::write(dir.path()).unwrap();
        fs::write(dir.path().join(DEV_KEY_FILE), DevKey::generate().unwrap().to_pem()).unwrap();
        assert!(matches!(token(&quickstart_args(dir.path(), "acme")), Err(TokenError::NoDevIssuer(_))));
        fs::write(dir.path().join(DEV_KEY_FILE), "no key").unwrap();
        assert!(matches!(token(&quickstart_args(dir.path(), "acme")), Err(TokenError::Key { .. })));
    }

    #[test]
    fn durations_are_read_strictly() {
        for (text, seconds) in [("1h", 3600), ("45s", 45), ("2m", 120), ("1d", 86_400), ("0s", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "h", "1", "-1s", "1.5h", "1 h", "1w", "99999999999s", "1é"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
