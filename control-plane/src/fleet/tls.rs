//! Connections of whoever can reach the port: TLS, and until a connection has shown an SVID, little room and little time.

use std::{
    io,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use futures_util::stream::{self, Stream};
use ringfence_xds::policy::spiffe::Member;
use rustix::net::sockopt;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::accept::{self, Connection, Holder, Share, Shares};
use crate::trust::{Caller, Credentials, Peer, Trust};

/// Sidecars, and those that they take over from.
const MAX_CONNECTIONS: usize = 16_384;
/// Of one SVID's name at one address: a sidecar's, and those of whoever shares the address with it …
const MAX_OF_ONE: usize = 64;
/// … which in Kubernetes nobody does: a sidecar, one that takes over from it, and what of them has not been noticed to be gone.
const MAX_OF_POD: usize = 16;
/// Of a tenant, however many sidecars it has: a quarter of what all share …
const MAX_OF_TENANT: usize = MAX_CONNECTIONS / 4;
/// … as long as so many are free: these are for tenants that have few …
const KEPT_BACK: usize = MAX_CONNECTIONS / 4;
/// … which is up to so many.
const FEW: usize = MAX_CONNECTIONS / 64;
/// Handshakes at a time; more wait in the kernel's queue.
const MAX_HANDSHAKES: usize = 256;
/// Connections that have not shown an SVID, of one address: a pod has one, and cannot take all the handshakes that there are.
const MAX_UNPROVEN_OF_ONE: usize = 64;
/// What of an IPv6 address tells a host from another: it has the /64 that it is in (RFC 4291 §2.5.4) …
const HOST_BITS: u32 = 64;
/// … but in Kubernetes that is a node's, and a pod has one address of it.
const POD_BITS: u32 = 128;
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a caller without an SVID may take to ask for one.
const UNPROVEN: Duration = Duration::from_secs(30);
/// A peer that has vanished is noticed after idle time and probes …
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;
/// … and sooner where it was sent something: probes wait for what is unacknowledged, which is sent again for a quarter of an hour (tcp(7)).
/// Also ends one that takes nothing of it for so long.
const UNACKNOWLEDGED_MS: u32 = 30_000;

type TlsConnection = Connection<TlsStream<TcpStream>, Caller>;

struct Listening {
    listener: TcpListener,
    /// Of an IPv6 address, what is one host's or pod's.
    ipv6_bits: u32,
    /// Of one name there.
    max_of_one: usize,
    credentials: watch::Receiver<Arc<Credentials>>,
    places: Arc<Semaphore>,
    shares: Shares,
    handshakes: JoinSet<Option<TlsConnection>>,
}

pub(super) fn connections(listener: TcpListener, trust: &Trust) -> impl Stream<Item = io::Result<TlsConnection>> + use<> {
    let (shares, handshakes) = Default::default();
    let (ipv6_bits, max_of_one) = if trust.is_in_kubernetes() { (POD_BITS, MAX_OF_POD) } else { (HOST_BITS, MAX_OF_ONE) };
    let (credentials, places) = (trust.credentials(), Arc::new(Semaphore::new(MAX_CONNECTIONS)));
    let listening = Listening { listener, ipv6_bits, max_of_one, credentials, places, shares, handshakes };
    stream::unfold(listening, |mut listening| async {
        let connection = listening.next().await?;
        Some((Ok(connection), listening))
    })
}

impl Listening {
    async fn next(&mut self) -> Option<TlsConnection> {
        loop {
            let accept = async {
                let place = self.places.clone().acquire_owned().await.ok()?;
                Some((place, accept::accept(&self.listener).await))
            };
            tokio::select! {
                Some(done) = self.handshakes.join_next() => match done {
                    Ok(Some(connection)) => return Some(connection),
                    // It failed, by whatever the peer did.
                    _ => continue,
                },
                accepted = accept, if self.handshakes.len() < MAX_HANDSHAKES => {
                    let (place, io) = accepted?;
                    self.begin(place, io);
                }
            }
        }
    }

    fn begin(&mut self, place: OwnedSemaphorePermit, io: TcpStream) {
        let Ok(peer) = io.peer_addr() else { return };
        let address = peer.ip().to_canonical();
        let host = host(address, self.ipv6_bits);
        // On loopback all share one address.
        let stranger = (!address.is_loopback()).then_some(host);
        let Ok(unproven) = self.unproven(stranger) else { return };
        let credentials = self.credentials.borrow().clone();
        let (shares, places, max_of_one) = (self.shares.clone(), self.places.clone(), self.max_of_one);
        self.handshakes.spawn(async move {
            keep_alive(&io).ok()?;
            let acceptor = TlsAcceptor::from(credentials.server.clone());
            let io = timeout(HANDSHAKE, acceptor.accept(io)).await.ok()?.ok()?;
            let caller = Caller::of(io.get_ref().1.peer_certificates(), stranger, &credentials)?;
            let (until, shares) = match caller.peer() {
                Some(peer) => {
                    let [one, all] = held_by(peer, host);
                    let held = [shares.take(one, max_of_one)?, shares.take(all, max_of_all(places.available_permits()))?];
                    (None, held.into())
                }
                None => (Some(Box::pin(tokio::time::sleep(UNPROVEN))), unproven.into_iter().collect()),
            };
            Some(Connection { io, caller, until, _place: place, _shares: shares })
        });
    }

    /// An address's share of the connections that have shown nothing; an error where it has it already.
    fn unproven(&self, stranger: Option<IpAddr>) -> Result<Option<Share>, io::Error> {
        let Some(address) = stranger else { return Ok(None) };
        self.shares.take(Holder::Stranger(address), MAX_UNPROVEN_OF_ONE).map(Some).ok_or_else(|| io::ErrorKind::QuotaExceeded.into())
    }
}

/// Of whose shares a connection is that `peer` has opened from `host`: its own and, of those of one tenant or shared Workload, all.
fn held_by(peer: &Peer, host: IpAddr) -> [Holder; 2] {
    let all = match peer.member() {
        Some(Member::Workload { tenant: Some(tenant), .. }) => Holder::Tenant(tenant.clone()),
        _ => Holder::Name(peer.id().clone()),
    };
    [Holder::Sidecar(peer.id().clone(), host), all]
}

/// How many one tenant or shared Workload may have, where so many places are free.
fn max_of_all(free: usize) -> usize {
    if free < KEPT_BACK { FEW } else { MAX_OF_TENANT }
}

/// By what one host or pod is told from another: of IPv6, the first bits.
fn host(address: IpAddr, ipv6_bits: u32) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - ipv6_bits).unwrap_or_default();
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

/// The kernel's, which costs no memory here.
fn keep_alive(io: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(io, true)?;
    sockopt::set_tcp_keepidle(io, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(io, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(io, KEEPALIVE_PROBES)?;
    sockopt::set_tcp_user_timeout(io, UNACKNOWLEDGED_MS)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_its_network_and_a_pod_its_address() {
        for (address, bits, wanted) in [
            ("192.0.2.1", HOST_BITS, "192.0.2.1"),
            ("2001:db8::1:2:3:4", HOST_BITS, "2001:db8::"),
            ("2001:db8::1:2:3:4", POD_BITS, "2001:db8::1:2:3:4"),
        ] {
            assert_eq!(host(address.parse().unwrap(), bits), wanted.parse::<IpAddr>().unwrap(), "{address}/{bits}");
        }
    }

    #[test]
    fn four_tenants_leave_room_for_others() {
        let shares = Shares::default();
        let mut held: Vec<Share> = Vec::new();
        let mut connect = |tenant: &str| {
            let taken = shares.take(Holder::Tenant(tenant.parse().unwrap()), max_of_all(MAX_CONNECTIONS - held.len()));
            taken.map(|share| held.push(share)).is_some()
        };
        for greedy in ["a", "b", "c", "d"] {
            while connect(greedy) {}
        }
        assert!((0..FEW).all(|_| connect("acme")) && !connect("acme") && !connect("a"));
        assert!(held.len() < MAX_CONNECTIONS - KEPT_BACK + 3 * FEW, "{}", held.len());
    }

    #[test]
    fn a_sidecar_has_its_share_and_a_tenant_that_of_all_its_sidecars() {
        let [here, there]: [IpAddr; 2] = ["192.0.2.1", "192.0.2.2"].map(|address| address.parse().unwrap());
        let id = |path: &str| format!("spiffe://ringfence.internal{path}").parse().unwrap();
        let peer = |path: &str| Peer::valid(id(path), Duration::ZERO..Duration::MAX);
        let holders = |path: &str, host| held_by(&peer(path), host);
        let (api, web) = ("/tenant/acme/workload/api", "/tenant/acme/workload/web");
        let ([own, tenant], [elsewhere, same]) = (holders(api, here), holders(api, there));
        assert!(own != elsewhere && tenant == same, "a Workload's pods are told apart");
        let [other, same] = holders(web, here);
        assert!(own != other && tenant == same, "a tenant's Workloads count together");
        assert!(tenant != holders("/tenant/globex/workload/api", here)[1], "tenants do not");
        let shared = holders("/shared/workload/gateway", here);
        assert!(shared[1] != holders("/shared/workload/other", here)[1]);
    }
}
