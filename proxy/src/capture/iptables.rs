//! The same rules for iptables and ip6tables, where there is no nftables: one commit for each table, and all of them taken back where one fails.

use std::{fmt::Write, path::Path};

use super::{
    CAME_IN, CaptureError, Rules, SIDECARS, ZONE,
    tool::{ToolError, run},
};

struct Family {
    save: &'static str,
    restore: &'static str,
    loopback: &'static str,
    loopback_net: &'static str,
    v6: bool,
}

const V4: Family =
    Family { save: "iptables-save", restore: "iptables-restore", loopback: "127.0.0.1/32", loopback_net: "127.0.0.0/8", v6: false };
const V6: Family = Family { save: "ip6tables-save", restore: "ip6tables-restore", loopback: "::1/128", loopback_net: "::1/128", v6: true };

/// Families that the kernel speaks. IPv6 is off only where no socket of it can be made (`ipv6.disable=1`, or not built in); a sysctl
/// (`disable_ipv6`) holds for devices one by one and can be changed back.
fn families() -> Vec<Family> {
    if Path::new("/proc/thread-self/net/if_inet6").exists() { vec![V4, V6] } else { vec![V4] }
}

pub(super) fn usable() -> Result<(), ToolError> {
    for family in families() {
        run(family.save, &["--version"], "")?;
        run(family.restore, &["--version"], "")?;
    }
    Ok(())
}

pub(super) fn install(rules: &Rules) -> Result<(), CaptureError> {
    usable()?;
    let families = families();
    let before = families.iter().map(|family| run(family.save, &[], "")).collect::<Result<Vec<_>, _>>()?;
    for (family, saved) in families.iter().zip(&before) {
        // The tables that drop come first.
        for table in tables(rules, family) {
            let Err(error) = run(family.restore, &["--noflush"], &table.install(saved)) else { continue };
            return Err(match undo(&families, &before) {
                Ok(()) => CaptureError::Tool(error),
                Err(undo) => CaptureError::NotUndone { iptables: error, undo },
            });
        }
    }
    Ok(())
}

pub(super) fn remove() -> Result<(), CaptureError> {
    for family in families() {
        clear(&family)?;
    }
    Ok(())
}

/// An earlier installation as it was, or none.
fn undo(families: &[Family], before: &[String]) -> Result<(), ToolError> {
    for (family, before) in families.iter().zip(before) {
        clear(family)?;
        if before.contains("RINGFENCE_") {
            run(family.restore, &[], before)?;
        }
    }
    Ok(())
}

fn clear(family: &Family) -> Result<(), ToolError> {
    let saved = run(family.save, &[], "")?;
    let script = removal(&saved);
    if script.is_empty() { Ok(()) } else { run(family.restore, &["--noflush"], &script).map(drop) }
}

/// Takes out of each table what `saved` says that we have in it.
fn removal(saved: &str) -> String {
    let mut script = String::new();
    for table in saved.split("\nCOMMIT") {
        let name = table.lines().find(|line| line.starts_with('*'));
        let chains: Vec<&str> = table.lines().filter_map(|line| line.strip_prefix(':')?.split(' ').next()).filter(|c| ours(c)).collect();
        let (Some(name), false) = (name, chains.is_empty()) else { continue };
        let _ = writeln!(script, "{name}");
        for jump in jumps(table) {
            let _ = writeln!(script, "-D {jump}");
        }
        for chain in chains {
            let _ = writeln!(script, "-F {chain}\n-X {chain}");
        }
        script.push_str("COMMIT\n");
    }
    script
}

fn ours(chain: &str) -> bool {
    chain.starts_with("RINGFENCE_")
}

/// `HOOK -j CHAIN` of our chains.
fn jumps(table: &str) -> impl Iterator<Item = &str> {
    let jumps = table.lines().filter_map(|line| line.strip_prefix("-A "));
    jumps.filter(|rule| rule.split_once(" -j ").is_some_and(|(hook, chain)| !ours(hook) && ours(chain)))
}

struct Table {
    name: &'static str,
    /// Hook, chain and its rules.
    chains: Vec<(&'static str, &'static str, String)>,
}

impl Table {
    /// `saved`: all tables as they are.
    fn install(&self, saved: &str) -> String {
        let mut script = format!("*{}\n", self.name);
        let now = saved.split("\nCOMMIT").find(|table| table.lines().any(|line| line.strip_prefix('*') == Some(self.name))).unwrap_or("");
        for (_, chain, _) in &self.chains {
            let _ = writeln!(script, ":{chain} - [0:0]");
        }
        for jump in jumps(now) {
            let _ = writeln!(script, "-D {jump}");
        }
        for (hook, chain, rules) in &self.chains {
            for rule in rules.lines() {
                let _ = writeln!(script, "-A {chain} {}", rule.trim());
            }
            let _ = writeln!(script, "-I {hook} 1 -j {chain}");
        }
        script.push_str("COMMIT\n");
        script
    }
}

/// RETURN, not ACCEPT: what passes here may still meet the rules of others.
fn tables(rules: &Rules, family: &Family) -> [Table; 4] {
    let Rules { egress_port, dns_port, uid, .. } = rules;
    let Family { loopback, loopback_net, .. } = family;
    let cgroup = rules.cgroup.as_ref().map(|cgroup| format!(" -m cgroup --path {cgroup}")).unwrap_or_default();
    let own = format!("-m owner --uid-owner {uid}{cgroup}");
    let mut output = format!(
        "-o lo -j RETURN
        -m conntrack --ctstate INVALID -j DROP
        {own} -m conntrack --ctstate NEW -j CONNMARK --or-mark {SIDECARS:#x}
        {own} -j RETURN
        -m conntrack --ctdir REPLY -m connmark --mark {CAME_IN:#x}/{CAME_IN:#x} -j RETURN
        -d {loopback} -m conntrack --ctstate DNAT --ctdir ORIGINAL -j RETURN
        -m owner --uid-owner 0-4294967294 -j DROP
        -p tcp -m connmark --mark {SIDECARS:#x}/{SIDECARS:#x} -j RETURN\n"
    );
    if family.v6 {
        for message in ["router-solicitation", "neighbour-solicitation", "neighbour-advertisement"] {
            let _ = writeln!(output, "-p ipv6-icmp -m icmp6 --icmpv6-type {message} -j RETURN");
        }
    }
    output.push_str("-j DROP");
    let redirect = format!(
        "{own} -j RETURN
        -p udp -m udp --dport 53 -j REDIRECT --to-ports {dns_port}
        -p tcp -m tcp --dport 53 -j REDIRECT --to-ports {dns_port}
        -o lo -j RETURN
        -p tcp -j REDIRECT --to-ports {egress_port}"
    );
    let arriving = format!(
        "-i lo -j RETURN
        -p tcp -m conntrack --ctstate NEW -m multiport --dports {egress_port},{dns_port} -j DROP
        -p udp -m conntrack --ctstate NEW -m udp --dport {dns_port} -j DROP
        -m conntrack --ctstate NEW --ctdir ORIGINAL -j CONNMARK --or-mark {CAME_IN:#x}"
    );
    let leaving = format!("! -o lo -d {loopback_net} -j DROP");
    let zone = format!("-p udp {own} -j CT --zone-orig {ZONE}");
    [
        Table { name: "filter", chains: vec![("OUTPUT", "RINGFENCE_OUTPUT", output), ("FORWARD", "RINGFENCE_FORWARD", "-j DROP".into())] },
        Table { name: "mangle", chains: vec![("INPUT", "RINGFENCE_ARRIVING", arriving), ("POSTROUTING", "RINGFENCE_LEAVING", leaving)] },
        Table { name: "raw", chains: vec![("OUTPUT", "RINGFENCE_ZONE", zone)] },
        Table { name: "nat", chains: vec![("OUTPUT", "RINGFENCE_REDIRECT", redirect)] },
    ]
}

#[cfg(test)]
mod tests;
