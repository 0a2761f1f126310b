use super::*;

const RULES: Rules = Rules { egress_port: 15001, dns_port: 15053, uid: 1337, cgroup: None };

/// The rules of a chain, without those that the kernel needs to hook it.
fn chain<'a>(script: &'a str, name: &str) -> Vec<&'a str> {
    let head = format!("chain {name} {{");
    let lines = script.lines().map(str::trim).skip_while(|line| *line != head).skip(1);
    lines.take_while(|line| *line != "}").collect()
}

#[test]
fn one_transaction_replaces_what_was_there() {
    let script = script(&RULES, "meta skuid 1337") + &fence(&["eth0".into(), "eth1".into()]);
    for family in ["inet", "netdev"] {
        let lines: Vec<_> = script.lines().filter(|line| line.contains(&format!("table {family} "))).collect();
        let name = format!("{family} ringfence");
        assert_eq!(lines, [format!("table {name}"), format!("delete table {name}"), format!("table {name} {{")]);
    }
}

#[test]
fn rules_as_written() {
    let script = script(&RULES, "meta skuid 1337") + &fence(&["eth0".into(), "eth1".into()]);
    let table: [(&str, &[&str]); 7] = [
        ("zones", &["type filter hook output priority -300; policy accept;", "meta skuid 1337 meta l4proto udp ct original zone set 1"]),
        (
            "captured",
            &[
                "type nat hook output priority -100; policy accept;",
                "meta skuid 1337 accept",
                "udp dport 53 redirect to :15053",
                "tcp dport 53 redirect to :15053",
                "oifname \"lo\" accept",
                "meta l4proto tcp redirect to :15001",
            ],
        ),
        (
            "outgoing",
            &[
                "type filter hook output priority 0; policy drop;",
                "oifname \"lo\" accept",
                "ct state invalid drop",
                "meta skuid 1337 ct state new ct mark set ct mark | 0x2",
                "meta skuid 1337 accept",
                "ct direction reply ct mark & 0x1 == 0x1 accept",
                "ct direction original ct status dnat ip daddr 127.0.0.1 accept comment \"redirected above\"",
                "ct direction original ct status dnat ip6 daddr ::1 accept",
                "meta skuid 0-4294967294 drop comment \"what passes below belongs to no process\"",
                "meta l4proto tcp ct mark & 0x2 == 0x2 accept comment \"the rest of what the sidecar has closed\"",
                "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } accept",
            ],
        ),
        (
            "leaving",
            &[
                "type filter hook postrouting priority 0; policy accept;",
                "oifname != \"lo\" ip daddr 127.0.0.0/8 drop comment \"redirected, but bound to a device\"",
                "oifname != \"lo\" ip6 daddr ::1 drop",
            ],
        ),
        (
            "arriving",
            &[
                "type filter hook input priority -150; policy accept;",
                "iifname != \"lo\" ct state new tcp dport { 15001, 15053 } drop comment \"only the workload may ask\"",
                "iifname != \"lo\" ct state new udp dport 15053 drop",
                "iifname != \"lo\" ct state new ct direction original ct mark set ct mark | 0x1",
            ],
        ),
        ("forwarded", &["type filter hook forward priority 0; policy drop;"]),
        (
            "egress",
            &[
                "type filter hook egress devices = { \"eth0\", \"eth1\" } priority 0; policy drop;",
                "meta protocol arp accept",
                "meta rtclassid & 0 == 0 accept",
            ],
        ),
    ];
    for (name, rules) in table {
        assert_eq!(chain(&script, name), rules, "{name}");
    }
    assert_eq!(script.matches("chain ").count(), table.len());
}

#[test]
fn a_namespace_without_devices_needs_no_fence() {
    assert_eq!(fence(&[]), "");
}
