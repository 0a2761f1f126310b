//! What an upstream says becomes an answer of bounded size, which is a message; no address in it has not been shown to the policy.
//!
//! An input is type and flags of the question, then what stands in the upstream's message, but for the id and the question, which are right.
#![no_main]

use std::{
    net::{IpAddr, Ipv4Addr},
    rc::Rc,
    sync::LazyLock,
};

use hickory_proto::{
    op::{Message, Query as Question, ResponseCode},
    rr::{Name, RData, RecordType, rdata::svcb::SvcParamValue},
    serialize::binary::BinEncodable,
};
use libfuzzer_sys::fuzz_target;
use ringfence_policy::{
    ratelimit::Mode,
    rpz::{self, Policy, PolicyZone, Scope, Verdict, Walk, Zone, text},
};
use ringfence_proxy::dns::{
    answer::{Age, Reply, Transport, write},
    query::Query,
    resolve::{self, follow},
};

const NAME: &str = "www.fuzz.test.";
/// TTLs and lifetimes, in seconds (`limits::MAX_TTL`).
const MAX_TTL: u32 = 24 * 60 * 60;
/// Of no address in 10.0.0.0/8 a client may hear.
const ZONE: &[u8] = b"8.0.0.0.10.rpz-ip CNAME .\nevil.test CNAME .\nsoft.test CNAME rpz-passthru.\n";

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let bytes = text::compile(ZONE, None).bytes.expect("a zone");
    let zone = Zone::open(bytes.into()).expect("what was compiled opens");
    [PolicyZone { name: "zone".into(), zone, scope: Scope::Tenant, r#override: Default::default(), mode: Mode::Enforce, max_ttl: None }]
        .into_iter()
        .collect()
});

fuzz_target!(|input: &[u8]| {
    let Some(([type_high, type_low, client, flags, rcode, counts @ ..], records)) = input.split_first_chunk::<11>() else { return };
    let rtype = RecordType::from(u16::from_be_bytes([*type_high, *type_low]));
    let name = Name::from_ascii(NAME).expect("a name");
    let asked = name.to_bytes().expect("a name");
    let question = [&asked[..], &[*type_high, *type_low, 0, 1]].concat();
    // A response, of an opcode that is almost always right.
    let header = [0, 0, 0x80 | flags & 0x07, *rcode & 0x3f, 0, 1];
    let Ok(message) = Message::from_vec(&[&header[..], counts, &question, records].concat()) else { return };
    // Any other is another upstream's turn.
    if !matches!(message.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain) {
        return;
    }
    let (dnssec_ok, checking_disabled) = (client & 1 != 0, client & 2 != 0);
    let Ok(resolved) = follow(&resolve::Question { name: name.clone(), qtype: rtype, dnssec_ok, checking_disabled }, message) else {
        return;
    };
    assert!(resolved.lifetime <= MAX_TTL);
    let Ok(reply) = resolved.into_reply() else { return };
    let reply = Rc::new(reply);

    let Ok(query) = Query::parse(&query(&name, rtype, dnssec_ok)) else { return };
    let (wire, _) = rpz::Name::from_wire(query.name()).expect("a name");
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut walk = Walk::new(&POLICY, rpz::Query { name: wire, rtype: rtype.into(), client, transport: rpz::Transport::Udp });
    if walk.filter_query().is_some() {
        return;
    }
    let records = reply.records();
    let verdict = match reply.next {
        Some(_) => walk.filter_aliases(&records),
        None => walk.filter_response(reply.rcode.low(), &records),
    };
    let told = match verdict {
        Verdict::Pass(None) => reply,
        Verdict::Act(rpz::Act::Answer(rewrite)) => Rc::new(Reply::made(&query, &rewrite).expect("it has room")),
        // PASSTHRU, or nobody is told anything.
        _ => return,
    };
    let passed = matches!(told.rcode, ResponseCode::NoError | ResponseCode::NXDomain);
    for (transport, most) in [(Transport::Udp, 1232), (Transport::Tcp, 65535)] {
        let mut out = Vec::new();
        write(&query, &told, Age::Seconds(1), None, transport, &mut out);
        assert!(out.len() <= most);
        let answer = Message::from_vec(&out).expect("an answer is a message");
        assert!(passed && answer.queries == [Question::query(name.clone(), rtype)]);
        for record in &answer.answers {
            assert!(record.ttl <= MAX_TTL);
            let hints = |values: &[(_, SvcParamValue)]| {
                values.iter().any(|(_, value)| match value {
                    SvcParamValue::Ipv4Hint(hints) => hints.0.iter().any(|hint| hint.0.octets()[0] == 10),
                    _ => false,
                })
            };
            let is_forbidden = match &record.data {
                RData::A(address) => address.0.octets()[0] == 10,
                RData::SVCB(binding) => hints(&binding.svc_params),
                RData::HTTPS(binding) => hints(&binding.0.svc_params),
                _ => false,
            };
            assert!(!is_forbidden, "{record}");
        }
    }
});

fn query(name: &Name, rtype: RecordType, dnssec_ok: bool) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Question::query(name.clone(), rtype));
    let mut edns = hickory_proto::op::Edns::new();
    edns.set_dnssec_ok(dnssec_ok).set_max_payload(4096);
    message.edns = Some(edns);
    message.to_vec().expect("a query")
}
