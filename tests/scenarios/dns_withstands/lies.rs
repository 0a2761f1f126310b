//! Upstreams that lie.

use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, RData, Record, RecordType,
        rdata::opt::EdnsOption,
        rdata::{A, NS, NULL, TXT},
    },
};
use ringfence_tests::{
    Liar,
    liar::{Asked, Says},
};

use super::{GOOD, Told, World, a, cname, good, name, soa};

/// What no client may ever be told.
const EVIL: u8 = 66;
const NETWORK: Option<u16> = Some(23);
const UNREACHABLE: Option<u16> = Some(22);

fn octets(message: Message) -> Vec<u8> {
    message.to_vec().unwrap()
}

fn evil(owner: &str) -> Record {
    a(owner, 600, EVIL)
}

/// An answer behind which the true one comes.
fn then_good(asked: &Asked, lie: Vec<u8>) -> Says {
    Says::Messages(vec![lie, octets(asked.answer(ResponseCode::NoError, [a(&asked.name(), 600, 1)]))])
}

/// The answer `records` of it are, with `count` answers told.
fn counted(asked: &Asked, count: u16) -> Vec<u8> {
    let mut lie = octets(asked.answer(ResponseCode::NoError, [a(&asked.name(), 600, 1)]));
    lie[6..8].copy_from_slice(&count.to_be_bytes());
    lie
}

/// The question given back, and these octets for its one answer.
fn raw(asked: &Asked, record: &[u8]) -> Vec<u8> {
    let mut lie = octets(asked.answer(ResponseCode::NoError, []));
    // EDNS was among what is cut away.
    lie.truncate(12 + hickory_proto::serialize::binary::BinEncodable::to_bytes(asked.query.queries[0].name()).unwrap().len() + 4);
    lie[6..12].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
    [lie, record.to_vec()].concat()
}

fn script(asked: &Asked) -> Says {
    static ELSEWHERE: AtomicUsize = AtomicUsize::new(0);
    let of = asked.name();
    let answer = |records: Vec<Record>| asked.answer(ResponseCode::NoError, records);
    let with = |change: &dyn Fn(&mut Message)| {
        let mut message = answer(vec![a(&of, 600, 1)]);
        change(&mut message);
        octets(message)
    };
    match of.split('.').next().expect("a label") {
        "id" => then_good(asked, with(&|lie| (lie.metadata.id, lie.answers[0]) = (!lie.metadata.id, evil(&of)))),
        "question" => {
            then_good(asked, with(&|lie| (lie.queries[0], lie.answers[0]) = (Query::query(name("victim.test"), RecordType::A), evil(&of))))
        }
        "questions" => then_good(asked, with(&|lie| lie.queries.push(Query::query(name("victim.test"), RecordType::A)))),
        "unasked" => then_good(asked, with(&|lie| (lie.queries.clear(), lie.answers[0] = evil(&of)).0)),
        "type" => then_good(asked, with(&|lie| _ = lie.queries[0].set_query_type(RecordType::TXT))),
        "class" => then_good(asked, with(&|lie| _ = lie.queries[0].set_query_class(DNSClass::CH))),
        "chaos" => Says::Messages(vec![with(&|lie| lie.answers[0].dns_class = DNSClass::CH)]),
        "nothing" => Says::Messages(vec![vec![], vec![0], octets(answer(vec![a(&of, 600, 1)]))]),
        // Asked again, it is told the truth.
        "elsewhere" if ELSEWHERE.fetch_add(1, Ordering::SeqCst) == 0 => Says::FromElsewhere(octets(answer(vec![evil(&of)]))),
        "spelling" if !asked.over_tcp => Says::Messages(vec![with(&|lie| {
            lie.queries[0].set_name(name(&of));
            lie.answers[0] = evil(&of);
        })]),
        "poison" => Says::Messages(vec![with(&|lie| {
            lie.add_answers([evil("victim.test"), cname("other.test", "victim.test")]);
            let ns = Record::from_rdata(name("test"), 600, RData::NS(NS(name("victim.test"))));
            lie.add_authorities([ns, evil("victim.test"), evil(&of)]);
            lie.add_additionals([evil("victim.test"), evil(&of)]);
        })]),
        "alias" => answer(vec![cname(&of, "victim.test"), a("victim.test", 600, 9)]).into(),
        "shuffled" => answer(vec![a("y.test", 60, 1), cname("x.test", "y.test"), cname(&of, "x.test"), evil("z.test")]).into(),
        "nx" => asked.answer(ResponseCode::NXDomain, [a(&of, 600, 1)]).into(),
        "referral" => Says::Messages(vec![with(&|lie| {
            lie.answers.clear();
            lie.add_authority(Record::from_rdata(name("test"), 600, RData::NS(NS(name("ns.victim.test")))));
            lie.add_additional(evil("ns.victim.test"));
        })]),
        "foreign-soa" => Says::Messages(vec![with(&|lie| {
            lie.answers.clear();
            lie.add_authority(soa("elsewhere.example"));
        })]),
        "query" => Says::Messages(vec![with(&|lie| lie.metadata.message_type = MessageType::Query)]),
        "update" => Says::Messages(vec![with(&|lie| lie.metadata.op_code = OpCode::Update)]),
        "refused" => asked.answer(ResponseCode::Refused, []).into(),
        "formerr" => asked.answer(ResponseCode::FormErr, [evil(&of)]).into(),
        "badvers" => asked.answer(ResponseCode::BADVERS, [evil(&of)]).into(),
        "count" => Says::Messages(vec![counted(asked, 65535)]),
        "self-pointer" => Says::Messages(vec![raw(asked, b"\xc0\x2a\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x42")]),
        "pointer-loop" => Says::Messages(vec![raw(asked, b"\x01a\xc0\x22\0\x01\0\x01\0\0\0\x3c\0\x02\xc0\x22")]),
        "long-data" => Says::Messages(vec![raw(asked, b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\xff\xff\xc0\0\x02\x42")]),
        "short-address" => Says::Messages(vec![raw(asked, b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x03\xc0\0\x02")]),
        "empty-address" => Says::Messages(vec![raw(asked, b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\0")]),
        "empty-alias" => Says::Messages(vec![raw(asked, b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\0")]),
        "garbage" => Says::Messages(vec![[asked.query.metadata.id.to_be_bytes().to_vec(), vec![0xff; 400]].concat()]),
        "private" => answer(vec![Record::from_rdata(name(&of), 60, RData::A("127.0.0.1".parse().unwrap()))]).into(),
        "edns" => Says::Messages(vec![with(&|lie| {
            let mut edns = Edns::new();
            edns.set_version(9).set_max_payload(1);
            edns.options_mut().insert(EdnsOption::Unknown(15, vec![0]));
            edns.options_mut().insert(EdnsOption::Unknown(0xffff, vec![0xff; 300]));
            lie.edns = Some(edns);
        })]),
        "zero" => answer(vec![a(&of, 0, 1)]).into(),
        "sign" => answer(vec![a(&of, 1 << 31, 1)]).into(),
        "most" => answer(vec![a(&of, u32::MAX, 1)]).into(),
        "long" => answer(vec![a(&of, i32::MAX as u32, 1)]).into(),
        _ => good(asked),
    }
}

#[test]
fn of_what_an_upstream_says_only_the_answer_to_the_question_counts() {
    let world = World::new(script);
    for (label, expected, error) in [
        ("id", GOOD, None),
        ("question", GOOD, None),
        ("questions", GOOD, None),
        ("unasked", GOOD, None),
        ("type", GOOD, None),
        ("class", GOOD, None),
        ("chaos", "NoError", None),
        ("nothing", GOOD, None),
        ("elsewhere", GOOD, None),
        ("spelling", GOOD, None),
        ("poison", GOOD, None),
        ("alias", "192.0.2.9", None),
        ("shuffled", GOOD, None),
        ("nx", GOOD, None),
        ("referral", "ServFail", NETWORK),
        ("foreign-soa", "NoError", None),
        ("query", "ServFail", NETWORK),
        ("update", "ServFail", NETWORK),
        ("refused", "ServFail", UNREACHABLE),
        ("formerr", "ServFail", UNREACHABLE),
        ("badvers", "ServFail", UNREACHABLE),
        ("count", "ServFail", NETWORK),
        ("self-pointer", "ServFail", NETWORK),
        ("pointer-loop", "ServFail", NETWORK),
        ("long-data", "ServFail", NETWORK),
        ("short-address", "ServFail", NETWORK),
        ("empty-address", "ServFail", NETWORK),
        ("empty-alias", "ServFail", NETWORK),
        ("garbage", "ServFail", NETWORK),
        // Egress does not connect there, whatever the name.
        ("private", "127.0.0.1", None),
        ("edns", GOOD, None),
    ] {
        let told = world.ask(&format!("{label}.lie.test"), RecordType::A);
        assert_eq!((told.short().as_str(), told.error), (expected, error), "{label}");
        assert!(told.message.authorities.is_empty() && told.message.additionals.is_empty(), "{label}: {:?}", told.message);
    }
    // What was said of it besides is not remembered.
    assert_eq!(world.liar.count("victim.test"), 0);
    for name in ["victim.test", "other.test", "ns.victim.test", "x.test", "z.test"] {
        assert_eq!(world.ask(name, RecordType::A).short(), GOOD, "{name}");
    }
}

#[test]
fn ttls_are_told_as_if_they_were_sane() {
    let world = World::new(script);
    for (label, ttl) in [("zero", 0), ("sign", 0), ("most", 0), ("long", 24 * 60 * 60)] {
        let told = world.ask(&format!("{label}.lie.test"), RecordType::A);
        assert_eq!((told.short().as_str(), told.message.answers[0].ttl), (GOOD, ttl), "{label}");
    }
}

#[test]
fn an_upstreams_long_words_are_cut() {
    let world = World::new(|asked: &Asked| {
        let mut answer = asked.answer(ResponseCode::ServFail, []);
        answer.metadata.truncation = !asked.over_tcp;
        if asked.over_tcp {
            let words = [&[0, 9][..], &b"why\r\n\x1b[2J\0".repeat(5500)].concat();
            let mut edns = Edns::new();
            edns.options_mut().insert(EdnsOption::Unknown(15, words));
            answer.edns = Some(edns);
        }
        answer.into()
    });
    let told = world.ask("words.test", RecordType::A);
    assert_eq!((told.rcode, told.error), (ResponseCode::ServFail, Some(9)));
    let edns = told.message.edns.expect("the query had one");
    let Some(EdnsOption::Unknown(_, data)) = edns.option(hickory_proto::rr::rdata::opt::EdnsCode::Unknown(15)) else { panic!("no EDE") };
    let text = std::str::from_utf8(&data[2..]).unwrap();
    assert!(text.starts_with("why[2Jwhy") && text.len() <= 64 && !text.contains(char::is_control), "{text:?}");
}

#[test]
fn answers_as_long_as_they_can_be_are_told_whole_over_tcp() {
    // 255 octets each: 240 of them are 64 KiB, nearly. As many addresses as fit.
    let world = World::new(|asked: &Asked| {
        let texts = (0..240).map(|i| Record::from_rdata(name("t"), 600, RData::TXT(TXT::new(vec![format!("{i:0254}")]))));
        let addresses = (0..3500).map(|i: u16| {
            let [high, low] = i.to_be_bytes();
            Record::from_rdata(name("t"), 600, RData::A(A::new(10, 0, high, low)))
        });
        let mut answer = match asked.rtype() {
            RecordType::TXT => asked.answer(ResponseCode::NoError, texts),
            RecordType::A => asked.answer(ResponseCode::NoError, addresses),
            _ => asked.answer(
                ResponseCode::NoError,
                [Record::from_rdata(name("t"), 600, RData::Unknown { code: RecordType::NULL, rdata: NULL::with(vec![7; 65000]) })],
            ),
        };
        if !asked.over_tcp {
            answer.answers.clear();
            answer.metadata.truncation = true;
        }
        answer.into()
    });
    for (rtype, count) in [(RecordType::TXT, 240), (RecordType::A, 3500), (RecordType::NULL, 1)] {
        let told: Told = world.ask("t", rtype);
        assert!(told.message.metadata.truncation && told.message.answers.is_empty(), "{rtype}: {:?}", told.message);
        let told = super::Stream::open(world.server).ask("t", rtype);
        assert_eq!((told.rcode, told.message.answers.len(), told.message.metadata.truncation), (ResponseCode::NoError, count, false));
    }
}

/// A second liar cannot put a word in for the first.
#[test]
fn another_upstream_answers_where_the_first_one_lies() {
    let second = Liar::start(good);
    let world = World::with(&[second.address], |asked| match asked.name().as_str() {
        "garbage.test" => Says::Messages(vec![[asked.query.metadata.id.to_be_bytes().to_vec(), vec![0xff; 400]].concat()]),
        _ => asked.answer(ResponseCode::Refused, []).into(),
    });
    for name in ["refuses.test", "garbage.test"] {
        assert_eq!(world.ask(name, RecordType::A).short(), GOOD, "{name}");
        assert_eq!(second.count(name), 1, "{name}");
    }
}
