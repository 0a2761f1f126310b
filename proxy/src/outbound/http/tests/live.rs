//! Policy that changes while requests are under way.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2,
    server,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use ringfence_policy::egress::Protocol;
use tokio::{sync::mpsc, task::spawn_local};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::sidecar::{Sidecar, http, rule};
use crate::{
    hop::{
        connection::LocalExecutor,
        peers::{Origin, run},
    },
    outbound,
};

#[test]
fn what_is_allowed_no_longer_is_cut_and_the_rest_stands() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let port = address.port();
        let mut sidecar = Sidecar::start(vec![http(&["a.test", "b.test"], port)]).await;
        let (mut to_a, mut to_b) = (sidecar.client().await, sidecar.client().await);
        let begin = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfirst\n";
        let mut upstreams = Vec::new();
        for (host, client) in [("a.test", &mut to_a), ("b.test", &mut to_b)] {
            client.send(format!("GET http://{host}:{port}/x HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n")).await;
            let mut upstream = origin.accept().await;
            upstream.head().await;
            upstream.send(begin).await;
            client.until("first\n").await;
            upstreams.push(upstream);
        }
        sidecar.push(vec![("acme", vec![http(&["b.test"], port)])]);
        assert_eq!(to_a.rest().await, "", "cut in the middle of its body");
        assert_eq!(upstreams[0].rest().await, "", "and so is its upstream");
        upstreams[1].send("second\n").await;
        assert_eq!(to_b.until("second\n").await, "second\n");
        // A changed path cuts too; the tenant's own removal likewise.
        sidecar.push(vec![("acme", vec![rule(&["b.test"], port, Protocol::Http, &["/y"])])]);
        assert_eq!(to_b.rest().await, "");
    });
}

#[test]
fn a_loosened_policy_holds_for_the_next_request() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let port = address.port();
        let mut sidecar = Sidecar::start(Vec::new()).await;
        let mut client = sidecar.client().await;
        let get = format!("GET http://a.test:{port}/ HTTP/1.1\r\nHost: a.test:{port}\r\n\r\n");
        client.send(&get).await;
        assert!(client.head().await.starts_with("http/1.1 403 "));
        client.until("}").await;
        sidecar.push(vec![("acme", vec![http(&["a.test"], port)])]);
        client.send(&get).await;
        let mut upstream = origin.accept().await;
        upstream.head().await;
        upstream.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert!(client.head().await.starts_with("http/1.1 204 "));
    });
}

#[test]
fn a_websocket_is_cut_too() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let port = address.port();
        let mut sidecar = Sidecar::start(vec![http(&["a.test"], port)]).await;
        let mut client = sidecar.client().await;
        client
            .send(format!(
                "GET http://a.test:{port}/ HTTP/1.1\r\nHost: a.test:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n"
            ))
            .await;
        let mut upstream = origin.accept().await;
        upstream.head().await;
        upstream.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello\n").await;
        client.until("hello\n").await;
        sidecar.push(vec![("acme", Vec::new())]);
        assert_eq!(client.rest().await, "");
        assert_eq!(upstream.rest().await, "");
    });
}

#[test]
fn an_upload_does_not_outlive_its_response() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let port = address.port();
        let listener = origin.into_listener();
        let (uploads, mut uploaded) = mpsc::unbounded_channel::<Incoming>();
        spawn_local(async move {
            let (stream, _) = listener.accept().await.unwrap();
            // Answers at once, and reads on.
            let early = service_fn(move |request: Request<Incoming>| {
                uploads.send(request.into_body()).unwrap();
                async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) }
            });
            server::conn::http2::Builder::new(LocalExecutor).serve_connection(TokioIo::new(stream), early).await.unwrap();
        });
        let mut sidecar = Sidecar::start(vec![http(&["a.test"], port)]).await;
        let stream = sidecar.stream(outbound::Origin::Explicit).await;
        let (mut client, connection) = http2::handshake(LocalExecutor, TokioIo::new(stream)).await.unwrap();
        spawn_local(connection);
        let (pieces, body) = mpsc::unbounded_channel::<Result<Frame<Bytes>, Infallible>>();
        let request = Request::post(format!("http://a.test:{port}/")).body(StreamBody::new(UnboundedReceiverStream::new(body))).unwrap();
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.unwrap();
        let mut upload = uploaded.recv().await.unwrap();
        sidecar.push(vec![("acme", Vec::new())]);
        let _ = pieces.send(Ok(Frame::data("secret".into())));
        let got = upload.frame().await;
        assert!(matches!(got, Some(Err(_))), "{got:?}");
    });
}
