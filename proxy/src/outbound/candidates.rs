//! What a connection of octets may be taken to ask for. Takes where it claims to go and what its first octets are; yields the question
//! that policy answers with yes, or the most telling no.
//!
//! Captured, the original destination being an address that the workload chose:
//!
//! 1. TLS that names its host: the name. The sidecar resolves it and dials that, whatever the original destination was.
//! 2. Where no rule lists the name, or it is hidden: the original address, which a rule must list by prefix.
//! 3. Neither TLS nor HTTP: the original address, by prefix; else a name that this sidecar's DNS told the workload for that address, if a
//!    rule of protocol `tcp` lists it; else each name that such a rule spells out, if it leads there. What is dialled is the original
//!    address.
//!
//! In a CONNECT tunnel, whose host and port are let through and whose address is dialled already:
//!
//! 1. TLS that names the CONNECT's host: that host, for TLS.
//! 2. TLS that names another or none: a rule of protocol `tcp` must list the CONNECT's host. Where that is an address, any rule for TLS
//!    does, for no rule for an address speaks of names.
//! 3. Neither TLS nor HTTP: the CONNECT's host, which a rule of protocol `tcp` must list.
//!
//! Of several refusals the first is told: the name's before the address's. In shadow mode what nothing lists goes where the workload
//! wanted it to go.

use std::{
    future,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Instant,
};

use futures_util::{StreamExt, stream};
use ringfence_policy::{
    Deny, Reason, Snapshot, TenantId,
    egress::{self as policy, EgressRule, Permit},
    host::{Host, HostName},
    ratelimit::Mode,
};
use tokio::time::timeout;

use super::{
    decide::{Ask, Decided, Places, Protocol, RESOLVE, decide, decide_at, egress_of},
    sniff::Name,
};
use crate::dns::own::may_lead;

/// Names that are resolved at once for one connection.
const LOOKUPS: usize = 16;

/// One connection's tenant and port, under one policy.
pub(super) struct Candidates<'a> {
    pub(super) tenant: &'a TenantId,
    pub(super) port: u16,
    pub(super) snapshot: &'a Arc<Snapshot>,
    pub(super) places: Places<'a>,
}

impl Candidates<'_> {
    pub(super) async fn captured_tls(&self, name: &Name, original: SocketAddr) -> Result<Decided, Deny> {
        let by_address = self.ask(Host::Address(original.ip()), Protocol::Tls);
        let (asks, told) = match name {
            Name::Open(name) => (vec![self.ask(Host::Name(name.clone()), Protocol::Tls), by_address], None),
            Name::Hidden(deny) => (vec![by_address], Some(deny.clone())),
        };
        let (ask, permit, shadow) = self.choose(asks, told)?;
        let decided = decide(ask, permit, self.snapshot, self.places).await?;
        Ok(Decided { shadow, ..decided })
    }

    pub(super) async fn captured_opaque(&self, original: SocketAddr) -> Result<Decided, Deny> {
        let by_address = self.ask(Host::Address(original.ip()), Protocol::Opaque);
        let refused = match by_address.listed(self.snapshot) {
            Ok(permit) => return decide_at(by_address, permit, original.ip(), self.snapshot, self.places.own),
            Err(deny) => deny,
        };
        if let Some(name) = self.leading_to(original.ip()).await? {
            let ask = self.ask(Host::Name(name), Protocol::Opaque);
            let permit = ask.permit(self.snapshot)?;
            return decide_at(ask, permit, original.ip(), self.snapshot, self.places.own);
        }
        self.chosen(by_address, Some(refused), original)
    }

    /// `dialled`: the address that the CONNECT's host was found to lead to.
    pub(super) fn tunnelled_tls(&self, host: &Host, name: &Name, dialled: SocketAddr) -> Result<Decided, Deny> {
        let (seen, told) = match (host, name) {
            (Host::Address(_), Name::Open(_)) => (Protocol::Tls, None),
            (Host::Address(_), Name::Hidden(deny)) => (Protocol::Tls, Some(deny.clone())),
            (Host::Name(host), Name::Open(name)) if host == name => (Protocol::Tls, None),
            (Host::Name(host), Name::Open(name)) => {
                let detail = format!("CONNECT names {host}, and the TLS in it {name}");
                (Protocol::Opaque, Some(Deny::new(Reason::EgressNameMismatch, detail)))
            }
            (Host::Name(_), Name::Hidden(deny)) => (Protocol::Opaque, Some(deny.clone())),
        };
        self.chosen(self.ask(host.clone(), seen), told, dialled)
    }

    pub(super) fn tunnelled_opaque(&self, host: &Host, dialled: SocketAddr) -> Result<Decided, Deny> {
        self.chosen(self.ask(host.clone(), Protocol::Opaque), None, dialled)
    }

    /// Whether a connection that says nothing might be let through: else it can be waited for longer.
    pub(super) fn may_be_opaque(&self) -> bool {
        egress_of(self.snapshot, self.tenant).is_ok_and(|policy| {
            let may = |rule: &EgressRule| rule.protocol == policy::Protocol::Tcp && rule.ports.contains(&self.port);
            policy.mode == Mode::Shadow || policy.rules.iter().any(may)
        })
    }

    /// For an address that is given.
    fn chosen(&self, ask: Ask, told: Option<Deny>, address: SocketAddr) -> Result<Decided, Deny> {
        let (ask, permit, shadow) = self.choose(vec![ask], told)?;
        let decided = decide_at(ask, permit, address.ip(), self.snapshot, self.places.own)?;
        Ok(Decided { shadow, ..decided })
    }

    fn ask(&self, host: Host, seen: Protocol) -> Ask {
        Ask { tenant: self.tenant.clone(), host, port: self.port, seen }
    }

    /// The first that a rule lists. Where none does: in shadow mode the last with what would have been told, else that.
    fn choose(&self, asks: Vec<Ask>, mut told: Option<Deny>) -> Result<(Ask, Permit<'_>, Option<Deny>), Deny> {
        let mut last = None;
        for ask in asks {
            match ask.listed(self.snapshot) {
                Ok(permit) => return Ok((ask, permit, None)),
                Err(deny) => {
                    told.get_or_insert(deny);
                    last = Some(ask);
                }
            }
        }
        let told = told.unwrap_or_else(|| Deny::new(Reason::EgressHostNotListed, "nothing was asked for"));
        match last {
            Some(ask) if egress_of(self.snapshot, self.tenant)?.mode == Mode::Shadow => {
                let permit = ask.permit(self.snapshot)?;
                Ok((ask, permit, Some(told)))
            }
            _ => Err(told),
        }
    }

    /// A listed name that leads to `address`: as the workload was told, or as is found by asking for those that are spelt out.
    async fn leading_to(&self, address: IpAddr) -> Result<Option<HostName>, Deny> {
        let told = self.places.bindings.lookup(address, Instant::now());
        let is_listed = |name: &HostName| self.ask(Host::Name(name.clone()), Protocol::Opaque).listed(self.snapshot).is_ok();
        // Without one of its zones nothing leads anywhere.
        let Some(zones) = &self.snapshot.zones else { return Ok(None) };
        if let Some(name) = told.into_iter().find(|name| is_listed(name) && may_lead(name, address, zones)) {
            return Ok(Some(name));
        }
        let policy = egress_of(self.snapshot, self.tenant)?;
        let leads_there = async |name: &HostName| {
            let addresses = self.places.resolve(name, self.tenant, self.snapshot).await;
            addresses.is_ok_and(|addresses| addresses.contains(&address)).then(|| name.clone())
        };
        let found = stream::iter(policy.opaque_names(self.port)).map(leads_there).buffer_unordered(LOOKUPS);
        let mut found = pin!(found.filter_map(future::ready));
        // However many names there are.
        Ok(timeout(RESOLVE, found.next()).await.unwrap_or_default())
    }
}
