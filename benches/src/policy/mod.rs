//! The policy that is timed, and the tokens and requests that meet it.

mod check;
mod issuer;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value, json};

pub(crate) use self::check::check_plain;
pub(crate) use self::issuer::{Algorithm, Issuer};
use crate::Error;

const TOKEN_LIFE: Duration = Duration::from_secs(3600);
const ANSWER: Duration = Duration::from_secs(5);

/// Who vouches for tenants in this run.
pub(crate) struct Policy {
    pub(crate) issuer: Issuer,
    /// Unix seconds.
    now: u64,
}

impl Policy {
    pub(crate) fn new() -> Result<Self, Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Ok(Self { issuer: Issuer::generate()?, now })
    }

    /// `change` makes a good token another one.
    fn token(
        &self,
        algorithm: Algorithm,
        tenant: &str,
        subject: &str,
        change: impl FnOnce(&mut Map<String, Value>),
    ) -> Result<String, Error> {
        let mut claims = Map::new();
        claims.insert("iss".into(), json!("https://issuer.bench.example/"));
        claims.insert("aud".into(), json!("api.bench.example"));
        claims.insert("sub".into(), json!(subject));
        claims.insert("iat".into(), json!(self.now));
        claims.insert("exp".into(), json!(self.now + TOKEN_LIFE.as_secs()));
        claims.insert("org_id".into(), json!(tenant));
        claims.insert("scope".into(), json!("read write"));
        change(&mut claims);
        self.issuer.sign(algorithm, &claims)
    }

    /// A request that `tenant`'s policy allows.
    pub(crate) fn request(&self, algorithm: Algorithm, tenant: &str, subject: &str) -> Result<String, Error> {
        Ok(request(&format!("/tenants/{tenant}/orders/17"), Some(&self.token(algorithm, tenant, subject, |_| {})?)))
    }

    /// So many requests of acme, each with a token of its own.
    pub(crate) fn requests(&self, algorithm: Algorithm, series: &str, count: usize) -> Result<Vec<String>, Error> {
        (0..count).map(|number| self.request(algorithm, "acme", &format!("{series}-{number}"))).collect()
    }
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
