//! The rules as one nftables transaction: the kernel has all of them or is as it was, and a second `install` leaves no gap.

use super::{
    CAME_IN, CaptureError, Rules, SIDECARS, ZONE, cgroup,
    devices::devices,
    tool::{ToolError, run},
};

/// Where the kernel has no nf_tables.
const UNSUPPORTED: [&str; 2] = ["Protocol not supported", "Operation not supported"];

/// Whether nftables is to be had here; the inner error says what is missing, the outer one that it is there and does not work.
pub(super) fn usable() -> Result<Result<(), ToolError>, ToolError> {
    match run("nft", &["list", "tables"], "") {
        Ok(_) => Ok(Ok(())),
        Err(missing @ ToolError::Missing(_)) => Ok(Err(missing)),
        Err(ToolError::Failed { tool, message }) if UNSUPPORTED.iter().any(|words| message.contains(words)) => {
            Ok(Err(ToolError::Failed { tool, message: format!("the kernel has no nf_tables ({message})") }))
        }
        Err(error) => Err(error),
    }
}

/// The devices behind the packet fence, and why there are none.
pub(super) fn install(rules: &Rules) -> Result<(Vec<String>, Option<String>), CaptureError> {
    let devices = devices()?;
    let script = script(rules, &sidecar(rules)?);
    match run("nft", &["-f", "-"], &(script.clone() + &fence(&devices))) {
        Ok(_) => Ok((devices, None)),
        Err(fenced) => {
            run("nft", &["-f", "-"], &script)?;
            Ok((
                Vec::new(),
                Some(format!("without the packet fence (Linux 5.16): CAP_NET_RAW gets past the rules through AF_PACKET: {fenced}")),
            ))
        }
    }
}

pub(super) fn remove() -> Result<(), CaptureError> {
    let tables = run("nft", &["list", "tables"], "")?;
    let ours = tables.lines().filter(|line| line.split(' ').nth(2) == Some("ringfence"));
    let script: String = ours.map(|table| format!("delete {table}\n")).collect();
    if !script.is_empty() {
        run("nft", &["-f", "-"], &script)?;
    }
    Ok(())
}

/// What a packet of the sidecar matches. nft looks cgroups up below `/sys/fs/cgroup`; the kernel counts levels from the hierarchy's own root.
fn sidecar(rules: &Rules) -> Result<String, CaptureError> {
    let uid = format!("meta skuid {}", rules.uid);
    let Some(path) = &rules.cgroup else { return Ok(uid) };
    let level = path.split('/').count();
    let mounted = cgroup::root()?;
    let from_sys = mounted.strip_prefix("/sys/fs/cgroup").map_err(|_| {
        CaptureError::Refused(format!("--cgroup: the cgroup v2 hierarchy is at {}, where nft does not look", mounted.display()))
    })?;
    Ok(format!("{uid} socket cgroupv2 level {level} \"{}\"", from_sys.join(path).display()))
}

/// Order within a hook: conntrack (-200) follows `zones` and comes before all others.
fn script(rules: &Rules, own: &str) -> String {
    let Rules { egress_port, dns_port, .. } = rules;
    format!(
        r#"table inet ringfence
delete table inet ringfence
table inet ringfence {{
	chain zones {{
		type filter hook output priority -300; policy accept;
		{own} meta l4proto udp ct original zone set {ZONE}
	}}
	chain captured {{
		type nat hook output priority -100; policy accept;
		{own} accept
		udp dport 53 redirect to :{dns_port}
		tcp dport 53 redirect to :{dns_port}
		oifname "lo" accept
		meta l4proto tcp redirect to :{egress_port}
	}}
	chain outgoing {{
		type filter hook output priority 0; policy drop;
		oifname "lo" accept
		ct state invalid drop
		{own} ct state new ct mark set ct mark | {SIDECARS:#x}
		{own} accept
		ct direction reply ct mark & {CAME_IN:#x} == {CAME_IN:#x} accept
		ct direction original ct status dnat ip daddr 127.0.0.1 accept comment "redirected above"
		ct direction original ct status dnat ip6 daddr ::1 accept
		meta skuid 0-4294967294 drop comment "what passes below belongs to no process"
		meta l4proto tcp ct mark & {SIDECARS:#x} == {SIDECARS:#x} accept comment "the rest of what the sidecar has closed"
		icmpv6 type {{ nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert }} accept
	}}
	chain leaving {{
		type filter hook postrouting priority 0; policy accept;
		oifname != "lo" ip daddr 127.0.0.0/8 drop comment "redirected, but bound to a device"
		oifname != "lo" ip6 daddr ::1 drop
	}}
	chain arriving {{
		type filter hook input priority -150; policy accept;
		iifname != "lo" ct state new tcp dport {{ {egress_port}, {dns_port} }} drop comment "only the workload may ask"
		iifname != "lo" ct state new udp dport {dns_port} drop
		iifname != "lo" ct state new ct direction original ct mark set ct mark | {CAME_IN:#x}
	}}
	chain forwarded {{
		type filter hook forward priority 0; policy drop;
	}}
}}
"#
    )
}

/// The packet fence: a packet with no route (routes have a class, 0 where nobody gave one) did not come from the kernel's IP, but from
/// AF_PACKET. `PACKET_QDISC_BYPASS` does not get around this hook.
fn fence(devices: &[String]) -> String {
    if devices.is_empty() {
        return String::new();
    }
    let devices: Vec<String> = devices.iter().map(|device| format!("\"{device}\"")).collect();
    format!(
        r#"table netdev ringfence
delete table netdev ringfence
table netdev ringfence {{
	chain egress {{
		type filter hook egress devices = {{ {} }} priority 0; policy drop;
		meta protocol arp accept
		meta rtclassid & 0 == 0 accept
	}}
}}
"#,
        devices.join(", ")
    )
}

#[cfg(test)]
mod tests;
