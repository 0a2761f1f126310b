//! Takes addresses that policy has let through; yields a connection to one of them. Never sees a name.

use std::{io, time::Duration};

use ringfence_policy::{Deny, Reason, egress::AllowedDestination};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

/// How long all addresses together get to complete a handshake.
pub const CONNECT: Duration = Duration::from_secs(10);
/// How long one gets while there are others left to try.
const ATTEMPT: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("not connected within {CONNECT:?}")]
    Timeout,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<ConnectError> for Deny {
    fn from(error: ConnectError) -> Self {
        let reason = match &error {
            ConnectError::Timeout => Reason::UpstreamTimeout,
            ConnectError::Io(_) => Reason::UpstreamConnect,
        };
        Deny::new(reason, error.to_string())
    }
}

/// Dials them in their order until one answers.
pub async fn connect(destinations: &[AllowedDestination]) -> Result<(TcpStream, &AllowedDestination), ConnectError> {
    let deadline = Instant::now() + CONNECT;
    let mut failed = ConnectError::Timeout;
    for (i, destination) in destinations.iter().enumerate() {
        let is_last = i + 1 == destinations.len();
        let limit = if is_last { deadline } else { deadline.min(Instant::now() + ATTEMPT) };
        match timeout_at(limit, TcpStream::connect(destination.address())).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok((stream, destination));
            }
            Ok(Err(error)) => failed = error.into(),
            Err(_) => failed = ConnectError::Timeout,
        }
    }
    Err(failed)
}
