//! The policy that is timed, the tokens and requests that meet it, and the proof that it is enforced.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ringfence_control_plane::quickstart::DevKey;
use serde_json::{Map, Value, json};

use crate::Error;

pub(crate) const WORKLOAD: &str = "bench-api";
/// A workload that only goes out.
pub(crate) const OUTBOUND: &str = "bench-out";
const OBJECTS: &str = include_str!("../../peers/ringfence-policy.yaml");
const JWKS: &str = "issuer.jwks.json";
const TOKEN_LIFE: Duration = Duration::from_secs(3600);
const ANSWER: Duration = Duration::from_secs(5);

pub(crate) struct Policy {
    key: DevKey,
    /// Unix seconds.
    now: u64,
}

struct Case {
    name: &'static str,
    head: String,
    status: u16,
    /// What the workload must have been told: the origin answers with the tenant.
    tenant: Option<&'static str>,
}

impl Policy {
    /// Writes the objects into `dir`, with an issuer of this run's own.
    pub(crate) fn write(dir: &Path, listen: SocketAddr, egress: SocketAddr, upstream: SocketAddr) -> Result<Self, Error> {
        let key = DevKey::generate()?;
        let fill = [
            ("JWKS", JWKS.to_owned()),
            ("LISTEN", listen.to_string()),
            ("EGRESS", egress.to_string()),
            ("UPSTREAM_PORT", upstream.port().to_string()),
            ("UPSTREAM", upstream.to_string()),
        ];
        let objects = fill.iter().fold(OBJECTS.to_owned(), |text, (name, value)| text.replace(name, value));
        let write = |name: &str, text: &str| fs::write(dir.join(name), text).map_err(Error::io(name));
        write("objects.yaml", &objects)?;
        write(JWKS, &key.jwks()?)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Ok(Self { key, now })
    }

    /// `change` makes a good token another one.
    fn token(&self, tenant: &str, subject: &str, change: impl FnOnce(&mut Map<String, Value>)) -> Result<String, Error> {
        let mut claims = Map::new();
        claims.insert("iss".into(), json!("https://issuer.bench.example/"));
        claims.insert("aud".into(), json!("api.bench.example"));
        claims.insert("sub".into(), json!(subject));
        claims.insert("iat".into(), json!(self.now));
        claims.insert("exp".into(), json!(self.now + TOKEN_LIFE.as_secs()));
        claims.insert("org_id".into(), json!(format!("org_{tenant}")));
        claims.insert("scope".into(), json!("read write"));
        change(&mut claims);
        Ok(self.key.sign(&claims)?)
    }

    /// A request that `tenant`'s policy allows.
    pub(crate) fn request(&self, tenant: &str, subject: &str) -> Result<String, Error> {
        Ok(request(&format!("/tenants/{tenant}/orders/17"), Some(&self.token(tenant, subject, |_| {})?)))
    }

    /// So many requests of acme, each with a token of its own.
    pub(crate) fn requests(&self, series: &str, count: usize) -> Result<Vec<String>, Error> {
        (0..count).map(|number| self.request("acme", &format!("{series}-{number}"))).collect()
    }

    /// That `target` does all that it is timed for: lets the good ones pass, names the tenant over a forged one, refuses the bad ones.
    pub(crate) fn check(&self, target: &'static str, address: SocketAddr) -> Result<(), Error> {
        for case in self.cases()? {
            let (got, body) = ask(address, &case.head).map_err(Error::io(format!("{target}: {}", case.name)))?;
            if got != case.status || case.tenant.is_some_and(|tenant| tenant != body) {
                return Err(Error::NotEnforced { target, case: case.name, wanted: case.status, got, body });
            }
        }
        Ok(())
    }

    fn cases(&self) -> Result<Vec<Case>, Error> {
        const OWN: &str = "/tenants/acme/orders/17";
        let good = self.token("acme", "check", |_| {})?;
        let acme = |change: fn(&mut Map<String, Value>)| self.token("acme", "check", change).map(|token| request(OWN, Some(&token)));
        let of = |tenant| self.token(tenant, "check", |_| {}).map(|token| request(OWN, Some(&token)));
        let refused = |name, status, head| Case { name, head, status, tenant: None };
        let allowed = |name, tenant, head| Case { name, head, status: 200, tenant: Some(tenant) };
        Ok(vec![
            allowed("a good token, a forged tenant header", "acme", request(OWN, Some(&good))),
            allowed("the same token again, from the cache", "acme", request(OWN, Some(&good))),
            allowed("a public path, a forged tenant header", "", request("/public/hello", None)),
            refused("no token", 401, request(OWN, None)),
            refused("a signature that is another's", 401, request(OWN, Some(&forge(&good)))),
            refused("expired", 401, acme(|claims| drop(claims.insert("exp".into(), json!(1_000_000_000))))?),
            refused("another issuer", 401, acme(|claims| drop(claims.insert("iss".into(), json!("https://evil.example/"))))?),
            refused("another audience", 401, acme(|claims| drop(claims.insert("aud".into(), json!("other"))))?),
            refused("no scope", 403, acme(|claims| drop(claims.remove("scope")))?),
            refused("another tenant's path", 403, request("/tenants/quiet/orders/17", Some(&good))),
            refused("a tenant that is not served here", 403, of("stranger")?),
            allowed("the first request of a limit of one", "spent", self.request("spent", "check")?),
            refused("the second", 429, self.request("spent", "check")?),
        ])
    }
}

/// The same token with the first character of its signature changed.
fn forge(token: &str) -> String {
    let (signed, signature) = token.rsplit_once('.').unwrap_or((token, ""));
    let other = if signature.starts_with('A') { 'B' } else { 'A' };
    format!("{signed}.{other}{}", signature.get(1..).unwrap_or_default())
}

/// A request's head. It always claims to be of another tenant.
pub(crate) fn request(path: &str, token: Option<&str>) -> String {
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    format!("GET {path} HTTP/1.1\r\nHost: api.bench.example\r\nX-Ringfence-Tenant: forged\r\n{authorization}\r\n")
}

/// One request on a connection of its own: status and body.
pub(crate) fn ask(address: SocketAddr, head: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(head.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1).as_bytes())?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    let status = reply.get(9..12).and_then(|status| status.parse().ok());
    let parts = status.zip(reply.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()));
    parts.ok_or_else(|| std::io::Error::other(format!("no reply: {reply:?}")))
}
