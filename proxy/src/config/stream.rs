//! The connection to the control plane: opens the ADS stream, opens it again after every failure, and moves messages. Knows nothing of policy.

use std::{collections::hash_map::RandomState, hash::BuildHasher, net::SocketAddr, path::PathBuf, time::Duration};

use hyper_util::rt::TokioIo;
use ringfence_xds::generated::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
};
use tokio::{
    net::{TcpStream, UnixStream},
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::bootstrap::ControlPlane;

/// One response: the largest is cut at 1 MiB by our control plane, but a single resource may be that large by itself.
const MAX_RESPONSE_BYTES: usize = 8 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A network that fails says nothing, and whoever only listens would never know: the other end is asked this often whether it is there,
/// and given up when it does not say so in time. A Unix socket's end is seen.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests on their way out; the state machine sends a handful per response.
const REQUESTS_IN_FLIGHT: usize = 64;
/// Waiting before the next attempt doubles from the first to the last of these.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LAST: Duration = Duration::from_secs(15);

/// What happened to the stream, in order.
#[derive(Debug)]
pub enum StreamEvent {
    /// A new stream; requests go into the sender.
    Connected(mpsc::Sender<DeltaDiscoveryRequest>),
    /// Handed over one at a time: the next one is read only when `done` is dropped or used.
    Response { response: DeltaDiscoveryResponse, done: oneshot::Sender<()> },
    /// With what the operator should know.
    Disconnected(String),
}

/// Runs until the receiver of `events` is dropped.
pub async fn run(control_plane: ControlPlane, events: mpsc::Sender<StreamEvent>) {
    let mut backoff = Backoff::default();
    loop {
        let error = match session(&control_plane, &events, &mut backoff).await {
            Ok(()) => "the control plane ended the stream".to_owned(),
            Err(error) => error,
        };
        if events.send(StreamEvent::Disconnected(error)).await.is_err() {
            return;
        }
        tokio::time::sleep(backoff.next(RandomState::new().hash_one(0))).await;
    }
}

async fn session(control_plane: &ControlPlane, events: &mpsc::Sender<StreamEvent>, backoff: &mut Backoff) -> Result<(), String> {
    let channel = timeout(CONNECT_TIMEOUT, connect(control_plane)).await.map_err(|_| "connecting took too long".to_owned())??;
    let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_RESPONSE_BYTES);
    let (sender, receiver) = mpsc::channel(REQUESTS_IN_FLIGHT);
    // The call returns with the response's head, which servers may send only with their first message: our requests must flow meanwhile.
    if events.send(StreamEvent::Connected(sender)).await.is_err() {
        return Ok(());
    }
    let call = client.delta_aggregated_resources(ReceiverStream::new(receiver));
    let mut responses = call.await.map_err(|status| describe(&status))?.into_inner();
    while let Some(response) = responses.message().await.map_err(|status| describe(&status))? {
        backoff.reset();
        let (done, applied) = oneshot::channel();
        if events.send(StreamEvent::Response { response, done }).await.is_err() {
            return Ok(());
        }
        let _ = applied.await;
    }
    Ok(())
}

fn describe(status: &tonic::Status) -> String {
    format!("{}: {}", status.code(), status.message())
}

async fn connect(control_plane: &ControlPlane) -> Result<Channel, String> {
    // The URI only fills :scheme and :authority; the connector decides where to go.
    let endpoint = Endpoint::from_static("http://control-plane");
    let connected = match control_plane.clone() {
        ControlPlane::Unix(path) => endpoint.connect_with_connector(tower::service_fn(move |_: Uri| unix(path.clone()))).await,
        ControlPlane::DangerousPlaintext(address) => {
            let endpoint =
                endpoint.http2_keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE_TIMEOUT).keep_alive_while_idle(true);
            endpoint.connect_with_connector(tower::service_fn(move |_: Uri| tcp(address))).await
        }
    };
    connected.map_err(|error| innermost(&error))
}

async fn unix(path: PathBuf) -> std::io::Result<TokioIo<UnixStream>> {
    UnixStream::connect(path).await.map(TokioIo::new)
}

/// Small messages both ways: each would wait for the acknowledgement of the one before, some 40 ms (RFC 896).
async fn tcp(address: SocketAddr) -> std::io::Result<TokioIo<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(TokioIo::new(stream))
}

/// tonic says "transport error" and keeps the cause within.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Exponential, with full jitter over its upper half, so that a thousand sidecars do not come back at once.
#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    fn next(&mut self, random: u64) -> Duration {
        let ceiling = BACKOFF_FIRST.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_LAST);
        self.failures = self.failures.saturating_add(1);
        let half = ceiling / 2;
        half + half.mul_f64((random >> 11) as f64 / (1u64 << 53) as f64)
    }

    fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_is_jittered_and_bounded_and_starts_over_after_a_response() {
        let mut backoff = Backoff::default();
        let bounds: Vec<(Duration, Duration)> = (0..10).map(|_| (Backoff { ..backoff }.next(0), backoff.next(u64::MAX))).collect();
        assert_eq!(bounds[0].0, BACKOFF_FIRST / 2);
        for pair in bounds.windows(2) {
            assert!(pair[0].0 < pair[0].1, "jittered");
            assert!(pair[1].0 == pair[0].0 * 2 || pair[1].0 == BACKOFF_LAST / 2, "doubles up to the last: {pair:?}");
        }
        assert!(bounds[9].1 <= BACKOFF_LAST);
        backoff.reset();
        assert_eq!(backoff.next(0), BACKOFF_FIRST / 2);
        assert!(Backoff { failures: u32::MAX }.next(u64::MAX) <= BACKOFF_LAST);
    }
}
