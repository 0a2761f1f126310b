use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query as Question},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, MX, NULL, SOA, TXT},
    },
};
use proptest::prelude::*;

use super::*;

fn query(text: &str, edns: Option<u16>) -> Query {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Question::query(Name::from_ascii(text).unwrap(), RecordType::A));
    if let Some(payload) = edns {
        let mut opt = Edns::new();
        opt.set_max_payload(payload);
        message.set_edns(opt);
    }
    Query::parse(&message.to_vec().unwrap()).unwrap_or_else(|error| panic!("{error:?}"))
}

fn message(name: &Name, records: Vec<Record>) -> Message {
    let mut message = Message::new(0, MessageType::Response, OpCode::Query);
    message.add_query(Question::query(name.clone(), RecordType::A));
    message.answers = records;
    message
}

#[test]
fn an_explanation_never_costs_the_answer() {
    let name = Name::from_ascii("q.example.").unwrap();
    let ede = Ede::new(Ede::STALE_ANSWER, "the upstreams do not answer");
    // Question 27 octets with the header, each address 16, OPT 11, the explanation 33.
    for (addresses, size, cut, told) in
        [(26, 27 + 26 * 16 + 11 + 33, false, true), (28, 27 + 28 * 16 + 11, false, false), (30, 27 + 11, true, false)]
    {
        let records = (0..addresses).map(|i| Record::from_rdata(name.clone(), 60, RData::A(A::new(192, 0, 2, i)))).collect();
        let reply = Reply::new(message(&name, records), 60, None).unwrap();
        let mut out = Vec::new();
        write(&query("q.example.", Some(512)), &reply, Age::Seconds(0), Some(&ede), Transport::Udp, &mut out);
        let answer = Message::from_vec(&out).unwrap();
        let has_ede = answer.edns.as_ref().and_then(Ede::of).is_some();
        // Cut: what is left has room for it, and needs none.
        assert_eq!((out.len(), answer.metadata.truncation, has_ede), (size, cut, told), "{addresses}");
    }
}

#[test]
fn what_comes_besides_the_answer_is_dropped_before_the_answer_is_cut() {
    let name = Name::from_ascii("q.example.").unwrap();
    let soa = |name: &str| SOA::new(Name::from_ascii(name).unwrap(), Name::root(), 1, 2, 3, 4, 5);
    // Question 27 octets with the header, each address 16, OPT 11; the SOA 43 and more.
    for (addresses, owner, size, cut, additionals) in [
        (20, "rpz.example.", None, false, 1),
        (28, "rpz.example.", Some(27 + 28 * 16 + 11), false, 0),
        (0, "rpz.example.", None, false, 1),
        (30, "rpz.example.", Some(27 + 11), true, 0),
    ] {
        let records = (0..addresses).map(|i| Record::from_rdata(name.clone(), 60, RData::A(A::new(192, 0, 2, i)))).collect();
        let mut whole = message(&name, records);
        whole.add_additional(Record::from_rdata(Name::from_ascii(owner).unwrap(), 60, RData::SOA(soa("ns.example."))));
        let reply = Reply::new(whole, 60, None).unwrap();
        for (transport, is_tcp) in [(Transport::Udp, false), (Transport::Tcp, true)] {
            let mut out = Vec::new();
            write(&query("q.example.", Some(512)), &reply, Age::Seconds(7), None, transport, &mut out);
            let answer = Message::from_vec(&out).unwrap();
            let (cut, additionals) = if is_tcp { (false, 1) } else { (cut, additionals) };
            assert_eq!((answer.metadata.truncation, answer.additionals.len()), (cut, additionals), "{addresses}");
            assert!(size.is_none_or(|size| is_tcp || out.len() == size), "{addresses}: {}", out.len());
            assert!(answer.answers.iter().chain(&answer.additionals).all(|record| record.ttl == 53));
            assert_eq!(answer.answers.len(), if cut { 0 } else { addresses.into() });
        }
    }
    // A negative answer of such a length that its SOA does not fit has nothing else to tell.
    let long = Name::from_ascii(format!("{0}.{0}.{0}.{1}.", "q".repeat(63), "q".repeat(55))).unwrap();
    let mut whole = message(&long, Vec::new());
    let texts = vec!["t".repeat(250)];
    whole.add_additional(Record::from_rdata(long.clone(), 60, RData::TXT(TXT::new(texts))));
    let reply = Reply::new(whole, 60, None).unwrap();
    let mut out = Vec::new();
    write(&query(&long.to_ascii(), Some(512)), &reply, Age::Seconds(0), None, Transport::Udp, &mut out);
    let answer = Message::from_vec(&out).unwrap();
    assert_eq!((out.len(), answer.metadata.truncation, answer.additionals.len()), (12 + 249 + 4 + 11, false, 0));
}

#[test]
fn free_form_octets_are_those_of_records_that_there_may_be_any_number_of() {
    let name = Name::from_ascii("q.example.").unwrap();
    let of = |data| Record::from_rdata(name.clone(), 60, data);
    let unknown = |code, octets: usize| RData::Unknown { code: RecordType::Unknown(code), rdata: NULL::with(vec![7; octets]) };
    for (records, octets) in [
        (vec![], 0),
        (vec![of(RData::A(A::new(192, 0, 2, 1))), of(RData::CNAME(CNAME(name.clone())))], 0),
        // A name that stands there already is two octets.
        (vec![of(RData::MX(MX::new(1, name.clone()))), of(RData::MX(MX::new(2, Name::from_ascii("data.q.example.").unwrap())))], 13),
        (vec![of(RData::TXT(TXT::new(vec!["abc".into(), "d".into()])))], 6),
        (vec![of(RData::NULL(NULL::with(vec![1; 40]))), of(unknown(65400, 500)), of(RData::A(A::new(192, 0, 2, 1)))], 540),
    ] {
        let reply = Reply::new(message(&name, records), 60, None).unwrap();
        assert_eq!(reply.free_form(), octets);
    }
}

#[test]
fn an_answer_is_appended_to_what_stands_there() {
    let name = Name::from_ascii("q.example.").unwrap();
    let reply = Reply::new(message(&name, vec![Record::from_rdata(name.clone(), 60, RData::A(A::new(192, 0, 2, 1)))]), 60, None).unwrap();
    let mut out = b"before".to_vec();
    write(&query("Q.example.", Some(512)), &reply, Age::Seconds(1), None, Transport::Tcp, &mut out);
    assert_eq!(&out[..6], b"before");
    let answer = Message::from_vec(&out[6..]).unwrap();
    assert_eq!((answer.answers.len(), answer.answers[0].ttl, answer.edns.is_some()), (1, 59, true));
}

fn data() -> impl Strategy<Value = RData> {
    let name = "[a-z]{1,9}(\\.[a-z]{1,9}){0,3}\\.".prop_map(|text| Name::from_ascii(text).unwrap());
    prop_oneof![
        any::<[u8; 4]>().prop_map(|octets| RData::A(A(octets.into()))),
        any::<[u8; 16]>().prop_map(|octets| RData::AAAA(AAAA(octets.into()))),
        name.clone().prop_map(|name| RData::CNAME(CNAME(name))),
        (any::<u16>(), name).prop_map(|(preference, name)| RData::MX(MX::new(preference, name))),
        "[ -~]{0,80}".prop_map(|text| RData::TXT(TXT::new(vec![text]))),
        proptest::collection::vec(any::<u8>(), 1..60)
            .prop_map(|octets| RData::Unknown { code: RecordType::Unknown(65400), rdata: NULL::with(octets) }),
    ]
}

proptest! {
    /// hickory-proto reads back what was remembered: every record, with its TTL less its age and nothing else changed.
    #[test]
    fn only_ttls_change_with_age(
        records in proptest::collection::vec(("[a-z]{1,9}\\.(example\\.)?", 0u32..100_000, data()), 0..12),
        age in 0u32..100_000,
        edns in any::<bool>(),
    ) {
        let name = Name::from_ascii("q.example.").unwrap();
        let records: Vec<Record> =
            records.into_iter().map(|(owner, ttl, data)| Record::from_rdata(Name::from_ascii(owner).unwrap(), ttl, data)).collect();
        let reply = Reply::new(message(&name, records.clone()), 60, None).unwrap();
        let addresses: Vec<IpAddr> = records.iter().filter_map(|record| record.data.ip_addr()).collect();
        prop_assert_eq!(reply.addresses().collect::<Vec<_>>(), addresses);
        let asked = query("q.EXAMPLE.", edns.then_some(1232));
        for (age, told) in [(Age::Seconds(age), None), (Age::Stale(30), Some(30))] {
            let mut out = Vec::new();
            write(&asked, &reply, age, None, Transport::Tcp, &mut out);
            let answer = Message::from_vec(&out).unwrap();
            let expected: Vec<Record> = records.iter().cloned().map(|mut record| {
                record.ttl = match (told, age) {
                    (Some(told), _) => told,
                    (None, Age::Seconds(age)) => record.ttl.saturating_sub(age),
                    (None, Age::Stale(ttl)) => ttl,
                };
                record
            }).collect();
            prop_assert_eq!(&answer.answers, &expected);
            prop_assert_eq!(answer.edns.is_some(), edns);
            prop_assert_eq!(answer.metadata.id, asked.id);
        }
    }
}
