//! The world outside: what policy allows, what it does not, and who answers for either.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use ringfence_tests::{
    Canary, Dns, Net, Pod, Sidecar, Upstream,
    netns::OUTSIDE_DNS_V4,
    pod::{DNS, EGRESS, INBOUND, SIDECAR},
    sidecar::AccessLog,
    site::object,
    tls,
};

/// What names of the allowlist lead to. Public, as far as anybody in here can tell.
pub(super) const ALLOWED_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(93, 184, 216, 34));
pub(super) const ALLOWED_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2606, 0x2800, 0x220, 1, 0, 0, 0, 0x25));
/// Public too, and in no rule; whoever answers there claims to be what is allowed.
pub(super) const FOREIGN_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(45, 33, 32, 156));
pub(super) const FOREIGN_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2600, 0x3c01, 0, 0, 0, 0, 0, 0xbb2f));
/// A public resolver.
pub(super) const RESOLVER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9));
pub(super) const RESOLVER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2620, 0xfe, 0, 0, 0, 0, 0, 0xfe));
pub(super) const METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));
/// Private, and listed by prefix.
pub(super) const DATABASE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 20, 0, 1));
pub(super) const DATABASE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 1));
pub(super) const DATABASE_PORT: u16 = 5432;
/// Not the port that a workload would ask at.
const UPSTREAM_PORT: u16 = 5353;

/// The sidecar's own listeners are listed, to be refused for what they are.
fn policy() -> String {
    format!(
        "egress: {{ allow: [\
         {{ name: tls, hosts: [allowed.test, \"*.lead.test\"], ports: [443] }}, \
         {{ name: plain, hosts: [plain.test, \"*.lead.test\"], ports: [80], protocol: http, requests: [{{ methods: [GET] }}] }}, \
         {{ name: ssh, hosts: [git.test], ports: [22], protocol: tcp }}, \
         {{ name: db, cidrs: [10.20.0.0/16, \"fd20::/64\"], ports: [{DATABASE_PORT}], protocol: tcp }}, \
         {{ name: self, cidrs: [127.0.0.0/8, 10.77.0.0/24], ports: [{EGRESS}, {DNS}, {INBOUND}], protocol: tcp }} ] }}"
    )
}

// Ended in this order.
pub(super) struct World {
    /// `None`: whoever tests it starts it.
    pub(super) sidecar: Option<Sidecar>,
    pub(super) pod: Pod,
    pub(super) allowed: [Upstream; 2],
    pub(super) plain: [Upstream; 2],
    pub(super) foreign: Vec<Upstream>,
    pub(super) dns: Dns,
}

/// The outside's addresses. `None`: see [`Net::new`].
pub(super) fn net() -> Option<Net> {
    let net = Net::new()?;
    for address in [ALLOWED_V4, ALLOWED_V6, FOREIGN_V4, FOREIGN_V6, RESOLVER_V4, RESOLVER_V6, METADATA, DATABASE_V4, DATABASE_V6] {
        net.outside.address(address);
    }
    // So that only rules keep a user from a ping socket, and a first packet from carrying data.
    net.pod.inside(|| std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap());
    net.pod.inside(|| std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "5").unwrap());
    Some(net)
}

impl World {
    /// With rules and without a sidecar.
    pub(super) fn new() -> Option<Self> {
        let net = net()?;
        let listen = |address: IpAddr, port: u16| net.outside.inside(|| TcpListener::bind((address, port)).unwrap());
        let tls = tls::server(&["allowed.test"]);
        let allowed = [ALLOWED_V4, ALLOWED_V6].map(|address| Upstream::on(listen(address, 443), Some(tls.clone())));
        let plain = [ALLOWED_V4, ALLOWED_V6].map(|address| Upstream::on(listen(address, 80), None));
        let addresses = [FOREIGN_V4, FOREIGN_V6, RESOLVER_V4, RESOLVER_V6, METADATA];
        let foreign = addresses.iter().map(|address| Upstream::on(listen(*address, 443), Some(tls.clone())));
        let foreign = foreign.chain(addresses.iter().map(|address| Upstream::on(listen(*address, 80), None))).collect();
        let upstream = SocketAddr::new(OUTSIDE_DNS_V4, UPSTREAM_PORT);
        let (udp, tcp) = net.outside.inside(|| (UdpSocket::bind(upstream).unwrap(), TcpListener::bind(upstream).unwrap()));
        let dns = Dns::serve(udp, tcp);
        for name in ["allowed.test", "plain.test", "git.test"] {
            dns.set(name, &[&ALLOWED_V4.to_string(), &ALLOWED_V6.to_string()]);
        }
        let pod = Pod::captured(net, &policy(), upstream);
        pod.site.write("platform.yaml", &object("Platform", "platform", "{ egress: { dangerousAllowPrivate: [127.0.0.0/8] } }"));
        Some(Self { sidecar: None, pod, allowed, plain, foreign, dns })
    }

    /// With a sidecar that serves.
    pub(super) fn started() -> Option<Self> {
        let mut world = Self::new()?;
        world.sidecar = Some(world.pod.start().ready());
        Some(world)
    }

    /// Lets the sidecar's questions and what is allowed pass uncounted.
    pub(super) fn canary(&self) -> Canary<'_> {
        let canary = Canary::new(&self.pod.net);
        for protocol in ["udp", "tcp"] {
            canary.expect(protocol, self.dns.address);
        }
        let allowed = [ALLOWED_V4, ALLOWED_V6].into_iter().flat_map(|address| [443, 80, 22].map(|port| SocketAddr::new(address, port)));
        let databases = [DATABASE_V4, DATABASE_V6].map(|address| SocketAddr::new(address, DATABASE_PORT));
        allowed.chain(databases).for_each(|address| canary.expect("tcp", address));
        canary
    }

    #[track_caller]
    pub(super) fn log(&self) -> &AccessLog {
        &self.sidecar.as_ref().expect("the sidecar was started").log
    }

    /// Connections that anybody accepted who is in no rule.
    pub(super) fn accepted(&self) -> usize {
        self.foreign.iter().map(Upstream::connections).sum()
    }

    /// Fails unless nothing got out.
    #[track_caller]
    pub(super) fn nothing_arrived(&self, canary: &Canary<'_>, attempt: &str) {
        assert_eq!(canary.seen(SIDECAR), Vec::<String>::new(), "{attempt}");
        assert_eq!(self.accepted(), 0, "{attempt}");
    }
}
