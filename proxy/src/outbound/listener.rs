//! Serves the connections of one outbound listener: where was each going?

use std::{
    cell::Cell,
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    time::Duration,
};

use ringfence_policy::tenant::Capture;
use socket2::SockRef;
use tokio::{net::TcpStream, time::sleep};

use super::{Outbound, capture::original_destination, connection};
use crate::listeners::{Drain, accept};

/// Less than any timer that a new connection sets.
const AHEAD: Duration = Duration::from_millis(250);

pub async fn serve(listener: TcpListener, outbound: Rc<Outbound>, drain: Drain) -> io::Result<()> {
    // What is accepted inherits it.
    let _ = SockRef::from(&listener).set_tcp_nodelay(true);
    let bound = listener.local_addr()?;
    let first_timer = Rc::<FirstTimer>::default();
    accept::serve(listener, drain, |stream, _, drain| {
        first_timer.set();
        let outbound = outbound.clone();
        let open = outbound.shared.metrics.outbound_open();
        async move {
            let _open = open;
            let original = original(&stream, bound, outbound.capture)?;
            connection::serve(stream, original, outbound, drain).await
        }
    })
    .await
}

/// A timer that comes before those of the connections, for as long as there are new ones. tokio's driver is woken, by a system call, for each
/// timer that comes before all others, and a connection on its way out sets several, none of which is meant to expire.
#[derive(Default)]
struct FirstTimer {
    is_set: Cell<bool>,
    is_wanted: Cell<bool>,
}

impl FirstTimer {
    fn set(self: &Rc<Self>) {
        self.is_wanted.set(true);
        if self.is_set.replace(true) {
            return;
        }
        let this = self.clone();
        tokio::task::spawn_local(async move {
            while this.is_wanted.take() {
                sleep(AHEAD).await;
            }
            this.is_set.set(false);
        });
    }
}

/// `None`: nobody redirected it, the workload asks the proxy.
fn original(stream: &TcpStream, bound: SocketAddr, capture: Capture) -> io::Result<Option<SocketAddr>> {
    match capture {
        Capture::None => Ok(None),
        Capture::Redirect => original_destination(stream, bound),
    }
}
