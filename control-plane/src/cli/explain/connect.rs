//! `explain … connect`: a connection that leaves the workload. Asks no resolver: what a name leads to is the caller's to say.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use clap::{Args, ValueEnum};
use ringfence_xds::policy::{
    Deny, Reason, Snapshot, TenantId,
    egress::{DEFAULT_CONNECTION_RATE, DEFAULT_CONNECTIONS, EgressPolicy, HttpRequest, Permit, Seen},
    host::{Authority, Host},
    path::NormalPath,
    ratelimit::Mode,
    tenant::{Capture, ServedTenants, TenantPolicy, WorkloadPolicy},
};

use super::{ExplainError, Explanation};

#[derive(Debug, Args)]
pub(super) struct ConnectArgs {
    /// HOST:PORT, e.g. api.example.com:443 or [2001:db8::1]:443
    pub(super) destination: Destination,
    /// What the connection speaks; default: tls, and http where there is a --request
    #[arg(long, value_enum)]
    pub(super) protocol: Option<Spoken>,
    /// Of plain HTTP, e.g. "GET /v1/secret"; default: GET /
    #[arg(long, value_name = "METHOD PATH")]
    pub(super) request: Option<Request>,
    /// Of a shared workload: whose request stands behind the connection
    #[arg(long, value_name = "NAME")]
    pub(super) tenant: Option<String>,
    /// What the name leads to; may be given several times
    #[arg(long = "address", value_name = "IP", num_args = 1..)]
    pub(super) addresses: Vec<IpAddr>,
}

#[derive(Clone, Debug)]
pub(super) struct Destination {
    host: Host,
    port: u16,
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Authority { host, port } = text.parse().map_err(|error| format!("{error}"))?;
        let port = port.ok_or("must name a port, e.g. api.example.com:443")?;
        Ok(Self { host, port })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Spoken {
    Tls,
    Http,
    Tcp,
}

#[derive(Clone, Debug)]
pub(super) struct Request {
    method: String,
    target: String,
}

impl FromStr for Request {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let (method, target) = text.split_once(' ').ok_or("must be a method and a path, e.g. \"GET /v1/secret\"")?;
        Ok(Self { method: method.into(), target: target.into() })
    }
}

impl ConnectArgs {
    pub(super) fn explain(&self, snapshot: &Snapshot) -> Result<Explanation, ExplainError> {
        let workload = &snapshot.workload;
        let Some(outbound) = &workload.outbound else { return Err(ExplainError::NoEgress(workload.name.to_string())) };
        if self.request.is_some() && !matches!(self.protocol, None | Some(Spoken::Http)) {
            return Err(ExplainError::NoRequest);
        }
        if matches!(self.destination.host, Host::Address(_)) && !self.addresses.is_empty() {
            return Err(ExplainError::NoName);
        }
        let tenant = self.tenant(snapshot)?;
        let mut explanation = Explanation::default();
        explanation.begin("capture");
        explanation.say(match outbound.capture {
            Capture::None => format!("asked of the explicit proxy at {}", outbound.listen),
            Capture::Redirect => format!("redirected to {}, or asked of the proxy there", outbound.listen),
        });
        explanation.begin("limit");
        explanation.say(format!("counted for tenant {}: {}", tenant.id, limits(&tenant.egress)));
        let decided = self.route(tenant, snapshot, &mut explanation);
        Ok(explanation.decide(decided.map(|address| address.map(|address| address.to_string()))))
    }

    fn tenant<'a>(&self, snapshot: &'a Snapshot) -> Result<&'a TenantPolicy, ExplainError> {
        let workload = &snapshot.workload;
        let unknown = |tenant: &str| ExplainError::NoTenant { workload: workload.name.to_string(), tenant: tenant.into() };
        let id: TenantId = match (&workload.tenants, &self.tenant) {
            (ServedTenants::One(id), None) => id.clone(),
            (ServedTenants::One(id), Some(name)) if id.as_str() == name => id.clone(),
            (ServedTenants::One(_), Some(name)) => return Err(unknown(name)),
            (_, None) => return Err(ExplainError::WhichTenant(workload.name.to_string())),
            (_, Some(name)) => name.parse().map_err(|_| unknown(name))?,
        };
        snapshot.tenants.get(&id).map(|tenant| &**tenant).ok_or_else(|| unknown(id.as_str()))
    }

    /// The stages of the outbound route, in their order. `None`: what would be dialled is not known yet.
    fn route(&self, tenant: &TenantPolicy, snapshot: &Snapshot, explanation: &mut Explanation) -> Result<Option<SocketAddr>, Deny> {
        explanation.begin("decide");
        let permit = self.permit(&tenant.egress, &tenant.id)?;
        explanation.say(match &permit.shadow {
            Some(deny) => format!("in shadow mode: would be refused, {deny}"),
            None => format!("listed by {}", permit.rules().map(|rule| rule.as_str()).collect::<Vec<_>>().join(", ")),
        });
        if let Some(peer) = permit.peer {
            explanation.begin("peer");
            snapshot.may_call(peer, &tenant.id)?;
            explanation.say(format!("over mTLS, if {peer} is there"));
        }
        let addresses = match (&self.destination.host, self.addresses.as_slice()) {
            (Host::Address(address), _) => std::slice::from_ref(address),
            (Host::Name(name), []) => {
                explanation.begin("address");
                explanation.say(format!("what {name} leads to is judged once it is known: ask with --address"));
                return Ok(None);
            }
            (Host::Name(_), addresses) => addresses,
        };
        let is_own = |address| is_own(&snapshot.workload, address);
        for address in addresses {
            explanation.begin("address");
            explanation.say(match permit.destinations(&[*address], &snapshot.platform.egress, is_own).as_deref() {
                Ok([destination, ..]) => match (destination.shadow(), destination.rule()) {
                    (Some(deny), _) => format!("{address} in shadow mode: would be refused, {deny}"),
                    (None, Some(rule)) => format!("{address} allowed by {rule}"),
                    (None, None) => format!("{address} allowed"),
                },
                Ok([]) => format!("{address} not allowed"),
                Err(deny) => deny.to_string(),
            });
        }
        explanation.begin("connect");
        let destinations = permit.destinations(addresses, &snapshot.platform.egress, is_own)?;
        let dialled: Vec<String> = destinations.iter().map(|destination| destination.address().to_string()).collect();
        explanation.say(format!("dials {}", dialled.join(", then ")));
        Ok(destinations.first().map(|destination| destination.address()))
    }

    fn permit<'a>(&self, policy: &'a EgressPolicy, tenant: &TenantId) -> Result<Permit<'a>, Deny> {
        let Destination { host, port } = &self.destination;
        let spoken = self.protocol.unwrap_or(if self.request.is_some() { Spoken::Http } else { Spoken::Tls });
        let (method, target) = self.request.as_ref().map_or(("GET", "/"), |request| (&request.method, &request.target));
        let path;
        let seen = match spoken {
            Spoken::Tls => Seen::Tls,
            Spoken::Tcp => Seen::Opaque,
            Spoken::Http => {
                let target = target.split_once('?').map_or(target, |(path, _)| path);
                path = NormalPath::new(target).map_err(|why| Deny::new(Reason::RequestMalformed, format!("the path {why}")))?;
                Seen::Http(HttpRequest { method, path: &path })
            }
        };
        policy.permit(host, *port, seen, tenant)
    }
}

fn limits(egress: &EgressPolicy) -> String {
    let connections = egress.max_connections.unwrap_or(DEFAULT_CONNECTIONS);
    let rate = egress.connection_rate.map_or_else(|| format!("{DEFAULT_CONNECTION_RATE}/s"), |rate| rate.to_string());
    let mode = match egress.mode {
        Mode::Enforce => "enforced",
        Mode::Shadow => "in shadow mode",
    };
    format!("at most {connections} at once and {rate} new ones; its egress is {mode}")
}

/// Whether the workload's sidecar listens there, as far as its policy says: port 0 is whatever port it got.
fn is_own(workload: &WorkloadPolicy, address: SocketAddr) -> bool {
    let inbound = workload.inbound.iter().map(|inbound| inbound.listen);
    let outbound = workload.outbound.iter().map(|outbound| outbound.listen);
    let dns = workload.dns.iter().filter_map(|dns| dns.listen);
    let covers = |listen: SocketAddr| listen.ip() == address.ip() || (listen.ip().is_unspecified() && address.ip().is_loopback());
    inbound.chain(outbound).chain(dns).any(|listen| listen.port() == address.port() && covers(listen))
}
