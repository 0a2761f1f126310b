//! Serves the connections of one outbound listener: where was each going?

use std::{
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
};

use ringfence_policy::tenant::Capture;
use tokio::net::TcpStream;

use super::{Outbound, capture::original_destination, connection};
use crate::listeners::{Drain, accept};

pub async fn serve(listener: TcpListener, outbound: Rc<Outbound>, drain: Drain) -> io::Result<()> {
    accept::serve(listener, drain, |stream, _, drain| {
        let outbound = outbound.clone();
        let open = outbound.shared.metrics.outbound_open();
        async move {
            let _open = open;
            let _ = stream.set_nodelay(true);
            let original = original(&stream, outbound.capture)?;
            connection::serve(stream, original, outbound, drain).await
        }
    })
    .await
}

/// `None`: nobody redirected it, the workload asks the proxy.
fn original(stream: &TcpStream, capture: Capture) -> io::Result<Option<SocketAddr>> {
    match capture {
        Capture::None => Ok(None),
        Capture::Redirect => original_destination(stream),
    }
}
