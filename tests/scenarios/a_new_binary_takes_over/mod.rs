//! A new binary takes over from the one that runs: nobody who is served notices, and whatever breaks off leaves one sidecar that serves.

mod carries_over;
mod loses_nothing;
mod may_break_off;

use std::net::SocketAddr;

use ringfence_tests::{Dns, Echo, Serve, Sidecar, Site, Upstream, raw::Raw, site::object};
use serde_json::{Value, json};

/// A sidecar with listeners of every kind, and what it needs around it.
// Ended in this order.
pub(crate) struct World {
    pub(crate) sidecar: Sidecar,
    _serve: Serve,
    site: Site,
    pub(crate) upstream: Upstream,
    dns: Dns,
    pub(crate) clients: Clients,
}

/// What is asked of the sidecar, whichever process that is.
pub(crate) struct Clients {
    pub(crate) inbound: SocketAddr,
    pub(crate) egress: SocketAddr,
    pub(crate) names: SocketAddr,
    token: String,
    echo: Echo,
}

impl World {
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::with("", &json!({}))
    }

    /// With these fields of the tenant's spec and of the bootstrap.
    #[track_caller]
    fn with(tenant: &str, bootstrap: &Value) -> Self {
        let (upstream, echo, dns, site) = (Upstream::start(), Echo::start(), Dns::start(), Site::new());
        dns.set("echo.test", &["127.0.0.1"]);
        site.tenant(
            "acme",
            &format!(
                "egress: {{ connectionRate: 100000/s, allow: [{{ name: echo, hosts: [echo.test], ports: [{}], protocol: tcp }}] }}{}{tenant}",
                echo.address.port(),
                if tenant.is_empty() { "" } else { ", " },
            ),
        );
        site.write("platform.yaml", &object("Platform", "platform", "{ egress: { dangerousAllowPrivate: [127.0.0.0/8] } }"));
        let spec = format!(
            "{{ tenant: acme, inbound: [{{ listen: 127.0.0.1:0, upstream: {} }}], egress: {{ listen: 127.0.0.1:0, capture: none }}, \
             dns: {{ listen: 127.0.0.1:0, upstreams: [\"udp://{}\"] }} }}",
            upstream.address, dns.address
        );
        site.write("acme-api.yaml", &object("Workload", "acme-api", &spec));
        let serve = Serve::start(&site);
        let sidecar = Sidecar::start_with(&site, &serve, "acme-api", bootstrap);
        let [inbound, egress, names] = ["inbound", "outbound", "dns"].map(|route| sidecar.admin.listener(route));
        let clients = Clients { inbound, egress, names, token: site.token("acme"), echo };
        Self { sidecar, _serve: serve, site, upstream, dns, clients }
    }

    /// Another process, which serves when this returns; how the one before ended.
    #[track_caller]
    fn take_over(&mut self) -> std::process::ExitStatus {
        let successor = self.sidecar.take_over();
        self.sidecar.succeeded_by(successor).ended()
    }

    /// Begins anew on other ports, where the system chose them.
    fn look_up_again(&mut self) {
        self.clients.inbound = self.sidecar.admin.listener("inbound");
    }
}

impl Clients {
    /// A request of alice's up to its last field.
    pub(crate) fn head(&self, target: &str) -> String {
        format!("GET {target} HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {}\r\n", self.token)
    }

    /// What a request on a connection of its own comes to.
    #[track_caller]
    pub(crate) fn status(&self) -> u16 {
        ringfence_tests::http::get(self.inbound, "/").bearer(&self.token).send().status
    }

    /// A connection through the proxy.
    #[track_caller]
    pub(crate) fn tunnel(&self) -> Raw {
        let mut raw = Raw::connect(self.egress);
        let authority = format!("echo.test:{}", self.echo.address.port());
        raw.send(format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"));
        let head = raw.head();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        raw
    }
}
