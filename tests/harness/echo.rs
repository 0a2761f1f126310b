//! A server of no protocol that anybody knows: what it hears it says again.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    thread,
};

use crate::raw::Raw;

/// Ends with the test's process.
pub struct Echo {
    pub address: SocketAddr,
}

impl Default for Echo {
    fn default() -> Self {
        Self::start()
    }
}

impl Echo {
    pub fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    /// On a socket that listens already, wherever that is.
    pub fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || io::copy(&mut &stream, &mut &stream));
            }
        });
        Self { address }
    }
}

/// Asks an echo at the other end of this connection for an answer.
#[track_caller]
pub fn ping(raw: &mut Raw) {
    raw.send(b"\0\x01ping\n");
    assert_eq!(raw.until(b"\n"), "\0\x01ping\n");
}
