//! `Workload`.

use std::{collections::BTreeSet, net::SocketAddr};

use ringfence_policy::tenant::{Capture, InboundPolicy, OutboundPolicy, ServedTenants, TlsFiles, WorkloadPolicy};

use super::{Fault, Faults, Quoted, dns::dns, limits::patterns};
use crate::generated::resource as proto;

const MAX_LISTENERS: usize = 64;

pub fn workload(name: &str, body: &proto::Workload) -> Result<WorkloadPolicy, Vec<Fault>> {
    let mut faults = Faults::default();
    let whose = format!("Workload/{name}");
    let name = faults.name(name);
    let tenants = tenants(body, &mut faults);
    let issuers = body.issuers.iter().enumerate().filter_map(|(i, text)| faults.parse(format!("issuers[{i}]"), text)).collect();
    let mut listeners = Listeners::default();
    let inbound = inbound(&body.inbound, &mut listeners, &mut faults);
    let outbound = body.egress.as_ref().and_then(|egress| outbound(egress, body.dns.as_ref(), &mut listeners, &mut faults));
    let is_captured = body.egress.as_ref().is_some_and(|egress| egress.capture == "redirect");
    let dns = body.dns.as_ref().map(|body| dns(&whose, body, is_captured, &mut listeners, &mut faults));
    // Who would change a list that two have a say in? A dedicated workload's is its tenant's alone.
    if let (Some(ServedTenants::One(_)), Some(dns)) = (&tenants, &body.dns) {
        for (path, is_set) in
            [("dns.zones", !dns.zones.is_empty()), ("dns.mode", !dns.mode.is_empty()), ("dns.limits", !dns.limits.is_empty())]
        {
            if is_set {
                faults.add(path, "is for shared workloads: write it into the tenant's spec.dns");
            }
        }
    }
    let policy = name.zip(tenants).map(|(name, tenants)| WorkloadPolicy { name, tenants, issuers, inbound, outbound, dns });
    faults.or_some(policy)
}

/// The addresses that a workload listens on, each once. `dns.listen` is one of them: it takes TCP too.
#[derive(Default)]
pub(super) struct Listeners(BTreeSet<SocketAddr>);

impl Listeners {
    pub(super) fn listen(&mut self, path: String, text: &str, faults: &mut Faults) -> Option<SocketAddr> {
        let listen = address(&path, text, faults)?;
        // Port 0 is any free one.
        if listen.port() != 0 && !self.0.insert(listen) {
            faults.add(path, format!("{listen} is already listened on"));
        }
        Some(listen)
    }
}

fn tenants(body: &proto::Workload, faults: &mut Faults) -> Option<ServedTenants> {
    match (body.tenant.as_str(), body.tenants.as_slice()) {
        ("", []) => {
            faults.add("tenant", "is missing: name the tenant, or those of a shared workload as tenants: [...]");
            None
        }
        (tenant, []) => faults.parse("tenant", tenant).map(ServedTenants::One),
        ("", [any]) if any == "*" => Some(ServedTenants::Any),
        ("", list) => {
            let mut ids = BTreeSet::new();
            for (i, text) in list.iter().enumerate() {
                let path = format!("tenants[{i}]");
                if text == "*" {
                    faults.add(path, "\"*\" (any tenant) must stand alone");
                } else if let Some(id) = faults.parse(path.clone(), text)
                    && !ids.insert(id)
                {
                    faults.add(path, format!("{text:?} is already listed"));
                }
            }
            Some(ServedTenants::Some(ids))
        }
        (_, _) => {
            faults.add("tenants", "cannot stand beside tenant: a workload is dedicated or shared");
            None
        }
    }
}

fn inbound(bodies: &[proto::InboundListener], addresses: &mut Listeners, faults: &mut Faults) -> Vec<InboundPolicy> {
    if bodies.len() > MAX_LISTENERS {
        faults.add("inbound", format!("must be at most {MAX_LISTENERS} listeners"));
        return Vec::new();
    }
    let mut listeners = Vec::with_capacity(bodies.len());
    for (i, body) in bodies.iter().enumerate() {
        let at = |field: &str| format!("inbound[{i}].{field}");
        let listen = addresses.listen(at("listen"), &body.listen, faults);
        let upstream = address(&at("upstream"), &body.upstream, faults);
        if upstream.is_some_and(|address| address.port() == 0 || address.ip().is_unspecified()) {
            faults.add(at("upstream"), format!("must be an address that can be connected to, not {}", Quoted(&body.upstream)));
        } else if listen.zip(upstream).is_some_and(|(listen, upstream)| leads_back(listen, upstream)) {
            faults.add(at("upstream"), "is the listener itself: requests would go round for ever");
        }
        let public = patterns(&at("public"), &body.public, faults);
        let tls = body.tls.as_ref().map(|tls| {
            for (field, path) in [("certificate", &tls.certificate), ("key", &tls.key)] {
                if path.is_empty() || path.contains('\0') {
                    faults.add(at(&format!("tls.{field}")), "must be the path of a PEM file");
                }
            }
            TlsFiles { certificate: tls.certificate.clone().into(), key: tls.key.clone().into() }
        });
        if body.mtls && tls.is_some() {
            faults.add(at("mtls"), "cannot stand beside tls: a listener shows the sidecar's SVID or a certificate of its own");
        }
        if let (Some(listen), Some(upstream)) = (listen, upstream) {
            listeners.push(InboundPolicy { listen, upstream, public, tls, mtls: body.mtls, forward_token: body.forward_token });
        }
    }
    listeners
}

fn outbound(
    body: &proto::WorkloadEgress,
    dns: Option<&proto::WorkloadDns>,
    listeners: &mut Listeners,
    faults: &mut Faults,
) -> Option<OutboundPolicy> {
    let listen = listeners.listen("egress.listen".into(), &body.listen, faults);
    let capture = match body.capture.as_str() {
        "" | "none" => Capture::None,
        "redirect" => Capture::Redirect,
        other => {
            faults.add("egress.capture", format!("must be none or redirect, not {}", Quoted(other)));
            return None;
        }
    };
    if capture == Capture::None && body.listen.parse().is_ok_and(|listen: SocketAddr| !listen.ip().is_loopback()) {
        faults.add("egress.listen", "must be a loopback address: whoever reaches it goes out as the workload");
    }
    if capture == Capture::Redirect {
        let dns_listen = dns.map(|dns| dns.listen.as_str()).unwrap_or_default();
        if dns_listen.is_empty() {
            faults.add("egress.capture", "redirect needs dns.listen: DNS is captured too, and names could not be resolved otherwise");
        }
        for (path, text) in [("egress.listen", body.listen.as_str()), ("dns.listen", dns_listen)] {
            // What is no address is told where it is read.
            let Ok(address) = text.parse::<SocketAddr>() else { continue };
            if address.port() == 0 {
                faults.add(path, "must have a fixed port: the kernel redirects to it");
            }
            if !address.ip().is_loopback() && !address.ip().is_unspecified() {
                faults.add(path, "must be a loopback address, 0.0.0.0 or [::]: the kernel redirects what leaves to loopback");
            }
        }
    }
    listen.map(|listen| OutboundPolicy { listen, capture })
}

fn address(path: &str, text: &str, faults: &mut Faults) -> Option<SocketAddr> {
    text.parse()
        .map_err(|_| faults.add(path, format!("must be an address and port, e.g. 127.0.0.1:8080 or [::1]:8080, not {}", Quoted(text))))
        .ok()
}

/// Whether what is sent to `upstream` arrives at `listen`.
pub(super) fn leads_back(listen: SocketAddr, upstream: SocketAddr) -> bool {
    let every_address = listen.ip().is_unspecified() && upstream.ip().is_loopback();
    listen.port() == upstream.port() && (listen.ip() == upstream.ip() || every_address)
}
