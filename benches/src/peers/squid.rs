//! Squid, a forward proxy.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use super::{Kind, Program, directory, egress::Egress, find, write};
use crate::{Error, process::free_address};

const CONFIGURATION: &str = include_str!("../../peers/squid.conf");

/// `None`: it is not installed.
pub(super) fn connect(dir: &Path, egress: &Egress) -> Result<Option<Program>, Error> {
    let Some(path) = find("squid") else { return Ok(None) };
    // Root's Squid becomes another user, who is to find its files and write there.
    fs::set_permissions(dir, Permissions::from_mode(0o755)).map_err(Error::io(dir.display().to_string()))?;
    let dir = directory(dir, "squid")?;
    fs::set_permissions(&dir, Permissions::from_mode(0o777)).map_err(Error::io(dir.display().to_string()))?;
    let (file, log, address) = (dir.join("squid.conf"), dir.join("access.log"), free_address()?);
    write(&dir.join("names"), &egress.lines(|name| format!("{name}\n")), &[])?;
    write(&dir.join("hosts"), &egress.lines(|name| format!("127.0.0.1 {name}\n")), &[])?;
    let fill = [("DIR", dir.display().to_string()), ("LISTEN", address.to_string()), ("UPSTREAM_PORT", egress.upstream.port().to_string())];
    write(&file, CONFIGURATION, &fill)?;
    let arguments = ["-N".into(), "-f".into(), file.into()].to_vec();
    let name = "squid".into();
    Ok(Some(Program { kind: Kind::Squid, name, address, http2: address, path, arguments, log: Some(log), logs_to_stdout: false }))
}
