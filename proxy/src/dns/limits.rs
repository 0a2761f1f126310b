//! Every bound of the DNS route in one place: how long it waits, how much it takes and how long it remembers.

use std::time::Duration;

/// Octets of a UDP answer at most, however much a client takes: what passes any path unfragmented (RFC 9715).
pub(super) const UDP_ANSWER: u16 = 1232;
/// Octets of a UDP answer for a client that says nothing of what it takes (RFC 1035 §4.2.1).
pub(super) const UDP_ANSWER_PLAIN: u16 = 512;
/// Octets of a UDP query that are read; what is longer is malformed.
pub(super) const UDP_QUERY: usize = 4096;
/// UDP queries answered in a row before whatever else the thread has to do, and with one system call each way.
pub(super) const UDP_BATCH: usize = 32;

/// TCP connections open on one thread. One more is closed at once: the client comes back over UDP or later.
pub(super) const MAX_CONNECTIONS: usize = 256;
/// Queries of one TCP connection that wait for their answers; the next is not read before one of them is answered (RFC 7766 §6.2.1.1).
pub(super) const MAX_PIPELINED: usize = 64;
/// A TCP connection without a query, and how long a client may take over one query or over reading an answer (RFC 7766 §6.2.3).
pub(super) const TCP_IDLE: Duration = Duration::from_secs(10);

/// Different questions that one thread asks its upstreams at once.
pub(super) const MAX_ASKING: usize = 512;
/// Queries that wait for those on one thread; each is about 1 KiB.
pub(super) const MAX_WAITING: usize = 2048;
/// From a question to its answer, all upstreams together. Stub resolvers ask again after five seconds.
pub(super) const DEADLINE: Duration = Duration::from_secs(4);
/// What an upstream gets before the next one is asked, while there is one.
pub(super) const TRY: Duration = Duration::from_millis(1200);
/// An upstream that did not answer is asked last for this long.
pub(super) const REST: Duration = Duration::from_secs(10);
/// What is wrong with an upstream is told on standard error, and again after this long if it still is.
pub(super) const TELL_AGAIN: Duration = Duration::from_secs(60);
/// A connection to an upstream that nothing is asked over is closed. Longer than any question lasts.
pub(super) const UPSTREAM_IDLE: Duration = Duration::from_secs(30);
/// Octets that an encrypted query is padded to a multiple of (RFC 8467 §4.1).
pub(super) const PADDING_BLOCK: usize = 128;
/// Octets of an answer over HTTPS: as many as any DNS message can have.
pub(super) const MAX_ANSWER: usize = 65535;
/// Octets of the head of such an answer, as HTTP/2 counts them.
pub(super) const MAX_HTTP_HEAD: u32 = 16 * 1024;
/// Links of a chain of aliases.
pub(super) const MAX_CHAIN: usize = 16;

/// Octets that one thread remembers of answers, keys and bookkeeping included.
pub(super) const CACHE_OCTETS: u64 = 4 * 1024 * 1024;
/// Octets that one thread remembers of where names lead that connections asked for.
pub(super) const REMEMBERED_OCTETS: u64 = 512 * 1024;
/// The longest that an answer is remembered, and the longest TTL that is told.
pub(super) const MAX_TTL: u32 = 24 * 60 * 60;
/// The same for an answer that there is nothing (RFC 2308 §5 suggests one to three hours).
pub(super) const MAX_NEGATIVE_TTL: u32 = 60 * 60;
/// How long a failure is remembered (RFC 9520 §3.2: one second to five minutes).
pub(super) const FAILURE_TTL: u32 = 2;
/// An answer used this often is asked for again before it expires …
pub(super) const POPULAR: u32 = 3;
/// … in this last part of its lifetime.
pub(super) const PREFETCH_PART: u32 = 10;

/// The TTL that an answer is told with once it has expired (RFC 8767 §4).
pub(super) const STALE_TTL: u32 = 30;
/// A client waits this long before it is given a stale answer (RFC 8767 §5).
pub(super) const STALE_AFTER: Duration = Duration::from_millis(1800);
/// After a failure the upstreams are not asked again for what is stale (RFC 8767 §5).
pub(super) const STALE_QUIET: Duration = Duration::from_secs(30);

/// Of queries that were refused or failed, each is logged, up to this many of each thread and second: a program that asks for a refused name
/// in a loop costs no more for its lines. The metrics count them all, and the lines that are left out.
pub(super) const LOG_REFUSED: u32 = 1000;
