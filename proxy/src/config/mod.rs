//! The CONFIG route's end: a stream of resources becomes the one snapshot in force.
//!
//! ```text
//! stream (socket, backoff) -> apply (decode, bind, assemble) -> current (swap) -> last_good (disk)
//!                          <- ACK / NACK
//! ```

pub mod apply;
pub mod current;
pub mod dial;
pub mod dump;
mod heap;
pub mod keys;
pub mod last_good;
pub mod learn;
pub mod stream;
pub mod zones;

pub use current::Current;
