//! Whoever ends, or asks and has no right to, at whatever point: one sidecar serves.

use std::{io::Write, os::unix::process::CommandExt, process::Command};

use ringfence_tests::{
    Relay, Sidecar,
    binaries::binary,
    eventually,
    process::Process,
    relay::{self, HELLO, connect, frame},
};
use rustix::process::Signal;
use serde_json::json;

use super::World;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Victim {
    Old,
    New,
}

/// The frames of one take-over in their order, as far as they are told apart: of those that may be many, the last.
const FRAMES: [&str; 8] = ["hello", "estate", "descriptors", "ready", "counters", "complete", "taken", "released"];

#[test]
fn whoever_is_killed_at_any_point_leaves_one_that_serves() {
    for at in FRAMES {
        for victim in [Victim::Old, Victim::New] {
            // Who is killed when it is alone is not succeeded by anybody.
            if victim == Victim::New && ["taken", "released"].contains(&at) {
                continue;
            }
            let mut world = World::start();
            let relay = Relay::before(&world.sidecar.state);
            let mut new = world.sidecar.take_over();
            let mut talk = relay.met();
            pass_on(&mut talk, at);
            match victim {
                Victim::Old => world.sidecar.process.kill(),
                Victim::New => new.kill(),
            }
            drop(talk);
            if victim == Victim::Old {
                drop(world.sidecar.succeeded_by(new));
            }
            let what = format!("{victim:?} was killed at {at}");
            eventually(&what, || {
                assert!(world.sidecar.process.is_running(), "{what}:\n{}", world.sidecar.process.lines().join("\n"));
                (world.sidecar.admin.get("/readyz")?.status == 200).then_some(())
            });
            // The system chose the ports: who begins anew has others.
            world.look_up_again();
            assert_eq!(world.clients.status(), 200, "{what}");
            if victim == Victim::Old && !["hello", "estate", "descriptors"].contains(&at) {
                assert_eq!(world.sidecar.admin.listener("outbound"), world.clients.egress, "{what}: its sockets live on");
            }
            if victim == Victim::New {
                assert!(world.take_over().success(), "{what}: and the next one takes over");
                assert_eq!(world.clients.status(), 200, "{what}");
            }
        }
    }
}

/// Lets frames through until the one of this kind is about to be. It is not.
fn pass_on(talk: &mut relay::Talk, until: &str) {
    for next in &FRAMES {
        let by_new = ["hello", "ready", "taken"].contains(next);
        let (from, to) = if by_new { (&mut talk.new, &mut talk.old) } else { (&mut talk.old, &mut talk.new) };
        let mut frame = relay::receive(from).unwrap_or_else(|| panic!("no {next}"));
        // Tenants are many, and names only where some were told.
        while frame.kind != *next {
            assert!(["counters", "bindings"].contains(&frame.kind), "{} where {next} was expected", frame.kind);
            relay::send(to, &frame);
            frame = relay::receive(from).unwrap_or_else(|| panic!("no {next}"));
        }
        if *next == until {
            return;
        }
        relay::send(to, &frame);
    }
}

#[test]
fn strangers_change_nothing() {
    let mut world = World::start();
    for said in [
        vec![],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        frame("hello", b""),
        frame("taken", b""),
        frame("hello", &[&HELLO[..], b"globex-api"].concat()),
        [frame("hello", &[&HELLO[..], b"acme-api"].concat()), frame("released", b"")].concat(),
        vec![0xff; 100],
    ] {
        let mut stranger = connect(&world.sidecar.state);
        // It may be told off before it has said all.
        let _ = stranger.write_all(&said);
        let _ = stranger.shutdown(std::net::Shutdown::Write);
        while relay::receive(&mut stranger).is_some() {}
        assert_eq!(world.clients.status(), 200);
        assert!(world.sidecar.is_served_by(&world.sidecar.process));
    }
    assert!(world.take_over().success());
}

#[test]
fn another_user_cannot_ask() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: to be another user takes root");
    }
    let mut world = World::start();
    let mut nobody = Command::new(binary("ringfence-proxy"));
    nobody.uid(65_534).gid(65_534).current_dir("/");
    let mut refused = world.sidecar.take_over_by(nobody);
    assert_eq!(refused.ended().code(), Some(1));
    // Not even where every door but the last is open.
    let everybody = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o777);
    let folder = world.sidecar.state.parent().unwrap().to_owned();
    for path in [folder.parent().unwrap(), &folder, &world.sidecar.state, &world.sidecar.state.join("handover")] {
        std::fs::set_permissions(path, everybody.clone()).unwrap();
    }
    let socket = world.sidecar.state.join("handover");
    let asked = as_nobody(move || {
        let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
        let _ = stream.write_all(&frame("hello", &[&HELLO[..], b"acme-api"].concat()));
        relay::receive(&mut stream).is_some()
    });
    assert!(!asked, "nothing is said to another user");
    assert_eq!(world.clients.status(), 200);
    assert!(world.take_over().success());
}

/// On a thread that is another user's (setresuid(2) of this thread alone).
fn as_nobody<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::spawn(move || {
        let nobody = rustix::process::Uid::from_raw(65_534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        work()
    })
    .join()
    .unwrap()
}

#[test]
fn of_two_at_once_one_takes_over() {
    let mut world = World::start();
    let mut first = connect(&world.sidecar.state);
    first.write_all(&frame("hello", &[&HELLO[..], b"acme-api"].concat())).unwrap();
    assert_eq!(relay::receive(&mut first).unwrap().kind, "estate");
    let mut second = world.sidecar.take_over();
    assert_eq!(second.ended().code(), Some(1));
    let line = second.line(|line| line.contains("take-over"));
    assert!(line.ends_with("take-over: the other sidecar refuses: another take-over is under way"), "{line}");
    drop(first);
    world.sidecar.process.line(|line| line.contains("a take-over came to nothing"));
    assert!(world.take_over().success());
    assert_eq!(world.clients.status(), 200);
}

#[test]
fn one_that_hands_nothing_over_is_waited_for() {
    // It drains.
    let mut world = World::start();
    let mut held = ringfence_tests::raw::Raw::connect(world.clients.inbound);
    held.send(world.clients.head("/hold") + "\r\n");
    world.upstream.begun("/hold");
    world.sidecar.process.signal(Signal::TERM);
    eventually("it drains", || (world.sidecar.admin.get("/readyz")?.status == 503).then_some(()));
    let mut new = world.sidecar.take_over();
    new.line(|line| line.contains("waits until the sidecar") && line.contains("it offers nothing"));
    assert!(world.sidecar.process.is_running());
    world.upstream.release();
    assert!(held.rest().starts_with("HTTP/1.1 200 "));
    assert!(world.sidecar.succeeded_by(new).ended().success());
    world.sidecar = world.sidecar.ready();

    // It is of another version.
    let relay = Relay::before(&world.sidecar.state);
    let mut new = world.sidecar.take_over();
    let mut talk = relay.met();
    relay::receive(&mut talk.new).unwrap();
    talk.new.write_all(&frame("refused", b"version")).unwrap();
    new.line(|line| line.contains("waits until the sidecar") && line.contains("in another way than this version"));
    assert!(world.sidecar.process.terminate().success());
    drop(world.sidecar.succeeded_by(new));
    world.sidecar = world.sidecar.ready();
    world.look_up_again();
    assert_eq!(world.clients.status(), 200);
}

#[test]
fn where_nobody_runs_it_starts_like_any_other() {
    let mut world = World::start();
    assert!(world.sidecar.process.terminate().success());
    let new = world.sidecar.take_over();
    drop(world.sidecar.succeeded_by(new));
    world.sidecar = world.sidecar.ready();
    world.look_up_again();
    assert_eq!(world.clients.status(), 200);
}

#[test]
fn without_a_state_directory_it_is_refused() {
    let world = World::start();
    let bootstrap = world.site.beside().join("stateless.json");
    std::fs::write(&bootstrap, json!({ "workload": "acme-api", "controlPlane": { "unix": "absent" } }).to_string()).unwrap();
    let mut command = Command::new(binary("ringfence-proxy"));
    let mut process = Process::start(command.arg("run").arg("--take-over").arg("--bootstrap").arg(bootstrap));
    assert_eq!(process.ended().code(), Some(1));
    process.line(|line| line.ends_with("take-over: needs a stateDir, in which the sidecar that runs is met"));
}

#[test]
fn a_last_known_good_that_cannot_be_enforced_is_no_reason_to_end_the_one_that_serves() {
    let mut world = World::start();
    let file = world.sidecar.state.join("last-good");
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, b"damaged").unwrap();
    let mut new: Process = world.sidecar.take_over();
    assert_eq!(new.ended().code(), Some(1));
    new.line(|line| line.ends_with("take-over: the last known good makes no policy here; the other sidecar goes on"));
    assert_eq!(world.clients.status(), 200);
    std::fs::write(&file, good).unwrap();
    let sidecar: &Sidecar = &world.sidecar;
    assert!(sidecar.is_served_by(&sidecar.process));
    assert!(world.take_over().success());
    assert_eq!(world.clients.status(), 200);
}
