//! What a workload may say in DNS names is counted, and ends.

use std::{collections::HashMap, net::SocketAddr};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use ringfence_tests::{Dns, Site, Up, dns, site::object};

/// Octets an hour and at once.
const BUDGET: usize = 2000;
/// Octets that a tunnel puts into one name: a label of 48 characters of base32.
const CARRIED: usize = 30;
const BASE32: &[u8] = b"abcdefghijklmnopqrstuvwxyz234567";

fn refused(server: SocketAddr, name: &str) -> bool {
    let answer = dns::answer(server, name, RecordType::A);
    match answer.metadata.response_code {
        ResponseCode::Refused => true,
        // Nothing is there, and the servers of the domain have heard of it.
        ResponseCode::NXDomain | ResponseCode::NoError => false,
        rcode => panic!("{name}: {rcode:?}"),
    }
}

/// Data below one domain, as iodine and its kind send it.
struct Tunnel {
    domain: &'static str,
    sent: u64,
}

impl Tunnel {
    fn next(&mut self) -> String {
        self.sent += 1;
        // splitmix64 over the count: no two runs differ.
        let mut character = |at: u64| {
            let mut z = (self.sent * 64 + at).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            BASE32[((z ^ (z >> 31)) >> 59) as usize] as char
        };
        let label: String = (0..CARRIED as u64 * 8 / 5).map(&mut character).collect();
        format!("{label}.{}", self.domain)
    }

    /// Octets that get out until the first refusal, or in `names`.
    fn drain(&mut self, server: SocketAddr, names: usize) -> usize {
        (0..names).take_while(|_| !refused(server, &self.next())).count() * CARRIED
    }
}

fn limits(rate: usize, mode: &str) -> String {
    format!(
        "dns: {{ limits: [{{ name: queries, rate: 10000/s }}, \
         {{ name: labels, count: entropy, key: domain, rate: {rate}/h, mode: {mode} }}] }}"
    )
}

fn workload(tenant: &str, upstream: &Dns) -> String {
    let dns = format!("{{ listen: 127.0.0.1:0, upstreams: [\"udp://{}\"] }}", upstream.address);
    object("Workload", &format!("{tenant}-job"), &format!("{{ tenant: {tenant}, dns: {dns} }}"))
}

fn started(mode: &str) -> (Site, Dns, Up) {
    let (site, upstream) = (Site::new(), Dns::start());
    upstream.set("www.partner.test", &["127.0.0.1"]);
    for tenant in ["acme", "globex"] {
        site.tenant(tenant, &limits(BUDGET, mode));
        site.write(&format!("{tenant}-job.yaml"), &workload(tenant, &upstream));
    }
    let up = Up::start(&site.dir());
    (site, upstream, up)
}

#[test]
fn a_tunnel_is_cut_off_and_all_else_goes_on() {
    let (site, upstream, up) = started("enforce");
    let [acme, globex] = ["acme-job", "globex-job"].map(|job| up.admin(job).listener("dns"));
    let mut tunnel = Tunnel { domain: "t.tunnel.test", sent: 0 };
    let out = tunnel.drain(acme, 1000);
    assert!(out <= BUDGET, "{out} octets got out");
    assert!(out >= BUDGET / 2, "{out} octets only");
    let last = tunnel.next();
    assert!(refused(acme, &last) && upstream.count(&last) == 0, "what is refused is not heard of");

    let line = up.access_log("acme-job").find("the refusal", |line| line["decision"] == "deny");
    assert_eq!((&line["reason"], &line["rcode"]), (&"dns_budget_spent".into(), &"REFUSED".into()), "{line}");
    assert_eq!(line["limit"], "Tenant/acme: dns.limits[labels]");
    let admin = up.admin("acme-job");
    assert!(admin.metric("ringfence_dns_queries_total", "decision=\"deny\",reason=\"dns_budget_spent\"") >= 2.0);

    // Other domains, and those of the same domain that were asked for before the end.
    assert!(!refused(acme, "www.partner.test"));
    let mut first = Tunnel { domain: tunnel.domain, sent: 0 };
    assert!(!refused(acme, &first.next()));
    // Another tenant.
    assert!(!refused(globex, &last));
    let other = Tunnel { domain: "t.tunnel.test", sent: 5000 }.drain(globex, 10);
    assert_eq!(other, 10 * CARRIED);

    // Twice as much: none of what is used comes back.
    site.tenant("acme", &limits(2 * BUDGET, "enforce"));
    admin.config_where("the edit is in force", |config| config["dnsLimits"][1]["rate"] == "4000/h");
    let more = tunnel.drain(acme, 1000);
    assert!(more <= CARRIED * 4, "{more} octets more");
}

#[test]
fn in_shadow_mode_it_only_tells() {
    let (_site, upstream, up) = started("shadow");
    let server = up.admin("acme-job").listener("dns");
    let mut tunnel = Tunnel { domain: "t.tunnel.test", sent: 0 };
    assert_eq!(tunnel.drain(server, 200), 200 * CARRIED);
    let line = up.access_log("acme-job").find("what would have been", |line| line["decision"] == "shadow");
    assert_eq!((&line["reason"], &line["shadow_limit"]), (&"dns_budget_spent".into(), &"Tenant/acme: dns.limits[labels]".into()), "{line}");
    assert_eq!(upstream.count(line["name"].as_str().unwrap()), 1, "it was asked all the same");
}

/// Sent over and over, what is known costs nothing; what a shared workload asks is nobody's, and counts for the workload.
#[test]
fn a_shared_workload_has_a_budget_of_its_own() {
    let (site, upstream) = (Site::new(), Dns::start());
    let limits = format!("limits: [{{ name: labels, count: entropy, rate: {BUDGET}/h }}]");
    let dns = format!("{{ listen: 127.0.0.1:0, upstreams: [\"udp://{}\"], {limits} }}", upstream.address);
    site.tenant("acme", "");
    site.write("shared.yaml", &object("Workload", "shared", &format!("{{ tenants: [\"*\"], dns: {dns} }}")));
    let up = Up::start(&site.dir());
    let server = up.admin("shared").listener("dns");
    let mut asked = HashMap::new();
    for domain in ["one.test", "two.test", "three.test"] {
        asked.insert(domain, Tunnel { domain, sent: 0 }.drain(server, 1000));
    }
    let out: usize = asked.values().sum();
    assert!((BUDGET / 2..=BUDGET).contains(&out), "{asked:?}");
    assert!(!refused(server, &Tunnel { domain: "one.test", sent: 0 }.next()));
}
