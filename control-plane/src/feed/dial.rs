//! A host's name -> a connection. It is resolved once, all that it resolves to is checked, and exactly that is dialled: a name that
//! somebody else controls must not make the control plane speak with what only the control plane can reach.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ringfence_policy::address::AddressClass;
use rustls_pki_types::ServerName;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};

#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("cannot resolve {host}: {error}")]
    Resolve { host: String, error: io::Error },
    #[error("{host} has no address")]
    NoAddress { host: String },
    #[error("{address} ({}) must not be dialled", class.as_str())]
    Forbidden { address: IpAddr, class: AddressClass },
    #[error("{address} ({}) is not dialled without dangerousAllowPrivate: true", class.as_str())]
    Private { address: IpAddr, class: AddressClass },
    #[error("cannot connect to {address}: {error}")]
    Connect { address: SocketAddr, error: io::Error },
}

/// Addresses that may be dialled, one at least. Made by the check alone.
#[derive(Debug)]
pub(super) struct Checked(Vec<SocketAddr>);

pub(super) async fn resolve(name: &ServerName<'_>, port: u16, allow_private: bool) -> Result<Checked, DialError> {
    let host: &str = &name.to_str();
    let addresses = match name {
        ServerName::IpAddress(address) => vec![SocketAddr::new((*address).into(), port)],
        _ => match lookup_host((host, port)).await {
            Ok(addresses) => addresses.collect(),
            Err(error) => return Err(DialError::Resolve { host: host.into(), error }),
        },
    };
    if addresses.is_empty() {
        return Err(DialError::NoAddress { host: host.into() });
    }
    check(addresses, allow_private)
}

/// One bad address spoils all: a name of both kinds is one that somebody is playing with.
pub(super) fn check(addresses: Vec<SocketAddr>, allow_private: bool) -> Result<Checked, DialError> {
    for address in addresses.iter().map(SocketAddr::ip) {
        match AddressClass::of(address) {
            AddressClass::Public => {}
            AddressClass::Private | AddressClass::Loopback if allow_private => {}
            class @ (AddressClass::Private | AddressClass::Loopback) => return Err(DialError::Private { address, class }),
            class => return Err(DialError::Forbidden { address, class }),
        }
    }
    Ok(Checked(addresses))
}

/// The first that answers. Each has an equal share of `patience`, so that one which is silent does not cost the others theirs.
pub(super) async fn dial(addresses: &Checked, patience: Duration) -> Result<TcpStream, DialError> {
    let share = patience / u32::try_from(addresses.0.len()).unwrap_or(u32::MAX);
    let mut last = None;
    for &address in &addresses.0 {
        let connected = timeout(share, TcpStream::connect(address)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match connected {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(DialError::Connect { address, error }),
        }
    }
    Err(last.unwrap_or(DialError::NoAddress { host: String::new() }))
}
