//! What a workload is answered, by what its upstreams say.

use hickory_proto::{
    op::{Edns, Message, OpCode, ResponseCode},
    rr::{
        RData, Record, RecordType,
        rdata::{NULL, TXT, opt::EdnsOption},
    },
};

use ringfence_policy::tenant::{DnsTransport, DnsUpstream};

use super::peers::*;
use crate::dns::{answer::Transport, ede};

/// An upstream of one zone.
fn zone(asked: &Asked<'_>) -> Option<Vec<u8>> {
    let qtype = asked.query.queries[0].query_type;
    match (asked.name().as_str(), qtype) {
        ("www.example.", RecordType::A) => asked.answer(vec![
            a("evil.example.", 60, 66),
            a("cdn.example.", 300, 1),
            cname("www.example.", 60, "cdn.example."),
            a("cdn.example.", 300, 2),
        ]),
        ("www.example.", RecordType::ANY) => asked.answer(vec![a("www.example.", 60, 1), aaaa("www.example.", 60, 1)]),
        ("www.example.", RecordType::AAAA) => asked.answer(vec![cname("www.example.", 60, "cdn.example."), soa("example.", 30)]),
        // Stops where another zone begins.
        ("far.example.", _) => asked.answer(vec![cname("far.example.", 60, "host.other.")]),
        ("host.other.", RecordType::A) => asked.answer(vec![a("host.other.", 20, 7)]),
        ("gone.example.", _) => asked.rcode(ResponseCode::NXDomain, vec![soa("example.", 30)]),
        ("odd.example.", _) => {
            let data = RData::Unknown { code: qtype, rdata: NULL::with(b"\x00\xff odd".to_vec()) };
            asked.answer(vec![Record::from_rdata(name("odd.example."), 9, data)])
        }
        ("loop.example.", _) => asked
            .answer((0..100).map(|i| cname(&format!("{}loop.example.", link(i)), 60, &format!("{}loop.example.", link(i + 1)))).collect()),
        ("blocked.example.", _) => {
            let mut message = reply(asked.query, ResponseCode::NXDomain, vec![soa("example.", 30)]);
            let mut edns = Edns::new();
            edns.options_mut().insert(EdnsOption::Unknown(ede::OPTION, b"\0\x0fby the upstream".to_vec()));
            message.set_edns(edns);
            Some(message.to_vec().unwrap())
        }
        ("refused.example.", _) => asked.rcode(ResponseCode::Refused, vec![]),
        ("fails.example.", _) => asked.rcode(ResponseCode::ServFail, vec![]),
        // Its records are cut short.
        ("torn.example.", _) => asked.answer(vec![a("torn.example.", 60, 1)]).map(|mut answer| {
            answer.truncate(answer.len() - 20);
            answer
        }),
        ("big.example.", _) if asked.transport == Transport::Tcp => asked.answer((0..200).map(|i| a("big.example.", 60, i)).collect()),
        ("big.example.", _) => {
            let mut message = reply(asked.query, ResponseCode::NoError, vec![]);
            message.metadata.truncation = true;
            Some(message.to_vec().unwrap())
        }
        (other, _) => panic!("{other} must not be asked"),
    }
}

fn link(i: usize) -> String {
    if i == 0 { String::new() } else { format!("l{i}.") }
}

/// Neither resolv.conf(5) nor hosts(5) of the machine, which a pod's containers may write: not even for the sidecar's own questions.
#[test]
fn the_bootstraps_resolvers_stand_in_for_the_hosts() {
    run(async {
        let server = Stub::start(|asked| match asked.query.queries[0].query_type {
            RecordType::A => asked.answer(vec![a(&asked.name(), 60, 1)]),
            _ => asked.answer(vec![]),
        });
        let rig = Rig::new(Vec::new()).resolving_by(&[server.upstream().address]);
        assert_eq!(told(&rig.look_up("www.example.", RecordType::A).await), "NoError; www.example. 60 A 192.0.2.1");
        let snapshot = rig.shared.current.pin().unwrap();
        let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        let written = hosts.lines().filter(|line| !line.starts_with('#')).flat_map(|line| line.split_whitespace().skip(1));
        for name in written.filter(|name| !name.contains("localhost")).chain(["www.example"]) {
            let Ok(name) = name.parse() else { continue };
            let found = rig.dns.addresses(&name, &snapshot).await.unwrap();
            assert_eq!(found, ["192.0.2.1".parse::<std::net::IpAddr>().unwrap()], "{name}");
        }
    });
}

#[test]
fn a_workload_is_told_what_its_upstreams_know_and_nothing_they_made_up() {
    run(async {
        let stub = Stub::start(zone);
        let rig = Rig::new(vec![stub.upstream()]);
        use RecordType as T;
        for (asked, qtype, expected) in [
            (
                "www.example.",
                T::A,
                "NoError; www.example. 60 CNAME cdn.example.; cdn.example. 300 A 192.0.2.1; cdn.example. 300 A 192.0.2.2",
            ),
            ("www.example.", T::AAAA, "NoError; www.example. 60 CNAME cdn.example.; ! example. 30 SOA …"),
            ("far.example.", T::A, "NoError; far.example. 60 CNAME host.other.; host.other. 20 A 192.0.2.7"),
            ("gone.example.", T::A, "NXDomain; ! example. 30 SOA …"),
            ("odd.example.", T::from(65400), "NoError; odd.example. 9 Unknown [0, 255, 32, 111, 100, 100]"),
            ("blocked.example.", T::A, "NXDomain; ! example. 30 SOA …; EDE 15"),
            ("loop.example.", T::A, "ServFail; EDE 23"),
            ("refused.example.", T::A, "ServFail; EDE 22"),
            ("fails.example.", T::A, "ServFail; EDE 22"),
            ("torn.example.", T::A, "ServFail; EDE 23"),
            // Never asked of the upstreams.
            ("localhost.", T::A, "NoError; localhost. 3600 A 127.0.0.1"),
            ("app.LOCALHOST.", T::AAAA, "NoError; app.LOCALHOST. 3600 AAAA ::1"),
            ("localhost.", T::TXT, "NoError; ! localhost. 3600 SOA …"),
            ("x.invalid.", T::A, "NXDomain; ! invalid. 3600 SOA …"),
            ("x.onion.", T::A, "NXDomain; ! onion. 3600 SOA …"),
            ("_dns.resolver.arpa.", T::SVCB, "NoError; ! resolver.arpa. 3600 SOA …"),
            ("www.example.", T::ANY, "NoError; www.example. 60 A 192.0.2.1; www.example. 60 AAAA 2001:db8::1"),
            ("www.example.", T::AXFR, "Refused; EDE 21"),
        ] {
            assert_eq!(told(&rig.look_up(asked, qtype).await), expected, "{asked} {qtype}");
        }
    });
}

#[test]
fn an_answer_repeats_the_question_as_it_was_spelled_and_its_flags() {
    run(async {
        let stub = Stub::start(zone);
        let rig = Rig::new(vec![stub.upstream()]);
        for spelled in ["www.example.", "wWw.eXAMPLE.", "WWW.EXAMPLE."] {
            let mut asked = query(spelled, RecordType::A);
            asked.metadata.checking_disabled = false;
            let answer = rig.ask(&asked).await;
            assert_eq!(answer.metadata.id, asked.metadata.id);
            assert!(answer.queries[0].name.eq_case(&asked.queries[0].name), "{}", answer.queries[0].name);
            assert!(answer.answers[0].name.eq_case(&asked.queries[0].name), "{}", answer.answers[0].name);
            let flags = &answer.metadata;
            assert!(flags.recursion_available && flags.recursion_desired && !flags.authoritative && !flags.truncation);
            assert_eq!(answer.edns.as_ref().map(|edns| (edns.version(), edns.max_payload())), Some((0, 1232)));
        }
        assert_eq!(stub.asked.get(), 1, "one question, however it is spelled");
        let mut plain = query("www.example.", RecordType::A);
        plain.edns = None;
        assert!(rig.ask(&plain).await.edns.is_none(), "EDNS is for those who speak it");
    });
}

#[test]
fn what_does_not_fit_is_cut_and_comes_whole_over_tcp() {
    run(async {
        let stub = Stub::start(zone);
        let rig = Rig::new(vec![stub.upstream()]);
        let asked = query("big.example.", RecordType::A);
        for payload in [None, Some(512), Some(1232), Some(65535)] {
            let mut asked = asked.clone();
            asked.edns = payload.map(|payload| {
                let mut edns = Edns::new();
                edns.set_max_payload(payload);
                edns
            });
            let answer = rig.send(&asked.to_vec().unwrap(), Transport::Udp, std::time::Instant::now()).await;
            assert!(answer.len() <= usize::from(payload.unwrap_or(512)), "{payload:?}");
            let answer = Message::from_vec(&answer).unwrap();
            assert_eq!((answer.metadata.truncation, answer.answers.len()), (true, 0), "{payload:?}");
            assert_eq!(answer.queries, asked.queries);
        }
        let answer = rig.send(&asked.to_vec().unwrap(), Transport::Tcp, std::time::Instant::now()).await;
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!((answer.metadata.truncation, answer.answers.len()), (false, 200));
        assert_eq!(stub.asked.get(), 2, "once over UDP, once over TCP, remembered for all");
    });
}

#[test]
fn packets_that_are_no_queries_are_answered_with_little_or_nothing() {
    run(async {
        let rig = Rig::new(vec![]);
        let send = |packet: Vec<u8>| {
            let rig = rig.clone();
            async move { rig.send(&packet, Transport::Udp, std::time::Instant::now()).await }
        };
        let mut response = query("www.example.", RecordType::A);
        response.metadata.message_type = hickory_proto::op::MessageType::Response;
        assert_eq!(send(response.to_vec().unwrap()).await, b"", "a response");
        assert_eq!(send(vec![1; 11]).await, b"", "less than a header");
        let mut update = query("www.example.", RecordType::A);
        update.metadata.op_code = OpCode::Notify;
        let answer = send(update.to_vec().unwrap()).await;
        assert_eq!((answer.len(), Message::from_vec(&answer).unwrap().metadata.response_code), (12, ResponseCode::NotImp));
        let mut newer = query("www.example.", RecordType::A);
        newer.edns.as_mut().unwrap().set_version(1);
        let answer = Message::from_vec(&send(newer.to_vec().unwrap()).await).unwrap();
        assert_eq!(answer.edns.map(|edns| (edns.version(), edns.rcode_high())), Some((0, 1)), "BADVERS");
        assert_eq!(told(&rig.look_up("www.example.", RecordType::AXFR).await), "Refused; EDE 21");
        rig.push(None);
        assert_eq!(told(&rig.look_up("www.example.", RecordType::A).await), "ServFail; EDE 14");
    });
}

#[test]
fn an_upstream_that_fails_is_passed_over() {
    run(async {
        let refuses = Stub::start(|asked| asked.rcode(ResponseCode::Refused, vec![]));
        let fails = Stub::start(|asked| asked.rcode(ResponseCode::ServFail, vec![]));
        let good = Stub::start(|asked| asked.answer(vec![a("q.", 60, 1)]));
        let rig = Rig::new([&refuses, &fails, &good].map(Stub::upstream).to_vec());
        assert_eq!(told(&rig.look_up("q.", RecordType::A).await), "NoError; q. 60 A 192.0.2.1");
        rig.push(Some(vec![refuses.upstream(), fails.upstream()]));
        assert_eq!(told(&rig.look_up("q.", RecordType::A).await), "ServFail; EDE 22");
        assert_eq!((refuses.asked.get(), fails.asked.get(), good.asked.get()), (2, 2, 1));
    });
}

#[test]
fn an_upstream_that_is_silent_is_waited_for_only_so_long() {
    run_paused(async {
        let silent = Stub::start(|_| None);
        let good = Stub::start(|asked| asked.answer(vec![a(&asked.name(), 60, 1)]));
        let rig = Rig::new(vec![silent.upstream(), good.upstream()]);
        assert_eq!(told(&rig.look_up("q.", RecordType::A).await), "NoError; q. 60 A 192.0.2.1");
        let asked = silent.asked.get();
        assert_eq!(told(&rig.look_up("r.", RecordType::A).await), "NoError; r. 60 A 192.0.2.1");
        assert_eq!(silent.asked.get(), asked, "it rests");
        rig.push(Some(vec![silent.upstream()]));
        assert_eq!(told(&rig.look_up("q.", RecordType::A).await), "ServFail; EDE 22");
        rig.push(Some(vec![nobody()]));
        assert!(told(&rig.look_up("q.", RecordType::A).await).starts_with("ServFail; EDE 2"));
    });
}

/// TCP to a port that nobody listens on.
fn nobody() -> DnsUpstream {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    DnsUpstream { transport: DnsTransport::Tcp, address: free }
}

/// Names come back in lower case: over UDP that may be a forgery, so it is asked over TCP, and from then on believed.
#[test]
fn an_upstream_that_respells_names_is_found_out_over_tcp() {
    run(async {
        let stub = Stub::start(|asked| {
            let mut message = reply(asked.query, ResponseCode::NoError, vec![a(&asked.name(), 60, 1)]);
            message.queries[0].name = message.queries[0].name.to_lowercase();
            Some(message.to_vec().unwrap())
        });
        let rig = Rig::new(vec![stub.upstream()]);
        // Long, lest chance spell it in lower case.
        let long = |i: u8| format!("{}.an-upstream-that-respells-names-in-lower-case.example.", (b'a' + i) as char);
        for (i, asked) in [(0, 2), (1, 3), (2, 4)] {
            assert_eq!(told(&rig.look_up(&long(i), RecordType::A).await), format!("NoError; {} 60 A 192.0.2.1", long(i)));
            assert_eq!(stub.asked.get(), asked);
        }
    });
}

#[test]
fn signatures_and_flags_go_through_for_those_who_ask() {
    run(async {
        let stub = Stub::start(|asked| {
            let dnssec_ok = asked.query.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
            let signature = RData::Unknown { code: RecordType::RRSIG, rdata: NULL::with(vec![7; 30]) };
            let mut records = vec![a("q.", 60, 1)];
            records.extend(dnssec_ok.then(|| Record::from_rdata(name("q."), 60, signature)));
            let text = format!("cd={}", asked.query.metadata.checking_disabled);
            let mut message = reply(asked.query, ResponseCode::NoError, records);
            message.metadata.authentic_data = true;
            message.add_additional(Record::from_rdata(name("q."), 60, RData::TXT(TXT::new(vec![text]))));
            Some(message.to_vec().unwrap())
        });
        let rig = Rig::new(vec![stub.upstream()]);
        for (dnssec_ok, authentic_data, records, authentic) in
            [(false, false, 1, false), (false, true, 1, true), (true, false, 2, true), (true, true, 2, true)]
        {
            let mut asked = query("q.", RecordType::A);
            asked.edns.as_mut().unwrap().set_dnssec_ok(dnssec_ok);
            asked.metadata.authentic_data = authentic_data;
            let answer = rig.ask(&asked).await;
            let seen = (answer.answers.len(), answer.metadata.authentic_data, answer.edns.unwrap().flags().dnssec_ok);
            assert_eq!(seen, (records, authentic, dnssec_ok));
            assert!(answer.additionals.is_empty(), "nobody asked for it");
        }
        assert_eq!(stub.asked.get(), 2);
    });
}
