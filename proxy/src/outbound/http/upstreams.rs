//! The upstream connections of one downstream connection. They serve nobody else, and each only what was decided alike: the same tenant,
//! host, port and addresses, and of a peer the same SPIFFE ID, for as long as neither this sidecar's SVID nor the trust bundle changes and
//! the SVID is good that the peer has shown.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    time::Duration,
};

use ringfence_policy::{Deny, Reason, SpiffeId, TenantId, host::Host};
use tokio::time::{Instant, timeout};

use crate::{
    hop::{
        Timeouts, Upstream,
        pool::{ConnectError, Connected, Dial},
    },
    identity::peer::{Credentials, PeerStream},
    outbound::{Dialled, Outbound, decide::Decided},
};

/// Destinations that one downstream connection keeps connections to. Those of others end with their requests.
const MOST: usize = 16;

#[derive(Default)]
pub(super) struct Upstreams(RefCell<VecDeque<Known>>);

struct Known {
    key: Key,
    upstream: Rc<Upstream>,
    fresh: Rc<Fresh>,
}

/// Until when its connections take requests: the first SVID that a peer has shown on one of them expires then.
type Fresh = Cell<Option<Instant>>;

#[derive(PartialEq)]
struct Key {
    tenant: TenantId,
    host: Host,
    port: u16,
    addresses: Vec<SocketAddr>,
    peer: Option<ToPeer>,
}

/// Whom to ask over mTLS, as whom, and in what: a session is for one protocol.
#[derive(Clone, PartialEq)]
struct ToPeer {
    id: SpiffeId,
    credentials: Credentials,
    alpn: &'static str,
}

impl Key {
    fn of(decided: &Decided, is_http2: bool, outbound: &Outbound) -> Result<Self, Deny> {
        let peer = decided.peer.clone().map(|id| {
            let snapshot = outbound.pin()?;
            let credentials = Credentials::of(&outbound.shared.svid, snapshot.trust.as_ref());
            let credentials = credentials.map_err(|absent| Deny::new(Reason::UpstreamIdentity, absent.to_string()))?;
            Ok::<_, Deny>(ToPeer { id, credentials, alpn: if is_http2 { "h2" } else { "http/1.1" } })
        });
        Ok(Self {
            tenant: decided.ask.tenant.clone(),
            host: decided.ask.host.clone(),
            port: decided.ask.port,
            addresses: decided.destinations.iter().map(|destination| destination.address()).collect(),
            peer: peer.transpose()?,
        })
    }
}

impl Known {
    /// Whether its connections may serve as long as `key`'s do.
    fn is_fit_beside(&self, key: &Key) -> bool {
        let is_renewed = match (&self.key.peer, &key.peer) {
            (Some(own), Some(other)) => own.credentials != other.credentials,
            _ => false,
        };
        !is_renewed && self.fresh.get().is_none_or(|until| Instant::now() < until)
    }
}

impl Upstreams {
    /// `first`: a connection that was made already, if it goes where this does.
    pub(super) fn of(
        &self,
        decided: &Decided,
        is_http2: bool,
        first: &Cell<Option<Dialled>>,
        outbound: &Rc<Outbound>,
        timeouts: &Timeouts,
    ) -> Result<Rc<Upstream>, Deny> {
        let key = Key::of(decided, is_http2, outbound)?;
        let mut known = self.0.borrow_mut();
        known.retain(|known| known.is_fit_beside(&key));
        if let Some(known) = known.iter().find(|known| known.key == key) {
            return Ok(known.upstream.clone());
        }
        // What was made for a tunnel is the workload's from end to end.
        let first = if key.peer.is_none() { first.take() } else { None };
        let fresh = Rc::new(Fresh::default());
        let destination = Destination {
            outbound: outbound.clone(),
            decided: decided.clone(),
            first: Cell::new(first.filter(|dialled| key.addresses.contains(&dialled.destination.address()))),
            peer: key.peer.clone(),
            handshake: timeouts.handshake,
            fresh: fresh.clone(),
        };
        let upstream = Rc::new(Upstream::dialled_by(Box::new(destination), timeouts.connect));
        if known.len() == MOST {
            known.pop_front();
        }
        known.push_back(Known { key, upstream: upstream.clone(), fresh });
        Ok(upstream)
    }
}

/// Where policy has let a request go.
struct Destination {
    outbound: Rc<Outbound>,
    decided: Decided,
    first: Cell<Option<Dialled>>,
    peer: Option<ToPeer>,
    /// How long TLS may take to begin.
    handshake: Duration,
    fresh: Rc<Fresh>,
}

impl Dial for Destination {
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<Connected, ConnectError>> + '_>> {
        Box::pin(async {
            let Dialled { stream, destination, place } = match self.first.take() {
                Some(dialled) => dialled,
                None => {
                    let snapshot = self.outbound.pin().map_err(ConnectError::Refused)?;
                    self.outbound.dial(&self.decided, &snapshot).await.map_err(ConnectError::Refused)?
                }
            };
            let Some(ToPeer { id, credentials, alpn }) = &self.peer else {
                return Ok(Connected::new(stream, destination.address(), Some(place)));
            };
            let handshake = PeerStream::connect(stream, id, alpn, credentials, &self.outbound.shared.current);
            let stream = timeout(self.handshake, handshake).await.map_err(|_| ConnectError::Timeout(self.handshake))?;
            let refused = |why: String| ConnectError::Refused(Deny::new(Reason::UpstreamIdentity, why));
            let stream = stream.map_err(|error| refused(format!("{id} is not at {}: {error}", destination.address())))?;
            let until = self.fresh.get().map_or(stream.expires(), |until| until.min(stream.expires()));
            self.fresh.set(Some(until));
            Ok(Connected::new(stream, destination.address(), Some(place)))
        })
    }
}
