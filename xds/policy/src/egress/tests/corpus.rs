//! The shared corpora, against a policy that is as wide as a tenant can write it.

use serde_json::Value;

use super::*;
use crate::{corpora, host::Authority};

fn rows(text: &str) -> impl Iterator<Item = Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap())
}

const PORT: u16 = 443;

fn wide() -> EgressPolicy {
    let tcp = |name, hosts, cidrs| rule(name, hosts, cidrs, &[PORT], Protocol::Tcp);
    policy(Mode::Enforce, vec![tcp("all", &[], &["0.0.0.0/0", "::/0"]), tcp("names", &["allowed.example", "*.allowed.example"], &[])])
}

fn dialled(policy: &EgressPolicy, config: &Config, host: &Host, addresses: &[IpAddr]) -> Result<IpAddr, Deny> {
    let is_own = |address: SocketAddr| config.own == Some(address.ip());
    let allowed = policy.permit(host, PORT, Seen::Opaque, &acme())?.destinations(addresses, &config.platform, is_own)?;
    Ok(allowed[0].address().ip())
}

#[derive(Default)]
struct Config {
    platform: PlatformEgress,
    own: Option<IpAddr>,
}

/// Asked for as itself, and as what an allowed name leads to.
fn both_ways(config: &Config, address: IpAddr) -> bool {
    let policy = wide();
    let name = Host::Name("allowed.example".parse().unwrap());
    let asked = dialled(&policy, config, &Host::Address(address), &[address]).is_ok();
    let resolved = dialled(&policy, config, &name, &[address]).is_ok();
    assert_eq!(asked, resolved, "{address}");
    asked
}

#[test]
fn the_addresses_are_judged_as_the_corpus_does() {
    let Some(text) = corpora::text("ssrf/addresses.jsonl") else { return };
    let (mut denied, mut allowed, mut by_config, mut stricter) = (0, 0, 0, Vec::new());
    for row in rows(&text) {
        let address: IpAddr = row["ip"].as_str().unwrap().parse().unwrap();
        if row["depends_on_config"] == true {
            // What the row's test has in its lists, as ours; its verdict is then ours too.
            let verdict = row["smokescreen"].as_str().unwrap();
            let mut config = Config::default();
            match verdict {
                "ipDenyUserConfigured" => config.platform.deny.push(address.into()),
                "ipDenySelfConnection" => config.own = Some(address),
                allow if allow.starts_with("ipAllow") => config.platform.dangerous_allow_private.push(address.into()),
                _ => {}
            }
            assert_eq!(both_ways(&config, address), verdict.starts_with("ipAllow"), "{row}");
            by_config += 1;
            continue;
        }
        let deny = row["deny_by_default"].as_bool().unwrap();
        match (both_ways(&Config::default(), address), deny) {
            (false, true) => denied += 1,
            (true, false) => allowed += 1,
            (false, false) => stricter.push(address),
            (true, true) => panic!("{row}"),
        }
    }
    println!("{denied} denied, {allowed} allowed, {by_config} by configuration, {} more strictly: {stricter:?}", stricter.len());
    // Outside what is given out for unicast, or within a larger block that is not: the corpus allows either verdict.
    let reserved = |address: &IpAddr| address.is_ipv6() && AddressClass::of(*address) == AddressClass::Reserved;
    assert!(stricter.iter().all(reserved), "{stricter:?}");
    assert!(denied > 50 && allowed > 20 && by_config > 0);
}

/// What a text may come to: the address that is dialled, for whatever an evil resolver says of names.
fn reached(text: &str) -> Result<String, String> {
    let authority: Authority = text.parse().map_err(|error: crate::host::HostError| error.to_string())?;
    let policy = wide();
    let addresses = match &authority.host {
        Host::Address(address) => vec![*address],
        Host::Name(_) => vec!["127.0.0.1".parse().unwrap(), "169.254.169.254".parse().unwrap(), "10.0.0.1".parse().unwrap()],
    };
    match dialled(&policy, &Config::default(), &authority.host, &addresses) {
        Ok(address) => Ok(address.to_string()),
        Err(deny) => Err(deny.reason.to_string()),
    }
}

#[test]
fn no_spelling_of_a_host_reaches_what_it_must_not() {
    let Some(text) = corpora::text("ssrf/hosts.jsonl") else { return };
    let (mut malformed, mut refused, mut reached_rows, mut others) = (0, 0, Vec::new(), Vec::new());
    for row in rows(&text) {
        let expect = row["expect"].as_str().unwrap();
        // Of a URL its authority, as a client would put it into CONNECT or an absolute-form request.
        let url = row.get("url").and_then(Value::as_str);
        let host = row["host"].as_str().or_else(|| url.map(authority_of)).unwrap();
        let got = reached(host);
        match &got {
            Ok(address) if expect.contains("deny") || expect.contains("reject") => reached_rows.push(format!("{host:?} {address}: {row}")),
            Ok(_) => others.push(host.to_owned()),
            Err(why) if why.starts_with("egress_") => refused += 1,
            Err(_) => malformed += 1,
        }
        // Where the corpus names what a text is, it is that or nothing.
        if let Ok(Authority { host: Host::Name(name), .. }) = host.parse::<Authority>() {
            let stands_for = row["stands_for"].as_str().unwrap_or_default();
            assert!(stands_for.parse::<IpAddr>().is_err() && !stands_for.starts_with("invalid"), "{name} is a name: {row}");
            assert!(!expect.starts_with("reject"), "{name} is a name: {row}");
        }
    }
    println!("{malformed} malformed, {refused} refused, allowed: {others:?}, {} wrong: {reached_rows:#?}", reached_rows.len());
    assert!(reached_rows.is_empty() && malformed + refused > 200);
}

/// RFC 3986 §3.2: between `//` and the next `/`, `?` or `#`. No scheme or authority: the whole.
fn authority_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find(['/', '?', '#']).map_or(rest, |end| &rest[..end])
}
