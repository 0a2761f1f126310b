//! `Workload.dns`.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use ringfence_policy::tenant::{DnsPolicy, DnsTransport, DnsUpstream};

use super::{Faults, Quoted, identity::seconds, workload::Listeners, zone::dns_zones};
use crate::generated::resource as proto;

/// Each is asked in turn while a query waits.
const MAX_UPSTREAMS: usize = 16;
const DNS_PORT: u16 = 53;
/// Answers of yesterday lead nowhere good.
const MAX_SERVE_STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// `is_captured`: the kernel redirects queries to the listener.
pub(super) fn dns(whose: &str, body: &proto::WorkloadDns, is_captured: bool, listeners: &mut Listeners, faults: &mut Faults) -> DnsPolicy {
    let listen = match body.listen.as_str() {
        "" => None,
        text => listeners.listen("dns.listen".into(), text, faults),
    };
    if !is_captured && !body.dangerous_listen_any && listen.is_some_and(|listen| !listen.ip().is_loopback()) {
        faults.add("dns.listen", "must be a loopback address: whoever reaches it asks as the workload; or write dangerousListenAny: true");
    }
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
    let zones = dns_zones(whose, &body.zones, &body.mode, &body.limits, faults);
    DnsPolicy { listen, upstreams, zones, serve_stale: serve_stale(&body.serve_stale, faults) }
}

/// `dns.serveStale`.
pub(super) fn serve_stale(text: &str, faults: &mut Faults) -> Option<Duration> {
    if text.is_empty() {
        return None;
    }
    let hours = text.strip_suffix('h').filter(|hours| hours.bytes().all(|b| b.is_ascii_digit())).and_then(|hours| hours.parse().ok());
    let seconds = hours.map_or_else(|| seconds(text), |hours: u16| Some(u64::from(hours) * 3600));
    let serve_stale = seconds.map(Duration::from_secs).filter(|duration| *duration <= MAX_SERVE_STALE);
    if serve_stale.is_none() {
        faults.add("dns.serveStale", format!("must be from 0s (never) to 24h, e.g. 30m or 1h, not {}", Quoted(text)));
    }
    serve_stale
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
