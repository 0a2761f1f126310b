//! Delta ADS spoken by hand, and a tap on the stream of a real sidecar.

mod stream;
mod tap;

pub use stream::{Stream, subscribe};
pub use tap::Tap;
