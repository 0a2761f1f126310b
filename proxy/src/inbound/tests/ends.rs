//! What happens when one side is late, gone, or asked to stop.

use std::time::Duration;

use tokio::time::Instant;

use super::peers::{Origin, Sidecar, public, run};
use crate::listeners::Stop;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// Short enough to wait for, where the other side never moves.
const SOON: Duration = Duration::from_millis(50);
const LATE: Duration = Duration::from_secs(20);

#[test]
fn an_upstream_that_is_down_is_told() {
    run(async {
        let (origin, address) = Origin::bind().await;
        drop(origin);
        let mut client = Sidecar::start(address).client().await;
        client.send(GET).await;
        assert!(client.head().await.starts_with("http/1.1 502 "));
        assert!(client.until("}").await.contains("upstream_connect"));
        // Nothing was wrong with the client: it may ask again.
        client.send(GET).await;
        assert!(client.head().await.starts_with("http/1.1 502 "));
    });
}

#[test]
fn an_open_connection_follows_its_workload() {
    run(async {
        let ((origin, address), (moved, moved_to)) = (Origin::bind().await, Origin::bind().await);
        let mut listener = None;
        let sidecar = Sidecar::with(address, |inbound| listener = Some((inbound.key, inbound.enforce.shared.current.clone())));
        let (key, current) = listener.unwrap();
        let (mut client, mut busy) = (sidecar.client().await, sidecar.client().await);
        client.send(GET).await;
        let mut workload = origin.accept().await;
        workload.head().await;
        workload.send(OK).await;
        client.until("\r\n\r\nok").await;
        busy.send(GET).await;
        workload.head().await;

        current.swap(public(key, moved_to).current.pin().unwrap());
        client.send(GET).await;
        let mut successor = moved.accept().await;
        successor.head().await;
        successor.send(OK).await;
        assert!(client.until("\r\n\r\nok").await.starts_with("HTTP/1.1 200 "));
        workload.send(OK).await;
        assert!(busy.until("\r\n\r\nok").await.starts_with("HTTP/1.1 200 "), "what was under way ends where it was");
    });
}

#[test]
fn an_upstream_that_is_slow_is_told() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let mut client = Sidecar::with(address, |inbound| inbound.timeouts.response_head = SOON).client().await;
        client.send(GET).await;
        let mut workload = origin.accept().await;
        workload.head().await;
        assert!(client.head().await.starts_with("http/1.1 504 "));
        assert!(client.until("}").await.contains("upstream_timeout"));
        assert_eq!(workload.rest().await, "", "the request is given up");
    });
}

#[test]
fn an_upstream_that_speaks_no_http_is_told() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let mut client = Sidecar::start(address).client().await;
        client.send(GET).await;
        let mut workload = origin.accept().await;
        workload.head().await;
        workload.send("220 mail.example ESMTP\r\n\r\n").await;
        assert!(client.head().await.starts_with("http/1.1 502 "));
        assert!(client.until("}").await.contains("upstream_protocol"));
    });
}

#[test]
fn a_head_that_does_not_end_is_refused() {
    run(async {
        let (_origin, address) = Origin::bind().await;
        let mut client = Sidecar::with(address, |inbound| inbound.timeouts.head = SOON).client().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n").await;
        assert!(client.rest().await.starts_with("HTTP/1.1 408 "));
    });
}

#[test]
fn a_body_that_stands_still_is_refused() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let mut client = Sidecar::with(address, |inbound| inbound.timeouts.stall = SOON).client().await;
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello").await;
        let mut workload = origin.accept().await;
        workload.until("hello").await;
        assert_eq!(workload.rest().await, "", "the request is given up");
        assert!(client.rest().await.starts_with("HTTP/1.1 408 "));
    });
}

#[test]
fn a_response_that_stands_still_does_not_look_complete() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let mut client = Sidecar::with(address, |inbound| inbound.timeouts.stall = SOON).client().await;
        client.send(GET).await;
        let mut workload = origin.accept().await;
        workload.head().await;
        workload.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n").await;
        let answer = client.rest().await;
        assert!(answer.contains("\r\nok\r\n") && !answer.contains("\r\n0\r\n"), "{answer}");
    });
}

#[test]
fn connections_without_requests_are_closed() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let mut client = Sidecar::with(address, |inbound| inbound.timeouts.idle = SOON).client().await;
        client.send(GET).await;
        let mut workload = origin.accept().await;
        workload.head().await;
        workload.send(OK).await;
        assert!(client.rest().await.ends_with("\r\n\r\nok"));
    });
}

#[test]
fn a_client_that_goes_away_takes_its_request_along() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let sidecar = Sidecar::start(address);
        let mut client = sidecar.client().await;
        client.send(GET).await;
        let mut workload = origin.accept().await;
        workload.head().await;
        drop(client);
        assert_eq!(workload.rest().await, "");

        // The same while the response is under way.
        let mut client = sidecar.client().await;
        client.send(GET).await;
        let mut workload = origin.accept().await;
        workload.head().await;
        workload.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n").await;
        client.until("ok").await;
        drop(client);
        assert_eq!(workload.rest().await, "");
    });
}

#[test]
fn a_request_lost_on_an_idle_connection_is_sent_again_where_that_is_safe() {
    run(async {
        for (request, is_repeated) in [
            (GET, true),
            ("DELETE /x HTTP/1.1\r\nHost: a\r\n\r\n", true),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", false),
        ] {
            let (origin, address) = Origin::bind().await;
            let mut client = Sidecar::start(address).client().await;
            client.send(GET).await;
            let mut first = origin.accept().await;
            first.head().await;
            first.send(OK).await;
            client.until("\r\n\r\nok").await;
            client.send(request).await;
            let lost = first.head().await;
            drop(first);
            if is_repeated {
                let mut second = origin.accept().await;
                assert_eq!(second.head().await, lost);
                second.send(OK).await;
                assert!(client.head().await.starts_with("http/1.1 200 "), "{request}");
            } else {
                assert!(client.head().await.starts_with("http/1.1 502 "), "{request}");
            }
        }
    });
}

#[test]
fn draining_lets_requests_end_and_idle_connections_go() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let sidecar = Sidecar::start(address);
        let (mut busy, mut idle) = (sidecar.client().await, sidecar.client().await);
        idle.send(GET).await;
        let mut workload = origin.accept().await;
        workload.head().await;
        workload.send(OK).await;
        idle.until("\r\n\r\nok").await;
        busy.send(GET).await;
        workload.head().await;
        sidecar.drain_within(LATE);
        assert_eq!(idle.rest().await, "");
        workload.send(OK).await;
        let answer = busy.rest().await.to_lowercase();
        assert!(answer.starts_with("http/1.1 200 ") && answer.contains("connection: close") && answer.ends_with("ok"), "{answer}");
        drop((busy, idle));
        sidecar.served.await.unwrap().unwrap();
    });
}

#[test]
fn who_holds_a_connection_may_ask_once_more_where_another_listens_by_now() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let sidecar = Sidecar::start(address);
        // Accepted in this order: once the second is served, the first is accepted too.
        let (mut unused, mut used) = (sidecar.client().await, sidecar.client().await);
        used.send(GET).await;
        let mut workload = origin.accept().await;
        workload.head().await;
        workload.send(OK).await;
        used.until("\r\n\r\nok").await;
        sidecar.drain.send(Some(Stop::succeeded(Instant::now() + LATE))).unwrap();
        for client in [&mut unused, &mut used] {
            client.send(GET).await;
            workload.head().await;
            workload.send(OK).await;
            let answer = client.rest().await.to_lowercase();
            assert!(answer.starts_with("http/1.1 200 ") && answer.contains("connection: close") && answer.ends_with("ok"), "{answer}");
        }
        drop((unused, used));
        sidecar.served.await.unwrap().unwrap();
    });
}

#[test]
fn draining_ends_at_its_deadline() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let sidecar = Sidecar::start(address);
        let mut client = sidecar.client().await;
        client.send(GET).await;
        let mut workload = origin.accept().await;
        workload.head().await;
        sidecar.drain_within(SOON);
        sidecar.served.await.unwrap().unwrap();
        assert_eq!(client.rest().await, "");
    });
}
