//! The sidecar's own listeners: whoever reaches one through the sidecar goes round in it, or meets the admin endpoint.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use arc_swap::ArcSwap;

/// The addresses that this process listens on. Kept by the control side, asked by every decision.
#[derive(Debug, Default)]
pub struct Own {
    /// Not of the policy: the admin endpoint, where it listens on TCP.
    admin: Option<SocketAddr>,
    listeners: ArcSwap<Vec<SocketAddr>>,
}

impl Own {
    pub fn besides(admin: Option<SocketAddr>) -> Self {
        Self { admin, listeners: ArcSwap::default() }
    }

    /// All that the policy in force asks for.
    pub fn set(&self, listeners: Vec<SocketAddr>) {
        self.listeners.store(listeners.into());
    }

    /// Whether a connection to `address` may arrive at one of them: one of their ports, at any address of this host. A listener on another
    /// address of the same port would not be met; that it is refused too is the price of not telling spellings of one host apart.
    pub fn holds(&self, address: SocketAddr) -> bool {
        let is_port = |own: &SocketAddr| own.port() == address.port();
        (self.admin.iter().any(is_port) || self.listeners.load().iter().any(is_port)) && is_of_this_host(address.ip())
    }
}

/// Asks the kernel, whose answer also knows of namespaces, aliases and local routes: a socket can be bound to no other address
/// (ip(7); where `ip_nonlocal_bind` is set, to any, which refuses more than need be).
fn is_of_this_host(address: IpAddr) -> bool {
    let address = address.to_canonical();
    if address.is_unspecified() || address.is_loopback() {
        return true;
    }
    match UdpSocket::bind((address, 0)) {
        Ok(_) => true,
        Err(error) => error.kind() != std::io::ErrorKind::AddrNotAvailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_port_at_any_address_of_this_host_is_ours() {
        let own = Own::besides(Some("127.0.0.1:15000".parse().unwrap()));
        assert!(!own.holds("127.0.0.1:15001".parse().unwrap()), "nothing is listened on");
        own.set(vec!["127.0.0.1:15001".parse().unwrap(), "0.0.0.0:18080".parse().unwrap()]);
        for (address, expected) in [
            ("127.0.0.1:15000", true),
            ("127.0.0.1:15001", true),
            ("127.8.9.1:15001", true),
            ("0.0.0.0:15001", true),
            ("[::1]:15001", true),
            ("[::]:18080", true),
            ("[::ffff:127.0.0.1]:18080", true),
            ("127.0.0.1:15002", false),
            ("192.0.2.1:15001", false),
            ("8.8.8.8:18080", false),
        ] {
            assert_eq!(own.holds(address.parse().unwrap()), expected, "{address}");
        }
    }
}
