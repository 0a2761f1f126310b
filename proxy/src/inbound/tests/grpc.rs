//! HTTP/2 on both sides for gRPC, and on one side for everything else.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{body::Frame, client::conn::http2, server, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    task::{JoinHandle, spawn_local},
};

use super::peers::{Origin, Sidecar, run};
use crate::hop::{
    Timeouts, Upstream,
    body::RequestBody,
    connection::LocalExecutor,
    limits::{H2_CONNECTION_WINDOW, H2_STREAM_WINDOW},
};

async fn connect(sidecar: &Sidecar) -> http2::SendRequest<Full<Bytes>> {
    connect_and_watch(sidecar).await.0
}

/// A connection, and what tells its end.
async fn connect_and_watch(sidecar: &Sidecar) -> (http2::SendRequest<Full<Bytes>>, JoinHandle<hyper::Result<()>>) {
    let stream = TcpStream::connect(sidecar.address).await.unwrap();
    let (sender, connection) = http2::handshake(LocalExecutor, TokioIo::new(stream)).await.unwrap();
    (sender, spawn_local(connection))
}

#[test]
fn grpc_goes_on_over_http2_with_its_trailers() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let listener = origin.into_listener();
        spawn_local(async move {
            let (stream, _) = listener.accept().await.unwrap();
            // A second connection would find nobody: both calls share one.
            drop(listener);
            let echo = service_fn(|request: Request<hyper::body::Incoming>| async move {
                assert_eq!(request.version(), Version::HTTP_2);
                assert_eq!(request.headers()["te"], "trailers");
                assert_eq!(request.uri().authority().unwrap(), "greeter.test");
                assert!(!request.headers().contains_key("x-ringfence-tenant"));
                let message = request.into_body().collect().await.unwrap().to_bytes();
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                trailers.insert("x-ringfence-tenant", "globex".parse().unwrap());
                let frames = [Ok::<_, Infallible>(Frame::data(message)), Ok(Frame::trailers(trailers))];
                Ok::<_, Infallible>(Response::new(StreamBody::new(futures_util::stream::iter(frames))))
            });
            server::conn::http2::Builder::new(LocalExecutor).serve_connection(TokioIo::new(stream), echo).await.unwrap();
        });
        let sidecar = Sidecar::start(address);
        let mut client = connect(&sidecar).await;
        for message in ["one", "two"] {
            let call = Request::post("http://greeter.test/Greeter/Hello")
                .header("content-type", "application/grpc+proto")
                .header("te", "trailers")
                .header("x-ringfence-tenant", "globex")
                .body(Full::from(message))
                .unwrap();
            let response = client.send_request(call).await.unwrap();
            assert_eq!(response.status(), 200);
            let body = response.into_body().collect().await.unwrap();
            let trailers = body.trailers().unwrap().clone();
            assert_eq!(body.to_bytes(), message);
            assert_eq!(trailers["grpc-status"], "0");
            assert!(!trailers.contains_key("x-ringfence-tenant"));
        }
    });
}

#[test]
fn a_stream_to_where_the_workload_was_is_cut() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let listener = origin.into_listener();
        spawn_local(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let endless = service_fn(|_| async {
                let body = StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, Infallible>>());
                Ok::<_, Infallible>(Response::new(body))
            });
            let _ = server::conn::http2::Builder::new(LocalExecutor).serve_connection(TokioIo::new(stream), endless).await;
        });
        let (sidecar, move_to) = Sidecar::hasty(address);
        let mut client = connect(&sidecar).await;
        let call = Request::post("http://greeter.test/Greeter/Watch").header("content-type", "application/grpc");
        let response = client.send_request(call.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        move_to("127.0.0.1:1".parse().unwrap());
        assert!(response.into_body().collect().await.is_err());
    });
}

#[test]
fn a_tenant_that_reads_nothing_holds_up_no_other() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let listener = origin.into_listener();
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer =
                    service_fn(|_| async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(vec![0; H2_STREAM_WINDOW as usize]))) });
                spawn_local(server::conn::http2::Builder::new(LocalExecutor).serve_connection(TokioIo::new(stream), answer));
            }
        });
        let upstream = Upstream::new(address, Duration::from_secs(20));
        let call = async |tenant: &str| {
            let request = Request::new(RequestBody::empty());
            let (mut parts, body) = request.into_parts();
            parts.uri = "http://a.test/".parse().unwrap();
            upstream.http2(tenant.parse().ok()).await.unwrap().sender.send_request(Request::from_parts(parts, body)).await.unwrap()
        };
        // As many as fill the window of their connection.
        let mut unread = Vec::new();
        for _ in 0..H2_CONNECTION_WINDOW / H2_STREAM_WINDOW {
            unread.push(call("acme").await);
        }
        let body = call("globex").await.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.len(), H2_STREAM_WINDOW as usize);
    });
}

#[test]
fn other_http2_requests_go_on_over_http1() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let sidecar = Sidecar::start(address);
        let mut client = connect(&sidecar).await;
        let request = Request::post("http://A.test:80/x?y").body(Full::from("hello")).unwrap();
        let answer = spawn_local(async move { client.send_request(request).await.unwrap() });
        let mut workload = origin.accept().await;
        let head = workload.head().await;
        assert!(head.starts_with("post /x?y http/1.1\r\n") && head.contains("\r\nhost: a.test:80\r\n"), "{head}");
        workload.until("hello").await;
        workload.send("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok").await;
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(!answer.headers().contains_key("connection"));
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok");
    });
}

#[test]
fn an_early_answer_arrives_whole_over_http2() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let sidecar = Sidecar::start(address);
        let stream = TcpStream::connect(sidecar.address).await.unwrap();
        let (mut client, connection) = http2::handshake(LocalExecutor, TokioIo::new(stream)).await.unwrap();
        spawn_local(connection);
        let half = futures_util::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from("half")))]);
        let body = StreamBody::new(futures_util::StreamExt::chain(half, futures_util::stream::pending()));
        let answer = spawn_local(client.send_request(Request::post("http://a.test/").body(body).unwrap()));
        let mut workload = origin.accept().await;
        workload.until("half").await;
        workload.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno").await;
        let answer = answer.await.unwrap().unwrap();
        assert_eq!(answer.status(), 413);
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "no");
        assert_eq!(workload.rest().await, "\r\n", "the upload ends with its answer");
    });
}

#[test]
fn http2_connections_end_when_the_client_takes_nothing() {
    run(async {
        let (_origin, address) = Origin::bind().await;
        let sidecar = Sidecar::with(address, |inbound| {
            let soon = Duration::from_millis(50);
            inbound.timeouts = Timeouts { idle: soon, stall: soon, response_head: soon, linger: soon, ..Timeouts::default() };
        });
        let stream = TcpStream::connect(sidecar.address).await.unwrap();
        let shut = http2::Builder::new(LocalExecutor).initial_stream_window_size(0).handshake(TokioIo::new(stream)).await.unwrap();
        let (mut client, connection) = shut;
        let ended = spawn_local(connection);
        let request = Request::get("http://a.test/").header("host", "b.test").body(Full::<Bytes>::default()).unwrap();
        let refused = client.send_request(request).await.unwrap();
        assert_eq!(refused.status(), 400);
        let _ = ended.await.unwrap();
        assert!(refused.into_body().collect().await.is_err(), "its text was never taken");
    });
}

#[test]
fn http2_requests_with_two_readings_are_refused_alone() {
    run(async {
        let (_origin, address) = Origin::bind().await;
        let sidecar = Sidecar::start(address);
        let mut client = connect(&sidecar).await;
        for _ in 0..2 {
            let request = Request::get("http://a.test/").header("host", "b.test").body(Full::default()).unwrap();
            let answer = client.send_request(request).await.unwrap();
            assert_eq!(answer.status(), 400);
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert!(body.windows(17).any(|window| window == b"request_malformed"));
        }
    });
}

#[test]
fn http2_connections_end_when_idle() {
    run(async {
        let (_origin, address) = Origin::bind().await;
        let sidecar = Sidecar::with(address, |inbound| inbound.timeouts.idle = Duration::from_millis(50));
        let (_client, ended) = connect_and_watch(&sidecar).await;
        ended.await.unwrap().unwrap();
    });
}

#[test]
fn draining_lets_http2_requests_end() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let sidecar = Sidecar::start(address);
        let (mut client, ended) = connect_and_watch(&sidecar).await;
        let request = Request::get("http://a.test/").body(Full::default()).unwrap();
        let answer = spawn_local(client.send_request(request));
        let mut workload = origin.accept().await;
        workload.head().await;
        sidecar.drain_within(Duration::from_secs(20));
        workload.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        let answer = answer.await.unwrap().unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok");
        ended.await.unwrap().unwrap();
        sidecar.served.await.unwrap().unwrap();
    });
}

#[test]
fn an_http2_client_that_resets_its_stream_takes_the_request_along() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let sidecar = Sidecar::start(address);
        let mut client = connect(&sidecar).await;
        let request = Request::get("http://a.test/").body(Full::default()).unwrap();
        let answer = spawn_local(client.send_request(request));
        let mut workload = origin.accept().await;
        workload.head().await;
        answer.abort();
        assert_eq!(workload.rest().await, "");
    });
}
