//! What outside rules ask of the real binaries: HTTP/2 by h2spec, TLS by every code point that a ClientHello may offer; and what the threat
//! model says that the tenant's code beside a sidecar gets to see of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what panics here is a test that failed")]

mod http2;
mod neighbours;
mod tls;
