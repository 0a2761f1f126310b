//! A sidecar that nobody asks takes little memory and no time.

use std::{sync::mpsc, time::Duration};

use ringfence_tests::{Acme, procfs};

/// An optimised build's promise, in KiB.
const RESIDENT: u64 = 8 * 1024;

#[test]
fn an_idle_sidecar_takes_little_memory_and_is_never_woken() {
    let acme = Acme::start();
    assert_eq!(acme.get("/").send().status, 200);
    let pid = acme.sidecar.process.pid();
    let resident = procfs::resident_kib(pid);
    println!("an idle sidecar takes {resident} KiB");
    if !cfg!(debug_assertions) {
        assert!(resident < RESIDENT, "{resident} KiB");
    }
    // That nothing happens can only be seen by letting time pass: the one place where a test waits by the clock. A request's last work
    // (its log line, the closed connection) may fall into the first of the quiet seconds, and not into them all.
    let (_nobody, quiet) = mpsc::channel::<()>();
    let wakeups: Vec<u64> = (0..3)
        .map(|_| {
            let before = procfs::voluntary_switches(pid);
            let _ = quiet.recv_timeout(Duration::from_secs(1));
            procfs::voluntary_switches(pid) - before
        })
        .collect();
    println!("wake-ups in each of three quiet seconds: {wakeups:?}");
    assert!(wakeups.contains(&0), "{wakeups:?}");
    assert_eq!(acme.get("/").send().status, 200);
}
