use std::sync::Arc;

use super::*;
use crate::{
    TrustBundle,
    tenant::{TenantPolicy, WorkloadPolicy},
};

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

/// A sidecar of `served`, which knows of acme and with whom it has agreed.
fn snapshot(served: ServedTenants, agreed: &[&str], trust_domain: Option<&str>) -> Snapshot {
    let acme = TenantPolicy {
        id: tenant("acme"),
        identities: Vec::new(),
        limits: Vec::new(),
        in_flight: None,
        inbound: Default::default(),
        peers: agreed.iter().map(|name| tenant(name)).collect(),
        egress: Default::default(),
        dns: Default::default(),
    };
    let workload = WorkloadPolicy {
        name: "api".parse().unwrap(),
        tenants: served,
        issuers: Default::default(),
        inbound: Vec::new(),
        outbound: None,
        dns: None,
    };
    let bundle = |domain: &str| TrustBundle { trust_domain: domain.parse().unwrap(), sequence: 1, authorities: Vec::new() };
    Snapshot {
        generation: 1,
        identity_generation: 1,
        workload: workload.into(),
        platform: Default::default(),
        trust: trust_domain.map(|domain| Arc::new(bundle(domain))),
        tenants: [(tenant("acme"), Arc::new(acme))].into(),
        issuers: Vec::new(),
        versions: Vec::new(),
        bindings: Default::default(),
        zones: None,
        budget: Default::default(),
    }
}

fn dedicated() -> ServedTenants {
    ServedTenants::One(tenant("acme"))
}

fn shared() -> ServedTenants {
    ServedTenants::Some(["acme", "initech"].map(tenant).into())
}

const ACME: &str = "spiffe://here/tenant/acme/workload/web";
const GLOBEX: &str = "spiffe://here/tenant/globex/workload/web";
const INITECH: &str = "spiffe://here/tenant/initech/workload/web";
const SHARED: &str = "spiffe://here/shared/workload/web";

#[test]
fn a_peer_is_accepted_for_its_tenant_alone() {
    let here = Some("here");
    for (served, agreed, domain, peer, expected) in [
        (dedicated(), &[][..], here, ACME, Ok("acme")),
        (dedicated(), &[], here, GLOBEX, Err("this workload's have not both agreed")),
        (dedicated(), &["globex"], here, GLOBEX, Ok("globex")),
        (dedicated(), &["globex"], here, INITECH, Err("have not both agreed")),
        (dedicated(), &["globex"], here, SHARED, Err("names no tenant")),
        (dedicated(), &[], here, "spiffe://here/ringfence/control-plane", Err("calls no workload")),
        (dedicated(), &[], here, "spiffe://here/tenant/acme", Err("is no workload's")),
        (dedicated(), &[], here, "spiffe://here/tenant/acme/workload/web/x", Err("is no workload's")),
        (dedicated(), &[], here, "spiffe://here/Tenant/acme/workload/web", Err("is no workload's")),
        (dedicated(), &[], here, "spiffe://elsewhere/tenant/acme/workload/web", Err("another trust domain")),
        (dedicated(), &[], None, ACME, Err("no trust bundle")),
        (shared(), &[], here, ACME, Ok("acme")),
        (shared(), &[], here, INITECH, Ok("initech")),
        // What acme has agreed to opens no workload that others share with it.
        (shared(), &["globex"], here, GLOBEX, Err("does not serve")),
        (shared(), &[], here, SHARED, Err("names no tenant")),
        (ServedTenants::Any, &[], here, GLOBEX, Ok("globex")),
        (ServedTenants::Any, &[], here, SHARED, Err("names no tenant")),
        (ServedTenants::Any, &[], None, GLOBEX, Err("no trust bundle")),
    ] {
        let case = format!("{peer} at {served:?}, agreed with {agreed:?}");
        let identity = PeerIdentity::from(peer.parse::<SpiffeId>().unwrap());
        match (snapshot(served, agreed, domain).accept(&identity), expected) {
            (Ok(accepted), Ok(expected)) => {
                assert_eq!(accepted.speaks_for(&tenant(expected)), Ok(()), "{case}");
                let other = accepted.speaks_for(&tenant("hooli")).unwrap_err();
                assert_eq!(other.reason, Reason::TenantMismatch, "{case}");
            }
            (Err(deny), Err(expected)) => {
                assert_eq!(deny.reason, Reason::PeerNotAllowed, "{case}");
                assert!(deny.detail.contains(expected), "{case}: {}", deny.detail);
            }
            (got, expected) => panic!("{case}: {got:?}, not {expected:?}"),
        }
    }
}

#[test]
fn a_rule_leads_to_no_other_than_its_peer() {
    let peer =
        |tenant: Option<&str>| PeerWorkload { tenant: tenant.map(|tenant| tenant.parse().unwrap()), workload: "billing".parse().unwrap() };
    for (agreed, domain, whose, expected) in [
        (&[][..], Some("here"), Some("acme"), Ok("spiffe://here/tenant/acme/workload/billing")),
        (&[], Some("here"), None, Ok("spiffe://here/shared/workload/billing")),
        (&["globex"], Some("here"), Some("globex"), Ok("spiffe://here/tenant/globex/workload/billing")),
        (&[], Some("here"), Some("globex"), Err(Reason::PeerNotAllowed)),
        (&[], None, Some("acme"), Err(Reason::UpstreamIdentity)),
        (&[], None, Some("globex"), Err(Reason::PeerNotAllowed)),
    ] {
        let id = snapshot(dedicated(), agreed, domain).peer_id(&peer(whose), &tenant("acme"));
        let got = id.as_ref().map(ToString::to_string).map_err(|deny| deny.reason);
        assert_eq!(got.as_deref(), expected.as_ref().map(|id| *id), "{whose:?}, agreed with {agreed:?}");
    }
}
