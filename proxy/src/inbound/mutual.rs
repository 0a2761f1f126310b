//! mTLS: a listener that shows this sidecar's SVID, and takes connections of members of the trust domain alone. Whether one that was taken
//! may ask for anything is decided at each request, by the policy that it is decided under.
//!
//! A connection ends with what it began on: at once when the trust bundle vouches for the peer no longer, or policy accepts it no longer
//! that did before; with some time for what is in flight when the peer's SVID has expired, for by then the peer has long had another and
//! comes back with it. A renewal of this sidecar's own SVID ends nothing: the peers judge that.

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
};

use ringfence_policy::{Deny, Reason};
use ringfence_xds::trust::server_config;
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{sleep_until, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    Inbound,
    connection::{self, Downstream},
    tls::{H2, HTTP1},
};
use crate::{
    config::Current,
    identity::{
        CurrentSvid,
        peer::{Absent, Credentials, GRACE, Peer},
    },
    listeners::{Drain, Stop},
    telemetry::notice,
};

/// What one thread takes peers' connections with.
pub(super) struct Mutual {
    svid: CurrentSvid,
    current: Arc<Current>,
    /// Made once for each SVID and bundle, and not for each connection.
    made: RefCell<Option<(Credentials, TlsAcceptor)>>,
    /// What was last told to be missing.
    told: Cell<Option<Absent>>,
}

impl Mutual {
    pub(super) fn new(svid: CurrentSvid, current: Arc<Current>) -> Self {
        Self { svid, current, made: RefCell::default(), told: Cell::default() }
    }

    fn acceptor(&self, listen: SocketAddr) -> io::Result<TlsAcceptor> {
        let bundle = self.current.pin().and_then(|snapshot| snapshot.trust.clone());
        let credentials = Credentials::of(&self.svid, bundle.as_ref());
        if self.told.replace(credentials.as_ref().err().copied()) != self.told.get()
            && let Some(absent) = self.told.get()
        {
            notice(format_args!("{listen} takes no connections: {absent}"));
        }
        let credentials = credentials.map_err(io::Error::other)?;
        let mut made = self.made.borrow_mut();
        if let Some((with, acceptor)) = &*made
            && *with == credentials
        {
            return Ok(acceptor.clone());
        }
        let config = server_config(&credentials.bundle, &credentials.svid, true, &[H2, HTTP1]).map_err(io::Error::other)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        *made = Some((credentials, acceptor.clone()));
        Ok(acceptor)
    }
}

/// Serves `stream` until either side has had enough, or the peer is believed no longer.
pub(super) async fn serve(stream: TcpStream, address: SocketAddr, inbound: Rc<Inbound>, drain: Drain) -> io::Result<()> {
    let Mutual { current, .. } = &inbound.enforce.mutual;
    let acceptor = inbound.enforce.mutual.acceptor(inbound.key.listen)?;
    let stream = timeout(inbound.timeouts.handshake, acceptor.accept(stream)).await??;
    let peer = Rc::new(Peer::of(stream.get_ref().1).map_err(io::Error::other)?);
    let downstream = Rc::new(Downstream::new(inbound.clone(), address, Some(peer.clone()))?);
    let (stop, stopping) = watch::channel(None);
    let no_longer = |detail: &'static str| Deny::new(Reason::PeerNotAllowed, detail);
    let believed = async {
        let deny = tokio::select! {
            () = peer.distrusted(current) => no_longer("the trust bundle vouches for the peer no longer"),
            deny = refused(&peer, current) => deny,
            () = expired(&peer, drain, stop) => no_longer("the peer's SVID has expired"),
        };
        // Before what it cuts is dropped, and tells the access log.
        peer.withdraw(deny);
    };
    tokio::select! {
        biased;
        () = believed => Ok(()),
        served = connection::secured(stream, downstream, Drain::new(stopping)) => served,
    }
}

/// Resolves once policy accepts the peer no longer that it has accepted. One that it never did is told so at each request.
async fn refused(peer: &Peer, current: &Current) -> Deny {
    let mut changes = current.changes();
    let mut was_accepted = false;
    loop {
        match current.pin().map(|snapshot| snapshot.accept(&peer.identity).map(|_| ())) {
            Some(Ok(())) => was_accepted = true,
            Some(Err(deny)) if was_accepted => return deny,
            Some(Err(_)) | None => {}
        }
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Begins to drain the connection when its listener does, or its peer's SVID expires; resolves when the SVID has expired for too long.
async fn expired(peer: &Peer, mut drain: Drain, stop: watch::Sender<Option<Stop>>) {
    let expires = peer.expires();
    let begun = tokio::select! {
        begun = drain.stop() => begun,
        () = sleep_until(expires) => Stop::within(expires + GRACE),
    };
    stop.send_replace(Some(begun));
    sleep_until(expires + GRACE).await;
}
