//! HAProxy: a plain reverse proxy, one that enforces the policy, and a relay of bytes.

use std::{net::SocketAddr, path::Path};

use super::{Kind, Program, directory, find, write};
use crate::{
    Error,
    policy::{Algorithm, Issuer},
    process::free_address,
};

const PLAIN: &str = include_str!("../../peers/haproxy-plain.cfg");
const POLICY: &str = include_str!("../../peers/haproxy-policy.cfg");
const BULK: &str = include_str!("../../peers/haproxy-bulk.cfg");

/// `None`, here and below: it is not installed.
pub(crate) fn plain(dir: &Path, upstream: SocketAddr) -> Result<Option<Program>, Error> {
    program("haproxy", &directory(dir, "haproxy-plain")?, PLAIN, upstream, "")
}

pub(crate) fn policy(dir: &Path, upstream: SocketAddr, issuer: &Issuer) -> Result<Option<Program>, Error> {
    let dir = directory(dir, "haproxy-policy")?;
    for algorithm in [Algorithm::Es256, Algorithm::Rs256] {
        write(&dir.join(format!("{algorithm}.pem")), &issuer.pem(algorithm)?, &[])?;
    }
    program("haproxy, policy", &dir, POLICY, upstream, "")
}

pub(crate) fn bulk(dir: &Path, upstream: SocketAddr, splice: bool) -> Result<Option<Program>, Error> {
    let (name, option) = if splice { ("haproxy, splice", "option splice-auto") } else { ("haproxy", "") };
    let file = if splice { "haproxy-splice" } else { "haproxy-bulk" };
    let program = program(name, &directory(dir, file)?, BULK, upstream, option)?;
    Ok(program.map(|program| Program { log: None, ..program }))
}

pub(super) fn program(name: &str, dir: &Path, template: &str, upstream: SocketAddr, option: &str) -> Result<Option<Program>, Error> {
    let Some(path) = find("haproxy") else { return Ok(None) };
    let (file, listen, http2) = (dir.join("haproxy.cfg"), free_address()?, free_address()?);
    let fill = [
        ("LISTEN", listen.to_string()),
        ("LISTEN_HTTP2", http2.to_string()),
        ("UPSTREAM", upstream.to_string()),
        ("DIR", dir.display().to_string()),
        ("OPTION", option.to_owned()),
    ];
    write(&file, template, &fill)?;
    let arguments = ["-db".into(), "-f".into(), file.into()].to_vec();
    let log = Some(dir.join("access.log"));
    Ok(Some(Program { kind: Kind::Haproxy, name: name.into(), address: listen, http2, path, arguments, log, logs_to_stdout: true }))
}
