//! Steady load of every kind while one process follows another.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use ringfence_tests::{
    dns::{self, RecordType},
    echo, eventually,
    http::get,
    raw::Raw,
};
use serde_json::json;

use super::{Clients, World};

const TAKE_OVERS: usize = 100;

/// What one kind of client has done.
#[derive(Default)]
struct Done {
    count: AtomicUsize,
    /// Microseconds that each took.
    took: std::sync::Mutex<Vec<u64>>,
}

impl Done {
    fn once(&self, work: impl FnOnce()) {
        let begun = Instant::now();
        work();
        self.took.lock().unwrap().push(begun.elapsed().as_micros() as u64);
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    fn percentile(&self, percent: usize) -> Duration {
        let mut took = self.took.lock().unwrap().clone();
        took.sort_unstable();
        Duration::from_micros(took[(took.len() - 1) * percent / 100])
    }
}

/// Requests one after another on one connection, and on the next where the reply says that this one ends.
fn keep_alive(clients: &Clients, done: &Done) -> impl FnMut() {
    let (address, request) = (clients.inbound, clients.head("/kept") + "\r\n");
    let mut connection = Raw::connect(address);
    move || {
        done.once(|| {
            connection.send(&request);
            let reply = connection.response();
            assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
            if reply.to_ascii_lowercase().contains("\r\nconnection: close") {
                connection = Raw::connect(address);
            }
        });
    }
}

fn of_kind<'a>(clients: &'a Clients, kind: &str, done: &'a Done) -> Box<dyn FnMut() + 'a> {
    match kind {
        "HTTP/1.1, kept" => Box::new(keep_alive(clients, done)),
        "HTTP/1.1, new" => Box::new(|| done.once(|| assert_eq!(clients.status(), 200))),
        "HTTP/2, new" => Box::new(|| done.once(|| assert_eq!(get(clients.inbound, "/").bearer(&clients.token).send_h2().status, 200))),
        "DNS" => Box::new(|| {
            done.once(|| {
                let answer = dns::answer(clients.names, "echo.test", RecordType::A);
                assert_eq!(answer.answers.len(), 1, "{answer}");
            });
        }),
        _ => Box::new(|| done.once(|| echo::ping(&mut clients.tunnel()))),
    }
}

const KINDS: [&str; 5] = ["HTTP/1.1, kept", "HTTP/1.1, new", "HTTP/2, new", "DNS", "CONNECT"];

/// Load of every kind while `work` goes on, which is given what waits until each kind has done some more. Each request, query or connection
/// must come to its good end, or the test fails.
fn under_load(clients: &Clients, done: &[Done; KINDS.len()], work: impl FnOnce(&dyn Fn())) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for (kind, done) in KINDS.iter().zip(done) {
            let is_over = &is_over;
            scope.spawn(move || {
                let mut once = of_kind(clients, kind, done);
                while !is_over.load(Ordering::SeqCst) {
                    once();
                }
            });
        }
        let goes_on = || {
            let before = done.each_ref().map(|done| done.count.load(Ordering::SeqCst));
            eventually("each kind goes on", || {
                done.iter().zip(before).all(|(done, before)| done.count.load(Ordering::SeqCst) > before + 1).then_some(())
            });
        };
        // Those that fail end their threads: the scope tells of it in the end.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            goes_on();
            work(&goes_on);
        }));
        is_over.store(true, Ordering::SeqCst);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn a_hundred_in_a_row_lose_no_request_query_or_connection() {
    let mut world = World::with("", &json!({ "threads": 2 }));
    let (quiet, done) = (<[Done; KINDS.len()]>::default(), <[Done; KINDS.len()]>::default());
    under_load(&world.clients, &quiet, |goes_on| (0..10).for_each(|_| goes_on()));
    let (mut took, mut before) = (Vec::new(), Vec::new());
    let begun = Instant::now();
    under_load(&world.clients, &done, |goes_on| {
        for _ in 0..TAKE_OVERS {
            let asked = Instant::now();
            let successor = world.sidecar.take_over();
            before.push(world.sidecar.succeeded_by(successor));
            took.push(asked.elapsed());
            assert_eq!(world.sidecar.admin.get("/readyz").map(|reply| reply.status), Some(200));
        }
        goes_on();
    });
    let whole = begun.elapsed();
    took.sort_unstable();
    println!("{TAKE_OVERS} take-overs in {whole:?}, each {:?} (median), {:?} (longest)", took[TAKE_OVERS / 2], took[TAKE_OVERS - 1]);
    for ((kind, quiet), done) in KINDS.iter().zip(&quiet).zip(&done) {
        let figures = |done: &Done| format!("{:?} / {:?} / {:?}", done.percentile(50), done.percentile(99), done.percentile(100));
        println!(
            "{kind}: {} done, none failed; p50 / p99 / longest {}; undisturbed {}",
            done.count.load(Ordering::SeqCst),
            figures(done),
            figures(quiet)
        );
    }
    assert!(before.iter_mut().all(|process| process.ended().success()), "each drains and ends well");
}

/// Of an HTTP/1.1 connection on which nothing is asked, and of what is under way.
#[test]
fn what_is_open_ends_where_it_is() {
    let mut world = World::start();
    let request = |target: &str| world.clients.head(target) + "\r\n";
    let (mut held, mut idle, mut unused, mut tunnel) = (
        Raw::connect(world.clients.inbound),
        Raw::connect(world.clients.inbound),
        Raw::connect(world.clients.inbound),
        world.clients.tunnel(),
    );
    held.send(request("/hold"));
    world.upstream.begun("/hold");
    idle.send(request("/first"));
    assert!(idle.response().starts_with("HTTP/1.1 200 "));
    echo::ping(&mut tunnel);

    let (next, last) = (request("/second"), request("/third"));
    let successor = world.sidecar.take_over();
    let mut old = world.sidecar.succeeded_by(successor);
    for (connection, request) in [(&mut idle, next), (&mut unused, last)] {
        connection.send(request);
        let reply = connection.response().to_ascii_lowercase();
        assert!(reply.starts_with("http/1.1 200 ") && reply.contains("connection: close"), "{reply}");
    }
    assert_eq!((idle.rest().as_str(), unused.rest().as_str()), ("", ""));
    echo::ping(&mut tunnel);
    assert_eq!(world.clients.status(), 200, "new ones are the new process's");
    assert!(old.is_running());
    drop(tunnel);
    world.upstream.release();
    let reply = held.rest().to_ascii_lowercase();
    assert!(reply.starts_with("http/1.1 200 ") && reply.contains("connection: close"), "{reply}");
    assert!(old.ended().success());
}

#[test]
fn data_threads_may_become_more_or_fewer() {
    let mut world = World::with("", &json!({ "threads": 3 }));
    let bootstrap = world.sidecar.bootstrap();
    under_load(&world.clients, &Default::default(), |goes_on| {
        for threads in [1, 4, 2, 1] {
            let mut fields: serde_json::Value = serde_json::from_slice(&std::fs::read(&bootstrap).unwrap()).unwrap();
            fields["threads"] = threads.into();
            std::fs::write(&bootstrap, fields.to_string()).unwrap();
            let successor = world.sidecar.take_over();
            let mut old = world.sidecar.succeeded_by(successor);
            goes_on();
            assert!(old.ended().success());
            goes_on();
        }
    });
}
