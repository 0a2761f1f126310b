//! Between a sidecar and the process that takes over from it: lets their frames through, one at a time, with the descriptors.

use std::{
    fs,
    io::{IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::wait::DEADLINE;

const DESCRIPTORS: usize = 64;
/// How a conversation begins, before the name of the workload.
pub const HELLO: &[u8; 8] = b"RFHND\0\0\x01";
const KINDS: [&str; 12] =
    ["", "hello", "refused", "estate", "descriptors", "ready", "counters", "bindings", "complete", "taken", "released", "charged"];

/// A frame on its way.
pub struct Frame {
    pub kind: &'static str,
    head: [u8; 8],
    payload: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

/// Takes the name of a sidecar's socket; whoever connects there meets this.
pub struct Relay {
    listener: UnixListener,
    old: UnixStream,
    socket: PathBuf,
    /// The sidecar's own, meanwhile.
    aside: PathBuf,
}

pub struct Talk {
    pub new: UnixStream,
    pub old: UnixStream,
}

impl Relay {
    /// `state`: the state directory of a sidecar that serves.
    pub fn before(state: &Path) -> Self {
        let (socket, aside) = (state.join("handover"), state.join("aside"));
        let old = connect(state);
        fs::rename(&socket, &aside).unwrap();
        Self { listener: UnixListener::bind(&socket).unwrap(), old, socket, aside }
    }

    /// The process that comes next, and the sidecar. Who comes after it meets the sidecar itself.
    pub fn met(self) -> Talk {
        let (new, _) = self.listener.accept().unwrap();
        fs::rename(&self.aside, &self.socket).unwrap();
        new.set_read_timeout(Some(DEADLINE)).unwrap();
        Talk { new, old: self.old }
    }
}

/// As a process does that is to take over, once the sidecar offers it.
#[track_caller]
pub fn connect(state: &Path) -> UnixStream {
    let stream = crate::eventually("the sidecar offers to hand over", || UnixStream::connect(state.join("handover")).ok());
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// A frame without descriptors.
pub fn frame(kind: &str, payload: &[u8]) -> Vec<u8> {
    let kind = KINDS.iter().position(|known| *known == kind).unwrap() as u8;
    [&[kind, 0, 0, 0][..], &(payload.len() as u32).to_be_bytes(), payload].concat()
}

/// The next frame from this end; `None`: it has ended.
pub fn receive(from: &mut UnixStream) -> Option<Frame> {
    let (mut head, mut descriptors) = ([0; 8], Vec::new());
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let first = recvmsg(from.as_fd(), &mut [IoSliceMut::new(&mut head)], &mut control, RecvFlags::CMSG_CLOEXEC).ok()?.bytes;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if first == 0 {
        return None;
    }
    from.read_exact(&mut head[first..]).ok()?;
    let mut payload = vec![0; u32::from_be_bytes(head[4..].try_into().unwrap()) as usize];
    from.read_exact(&mut payload).ok()?;
    Some(Frame { kind: KINDS[usize::from(head[0])], head, payload, descriptors })
}

/// Passes a frame on. Nothing is said to who has ended.
pub fn send(to: &mut UnixStream, frame: &Frame) {
    let descriptors: Vec<_> = frame.descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    }
    if sendmsg(&*to, &[IoSlice::new(&frame.head)], &mut control, SendFlags::NOSIGNAL).is_ok() {
        let _ = to.write_all(&frame.payload);
    }
}
