//! One connection from accept to close: what it speaks, whose it is, where it may go, and its octets there and back.

use std::{io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use ringfence_policy::{Deny, Snapshot, TenantId};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

use super::{
    Dialled, Origin, Outbound, Tunnel,
    candidates::Candidates,
    decide::Decided,
    flow::Flow,
    http,
    sniff::{self, Sniff, Sniffed, Verdict},
    splice,
    stream::Stream,
    tenant::TenantSource,
};
use crate::{
    hop::{Timeouts, connection::linger},
    listeners::Drain,
    refuse::tls_alert,
};

/// First octet of a TLS record that carries a handshake.
const HANDSHAKE: u8 = 22;
/// Holds what clients say first, a head or a ClientHello with a key share for ML-KEM: else it is read, and looked at, in several pieces.
const FIRST_READ: usize = 2048;

/// `original`: where a captured connection was going; `None`: an explicit proxy's client asks.
pub(super) async fn serve(stream: TcpStream, original: Option<SocketAddr>, outbound: Rc<Outbound>, drain: Drain) -> io::Result<()> {
    match original {
        Some(original) => captured(stream.into(), original, outbound, drain).await,
        // In boxes, here and below: what speaks HTTP needs several times the room of what is only spliced.
        None => Box::pin(http::serve(stream.into(), Vec::with_capacity(FIRST_READ), Origin::Explicit, outbound, drain)).await,
    }
}

async fn captured(mut stream: Stream, original: SocketAddr, outbound: Rc<Outbound>, drain: Drain) -> io::Result<()> {
    let mut flow = Flow::begin(Some(original), &outbound);
    let wait = outbound.patience(None, original.port());
    let (initial, verdict) = first_octets(&mut stream, Vec::new(), wait).await?;
    let decided = match verdict {
        Verdict::Is(Sniffed::Http1 | Sniffed::Http2) => {
            flow.pass_on();
            return Box::pin(http::serve(stream, initial, Origin::Captured(original), outbound, drain)).await;
        }
        Verdict::Is(sniffed) => outbound.decide_captured(&sniffed, original, &mut flow).await,
        Verdict::Refuse(deny) => Err(deny),
        Verdict::More => return Ok(()),
    };
    let dialled = match decided {
        Ok((decided, snapshot)) => {
            flow.asked(&decided.ask);
            outbound.dial(&decided, &snapshot).await.map(|dialled| (decided, dialled))
        }
        Err(deny) => Err(deny),
    };
    match dialled {
        Ok((decided, dialled)) => relay(stream, initial, dialled, &decided, flow, &outbound).await,
        Err(deny) => refuse(stream, &initial, &deny, flow).await,
    }
}

/// Serves what comes inside a CONNECT that was let through and answered. `initial`: octets of it that were read already.
pub(super) async fn tunnel(mut stream: Stream, initial: Vec<u8>, tunnel: Tunnel, outbound: Rc<Outbound>, drain: Drain) -> io::Result<()> {
    let address = tunnel.upstream.destination.address();
    let wait = outbound.patience(Some(&tunnel.tenant), tunnel.port);
    let (initial, verdict) = first_octets(&mut stream, initial, wait).await?;
    let decided = match verdict {
        Verdict::Is(Sniffed::Http1 | Sniffed::Http2) => {
            // A tunnel in a tunnel is refused, but its future would hold this one's.
            return Box::pin(http::serve(stream, initial, Origin::Tunnel(tunnel.into()), outbound, drain)).await;
        }
        Verdict::Is(sniffed) => outbound.decide_tunnelled(&sniffed, &tunnel, address),
        Verdict::Refuse(deny) => Err(deny),
        Verdict::More => return Ok(()),
    };
    let Tunnel { upstream, mut flow, .. } = tunnel;
    match decided {
        Ok(decided) => {
            flow.asked(&decided.ask);
            relay(stream, initial, upstream, &decided, flow, &outbound).await
        }
        Err(deny) => refuse(stream, &initial, &deny, flow).await,
    }
}

/// Reads until it is certain what the connection speaks. `wait`: how long nothing at all may be said.
async fn first_octets(stream: &mut Stream, mut initial: Vec<u8>, wait: Duration) -> io::Result<(Vec<u8>, Verdict)> {
    let mut sniff = Sniff::new();
    initial.reserve(FIRST_READ);
    let begun = Instant::now();
    let mut deadline = begun + if initial.is_empty() { wait } else { sniff::TIME };
    loop {
        match sniff.look(&initial) {
            Verdict::More => {}
            verdict => return Ok((initial, verdict)),
        }
        let was_silent = initial.is_empty();
        match timeout_at(deadline, stream.read_buf(&mut initial)).await {
            Ok(Ok(0)) | Err(_) => {
                let verdict = sniff.at_end(&initial);
                return Ok((initial, verdict));
            }
            Ok(Ok(_)) if was_silent => deadline = Instant::now() + sniff::TIME,
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error),
        }
    }
}

impl Outbound {
    /// How long a silent connection is waited for: where only TLS or HTTP could be let through, nothing is lost by waiting for it, and
    /// clients that connect ahead of need are served.
    fn patience(&self, tunnel: Option<&TenantId>, port: u16) -> Duration {
        let Ok(snapshot) = self.pin() else { return sniff::WAIT };
        let tenant = match tunnel {
            Some(tenant) => tenant.clone(),
            None => match TenantSource::of(&snapshot.workload).of_octets() {
                Ok(tenant) => tenant,
                Err(_) => return sniff::TIME,
            },
        };
        if self.candidates(&tenant, port, &snapshot).may_be_opaque() { sniff::WAIT } else { sniff::TIME }
    }

    async fn decide_captured(&self, sniffed: &Sniffed, original: SocketAddr, flow: &mut Flow) -> Result<(Decided, Arc<Snapshot>), Deny> {
        let snapshot = self.pin()?;
        let tenant = TenantSource::of(&snapshot.workload).of_octets()?;
        flow.sniffed(sniffed, original, &tenant);
        let candidates = self.candidates(&tenant, original.port(), &snapshot);
        let decided = match sniffed {
            Sniffed::Tls(hello) => candidates.captured_tls(&hello.name, original).await?,
            _ => candidates.captured_opaque(original).await?,
        };
        Ok((decided, snapshot))
    }

    fn decide_tunnelled(&self, sniffed: &Sniffed, tunnel: &Tunnel, dialled: SocketAddr) -> Result<Decided, Deny> {
        let snapshot = self.pin()?;
        let candidates = self.candidates(&tunnel.tenant, tunnel.port, &snapshot);
        match sniffed {
            Sniffed::Tls(hello) => candidates.tunnelled_tls(&tunnel.host, &hello.name, dialled),
            _ => candidates.tunnelled_opaque(&tunnel.host, dialled),
        }
    }

    fn candidates<'a>(&'a self, tenant: &'a TenantId, port: u16, snapshot: &'a Arc<Snapshot>) -> Candidates<'a> {
        Candidates { tenant, port, snapshot, places: self.places() }
    }
}

/// Moves octets until either end, or policy, has had enough.
async fn relay(
    mut downstream: Stream,
    initial: Vec<u8>,
    mut upstream: Dialled,
    decided: &Decided,
    mut flow: Flow,
    outbound: &Outbound,
) -> io::Result<()> {
    let address = upstream.destination.address();
    // The rule that lists what was seen, which in a tunnel need not be the one that let the CONNECT through.
    let destination = decided.destinations.iter().find(|destination| destination.address() == address);
    flow.allowed(destination.unwrap_or(&upstream.destination), decided.shadow.as_ref());
    let ended = tokio::select! {
        biased;
        deny = outbound.revoked(&decided.ask, address, Some(decided.generation)) => {
            flow.refused(&deny);
            Err(io::Error::other(deny.to_string()))
        }
        ended = splice::splice(&mut downstream, &mut upstream.stream, initial, &flow.octets) => ended,
    };
    if ended.is_err() {
        splice::reset(&downstream, &upstream.stream);
    }
    ended
}

/// Ends a connection that gets nowhere: TLS by an alert, anything else without a word.
async fn refuse(mut stream: Stream, initial: &[u8], deny: &Deny, mut flow: Flow) -> io::Result<()> {
    flow.refused(deny);
    if initial.first() != Some(&HANDSHAKE) {
        return Ok(());
    }
    let limit = Timeouts::default().linger;
    timeout(limit, stream.write_all(&tls_alert(deny.reason))).await??;
    linger(&mut stream, limit).await
}
