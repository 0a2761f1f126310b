//! Pipes to splice through, kept by each thread for whoever moves octets next.

use std::{
    cell::RefCell,
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// Octets asked of the kernel for a pipe; it may give less, to users who hold many (pipe(7), `pipe-user-pages-soft`: 64 MiB for all).
///
/// CPU seconds of this side for one GiB over loopback, on two busy cores: copied through 32 KiB 0.58, through a pipe of 64 KiB 0.51, of
/// 256 KiB 0.44, of 1 MiB 0.42.
const SIZE: usize = 256 * 1024;
/// Pipes that a thread keeps while nobody needs them. Each costs two descriptors.
const KEPT: usize = 16;

thread_local! {
    static IDLE: RefCell<Vec<Ends>> = const { RefCell::new(Vec::new()) };
}

struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

/// A pipe on loan. One that is given back empty is kept; with octets left in it, it is closed and they are gone.
pub(super) struct Pipe {
    ends: Option<Ends>,
    octets: usize,
}

impl Pipe {
    pub(super) fn borrow() -> io::Result<Self> {
        let ends = match IDLE.with_borrow_mut(Vec::pop) {
            Some(ends) => ends,
            None => {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
                // A small one does too.
                let _ = fcntl_setpipe_size(&write, SIZE);
                Ends { read, write }
            }
        };
        Ok(Self { ends: Some(ends), octets: 0 })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.octets == 0
    }

    /// Takes what `from` has. To be called when empty: of a full pipe and a dry source the kernel says the same.
    pub(super) fn fill(&mut self, from: impl AsFd) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Ok(0) };
        let octets = splice(from, None, &ends.write, None, SIZE, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)?;
        self.octets += octets;
        Ok(octets)
    }

    /// Gives `to` what it takes.
    pub(super) fn drain(&mut self, to: impl AsFd) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Ok(0) };
        let octets = splice(&ends.read, None, to, None, self.octets, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)?;
        self.octets -= octets.min(self.octets);
        Ok(octets)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        if let Some(ends) = self.ends.take().filter(|_| self.octets == 0) {
            // None at the thread's end, when the store is gone: closed.
            let _ = IDLE.try_with(|idle| {
                let mut idle = idle.borrow_mut();
                if idle.len() < KEPT {
                    idle.push(ends);
                }
            });
        }
    }
}
