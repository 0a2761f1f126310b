//! The ADS stream: opens it, opens it again after every failure, and moves messages. Knows nothing of policy.

use std::time::Duration;

use ringfence_xds::generated::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::dial;
use crate::{
    backoff::{Backoff, random},
    bootstrap::ControlPlane,
    identity::Membership,
};

/// One response: the largest is cut at 1 MiB by our control plane, but a single resource may be that large by itself.
const MAX_RESPONSE_BYTES: usize = 8 * 1024 * 1024;
/// Requests on their way out; the state machine sends a handful per response.
const REQUESTS_IN_FLIGHT: usize = 64;
/// Waiting before the next attempt doubles from the first to the last of these.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LAST: Duration = Duration::from_secs(15);

/// What happened to the stream, in order.
#[derive(Debug)]
pub enum StreamEvent {
    /// A new stream; requests go into the sender. Whether the control plane takes it is not known yet.
    Connected(mpsc::Sender<DeltaDiscoveryRequest>),
    /// It does: the head of its response is there, though it may have nothing to say.
    Answered,
    /// Handed over one at a time: the next one is read only when `done` is dropped or used.
    Response { response: DeltaDiscoveryResponse, done: oneshot::Sender<()> },
    /// With what the operator should know.
    Disconnected(String),
}

/// Runs until the receiver of `events` is dropped. `membership`: for a control plane that is reached over TLS.
pub async fn run(control_plane: ControlPlane, membership: Option<Membership>, events: mpsc::Sender<StreamEvent>) {
    let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LAST);
    loop {
        let error = match session(&control_plane, membership.as_ref(), &events, &mut backoff).await {
            Ok(()) => "the control plane ended the stream".to_owned(),
            Err(error) => error,
        };
        if events.send(StreamEvent::Disconnected(error)).await.is_err() {
            return;
        }
        tokio::time::sleep(backoff.next(random())).await;
    }
}

async fn session(
    control_plane: &ControlPlane,
    membership: Option<&Membership>,
    events: &mpsc::Sender<StreamEvent>,
    backoff: &mut Backoff,
) -> Result<(), String> {
    match control_plane {
        ControlPlane::Unix(path) => converse(dial::unix(path).await.map_err(|error| error.to_string())?, events, backoff).await,
        ControlPlane::DangerousPlaintext(address) => {
            converse(dial::plaintext(*address).await.map_err(|error| error.to_string())?, events, backoff).await
        }
        ControlPlane::Tls(address) => {
            let membership = membership.ok_or("a control plane over TLS takes no sidecar without identity")?;
            let (svid, bundle) = membership.held().await;
            let (channel, peer) = dial::tls(address, &bundle, Some(&svid)).await.map_err(|error| error.to_string())?;
            tokio::select! {
                ended = converse(channel, events, backoff) => ended,
                why = membership.outlived(&svid, &bundle, &peer) => Err(format!("connecting anew: {why}")),
            }
        }
    }
}

async fn converse(channel: Channel, events: &mpsc::Sender<StreamEvent>, backoff: &mut Backoff) -> Result<(), String> {
    let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_RESPONSE_BYTES);
    let (sender, receiver) = mpsc::channel(REQUESTS_IN_FLIGHT);
    // The call returns with the response's head, which servers may send only with their first message: our requests must flow meanwhile.
    if events.send(StreamEvent::Connected(sender)).await.is_err() {
        return Ok(());
    }
    let call = client.delta_aggregated_resources(ReceiverStream::new(receiver));
    let mut responses = call.await.map_err(|status| dial::describe(&status))?.into_inner();
    if events.send(StreamEvent::Answered).await.is_err() {
        return Ok(());
    }
    while let Some(response) = responses.message().await.map_err(|status| dial::describe(&status))? {
        backoff.reset();
        let (done, applied) = oneshot::channel();
        if events.send(StreamEvent::Response { response, done }).await.is_err() {
            return Ok(());
        }
        let _ = applied.await;
    }
    Ok(())
}
