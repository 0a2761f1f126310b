//! What policy has let through on one connection and is not over: asked about again whenever policy changes.

use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::{Rc, Weak},
};

use ringfence_policy::{Deny, SpiffeId};

use crate::{
    hop::send::Peer,
    outbound::{
        Outbound,
        decide::{Ask, Decided},
    },
};

/// One request's permission, for as long as it is kept.
pub(super) struct Granted {
    pub(super) ask: Ask,
    addresses: Vec<SocketAddr>,
    pub(super) peer_id: Option<SpiffeId>,
    /// Which of them it went to.
    pub(super) peer: Peer,
    /// Why it holds no longer.
    revoked: RefCell<Option<Deny>>,
}

impl Granted {
    fn stands(&self, outbound: &Outbound) -> Result<(), Deny> {
        let snapshot = outbound.pin()?;
        let stands = |address: &SocketAddr| self.ask.still_stands(*address, self.peer_id.as_ref(), &snapshot, &outbound.shared.own);
        match self.peer.get() {
            Some(peer) => stands(&peer),
            None => self.addresses.iter().try_for_each(stands),
        }
    }

    pub(super) fn revoked(&self) -> Option<Deny> {
        self.revoked.borrow().clone()
    }
}

/// The requests in flight on one connection.
#[derive(Default)]
pub(super) struct Standing(RefCell<Vec<Weak<Granted>>>);

impl Standing {
    /// Keeps an eye on what was decided. Policy may have changed while it was: what it says now counts.
    pub(super) fn grant(&self, decided: &Decided, outbound: &Outbound) -> Result<Rc<Granted>, Deny> {
        let granted = Rc::new(Granted {
            ask: decided.ask.clone(),
            addresses: decided.destinations.iter().map(|destination| destination.address()).collect(),
            peer_id: decided.peer.clone(),
            peer: Peer::default(),
            revoked: RefCell::default(),
        });
        let mut standing = self.0.borrow_mut();
        standing.retain(|granted| granted.strong_count() > 0);
        standing.push(Rc::downgrade(&granted));
        drop(standing);
        granted.stands(outbound).map(|()| granted)
    }

    /// Resolves once a request in flight is not allowed any more.
    pub(super) async fn revoked(&self, outbound: &Outbound) {
        let mut changes = outbound.shared.current.changes();
        while changes.changed().await.is_ok() {
            let standing: Vec<Rc<Granted>> = self.0.borrow().iter().filter_map(Weak::upgrade).collect();
            let mut all_stand = true;
            for granted in standing {
                if let Err(deny) = granted.stands(outbound) {
                    granted.revoked.replace(Some(deny));
                    all_stand = false;
                }
            }
            if !all_stand {
                return;
            }
        }
        std::future::pending().await
    }
}
