//! What most scenarios begin with: acme's dedicated workload behind a sidecar.

use std::net::SocketAddr;

use crate::{
    Serve, Sidecar, Site, Upstream,
    http::{self, Request},
};

// Ended in this order.
pub struct Acme {
    pub sidecar: Sidecar,
    pub serve: Serve,
    pub site: Site,
    pub upstream: Upstream,
    pub address: SocketAddr,
    /// Alice's of acme.
    pub token: String,
}

impl Acme {
    #[track_caller]
    pub fn start() -> Self {
        Self::with("")
    }

    /// With these fields of the tenant's spec.
    #[track_caller]
    pub fn with(tenant: &str) -> Self {
        let upstream = Upstream::start();
        let site = Site::acme(upstream.address);
        site.tenant("acme", tenant);
        let serve = Serve::start(&site);
        let sidecar = Sidecar::start(&site, &serve, "acme-api");
        let (address, token) = (sidecar.address(), site.token("acme"));
        Self { sidecar, serve, site, upstream, address, token }
    }

    /// A request of alice's.
    pub fn get(&self, target: &str) -> Request {
        http::get(self.address, target).bearer(&self.token)
    }

    /// What a request with another token comes to.
    #[track_caller]
    pub fn verdict(&self, token: &str) -> (u16, String) {
        http::get(self.address, "/").bearer(token).send().verdict()
    }

    /// A request of alice's, up to its last field.
    pub fn head(&self, method: &str, target: &str) -> String {
        format!("{method} {target} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n", self.token)
    }
}
