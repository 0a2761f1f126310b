//! What a captured workload may try to get past its sidecar, and that none of it arrives outside. Two network namespaces: a pod and a world
//! with its own DNS, where a canary counts every packet that it does not expect. `tests/README.md` lists the attempts.

mod direct;
mod lifecycle;
mod through;
mod world;

use std::{io::Write, net::TcpListener};

use ringfence_tests::{
    Canary, Echo,
    dns::{self, RecordType},
    echo,
    pod::{SIDECAR, WORKLOAD},
    raw::Raw,
    tls,
};

use self::{
    direct::ATTEMPTS,
    world::{ALLOWED_V4, ALLOWED_V6, DATABASE_PORT, DATABASE_V4, DATABASE_V6, RESOLVER_V4, RESOLVER_V6, World, net},
};

#[test]
fn nothing_gets_past_the_sidecar_that_would_without_rules() {
    let Some(bare) = net() else { return };
    let canary = Canary::new(&bare);
    for attempt in &ATTEMPTS {
        attempt.make(&bare.pod);
        let seen = canary.seen(SIDECAR);
        assert!(!seen.is_empty(), "without rules, the canary sees: {}", attempt.name);
        println!("{}: without rules the canary sees {}", attempt.name, seen.join(", "));
    }

    drop(canary);
    drop(bare);

    let Some(world) = World::new() else { return };
    attempts_fail(&world, "before the sidecar starts");
    let mut sidecar = world.pod.start().ready();
    attempts_fail(&world, "while the sidecar runs");
    sidecar.process.terminate();
    attempts_fail(&world, "after SIGTERM");
    let mut sidecar = world.pod.start().ready();
    sidecar.process.kill();
    attempts_fail(&world, "after SIGKILL");
}

#[track_caller]
fn attempts_fail(world: &World, when: &str) {
    let canary = world.canary();
    for attempt in &ATTEMPTS {
        attempt.make(&world.pod.net.pod);
        world.nothing_arrived(&canary, &format!("{when}: {}", attempt.name));
    }
}

/// What all this is for: the workload does its work, and needs to know nothing of the sidecar.
#[test]
fn what_is_allowed_works() {
    let Some(world) = World::started() else { return };
    let canary = world.canary();
    // DNS: whatever server the workload asks, over UDP and TCP, IPv4 and IPv6, the sidecar answers.
    for server in [RESOLVER_V4, RESOLVER_V6, "127.0.0.53".parse().unwrap()] {
        for (kind, expected) in [(RecordType::A, ALLOWED_V4), (RecordType::AAAA, ALLOWED_V6)] {
            assert_eq!(world.pod.net.pod.inside_as(WORKLOAD, || dns::ask(server, "allowed.test", kind)), [expected], "{server}");
        }
    }
    let over_tcp = world.pod.net.pod.inside_as(WORKLOAD, || dns::ask_over_tcp(RESOLVER_V4, "allowed.test", RecordType::A));
    assert_eq!(over_tcp, [ALLOWED_V4]);
    for (i, address) in [ALLOWED_V4, ALLOWED_V6].into_iter().enumerate() {
        let reply = tls::get(world.pod.connect(address, 443).unwrap(), "allowed.test", &format!("/big/{}", 8 << 20)).unwrap();
        assert!(reply.starts_with("HTTP/1.1 200 ") && reply.len() > 8 << 20, "{}", reply.len());
        let mut raw = Raw::on(world.pod.connect(address, 80).unwrap());
        raw.send(format!("GET /works/{i} HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n"));
        assert!(raw.rest().starts_with("HTTP/1.1 200 "));
    }
    for address in [DATABASE_V4, DATABASE_V6] {
        let _database = Echo::on(world.pod.net.outside.inside(|| TcpListener::bind((address, DATABASE_PORT)).unwrap()));
        echo::ping(&mut Raw::on(world.pod.connect(address, DATABASE_PORT).unwrap()));
    }
    // Of a protocol in which the server speaks first, to where a listed name leads.
    let ssh = world.pod.net.outside.inside(|| TcpListener::bind((ALLOWED_V4, 22)).unwrap());
    let greeting = std::thread::spawn(move || ssh.accept().unwrap().0.write_all(b"SSH-2.0-test\r\n").unwrap());
    let mut raw = Raw::on(world.pod.connect(ALLOWED_V4, 22).unwrap());
    assert_eq!(raw.until(b"\r\n"), "SSH-2.0-test\r\n");
    greeting.join().unwrap();
    world.nothing_arrived(&canary, "what is allowed");
}
