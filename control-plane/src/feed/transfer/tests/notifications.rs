//! Who may notify, and what the answer is.

use std::net::IpAddr;

use hickory_proto::op::{MessageType, OpCode};
use tokio::sync::watch;

use super::*;
use crate::feed::transfer::{notify::Notified, task::Shared};

fn notification(zone: &str) -> Message {
    let mut message = Message::query();
    message.metadata.op_code = OpCode::Notify;
    message.metadata.authoritative = true;
    message.add_query(Query::query(name(zone), RecordType::SOA));
    message
}

#[test]
fn only_the_primary_is_listened_to_and_nothing_is_amplified() {
    let primary = |tsig| Arc::new(Primary::new("192.0.2.53", ZONE.parse().unwrap(), tsig, None).unwrap());
    let ours: IpAddr = "192.0.2.53".parse().unwrap();
    let mapped: IpAddr = "::ffff:192.0.2.53".parse().unwrap();
    let other: IpAddr = "192.0.2.54".parse().unwrap();
    let plain = notification(ZONE).to_vec().unwrap();
    let signed = |secret: &[u8], now| {
        let mut message = plain.clone();
        key(secret).sign(&mut message, now).unwrap();
        message
    };
    let twisted = |twist: fn(&mut Message)| {
        let mut message = notification(ZONE);
        twist(&mut message);
        message.to_vec().unwrap()
    };
    let refused = Some(ResponseCode::Refused);
    for (what, message, from, tsig, wished, rcode) in [
        ("the primary", plain.clone(), ours, false, true, Some(ResponseCode::NoError)),
        ("the primary, mapped", plain.clone(), mapped, false, true, Some(ResponseCode::NoError)),
        ("a stranger", plain.clone(), other, false, false, refused),
        ("a stranger, of a zone with a key", plain.clone(), other, true, false, refused),
        ("another zone", notification("other.test.").to_vec().unwrap(), ours, false, false, refused),
        ("the key from anywhere", signed(SECRET, 1000), other, true, true, Some(ResponseCode::NoError)),
        ("the key, late", signed(SECRET, 600), ours, true, false, refused),
        ("another key", signed(b"another secret of 32 octets ....", 1000), ours, true, false, refused),
        ("a key where there is none", signed(SECRET, 1000), ours, false, false, refused),
        ("a query", twisted(|message| message.metadata.op_code = OpCode::Query), ours, false, false, Some(ResponseCode::NotImp)),
        ("an update", twisted(|message| message.metadata.op_code = OpCode::Update), ours, false, false, Some(ResponseCode::NotImp)),
        ("an answer", twisted(|message| message.metadata.message_type = MessageType::Response), ours, false, false, None),
        ("no question", twisted(|message| message.queries.clear()), ours, false, false, Some(ResponseCode::FormErr)),
        ("garbage", vec![0xff; 30], ours, false, false, None),
        ("nothing", Vec::new(), ours, false, false, None),
        ("cut off", plain[..plain.len() - 1].to_vec(), ours, false, false, None),
    ] {
        let shared = Arc::new(Shared { tried: watch::Sender::new(false), wishes: watch::Sender::new(()) });
        let wishes = shared.wishes.subscribe();
        let notified = Notified::new([(primary(tsig.then(|| key(SECRET))), shared)].into_iter());
        let answer = notified.take(&message, from, 1000);
        assert_eq!(wishes.has_changed().unwrap(), wished, "{what}");
        assert!(answer.as_ref().is_none_or(|answer| answer.len() <= message.len()), "{what}");
        let signed = answer.as_ref().is_some_and(|answer| Parts::read(answer).unwrap().signature.is_some());
        assert_eq!(signed, what == "the key from anywhere", "{what}");
        let answer = answer.map(|answer| Message::from_vec(&answer).unwrap());
        assert_eq!(answer.as_ref().map(|answer| answer.metadata.response_code), rcode, "{what}");
        if let Some(answer) = answer {
            assert_eq!(answer.metadata.message_type, MessageType::Response, "{what}");
            assert_eq!(answer.metadata.id, u16::from_be_bytes([message[0], message[1]]), "{what}");
        }
    }
}
