//! The proof that a program does all that it is timed for.

use serde_json::{Map, Value, json};

use super::{Algorithm, Policy, ask, request};
use crate::{Error, peers::Kind, target::Target};

struct Case<'a> {
    name: &'static str,
    head: String,
    status: u16,
    /// Where a program refuses with another status.
    unless: Option<(Kind, u16)>,
    /// What the workload must have been told: the origin answers with the tenant.
    tenant: Option<&'a str>,
}

impl Policy {
    /// That `target` lets the good ones pass, names the tenant over a forged one, refuses the bad ones, and logs them all.
    pub(crate) fn check(&self, target: &Target) -> Result<(), Error> {
        let algorithms = [Algorithm::Es256, Algorithm::Rs256].map(|algorithm| self.cases(algorithm));
        let cases: Vec<_> = algorithms.into_iter().chain([self.spent()]).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
        enforce(target, &cases)
    }

    fn cases(&self, algorithm: Algorithm) -> Result<Vec<Case<'static>>, Error> {
        const OWN: &str = "/tenants/acme/orders/17";
        let good = self.token(algorithm, "acme", "check", |_| {})?;
        let acme =
            |change: fn(&mut Map<String, Value>)| self.token(algorithm, "acme", "check", change).map(|token| request(OWN, Some(&token)));
        let stranger = self.token(algorithm, "stranger", "check", |_| {})?;
        Ok(vec![
            allowed("a good token, a forged tenant header", "acme", request(OWN, Some(&good))),
            allowed("the same token again, from the cache", "acme", request(OWN, Some(&good))),
            public(),
            refused("no token", 401, request(OWN, None)),
            refused("a signature that is another's", 401, request(OWN, Some(&forge(&good)))),
            refused("expired", 401, acme(|claims| drop(claims.insert("exp".into(), json!(1_000_000_000))))?),
            refused("another issuer", 401, acme(|claims| drop(claims.insert("iss".into(), json!("https://evil.example/"))))?),
            Case {
                unless: Some((Kind::Envoy, 403)),
                ..refused("another audience", 401, acme(|claims| drop(claims.insert("aud".into(), json!("other"))))?)
            },
            refused("no scope", 403, acme(|claims| drop(claims.remove("scope")))?),
            refused("another tenant's path", 403, request("/tenants/quiet/orders/17", Some(&good))),
            refused("a tenant that is not served here", 403, request("/tenants/stranger/orders/17", Some(&stranger))),
        ])
    }

    /// The same for the policy of many tenants: the first and the last of them are served, and none in another's place.
    pub(crate) fn check_tenants(&self, target: &Target, tenants: &[String]) -> Result<(), Error> {
        let (Some(first), Some(last)) = (tenants.first(), tenants.last()) else { return Ok(()) };
        let token = |tenant: &str, change: fn(&mut Map<String, Value>)| self.token(Algorithm::Es256, tenant, "check", change);
        let path = |tenant: &str| format!("/tenants/{tenant}/orders/17");
        let good = token(first, |_| {})?;
        let cases = [
            allowed("the first tenant", first, request(&path(first), Some(&good))),
            allowed("the last tenant", last, request(&path(last), Some(&token(last, |_| {})?))),
            refused("no token", 401, request(&path(first), None)),
            refused("a signature that is another's", 401, request(&path(first), Some(&forge(&good)))),
            refused("no scope", 403, request(&path(first), Some(&token(first, |claims| drop(claims.remove("scope")))?))),
            refused("another tenant's path", 403, request(&path("tenant-none"), Some(&good))),
            refused("a tenant that nobody knows", 403, request(&path("stranger"), Some(&token("stranger", |_| {})?))),
        ];
        enforce(target, &cases)
    }

    /// Once for each process: it uses a limit up.
    fn spent(&self) -> Result<Vec<Case<'static>>, Error> {
        let ask = || self.request(Algorithm::Es256, "spent", "check");
        Ok(vec![allowed("the first request of a limit of one", "spent", ask()?), refused("the second", 429, ask()?)])
    }
}

/// That `target` passes a request on and takes the forged tenant header away.
pub(crate) fn check_plain(target: &Target) -> Result<(), Error> {
    enforce(target, &[public()])
}

fn enforce(target: &Target, cases: &[Case<'_>]) -> Result<(), Error> {
    for case in cases {
        let wanted = match case.unless {
            Some((kind, status)) if kind == target.kind => status,
            _ => case.status,
        };
        let (got, body) = ask(target.address, &case.head).map_err(Error::io(format!("{}: {}", target.name, case.name)))?;
        if got != wanted || case.tenant.is_some_and(|tenant| tenant != body) {
            return Err(Error::NotEnforced { target: target.name.clone(), case: case.name, wanted, got, body });
        }
    }
    target.check_log(cases.len())
}

fn allowed<'a>(name: &'static str, tenant: &'a str, head: String) -> Case<'a> {
    Case { name, head, status: 200, unless: None, tenant: Some(tenant) }
}

fn refused(name: &'static str, status: u16, head: String) -> Case<'static> {
    Case { name, head, status, unless: None, tenant: None }
}

fn public() -> Case<'static> {
    allowed("a public path, a forged tenant header", "", request("/public/hello", None))
}

/// The same token with the first character of its signature changed.
fn forge(token: &str) -> String {
    let (signed, signature) = token.rsplit_once('.').unwrap_or((token, ""));
    let other = if signature.starts_with('A') { 'B' } else { 'A' };
    format!("{signed}.{other}{}", signature.get(1..).unwrap_or_default())
}
