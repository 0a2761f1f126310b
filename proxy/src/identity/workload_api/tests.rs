use std::pin::Pin;

use ringfence_xds::generated::workload_api::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};
use tokio::{net::UnixListener, sync::mpsc};
use tokio_stream::{
    Stream,
    wrappers::{ReceiverStream, UnixListenerStream},
};
use tonic::{Response, Status};

use super::*;
use crate::identity::{
    CurrentSvid,
    tests::{API, Authority, HOUR, key, me, publisher},
};

/// What an agent's stream brings; it ends with an error.
type Item = Result<X509svidResponse, Status>;

/// An agent whose streams, one after another, are those that were put in.
struct Agent(tokio::sync::Mutex<mpsc::Receiver<mpsc::Receiver<Item>>>);

#[tonic::async_trait]
impl SpiffeWorkloadApi for Agent {
    type FetchX509SVIDStream = Pin<Box<dyn Stream<Item = Item> + Send>>;
    async fn fetch_x509svid(&self, request: Request<X509svidRequest>) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        let header = request.metadata().get("workload.spiffe.io").ok_or_else(|| Status::invalid_argument("no header"))?;
        assert_eq!(header, "true");
        let stream = self.0.lock().await.recv().await.ok_or_else(|| Status::permission_denied("no identity issued"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// A sidecar's side, running against an agent.
struct Setting {
    streams: mpsc::Sender<mpsc::Receiver<Item>>,
    svid: CurrentSvid,
    trust: Arc<Trust>,
    metrics: Arc<crate::telemetry::metrics::Metrics>,
    _dir: tempfile::TempDir,
}

impl Setting {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent.sock");
        let (streams, receiver) = mpsc::channel(4);
        let incoming = UnixListenerStream::new(UnixListener::bind(&socket).unwrap());
        let agent = SpiffeWorkloadApiServer::new(Agent(tokio::sync::Mutex::new(receiver)));
        tokio::spawn(tonic::transport::Server::builder().add_service(agent).serve_with_incoming(incoming));
        let (publisher, trust) = (publisher(), Arc::new(Trust::told_elsewhere(&me().trust_domain)));
        let (svid, metrics) = (publisher.svid.subscribe(), publisher.metrics.clone());
        let source = WorkloadApi { socket, me: me(), trust: trust.clone(), publisher, clock: Clock::SYSTEM };
        tokio::spawn(source.run());
        Self { streams, svid, trust, metrics, _dir: dir }
    }

    async fn stream(&self) -> mpsc::Sender<Item> {
        let (sender, receiver) = mpsc::channel(4);
        self.streams.send(receiver).await.unwrap();
        sender
    }

    /// Waits for an SVID that is not `before`.
    async fn next(&mut self, before: Option<&Arc<Svid>>) -> Arc<Svid> {
        let is_next =
            |svid: &Option<Arc<Svid>>| svid.as_ref().is_some_and(|svid| before.is_none_or(|before| before.key.cert != svid.key.cert));
        self.svid.wait_for(is_next).await.unwrap().clone().unwrap()
    }
}

fn entry(authority: &Authority, uri: &str) -> X509svid {
    let (key, now) = (key(), Clock::SYSTEM.now());
    X509svid {
        spiffe_id: uri.into(),
        x509_svid: authority.certificate(uri, &key, now, now + HOUR).to_vec().into(),
        x509_svid_key: key.serialize_der().into(),
        bundle: authority.certificate.to_vec().into(),
        hint: String::new(),
    }
}

fn response(svids: impl Into<Vec<X509svid>>) -> Item {
    Ok(X509svidResponse { svids: svids.into() })
}

const WEB: &str = "spiffe://here/tenant/acme/workload/web";

#[tokio::test]
async fn updates_are_taken_as_they_come_and_streams_opened_again() {
    let (authority, mut setting) = (Authority::new(), Setting::new());
    let stream = setting.stream().await;
    stream.send(response([entry(&authority, API)])).await.unwrap();
    let first = setting.next(None).await;
    assert_eq!(first.id.to_string(), API);
    let sequence = |setting: &Setting| setting.trust.subscribe().borrow().as_ref().unwrap().sequence;
    assert_eq!(sequence(&setting), 1);

    let rotated = Authority::new();
    stream.send(response([entry(&rotated, API)])).await.unwrap();
    let second = setting.next(Some(&first)).await;
    assert_eq!(sequence(&setting), 2);

    stream.send(Err(Status::unavailable("the agent restarts"))).await.unwrap();
    let stream = setting.stream().await;
    stream.send(response([entry(&rotated, WEB), entry(&rotated, API)])).await.unwrap();
    let third = setting.next(Some(&second)).await;
    assert_eq!(third.id.to_string(), API, "ours, though it is the second");
    assert_eq!(setting.metrics.identity_renewal_failures.get(), 1);
    drop(stream);
    let stream = setting.stream().await;
    stream.send(response([entry(&rotated, API)])).await.unwrap();
    setting.next(Some(&third)).await;
}

#[tokio::test]
async fn what_cannot_be_used_is_left_and_the_stream_goes_on() {
    let (authority, other) = (Authority::new(), Authority::new());
    let mut setting = Setting::new();
    let good = || entry(&authority, API);
    let stream = setting.stream().await;
    let edited = |edit: &dyn Fn(&mut X509svid)| {
        let mut svid = good();
        edit(&mut svid);
        vec![svid]
    };
    let bad: Vec<Vec<X509svid>> = vec![
        vec![],
        vec![entry(&authority, WEB)],
        vec![X509svid { spiffe_id: "garbage".into(), ..good() }],
        // What it is called by is not what it says.
        edited(&|svid| svid.x509_svid = entry(&authority, WEB).x509_svid),
        edited(&|svid| svid.x509_svid = b"garbage".as_slice().into()),
        edited(&|svid| svid.x509_svid = Vec::new().into()),
        edited(&|svid| svid.x509_svid = svid.x509_svid.repeat(9).into()),
        edited(&|svid| svid.x509_svid_key = b"garbage".as_slice().into()),
        edited(&|svid| svid.x509_svid_key = key().serialize_der().into()),
        edited(&|svid| svid.bundle = Vec::new().into()),
        edited(&|svid| svid.bundle = b"garbage".as_slice().into()),
        edited(&|svid| svid.bundle = other.certificate.to_vec().into()),
        edited(&|svid| svid.bundle = svid.bundle.repeat(17).into()),
    ];
    let count = bad.len() as u64;
    for svids in bad {
        stream.send(response(svids)).await.unwrap();
    }
    stream.send(response([good()])).await.unwrap();
    setting.next(None).await;
    assert_eq!(setting.metrics.identity_renewal_failures.get(), count);
    assert_eq!(setting.trust.subscribe().borrow().as_ref().unwrap().sequence, 1, "none of them changed who is believed");
}

#[tokio::test]
async fn a_response_beyond_bounds_ends_its_stream_alone() {
    let (authority, mut setting) = (Authority::new(), Setting::new());
    let stream = setting.stream().await;
    let huge = X509svid { bundle: vec![0; MAX_RESPONSE_BYTES].into(), ..entry(&authority, API) };
    stream.send(response([huge])).await.unwrap();
    let stream = setting.stream().await;
    stream.send(response([entry(&authority, API)])).await.unwrap();
    setting.next(None).await;
    assert_eq!(setting.metrics.identity_renewal_failures.get(), 1);
}
