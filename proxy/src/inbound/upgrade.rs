//! A WebSocket after its handshake: octets both ways, and nothing more to decide.

use std::io;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional};

/// Joins `downstream`, from which `rest` was read already, with the upstream's half, until both directions have ended.
pub(super) async fn splice<S: AsyncRead + AsyncWrite + Unpin>(mut downstream: S, rest: &[u8], upstream: OnUpgrade) -> io::Result<()> {
    let mut upstream = TokioIo::new(upstream.await.map_err(io::Error::other)?);
    upstream.write_all(rest).await?;
    copy_bidirectional(&mut downstream, &mut upstream).await.map(|_| ())
}
