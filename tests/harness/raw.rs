//! A client of bytes, for what no HTTP library would send.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use serde_json::Value;

use crate::wait::DEADLINE;

pub struct Raw(TcpStream);

/// Sends `bytes` on a connection of their own and reads to its end. The request should say `Connection: close`.
#[track_caller]
pub fn exchange(address: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let mut raw = Raw::connect(address);
    raw.send(bytes);
    raw.rest()
}

/// The status of a response in text.
#[track_caller]
pub fn status(response: &str) -> u16 {
    response.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or_else(|| panic!("no response: {response:?}"))
}

impl Raw {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// On a connection that was opened elsewhere.
    pub fn on(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Self(stream)
    }

    /// What becomes of a tunnel.
    pub fn into_inner(self) -> TcpStream {
        self.0
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).unwrap();
    }

    /// Reads until what was read ends in `end`.
    #[track_caller]
    pub fn until(&mut self, end: impl AsRef<[u8]>) -> String {
        let mut read = Vec::new();
        while !read.ends_with(end.as_ref()) {
            let mut octet = [0];
            let count = self.0.read(&mut octet).expect("more in time");
            assert!(count == 1, "ended after {:?}", String::from_utf8_lossy(&read));
            read.push(octet[0]);
        }
        String::from_utf8_lossy(&read).into_owned()
    }

    /// A response's head.
    #[track_caller]
    pub fn head(&mut self) -> String {
        self.until(b"\r\n\r\n")
    }

    /// A whole response that says its length.
    #[track_caller]
    pub fn response(&mut self) -> String {
        let mut response = self.head();
        let lower = response.to_ascii_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or_else(|| panic!("no length in {response:?}"))];
        self.0.read_exact(&mut body).unwrap();
        response.push_str(&String::from_utf8_lossy(&body));
        response
    }

    /// Status and reason of the refusal that begins with `head`; of any other reply, no reason.
    #[track_caller]
    pub fn refusal(&mut self, head: &str) -> (u16, String) {
        let lower = head.to_ascii_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        (status(head), body["reason"].as_str().unwrap_or_default().to_owned())
    }

    /// Everything to the end of the connection, which is closed then from this side too.
    #[track_caller]
    pub fn rest(self) -> String {
        String::from_utf8_lossy(&self.rest_octets()).into_owned()
    }

    /// The same, where it need not be text.
    #[track_caller]
    pub fn rest_octets(mut self) -> Vec<u8> {
        let mut read = Vec::new();
        match self.0.read_to_end(&mut read) {
            // A reset after the reply is an end too.
            Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => panic!("{error}"),
            _ => read,
        }
    }
}
