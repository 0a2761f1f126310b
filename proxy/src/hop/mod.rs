//! One hop of HTTP: what every route asks of a downstream connection and does to its messages, whoever asks and whatever for.
//!
//! `connection` serves a stream through `guard` (HTTP/1) or with `check` (HTTP/2); `headers` and `body` prepare what passes; `pool` holds the
//! connections to an upstream and `send` asks it. Nothing here decides: that is each route's own.

pub mod limits;

pub(crate) mod check;
pub(crate) mod connection;
pub(crate) mod guard;

pub(crate) mod body;
pub(crate) mod headers;
pub(crate) mod leaving;

pub(crate) mod pool;
pub(crate) mod send;
pub(crate) mod socket;

#[cfg(test)]
pub(crate) mod peers;

pub use self::{
    body::{Account, BodyError, ResponseBody},
    limits::Timeouts,
    pool::Upstream,
};
