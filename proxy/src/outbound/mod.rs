//! The way of what leaves the workload.
//!
//! ```text
//! listener   accept, count, drain
//!    |
//! capture    where was it going?  the kernel's word, or an explicit proxy's client asks
//!    |
//!    +-- captured ---------------------------- sniff ----+     explicit: HTTP/1 or HTTP/2
//!    |                                           |       |         |
//!    |                                     TLS, opaque  HTTP -- proxy   CONNECT, absolute-form, one request at a time
//!    |                                           |                 |
//!  whose is it?  the workload's tenant, or of a shared one the context that the inbound side minted
//!    |
//! decide     may it?  policy, the name resolved once, the address judged -> AllowedDestination
//!    |
//! connect    dials that address and no other
//!    |
//! splice     octets both ways, until either end or policy has had enough  (HTTP: forward)
//!
//! any Deny -> refuse: a reply, a TLS alert or the end of the connection; and the access log
//! ```

pub mod capture;
pub mod connect;
pub mod decide;
pub mod sniff;

use std::net::SocketAddr;

use ringfence_policy::host::Host;

/// Where a connection says that it goes, before anything was seen in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The original destination of a captured connection. The workload chose it and nothing in the connection need agree.
    Captured(SocketAddr),
    /// CONNECT's authority.
    Connect { host: Host, port: u16 },
}

impl Claim {
    pub fn port(&self) -> u16 {
        match self {
            Claim::Captured(address) => address.port(),
            Claim::Connect { port, .. } => *port,
        }
    }
}
