//! Takes an accepted connection; yields where it was going before the kernel redirected it. Never knows whether it may go there.

use std::{io, net::SocketAddr, os::fd::AsFd};

use rustix::{
    io::Errno,
    net::{getsockname, sockopt},
};

/// `None`: nobody redirected it, it was meant for this listener, which is bound to `bound`. A connection over IPv4 to a listener of both
/// families has an IPv4 address. The workload chose the address; it proves nothing.
pub fn original_destination(connection: impl AsFd, bound: SocketAddr) -> io::Result<Option<SocketAddr>> {
    let connection = connection.as_fd();
    // A listener of one address accepts for no other.
    let local = if bound.ip().to_canonical().is_unspecified() { SocketAddr::try_from(getsockname(connection)?)? } else { bound };
    let local = SocketAddr::new(local.ip().to_canonical(), local.port());
    let original = if local.is_ipv4() {
        sockopt::ip_original_dst(connection).map(SocketAddr::V4)
    } else {
        sockopt::ipv6_original_dst(connection).map(SocketAddr::V6)
    };
    match original {
        // Where conntrack looks at all connections, it has an entry of this one too.
        Ok(original) => Ok(Some(original).filter(|original| (original.ip(), original.port()) != (local.ip(), local.port()))),
        // No entry; no conntrack.
        Err(Errno::NOENT | Errno::NOPROTOOPT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_that_nobody_redirected_has_none() {
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let bound = listener.local_addr().unwrap();
            for ip in ["127.0.0.1", "::1"] {
                let Ok(_stream) = TcpStream::connect(SocketAddr::new(ip.parse().unwrap(), bound.port())) else { continue };
                let (accepted, _) = listener.accept().unwrap();
                assert_eq!(original_destination(&accepted, bound).unwrap(), None, "{ip} to {address}");
            }
        }
    }
}
