//! Ports that are named before whoever listens there does.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU16, Ordering},
};

/// Below those that the system gives to whoever asks for any (32768 on, ip(7)), and above those of programs that may run here.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A port that nobody has, and that nobody gets who does not ask for it: not from this function either, in this process. Other processes
/// begin elsewhere.
#[track_caller]
pub fn free_port() -> u16 {
    static ASKED: AtomicU16 = AtomicU16::new(0);
    let begin = (std::process::id() % 64) as u16 * (COUNT / 64);
    let next = || FIRST + (begin + ASKED.fetch_add(1, Ordering::Relaxed)) % COUNT;
    (0..COUNT).map(|_| next()).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a port is free")
}
