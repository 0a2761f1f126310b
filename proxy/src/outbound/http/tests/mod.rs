//! The route over real sockets: names are answered by a DNS server of the test, and every destination is one of its own listeners.

mod captured;
mod contexts;
mod explicit;
mod http2;
mod lines;
mod live;
mod mutual;
mod sidecar;
mod targets;
mod tunnels;
