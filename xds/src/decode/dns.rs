//! `Workload.dns`.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ringfence_policy::{
    host::HostName,
    tenant::{DnsPolicy, DnsTransport, DnsUpstream},
};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::{Faults, Quoted, identity::seconds, workload::Listeners, zone::dns_zones};
use crate::generated::resource as proto;

/// Each is asked in turn while a query waits.
const MAX_UPSTREAMS: usize = 16;
const DNS_PORT: u16 = 53;
/// RFC 7858 §3.1.
const DOT_PORT: u16 = 853;
const HTTPS_PORT: u16 = 443;
const MAX_PATH_BYTES: usize = 1024;
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
    let is_secured = |text: &String| text.starts_with("tls://") || text.starts_with("https://");
    let upstream_ca = match &*body.upstream_ca {
        [] => Vec::new(),
        pem => authorities(pem).unwrap_or_else(|message| {
            faults.add("dns.upstreamCaFile", message);
            Vec::new()
        }),
    };
    if !body.upstream_ca.is_empty() && !body.upstreams.iter().any(is_secured) {
        faults.add("dns.upstreamCaFile", "is for upstreams over tls:// or https://, and there is none: remove it");
    }
    let zones = dns_zones(whose, &body.zones, &body.mode, &body.limits, faults);
    DnsPolicy { listen, upstreams, upstream_ca, zones, serve_stale: serve_stale(&body.serve_stale, faults) }
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

/// `SCHEME://ADDRESS[:PORT][/PATH][#NAME]`: between `//` and the path stands what is connected to, behind `#` whom it must prove to be.
/// The error says what it must be instead.
pub fn upstream(text: &str) -> Result<DnsUpstream, &'static str> {
    const WANTED: &str = "must be an IP address with perhaps a port, behind udp://, tcp://, tls:// or https://, e.g. udp://192.0.2.53, \
                          tcp://[2001:db8::53]:5353, tls://192.0.2.53#dns.example or https://192.0.2.53/dns-query#dns.example";
    let (scheme, rest) = text.split_once("://").ok_or(WANTED)?;
    let (rest, name) = match rest.split_once('#') {
        Some((rest, name)) => (rest, Some(name)),
        None => (rest, None),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let default_port = match scheme {
        "udp" | "tcp" => DNS_PORT,
        "tls" => DOT_PORT,
        "https" => HTTPS_PORT,
        _ => return Err(WANTED),
    };
    if scheme != "https" && !path.is_empty() {
        return Err("must have no path: only https:// has one");
    }
    let can_prove = matches!(scheme, "tls" | "https");
    if !can_prove && name.is_some() {
        return Err("must have no #name: over udp:// and tcp:// nobody proves to have one");
    }
    let address = authority.parse().ok().or_else(|| ip(authority).map(|ip| SocketAddr::new(ip, default_port)));
    let address = address.ok_or_else(|| match authority.parse::<ringfence_policy::host::Authority>() {
        Ok(_) if !can_prove => "must have the IP address of the upstream, for a name would first have to be looked up",
        Ok(_) => {
            "must have the IP address of the upstream, for a name would first have to be looked up; where its certificate has that name, \
             write it behind #: tls://192.0.2.53#dns.example, https://192.0.2.53/dns-query#dns.example"
        }
        Err(_) => WANTED,
    })?;
    if address.port() == 0 || address.ip().is_unspecified() {
        return Err("must be an address that can be asked");
    }
    let name =
        name.map(str::parse::<HostName>).transpose().map_err(|_| "must have a DNS name behind #, e.g. tls://192.0.2.53#dns.example")?;
    let transport = match scheme {
        "udp" => DnsTransport::Udp,
        "tcp" => DnsTransport::Tcp,
        "tls" => DnsTransport::Tls { name },
        _ => DnsTransport::Https { name, path: checked_path(path)? },
    };
    Ok(DnsUpstream { transport, address })
}

/// As in a URI: IPv6 in brackets.
fn ip(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok().filter(IpAddr::is_ipv4),
    }
}

/// The path of a URI (RFC 3986 §3.3).
fn checked_path(path: &str) -> Result<Arc<str>, &'static str> {
    if path.contains(['?', '{']) {
        return Err("must have no query, for questions are posted to the path: https://192.0.2.53/dns-query");
    }
    let is_pchar = |octet: u8| octet.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&octet);
    if path.is_empty() || path.len() > MAX_PATH_BYTES || !path.bytes().all(is_pchar) {
        return Err("must have the path that questions are posted to: https://192.0.2.53/dns-query");
    }
    Ok(path.into())
}

/// The certificates in a PEM file, each of which can be an authority.
fn authorities(pem: &[u8]) -> Result<Vec<Arc<[u8]>>, String> {
    let mut authorities = Vec::new();
    for (i, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
        let certificate = certificate.map_err(|error| format!("holds PEM that cannot be read: {error}"))?;
        webpki::anchor_from_trusted_cert(&certificate).map_err(|error| format!("certificate {} cannot be an authority: {error}", i + 1))?;
        authorities.push(Arc::from(&*certificate));
    }
    if authorities.is_empty() {
        return Err("must hold at least one PEM certificate: -----BEGIN CERTIFICATE-----".to_owned());
    }
    Ok(authorities)
}
