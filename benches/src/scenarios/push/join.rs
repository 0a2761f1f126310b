//! Join tokens, asked for as `ringfence join` does: of the control plane's socket for operators, but without a process for each.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::{fs::OpenOptionsExt, net::UnixStream},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{Error, sidecars::Tls};

/// They are used before.
const TTL_SECONDS: u32 = 600;

/// Where the control plane says that its socket is.
#[derive(Deserialize)]
struct Pointer {
    socket: PathBuf,
}

#[derive(Deserialize)]
struct Reply {
    token: String,
}

/// One for each sidecar, into its state directory, which is made. `own`: the control plane's own directory; `workloads`: whom each serves.
pub(super) fn give_tokens<'a>(own: &Path, tls: &Tls, workloads: impl Iterator<Item = &'a String>) -> Result<(), Error> {
    let pointer = own.join("control-plane.json");
    let pointer: Pointer = serde_json::from_slice(&fs::read(&pointer).map_err(Error::io(pointer.display().to_string()))?)?;
    for (number, workload) in workloads.enumerate() {
        let token = token(&pointer.socket, workload)?;
        let path = tls.join_token(number);
        let written = fs::create_dir(tls.state(number)).and_then(|()| write_private(&path, &token));
        written.map_err(Error::io(path.display().to_string()))?;
    }
    Ok(())
}

fn token(socket: &Path, workload: &str) -> Result<String, Error> {
    let body = format!(r#"{{"workload":"{workload}","ttlSeconds":{TTL_SECONDS}}}"#);
    let asked = UnixStream::connect(socket).and_then(|mut stream| {
        write!(stream, "POST /join HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    });
    let answer = asked.map_err(Error::io("a join token"))?;
    let body = answer.starts_with("HTTP/1.1 200 ").then(|| answer.split_once("\r\n\r\n")).flatten().map(|(_, body)| body);
    let reply: Reply = serde_json::from_str(body.ok_or_else(|| Error::Unexpected(format!("no join token: {answer}")))?)?;
    Ok(reply.token)
}

/// As the sidecar wants it: its owner's alone.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}
