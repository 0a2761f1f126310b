//! The upstream connections of one downstream connection. They serve nobody else, and each only what was decided alike: the same tenant,
//! host, port and addresses.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    time::Duration,
};

use ringfence_policy::{TenantId, host::Host};

use crate::{
    hop::{
        Upstream,
        pool::{ConnectError, Connected, Dial},
    },
    outbound::{Dialled, Outbound, decide::Decided},
};

/// Destinations that one downstream connection keeps connections to. Those of others end with their requests.
const MOST: usize = 16;

#[derive(Default)]
pub(super) struct Upstreams(RefCell<VecDeque<(Key, Rc<Upstream>)>>);

#[derive(PartialEq, Eq)]
struct Key {
    tenant: TenantId,
    host: Host,
    port: u16,
    addresses: Vec<SocketAddr>,
}

impl Key {
    fn of(decided: &Decided) -> Self {
        Self {
            tenant: decided.ask.tenant.clone(),
            host: decided.ask.host.clone(),
            port: decided.ask.port,
            addresses: decided.destinations.iter().map(|destination| destination.address()).collect(),
        }
    }
}

impl Upstreams {
    /// `first`: a connection that was made already, if it goes where this does.
    pub(super) fn of(&self, decided: &Decided, first: &Cell<Option<Dialled>>, outbound: &Rc<Outbound>, connect: Duration) -> Rc<Upstream> {
        let key = Key::of(decided);
        let mut known = self.0.borrow_mut();
        if let Some((_, upstream)) = known.iter().find(|(other, _)| *other == key) {
            return upstream.clone();
        }
        let first = first.take().filter(|dialled| key.addresses.contains(&dialled.destination.address()));
        let destination = Destination { outbound: outbound.clone(), decided: decided.clone(), first: Cell::new(first) };
        let upstream = Rc::new(Upstream::dialled_by(Box::new(destination), connect));
        if known.len() == MOST {
            known.pop_front();
        }
        known.push_back((key, upstream.clone()));
        upstream
    }
}

/// Where policy has let a request go.
struct Destination {
    outbound: Rc<Outbound>,
    decided: Decided,
    first: Cell<Option<Dialled>>,
}

impl Dial for Destination {
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<Connected, ConnectError>> + '_>> {
        Box::pin(async {
            let dialled = match self.first.take() {
                Some(dialled) => dialled,
                None => {
                    let snapshot = self.outbound.pin().map_err(ConnectError::Refused)?;
                    self.outbound.dial(&self.decided, &snapshot).await.map_err(ConnectError::Refused)?
                }
            };
            Ok(Connected::new(dialled.stream, dialled.destination.address(), Some(dialled.place)))
        })
    }
}
