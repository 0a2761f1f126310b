//! SIGTERM ends what was begun and begins nothing new.

use ringfence_tests::{
    Acme, Serve, Sidecar, Site, Up, Upstream,
    dns::{self, RecordType},
    echo, eventually,
    http::get,
    procfs,
    raw::Raw,
};
use rustix::process::Signal;
use serde_json::json;

use crate::a_new_binary_takes_over::World;

#[test]
fn readiness_follows_the_policy() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    let socket = site.beside().join("ads/acme-api.ads");
    let sidecar = Sidecar::begin(&site, "acme-api", &json!({ "controlPlane": { "unix": socket } }));
    let ready = || eventually("the admin endpoint answers", || sidecar.admin.get("/readyz")).status;
    assert_eq!(ready(), 503);
    let _serve = Serve::start(&site);
    eventually("it is ready", || (ready() == 200).then_some(()));
    assert_eq!(get(sidecar.address(), "/").bearer(&site.token("acme")).send().status, 200);
}

#[test]
fn a_request_in_flight_ends_well_and_new_ones_are_not_taken() {
    let mut acme = Acme::start();
    let mut idle = Raw::connect(acme.address);
    idle.send(acme.head("GET", "/idle") + "\r\n");
    assert!(idle.response().starts_with("HTTP/1.1 200 "));
    let mut held = Raw::connect(acme.address);
    held.send(acme.head("GET", "/hold") + "\r\n");
    acme.upstream.begun("/hold");

    acme.sidecar.process.signal(Signal::TERM);
    let draining = eventually("readiness is off", || acme.sidecar.admin.get("/readyz").filter(|reply| reply.status == 503));
    assert_eq!(draining.text(), "draining\n");
    eventually("no new connection is taken", || std::net::TcpStream::connect(acme.address).is_err().then_some(()));
    assert_eq!(idle.rest(), "", "a connection without a request is closed");
    assert!(acme.sidecar.process.is_running());

    acme.upstream.release();
    let reply = held.rest();
    assert!(reply.starts_with("HTTP/1.1 200 ") && reply.to_ascii_lowercase().contains("connection: close"), "{reply}");
    assert!(acme.sidecar.process.ended().success());
    assert_eq!(acme.sidecar.log.line("/hold")["status"], 200, "its line is written before the end");
}

/// A request that ends may need to ask others for it.
#[test]
fn what_leaves_the_workload_does_so_until_the_last_request_has_ended() {
    let mut world = World::start();
    let mut held = Raw::connect(world.clients.inbound);
    held.send(world.clients.head("/hold") + "\r\n");
    world.upstream.begun("/hold");
    world.sidecar.process.signal(Signal::TERM);
    eventually("no new connection is taken", || std::net::TcpStream::connect(world.clients.inbound).is_err().then_some(()));
    for _ in 0..3 {
        echo::ping(&mut world.clients.tunnel());
        assert_eq!(dns::answer(world.clients.names, "echo.test", RecordType::A).answers.len(), 1);
    }
    world.upstream.release();
    assert!(held.rest().starts_with("HTTP/1.1 200 "));
    assert!(world.sidecar.process.ended().success());
    assert!(std::net::TcpStream::connect(world.clients.egress).is_err());
}

#[test]
fn an_http2_connection_is_told_to_end() {
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    let mut acme = Acme::start();
    let mut connection = Raw::connect(acme.address);
    connection.send([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]].concat());
    // Ours is acknowledged: the connection is open.
    connection.until([0, 0, 0, SETTINGS, 1, 0, 0, 0, 0]);
    acme.sidecar.process.signal(Signal::TERM);
    let octets = connection.rest_octets();
    let (mut rest, mut kinds) = (octets.as_slice(), Vec::new());
    while let Some((head, more)) = rest.split_first_chunk::<9>() {
        kinds.push(head[3]);
        rest = &more[u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize..];
    }
    assert!(kinds.contains(&GOAWAY), "{kinds:?}");
    assert!(acme.sidecar.process.ended().success());
}

#[test]
fn a_request_that_does_not_end_is_cut_at_the_deadline() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    let serve = Serve::start(&site);
    let mut sidecar = Sidecar::start_with(&site, &serve, "acme-api", &json!({ "drainSeconds": 1 }));
    let mut held = Raw::connect(sidecar.address());
    held.send(format!("GET /hold HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n", site.token("acme")));
    upstream.begun("/hold");
    assert!(sidecar.process.terminate().success());
    assert!(!held.rest().starts_with("HTTP/1.1 200 "));
}

#[test]
fn up_ends_its_sidecars() {
    for signal in [Signal::TERM, Signal::INT] {
        let upstream = Upstream::start();
        let site = Site::acme(upstream.address);
        let mut up = Up::start(&site.dir());
        let address = up.address("acme-api");
        let sidecar = up.sidecar_pid("acme-api").unwrap();
        let mut held = Raw::connect(address);
        held.send(format!("GET /hold HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n", site.token("acme")));
        upstream.begun("/hold");
        up.process.signal(signal);
        up.process.line(|line| line == "ringfence: draining");
        upstream.release();
        assert!(held.rest().starts_with("HTTP/1.1 200 "));
        assert!(up.process.ended().success());
        assert!(procfs::arguments(sidecar).is_empty(), "the sidecar has ended");
    }
}
