use hickory_proto::op::{Edns, Message, OpCode, Query as Question};
use proptest::prelude::*;

use super::*;

const RD_FLAG: u8 = RD;

/// Header of a query with RD, id 0x1234.
fn header(counts: [u16; 4]) -> Vec<u8> {
    let mut packet = vec![0x12, 0x34, RD_FLAG, 0];
    packet.extend(counts.into_iter().flat_map(u16::to_be_bytes));
    packet
}

fn packet(counts: [u16; 4], body: &[&[u8]]) -> Vec<u8> {
    let mut packet = header(counts);
    packet.extend(body.concat());
    packet
}

const NAME: &[u8] = b"\x03wWw\x07example\0";
const A_IN: &[u8] = &[0, 1, 0, 1];
/// OPT: payload 4096, version 0, DO.
const OPT: &[u8] = &[0, 0, 41, 0x10, 0, 0, 0, 0x80, 0, 0, 0];

#[test]
fn a_query_is_read_as_it_was_sent() {
    let query = Query::parse(&packet([1, 0, 0, 1], &[NAME, A_IN, OPT])).unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!((query.id, query.qtype, query.spelled(), query.name()), (0x1234, RecordType::A, NAME, &b"\x03www\x07example\0"[..]));
    assert_eq!(query.edns, Some(ClientEdns { payload: 4096, version: 0, dnssec_ok: true }));
    assert_eq!(query.to_name().to_string(), "www.example.");
    assert!(query.refusal().is_none() && query.recursion_desired() && query.dnssec_ok());
    let plain = Query::parse(&packet([1, 0, 0, 0], &[NAME, A_IN])).unwrap_or_else(|error| panic!("{error:?}"));
    assert_ne!(plain.key(), query.key(), "answers with signatures are others");
    assert_eq!(plain.key()[..plain.key().len() - 1], query.key()[..query.key().len() - 1]);
}

#[test]
fn what_is_no_query_has_its_rcode_or_none() {
    let long_name = [b"\x3f".to_vec(), vec![b'a'; 63]].concat().repeat(4);
    let reply = |flags, rcode| Err(NoQuery::Reply { id: 0x1234, flags, rcode });
    let malformed = || reply(RD, ResponseCode::FormErr);
    let with_flags = |flags: u8| {
        let mut packet = packet([1, 0, 0, 0], &[NAME, A_IN]);
        packet[2] = flags;
        packet
    };
    let opt = |data: &[u8]| [&OPT[..9], &(data.len() as u16).to_be_bytes(), data].concat();
    for (what, packet, expected) in [
        ("nothing", vec![], Err(NoQuery::Silence)),
        ("half a header", header([1, 0, 0, 0])[..11].to_vec(), Err(NoQuery::Silence)),
        ("a response", with_flags(QR | RD), Err(NoQuery::Silence)),
        ("a response to a notification", with_flags(QR | 4 << 3), Err(NoQuery::Silence)),
        ("an update", with_flags(5 << 3), reply(5 << 3, ResponseCode::NotImp)),
        ("opcode 15 with RD", with_flags(15 << 3 | RD), reply(15 << 3 | RD, ResponseCode::NotImp)),
        ("no question", header([0, 0, 0, 0]), malformed()),
        ("two questions", packet([2, 0, 0, 0], &[NAME, A_IN, NAME, A_IN]), malformed()),
        ("OPT among the authorities", packet([1, 0, 1, 0], &[NAME, A_IN, OPT]), malformed()),
        ("a missing question", header([1, 0, 0, 0]), malformed()),
        ("an answer", packet([1, 1, 0, 0], &[NAME, A_IN]), malformed()),
        ("a name without an end", packet([1, 0, 0, 0], &[b"\x03www"]), malformed()),
        ("a name without type", packet([1, 0, 0, 0], &[NAME, &[0]]), malformed()),
        ("a name without class", packet([1, 0, 0, 0], &[NAME, &[0, 1, 0]]), malformed()),
        ("a pointer to the header", packet([1, 0, 0, 0], &[&[0xc0, 0], A_IN]), malformed()),
        ("a pointer to itself", packet([1, 0, 0, 0], &[&[0xc0, 12], A_IN]), malformed()),
        ("a pointer behind a label", packet([1, 0, 0, 0], &[b"\x03www\xc0\x0c", A_IN]), malformed()),
        ("an extended label", packet([1, 0, 0, 0], &[b"\x41\x01\0", A_IN]), malformed()),
        ("a label of 64", packet([1, 0, 0, 0], &[&[0x80], &[b'a'; 64], &[0], A_IN]), malformed()),
        ("a name of 257", packet([1, 0, 0, 0], &[&long_name, &[0], A_IN]), malformed()),
        ("octets behind the question", packet([1, 0, 0, 0], &[NAME, A_IN, &[0]]), malformed()),
        ("a missing record", packet([1, 0, 0, 1], &[NAME, A_IN]), malformed()),
        ("65535 missing records", packet([1, 0, 0, 65535], &[NAME, A_IN, OPT]), malformed()),
        ("half an OPT", packet([1, 0, 0, 1], &[NAME, A_IN, &OPT[..10]]), malformed()),
        ("two OPTs", packet([1, 0, 0, 2], &[NAME, A_IN, OPT, OPT]), malformed()),
        ("an OPT with an owner", packet([1, 0, 0, 1], &[NAME, A_IN, &[1, b'a'], OPT]), malformed()),
        ("data beyond the packet", packet([1, 0, 0, 1], &[NAME, A_IN, &OPT[..9], &[0, 9]]), malformed()),
        ("an option beyond the data", packet([1, 0, 0, 1], &[NAME, A_IN, &opt(&[0, 10, 0, 9, 1])]), malformed()),
        ("half an option", packet([1, 0, 0, 1], &[NAME, A_IN, &opt(&[0, 10, 0])]), malformed()),
    ] {
        assert_eq!(Query::parse(&packet).map(|query| query.to_name().to_string()), expected, "{what}");
    }
}

#[test]
fn what_is_well_formed_and_unusual_is_read() {
    let opt = |data: &[u8]| [&OPT[..9], &(data.len() as u16).to_be_bytes(), data].concat();
    let longest = [[vec![63], vec![b'a'; 63]].concat().repeat(3), [vec![61], vec![b'a'; 61]].concat(), vec![0]].concat();
    for (what, packet) in [
        ("the root", packet([1, 0, 0, 0], &[&[0], A_IN])),
        ("the longest name", packet([1, 0, 0, 0], &[&longest, A_IN])),
        ("any octet in a label", packet([1, 0, 0, 0], &[b"\x03\0.\xff\0", A_IN])),
        ("unknown options", packet([1, 0, 0, 1], &[NAME, A_IN, &opt(&[0, 10, 0, 2, 1, 2, 0xff, 0xfe, 0, 0])])),
        ("another record behind OPT", packet([1, 0, 0, 2], &[NAME, A_IN, OPT, &[0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 1, 7]])),
        ("a record whose owner is compressed", packet([1, 0, 0, 1], &[NAME, A_IN, &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0]])),
    ] {
        assert!(Query::parse(&packet).is_ok(), "{what}");
    }
}

#[test]
fn questions_that_are_not_looked_into() {
    let ask = |qtype: u16, class: u16, flags: u8, version: u8| {
        let opt = [&OPT[..6], &[version], &OPT[7..]].concat();
        let mut packet = packet([1, 0, 0, 1], &[NAME, &qtype.to_be_bytes(), &class.to_be_bytes(), &opt]);
        packet[2] = flags;
        Query::parse(&packet).ok().and_then(|query| query.refusal()).map(|(rcode, ede)| (rcode, ede.map(|ede| ede.code)))
    };
    for (qtype, class, flags, version, expected) in [
        (1, 1, RD, 0, None),
        (255, 1, RD, 0, None),
        (65280, 1, RD, 0, None),
        (1, 1, RD, 1, Some((ResponseCode::BADVERS, None))),
        (252, 1, RD, 0, Some((ResponseCode::Refused, Some(Ede::NOT_SUPPORTED)))),
        (251, 1, RD, 0, Some((ResponseCode::Refused, Some(Ede::NOT_SUPPORTED)))),
        (16, 3, RD, 0, Some((ResponseCode::Refused, Some(Ede::NOT_SUPPORTED)))),
        (1, 255, RD, 0, Some((ResponseCode::Refused, Some(Ede::NOT_SUPPORTED)))),
        (1, 1, 0, 0, Some((ResponseCode::Refused, Some(Ede::NOT_AUTHORITATIVE)))),
        (0, 1, RD, 0, Some((ResponseCode::FormErr, None))),
        (41, 1, RD, 0, Some((ResponseCode::FormErr, None))),
        (249, 1, RD, 0, Some((ResponseCode::NotImp, None))),
    ] {
        assert_eq!(ask(qtype, class, flags, version), expected, "type {qtype} class {class} flags {flags:x} version {version}");
    }
}

#[test]
fn a_udp_answer_is_as_large_as_the_client_takes_and_no_path_fragments() {
    for (payload, expected) in [(None, 512), (Some(0), 512), (Some(100), 512), (Some(1000), 1000), (Some(1232), 1232), (Some(65535), 1232)]
    {
        let mut query = Query::parse(&packet([1, 0, 0, 1], &[NAME, A_IN, OPT])).unwrap_or_else(|error| panic!("{error:?}"));
        query.edns = payload.map(|payload| ClientEdns { payload, version: 0, dnssec_ok: false });
        assert_eq!(query.udp_answer(), expected, "{payload:?}");
    }
}

proptest! {
    /// hickory-proto is the oracle: what it writes is read alike.
    #[test]
    fn what_hickory_writes_is_read_alike(
        labels in proptest::collection::vec("[a-zA-Z0-9_-]{1,20}", 0..8),
        qtype in 1u16..40,
        edns in proptest::option::of((512u16.., any::<bool>())),
        flags in any::<(bool, bool, bool)>(),
    ) {
        let name = Name::from_labels(labels.iter().map(|label| label.as_bytes())).unwrap();
        let mut message = Message::query();
        (message.metadata.recursion_desired, message.metadata.checking_disabled, message.metadata.authentic_data) = flags;
        message.metadata.op_code = OpCode::Query;
        message.add_query(Question::query(name.clone(), RecordType::from(qtype)));
        if let Some((payload, dnssec_ok)) = edns {
            let mut opt = Edns::new();
            opt.set_max_payload(payload).set_dnssec_ok(dnssec_ok);
            message.set_edns(opt);
        }
        let query = Query::parse(&message.to_vec().unwrap()).map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
        prop_assert_eq!(query.id, message.metadata.id);
        prop_assert_eq!(query.to_name(), name.to_lowercase());
        prop_assert_eq!(u16::from(query.qtype), qtype);
        prop_assert_eq!(query.edns.map(|edns| (edns.payload, edns.dnssec_ok)), edns);
        prop_assert_eq!((query.recursion_desired(), query.checking_disabled(), query.wants_authentic_data()),
            (flags.0, flags.1, flags.2 || edns.is_some_and(|(_, dnssec_ok)| dnssec_ok)));
    }

    #[test]
    fn no_packet_makes_it_panic(packet in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = Query::parse(&packet);
    }
}
