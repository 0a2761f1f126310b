//! W3C Trace Context (level 1): the `traceparent` of a request, read strictly.
//!
//! The SDK's own propagator takes what the standard does not (a sign before a digit, spaces, a dash at the end) and writes it anew,
//! so that two readers of one header could see different traces.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Most bytes of `tracestate` that are passed on: the least that the standard asks for (§3.3.1.5).
const TRACESTATE_BYTES: usize = 512;

/// Most bytes of a `traceparent` of a later version, which may carry more fields than ours.
const TRACEPARENT_BYTES: usize = 128;

/// A valid `traceparent`: a trace, the caller's span in it, and whether the caller records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traceparent {
    pub trace_id: TraceId,
    pub parent_id: SpanId,
    pub sampled: bool,
}

impl Traceparent {
    /// The request's, if there is exactly one and it is valid.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let value = values.next()?;
        if values.next().is_some() { None } else { Self::parse(value.as_bytes()) }
    }

    /// `version "-" trace-id "-" parent-id "-" flags` in lower-case hex (§3.2.2); neither id is zero. Of later versions the part that
    /// level 1 knows is read, as §4.3 asks.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let known = value.get(..55)?;
        let [version, trace_id, parent_id, flags] = [0..2, 3..35, 36..52, 53..55].map(|field| hex(&known[field]));
        let separated = known[2] == b'-' && known[35] == b'-' && known[52] == b'-';
        let ends = match version? {
            0x00 => value.len() == 55,
            0xff => false,
            _ => value.len() == 55 || (value[55] == b'-' && value.len() <= TRACEPARENT_BYTES),
        };
        let (trace_id, parent_id) = (trace_id?, u64::try_from(parent_id?).ok()?);
        (separated && ends && trace_id != 0 && parent_id != 0).then_some(Self {
            trace_id: TraceId::from(trace_id),
            parent_id: SpanId::from(parent_id),
            sampled: flags? & 1 == 1,
        })
    }

    /// As the SDK sees a parent. The client's `tracestate` stays out: it is text of the client's choosing, and would be exported.
    pub(super) fn span_context(self) -> SpanContext {
        let flags = if self.sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
        SpanContext::new(self.trace_id, self.parent_id, flags, true, TraceState::NONE)
    }

    pub(super) fn header(self) -> Option<HeaderValue> {
        HeaderValue::try_from(self.to_string()).ok()
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace_id, self.parent_id, u8::from(self.sampled))
    }
}

/// Lower-case digits only; at most 32 of them.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| match digit {
        b'0'..=b'9' => Some(number << 4 | u128::from(digit - b'0')),
        b'a'..=b'f' => Some(number << 4 | u128::from(digit - b'a' + 10)),
        _ => None,
    })
}

/// Whether the request's `tracestate` is small enough and plain enough to pass on (it may be spread over several fields).
pub(super) fn tracestate_is_passable(headers: &HeaderMap) -> bool {
    let mut total = 0;
    headers.get_all(TRACESTATE).iter().all(|value| {
        total += value.len();
        total <= TRACESTATE_BYTES && value.to_str().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn traceparent_is_read_strictly() {
        const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parsed = Traceparent::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(parsed.trace_id, TraceId::from(0x4bf92f3577b34da6a3ce929d0e0e4736));
        assert_eq!(parsed.parent_id, SpanId::from(0x00f067aa0ba902b7));
        assert_eq!(parsed.to_string(), GOOD);

        let long = format!("01{}-{}", &GOOD[2..], "x".repeat(73));
        for (value, sampled) in [
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", Some(false)),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02", Some(false)),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff", Some(true)),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Some(true)),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-brings", Some(true)),
            (&long[..128], Some(true)),
            (&long, None),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.x", None),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", None),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00F067AA0BA902B7-01", None),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e473-000f067aa0ba902b7-01", None),
            ("00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01", None),
            ("+0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
            (" 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 ", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01", None),
            ("00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
            ("", None),
            ("00", None),
        ] {
            assert_eq!(Traceparent::parse(value.as_bytes()).map(|parent| parent.sampled), sampled, "{value}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(trace_id in 1u128.., parent_id in 1u64.., sampled: bool) {
            let parent = Traceparent { trace_id: TraceId::from(trace_id), parent_id: SpanId::from(parent_id), sampled };
            prop_assert_eq!(Traceparent::parse(parent.to_string().as_bytes()), Some(parent));
        }

        #[test]
        fn no_bytes_panic(value in prop::collection::vec(any::<u8>(), 0..140)) {
            let _ = Traceparent::parse(&value);
        }
    }
}
