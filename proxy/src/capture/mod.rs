//! The redirect rules of a workload with `egress.capture: redirect`: `ringfence-proxy capture install | remove | verify`, run by an init step
//! with CAP_NET_ADMIN in the workload's network namespace, before the workload starts.
//!
//! ```text
//! what leaves the workload            becomes
//! TCP                                 redirected to the sidecar's egress port (IPv4: 127.0.0.1, IPv6: ::1)
//! port 53, UDP and TCP, to anybody    redirected to the sidecar's DNS port, to a resolver on loopback too
//! anything on loopback                passes
//! replies of connections that came in passes
//! everything else, and what is        dropped: QUIC and other UDP, ICMP, SCTP, raw IP, fragments; IPv6 neighbour discovery passes
//! forwarded for others                where the kernel itself sends it
//! ```
//!
//! The rules hold for the network namespace as long as it lasts, whether or not a sidecar runs: without one, connections are refused.
//!
//! **The sidecar is told apart by its uid, and, where `--cgroup` is given, by that cgroup as well.** What each is worth:
//! - *uid*: whoever is root in the pod or may otherwise call setuid(2) becomes the sidecar. The workload must run as another user, without
//!   CAP_SETUID and with `no_new_privs`.
//! - *cgroup* (v2): whoever may write its `cgroup.procs`. It must exist before the rules do, which an init container cannot arrange; it is for
//!   sidecars under systemd.
//! - *packet mark*: not offered. Anybody with CAP_NET_RAW may set one, and the sidecar would need that capability itself.
//!
//! **Capabilities end all of this.** CAP_NET_ADMIN removes the rules. CAP_NET_RAW sends through AF_PACKET, which no OUTPUT hook sees: the packet
//! fence ([`nft`], Linux 5.16) drops that at each device's egress hook; but AF_XDP, which the same capability opens, passes that hook too
//! (measured on Linux 6.18). A workload must run with neither.

mod cgroup;
mod command;
mod devices;
mod iptables;
mod nft;
mod state;
mod tool;
mod verify;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use command::CaptureCommand;
pub use state::require;

/// What the rules are made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rules {
    /// Where the sidecar's `egress.listen` is.
    pub egress_port: u16,
    /// Where the sidecar's `dns.listen` is.
    pub dns_port: u16,
    /// The sidecar's user, never 0.
    pub uid: u32,
    /// The sidecar's cgroup below the cgroup v2 hierarchy's root, without a slash at either end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
}

/// Bits of the conntrack mark; others are left alone.
const CAME_IN: u32 = 0x1;
const SIDECARS: u32 = 0x2;

/// The conntrack zone of the sidecar's own UDP. In the zone of all others, the entry of a redirected query would redirect the sidecar's own
/// query too, once it happens to come from the same port to the same server, and lead it back to the sidecar.
const ZONE: u16 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Backend {
    Nft,
    Iptables,
}

impl Backend {
    fn remove(self) -> Result<(), CaptureError> {
        match self {
            Backend::Nft => nft::remove(),
            Backend::Iptables => iptables::remove(),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::Nft => "nft",
            Backend::Iptables => "iptables",
        })
    }
}

/// Why the rules are not as they should be. Nothing is left half done.
#[derive(Debug, thiserror::Error)]
enum CaptureError {
    #[error(transparent)]
    Tool(#[from] tool::ToolError),
    #[error("neither nft nor iptables can be used: {nft}; {iptables}")]
    NoBackend { nft: tool::ToolError, iptables: tool::ToolError },
    #[error("{what}: {error}")]
    Io { what: String, error: std::io::Error },
    #[error("{iptables}, and what it had done could not be undone: {undo}")]
    NotUndone { iptables: tool::ToolError, undo: tool::ToolError },
    #[error("{0}")]
    Refused(String),
}

impl CaptureError {
    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }
}

/// What was installed.
struct Installed {
    backend: Backend,
    /// Devices whose egress hook drops AF_PACKET.
    packet_fence: Vec<String>,
    /// What the operator should know.
    notice: Option<String>,
}

/// All of the rules, or an error and none of them that were not there before.
fn install(rules: &Rules) -> Result<Installed, CaptureError> {
    match nft::usable()? {
        Ok(()) => {
            let (packet_fence, notice) = nft::install(rules)?;
            Ok(Installed { backend: Backend::Nft, packet_fence, notice })
        }
        Err(nft) => {
            let notice =
                format!("{nft}: installed with iptables, without the packet fence: CAP_NET_RAW gets past the rules through AF_PACKET");
            iptables::install(rules).map_err(|error| match error {
                CaptureError::Tool(iptables @ tool::ToolError::Missing(_)) => CaptureError::NoBackend { nft, iptables },
                error => error,
            })?;
            Ok(Installed { backend: Backend::Iptables, packet_fence: Vec::new(), notice: Some(notice) })
        }
    }
}

/// Takes the rules of both backends away, where they are.
fn remove() -> Result<(), CaptureError> {
    match (nft::usable()?, iptables::usable()) {
        (Ok(()), usable) => {
            nft::remove()?;
            if usable.is_ok() { iptables::remove() } else { Ok(()) }
        }
        (Err(_), Ok(())) => iptables::remove(),
        (Err(nft), Err(iptables)) => Err(CaptureError::NoBackend { nft, iptables }),
    }
}
