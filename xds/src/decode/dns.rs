//! `Workload.dns`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ringfence_policy::tenant::{DnsPolicy, DnsTransport, DnsUpstream};

use super::{Faults, Quoted, workload::Listeners, zone::dns_zones};
use crate::generated::resource as proto;

/// Each is asked in turn while a query waits.
const MAX_UPSTREAMS: usize = 16;
const DNS_PORT: u16 = 53;

pub(super) fn dns(body: &proto::WorkloadDns, listeners: &mut Listeners, faults: &mut Faults) -> DnsPolicy {
    let listen = match body.listen.as_str() {
        "" => None,
        text => listeners.listen("dns.listen".into(), text, faults),
    };
    if body.upstreams.len() > MAX_UPSTREAMS {
        faults.add("dns.upstreams", format!("must be at most {MAX_UPSTREAMS} upstreams"));
    }
    let mut upstreams = Vec::new();
    for (i, text) in body.upstreams.iter().take(MAX_UPSTREAMS).enumerate() {
        let path = format!("dns.upstreams[{i}]");
        match upstream(text) {
            Ok(upstream) if upstreams.contains(&upstream) => faults.add(path, format!("{} is already listed", Quoted(text))),
            Ok(upstream) if listen.is_some_and(|listen| super::workload::leads_back(listen, upstream.address)) => {
                faults.add(path, "is the listener itself: queries would go round for ever");
            }
            Ok(upstream) => upstreams.push(upstream),
            Err(message) => faults.add(path, format!("{message}, not {}", Quoted(text))),
        }
    }
    DnsPolicy { listen, upstreams, zones: dns_zones(&body.zones, &body.mode, faults) }
}

fn upstream(text: &str) -> Result<DnsUpstream, &'static str> {
    const WANTED: &str =
        "must be udp:// or tcp:// with an IP address and perhaps a port, e.g. udp://192.0.2.53 or tcp://[2001:db8::53]:5353";
    let (scheme, authority) = text.split_once("://").ok_or(WANTED)?;
    let transport = match scheme {
        "udp" => DnsTransport::Udp,
        "tcp" => DnsTransport::Tcp,
        "tls" => return Err("must be udp:// or tcp://: DNS over TLS is not built yet"),
        "https" => return Err("must be udp:// or tcp://: DNS over HTTPS is not built yet"),
        _ => return Err(WANTED),
    };
    let address = authority.parse().ok().or_else(|| ip(authority).map(|ip| SocketAddr::new(ip, DNS_PORT))).ok_or(WANTED)?;
    if address.port() == 0 || address.ip().is_unspecified() {
        return Err("must be an address that can be asked");
    }
    Ok(DnsUpstream { transport, address })
}

/// As in a URI: IPv6 in brackets.
fn ip(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok().filter(IpAddr::is_ipv4),
    }
}
