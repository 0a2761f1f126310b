//! Takes a connection; yields where it was going before the kernel brought it here.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use rustix::{
    io::Errno,
    net::sockopt::{ip_original_dst, ipv6_original_dst},
};
use tokio::net::TcpStream;

/// `None`: nobody redirected it.
pub(super) fn original_destination(stream: &TcpStream) -> io::Result<Option<SocketAddr>> {
    let original = match stream.local_addr()?.ip().to_canonical() {
        IpAddr::V4(_) => ip_original_dst(stream).map(SocketAddr::V4),
        IpAddr::V6(_) => ipv6_original_dst(stream).map(SocketAddr::V6),
    };
    match original {
        Ok(original) => Ok(Some(original)),
        Err(Errno::NOENT | Errno::NOTCONN | Errno::NOPROTOOPT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
