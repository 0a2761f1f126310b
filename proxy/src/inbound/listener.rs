//! Serves the connections of one inbound listener.

use std::{io, net::TcpListener, rc::Rc, time::Duration};

use socket2::SockRef;

use super::{Inbound, connection};
use crate::listeners::{Drain, accept};

pub async fn serve(listener: TcpListener, inbound: Rc<Inbound>, drain: Drain) -> io::Result<()> {
    prepare(&listener, inbound.timeouts.stall);
    accept::serve(listener, drain, |stream, peer, drain| {
        let inbound = inbound.clone();
        let counted = inbound.enforce.shared.metrics.connection();
        async move {
            let _counted = counted;
            connection::serve(stream, peer, inbound, drain).await
        }
    })
    .await
}

/// Socket options that matter and must not cost the listener if the kernel refuses them. What it accepts inherits them.
fn prepare(listener: &TcpListener, stall: Duration) {
    let listener = SockRef::from(listener);
    let _ = listener.set_tcp_nodelay(true);
    // A client that has gone silent or reads nothing is cut by the kernel: no timer of ours has to watch the writes.
    let _ = listener.set_tcp_user_timeout(Some(stall));
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn what_is_accepted_has_the_options_of_its_listener() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let stall = Duration::from_secs(60);
            prepare(&listener, stall);
            let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            let accepted = SockRef::from(&accepted);
            assert!(accepted.tcp_nodelay().unwrap(), "{address}");
            assert_eq!(accepted.tcp_user_timeout().unwrap(), Some(stall), "{address}");
        }
    }
}
