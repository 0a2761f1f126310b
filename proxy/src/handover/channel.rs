//! Frames with descriptors over a Unix socket, between two processes of one user.
//!
//! A frame is its kind (1 octet), an octet of zero, the number of its descriptors (2), the length of its payload (4), in network order;
//! the payload. The descriptors come with the first octet.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg,
    sendmsg, sockopt::socket_peercred,
};

use super::{HandoverError, PROMPT, Refusal};

/// Of one frame.
pub(super) const MAX_DESCRIPTORS: usize = 64;
/// Octets of a payload: a tenant's counters take some 4 MiB at most.
pub(super) const MAX_PAYLOAD: usize = 16 * 1024 * 1024;
const HEADER: usize = 8;
/// How a refusal of another version's HELLO is told.
const VERSION: &[u8] = b"version";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Hello = 1,
    Refused = 2,
    Estate = 3,
    Descriptors = 4,
    Ready = 5,
    Counters = 6,
    Bindings = 7,
    Complete = 8,
    Taken = 9,
    Released = 10,
    Charged = 11,
}

impl Kind {
    const ALL: [Kind; 11] = [
        Kind::Hello,
        Kind::Refused,
        Kind::Estate,
        Kind::Descriptors,
        Kind::Ready,
        Kind::Counters,
        Kind::Bindings,
        Kind::Complete,
        Kind::Taken,
        Kind::Released,
        Kind::Charged,
    ];
}

#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) payload: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// One end; blocks.
#[derive(Debug)]
pub struct Channel(UnixStream);

impl Channel {
    /// To another process of this user, or to none.
    pub(super) fn new(stream: UnixStream) -> Result<Self, HandoverError> {
        Self::with_peer_of(stream, rustix::process::geteuid())
    }

    pub(super) fn with_peer_of(stream: UnixStream, user: rustix::process::Uid) -> Result<Self, HandoverError> {
        if socket_peercred(&stream).map_err(io::Error::from)?.uid != user {
            return Err(HandoverError::Stranger);
        }
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(PROMPT))?;
        Ok(Self(stream))
    }

    pub(super) fn send(&mut self, kind: Kind, payload: &[u8]) -> Result<(), HandoverError> {
        self.send_with(kind, payload, &[])
    }

    pub(super) fn send_with(&mut self, kind: Kind, payload: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), HandoverError> {
        match self.try_send(kind, payload, descriptors) {
            // It may have said why before it hung up.
            Err(HandoverError::Ended) => match self.receive(Some(PROMPT)) {
                Err(refused @ HandoverError::Refused(_)) => Err(refused),
                _ => Err(HandoverError::Ended),
            },
            sent => sent,
        }
    }

    fn try_send(&mut self, kind: Kind, payload: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), HandoverError> {
        if payload.len() > MAX_PAYLOAD || descriptors.len() > MAX_DESCRIPTORS {
            return Err(io::Error::other("more to hand over than goes into a frame").into());
        }
        let mut header = [kind as u8, 0, 0, 0, 0, 0, 0, 0];
        header[2..4].copy_from_slice(&(descriptors.len() as u16).to_be_bytes());
        header[4..].copy_from_slice(&(payload.len() as u32).to_be_bytes());
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::other("more descriptors than go into a frame").into());
        }
        let sent = loop {
            match sendmsg(&self.0, &[IoSlice::new(&header)], &mut control, SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::INTR) => {}
                sent => break sent.map_err(|errno| failed(errno.into()))?,
            }
        };
        self.0.write_all(&header[sent..]).and_then(|()| self.0.write_all(payload)).map_err(failed)
    }

    /// The next frame, whole, before `within` has passed; `None`: however long it takes.
    pub(super) fn receive(&mut self, within: Option<Duration>) -> Result<Frame, HandoverError> {
        let deadline = within.map(|within| Instant::now() + within);
        let mut header = [0; HEADER];
        let mut descriptors = Vec::new();
        let first = self.receive_first(&mut header, &mut descriptors, deadline)?;
        self.read(&mut header[first..], deadline)?;
        let [kind, 0, d0, d1, length @ ..] = header else { return Err(HandoverError::Malformed("a frame's head")) };
        let kind = Kind::ALL.into_iter().find(|known| *known as u8 == kind).ok_or(HandoverError::Malformed("a frame's kind"))?;
        let length = u32::from_be_bytes(length) as usize;
        if length > MAX_PAYLOAD {
            return Err(HandoverError::Malformed("a frame's length"));
        }
        // The kernel leaves room for one more, to align what might follow.
        if descriptors.len() > MAX_DESCRIPTORS {
            return Err(HandoverError::Malformed("too many descriptors"));
        }
        if descriptors.len() != usize::from(u16::from_be_bytes([d0, d1])) {
            return Err(HandoverError::Malformed("the number of descriptors"));
        }
        let mut payload = vec![0; length];
        self.read(&mut payload, deadline)?;
        if kind == Kind::Refused {
            return Err(HandoverError::Refused(match payload.as_slice() {
                VERSION => Refusal::Version,
                why => Refusal::Other(String::from_utf8_lossy(why).into_owned()),
            }));
        }
        Ok(Frame { kind, payload, descriptors })
    }

    /// The next frame, which must be of this kind.
    pub(super) fn expect(&mut self, kind: Kind, within: Duration) -> Result<Frame, HandoverError> {
        let frame = self.receive(Some(within))?;
        if frame.kind == kind { Ok(frame) } else { Err(HandoverError::Malformed("its order")) }
    }

    /// Ends the conversation with a reason.
    pub fn refuse(mut self, refusal: &Refusal) {
        let payload = match refusal {
            Refusal::Version => VERSION,
            Refusal::Other(why) => why.as_bytes(),
        };
        // Gone already, if this fails.
        let _ = self.send(Kind::Refused, payload);
    }

    /// Says nothing more.
    #[cfg(test)]
    pub(super) fn half_close(&self) {
        let _ = self.0.shutdown(std::net::Shutdown::Write);
    }

    fn receive_first(
        &mut self,
        header: &mut [u8; HEADER],
        descriptors: &mut Vec<OwnedFd>,
        deadline: Option<Instant>,
    ) -> Result<usize, HandoverError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            self.wait_until(deadline)?;
            match recvmsg(self.0.as_fd(), &mut [IoSliceMut::new(header)], &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                received => break received.map_err(|errno| failed(errno.into()))?,
            }
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        match received.bytes {
            0 => Err(HandoverError::Ended),
            _ if received.flags.contains(ReturnFlags::CTRUNC) => Err(HandoverError::Malformed("too many descriptors")),
            octets => Ok(octets),
        }
    }

    fn read(&mut self, mut rest: &mut [u8], deadline: Option<Instant>) -> Result<(), HandoverError> {
        while !rest.is_empty() {
            self.wait_until(deadline)?;
            match self.0.read(rest) {
                Ok(0) => return Err(HandoverError::Ended),
                Ok(read) => rest = &mut rest[read..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Result<(), HandoverError> {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(HandoverError::Silent);
        }
        Ok(self.0.set_read_timeout(left)?)
    }
}

fn failed(error: io::Error) -> HandoverError {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => HandoverError::Ended,
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => HandoverError::Silent,
        _ => HandoverError::Io(error),
    }
}
