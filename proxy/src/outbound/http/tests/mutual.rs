//! Rules that name a peer.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::{client, server, service::service_fn};
use hyper_util::rt::TokioIo;
use ringfence_policy::{
    PeerWorkload,
    egress::{EgressRule, Protocol},
};
use ringfence_xds::trust::{Svid, server_config};
use rustls::pki_types::CertificateDer;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    task::spawn_local,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::sidecar::{Sidecar, http, rule};
use crate::{
    hop::{
        connection::LocalExecutor,
        peers::{Peer, run},
    },
    identity::authority::Authority,
    inbound::tls::{H2, HTTP1},
    outbound::Origin,
};

const WEB: &str = "spiffe://here/tenant/acme/workload/web";
const BILLING: &str = "spiffe://here/tenant/acme/workload/billing";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// The workload that is called, played by the test behind TLS.
struct Called(TcpListener);

impl Called {
    async fn bind() -> (Self, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (Self(listener), port)
    }

    /// The next connection, which is shown `svid`.
    async fn accept(&self, authority: &Authority, svid: &Svid) -> Peer<TlsStream<TcpStream>> {
        Peer::new(self.handshake(authority, svid).await.unwrap())
    }

    async fn handshake(&self, authority: &Authority, svid: &Svid) -> std::io::Result<TlsStream<TcpStream>> {
        let config = server_config(&Authority::bundle(1, &[authority]), svid, true, &[H2, HTTP1]).unwrap();
        let (stream, _) = self.0.accept().await.unwrap();
        TlsAcceptor::from(Arc::new(config)).accept(stream).await
    }
}

/// Requests to `billing.test` go to `billing` of acme's, or of another tenant.
fn to_billing(port: u16, tenant: Option<&str>) -> EgressRule {
    let tenant = tenant.map(|tenant| tenant.parse().unwrap());
    EgressRule { peer: Some(PeerWorkload { tenant, workload: "billing".parse().unwrap() }), ..http(&["billing.test"], port) }
}

async fn sidecar(authority: &Authority, rules: Vec<EgressRule>) -> Sidecar {
    let mut sidecar = Sidecar::start(Vec::new()).await;
    sidecar.svid.send_replace(Some(authority.svid(WEB)));
    sidecar.trust = Some(Authority::bundle(1, &[authority]));
    sidecar.push(vec![("acme", rules)]);
    sidecar
}

fn get(port: u16) -> String {
    format!("GET http://billing.test:{port}/x HTTP/1.1\r\nHost: billing.test:{port}\r\n\r\n")
}

fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

#[test]
fn a_request_to_a_peer_is_asked_over_mtls_by_whom_it_came() {
    run(async {
        let authority = Authority::new();
        let (called, port) = Called::bind().await;
        let sidecar = sidecar(&authority, vec![to_billing(port, Some("acme"))]).await;
        let svid = authority.svid(BILLING);
        let captured = format!("GET /x HTTP/1.1\r\nHost: billing.test:{port}\r\n\r\n");
        let original = ([192, 0, 2, 1], port).into();
        for (mut client, request) in [(sidecar.client().await, get(port)), (sidecar.captured(original).await, captured)] {
            client.send(&request).await;
            let stream = called.handshake(&authority, &svid).await.unwrap();
            assert_eq!(shown(&stream), sidecar.svid.borrow().as_ref().unwrap().key.cert[0]);
            let session = stream.get_ref().1;
            assert_eq!((session.alpn_protocol(), session.server_name()), (Some(HTTP1), None));
            let mut upstream = Peer::new(stream);
            for _ in 0..2 {
                let head = upstream.head().await;
                assert!(head.starts_with("get /x http/1.1\r\n") && head.contains(&format!("\r\nhost: billing.test:{port}\r\n")), "{head}");
                upstream.send(OK).await;
                client.until("ok").await;
                // The next one comes on the same connection.
                client.send(&request).await;
            }
        }
    });
}

#[test]
fn nobody_else_is_asked_and_nothing_is_asked_in_the_clear() {
    run(async {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let (called, port) = Called::bind().await;
        let mut sidecar = sidecar(&authority, Vec::new()).await;
        let past = std::time::SystemTime::now() - Duration::from_secs(60);
        for (tenant, shown, expected) in [
            (Some("acme"), Some(authority.svid("spiffe://here/tenant/acme/workload/other")), "502 upstream_identity"),
            (Some("acme"), Some(authority.svid("spiffe://here/tenant/globex/workload/billing")), "502 upstream_identity"),
            (Some("acme"), Some(authority.svid("spiffe://here/shared/workload/billing")), "502 upstream_identity"),
            (Some("acme"), Some(authority.svid("spiffe://elsewhere/tenant/acme/workload/billing")), "502 upstream_identity"),
            (Some("acme"), Some(authority.svid_until(BILLING, past)), "502 upstream_identity"),
            (Some("acme"), Some(stranger.svid(BILLING)), "502 upstream_identity"),
            (None, Some(authority.svid(BILLING)), "502 upstream_identity"),
            // It does not speak TLS.
            (Some("acme"), None, "502 upstream_identity"),
        ] {
            sidecar.push(vec![("acme", vec![to_billing(port, tenant)])]);
            let case = format!("{tenant:?} {shown:?}");
            let mut client = sidecar.client().await;
            client.send(get(port)).await;
            match shown {
                Some(svid) => assert!(called.handshake(&authority, &svid).await.is_err(), "{case}"),
                None => {
                    let (mut stream, _) = called.0.accept().await.unwrap();
                    stream.write_all(OK.as_bytes()).await.unwrap();
                    let said = Peer::new(stream).rest().await;
                    assert!(!said.contains("billing"), "{said}");
                }
            }
            refused(&mut client, expected, &case).await;
        }
        // Without asking anybody.
        for (tenant, expected) in [(Some("globex"), "403 peer_not_allowed"), (Some("acme"), "502 upstream_identity")] {
            sidecar.svid.send_replace(None);
            sidecar.push(vec![("acme", vec![to_billing(port, tenant)])]);
            let mut client = sidecar.client().await;
            client.send(get(port)).await;
            refused(&mut client, expected, "no SVID").await;
        }
        sidecar.svid.send_replace(Some(authority.svid(WEB)));
        sidecar.trust = None;
        sidecar.push(vec![("acme", vec![to_billing(port, Some("acme"))])]);
        let mut client = sidecar.client().await;
        client.send(get(port)).await;
        refused(&mut client, "502 upstream_identity", "no bundle").await;
        client.send(format!("CONNECT billing.test:{port} HTTP/1.1\r\nHost: billing.test:{port}\r\n\r\n")).await;
        refused(&mut client, "403 egress_protocol_not_allowed", "CONNECT").await;
    });
}

async fn refused(client: &mut Peer<TcpStream>, expected: &str, case: &str) {
    let (status, reason) = expected.split_once(' ').unwrap();
    let head = client.head().await;
    assert!(head.starts_with(&format!("http/1.1 {status} ")), "{case}: {head}");
    let body = client.until("}").await;
    assert!(body.contains(&format!(r#""reason":"{reason}""#)), "{case}: {body}");
}

#[test]
fn a_connection_is_used_no_longer_than_what_it_was_made_with() {
    run(async {
        let (authority, next) = (Authority::new(), Authority::new());
        let (called, port) = Called::bind().await;
        let rules = || vec![("acme", vec![to_billing(port, Some("acme"))])];
        let mut sidecar = sidecar(&authority, vec![to_billing(port, Some("acme"))]).await;
        let svid = authority.svid(BILLING);
        let mut client = sidecar.client().await;
        client.send(get(port)).await;
        let mut first = called.accept(&authority, &svid).await;
        first.head().await;
        first.send(OK).await;
        client.until("ok").await;
        // Renewed: the next request is asked as who we are now.
        let renewed = authority.svid(WEB);
        sidecar.svid.send_replace(Some(renewed.clone()));
        client.send(get(port)).await;
        let stream = called.handshake(&authority, &svid).await.unwrap();
        assert_eq!(shown(&stream), renewed.key.cert[0]);
        let mut second = Peer::new(stream);
        second.head().await;
        assert_eq!(first.rest().await, "", "the old one is closed");
        second.send(OK).await;
        client.until("ok").await;
        // Another authority besides: what stands is good, and is not used for more.
        sidecar.trust = Some(Authority::bundle(2, &[&authority, &next]));
        sidecar.push(rules());
        client.send(get(port)).await;
        let mut third = called.accept(&authority, &svid).await;
        third.head().await;
        // Withdrawn with a request under way: it gets no answer.
        sidecar.trust = Some(Authority::bundle(3, &[&next]));
        sidecar.push(rules());
        assert_eq!(third.rest().await, "");
        refused(&mut client, "502 upstream_protocol", "withdrawn").await;
        client.send(get(port)).await;
        assert!(called.handshake(&authority, &svid).await.is_err(), "nobody vouches for it any more");
        refused(&mut client, "502 upstream_identity", "withdrawn").await;
    });
}

#[test]
fn a_request_in_flight_ends_when_its_rule_leads_elsewhere() {
    run(async {
        let authority = Authority::new();
        let (called, port) = Called::bind().await;
        for rules in [
            vec![to_billing(port, None)],
            vec![to_billing(port, Some("globex"))],
            vec![http(&["billing.test"], port)],
            vec![rule(&["billing.test"], port, Protocol::Tcp, &[])],
        ] {
            let mut sidecar = sidecar(&authority, vec![to_billing(port, Some("acme"))]).await;
            let mut client = sidecar.client().await;
            client.send(get(port)).await;
            let mut upstream = called.accept(&authority, &authority.svid(BILLING)).await;
            upstream.head().await;
            sidecar.push(vec![("acme", rules)]);
            assert_eq!(client.rest().await, "");
            assert_eq!(upstream.rest().await, "");
        }
    });
}

#[test]
fn a_tunnel_in_shadow_mode_is_no_way_around_a_peer() {
    run(async {
        let authority = Authority::new();
        let (called, port) = Called::bind().await;
        let mut sidecar = sidecar(&authority, Vec::new()).await;
        sidecar.shadow = true;
        sidecar.push(vec![("acme", vec![to_billing(port, Some("acme"))])]);
        let mut client = Peer::new(sidecar.stream(Origin::Explicit).await);
        client.send(format!("CONNECT billing.test:{port} HTTP/1.1\r\nHost: billing.test:{port}\r\n\r\n")).await;
        let (tunnel, _) = called.0.accept().await.unwrap();
        assert!(client.head().await.starts_with("http/1.1 200 "));
        client.send(format!("GET /x HTTP/1.1\r\nHost: billing.test:{port}\r\n\r\n")).await;
        let mut upstream = called.accept(&authority, &authority.svid(BILLING)).await;
        upstream.head().await;
        upstream.send(OK).await;
        client.until("ok").await;
        drop(client);
        sidecar.drained().await;
        assert_eq!(Peer::new(tunnel).rest().await, "", "nothing went that way");
    });
}

#[test]
fn http2_goes_to_a_peer_as_http2() {
    run(async {
        let authority = Authority::new();
        let (called, port) = Called::bind().await;
        let sidecar = sidecar(&authority, vec![to_billing(port, Some("acme"))]).await;
        let stream = sidecar.stream(Origin::Explicit).await;
        let (mut sender, connection) =
            client::conn::http2::handshake::<_, _, Empty<Bytes>>(LocalExecutor, TokioIo::new(stream)).await.unwrap();
        spawn_local(connection);
        spawn_local(async move {
            let stream = called.handshake(&authority, &authority.svid(BILLING)).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(H2));
            let answer = service_fn(async |_| Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())));
            server::conn::http2::Builder::new(LocalExecutor).serve_connection(TokioIo::new(stream), answer).await.unwrap();
        });
        let request = Request::get(format!("http://billing.test:{port}/x")).body(Empty::new()).unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
    });
}

#[test]
fn a_websocket_to_a_peer_is_joined() {
    run(async {
        let authority = Authority::new();
        let (called, port) = Called::bind().await;
        let sidecar = sidecar(&authority, vec![to_billing(port, Some("acme"))]).await;
        let mut client = sidecar.client().await;
        client
            .send(format!(
                "GET http://billing.test:{port}/ws HTTP/1.1\r\nHost: billing.test:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ))
            .await;
        let mut upstream = called.accept(&authority, &authority.svid(BILLING)).await;
        assert!(upstream.head().await.contains("\r\nupgrade: websocket\r\n"));
        upstream.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello").await;
        assert!(client.head().await.starts_with("http/1.1 101 "));
        client.until("hello").await;
        client.send("there").await;
        upstream.until("there").await;
    });
}
