//! The sockets: bound before a policy that needs them is in force, handed to the data threads when it is, drained when it is gone.

pub mod accept;
mod passed;

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use ringfence_policy::tenant::{Capture, InboundPolicy, OutboundPolicy, WorkloadPolicy};
use ringfence_xds::decode::Fault;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

pub use self::{
    accept::{Drain, Stop},
    passed::{Passed, PassedSocket},
};
use crate::{
    capture, dns,
    inbound::tls::{self, TlsIdentity},
    outbound::own::Own,
    telemetry::notice,
};

/// Which way the connections of a listener go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    Inbound,
    Outbound,
    Dns,
}

impl Role {
    pub const ALL: [Role; 3] = [Role::Inbound, Role::Outbound, Role::Dns];

    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Inbound => "inbound",
            Role::Outbound => "outbound",
            Role::Dns => "dns",
        }
    }
}

/// Which listener of its workload: the address as configured, and, where several of one role ask for port 0, which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerKey {
    pub role: Role,
    pub listen: SocketAddr,
    pub nth: usize,
}

impl ListenerKey {
    /// The inbound listeners of a workload with their keys, in the spec's order.
    pub fn of(workload: &WorkloadPolicy) -> impl Iterator<Item = (ListenerKey, &InboundPolicy)> {
        workload.inbound.iter().enumerate().map(|(i, policy)| {
            let nth = workload.inbound[..i].iter().filter(|other| other.listen == policy.listen).count();
            (ListenerKey { role: Role::Inbound, listen: policy.listen, nth }, policy)
        })
    }

    fn outbound(policy: &OutboundPolicy) -> Self {
        ListenerKey { role: Role::Outbound, listen: policy.listen, nth: 0 }
    }

    fn dns(listen: SocketAddr) -> Self {
        ListenerKey { role: Role::Dns, listen, nth: 0 }
    }

    /// What this inbound listener's workload says of it now.
    pub fn policy<'a>(&self, workload: &'a WorkloadPolicy) -> Option<&'a InboundPolicy> {
        workload.inbound.iter().filter(|policy| policy.listen == self.listen).nth(self.nth)
    }
}

/// For a data thread: serve this, until `drain` begins.
pub struct Serve {
    pub key: ListenerKey,
    pub socket: TcpListener,
    /// On the same port; of the DNS route.
    pub udp: Option<UdpSocket>,
    pub route: Route,
    pub drain: Drain,
}

/// What connections of a listener hold from their first octet on. The rest of its policy, the workload's address among it, is read from the
/// snapshot at each request.
#[derive(Clone, PartialEq)]
pub enum Route {
    Inbound(InboundRoute),
    Outbound { capture: Capture },
    Dns,
}

#[derive(Clone, PartialEq)]
pub struct InboundRoute {
    pub tls: Option<TlsIdentity>,
    pub mtls: bool,
}

impl Route {
    /// Whether connections are to be secured by it that are not by `before`: by TLS, or by a peer's certificate.
    fn asks_more_than(&self, before: &Route) -> bool {
        match (self, before) {
            (Route::Inbound(next), Route::Inbound(before)) => next.rank() > before.rank(),
            _ => false,
        }
    }
}

impl InboundRoute {
    /// In the clear, over TLS, and over TLS with peers alone.
    fn rank(&self) -> u8 {
        if self.mtls { 2 } else { u8::from(self.tls.is_some()) }
    }
}

/// One address that is listened on: `listen` as configured and the address in fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundAddress {
    pub role: Role,
    pub listen: SocketAddr,
    pub address: SocketAddr,
}

pub type Bound = Arc<Mutex<Vec<BoundAddress>>>;

pub struct Listeners {
    threads: Vec<mpsc::UnboundedSender<Serve>>,
    drain_for: Duration,
    bound: HashMap<ListenerKey, Listener>,
    /// Of the process that this one takes over from; those that the first policy does not ask for are closed with it.
    inherited: HashMap<ListenerKey, Vec<Sockets>>,
    told: Bound,
    own: Arc<Own>,
    capture_dir: PathBuf,
    /// Whether this sidecar has no identity that it could show peers.
    pub nameless: bool,
}

struct Listener {
    sockets: Vec<Sockets>,
    /// Loaded when the policy was prepared, used from its commit on.
    next_tls: Option<TlsIdentity>,
    serving: Option<Serving>,
}

/// One address.
struct Sockets {
    address: SocketAddr,
    /// One for each data thread, or more; kept here, so that replacing what serves them never closes the port.
    of_threads: Vec<TcpListener>,
    /// As many, or none where UDP is not served.
    udp: Vec<UdpSocket>,
}

struct Serving {
    route: Route,
    drain: watch::Sender<Option<Stop>>,
}

/// What a workload asks for.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    Inbound(&'a InboundPolicy),
    Outbound(&'a OutboundPolicy),
    Dns { listen: SocketAddr },
}

/// The listeners of a workload with the paths of their fields. One kind after the other.
fn wanted(workload: &WorkloadPolicy) -> impl Iterator<Item = (String, ListenerKey, Wanted<'_>)> {
    let inbound = ListenerKey::of(workload).enumerate().map(|(i, (key, policy))| (format!("inbound[{i}]"), key, Wanted::Inbound(policy)));
    let outbound = workload.outbound.iter().map(|policy| ("egress".to_owned(), ListenerKey::outbound(policy), Wanted::Outbound(policy)));
    let dns = workload.dns.iter().filter_map(|policy| policy.listen);
    let dns = dns.map(|listen| ("dns".to_owned(), ListenerKey::dns(listen), Wanted::Dns { listen }));
    inbound.chain(outbound).chain(dns)
}

impl Listeners {
    /// `capture_dir`: where `ringfence-proxy capture install` says what it has installed.
    pub fn new(threads: Vec<mpsc::UnboundedSender<Serve>>, drain_for: Duration, own: Arc<Own>, capture_dir: PathBuf) -> Self {
        Self {
            threads,
            drain_for,
            bound: HashMap::new(),
            inherited: HashMap::new(),
            told: Bound::default(),
            own,
            capture_dir,
            nameless: false,
        }
    }

    /// A view of where the listeners are, for the admin endpoint.
    pub fn bound(&self) -> Bound {
        self.told.clone()
    }

    /// Binds what `workload` needs and is not bound yet, and reads its certificates. Nothing is served before `commit`. What it could not
    /// get is a fault at the field that asked for it, and nothing of the new policy is kept then.
    pub fn prepare(&mut self, workload: &WorkloadPolicy) -> Vec<Fault> {
        let mut faults = Vec::from_iter(self.not_captured(workload));
        let (mut fresh, mut certificates) = (Vec::new(), Vec::new());
        for (path, key, wanted) in wanted(workload) {
            let fault = |field: &str, message: String| Fault { path: format!("{path}.{field}"), message };
            let tls = match wanted.tls_identity() {
                Ok(tls) => tls,
                Err(error) => {
                    faults.push(fault("tls", error.to_string()));
                    continue;
                }
            };
            if self.nameless && matches!(wanted, Wanted::Inbound(policy) if policy.mtls) {
                faults.push(fault("mtls", "this sidecar has no identity to show: its bootstrap has no `identity`".to_owned()));
                continue;
            }
            if !self.bound.contains_key(&key) {
                let inherited = self.inherited.remove(&key).map(Ok);
                match inherited.unwrap_or_else(|| wanted.bind(self.threads.len())) {
                    Ok(sockets) => {
                        self.bound.insert(key, Listener { sockets, next_tls: None, serving: None });
                        fresh.push(key);
                    }
                    Err(error) => {
                        faults.push(fault("listen", format!("cannot listen on {}: {error}", key.listen)));
                        continue;
                    }
                }
            }
            certificates.push((key, tls));
        }
        if faults.is_empty() {
            for (key, tls) in certificates {
                if let Some(listener) = self.bound.get_mut(&key) {
                    listener.next_tls = tls;
                }
            }
        } else {
            for key in fresh {
                self.bound.remove(&key);
            }
        }
        faults
    }

    /// Why what leaves the workload would not come here, where the kernel is to bring it.
    fn not_captured(&self, workload: &WorkloadPolicy) -> Option<Fault> {
        let outbound = workload.outbound.as_ref().filter(|outbound| outbound.capture == Capture::Redirect)?;
        let missing = match workload.dns.as_ref().and_then(|dns| dns.listen) {
            Some(dns) => capture::require(&self.capture_dir, outbound.listen, dns).err()?,
            None => "redirects name queries too: dns.listen must say where to".into(),
        };
        Some(Fault { path: "egress.capture".into(), message: missing })
    }

    /// Serves the listeners of `workload`, whose policy is in force now, and drains all others.
    pub fn commit(&mut self, workload: &WorkloadPolicy) {
        let keys: HashSet<ListenerKey> = wanted(workload).map(|(_, key, _)| key).collect();
        let cut = Instant::now() + self.drain_for;
        self.bound.retain(|key, listener| {
            let keep = keys.contains(key);
            if !keep {
                listener.stop(Stop::within(cut));
            }
            keep
        });
        let mut told = Vec::new();
        for (_, key, wanted) in wanted(workload) {
            let Some(listener) = self.bound.get_mut(&key) else { continue };
            if let Err(error) = listener.serve(key, wanted, &self.threads, cut) {
                notice(format_args!("cannot serve {}: {error}", key.listen));
            }
            told.extend(listener.sockets.iter().map(|sockets| BoundAddress {
                role: key.role,
                listen: key.listen,
                address: sockets.address,
            }));
        }
        self.own.set(told.iter().map(|bound| bound.address).collect());
        *self.told.lock() = told;
        self.inherited.clear();
    }

    /// Stops accepting requests; those in flight may end until `cut`. What leaves the workload goes on leaving: requests that end need it.
    pub fn drain(&mut self, cut: Instant) {
        self.bound.retain(|key, listener| {
            if key.role == Role::Inbound {
                listener.stop(Stop::within(cut));
            }
            key.role != Role::Inbound
        });
        self.threads.clear();
    }

    /// Stops the rest too. The data threads end when the last connection has, or at `cut`.
    pub fn end(&mut self, cut: Instant) {
        self.stop_all(Stop::within(cut));
    }

    /// Stops all: another process has the same sockets and goes on. The data threads end as they do after `end`.
    pub fn leave(&mut self, cut: Instant) {
        self.stop_all(Stop::succeeded(cut));
        self.threads.clear();
    }

    fn stop_all(&mut self, stop: Stop) {
        self.bound.drain().for_each(|(_, mut listener)| listener.stop(stop));
    }
}

impl Wanted<'_> {
    fn tls_identity(&self) -> Result<Option<TlsIdentity>, tls::TlsError> {
        match self {
            Wanted::Inbound(policy) => policy.tls.as_ref().map(|files| tls::identity(&files.certificate, &files.key)).transpose(),
            Wanted::Outbound(_) | Wanted::Dns { .. } => Ok(None),
        }
    }

    fn bind(&self, threads: usize) -> io::Result<Vec<Sockets>> {
        match self {
            Wanted::Inbound(policy) => Ok(vec![bind(policy.listen, threads)?]),
            Wanted::Outbound(policy) => on_loopback(policy.listen, threads, bind),
            Wanted::Dns { listen } => on_loopback(*listen, threads, bind_dns),
        }
    }
}

impl Listener {
    fn stop(&mut self, stop: Stop) {
        if let Some(serving) = self.serving.take() {
            serving.drain.send_replace(Some(stop));
        }
    }

    fn serve(&mut self, key: ListenerKey, wanted: Wanted<'_>, threads: &[mpsc::UnboundedSender<Serve>], cut: Instant) -> io::Result<()> {
        let route = self.route(wanted)?;
        if self.serving.as_ref().is_some_and(|serving| serving.route == route) {
            return Ok(());
        }
        // All or none: what one thread serves beside the others, nobody would drain.
        let mut cloned = Vec::new();
        for sockets in &self.sockets {
            // Of another process there may be more than threads: what the kernel gives each of them is to be accepted.
            for (i, (socket, thread)) in sockets.of_threads.iter().zip(threads.iter().cycle()).enumerate() {
                let udp = sockets.udp.get(i).map(UdpSocket::try_clone).transpose()?;
                cloned.push((socket.try_clone()?, udp, thread));
            }
        }
        let (drain, draining) = watch::channel(None);
        for (socket, udp, thread) in cloned {
            // A data thread ends only after the control side.
            let _ = thread.send(Serve { key, socket, udp, route: route.clone(), drain: Drain::new(draining.clone()) });
        }
        let is_stricter = self.serving.as_ref().is_some_and(|serving| route.asks_more_than(&serving.route));
        // What would be asked once more on a connection from before would go in the clear, or come from nobody who has shown who it is.
        self.stop(if is_stricter { Stop::within(cut) } else { Stop::succeeded(cut) });
        self.serving = Some(Serving { route, drain });
        Ok(())
    }

    fn route(&self, wanted: Wanted<'_>) -> io::Result<Route> {
        match wanted {
            Wanted::Inbound(policy) => {
                let tls = match (&policy.tls, &self.next_tls) {
                    (None, _) => None,
                    (Some(_), Some(identity)) => Some(identity.clone()),
                    (Some(_), None) => return Err(io::Error::other("its certificate was never read; it stays as it was")),
                };
                Ok(Route::Inbound(InboundRoute { tls, mtls: policy.mtls }))
            }
            Wanted::Outbound(policy) => Ok(Route::Outbound { capture: policy.capture }),
            Wanted::Dns { .. } => Ok(Route::Dns),
        }
    }
}

/// One socket for each data thread on the same address.
fn bind(address: SocketAddr, threads: usize) -> io::Result<Sockets> {
    if threads > 1 && address.port() != 0 {
        // SO_REUSEPORT would share the port with whoever holds it already, if it is the same user's: ask first without.
        accept::bind(address, false)?;
    }
    let first = accept::bind(address, threads > 1)?;
    let address = first.local_addr()?;
    let mut of_threads = vec![first];
    for _ in 1..threads {
        of_threads.push(accept::bind(address, true)?);
    }
    Ok(Sockets { address, of_threads, udp: Vec::new() })
}

/// One socket of each kind for each data thread on the same address.
fn bind_dns(address: SocketAddr, threads: usize) -> io::Result<Sockets> {
    if threads > 1 && address.port() != 0 {
        dns::listener::bind(address, false)?;
    }
    let (first, tcp) = dns::listener::bind(address, threads > 1)?;
    let address = first.local_addr()?;
    let (mut udp, mut of_threads) = (vec![first], vec![tcp]);
    for _ in 1..threads {
        let (also, tcp) = dns::listener::bind(address, true)?;
        udp.push(also);
        of_threads.push(tcp);
    }
    Ok(Sockets { address, of_threads, udp })
}

/// The kernel redirects to the loopback address of a packet's own family: where IPv4 is captured at 127.0.0.1, IPv6 arrives at ::1. Bound
/// whether or not the workload is captured, which may change while the port stays. A host without ::1 has no such listener, and what would
/// be redirected there ends nowhere.
fn on_loopback(listen: SocketAddr, threads: usize, bind: fn(SocketAddr, usize) -> io::Result<Sockets>) -> io::Result<Vec<Sockets>> {
    let mut sockets = vec![bind(listen, threads)?];
    if listen.is_ipv4() && listen.ip().is_loopback() {
        match bind((Ipv6Addr::LOCALHOST, sockets[0].address.port()).into(), threads) {
            Ok(also) => sockets.push(also),
            Err(error) if is_without_ipv6(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sockets)
}

fn is_without_ipv6(error: &io::Error) -> bool {
    let unsupported = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(unsupported)
}

#[cfg(test)]
mod tests;
