//! Serves the connections of one inbound listener.

use std::{io, net::TcpListener, rc::Rc, time::Duration};

use socket2::SockRef;
use tokio::net::TcpStream;

use super::{Inbound, connection};
use crate::listeners::{Drain, accept};

pub async fn serve(listener: TcpListener, inbound: Rc<Inbound>, drain: Drain) -> io::Result<()> {
    accept::serve(listener, drain, |stream, peer, drain| {
        prepare(&stream, inbound.timeouts.stall);
        let inbound = inbound.clone();
        let counted = inbound.enforce.shared.metrics.connection();
        async move {
            let _counted = counted;
            connection::serve(stream, peer, inbound, drain).await
        }
    })
    .await
}

/// Socket options that matter and must not cost the connection if the kernel refuses them.
fn prepare(stream: &TcpStream, stall: Duration) {
    let _ = stream.set_nodelay(true);
    // A client that has gone silent or reads nothing is cut by the kernel: no timer of ours has to watch the writes.
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(stall));
}
