//! nginx as a plain reverse proxy. It verifies no tokens in its open edition.

use std::{net::SocketAddr, path::Path};

use super::{Kind, Program, directory, find, write};
use crate::{Error, process::free_address};

const CONFIGURATION: &str = include_str!("../../peers/nginx.conf");

/// `None`: it is not installed.
pub(crate) fn plain(dir: &Path, upstream: SocketAddr) -> Result<Option<Program>, Error> {
    let Some(path) = find("nginx") else { return Ok(None) };
    let dir = directory(dir, "nginx")?;
    let (file, log) = (dir.join("nginx.conf"), dir.join("access.log"));
    let (listen, http2) = (free_address()?, free_address()?);
    let fill = [
        ("DIR", dir.display().to_string()),
        ("LISTEN", listen.to_string()),
        ("LISTEN_HTTP2", http2.to_string()),
        ("UPSTREAM", upstream.to_string()),
    ];
    write(&file, CONFIGURATION, &fill)?;
    let arguments = ["-c".into(), file.into(), "-p".into(), dir.into()].to_vec();
    Ok(Some(Program {
        kind: Kind::Nginx,
        name: "nginx".into(),
        address: listen,
        http2,
        path,
        arguments,
        log: Some(log),
        logs_to_stdout: false,
    }))
}
