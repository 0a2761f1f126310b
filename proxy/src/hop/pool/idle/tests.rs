use std::{
    ops::Range,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Wake, Waker},
    time::Duration,
};

use http::Request;
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::TcpStream,
};

use super::*;
use crate::hop::{
    Upstream,
    body::RequestBody,
    peers::{Origin, Peer, run},
    pool::Lease,
};

fn tenant(number: usize) -> Option<TenantId> {
    format!("tenant-{number}").parse().ok()
}

#[test]
fn who_holds_more_than_their_share_makes_room_and_else_the_oldest() {
    for (came, most, expected) in [
        (&[0][..], 4, 0),
        (&[0, 1, 2], 3, 0),
        (&[0, 1, 2], 2, 0),
        (&[0, 1, 1], 3, 1),
        (&[0, 1, 1, 1, 1], 5, 1),
        (&[0, 0, 0, 1], 4, 0),
        (&[0, 1, 2, 1], 4, 1),
        (&[0, 1, 1, 0], 4, 0),
    ] {
        let mut all = ByAge::default();
        for &number in came {
            all.put(tenant(number), number, Instant::now());
        }
        assert_eq!(all.most_expendable(most).map(|entry| entry.item), Some(expected), "{came:?}, {most}");
    }
}

#[test]
fn a_tenant_gets_its_last_one_that_is_fit() {
    let mut all = ByAge::default();
    for (number, item) in [(0, 'a'), (1, 'b'), (0, 'c'), (0, 'd')] {
        all.put(tenant(number), item, Instant::now());
    }
    assert_eq!(all.take(&tenant(0), |item| *item != 'd'), Some('c'));
    assert_eq!(all.take(&tenant(0), |_| true), Some('d'));
    assert_eq!(all.take(&None, |_| true), None);
    assert_eq!(all.take(&tenant(1), |_| false), None);
    all.drop_aged(Instant::now() + UPSTREAM_IDLE);
    assert!(all.entries.is_empty() && all.of.is_empty());
}

/// Asks once for each tenant, and yields the workload's ends.
async fn each_asked_once(tenants: Range<usize>, origin: &Origin, upstream: &Rc<Upstream>) -> Vec<Peer<TcpStream>> {
    let mut workloads = Vec::new();
    for number in tenants {
        let mut connection = upstream.connect_http1(tenant(number), false).await.unwrap();
        let answer = connection.sender.send_request(Request::new(RequestBody::empty()));
        let mut workload = origin.accept().await;
        let (answer, ()) = tokio::join!(answer, async {
            workload.head().await;
            workload.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        });
        answer.unwrap();
        connection.sender.ready().await.unwrap();
        Lease::new(upstream.clone(), connection, true).give_back();
        workloads.push(workload);
    }
    workloads
}

#[test]
fn a_bare_connection_serves_its_tenant_again_and_nobody_else() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let upstream = Rc::new(Upstream::new(address, Duration::from_secs(20)));
        let mut workloads = each_asked_once(0..MAX_WARM_UPSTREAM + 2, &origin, &upstream).await;
        assert_eq!((upstream.idle.borrow().warm.len(), upstream.idle.borrow().bare.len()), (MAX_WARM_UPSTREAM, 2));
        for number in [1, 0] {
            let mut connection = upstream.reuse(tenant(number).as_ref()).await.unwrap();
            let answer = connection.sender.send_request(Request::new(RequestBody::empty()));
            let workload = &mut workloads[number];
            let (answer, ()) = tokio::join!(answer, async {
                workload.head().await;
                workload.send("HTTP/1.1 204 No Content\r\n\r\n").await;
            });
            answer.unwrap();
        }
        assert!(upstream.reuse(tenant(0).as_ref()).await.is_none(), "it was not given back");
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
        let mut connection = Connected::new(TcpStream::connect(address).await.unwrap(), address, None);
        let _workload = origin.accept().await;
        let reader = Arc::new(Reader);
        {
            let waker = Waker::from(reader.clone());
            let read = Pin::new(&mut connection).poll_read(&mut Context::from_waker(&waker), &mut ReadBuf::new(&mut [0]));
            assert!(read.is_pending());
        }
        assert_eq!(Arc::strong_count(&reader), 2);
        connection.forget_reader();
        assert_eq!(Arc::strong_count(&reader), 1);
    });
}

#[test]
fn what_a_workload_says_unasked_on_a_bare_connection_answers_nobody() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let upstream = Rc::new(Upstream::new(address, Duration::from_secs(20)));
        let mut workloads = each_asked_once(0..MAX_WARM_UPSTREAM + 2, &origin, &upstream).await;
        // Until hyper has let go of both.
        each_asked_once(1000..1001, &origin, &upstream).await;
        drop(workloads.remove(0));
        workloads[0].send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        // Until the kernel has told of both.
        each_asked_once(1001..1002, &origin, &upstream).await;
        for number in [0, 1] {
            let mut connection = upstream.reuse(tenant(number).as_ref()).await.unwrap();
            let answer = connection.sender.try_send_request(Request::new(RequestBody::empty())).await;
            assert!(answer.is_err_and(|mut refused| refused.take_message().is_some()), "tenant {number}: it must not be sent");
        }
    });
}
