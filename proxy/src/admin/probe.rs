//! Whether the sidecar that runs is ready, asked by another process of its user: what a container without a shell has for a startup probe.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::Duration,
};

use super::address::{AdminAddress, Place};

/// For each of connecting, asking and each read; a probe is asked again.
const PATIENCE: Duration = Duration::from_secs(1);
/// The reply names what is waited for.
const MAX_REPLY_BYTES: u64 = 8 * 1024;
const READYZ: &[u8] = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Why the sidecar is not ready, as far as it says.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    #[error("no sidecar answers at {address}: {error}")]
    Silent { address: AdminAddress, error: io::Error },
    #[error("not ready: {0}")]
    Told(String),
}

impl AdminAddress {
    /// Asks `/readyz` there; blocks.
    pub fn is_ready(&self) -> Result<(), NotReady> {
        let asked = match &self.0 {
            Place::Unix(path) => UnixStream::connect(path).and_then(|stream| {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                ask(stream)
            }),
            Place::Tcp(address) => TcpStream::connect_timeout(address, PATIENCE).and_then(|stream| {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                ask(stream)
            }),
        };
        let reply = asked.map_err(|error| NotReady::Silent { address: self.clone(), error })?;
        if reply.starts_with("HTTP/1.1 200 ") {
            return Ok(());
        }
        let said = reply.split_once("\r\n\r\n").map_or(reply.as_str(), |(_, body)| body);
        Err(NotReady::Told(said.trim().to_owned()))
    }
}

fn ask(mut stream: impl Read + Write) -> io::Result<String> {
    stream.write_all(READYZ)?;
    let mut reply = Vec::new();
    stream.take(MAX_REPLY_BYTES).read_to_end(&mut reply)?;
    Ok(String::from_utf8_lossy(&reply).into_owned())
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    #[test]
    fn what_the_endpoint_says_is_told() {
        for (reply, wanted) in [
            ("HTTP/1.1 200 OK\r\n\r\nready\n", None),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\nwaiting for config\n", Some("not ready: waiting for config")),
            ("HTTP/1.1 200", Some("not ready: HTTP/1.1 200")),
            ("", Some("not ready: ")),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address: AdminAddress = listener.local_addr().unwrap().to_string().parse().unwrap();
            let serving = thread::spawn(move || {
                let mut stream = listener.accept().unwrap().0;
                stream.read_exact(&mut [0; READYZ.len()]).unwrap();
                stream.write_all(reply.as_bytes()).unwrap();
            });
            assert_eq!(address.is_ready().err().map(|error| error.to_string()).as_deref(), wanted);
            serving.join().unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let address: AdminAddress = format!("unix:{}", dir.path().join("admin.sock").display()).parse().unwrap();
        assert!(matches!(address.is_ready(), Err(NotReady::Silent { .. })));
    }
}
