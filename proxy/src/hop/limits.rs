//! Every default of a hop in one place: how long it waits and how much it takes.

use std::time::Duration;

/// Connections open at one listener of one thread. More wait in the kernel's backlog.
pub const MAX_CONNECTIONS: usize = 10_000;

/// Octets of a request head, from the request line to the empty line. Less than hyper would buffer, so that it is the guard that refuses.
pub const MAX_HEAD: usize = 64 * 1024;
/// Octets that wait in each direction of an HTTP/1 connection, and of an HTTP/2 stream to be sent. hyper's own bounds are 400 KiB
/// and more: with them an upload that nobody reads took 1.3 MB in all, with these it takes 0.5.
pub const BUFFER: usize = 128 * 1024;
/// Octets of a request target.
pub const MAX_TARGET: usize = 8 * 1024;
/// Header fields of a message; hyper keeps as many without allocating.
pub const MAX_FIELDS: usize = 100;
/// Octets of a trailer section.
pub const MAX_TRAILERS: usize = 8 * 1024;
/// Hexadecimal digits of a chunk's size: 2^48 octets are more than anybody sends, and no parser's integer overflows.
pub const MAX_CHUNK_DIGITS: usize = 12;

/// HTTP/2 streams that a client may have open at once on one connection.
pub const H2_MAX_STREAMS: u32 = 128;
/// Streams that a client opened and reset before they were accepted (rapid reset, CVE-2023-44487).
pub const H2_MAX_PENDING_RESETS: usize = 20;
/// Streams that a client made us reset (MadeYouReset, CVE-2025-8671).
pub const H2_MAX_LOCAL_RESETS: usize = 64;
/// Octets of an HTTP/2 connection's receive window, and of each stream's.
pub const H2_CONNECTION_WINDOW: u32 = 1024 * 1024;
pub const H2_STREAM_WINDOW: u32 = 256 * 1024;

/// Idle upstream connections that one listener of one thread keeps ready, for all tenants together. Each takes some 13 KB, most of it hyper's
/// buffers.
pub const MAX_WARM_UPSTREAM: usize = 64;
/// Idle upstream connections of which the process keeps the socket alone: as many as a shared workload may have tenants.
pub const MAX_BARE_UPSTREAM: usize = 10_000;
/// An upstream connection that rested longer is not used again. Shorter than the 60 s after which common servers close.
pub const UPSTREAM_IDLE: Duration = Duration::from_secs(55);

/// Octets read and thrown away after a refusal, so that a client that is still sending sees the reply and not a reset.
pub const LINGER_OCTETS: usize = 256 * 1024;

/// How long the route waits. There is no limit on the size of a body or the length of an exchange that keeps moving.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// TLS handshake.
    pub handshake: Duration,
    /// First octet of a head to its last; and from accepting a connection to its first octets.
    pub head: Duration,
    /// A connection without a request in flight.
    pub idle: Duration,
    /// Between two pieces of a body, in either direction; unacknowledged octets towards the client.
    pub stall: Duration,
    /// TCP connect to the upstream (and the HTTP/2 preface).
    pub connect: Duration,
    /// From sending a request to the upstream's response head.
    pub response_head: Duration,
    /// Reading on after a refusal.
    pub linger: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            stall: Duration::from_secs(60),
            connect: Duration::from_secs(5),
            response_head: Duration::from_secs(60),
            linger: Duration::from_secs(2),
        }
    }
}
