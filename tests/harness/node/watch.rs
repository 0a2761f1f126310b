//! Where the packets of a pod are bound for, as the node sees them: before routes, before addresses are translated, and whether or not anybody
//! is there. Answers, and what follows on a connection's first packet, are not counted.

use std::sync::Arc;

use crate::netns::Namespace;

/// Its sets of addresses and ports; and of what is neither TCP nor UDP over IPv4, by protocol.
const SETS: [&str; 3] = ["connections", "datagrams", "others"];

pub struct Watch {
    network: Arc<Namespace>,
}

impl Watch {
    /// `device`: the node's end of the pod's cable.
    pub(super) fn new(network: &Arc<Namespace>, device: &str) -> Self {
        let rules = format!(
            "table inet watch\ndelete table inet watch\ntable inet watch {{\n\
             set connections {{ type ipv4_addr . inet_service; flags dynamic; }}\n\
             set datagrams {{ type ipv4_addr . inet_service; flags dynamic; }}\n\
             set others {{ type inet_proto; flags dynamic; }}\n\
             chain arriving {{\ntype filter hook prerouting priority -350; policy accept;\n\
             iifname != \"{device}\" accept\n\
             ip protocol tcp tcp flags & (syn | ack) != syn accept\n\
             ip protocol tcp update @connections {{ ip daddr . tcp dport }} accept\n\
             ip protocol udp update @datagrams {{ ip daddr . udp dport }} accept\n\
             icmpv6 type {{ nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report }} accept\n\
             update @others {{ meta l4proto }}\n}}\n}}\n"
        );
        let watch = Self { network: network.clone() };
        watch.nft(&[&rules]);
        watch
    }

    /// So far: `<address> . <port> connections`, `<protocol> others`.
    #[track_caller]
    pub fn told(&self) -> Vec<String> {
        let elements = |set: &str| {
            let text = self.nft(&["-n", "list", "set", "inet", "watch", set]);
            let listed = text.split_once("elements = {").map(|(_, rest)| rest.split('}').next().unwrap_or_default().to_owned());
            let listed = listed.unwrap_or_default();
            listed
                .split(',')
                .map(str::trim)
                .filter(|element| !element.is_empty())
                .map(|element| format!("{element} {set}"))
                .collect::<Vec<_>>()
        };
        SETS.iter().flat_map(|set| elements(set)).collect()
    }

    #[track_caller]
    fn nft(&self, arguments: &[&str]) -> String {
        let output = self.network.command("nft").args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}
