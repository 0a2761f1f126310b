//! Envoy: a plain reverse proxy, one that enforces the policy, and one that does so for many tenants.

use std::{fs, net::SocketAddr, path::Path};

use super::{Kind, Program, directory, each_tenant, find, write};
use crate::{Error, policy::Issuer, process::free_address};

const PLAIN: &str = include_str!("../../peers/envoy-plain.yaml");
const POLICY: &str = include_str!("../../peers/envoy-policy.yaml");
const TENANTS: &str = include_str!("../../peers/envoy-tenants.yaml");
/// As many tokens as Ringfence remembers of this size, and some more.
const CACHE: &str = "jwt_cache_config: { jwt_cache_size: 10000 }";

/// `None`, here and below: it is not installed.
pub(crate) fn plain(dir: &Path, upstream: SocketAddr) -> Result<Option<Program>, Error> {
    program("envoy", &directory(dir, "envoy-plain")?, PLAIN, upstream, "")
}

/// `caches`: it remembers tokens that it has verified.
pub(crate) fn policy(dir: &Path, upstream: SocketAddr, issuer: &Issuer, caches: bool) -> Result<Option<Program>, Error> {
    let (name, file, cache) =
        if caches { ("envoy, policy, JWT cache", "envoy-caching", CACHE) } else { ("envoy, policy", "envoy-policy", "") };
    let dir = directory(dir, file)?;
    keys(&dir, issuer)?;
    program(name, &dir, POLICY, upstream, cache)
}

/// One issuer, its cache on, and for each tenant a path, a scope and a limit of its own.
pub(crate) fn tenants(dir: &Path, upstream: SocketAddr, issuer: &Issuer, tenants: &[String]) -> Result<Option<Program>, Error> {
    let dir = directory(dir, &format!("envoy-{}", tenants.len()))?;
    keys(&dir, issuer)?;
    program("envoy, JWT cache", &dir, &each_tenant(TENANTS, tenants.iter().map(|tenant| &**tenant)), upstream, CACHE)
}

fn keys(dir: &Path, issuer: &Issuer) -> Result<(), Error> {
    fs::write(dir.join("jwks.json"), issuer.jwks()?.to_string()).map_err(Error::io("jwks.json"))
}

pub(super) fn program(name: &str, dir: &Path, template: &str, upstream: SocketAddr, cache: &str) -> Result<Option<Program>, Error> {
    let Some(path) = find("envoy") else { return Ok(None) };
    let (file, address, log) = (dir.join("envoy.yaml"), free_address()?, dir.join("access.log"));
    let fill = [
        ("PORT", address.port().to_string()),
        ("UPSTREAM_PORT", upstream.port().to_string()),
        ("DIR", dir.display().to_string()),
        ("JWT_CACHE", cache.to_owned()),
    ];
    write(&file, template, &fill)?;
    let arguments = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "--file-flush-interval-msec", "1000", "-c"];
    let arguments = arguments.map(Into::into).into_iter().chain([file.into()]).collect();
    Ok(Some(Program {
        kind: Kind::Envoy,
        name: name.into(),
        address,
        http2: address,
        path,
        arguments,
        log: Some(log),
        logs_to_stdout: false,
    }))
}
