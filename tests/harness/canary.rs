//! What stands in the world outside and sees every packet that a pod lets out: a chain at the ingress hook of the outside's device, before
//! the kernel's IP, so that nothing is too malformed to be counted and no address need exist.
//!
//! Not counted: neighbour discovery, and what the pod is known to be let out for ([`Canary::expect`]).

use std::{
    io::Write,
    net::{SocketAddr, UdpSocket},
    process::Stdio,
};

use crate::{
    DEADLINE, Net,
    netns::{GATEWAY_V4, POD_V4},
};

/// Of the outside's gateway address: what is sent there shows that all that was sent before has arrived.
const MARK: u16 = 9;

pub struct Canary<'a> {
    net: &'a Net,
    mark: UdpSocket,
}

/// Of what the canary counts, each kind by itself.
const KINDS: [(&str, &str); 5] = [
    ("TCP", "meta l4proto tcp"),
    ("UDP", "meta l4proto udp"),
    ("ICMP", "meta l4proto { icmp, icmpv6 }"),
    ("IP", "meta protocol { ip, ip6 }"),
    ("frames", ""),
];

impl<'a> Canary<'a> {
    pub fn new(net: &'a Net) -> Self {
        let counters: String = KINDS.iter().map(|(name, _)| format!("counter {name} {{ }}\n")).collect();
        let counts: String = KINDS.iter().map(|(name, packets)| format!("{packets} counter name {name} accept\n")).collect();
        let rules = format!(
            "table netdev canary\ndelete table netdev canary\ntable netdev canary {{\n{counters}\
             chain expected {{\nudp dport {MARK} ip daddr {GATEWAY_V4} accept\n}}\n\
             chain arriving {{\ntype filter hook ingress device \"eth0\" priority -500; policy accept;\n\
             meta protocol arp accept\n\
             icmpv6 type {{ nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report }} accept\n\
             jump expected\n{counts}}}\n}}\n"
        );
        let canary = Self { net, mark: net.outside.inside(|| UdpSocket::bind((GATEWAY_V4, MARK)).unwrap()) };
        canary.mark.set_read_timeout(Some(DEADLINE)).unwrap();
        canary.nft(&rules);
        canary
    }

    /// What goes by `protocol` ("tcp", "udp") to this address and port is not counted.
    pub fn expect(&self, protocol: &str, to: SocketAddr) {
        let family = if to.is_ipv4() { "ip" } else { "ip6" };
        self.nft(&format!("add rule netdev canary expected {family} daddr {} {protocol} dport {} accept", to.ip(), to.port()));
    }

    /// What was seen since this was asked last, e.g. `TCP 2`. Packets on their way arrive first. `uid`: one that may send them.
    #[track_caller]
    pub fn seen(&self, uid: u32) -> Vec<String> {
        let socket = self.net.pod.inside_as(uid, || UdpSocket::bind((POD_V4, 0)).unwrap());
        socket.send_to(b"mark", (GATEWAY_V4, MARK)).unwrap();
        self.mark.recv(&mut [0; 4]).expect("the mark arrives");
        let report = self.nft("reset counters table netdev canary");
        let kinds = report.lines().filter_map(|line| line.trim().strip_prefix("counter ")?.strip_suffix(" {"));
        let packets = report.lines().filter_map(|line| line.trim().strip_prefix("packets ")?.split(' ').next());
        let seen: Vec<_> = kinds.zip(packets).collect();
        assert_eq!(seen.len(), KINDS.len(), "{report}");
        seen.into_iter().filter(|(_, packets)| *packets != "0").map(|(kind, packets)| format!("{kind} {packets}")).collect()
    }

    #[track_caller]
    fn nft(&self, script: &str) -> String {
        let mut nft = self.net.outside.command("nft");
        let mut nft = nft.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        nft.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let output = nft.wait_with_output().unwrap();
        assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}
