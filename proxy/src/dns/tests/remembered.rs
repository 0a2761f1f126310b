//! What is remembered, for how long, and of whom.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RecordType,
};
use ringfence_policy::tenant::DEFAULT_SERVE_STALE;
use ringfence_policy::{
    host::HostName,
    tenant::{DnsTransport, DnsUpstream},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
    task::yield_now,
};

use super::peers::*;
use crate::{
    bindings::GRACE,
    dns::{
        answer::Transport,
        limits::{MAX_ASKING, STALE_QUIET},
    },
};

impl Rig {
    async fn at(&self, text: &str, now: Instant) -> String {
        let packet = query(text, RecordType::A).to_vec().unwrap();
        told(&Message::from_vec(&self.send(&packet, Transport::Udp, now).await).unwrap())
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn ttls_count_down_until_the_upstream_is_asked_again() {
    run(async {
        let stub = Stub::start(|asked| match asked.name().as_str() {
            "gone." => asked.rcode(ResponseCode::NXDomain, vec![soa(".", 30)]),
            "unproven." => asked.rcode(ResponseCode::NXDomain, vec![]),
            _ => asked.answer(vec![cname("q.", 300, "r."), a("r.", 60, 1), a("r.", 90, 2)]),
        });
        let rig = Rig::new(vec![stub.upstream()]);
        let before = Instant::now();
        rig.at("q.", before).await;
        let after = Instant::now();
        for (seconds, alias, first, second) in [(0, 300, 60, 90), (10, 290, 50, 80), (59, 241, 1, 31)] {
            let expected = format!("NoError; q. {alias} CNAME r.; r. {first} A 192.0.2.1; r. {second} A 192.0.2.2");
            assert_eq!(rig.at("q.", after + SECOND * seconds).await, expected);
        }
        assert_eq!(stub.asked.get(), 1);
        rig.at("q.", Instant::now() + SECOND * 61).await;
        assert_eq!(stub.asked.get(), 2);

        rig.at("gone.", before).await;
        assert_eq!(rig.at("gone.", Instant::now() + SECOND * 20).await, "NXDomain; ! . 10 SOA …");
        assert_eq!(stub.asked.get(), 3);
        rig.at("unproven.", before).await;
        rig.at("unproven.", before).await;
        assert_eq!(stub.asked.get(), 5, "without an SOA it must not be remembered");
    });
}

#[test]
fn a_changed_policy_is_in_force_for_the_next_query() {
    run(async {
        let (first, second) =
            (Stub::start(|asked| asked.answer(vec![a("q.", 60, 1)])), Stub::start(|asked| asked.answer(vec![a("q.", 60, 2)])));
        let rig = Rig::new(vec![first.upstream()]);
        for (upstream, expected) in [(&first, "192.0.2.1"), (&first, "192.0.2.1"), (&second, "192.0.2.2"), (&first, "192.0.2.1")] {
            rig.push(Some(vec![upstream.upstream()]));
            assert_eq!(told(&rig.look_up("q.", RecordType::A).await), format!("NoError; q. 60 A {expected}"));
        }
        // A push that leaves DNS as it is forgets nothing.
        assert_eq!((first.asked.get(), second.asked.get()), (2, 1));
    });
}

#[test]
fn one_question_is_asked_once_however_many_wait() {
    run(async {
        let go = Rc::new(Notify::new());
        let (stub, held) = held(go.clone());
        let rig = Rig::new(vec![stub]);
        let waiting: Vec<_> = (0..100)
            .map(|i| {
                let rig = rig.clone();
                let spelled = if i % 2 == 0 { "q." } else { "Q." };
                tokio::task::spawn_local(async move { told(&rig.look_up(spelled, RecordType::A).await) })
            })
            .collect();
        while held.get() == 0 {
            yield_now().await;
        }
        go.notify_waiters();
        for answer in waiting {
            assert!(answer.await.unwrap().ends_with(". 60 A 192.0.2.1"));
        }
        assert_eq!(held.get(), 1);
    });
}

/// An upstream over TCP that answers once `go` says so; how often it was asked.
fn held(go: Rc<Notify>) -> (DnsUpstream, Rc<Cell<usize>>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Rc::new(Cell::new(0));
    let count = asked.clone();
    tokio::task::spawn_local(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        while let Ok(length) = stream.read_u16().await {
            let mut packet = vec![0; length.into()];
            stream.read_exact(&mut packet).await.unwrap();
            let gone = go.notified();
            count.update(|count| count + 1);
            gone.await;
            let query = Message::from_vec(&packet).unwrap();
            let owner = query.queries[0].name.to_string();
            let answer = reply(&query, ResponseCode::NoError, vec![a(&owner, 60, 1)]).to_vec().unwrap();
            stream.write_u16(answer.len() as u16).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    });
    (DnsUpstream { transport: DnsTransport::Tcp, address }, asked)
}

#[test]
fn a_flood_of_names_that_nobody_answers_is_bounded() {
    run_paused(async {
        let silent = Stub::start(|_| None);
        let rig = Rig::new(vec![silent.upstream()]);
        let waiting: Vec<_> = (0..MAX_ASKING + 100)
            .map(|i| {
                let rig = rig.clone();
                tokio::task::spawn_local(async move { told(&rig.look_up(&format!("n{i}."), RecordType::A).await) })
            })
            .collect();
        let mut outcomes = std::collections::HashMap::<String, usize>::new();
        for answer in waiting {
            *outcomes.entry(answer.await.unwrap()).or_default() += 1;
        }
        assert_eq!(outcomes, [("ServFail; EDE 22".to_owned(), MAX_ASKING), ("ServFail; EDE 0".to_owned(), 100)].into());
        // All places are free again.
        rig.push(Some(vec![Stub::start(|asked| asked.answer(vec![a("q.", 60, 1)])).upstream()]));
        assert_eq!(told(&rig.look_up("q.", RecordType::A).await), "NoError; q. 60 A 192.0.2.1");
    });
}

#[test]
fn what_expired_stands_in_for_upstreams_that_fail() {
    run(async {
        let broken = Rc::new(Cell::new(false));
        let is_broken = broken.clone();
        let stub = Stub::start(move |asked| match (is_broken.get(), asked.name().as_str()) {
            (true, _) => asked.rcode(ResponseCode::ServFail, vec![]),
            (_, "gone.") => asked.rcode(ResponseCode::NXDomain, vec![soa(".", 60)]),
            _ => asked.answer(vec![a("q.", 60, 1)]),
        });
        let rig = Rig::new(vec![stub.upstream()]);
        assert_eq!(rig.at("q.", Instant::now()).await, "NoError; q. 60 A 192.0.2.1");
        rig.at("gone.", Instant::now()).await;
        let begun = Instant::now();
        broken.set(true);
        let later = Instant::now() + SECOND * 61;
        assert_eq!(rig.at("q.", later).await, "NoError; q. 30 A 192.0.2.1; EDE 3");
        assert_eq!(rig.at("gone.", later).await, "NXDomain; ! . 30 SOA …; EDE 19");
        let asked = stub.asked.get();
        assert_eq!(rig.at("q.", begun + SECOND * 5).await, "NoError; q. 55 A 192.0.2.1", "fresh at that time");
        // The failure was noticed just now: nobody is asked again before the quiet time is over, whatever has expired.
        assert_eq!(rig.at("q.", Instant::now() + SECOND * 61 + STALE_QUIET).await, "NoError; q. 30 A 192.0.2.1; EDE 3");
        assert_eq!(stub.asked.get(), asked + 1);
        assert_eq!(rig.at("q.", begun + DEFAULT_SERVE_STALE + SECOND * 61).await, "ServFail; EDE 22", "too old");
        broken.set(false);
        assert_eq!(rig.at("q.", begun + DEFAULT_SERVE_STALE + SECOND * 65).await, "NoError; q. 60 A 192.0.2.1");
    });
}

#[test]
fn policy_says_for_how_long_an_answer_may_stand_in() {
    run(async {
        let broken = Rc::new(Cell::new(false));
        let is_broken = broken.clone();
        let stub = Stub::start(move |asked| match is_broken.get() {
            false => asked.answer(vec![a("q.", 60, 1)]),
            true => asked.rcode(ResponseCode::ServFail, vec![]),
        });
        let rig = Rig::new(vec![stub.upstream()]);
        rig.at("q.", Instant::now()).await;
        broken.set(true);
        let later = Instant::now() + SECOND * 61;
        for (seconds, expected) in [(0, "ServFail; EDE 22"), (1, "ServFail; EDE 22"), (10, "NoError; q. 30 A 192.0.2.1; EDE 3")] {
            // What is remembered stays so over a change.
            rig.serve_stale(SECOND * seconds);
            assert_eq!(rig.at("q.", later).await, expected, "{seconds} s");
            if seconds < 10 {
                broken.set(false);
                rig.at("other.", later).await;
                broken.set(true);
            }
        }
    });
}

#[test]
fn a_failure_is_not_asked_for_again_at_once() {
    run(async {
        let stub = Stub::start(|asked| asked.rcode(ResponseCode::ServFail, vec![]));
        let rig = Rig::new(vec![stub.upstream()]);
        for (later, asked) in [(0, 1), (0, 1), (3, 2)] {
            assert_eq!(rig.at("q.", Instant::now() + SECOND * later).await, "ServFail; EDE 22");
            assert_eq!(stub.asked.get(), asked);
        }
    });
}

#[test]
fn a_popular_answer_is_fetched_before_it_expires() {
    run(async {
        let stub = Stub::start(|asked| asked.answer(vec![a("q.", 100, asked.count as u8)]));
        let rig = Rig::new(vec![stub.upstream()]);
        rig.at("q.", Instant::now()).await;
        let begun = Instant::now();
        for _ in 0..5 {
            assert_eq!(rig.at("q.", begun + SECOND * 50).await, "NoError; q. 50 A 192.0.2.1");
        }
        let old = rig.at("q.", begun + SECOND * 95).await;
        assert!(old.ends_with("A 192.0.2.1"), "nobody waits for the new one: {old}");
        loop {
            // The test's time limit is the limit of this.
            yield_now().await;
            let told = rig.at("q.", begun + SECOND).await;
            if told.ends_with("A 192.0.2.2") {
                break;
            }
        }
        assert_eq!(stub.asked.get(), 2);
    });
}

#[test]
fn the_egress_decision_knows_what_the_workload_was_told() {
    run(async {
        let stub = Stub::start(|asked| match asked.query.queries[0].query_type {
            RecordType::AAAA => asked.answer(vec![aaaa("cdn.other.", 60, 1), cname("www.example.", 60, "cdn.other.")]),
            _ => asked.answer(vec![a("cdn.other.", 60, 1), a("evil.", 60, 9), cname("www.example.", 60, "cdn.other.")]),
        });
        let rig = Rig::new(vec![stub.upstream()]);
        let host = |text: &str| text.parse::<HostName>().unwrap();
        rig.look_up("WWW.example.", RecordType::A).await;
        rig.look_up("www.example.", RecordType::AAAA).await;
        let now = Instant::now();
        for (host_asked, address, at, expected) in [
            ("www.example", "192.0.2.1", now, true),
            ("www.example", "2001:db8::1", now, true),
            // The workload asked for the one name and not for the other.
            ("cdn.other", "192.0.2.1", now, false),
            ("www.example", "192.0.2.9", now, false),
            ("www.example", "192.0.2.1", now + SECOND * 61 + GRACE, false),
        ] {
            assert_eq!(rig.shared.bindings.holds(&host(host_asked), address.parse().unwrap(), at), expected, "{host_asked} {address}");
        }
        assert_eq!(rig.shared.bindings.lookup("192.0.2.1".parse().unwrap(), now), [host("www.example")]);
    });
}
