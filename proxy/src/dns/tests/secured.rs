//! Upstreams over TLS and HTTPS.

use std::time::Instant;

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RecordType,
};
use http::{Response, StatusCode};
use ringfence_policy::tenant::DnsUpstream;
use tokio::task::JoinSet;

use super::{peers::*, servers::*};
use crate::dns::{
    answer::Transport,
    limits::PADDING_BLOCK,
    resolve::{Question, Upstreams},
};

/// What `upstream` says to one question: an address, or why it is not asked.
async fn outcome(rig: &Rig, upstream: DnsUpstream) -> String {
    let question = Question { name: name("q.example."), qtype: RecordType::A, dnssec_ok: false, checking_disabled: false };
    rig.push(Some(vec![upstream.clone()]));
    let snapshot = rig.shared.current.pin().unwrap();
    let upstreams = Upstreams::new(snapshot.workload.dns.as_ref().unwrap(), &[], |_| false);
    match upstreams.ask(&question).await {
        Ok(message) => message.answers.iter().map(|record| format!("{} {}", record.ttl, record.data)).collect::<Vec<_>>().join(", "),
        Err(error) => error.to_string().replace(&upstream.to_string(), "UPSTREAM"),
    }
}

#[test]
fn an_upstream_that_cannot_prove_who_it_is_is_not_asked() {
    run(async {
        let rig = trusting(vec![]);
        let other_name = "not valid for name \"dns.example\"";
        for (fault, name, expected) in [
            (Fault::None, Some(NAME), "60 192.0.2.1"),
            (Fault::None, None, "60 192.0.2.1"),
            (Fault::OtherName, Some(NAME), other_name),
            (Fault::OtherName, None, "not valid for name \"127.0.0.1\""),
            (Fault::Expired, Some(NAME), "certificate expired"),
            (Fault::OtherAuthority, Some(NAME), "UnknownIssuer"),
            (Fault::OtherProtocol, Some(NAME), "NoApplicationProtocol"),
        ] {
            let asked = log();
            let (dot_asked, doh_asked) = (asked.clone(), asked.clone());
            let dot = Site::dot(fault, move |mut dot, _| {
                let asked = dot_asked.clone();
                async move {
                    while let Some(packet) = dot.query().await {
                        asked.borrow_mut().push(());
                        dot.answer(&one(&Message::from_vec(&packet).unwrap())).await;
                    }
                }
            })
            .await;
            let doh = Site::doh(fault, move |posted| {
                doh_asked.borrow_mut().push(());
                status(StatusCode::OK, &one(&posted.message()))
            })
            .await;
            for upstream in [dot.over_tls(name), doh.over_https(name)] {
                let told = outcome(&rig, upstream.clone()).await;
                assert!(told.contains(expected), "{upstream} {fault:?} {name:?}: {told}");
                assert!(told.starts_with("UPSTREAM: TLS: ") || fault == Fault::None, "{told}");
            }
            assert_eq!(asked.borrow().len(), if fault == Fault::None { 2 } else { 0 }, "{fault:?}");
        }
        let plain = Site::plain().await;
        for upstream in [plain.over_tls(Some(NAME)), plain.over_https(None)] {
            assert_eq!(outcome(&rig, upstream).await, "UPSTREAM: does not speak TLS");
        }
    });
}

/// The tests' authority is no public one.
#[test]
fn without_an_authority_of_the_operators_the_public_ones_are_trusted() {
    run(async {
        let rig = Rig::new(vec![]);
        let dot = Site::dot(Fault::None, |dot, _| serve_one(dot)).await;
        let told = outcome(&rig, dot.over_tls(Some(NAME))).await;
        assert!(told.contains("UnknownIssuer"), "{told}");
    });
}

#[test]
fn an_answer_over_https_that_is_none_is_told_apart() {
    run(async {
        let rig = trusting(vec![]);
        type Script = fn(&Posted) -> Response<http_body_util::Full<bytes::Bytes>>;
        let scripts: [(Script, &str); 13] = [
            (|posted| status(StatusCode::OK, &one(&posted.message())), "60 192.0.2.1"),
            (|posted| with(posted, "content-type", "Application/DNS-message; charset=x"), "60 192.0.2.1"),
            (|posted| with(posted, "age", "50"), "10 192.0.2.1"),
            (|posted| with(posted, "age", "61"), "0 192.0.2.1"),
            (|posted| with(posted, "age", "99999999999999"), "0 192.0.2.1"),
            (|posted| with(posted, "set-cookie", "a=b"), "60 192.0.2.1"),
            (|posted| with(posted, "content-type", "text/html"), "UPSTREAM: answers with something else than application/dns-message"),
            (|posted| status(StatusCode::INTERNAL_SERVER_ERROR, &one(&posted.message())), "UPSTREAM: answers 500 Internal Server Error"),
            (
                |posted| status(StatusCode::FOUND, &one(&posted.message())),
                "UPSTREAM: answers 302 Found, and no redirect is followed: write where it leads",
            ),
            (|_| posted(vec![0; 65536]), "UPSTREAM: answers with what cannot be read: length limit exceeded"),
            (|_| posted(vec![0; 5]), "UPSTREAM: answers with no DNS message: "),
            (
                |posted| {
                    let mut message = one(&posted.message());
                    message.metadata.id = 7;
                    status(StatusCode::OK, &message)
                },
                "UPSTREAM: answers with an id that was not asked with",
            ),
            (
                |posted| {
                    let mut message = one(&posted.message());
                    message.metadata.response_code = ResponseCode::ServFail;
                    status(StatusCode::OK, &message)
                },
                "the upstreams answered Server Failure",
            ),
        ];
        for (script, expected) in scripts {
            let doh = Site::doh(Fault::None, script).await;
            let told = outcome(&rig, doh.over_https(Some(NAME))).await;
            assert!(told.starts_with(expected), "{told}, not {expected}");
        }
    });
}

fn with(asked: &Posted, header: &'static str, value: &'static str) -> Response<http_body_util::Full<bytes::Bytes>> {
    let mut response = status(StatusCode::OK, &one(&asked.message()));
    response.headers_mut().insert(header, value.parse().unwrap());
    response
}

#[test]
fn an_answer_over_tls_that_is_none_is_told_apart() {
    run(async {
        type Answer = fn(&Message) -> Vec<u8>;
        let framed = |packet: Vec<u8>| [&(packet.len() as u16).to_be_bytes()[..], &packet].concat();
        let answers: [(Answer, &str); 4] = [
            (|query| one(query).to_vec().unwrap(), "NoError; q. 60 A 192.0.2.1"),
            // Of another question: the answer is of no use.
            (
                |query| {
                    let mut message = one(query);
                    message.queries[0].name = name("other.");
                    message.to_vec().unwrap()
                },
                "ServFail; EDE 23",
            ),
            (
                |query| {
                    let mut message = one(query);
                    message.metadata.truncation = true;
                    message.to_vec().unwrap()
                },
                "ServFail; EDE 23",
            ),
            (|query| reply(query, ResponseCode::Refused, vec![]).to_vec().unwrap(), "ServFail; EDE 22"),
        ];
        for (answer, expected) in answers {
            let dot = Site::dot(Fault::None, move |mut dot, _| async move {
                while let Some(packet) = dot.query().await {
                    dot.write(&framed(answer(&Message::from_vec(&packet).unwrap()))).await;
                }
            })
            .await;
            let rig = trusting(vec![dot.over_tls(Some(NAME))]);
            assert_eq!(told(&rig.look_up("q.", RecordType::A).await), expected);
        }
        // Closes within an answer: asked no more than once, for the connection was new.
        let torn = Site::dot(Fault::None, |mut dot, _| async move {
            dot.query().await;
            dot.write(&[0, 200, 1, 2, 3]).await;
        })
        .await;
        let rig = trusting(vec![torn.over_tls(None)]);
        assert_eq!(told(&rig.look_up("q.", RecordType::A).await), "ServFail; EDE 23");
        assert_eq!(torn.connections.get(), 1);
    });
}

/// Each of two answers comes under the id of the other's question, and one comes under an id that nobody asked with.
#[test]
fn answers_that_are_swapped_are_not_taken() {
    run(async {
        let dot = Site::dot(Fault::None, |mut dot, _| async move {
            let (first, second) = (dot.query().await.unwrap(), dot.query().await.unwrap());
            let [first, second] = [first, second].map(|packet| one(&Message::from_vec(&packet).unwrap()));
            let ids = [first.metadata.id, second.metadata.id];
            let stranger = (0..).find(|id| !ids.contains(id)).unwrap();
            for (mut message, id) in [(first.clone(), stranger), (first, ids[1]), (second, ids[0])] {
                message.metadata.id = id;
                dot.answer(&message).await;
            }
            dot.query().await;
        })
        .await;
        let rig = trusting(vec![dot.over_tls(Some(NAME))]);
        let (a, b) = tokio::join!(rig.look_up("a.", RecordType::A), rig.look_up("b.", RecordType::A));
        assert_eq!([told(&a), told(&b)], ["ServFail; EDE 23", "ServFail; EDE 23"]);
    });
}

#[test]
fn a_hundred_questions_share_a_connection_and_overtake_each_other() {
    const QUESTIONS: usize = 100;
    run(async {
        let dot = Site::dot(Fault::None, |mut dot, _| async move {
            let mut packets = Vec::new();
            while packets.len() < QUESTIONS {
                packets.push(dot.query().await.unwrap());
            }
            for packet in packets.iter().rev() {
                dot.answer(&one(&Message::from_vec(packet).unwrap())).await;
            }
            dot.query().await;
        })
        .await;
        let doh = Site::doh(Fault::None, |posted| status(StatusCode::OK, &one(&posted.message()))).await;
        for (upstream, site) in [(dot.over_tls(Some(NAME)), &dot), (doh.over_https(Some(NAME)), &doh)] {
            let rig = trusting(vec![upstream]);
            let mut asking = JoinSet::new();
            for i in 0..QUESTIONS {
                let rig = rig.clone();
                asking.spawn_local(async move { (i, told(&rig.look_up(&format!("n{i}.",), RecordType::A).await)) });
            }
            while let Some(ended) = asking.join_next().await {
                let (i, told) = ended.unwrap();
                assert_eq!(told, format!("NoError; n{i}. 60 A 192.0.2.1"));
            }
            assert_eq!(site.connections.get(), 1);
        }
    });
}

/// What goes over the wire: ALPN is checked by the servers, SNI, padding, id and head here.
#[test]
fn a_question_tells_no_more_than_it_must() {
    run(async {
        let seen = log();
        let (dot_seen, doh_seen) = (seen.clone(), seen.clone());
        let dot = Site::dot(Fault::None, move |mut dot, _| {
            let seen = dot_seen.clone();
            async move {
                let sni = dot.name();
                while let Some(packet) = dot.query().await {
                    seen.borrow_mut().push((packet.len(), sni.clone()));
                    dot.answer(&one(&Message::from_vec(&packet).unwrap())).await;
                }
            }
        })
        .await;
        let port = std::rc::Rc::new(std::cell::Cell::new(0));
        let own_port = port.clone();
        let doh = Site::doh(Fault::None, move |posted| {
            doh_seen.borrow_mut().push((posted.body.len(), None));
            let message = posted.message();
            let mut fields: Vec<&str> = posted.headers.keys().map(http::HeaderName::as_str).collect();
            fields.sort_unstable();
            assert_eq!(posted.method, "POST");
            assert_eq!(posted.uri, format!("https://{NAME}:{}/dns-query", own_port.get()));
            assert_eq!(fields, ["accept", "content-length", "content-type"]);
            assert_eq!(message.metadata.id, 0);
            status(StatusCode::OK, &one(&message))
        })
        .await;
        port.set(doh.address.port());
        for upstream in [dot.over_tls(Some(NAME)), dot.over_tls(None), doh.over_https(Some(NAME))] {
            let rig = trusting(vec![upstream]);
            for asked in ["a.", "a-name.that-is-quite-a-bit-longer.than-the-others-are.and-then-some-more.example.", "x.y.z."] {
                assert_eq!(told(&rig.look_up(asked, RecordType::A).await), format!("NoError; {asked} 60 A 192.0.2.1"));
            }
        }
        let seen = seen.borrow();
        assert_eq!(seen.len(), 9);
        assert!(seen.iter().all(|(length, _)| length % PADDING_BLOCK == 0), "{seen:?}");
        assert_eq!(seen.iter().filter(|(_, sni)| sni.as_deref() == Some(NAME)).count(), 3);
    });
}

#[test]
fn a_connection_that_the_other_end_has_closed_is_opened_again_and_its_session_resumed() {
    run(async {
        let resumed = log();
        let log = resumed.clone();
        // One question each, then closed.
        let dot = Site::dot(Fault::None, move |mut dot, _| {
            log.borrow_mut().push(dot.resumed());
            async move {
                let packet = dot.query().await.unwrap();
                dot.answer(&one(&Message::from_vec(&packet).unwrap())).await;
            }
        })
        .await;
        let rig = trusting(vec![dot.over_tls(Some(NAME))]);
        for asked in ["a.", "b.", "c."] {
            assert_eq!(told(&rig.look_up(asked, RecordType::A).await), format!("NoError; {asked} 60 A 192.0.2.1"));
        }
        assert_eq!(*resumed.borrow(), [false, true, true]);
    });
}

#[test]
fn where_one_upstream_is_of_no_use_the_next_is_asked_over_tls_too() {
    run(async {
        let bad = Site::dot(Fault::Expired, |dot, _| serve_one(dot)).await;
        let failing = Site::doh(Fault::None, |posted| status(StatusCode::BAD_GATEWAY, &one(&posted.message()))).await;
        let good = Site::dot(Fault::None, |dot, _| serve_one(dot)).await;
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let nobody = DnsUpstream { address: closed, ..good.over_tls(Some(NAME)) };
        let rig = trusting(vec![nobody, bad.over_tls(Some(NAME)), failing.over_https(Some(NAME)), good.over_tls(Some(NAME))]);
        assert_eq!(told(&rig.look_up("a.", RecordType::A).await), "NoError; a. 60 A 192.0.2.1");
        assert_eq!(told(&rig.look_up("b.", RecordType::A).await), "NoError; b. 60 A 192.0.2.1");
        assert_eq!((bad.connections.get(), failing.connections.get(), good.connections.get()), (1, 1, 1), "they rest");
    });
}

/// Nothing of the sidecar's own goes another way: there is no other upstream to be asked, and the answer is remembered for the workload.
#[test]
fn the_sidecars_own_lookups_go_the_same_way() {
    run(async {
        let doh = Site::doh(Fault::None, |posted| status(StatusCode::OK, &one(&posted.message()))).await;
        let asked = log();
        let log = asked.clone();
        let dot = Site::dot(Fault::None, move |mut dot, _| {
            let log = log.clone();
            async move {
                while let Some(packet) = dot.query().await {
                    let query = Message::from_vec(&packet).unwrap();
                    let (owner, qtype) = (query.queries[0].name.to_string(), query.queries[0].query_type);
                    log.borrow_mut().push(qtype);
                    let record = if qtype == RecordType::A { a(&owner, 60, 1) } else { aaaa(&owner, 60, 1) };
                    dot.answer(&reply(&query, ResponseCode::NoError, vec![record])).await;
                }
            }
        })
        .await;
        for (upstream, expected) in
            [(doh.over_https(Some(NAME)), &["192.0.2.1"][..]), (dot.over_tls(Some(NAME)), &["192.0.2.1", "2001:db8::1"])]
        {
            let rig = trusting(vec![upstream]);
            let snapshot = rig.shared.current.pin().unwrap();
            let found = rig.dns.addresses(&"host.example".parse().unwrap(), &snapshot).await.unwrap();
            assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
            let before = asked.borrow().len();
            let answer = rig.send(&query("host.example.", RecordType::A).to_vec().unwrap(), Transport::Udp, Instant::now()).await;
            assert_eq!(told(&Message::from_vec(&answer).unwrap()), "NoError; host.example. 60 A 192.0.2.1");
            assert_eq!(asked.borrow().len(), before, "known already");
        }
    });
}

/// A closed UDP port is known at once, by ICMP.
#[test]
fn an_upstream_with_a_closed_port_is_passed_over_at_once() {
    run(async {
        let good = Stub::start(|asked| asked.answer(vec![a(&asked.name(), 60, 1)]));
        let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let nobody = DnsUpstream { address: closed, ..good.upstream() };
        let rig = Rig::new(vec![]);
        let told = outcome(&rig, nobody.clone()).await;
        assert!(told.starts_with("UPSTREAM: ") && told.contains("refused"), "{told}");
        let rig = Rig::new(vec![nobody, good.upstream()]);
        assert_eq!(super::peers::told(&rig.look_up("a.", RecordType::A).await), "NoError; a. 60 A 192.0.2.1");
    });
}
