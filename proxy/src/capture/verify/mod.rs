//! Whether the rules hold: probes through the kernel as the workload would send them, while every device but the loopback is watched.
//!
//! Nothing is believed of the rules themselves. A probe that ought to be dropped must not be seen on a device; one that ought to be redirected
//! must arrive at the sidecar's port with its original destination, and not be seen either. At the end the sidecar's user sends a packet that
//! must be seen: a watch that sees nothing proves nothing, and what was sent before it has left by then if it ever does.
//!
//! Destinations are documentation addresses (RFC 5737, RFC 3849), one for each probe, so that what is seen is known by its address.

mod listen;
mod probe;
mod user;
mod watch;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{CaptureError, Rules, cgroup};
use listen::Sidecar;
use probe::{Kind, PROBES};
use user::as_user;
use watch::Watch;

/// For what must come; nothing waits that long where all is well.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between the sidecar's own packets.
const AGAIN: Duration = Duration::from_millis(100);
/// Nobody in particular; where that is the sidecar, its neighbour.
const NOBODY: u32 = 65534;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    fn address(self, number: u8) -> IpAddr {
        match self {
            Family::Ipv4 => Ipv4Addr::new(192, 0, 2, number).into(),
            Family::Ipv6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(number)).into(),
        }
    }

    fn loopback(self) -> IpAddr {
        match self {
            Family::Ipv4 => Ipv4Addr::LOCALHOST.into(),
            Family::Ipv6 => Ipv6Addr::LOCALHOST.into(),
        }
    }

    fn unspecified(self) -> SocketAddr {
        match self {
            Family::Ipv4 => (Ipv4Addr::UNSPECIFIED, 0).into(),
            Family::Ipv6 => (Ipv6Addr::UNSPECIFIED, 0).into(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    /// It arrived at the sidecar.
    Redirected,
    /// It was sent, or refused by the kernel, and not seen on a device.
    Dropped,
    /// It was seen on a device.
    Escaped,
    /// It was seen on a device, as it should be.
    Seen,
    /// It should have arrived at the sidecar, or been seen.
    Lost,
    /// It was not possible to try.
    Untried,
}

#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    probe: &'static str,
    family: Family,
    uid: u32,
    outcome: Outcome,
    ok: bool,
    /// What else there is to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip)]
    number: u8,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) probes: Vec<Verdict>,
    /// Families that this namespace has no route for: there is nothing to catch.
    no_route: Vec<Family>,
}

impl Report {
    pub(super) fn failed(&self) -> usize {
        self.probes.iter().filter(|verdict| !verdict.ok).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Verdict { probe, family, uid, outcome, ok, detail, .. } in &self.probes {
            let mark = if *ok { "ok  " } else { "FAIL" };
            write!(f, "{mark}  {family:?}  uid {uid:<5}  {probe}: {outcome:?}")?;
            detail.iter().try_for_each(|detail| write!(f, " ({detail})"))?;
            writeln!(f)?;
        }
        self.no_route.iter().try_for_each(|family| writeln!(f, "      {family:?}: no route, nothing to catch"))
    }
}

/// All probes in order. An error where it cannot be told whether the rules hold.
pub(super) fn verify(rules: &Rules) -> Result<Report, CaptureError> {
    let (routed, no_route): (Vec<Family>, Vec<Family>) = [Family::Ipv4, Family::Ipv6].into_iter().partition(|family| has_route(*family));
    if routed.is_empty() {
        return Err(CaptureError::Refused("there is no route to anywhere: nothing can be verified before the network is up".into()));
    }
    let mut watch = Watch::open().map_err(CaptureError::io("watching the devices"))?;
    let mut report = Report { probes: Vec::new(), no_route };
    let nobody = if rules.uid == NOBODY { NOBODY - 1 } else { NOBODY };
    let mut users = vec![0, nobody];
    // The user alone is not enough where the cgroup counts too.
    users.extend(rules.cgroup.is_some().then_some(rules.uid));
    let mut number = 0;
    for family in &routed {
        let sidecar = Sidecar::stand_in(*family, rules)?;
        for uid in &users {
            for (name, kind) in PROBES {
                number += 1;
                if kind.exists_in(*family) {
                    report.probes.push(try_one(name, *kind, *family, *uid, number, &sidecar));
                }
            }
        }
    }
    let controls = control(rules, &routed, &mut watch)?;
    for verdict in &mut report.probes {
        if watch.saw(verdict.family, verdict.number) {
            verdict.outcome = Outcome::Escaped;
            verdict.ok = false;
        }
    }
    if let Some(verdict) = report.probes.iter_mut().find(|verdict| watch.saw_loopback(verdict.family) && verdict.probe == probe::BOUND) {
        verdict.outcome = Outcome::Escaped;
        verdict.ok = false;
    }
    report.probes.extend(controls);
    Ok(report)
}

/// `false`: the kernel itself knows no way, before any rule is asked.
fn has_route(family: Family) -> bool {
    UdpSocket::bind(family.unspecified()).and_then(|socket| socket.connect((family.address(1), 9))).is_ok()
}

fn try_one(probe: &'static str, kind: Kind, family: Family, uid: u32, number: u8, sidecar: &Sidecar) -> Verdict {
    let destination = family.address(number);
    let (outcome, detail) = match as_user(uid, || kind.send(destination, sidecar)) {
        Ok(Ok(())) if kind.is_redirected() => (Outcome::Redirected, None),
        Ok(Ok(())) => (Outcome::Dropped, None),
        Ok(Err(error)) if kind.is_redirected() => (Outcome::Lost, Some(error.to_string())),
        Ok(Err(error)) => (Outcome::Untried, Some(error.to_string())),
        Err(error) => (Outcome::Untried, Some(format!("as uid {uid}: {error}"))),
    };
    let ok = matches!(outcome, Outcome::Redirected | Outcome::Dropped);
    Verdict { probe, family, uid, outcome, ok, detail, number }
}

/// What the sidecar itself sends gets out and is seen, in each family.
fn control(rules: &Rules, families: &[Family], watch: &mut Watch) -> Result<Vec<Verdict>, CaptureError> {
    const NUMBER: u8 = 254;
    if let Some(path) = &rules.cgroup {
        // For the rest of this process's life, which is short.
        let procs = cgroup::root()?.join(path).join("cgroup.procs");
        std::fs::write(&procs, "0").map_err(CaptureError::io(procs.display().to_string()))?;
    }
    let mut verdicts = Vec::new();
    for family in families {
        let destination = SocketAddr::new(family.address(NUMBER), 9);
        let send = || UdpSocket::bind(family.unspecified())?.send_to(b"ringfence", destination);
        let until = Instant::now() + PATIENCE;
        let mut detail = None;
        while !watch.saw(*family, NUMBER) && Instant::now() < until {
            if let Err(error) = as_user(rules.uid, send).and_then(|sent| sent) {
                detail = Some(error.to_string());
            }
            watch.look(AGAIN).map_err(CaptureError::io("watching the devices"))?;
        }
        let seen = watch.saw(*family, NUMBER);
        verdicts.push(Verdict {
            probe: "the sidecar's own gets out",
            family: *family,
            uid: rules.uid,
            outcome: if seen { Outcome::Seen } else { Outcome::Lost },
            ok: seen,
            detail: detail.filter(|_| !seen),
            number: NUMBER,
        });
    }
    Ok(verdicts)
}
