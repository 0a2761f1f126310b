//! HTTP/2 with prior knowledge on both sides, and CONNECT over it.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::{body::Frame, client::conn::http2, server, service::service_fn};
use hyper_util::rt::TokioIo;
use ringfence_policy::egress::Protocol;
use tokio::task::spawn_local;

use super::sidecar::{Sidecar, http, rule};
use crate::{
    hop::{
        connection::LocalExecutor,
        peers::{Origin as Upstream, Peer, run},
    },
    outbound::Origin,
};

async fn connect<B>(sidecar: &Sidecar, origin: Origin) -> http2::SendRequest<B>
where
    B: http_body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + 'static,
{
    let (sender, connection) = http2::handshake(LocalExecutor, TokioIo::new(sidecar.stream(origin).await)).await.unwrap();
    spawn_local(connection);
    sender
}

#[test]
fn calls_go_on_over_http2_with_their_trailers() {
    run(async {
        let (origin, address) = Upstream::bind().await;
        let port = address.port();
        let listener = origin.into_listener();
        spawn_local(async move {
            let (stream, _) = listener.accept().await.unwrap();
            // A second connection would find nobody: all calls share one.
            drop(listener);
            let echo = service_fn(|request: Request<hyper::body::Incoming>| async move {
                assert_eq!(request.version(), Version::HTTP_2);
                assert_eq!(request.headers()["te"], "trailers");
                assert_eq!(request.headers()["via"], "2.0 ringfence");
                assert_eq!(request.uri().host().unwrap(), "greeter.test");
                assert!(!request.headers().contains_key("x-ringfence-context"));
                let message = request.into_body().collect().await.unwrap().to_bytes();
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                trailers.insert("x-ringfence-tenant", "globex".parse().unwrap());
                let frames = [Ok::<_, Infallible>(Frame::data(message)), Ok(Frame::trailers(trailers))];
                Ok::<_, Infallible>(Response::new(StreamBody::new(futures_util::stream::iter(frames))))
            });
            server::conn::http2::Builder::new(LocalExecutor).serve_connection(TokioIo::new(stream), echo).await.unwrap();
        });
        let sidecar = Sidecar::start(vec![rule(&["greeter.test"], port, Protocol::Http, &["/Greeter/*"])]).await;
        let mut client = connect(&sidecar, Origin::Explicit).await;
        let call = |host: &str, path: &str| {
            Request::post(format!("http://{host}:{port}{path}"))
                .header("te", "trailers")
                .header("x-ringfence-context", "x")
                .body(Full::new(Bytes::from("message")))
                .unwrap()
        };
        for _ in 0..2 {
            let response = client.send_request(call("greeter.test", "/Greeter/Hello")).await.unwrap();
            assert_eq!(response.status(), 200);
            let body = response.into_body().collect().await.unwrap();
            assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
            assert!(!body.trailers().unwrap().contains_key("x-ringfence-tenant"));
            assert_eq!(body.to_bytes(), "message");
        }
        for (host, path, status) in [("greeter.test", "/Admin/Drop", 403), ("other.test", "/Greeter/Hello", 403)] {
            assert_eq!(client.send_request(call(host, path)).await.unwrap().status(), status, "{host}{path}");
        }
    });
}

#[test]
fn another_authority_on_the_same_connection_is_decided_on_its_own() {
    run(async {
        let ((a, to_a), (_b, to_b)) = (Upstream::bind().await, Upstream::bind().await);
        let port = to_a.port();
        let sidecar = Sidecar::start(vec![http(&["a.test"], port)]).await;
        let original = std::net::SocketAddr::new([192, 0, 2, 7].into(), port);
        let mut client = connect::<Empty<Bytes>>(&sidecar, Origin::Captured(original)).await;
        let get = |authority: String, host: Option<&str>| {
            let mut request = Request::get(format!("http://{authority}/"));
            if let Some(host) = host {
                request = request.header("host", host);
            }
            request.body(Empty::new()).unwrap()
        };
        let answer = client.send_request(get(format!("a.test:{port}"), None));
        let listener = a.into_listener();
        let (stream, _) = listener.accept().await.unwrap();
        let no_content = service_fn(|_| async {
            let mut response = Response::new(Empty::<Bytes>::new());
            *response.status_mut() = StatusCode::NO_CONTENT;
            Ok::<_, Infallible>(response)
        });
        spawn_local(server::conn::http2::Builder::new(LocalExecutor).serve_connection(TokioIo::new(stream), no_content));
        assert_eq!(answer.await.unwrap().status(), 204);
        for (request, status) in [
            (get(format!("b.test:{port}"), None), 403),
            (get(format!("a.test:{}", to_b.port()), None), 403),
            (get(format!("a.test:{port}"), Some("b.test")), 403),
        ] {
            assert_eq!(client.send_request(request).await.unwrap().status(), status);
        }
    });
}

#[test]
fn connect_makes_a_tunnel_of_a_stream() {
    run(async {
        let (origin, address) = Upstream::bind().await;
        let port = address.port();
        let sidecar = Sidecar::start(vec![rule(&["a.test"], port, Protocol::Tcp, &[])]).await;
        let mut client = connect::<Empty<Bytes>>(&sidecar, Origin::Explicit).await;
        let connect = |authority: String| Request::builder().method(Method::CONNECT).uri(authority).body(Empty::new()).unwrap();
        for (authority, status) in [(format!("b.test:{port}"), 403), ("a.test:1".into(), 403), ("a.test".into(), 400)] {
            assert_eq!(client.send_request(connect(authority.clone())).await.unwrap().status(), status, "{authority}");
        }
        let mut answers = Vec::new();
        for number in 0..2 {
            let answer = client.send_request(connect(format!("a.test:{port}"))).await.unwrap();
            assert_eq!(answer.status(), 200);
            let mut tunnel = Peer::new(TokioIo::new(hyper::upgrade::on(answer).await.unwrap()));
            tunnel.send(format!("\x01{number}\n")).await;
            let mut upstream = origin.accept().await;
            assert_eq!(upstream.until("\n").await, format!("\x01{number}\n"));
            upstream.send("hello\n").await;
            assert_eq!(tunnel.until("\n").await, "hello\n");
            answers.push((tunnel, upstream));
        }
        let (tunnel, mut upstream) = answers.remove(0);
        drop(tunnel);
        assert_eq!(upstream.rest().await, "");
        let (mut tunnel, mut upstream) = answers.remove(0);
        upstream.send("still\n").await;
        assert_eq!(tunnel.until("\n").await, "still\n");
    });
}
