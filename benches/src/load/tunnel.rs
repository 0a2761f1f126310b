//! New connections, one after the other, each to a name: opened, asked for the name, answered by what the name leads to, and closed.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream as Blocking},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    crypto::aws_lc_rs::{
        default_provider,
        kx_group::{X25519, X25519MLKEM768},
    },
    pki_types::ServerName,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::Run;
use crate::{Error, site::ANSWER};

/// How long one answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST_HEAD: usize = 4096;

/// How a program learns where a connection is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Asks {
    /// By CONNECT to the name and this port, and then the TLS in the tunnel.
    Connect { port: u16 },
    /// By the name in the TLS alone.
    Tls,
}

impl Asks {
    fn connect(self, name: &str) -> Option<String> {
        match self {
            Asks::Connect { port } => Some(format!("CONNECT {name}:{port} HTTP/1.1\r\nHost: {name}:{port}\r\n\r\n")),
            Asks::Tls => None,
        }
    }
}

/// What opens one connection.
pub(super) struct Opening {
    connect: Option<String>,
    hello: Vec<u8>,
}

pub(super) fn openings(names: &[String], asks: Asks) -> Result<Vec<Opening>, Error> {
    let config = config()?;
    names.iter().map(|name| Ok(Opening { connect: asks.connect(name), hello: hello(name, &config)? })).collect()
}

/// One connection at a time until none is left.
pub(super) async fn caller(run: Rc<Run>, openings: Rc<[Opening]>) {
    while let Some((number, from)) = run.next().await {
        match exchange(run.load.address, &openings[number % openings.len()]).await {
            Ok(status) => run.answered(from, status),
            Err(_) => run.failed(),
        }
    }
}

/// 200, or the status with which CONNECT is refused. TLS that is refused has none: it ends.
async fn exchange(address: SocketAddr, opening: &Opening) -> io::Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    if let Some(connect) = &opening.connect {
        stream.write_all(connect.as_bytes()).await?;
        let mut head = Vec::with_capacity(256);
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() > LONGEST_HEAD || stream.read_buf(&mut head).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let status = status(&head)?;
        if status != 200 {
            return Ok(status);
        }
    }
    stream.write_all(&opening.hello).await?;
    match stream.read_u8().await? {
        ANSWER => Ok(200),
        other => Err(unexpected(other)),
    }
}

/// Opens one connection and holds it: a ClientHello has been answered on it. Refused: the error says how.
pub(crate) fn open(address: SocketAddr, name: &str, asks: Asks) -> io::Result<Blocking> {
    let hello = config().and_then(|config| hello(name, &config)).map_err(io::Error::other)?;
    let mut stream = Blocking::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut octet = [0];
    if let Some(connect) = asks.connect(name) {
        stream.write_all(connect.as_bytes())?;
        // No octet more than the head: the tunnel's come behind it.
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && head.len() < LONGEST_HEAD {
            stream.read_exact(&mut octet)?;
            head.push(octet[0]);
        }
        match status(&head)? {
            200 => {}
            status => return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("CONNECT is answered {status}"))),
        }
    }
    stream.write_all(&hello)?;
    stream.read_exact(&mut octet)?;
    if octet[0] == ANSWER { Ok(stream) } else { Err(unexpected(octet[0])) }
}

fn status(head: &[u8]) -> io::Result<u16> {
    let status = head.get(9..12).and_then(|status| std::str::from_utf8(status).ok()?.parse().ok());
    status.ok_or_else(|| io::Error::other(String::from_utf8_lossy(head).into_owned()))
}

fn unexpected(octet: u8) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("a ClientHello is answered {octet:#04x}"))
}

/// As browsers ask: with a key share for ML-KEM, so that a ClientHello has some 1,400 octets.
fn config() -> Result<Arc<ClientConfig>, Error> {
    let provider = rustls::crypto::CryptoProvider { kx_groups: vec![X25519MLKEM768, X25519], ..default_provider() };
    let builder = ClientConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| Error::Load(error.to_string()))?;
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth().into())
}

fn hello(name: &str, config: &Arc<ClientConfig>) -> Result<Vec<u8>, Error> {
    let server = ServerName::try_from(name.to_owned()).map_err(|error| Error::Load(error.to_string()))?;
    let mut client = ClientConnection::new(config.clone(), server).map_err(|error| Error::Load(error.to_string()))?;
    let mut hello = Vec::new();
    client.write_tls(&mut hello).map_err(Error::io("ClientHello"))?;
    Ok(hello)
}
