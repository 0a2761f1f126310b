//! HTTP on its way out.

use std::{io, rc::Rc};

use super::{Origin, Outbound, stream::Stream};
use crate::listeners::Drain;

/// Serves HTTP/1 or HTTP/2 on `stream`, from which `initial` was read already, until either side has had enough.
pub(super) async fn serve(stream: Stream, initial: Vec<u8>, origin: Origin, outbound: Rc<Outbound>, drain: Drain) -> io::Result<()> {
    let _ = (stream, initial, origin, outbound, drain);
    Err(io::ErrorKind::Unsupported.into())
}
