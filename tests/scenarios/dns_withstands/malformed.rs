//! Packets that are no queries.

use hickory_proto::{op::ResponseCode, rr::RecordType};

use super::{Client, REFUSED, Stream, Told, World, framed, good, query};

/// What is due to a packet. `None`: silence.
type Due = Option<ResponseCode>;

const ID: u16 = 0xbad;
/// Of a query with RD and one question.
const HEADER: [u8; 12] = [0x0b, 0xad, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
const WWW: &[u8] = b"\x03www\x07refused\x04test\0";
const A_IN: &[u8] = &[0, 1, 0, 1];
const OPT: &[u8] = &[0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0];
/// As little as a TSIG record can be.
const TSIG: &[u8] = &[0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 0];

const FORMERR: Due = Some(ResponseCode::FormErr);
const NXDOMAIN: Due = Some(ResponseCode::NXDomain);
const REFUSED_DUE: Due = Some(ResponseCode::Refused);
const NOTIMP: Due = Some(ResponseCode::NotImp);
/// 16 is BADVERS in an OPT record and BADSIG in TSIG; hickory-proto reads the second.
const BADVERS: Due = Some(ResponseCode::BADSIG);

/// A header with these counts, and what follows it.
fn packet(counts: [u16; 4], body: &[&[u8]]) -> Vec<u8> {
    [&HEADER[..4], counts.map(u16::to_be_bytes).as_flattened(), &body.concat()].concat()
}

fn with(mut packet: Vec<u8>, at: usize, octet: u8) -> Vec<u8> {
    packet[at] = octet;
    packet
}

/// The packets, each with what is due to it.
fn table() -> Vec<(String, Vec<u8>, Due)> {
    let mut table = Vec::new();
    let mut add = |what: &str, packet: Vec<u8>, due: Due| table.push((what.to_owned(), packet, due));
    let plain = packet([1, 0, 0, 0], &[WWW, A_IN]);
    let whole = packet([1, 0, 0, 1], &[WWW, A_IN, OPT]);
    add("a query", plain.clone(), NXDOMAIN);
    for end in 0..whole.len() {
        add(&format!("cut after {end} octets"), whole[..end].to_vec(), if end < HEADER.len() { None } else { FORMERR });
    }
    for trailing in [1, 11, 400] {
        add("trailing octets", [&whole[..], &vec![0; trailing]].concat(), FORMERR);
    }
    for (section, counts) in ["questions", "answers", "authorities", "additionals"].iter().enumerate() {
        for count in [0u16, 1, 2, 255, 65535] {
            let mut told = [1, 0, 0, 0];
            if told[section] != count {
                told[section] = count;
                add(&format!("{count} {counts} told"), packet(told, &[WWW, A_IN]), FORMERR);
            }
        }
    }
    add("every count at its most", packet([65535; 4], &[WWW, A_IN]), FORMERR);
    add("two questions", packet([2, 0, 0, 0], &[WWW, A_IN, WWW, A_IN]), FORMERR);
    for opcode in 0..16u8 {
        let due = if opcode == 0 { NXDOMAIN } else { NOTIMP };
        add(&format!("opcode {opcode}"), with(plain.clone(), 2, opcode << 3 | 1), due);
        add(
            &format!("opcode {opcode} and nothing else"),
            with(HEADER.to_vec(), 2, opcode << 3 | 1),
            due.filter(|_| opcode > 0).or(FORMERR),
        );
        add(&format!("a response with opcode {opcode}"), with(plain.clone(), 2, 0x81 | opcode << 3), None);
    }
    add("AA, TC, RA, Z, AD and CD, and an RCODE", with(with(plain.clone(), 2, 0x07), 3, 0xff), NXDOMAIN);
    add("no recursion desired", with(plain.clone(), 2, 0), REFUSED_DUE);

    let three = [b"\x3f".as_slice(), &[b'a'; 63]].concat().repeat(3);
    let under = |labels: &[u8]| [labels, b"\x07refused\x04test\0"].concat();
    for (what, name, due) in [
        ("a name of 255 octets", under(&[&three[..], b"\x30", &[b'a'; 48]].concat()), NXDOMAIN),
        ("a name of 256 octets", under(&[&three[..], b"\x31", &[b'a'; 49]].concat()), FORMERR),
        ("a label of 64 octets", under(&[b"\x40".as_slice(), &[b'a'; 64]].concat()), FORMERR),
        ("a label of the extended kind", under(b"\x41\x01\xff"), FORMERR),
        ("a label of the reserved kind", under(b"\x80a"), FORMERR),
        ("a pointer to the header", b"\xc0\x00".to_vec(), FORMERR),
        ("a pointer to itself", b"\xc0\x0c".to_vec(), FORMERR),
        ("a pointer behind a label", b"\x03www\xc0\x0c".to_vec(), FORMERR),
        ("a pointer past the end", b"\xff\xff".to_vec(), FORMERR),
        ("122 labels", [b"\x01a".repeat(120).as_slice(), b"\x07refused\x04test\0"].concat(), NXDOMAIN),
        ("more labels than a name has", [b"\x01a".repeat(200).as_slice(), b"\0"].concat(), FORMERR),
        ("NULs, dots and octets above 127", under(b"\x05\0.\\\xff\xf0"), NXDOMAIN),
        ("a name without its end", b"\x03www\x07refused".to_vec(), FORMERR),
    ] {
        add(what, packet([1, 0, 0, 0], &[&name, A_IN]), due);
    }
    for (class, due) in [(0u16, REFUSED_DUE), (1, NXDOMAIN), (2, REFUSED_DUE), (3, REFUSED_DUE), (254, REFUSED_DUE), (255, REFUSED_DUE)] {
        add(&format!("class {class}"), packet([1, 0, 0, 0], &[WWW, &[0, 1], &class.to_be_bytes()]), due);
    }
    for (rtype, due) in [
        (0u16, FORMERR),
        (1, NXDOMAIN),
        (41, FORMERR),
        (249, NOTIMP),
        (250, FORMERR),
        (251, REFUSED_DUE),
        (252, REFUSED_DUE),
        (253, NOTIMP),
        (254, NOTIMP),
        (255, NXDOMAIN),
        (256, NXDOMAIN),
        (65535, NXDOMAIN),
    ] {
        add(&format!("type {rtype}"), packet([1, 0, 0, 0], &[WWW, &rtype.to_be_bytes(), &[0, 1]]), due);
    }

    let opt = |version: u8, data: &[u8]| [&[0, 0, 41, 0x10, 0, 0, version, 0, 0], &(data.len() as u16).to_be_bytes()[..], data].concat();
    let record =
        |owner: &[u8], rtype: u8, data: &[u8]| [owner, &[0, rtype, 0, 1, 0, 0, 0, 0], &(data.len() as u16).to_be_bytes(), data].concat();
    for (what, counts, records, due) in [
        ("OPT", [1, 0, 0, 1], OPT.to_vec(), NXDOMAIN),
        ("OPT twice", [1, 0, 0, 2], [OPT, OPT].concat(), FORMERR),
        ("OPT among the answers", [1, 1, 0, 0], OPT.to_vec(), FORMERR),
        ("OPT among the authorities", [1, 0, 1, 0], OPT.to_vec(), FORMERR),
        ("OPT of another owner than the root", [1, 0, 0, 1], [b"\x01a", OPT].concat(), FORMERR),
        ("OPT of a pointer", [1, 0, 0, 1], [b"\xc0\x0c", &OPT[1..]].concat(), FORMERR),
        ("EDNS version 1", [1, 0, 0, 1], opt(1, b""), BADVERS),
        ("EDNS version 255 with nonsense in it", [1, 0, 0, 1], opt(255, b"\0\x0a\0\0"), BADVERS),
        ("a cookie and an unknown option", [1, 0, 0, 1], opt(0, b"\0\x0a\0\x08abcdefgh\xff\xfe\0\0"), NXDOMAIN),
        ("an option without its length", [1, 0, 0, 1], opt(0, b"\0\x0a"), FORMERR),
        ("half an option's head", [1, 0, 0, 1], opt(0, b"\0\x0a\0"), FORMERR),
        ("an option longer than OPT", [1, 0, 0, 1], opt(0, b"\0\x0a\0\x09abcdefgh"), FORMERR),
        ("OPT longer than the packet", [1, 0, 0, 1], opt(0, b"abcd")[..13].to_vec(), FORMERR),
        ("TSIG", [1, 0, 0, 1], TSIG.to_vec(), NXDOMAIN),
        ("TSIG behind OPT", [1, 0, 0, 2], [OPT, TSIG].concat(), NXDOMAIN),
        ("an address as an additional record", [1, 0, 0, 1], record(WWW, 1, &[192, 0, 2, 1]), NXDOMAIN),
        ("an answer", [1, 1, 0, 0], record(b"\xc0\x0c", 1, &[192, 0, 2, 1]), FORMERR),
        ("a record whose owner points to itself", [1, 0, 0, 1], record(b"\xc0\x22", 1, &[192, 0, 2, 1]), NXDOMAIN),
        ("a record whose owner has no end", [1, 0, 0, 1], b"\x3faaaa".to_vec(), FORMERR),
        ("a record longer than the packet", [1, 0, 0, 1], [&record(b"\0", 1, b"")[..9], &[0xff, 0xff]].concat(), FORMERR),
    ] {
        add(what, packet(counts, &[WWW, A_IN, &records]), due);
    }
    table
}

#[test]
fn a_packet_that_is_no_query_gets_its_rcode_or_silence() {
    let world = World::new(good);
    let mut client = Client::new(world.server);
    let table = table();
    assert!(table.len() > 150, "{}", table.len());
    for (what, packet, due) in &table {
        client.socket.send(packet).unwrap();
        // Answered in their order: both are known at once.
        let after = client.send(REFUSED, RecordType::A);
        let answers = client.answers_until(after);
        let (good, before) = answers.split_last().unwrap();
        assert_eq!(before.iter().map(|octets| Told::of(octets).rcode).collect::<Vec<_>>(), Vec::from_iter(*due), "{what}");
        assert!(before.iter().all(|octets| octets[..2] == ID.to_be_bytes() && octets[2] & 0x80 != 0), "{what}");
        assert_eq!(Told::of(good).rcode, ResponseCode::NXDomain, "{what}");
    }
    // And over TCP, all on one connection.
    let mut stream = Stream::open(world.server);
    for (what, packet, due) in &table {
        stream.send(&[framed(packet), framed(&query(7, REFUSED, RecordType::A))].concat());
        if let Some(rcode) = due {
            assert_eq!(Told::of(&stream.message().unwrap()).rcode, *rcode, "{what}");
        }
        let good = Told::of(&stream.message().unwrap());
        assert_eq!((good.message.metadata.id, good.rcode), (7, ResponseCode::NXDomain), "{what}");
    }
    assert_eq!(world.liar.asked(), [], "no upstream hears of any of them");
}

#[test]
fn whatever_octets_are_changed_the_next_query_is_answered() {
    let world = World::new(good);
    let mut client = Client::new(world.server);
    let whole = packet([1, 0, 0, 2], &[WWW, A_IN, OPT, TSIG]);
    for at in 2..whole.len() {
        for octet in [0, 1, 0x3f, 0x40, 0x80, 0xc0, 0xff, whole[at].wrapping_add(1)] {
            client.socket.send(&with(whole.clone(), at, octet)).unwrap();
        }
        assert_eq!(client.ask(REFUSED, RecordType::A).rcode, ResponseCode::NXDomain, "octet {at}");
    }
}

#[test]
fn lengths_over_tcp_that_lie_end_a_connection_and_nothing_else() {
    let world = World::new(good);
    let good = framed(&query(7, REFUSED, RecordType::A));
    let long = |octet: u8| [&[0xff, 0xff][..], &[octet; 65535]].concat();
    // What is sent, and the RCODEs until the connection ends.
    for (what, octets, due) in [
        ("nothing", vec![], vec![]),
        ("half a length", vec![0], vec![]),
        ("a length and nothing", vec![0, 40], vec![]),
        ("a length beyond what comes", [&[0xff, 0xff][..], &good].concat(), vec![]),
        ("no length at all, many times", vec![0; 60_000], vec![]),
        ("no length at all, then a query", [vec![0; 512], good.clone()].concat(), vec![ResponseCode::NXDomain]),
        ("a length below what comes", [&[0, 20][..], &good[2..]].concat(), vec![ResponseCode::FormErr]),
        ("64 KiB of zeros, then a query", [long(0), good.clone()].concat(), vec![ResponseCode::FormErr, ResponseCode::NXDomain]),
        ("64 KiB of a response", [long(0xff), good.clone()].concat(), vec![ResponseCode::NXDomain]),
        ("64 KiB of an option", padded(), vec![ResponseCode::NXDomain]),
    ] {
        let mut stream = Stream::open(world.server);
        stream.send(&octets);
        stream.0.shutdown(std::net::Shutdown::Write).unwrap();
        let told: Vec<ResponseCode> = std::iter::from_fn(|| stream.message()).map(|octets| Told::of(&octets).rcode).collect();
        assert_eq!(told, due, "{what}");
    }
    // One octet at a time is as good as any.
    let mut stream = Stream::open(world.server);
    stream.0.set_nodelay(true).unwrap();
    for octet in good.repeat(2) {
        stream.send(&[octet]);
    }
    for _ in 0..2 {
        assert_eq!(Told::of(&stream.message().unwrap()).rcode, ResponseCode::NXDomain);
    }
}

/// A query as long as one can be.
fn padded() -> Vec<u8> {
    let rest = 65535 - HEADER.len() - WWW.len() - A_IN.len() - OPT.len();
    let data = [&[0, 12][..], &((rest - 4) as u16).to_be_bytes(), &vec![0; rest - 4]].concat();
    framed(&packet([1, 0, 0, 1], &[WWW, A_IN, &OPT[..9], &(rest as u16).to_be_bytes(), &data]))
}
