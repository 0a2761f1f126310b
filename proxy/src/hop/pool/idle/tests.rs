use std::{
    ops::Range,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Wake, Waker},
    time::Duration,
};

use http::Request;
use tokio::net::TcpStream;

use super::*;
use crate::hop::{
    Upstream,
    body::RequestBody,
    peers::{Origin, Peer, ask, run},
    pool::Lease,
};

fn tenant(number: usize) -> Option<TenantId> {
    format!("tenant-{number}").parse().ok()
}

#[test]
fn who_holds_more_than_their_share_makes_room_and_else_the_oldest() {
    for (came, expected) in
        [(&[0][..], 0), (&[0, 1, 2], 0), (&[0, 1, 1], 1), (&[0, 1, 1, 1, 1], 1), (&[0, 0, 0, 1], 0), (&[0, 1, 2, 1], 1), (&[0, 1, 1, 0], 0)]
    {
        let mut all = ByAge::default();
        for &number in came {
            all.put(tenant(number), number, Instant::now());
        }
        assert_eq!(all.most_expendable().map(|entry| entry.item), Some(expected), "{came:?}");
    }
}

#[test]
fn a_tenant_gets_its_last_one() {
    let mut all = ByAge::default();
    for (number, item) in [(0, 'a'), (1, 'b'), (0, 'c'), (0, 'd')] {
        all.put(tenant(number), item, Instant::now());
    }
    for (number, expected) in [(0, Some('d')), (0, Some('c')), (2, None), (1, Some('b')), (1, None)] {
        assert_eq!(all.take(&tenant(number)), expected, "{number}");
    }
    assert_eq!(all.take(&None), None);
    all.drop_aged(Instant::now() + UPSTREAM_IDLE);
    assert!(all.entries.is_empty() && all.of.is_empty());
}

/// Asks once for each tenant, and yields the workload's ends.
async fn each_asked_once(tenants: Range<usize>, origin: &Origin, upstream: &Rc<Upstream>) -> Vec<Peer<TcpStream>> {
    let mut workloads = Vec::new();
    for number in tenants {
        let connection = upstream.connect_http1(tenant(number)).await.unwrap();
        let mut workload = origin.accept().await;
        ask(connection, &mut workload, upstream).await;
        workloads.push(workload);
    }
    workloads
}

#[test]
fn a_connection_serves_its_tenant_again_and_nobody_else() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let upstream = Rc::new(Upstream::new(address, Duration::from_secs(20)));
        let count = MAX_WARM_UPSTREAM + 2;
        let mut workloads = each_asked_once(0..count, &origin, &upstream).await;
        let at_rest = || (upstream.idle.borrow().warm.entries.len(), upstream.idle.borrow().bare.entries.len());
        assert_eq!(at_rest(), (MAX_WARM_UPSTREAM, 2));
        for number in [1, 0, count - 1, 1] {
            let connection = upstream.reuse(tenant(number).as_ref()).await.unwrap();
            assert!(upstream.reuse(tenant(number).as_ref()).await.is_none(), "{number}: it was not given back");
            ask(connection, &mut workloads[number], &upstream).await;
        }
        assert_eq!(at_rest(), (MAX_WARM_UPSTREAM, 2));
    });
}

#[test]
fn what_rests_holds_no_reader() {
    struct Reader;
    impl Wake for Reader {
        fn wake(self: Arc<Self>) {}
    }
    run(async {
        let (origin, address) = Origin::bind().await;
        let upstream = Rc::new(Upstream::new(address, Duration::from_secs(20)));
        let _warm = each_asked_once(0..MAX_WARM_UPSTREAM - 1, &origin, &upstream).await;
        for kind in ["warm", "bare"] {
            let mut connection = upstream.connect_http1(tenant(MAX_WARM_UPSTREAM)).await.unwrap();
            let mut workload = origin.accept().await;
            let reader = Arc::new(Reader);
            let waker = Waker::from(reader.clone());
            {
                let answer = pin!(connection.ask(Request::new(RequestBody::empty())));
                let mut asked = pin!(connection.drive(answer));
                assert!(asked.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
                assert!(Arc::strong_count(&reader) > 2, "it is woken when there is an answer");
                workload.head().await;
                workload.send("HTTP/1.1 204 No Content\r\n\r\n").await;
                // Until the kernel has told of it.
                while asked.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                    tokio::task::yield_now().await;
                }
            }
            Lease::new(upstream.clone(), connection).give_back();
            assert_eq!(Arc::strong_count(&reader), 2, "{kind}: this test's own");
        }
        assert_eq!((upstream.idle.borrow().warm.entries.len(), upstream.idle.borrow().bare.entries.len()), (MAX_WARM_UPSTREAM, 1));
    });
}

#[test]
fn what_a_workload_says_unasked_answers_nobody() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let upstream = Rc::new(Upstream::new(address, Duration::from_secs(20)));
        let mut workloads = each_asked_once(0..MAX_WARM_UPSTREAM + 4, &origin, &upstream).await;
        let bare = [MAX_WARM_UPSTREAM, MAX_WARM_UPSTREAM + 1, MAX_WARM_UPSTREAM + 2, MAX_WARM_UPSTREAM + 3];
        // Two that hyper has begun on anew by then.
        let begun = [upstream.reuse(tenant(bare[2]).as_ref()).await.unwrap(), upstream.reuse(tenant(bare[3]).as_ref()).await.unwrap()];
        for number in [0, bare[0], bare[2]] {
            workloads[number].send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        }
        for number in [bare[3], bare[1], 1] {
            drop(workloads.remove(number));
        }
        // Until the kernel has told of them all.
        each_asked_once(1000..1001, &origin, &upstream).await;
        for number in [bare[0], bare[1]] {
            assert!(upstream.reuse(tenant(number).as_ref()).await.is_none(), "tenant {number}");
        }
        let warm = [upstream.reuse(tenant(0).as_ref()).await.unwrap(), upstream.reuse(tenant(1).as_ref()).await.unwrap()];
        for mut connection in warm.into_iter().chain(begun) {
            let answer = pin!(connection.ask(Request::new(RequestBody::empty())));
            let answer = connection.drive(answer).await;
            let tenant = &connection.tenant;
            assert!(answer.is_err_and(|mut refused| refused.take_message().is_some()), "{tenant:?}: it must not be sent");
        }
    });
}

#[test]
fn what_is_not_over_is_not_kept() {
    for (answer, is_kept) in [
        ("HTTP/1.1 204 No Content\r\n\r\n", true),
        ("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", false),
        ("HTTP/1.0 204 No Content\r\n\r\n", false),
        // In one write, and so in one read.
        ("HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\n", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\n\r\n", false),
    ] {
        run(async {
            let (origin, address) = Origin::bind().await;
            let upstream = Rc::new(Upstream::new(address, Duration::from_secs(20)));
            let mut connection = upstream.connect_http1(tenant(0)).await.unwrap();
            let mut workload = origin.accept().await;
            let asked = pin!(connection.ask(Request::new(RequestBody::empty())));
            let (response, ()) = tokio::join!(connection.drive(asked), async {
                workload.head().await;
                workload.send(answer).await;
            });
            assert!(response.is_ok(), "{answer}");
            Lease::new(upstream.clone(), connection).give_back();
            assert_eq!(upstream.reuse(tenant(0).as_ref()).await.is_some(), is_kept, "{answer}");
        });
    }
}

#[test]
fn what_a_task_drives_ends_when_it_is_given_back() {
    for warm in [0, MAX_WARM_UPSTREAM] {
        run(async {
            let (origin, address) = Origin::bind().await;
            let upstream = Rc::new(Upstream::new(address, Duration::from_secs(20)));
            let _warm = each_asked_once(0..warm, &origin, &upstream).await;
            let mut connection = upstream.connect_http1(tenant(warm)).await.unwrap();
            let mut workload = origin.accept().await;
            let answer = pin!(connection.ask(Request::new(RequestBody::empty())));
            connection.spawn();
            let (response, ()) = tokio::join!(connection.drive(answer), async {
                workload.head().await;
                workload.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok").await;
            });
            let Ok(_under_way) = response else { panic!("no answer") };
            Lease::new(upstream.clone(), connection).give_back();
            assert_eq!(workload.rest().await, "", "{warm} warm");
        });
    }
}
