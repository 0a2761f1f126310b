//! Clients over TCP that take what they can get.

use std::io::{ErrorKind, Read, Write};

use hickory_proto::{
    op::ResponseCode,
    rr::{RData, Record, RecordType, rdata::TXT},
};
use ringfence_tests::{
    eventually,
    liar::{Asked, framed},
    procfs,
};

use super::{GOOD, REFUSED, Stream, World, good, name, query};

/// TCP connections of one thread (`limits::MAX_CONNECTIONS`).
const MAX_CONNECTIONS: usize = 256;
/// What clients that do not read may cost, each, in KiB: a query that is not whole, and answers that are not taken.
const EACH_KIB: u64 = 256;

#[test]
fn clients_that_ask_much_and_never_read_cost_little_and_nobody_else() {
    let world = World::new(|asked: &Asked| match asked.rtype() {
        RecordType::TXT if asked.over_tcp => {
            let texts = (0..200).map(|i| Record::from_rdata(name("long.test"), 600, RData::TXT(TXT::new(vec![format!("{i:0254}")]))));
            asked.answer(ResponseCode::NoError, texts).into()
        }
        RecordType::TXT => {
            let mut answer = asked.answer(ResponseCode::NoError, []);
            answer.metadata.truncation = true;
            answer.into()
        }
        _ => good(asked),
    });
    // Remembered, so that every query has its 51 KB at once.
    assert_eq!(Stream::open(world.server).ask("long.test", RecordType::TXT).message.answers.len(), 200);
    let before = procfs::anonymous_kib(world.pid());
    let greedy = 20;
    let mut streams: Vec<Stream> = (0..greedy).map(|_| Stream::open(world.server)).collect();
    let many = framed(&query(7, "long.test", RecordType::TXT)).repeat(1000);
    for stream in &mut streams {
        stream.0.set_nonblocking(true).unwrap();
    }
    let mut taken = vec![0; streams.len()];
    // Until nothing moves any more: the kernel's buffers are full both ways.
    let mut still = 0;
    while still < 3 {
        let mut moved = false;
        for (stream, taken) in streams.iter_mut().zip(&mut taken) {
            match stream.0.write(&many[*taken % many.len()..]) {
                Ok(length) => (*taken, moved) = (*taken + length, true),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "it is still open"),
            }
        }
        assert_eq!(world.ask(REFUSED, RecordType::A).rcode, ResponseCode::NXDomain);
        still = if moved { 0 } else { still + 1 };
    }
    assert_eq!(world.ask("other.test", RecordType::A).short(), GOOD);
    assert_eq!(Stream::open(world.server).ask("other.test", RecordType::A).short(), GOOD);
    let grown = procfs::anonymous_kib(world.pid()).saturating_sub(before);
    println!("{greedy} clients that never read cost {grown} KiB");
    assert!(grown < greedy * EACH_KIB, "{grown} KiB");
    // Nor are they waited for without end.
    for stream in &mut streams {
        stream.0.set_nonblocking(false).unwrap();
        let mut octets = vec![0; 1 << 20];
        while stream.0.read(&mut octets).is_ok_and(|length| length > 0) {}
    }
}

#[test]
fn connections_that_ask_nothing_are_bounded_and_end() {
    let world = World::new(good);
    let before = procfs::descriptors(world.pid());
    let mut idle: Vec<Stream> = (0..MAX_CONNECTIONS + 44).map(|_| Stream::open(world.server)).collect();
    for (i, stream) in idle.iter_mut().enumerate() {
        // Nothing, half a length, half a query, a length and nothing. Those beyond the bound are closed already.
        let _ = stream.0.write_all([&[][..], &[0], &framed(&query(7, REFUSED, RecordType::A))[..20], &[0xff, 0xff]][i % 4]);
    }
    assert_eq!(world.ask(REFUSED, RecordType::A).rcode, ResponseCode::NXDomain);
    assert_eq!(world.ask("www.test", RecordType::A).short(), GOOD);
    let threads = procfs::threads(world.pid());
    let open = procfs::descriptors(world.pid()) - before;
    println!("{} connections take {open} descriptors of {threads} threads", idle.len());
    assert!(open <= MAX_CONNECTIONS * threads);
    // Each is closed by the sidecar, though nobody else does anything.
    for stream in &mut idle {
        let mut octet = [0];
        match stream.0.read(&mut octet) {
            Ok(length) => assert_eq!(length, 0),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
    assert_eq!(Stream::open(world.server).ask(REFUSED, RecordType::A).rcode, ResponseCode::NXDomain);
    eventually("its descriptors are free", || (procfs::descriptors(world.pid()) <= before + 8).then_some(()));
}
