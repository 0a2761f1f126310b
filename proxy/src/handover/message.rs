//! What the frames carry.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    time::Duration,
};

use ringfence_policy::host::HostName;

use crate::listeners::{ListenerKey, Passed, PassedSocket, Role};

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Keys {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) limiter: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) contexts: Vec<u8>,
    /// Descriptors that follow.
    #[prost(uint32, tag = "3")]
    pub(super) descriptors: u32,
}

/// What the descriptors of a frame are, in their order.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Descriptors {
    #[prost(message, repeated, tag = "1")]
    pub(super) descriptors: Vec<Descriptor>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Descriptor {
    #[prost(enumeration = "Use", tag = "1")]
    pub(super) r#use: i32,
    /// Of a listener, by its name in the access log.
    #[prost(string, tag = "2")]
    pub(super) role: String,
    /// As configured: of a listener, or of the admin endpoint.
    #[prost(string, tag = "3")]
    pub(super) listen: String,
    #[prost(uint32, tag = "4")]
    pub(super) nth: u32,
    #[prost(uint32, tag = "5")]
    pub(super) place: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Use {
    Unknown = 0,
    Lock = 1,
    Admin = 2,
    Tcp = 3,
    Udp = 4,
}

impl Descriptor {
    pub(super) fn of(r#use: Use, listen: &str) -> Self {
        Self { r#use: r#use.into(), listen: listen.into(), ..Self::default() }
    }

    pub(super) fn of_listener(passed: &Passed) -> Self {
        let r#use = match passed.socket {
            PassedSocket::Tcp(_) => Use::Tcp,
            PassedSocket::Udp(_) => Use::Udp,
        };
        let ListenerKey { role, listen, nth } = passed.key;
        Self { r#use: r#use.into(), role: role.as_str().into(), listen: listen.to_string(), nth: nth as u32, place: passed.place as u32 }
    }

    /// `None`: it is none of a listener's.
    pub(super) fn listener(&self, descriptor: OwnedFd) -> Option<Passed> {
        let role = Role::ALL.into_iter().find(|role| role.as_str() == self.role)?;
        let listen: SocketAddr = self.listen.parse().ok()?;
        let socket = match self.r#use() {
            Use::Tcp => PassedSocket::Tcp(descriptor.into()),
            Use::Udp => PassedSocket::Udp(descriptor.into()),
            Use::Unknown | Use::Lock | Use::Admin => return None,
        };
        Some(Passed { key: ListenerKey { role, listen, nth: self.nth as usize }, place: self.place as usize, socket })
    }
}

/// Some of what the workload was told by DNS.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ToldNames {
    #[prost(message, repeated, tag = "1")]
    pub(super) names: Vec<ToldName>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ToldName {
    /// 4 octets or 16.
    #[prost(bytes = "vec", tag = "1")]
    address: Vec<u8>,
    #[prost(string, tag = "2")]
    name: String,
    /// For which it still holds.
    #[prost(uint64, tag = "3")]
    milliseconds: u64,
}

impl ToldName {
    pub(super) fn new(address: IpAddr, name: &HostName, remaining: Duration) -> Self {
        let address = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        Self { address, name: name.as_str().into(), milliseconds: remaining.as_millis() as u64 }
    }

    pub(super) fn parts(&self) -> Option<(IpAddr, HostName, Duration)> {
        let address = match self.address.len() {
            4 => IpAddr::from(<[u8; 4]>::try_from(self.address.as_slice()).ok()?),
            _ => IpAddr::from(<[u8; 16]>::try_from(self.address.as_slice()).ok()?),
        };
        Some((address, self.name.parse().ok()?, Duration::from_millis(self.milliseconds)))
    }
}
