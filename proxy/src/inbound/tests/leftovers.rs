//! Workloads that do not read what they are sent: its octets must not become a request of anybody's.

use std::{rc::Rc, time::Duration};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::peers::{Origin, Sidecar, run};
use crate::hop::{Upstream, peers::ask};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// What a workload that ignores bodies would take for a request of another tenant.
const INNER: &str = "GET /tenants/globex HTTP/1.1\r\nHost: a\r\nx-ringfence-tenant: globex\r\n\r\n";

fn request(method: &str) -> String {
    format!("{method} /outer HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", INNER.len())
}

#[test]
fn content_that_nobody_expects_is_the_last_of_its_connection() {
    for (method, te, connection) in [
        ("GET", "", Some("close")),
        ("HEAD", "", Some("close")),
        ("DELETE", "", Some("close")),
        ("OPTIONS", "", Some("close")),
        ("GET", "TE: trailers\r\n", Some("te, close")),
        ("POST", "", None),
        ("PUT", "", None),
    ] {
        run(async {
            let (origin, address) = Origin::bind().await;
            let mut client = Sidecar::start(address).client().await;
            client.send(request(method).replacen("Host", &format!("{te}Host"), 1) + INNER).await;
            let mut workload = origin.accept().await;
            let head = workload.head().await;
            let told: Vec<&str> = head.lines().filter_map(|line| line.strip_prefix("connection: ")).collect();
            assert_eq!(told.join(", "), connection.unwrap_or_default(), "{method} {te}");
            workload.until(INNER).await;
            workload.send(if method == "HEAD" { "HTTP/1.1 204 No Content\r\n\r\n" } else { OK }).await;
            client.head().await;
            if connection.is_some() {
                assert_eq!(workload.rest().await, "", "{method}: a workload that keeps the connection finds it ended");
            }
        });
    }
}

#[test]
fn no_octet_of_a_request_follows_the_end_of_its_response() {
    for method in ["POST", "GET"] {
        run(async {
            let (origin, address) = Origin::bind().await;
            let sidecar = Sidecar::start(address);
            let mut client = sidecar.client().await;
            client.send(request(method)).await;
            let mut workload = origin.accept().await;
            workload.head().await;
            workload.send(OK).await;
            client.until("\r\n\r\nok").await;
            assert_eq!(workload.rest().await, "", "the connection ends with the response");
            client.send(INNER).await;
            client.rest().await;

            let mut other = sidecar.client().await;
            other.send("GET /other HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert!(origin.accept().await.head().await.starts_with("get /other "));
        });
    }
}

#[test]
fn a_connection_whose_response_began_early_is_not_used_again() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let sidecar = Sidecar::start(address);
        let mut client = sidecar.client().await;
        client.send(request("POST")).await;
        let mut workload = origin.accept().await;
        workload.head().await;
        workload.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok").await;
        client.until("\r\n\r\nok").await;
        // Both bodies end after that, as those of a conversation do.
        client.send(INNER).await;
        workload.until(INNER).await;
        workload.send("ok").await;
        client.until("ok").await;
        assert_eq!(workload.rest().await, "");
    });
}

#[test]
fn a_request_goes_on_where_nobody_takes_its_response_yet() {
    // More than fits into all buffers on the way.
    const OCTETS: usize = 32 * 1024 * 1024;
    run(async {
        let (origin, address) = Origin::bind().await;
        let mut client = Sidecar::start(address).client().await;
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {OCTETS}\r\n\r\n")).await;
        let (mut workload, _) = origin.into_listener().accept().await.unwrap();
        let (mut asked, mut answer) = workload.split();
        let octets = vec![b'x'; OCTETS];
        let answered = async {
            answer.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {OCTETS}\r\n\r\n").as_bytes()).await.unwrap();
            answer.write_all(&octets).await
        };
        let read = async {
            let mut read = 0;
            while read < OCTETS {
                read += asked.read(&mut vec![0; 64 * 1024]).await.unwrap();
            }
        };
        tokio::select! {
            _ = answered => panic!("the response has gone to nobody"),
            _ = async { tokio::join!(read, client.send(&octets)) } => {}
        }
    });
}

#[test]
fn a_connection_is_one_tenants() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let upstream = Rc::new(Upstream::new(address, Duration::from_secs(20)));
        let tenants = ["acme".parse().ok(), "globex".parse().ok(), None];
        let mut workloads = Vec::new();
        for tenant in &tenants {
            assert!(upstream.reuse(tenant.as_ref()).await.is_none(), "those of others are not for {tenant:?}");
            let connection = upstream.connect_http1(tenant.clone()).await.unwrap();
            let mut workload = origin.accept().await;
            ask(connection, &mut workload, &upstream).await;
            workloads.push(workload);
        }
        for tenant in &tenants {
            let has = async || upstream.reuse(tenant.as_ref()).await.is_some();
            assert!(has().await && !has().await, "{tenant:?} has one");
        }
    });
}
