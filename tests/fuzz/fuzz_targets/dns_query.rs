//! A packet that is read as a query means what hickory-proto reads in it, and its answer can be read by hickory-proto.
#![no_main]

use std::{net::IpAddr, sync::LazyLock};

use hickory_proto::op::{Message, ResponseCode};
use libfuzzer_sys::fuzz_target;
use ringfence_policy::{
    ratelimit::Mode,
    rpz::{self, Act, Policy, PolicyZone, Scope, Walk, Zone, text},
};
use ringfence_proxy::dns::{
    answer::{Age, Reply, Transport, write, write_no_query},
    query::{NoQuery, Query},
};

fuzz_target!(|packet: &[u8]| {
    let mut out = Vec::new();
    let query = match Query::parse(packet) {
        Ok(query) => query,
        Err(no_query) => {
            write_no_query(no_query, &mut out);
            assert_eq!(out.len(), if no_query == NoQuery::Silence { 0 } else { 12 });
            return;
        }
    };
    // Hickory looks into the data of known types too, and refuses what it cannot make sense of.
    if let Ok(message) = Message::from_vec(packet) {
        let asked = &message.queries[0];
        assert_eq!((asked.name(), asked.query_type(), message.id), (&query.to_name(), query.qtype, query.id));
        let edns = message.edns.as_ref().map(|edns| (edns.version(), edns.flags().dnssec_ok));
        assert_eq!(edns, query.edns.map(|edns| (edns.version, edns.dnssec_ok)));
    }
    assert_eq!(query.name(), query.spelled().to_ascii_lowercase());
    let (rcode, ede) = query.refusal().unwrap_or((ResponseCode::ServFail, None));
    for transport in [Transport::Udp, Transport::Tcp] {
        out.clear();
        write(&query, &Reply::bare(&query, rcode, 0, ede.clone()), Age::Seconds(0), None, transport, &mut out);
        assert!(out.len() <= 512);
        let answer = Message::from_vec(&out).expect("an answer is a message");
        assert_eq!(answer.id, query.id);
        assert_eq!(out[12..12 + query.spelled().len()], *query.spelled());
        refuse(&query, transport);
    }
});

/// Rules of every action, for names that a query can be made to have.
const ZONE: &[u8] = b"$TTL 60\n@ SOA ns host 1 2 3 4 5\n\
    a CNAME .\nb CNAME *.\nc CNAME rpz-tcp-only.\nd CNAME rpz-drop.\ne CNAME elsewhere.test.\n*.f CNAME *.garden.test.\n\
    *.example A 192.0.2.1\n*.example AAAA 2001:db8::1\n*.example TXT \"text\"\n* MX 10 mail.test.\n32.1.0.0.127.rpz-client-ip CNAME .\n";

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let bytes = text::compile(ZONE, None).bytes.expect("a zone");
    let zone = Zone::open(bytes.into()).expect("what was compiled opens");
    [PolicyZone { name: "zone".into(), zone, scope: Scope::Tenant, r#override: Default::default(), mode: Mode::Enforce, max_ttl: None }]
        .into_iter()
        .collect()
});

/// What a rule makes of a query is an answer to it.
fn refuse(query: &Query, transport: Transport) {
    let (name, _) = rpz::Name::from_wire(query.name()).expect("the query was read");
    let (over, most) = match transport {
        Transport::Udp => (rpz::Transport::Udp, 1232),
        Transport::Tcp => (rpz::Transport::Tcp, 65535),
    };
    let client = IpAddr::from([127, 0, 0, query.id.to_be_bytes()[0]]);
    let mut walk = Walk::new(&POLICY, rpz::Query { name, rtype: query.qtype.into(), client, transport: over });
    let Some(Act::Answer(rewrite)) = walk.filter_query() else { return };
    let reply = Reply::made(query, &rewrite).expect("it has room");
    let mut out = Vec::new();
    write(query, &reply, Age::Seconds(0), None, transport, &mut out);
    assert!(out.len() <= most);
    let answer = Message::from_vec(&out).expect("an answer is a message");
    assert_eq!((answer.id, answer.metadata.response_code.low()), (query.id, rewrite.rcode));
    // Over UDP a long name and its record may be too much: the client is to come by TCP.
    let is_cut = answer.metadata.truncation;
    assert!(!is_cut || matches!(transport, Transport::Udp));
    assert_eq!(answer.answers.len(), if is_cut { 0 } else { rewrite.answer.len() });
    assert_eq!(answer.edns.is_some(), query.edns.is_some());
}
