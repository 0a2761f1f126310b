//! Both ends in one process.

use std::{
    fs::File,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::{fd::AsFd, unix::net::UnixStream},
    sync::{Arc, mpsc::sync_channel},
    thread,
};

use proptest::prelude::*;
use ringfence_policy::{budget, rpz::Name, tenant::ServedTenants};

use super::{
    channel::{Frame, Kind, MAX_DESCRIPTORS, MAX_PAYLOAD},
    *,
};
use crate::{
    bindings::Bindings,
    limiter::{Bounds, HashKey, Limiter},
    listeners::{ListenerKey, Passed, PassedSocket, Role},
};

const SOON: Duration = Duration::from_millis(1);

/// A channel, and the bare stream at its other end.
fn half() -> (Channel, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Channel::new(ours).unwrap(), theirs)
}

fn pair() -> (Channel, Channel) {
    let (ours, theirs) = half();
    (ours, Channel::new(theirs).unwrap())
}

/// What a channel makes of these octets, after which the stream ends.
fn heard(octets: &[u8]) -> Result<Frame, HandoverError> {
    let (mut channel, mut peer) = half();
    let octets = octets.to_vec();
    let writing = thread::spawn(move || drop(peer.write_all(&octets)));
    let heard = channel.receive(Some(PROMPT));
    drop(channel);
    writing.join().unwrap();
    heard
}

#[test]
fn a_frame_arrives_as_it_was_sent_with_its_descriptors() {
    let (mut ours, mut theirs) = pair();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for count in [0, 1, MAX_DESCRIPTORS] {
        ours.send_with(Kind::Descriptors, b"told", &vec![listener.as_fd(); count]).unwrap();
        let frame = theirs.expect(Kind::Descriptors, PROMPT).unwrap();
        assert_eq!((frame.payload.as_slice(), frame.descriptors.len()), (&b"told"[..], count));
        for descriptor in frame.descriptors {
            assert!(rustix::io::fcntl_getfd(&descriptor).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
            assert_eq!(TcpListener::from(descriptor).local_addr().unwrap(), listener.local_addr().unwrap());
        }
    }
}

#[test]
fn what_is_no_frame_is_refused() {
    let frame =
        |kind: u8, zero: u8, descriptors: u16, length: u32| [&[kind, zero][..], &descriptors.to_be_bytes(), &length.to_be_bytes()].concat();
    for (what, octets, expected) in [
        ("nothing", vec![], "has ended"),
        ("half a head", frame(5, 0, 0, 0)[..7].to_vec(), "has ended"),
        ("half a payload", [frame(3, 0, 0, 2), vec![0]].concat(), "has ended"),
        ("another kind", frame(12, 0, 0, 0), "a frame's kind"),
        ("kind 0", frame(0, 0, 0, 0), "a frame's kind"),
        ("a flag", frame(5, 1, 0, 0), "a frame's head"),
        ("too long", frame(6, 0, 0, MAX_PAYLOAD as u32 + 1), "a frame's length"),
        ("as long as can be", frame(6, 0, 0, u32::MAX), "a frame's length"),
        ("descriptors that are not there", frame(4, 0, 1, 0), "number of descriptors"),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec(), "a frame's head"),
        ("a refusal", [frame(2, 0, 0, 3), b"why".to_vec()].concat(), "refuses: why"),
        ("that of another version", [frame(2, 0, 0, 7), b"version".to_vec()].concat(), "in another way than this version"),
    ] {
        let error = heard(&octets).unwrap_err().to_string();
        assert!(error.contains(expected), "{what}: {error}");
    }
}

#[test]
fn more_descriptors_than_a_frame_has_are_refused() {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    for count in [MAX_DESCRIPTORS + 1, 2 * MAX_DESCRIPTORS] {
        let (mut channel, peer) = half();
        let many = vec![peer.as_fd(); count];
        let mut space = vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2 * MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&many)));
        let head = [Kind::Descriptors as u8, 0, 0, count as u8, 0, 0, 0, 0];
        sendmsg(&peer, &[std::io::IoSlice::new(&head)], &mut control, SendFlags::empty()).unwrap();
        let error = channel.receive(Some(PROMPT)).unwrap_err().to_string();
        assert_eq!(error, HandoverError::Malformed("too many descriptors").to_string(), "{count}");
    }
    let (mut channel, peer) = half();
    let many = vec![peer.as_fd(); MAX_DESCRIPTORS + 1];
    assert!(channel.send_with(Kind::Descriptors, &[], &many).is_err());
    assert!(channel.send(Kind::Counters, &vec![0; MAX_PAYLOAD + 1]).is_err());
}

#[test]
fn a_silent_peer_is_not_waited_for() {
    let (mut channel, mut peer) = half();
    assert!(matches!(channel.receive(Some(SOON)), Err(HandoverError::Silent)));
    peer.write_all(&[Kind::Ready as u8, 0, 0]).unwrap();
    assert!(matches!(channel.receive(Some(SOON)), Err(HandoverError::Silent)), "nor is one that stops in a frame");
}

#[test]
fn a_refusal_is_heard_by_who_speaks_after_it() {
    let (mut ours, theirs) = pair();
    theirs.refuse(&Refusal::Other("busy".into()));
    let error = ours.send(Kind::Hello, MAGIC).unwrap_err().to_string();
    assert!(error.ends_with("refuses: busy"), "{error}");
}

#[test]
fn another_users_process_is_a_stranger() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let another = rustix::process::Uid::from_raw(rustix::process::geteuid().as_raw() ^ 1);
    assert!(matches!(Channel::with_peer_of(ours, another), Err(HandoverError::Stranger)));
}

proptest! {
    #[test]
    fn no_octets_make_a_channel_panic(octets in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = heard(&octets);
    }
}

fn handover() -> Handover {
    let limiter = Limiter::new(std::time::Instant::now(), Bounds::default());
    Handover { workload: "acme-api".into(), limiter: limiter.into(), bindings: Arc::<Bindings>::default() }
}

fn estate(of: &Handover) -> (Estate, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let key = ListenerKey { role: Role::Inbound, listen: "127.0.0.1:0".parse().unwrap(), nth: 1 };
    let passed = |place| Passed { key, place, socket: PassedSocket::Tcp(listener.try_clone().unwrap()) };
    let estate = Estate {
        lock: File::open("/dev/null").unwrap(),
        admin: Some(("127.0.0.1:15000".into(), listener.try_clone().unwrap().into())),
        // More than go into one frame.
        listeners: (0..2 * MAX_DESCRIPTORS).map(passed).collect(),
        limiter: of.limiter.hash_key().clone(),
        contexts: vec![7; 32],
    };
    (estate, listener)
}

fn ask(limiter: &Limiter, name: &str) -> bool {
    let limit = budget::Limit {
        count: budget::Count::Names,
        key: budget::Key::Tenant,
        quota: ringfence_policy::ratelimit::Quota { rate: "1/h".parse().unwrap(), burst: std::num::NonZeroU32::MIN },
        mode: ringfence_policy::ratelimit::Mode::Enforce,
        rule: ringfence_policy::RuleRef::new("Tenant/acme: dns.limits[x]"),
    };
    let (name, budget) = (name.parse::<Name>().unwrap(), std::iter::once(Arc::new(limit)).collect());
    let question = budget::Question::new(name.as_wire(), 1, false);
    limiter.ask(&question, &budget, &ServedTenants::Any, std::time::Instant::now()).is_ok()
}

#[test]
fn everything_arrives() {
    let old = handover();
    let now = std::time::Instant::now();
    let (api, address) = ("api.example.com".parse().unwrap(), "192.0.2.1".parse().unwrap());
    old.bindings.learn(&api, [address], now, now);
    assert!(ask(&old.limiter, "a.example") && !ask(&old.limiter, "b.example"));
    let (estate, listener) = estate(&old);
    let (ours, theirs) = pair();
    let (session, limiter) = (old.clone(), old.limiter.clone());
    let serving = thread::spawn(move || session.run(ours, estate).unwrap().release(&limiter).unwrap());

    let (mut predecessor, estate) = Predecessor::greet(theirs, "acme-api").unwrap();
    assert_eq!(estate.contexts, [7; 32]);
    let (admin, _) = estate.admin.unwrap();
    assert_eq!(admin, "127.0.0.1:15000");
    assert_eq!(estate.listeners.len(), 2 * MAX_DESCRIPTORS);
    let key = estate.listeners[1].key;
    assert_eq!((key.role, key.listen.to_string().as_str(), key.nth, estate.listeners[1].place), (Role::Inbound, "127.0.0.1:0", 1, 1));
    // A connection that waited in the queue is accepted there.
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.write_all(b"x").unwrap();
    drop(listener);
    let Passed { socket: PassedSocket::Tcp(passed), .. } = estate.listeners.into_iter().next().unwrap() else { panic!("a TCP socket") };
    let mut octet = [0];
    passed.accept().unwrap().0.read_exact(&mut octet).unwrap();

    let new = Handover { limiter: Limiter::with_key(now, Bounds::default(), estate.limiter).into(), ..handover() };
    predecessor.counters(&new.limiter, &new.bindings).unwrap();
    assert!(new.bindings.holds(&api, address, now));
    assert!(ask(&new.limiter, "a.example"), "asked for lately");
    assert!(!ask(&new.limiter, "b.example"), "the budget is as spent as it was");
    predecessor.succeed(new.limiter.clone()).unwrap();
    let late = serving.join().unwrap();
    drop(old);
    late.join().unwrap();
}

#[test]
fn a_handover_that_breaks_off_changes_nothing() {
    let old = handover();
    let hello = || [MAGIC.as_slice(), b"acme-api"].concat();
    type Talk = Box<dyn Fn(&mut Channel) + Send>;
    let says = |kind, payload: Vec<u8>| -> Talk { Box::new(move |channel| drop(channel.send(kind, &payload))) };
    for (what, talk, expected) in [
        ("nothing", vec![], "has ended"),
        ("another version", vec![says(Kind::Hello, b"RFHND\0\0\x02acme-api".to_vec())], "another way"),
        ("no version", vec![says(Kind::Hello, vec![])], "another way"),
        ("another workload", vec![says(Kind::Hello, [MAGIC.as_slice(), b"globex-api"].concat())], "serves the workload acme-api"),
        ("no greeting", vec![says(Kind::Ready, vec![])], "its order"),
        ("only a greeting", vec![says(Kind::Hello, hello())], "has ended"),
        ("taken at once", vec![says(Kind::Hello, hello()), says(Kind::Taken, vec![])], "its order"),
        ("not taken", vec![says(Kind::Hello, hello()), says(Kind::Ready, vec![])], "has ended"),
        ("a refusal", vec![says(Kind::Hello, hello()), says(Kind::Refused, b"no".to_vec())], "refuses: no"),
    ] {
        let (ours, mut theirs) = pair();
        talk.iter().for_each(|talk| talk(&mut theirs));
        let (estate, _) = estate(&old);
        // Says nothing more, and hears what is said.
        let hears = thread::spawn(move || {
            theirs.half_close();
            while theirs.receive(Some(PROMPT)).is_ok() {}
        });
        let error = old.clone().run(ours, estate).unwrap_err().to_string();
        assert!(error.contains(expected), "{what}: {error}");
        hears.join().unwrap();
    }
    assert!(ask(&old.limiter, "a.example"));
    assert_eq!(Arc::strong_count(&old.limiter), 1);
}

#[test]
fn what_a_predecessor_says_is_judged() {
    let key = HashKey::random();
    let keys =
        |descriptors| prost::Message::encode_to_vec(&message::Keys { limiter: key.octets().to_vec(), contexts: vec![], descriptors });
    for (what, said, expected) in [
        ("nothing", vec![], "has ended"),
        ("no keys", vec![(Kind::Estate, vec![0xff])], "its keys"),
        ("a short key", vec![(Kind::Estate, vec![])], "its limiter's key"),
        ("too much", vec![(Kind::Estate, keys(100_000))], "too many descriptors"),
        ("no lock", vec![(Kind::Estate, keys(0))], "no lock"),
        ("no descriptors", vec![(Kind::Estate, keys(1)), (Kind::Descriptors, vec![])], "number of descriptors"),
        ("another order", vec![(Kind::Complete, vec![])], "its order"),
        ("a refusal", vec![(Kind::Refused, b"another take-over is under way".to_vec())], "another take-over"),
    ] {
        let (ours, mut theirs) = pair();
        said.iter().for_each(|(kind, payload)| theirs.send(*kind, payload).unwrap());
        theirs.half_close();
        let error = Predecessor::greet(ours, "acme-api").map(drop).unwrap_err().to_string();
        assert!(error.contains(expected), "{what}: {error}");
    }
}

/// Who dies after it has passed on the sockets leaves them; what it had not told begins anew.
#[test]
fn a_predecessor_that_dies_leaves_what_it_has_passed_on() {
    let old = handover();
    let (estate, _) = estate(&old);
    let (mut ours, theirs) = pair();
    let dies = thread::spawn(move || {
        ours.expect(Kind::Hello, PROMPT).unwrap();
        estate.send(&mut ours).unwrap();
        ours.expect(Kind::Ready, PROMPT).unwrap();
    });
    let (mut predecessor, estate) = Predecessor::greet(theirs, "acme-api").unwrap();
    assert_eq!(estate.listeners.len(), 2 * MAX_DESCRIPTORS);
    let new = handover();
    predecessor.counters(&new.limiter, &new.bindings).unwrap();
    dies.join().unwrap();
    predecessor.succeed(new.limiter.clone()).unwrap();
    let (heir, _told) = sync_channel(1);
    assert_eq!(new.limiter.bequeath(&heir, std::time::Instant::now()).count(), 1, "the shared workload's own, and no tenant's");
}

/// The socket is its owner's alone, and takes the place of one that a dead process left.
#[tokio::test]
async fn the_socket_is_of_one_user() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let dead = Offer::bind(dir.path()).unwrap();
    let offer = Offer::bind(dir.path()).unwrap();
    drop(dead);
    let path = dir.path().join(SOCKET);
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let client = UnixStream::connect(&path).unwrap();
    offer.asked().await.refuse(&Refusal::Other("no".into()));
    let refused = Predecessor::greet(Channel::new(client).unwrap(), "acme-api").map(drop);
    assert!(refused.is_err());
    offer.withdraw();
    assert!(!path.exists());
}
