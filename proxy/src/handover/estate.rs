//! What one process hands to the next at the beginning: secrets, the lock, sockets.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
};

use prost::Message;

use super::{
    HandoverError, PROMPT,
    channel::{Channel, Kind, MAX_DESCRIPTORS},
    message::{Descriptor, Descriptors, Keys, Use},
};
use crate::{limiter::HashKey, listeners::Passed};

/// Sockets of all data threads together: 256 of them, with a few listeners.
const MAX_SOCKETS: usize = 8192;

/// Holds secrets: not for any log.
pub struct Estate {
    /// The state directory's.
    pub lock: File,
    /// The admin endpoint's socket, with its address as configured.
    pub admin: Option<(String, OwnedFd)>,
    pub listeners: Vec<Passed>,
    pub limiter: HashKey,
    /// The key of the contexts.
    pub contexts: Vec<u8>,
}

impl Estate {
    pub(super) fn send(self, channel: &mut Channel) -> Result<(), HandoverError> {
        let mut all: Vec<(Descriptor, OwnedFd)> = vec![(Descriptor::of(Use::Lock, ""), self.lock.into())];
        all.extend(self.admin.map(|(address, socket)| (Descriptor::of(Use::Admin, &address), socket)));
        all.extend(self.listeners.into_iter().map(|passed| (Descriptor::of_listener(&passed), passed.socket.into())));
        let keys = Keys { limiter: self.limiter.octets().to_vec(), contexts: self.contexts, descriptors: all.len() as u32 };
        channel.send(Kind::Estate, &keys.encode_to_vec())?;
        for some in all.chunks(MAX_DESCRIPTORS) {
            let told = Descriptors { descriptors: some.iter().map(|(told, _)| told.clone()).collect() };
            let descriptors: Vec<_> = some.iter().map(|(_, descriptor)| descriptor.as_fd()).collect();
            channel.send_with(Kind::Descriptors, &told.encode_to_vec(), &descriptors)?;
        }
        Ok(())
    }

    pub(super) fn receive(channel: &mut Channel) -> Result<Self, HandoverError> {
        let keys =
            Keys::decode(channel.expect(Kind::Estate, PROMPT)?.payload.as_slice()).map_err(|_| HandoverError::Malformed("its keys"))?;
        let limiter = HashKey::from_octets(&keys.limiter).ok_or(HandoverError::Malformed("its limiter's key"))?;
        let expected = keys.descriptors as usize;
        if expected > MAX_SOCKETS {
            return Err(HandoverError::Malformed("too many descriptors"));
        }
        let (mut lock, mut admin, mut listeners, mut received) = (None, None, Vec::new(), 0);
        while received < expected {
            let frame = channel.expect(Kind::Descriptors, PROMPT)?;
            let told = Descriptors::decode(frame.payload.as_slice()).map_err(|_| HandoverError::Malformed("its descriptors"))?.descriptors;
            if told.is_empty() || told.len() != frame.descriptors.len() {
                return Err(HandoverError::Malformed("the number of descriptors"));
            }
            received += told.len();
            for (told, descriptor) in told.into_iter().zip(frame.descriptors) {
                match told.r#use() {
                    Use::Lock => lock = Some(File::from(descriptor)),
                    Use::Admin => admin = Some((told.listen, descriptor)),
                    _ => listeners.push(told.listener(descriptor).ok_or(HandoverError::Malformed("a descriptor"))?),
                }
            }
        }
        let lock = lock.ok_or(HandoverError::Malformed("no lock"))?;
        Ok(Self { lock, admin, listeners, limiter, contexts: keys.contexts })
    }
}
