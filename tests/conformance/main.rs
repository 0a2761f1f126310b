//! What outside rules ask of the listeners, put to the real binaries: HTTP/2 by h2spec, TLS by every code point that a ClientHello may offer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what panics here is a test that failed")]

mod http2;
mod tls;
