//! A packet that is read as a query means what hickory-proto reads in it, and its answer can be read by hickory-proto.
#![no_main]

use hickory_proto::op::{Message, ResponseCode};
use libfuzzer_sys::fuzz_target;
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
    }
});
