//! Takes addresses that policy has let through; yields a connection to one of them. Never sees a name.

use std::{io, time::Duration};

use ringfence_policy::{Deny, Reason, egress::AllowedDestination};
use tokio::{net::TcpStream, time::timeout};

/// How long an address gets to complete the handshake.
pub const CONNECT: Duration = Duration::from_secs(10);

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
    let mut failed = ConnectError::Timeout;
    for destination in destinations {
        match timeout(CONNECT, TcpStream::connect(destination.address())).await {
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
