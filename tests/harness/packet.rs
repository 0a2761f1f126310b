//! A packet socket (packet(7)): sends frames past the kernel's IP. In a file of its own for its `unsafe`: no safe crate makes the address.
#![allow(unsafe_code, reason = "the kernel's address of a device is this structure")]

use std::{io, mem};

use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType,
    addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque},
    netdevice::name_to_index,
    sendto, socket_with,
};

/// `struct sockaddr_ll`.
#[repr(C)]
struct LinkAddress {
    family: u16,
    protocol: u16,
    index: u32,
    hardware: u16,
    kind: u8,
    length: u8,
    address: [u8; 8],
}

// SAFETY: the structure is `sockaddr_ll` field by field, without padding, and lives as long as the call.
unsafe impl SocketAddrArg for LinkAddress {
    unsafe fn with_sockaddr<R>(&self, call: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        call(std::ptr::from_ref(self).cast(), mem::size_of::<Self>() as SocketAddrLen)
    }
}

/// Sends an IPv4 packet, complete with its header, to everybody on `device`. Needs CAP_NET_RAW.
pub fn send_ipv4(device: &str, packet: &[u8]) -> io::Result<()> {
    let socket = socket_with(AddressFamily::PACKET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let index = name_to_index(&socket, device)?;
    let family = AddressFamily::PACKET.as_raw();
    let to = LinkAddress {
        family,
        protocol: 0x0800_u16.to_be(),
        index,
        hardware: 0,
        kind: 0,
        length: 6,
        address: [255, 255, 255, 255, 255, 255, 0, 0],
    };
    sendto(&socket, packet, SendFlags::empty(), &to)?;
    Ok(())
}
