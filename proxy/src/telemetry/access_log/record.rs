//! What is said of a request, before it is text.

use std::{
    borrow::Cow,
    io::ErrorKind,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use http::{StatusCode, Version};
use opentelemetry::trace::TraceId;
use ringfence_policy::{RuleRef, SpiffeId, TenantId, host::Host};
use sha2::{Digest, Sha256};

use super::query::QueryRecord;
use crate::telemetry::{Decision, RequestId, known_method};

/// What one line tells.
#[derive(Clone, Debug)]
pub enum Record {
    Request(AccessRecord),
    Query(QueryRecord),
    Connection(ConnectionRecord),
}

impl From<AccessRecord> for Record {
    fn from(record: AccessRecord) -> Self {
        Record::Request(record)
    }
}

impl From<QueryRecord> for Record {
    fn from(record: QueryRecord) -> Self {
        Record::Query(record)
    }
}

impl From<ConnectionRecord> for Record {
    fn from(record: ConnectionRecord) -> Self {
        Record::Connection(record)
    }
}

/// The route that a line is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    Inbound,
    Outbound,
}

impl Route {
    pub const fn as_str(self) -> &'static str {
        match self {
            Route::Inbound => "inbound",
            Route::Outbound => "outbound",
        }
    }
}

/// Where something that left the workload went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    pub host: Host,
    pub port: u16,
    /// `None`: nothing was dialled.
    pub address: Option<SocketAddr>,
}

/// One finished connection that left the workload and was not looked at request by request.
#[derive(Clone, Debug)]
pub struct ConnectionRecord {
    /// When it was accepted, or the CONNECT that opened it had arrived.
    pub time: SystemTime,
    pub id: RequestId,
    pub listener: SocketAddr,
    /// Where the kernel says that it went; `None`: the workload asked the proxy.
    pub original: Option<SocketAddr>,
    /// `None`: nobody's, as far as could be told.
    pub tenant: Option<TenantId>,
    /// `None`: it was refused before it said.
    pub destination: Option<Destination>,
    /// What was seen of it.
    pub protocol: Option<&'static str>,
    pub decision: Decision,
    /// The rule that decided.
    pub rule: Option<RuleRef>,
    /// Rules in shadow mode that would have refused.
    pub shadow: Vec<RuleRef>,
    /// Octets from the workload and to it.
    pub sent: u64,
    pub received: u64,
    /// From `time` to the end.
    pub total: Duration,
}

/// One finished request.
#[derive(Clone, Debug)]
pub struct AccessRecord {
    /// When its head had arrived.
    pub time: SystemTime,
    pub id: RequestId,
    pub route: Route,
    pub listener: SocketAddr,
    /// Of the outbound route.
    pub destination: Option<Destination>,
    /// Over mTLS: of the inbound route who asked, of the outbound route who was to be asked.
    pub peer: Option<SpiffeId>,
    /// `None`: nobody was identified.
    pub tenant: Option<TenantId>,
    /// Of [`subject_hash`].
    pub subject_hash: Option<[u8; 16]>,
    pub method: Clipped,
    pub path: Clipped,
    pub version: Version,
    /// `None`: the downstream was gone before a reply.
    pub status: Option<StatusCode>,
    pub decision: Decision,
    /// The rule that decided.
    pub rule: Option<RuleRef>,
    /// Rules in shadow mode that would have refused.
    pub shadow: Vec<RuleRef>,
    /// Body bytes from and to the downstream.
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub timings: Timings,
    pub upstream_error: Option<ConnectError>,
    pub trace_id: Option<TraceId>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// From the head's arrival to the end of the reply.
    pub total: Duration,
    /// Finding out who asks; `None` where nobody had to be identified.
    pub identify: Option<Duration>,
    /// From connecting to the workload to the head of its reply; `None` where it was not asked.
    pub upstream: Option<Duration>,
}

/// Why the workload could not be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    Refused,
    TimedOut,
    Unreachable,
    Reset,
    Other,
}

impl ConnectError {
    pub const fn as_str(self) -> &'static str {
        match self {
            ConnectError::Refused => "refused",
            ConnectError::TimedOut => "timed_out",
            ConnectError::Unreachable => "unreachable",
            ConnectError::Reset => "reset",
            ConnectError::Other => "other",
        }
    }
}

impl From<ErrorKind> for ConnectError {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::ConnectionRefused => ConnectError::Refused,
            ErrorKind::TimedOut => ConnectError::TimedOut,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable => ConnectError::Unreachable,
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => ConnectError::Reset,
            _ => ConnectError::Other,
        }
    }
}

/// Bytes of a client's choosing, cut to a length that a queue of them may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clipped {
    pub(super) bytes: Cow<'static, [u8]>,
    pub(super) cut: bool,
}

impl Clipped {
    pub const METHOD_BYTES: usize = 16;
    pub const PATH_BYTES: usize = 1024;

    /// Allocates only for a method that no standard knows.
    pub fn method(method: &[u8]) -> Self {
        match known_method(method) {
            Some(known) => Self { bytes: Cow::Borrowed(known.as_bytes()), cut: false },
            None => Self::new(method, Self::METHOD_BYTES),
        }
    }

    /// `target`: of the request. What follows the path is left out, since queries carry secrets.
    pub fn path(target: &[u8]) -> Self {
        let end = memchr::memchr2(b'?', b'#', target).unwrap_or(target.len());
        Self::new(&target[..end], Self::PATH_BYTES)
    }

    fn new(bytes: &[u8], most: usize) -> Self {
        let kept = bytes.len().min(most);
        Self { bytes: Cow::Owned(bytes[..kept].to_vec()), cut: kept < bytes.len() }
    }
}

/// A name for a subject that tells requests of one subject from another's without saying who it is. To be computed once per verified
/// token. Not keyed: every sidecar gives a subject the same name, and whoever can guess a subject can confirm the guess.
pub fn subject_hash(issuer: &str, subject: &str) -> [u8; 16] {
    let mut hash = Sha256::new();
    // The length keeps (ab, c) and (a, bc) apart.
    hash.update((issuer.len() as u64).to_be_bytes());
    hash.update(issuer);
    hash.update(subject);
    let mut name = [0; 16];
    name.copy_from_slice(&hash.finalize()[..16]);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_chose_is_cut() {
        let long = [b'a'; 2000];
        for (clipped, bytes, cut) in [
            (Clipped::method(b"GET"), &b"GET"[..], false),
            (Clipped::method(b"PROPFIND"), b"PROPFIND", false),
            (Clipped::method(&long), &long[..16], true),
            (Clipped::path(b"/a/b?token=secret"), b"/a/b", false),
            (Clipped::path(b"/a#token=secret?x"), b"/a", false),
            (Clipped::path(b"?token"), b"", false),
            (Clipped::path(&long[..1024]), &long[..1024], false),
            (Clipped::path(&long), &long[..1024], true),
        ] {
            assert_eq!((&*clipped.bytes, clipped.cut), (bytes, cut));
        }
        assert!(matches!(Clipped::method(b"DELETE").bytes, Cow::Borrowed(_)));
    }

    #[test]
    fn subjects_have_names_of_their_own() {
        let names =
            [("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc"), ("ab", "d")].map(|(issuer, subject)| subject_hash(issuer, subject));
        for (at, name) in names.iter().enumerate() {
            assert!(!names[..at].contains(name));
        }
        assert_eq!(subject_hash("ab", "c"), names[0]);
    }

    #[test]
    fn connect_errors_are_of_few_classes() {
        for (kind, class) in [
            (ErrorKind::ConnectionRefused, "refused"),
            (ErrorKind::TimedOut, "timed_out"),
            (ErrorKind::NetworkUnreachable, "unreachable"),
            (ErrorKind::ConnectionReset, "reset"),
            (ErrorKind::NotFound, "other"),
        ] {
            assert_eq!(ConnectError::from(kind).as_str(), class);
        }
    }
}
