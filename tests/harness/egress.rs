//! A workload whose sidecar it asks as a proxy, on loopback, and the DNS server that the sidecar asks.

use std::net::SocketAddr;

use serde_json::json;

use crate::{Dns, Serve, Sidecar, Site, raw::Raw, site::object};

// Ended in this order.
pub struct Egress {
    pub sidecar: Sidecar,
    pub serve: Serve,
    pub site: Site,
    pub dns: Dns,
    /// The proxy.
    pub address: SocketAddr,
}

impl Egress {
    /// Of the tenant `acme`, with these rules (a list in flow style). Loopback may be reached where a rule allows it.
    #[track_caller]
    pub fn allowing(rules: &str) -> Self {
        Self::start(&format!("allow: {rules}"))
    }

    /// With these fields of the tenant's `egress`.
    #[track_caller]
    pub fn start(egress: &str) -> Self {
        let site = Site::new();
        site.tenant("acme", &format!("egress: {{ {egress} }}"));
        Self::of(site, "tenant: acme")
    }

    /// Of a workload that serves these tenants of the site. `more`: fields of its spec besides `egress` and `dns`.
    #[track_caller]
    pub fn of(site: Site, more: &str) -> Self {
        let dns = Dns::start();
        site.write("platform.yaml", &object("Platform", "platform", "{ egress: { dangerousAllowPrivate: [127.0.0.0/8] } }"));
        let own = format!("egress: {{ listen: 127.0.0.1:0, capture: none }}, dns: {{ upstreams: [\"udp://{}\"] }}", dns.address);
        site.write("job.yaml", &object("Workload", "job", &format!("{{ {more}, {own} }}")));
        let serve = Serve::start(&site);
        let sidecar = Sidecar::start_with(&site, &serve, "job", &json!({ "drainSeconds": 5 }));
        let address = sidecar.admin.listener("outbound");
        Self { sidecar, serve, site, dns, address }
    }

    /// Replaces the fields of the tenant's `egress`.
    pub fn edit(&self, egress: &str) {
        self.site.tenant("acme", &format!("egress: {{ {egress} }}"));
    }

    /// CONNECT. A tunnel, or status and reason of the refusal.
    #[track_caller]
    pub fn connect(&self, authority: &str) -> Result<Raw, (u16, String)> {
        self.connect_with(authority, "")
    }

    /// The same with these field lines.
    #[track_caller]
    pub fn connect_with(&self, authority: &str, fields: &str) -> Result<Raw, (u16, String)> {
        let mut raw = Raw::connect(self.address);
        raw.send(format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{fields}\r\n"));
        let head = raw.head();
        if head.starts_with("HTTP/1.1 200 ") { Ok(raw) } else { Err(raw.refusal(&head)) }
    }

    /// What the proxy replies to such a request, given up to its last field line.
    #[track_caller]
    pub fn ask(&self, head: &str) -> (u16, String) {
        let mut raw = Raw::connect(self.address);
        raw.send(format!("{head}Connection: close\r\n\r\n"));
        let head = raw.head();
        raw.refusal(&head)
    }
}
