//! A sidecar may be killed, find its disk full, or its clock wrong: it comes back by itself, and gives no wrong answer meanwhile.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use ringfence_tests::{
    Acme, Serve, Sidecar, Site, Traffic, Up, Upstream,
    binaries::binary,
    eventually, free_port,
    http::get,
    token::{claims, now},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

#[test]
fn killed_under_load_it_is_started_again_and_gives_no_wrong_answer() {
    let upstream = Upstream::start();
    let site = Site::new();
    let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
    site.tenant("acme", "");
    site.workload_at("acme-api", "tenant: acme", &format!("[{{ listen: {listen}, upstream: {} }}]", upstream.address));
    let up = Up::start(&site.dir());
    let traffic = Traffic::start(listen, site.token("acme"));
    traffic.goes_on();
    let pid = up.sidecar_pid("acme-api").unwrap();
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
    let from = Instant::now();
    // Whatever answers in between, it is not without a policy.
    let first = eventually("somebody answers", || get(listen, "/").try_send().ok().map(|reply| reply.verdict()));
    println!("killed: the first answer came {:?} after", from.elapsed());
    assert_eq!(first, (401, "token_missing".into()));
    traffic.goes_on();
    println!("killed: {:?}", traffic.stop());
    assert!(up.sidecar_pid("acme-api").is_some_and(|next| next != pid));
}

/// A file system of its own, unmounted when dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    /// `None` where this process may not mount, after saying so in the form that `tests/run` looks for.
    #[allow(clippy::print_stdout, reason = "what a test skips it says in its output")]
    fn mount(at: &Path, kib: u32) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let options = format!("size={kib}k,mode=0700");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "ringfence"]).arg(at).output().unwrap();
        if !output.status.success() {
            println!("skipped: needs root, to mount a small file system");
            return None;
        }
        Some(Self(at.to_owned()))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn with_its_disk_full_it_serves_says_so_and_stores_when_there_is_room() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    let Some(disk) = Tmpfs::mount(&site.beside().join("small"), 64) else { return };
    let serve = Serve::start(&site);
    let state = disk.0.join("state");
    let mut sidecar = Sidecar::start_with(&site, &serve, "acme-api", &json!({ "stateDir": state }));
    let stored = || fs::read(state.join("last-good")).unwrap();
    let before = eventually("the last known good is stored", || fs::read(state.join("last-good")).ok());
    let ballast = disk.0.join("ballast");
    let size = (1..=64).rev().find(|kib| fs::write(&ballast, vec![1; kib * 1024]).is_ok()).unwrap();
    let traffic = Traffic::start(sidecar.address(), site.token("acme"));

    site.tenant("acme", "limits: [{ name: all, rate: 100000/s }]");
    sidecar.admin.config_where("the edit is in force", |config| config["tenants"][0]["limits"][0]["rate"] == "100000/s");
    let line = sidecar.process.line(|line| line.contains("last known good: "));
    println!("disk full ({size} KiB of ballast): {line}");
    traffic.goes_on();
    assert_eq!(stored(), before, "what was stored is whole");

    fs::remove_file(&ballast).unwrap();
    let from = Instant::now();
    eventually("it is stored by itself", || (stored() != before).then_some(()));
    println!("disk full: stored {:?} after there was room; {:?}", from.elapsed(), traffic.was_whole());
    // Nobody but the disk knows the policy now.
    drop(serve);
    sidecar.process.kill();
    let sidecar =
        Sidecar::begin(&site, "acme-api", &json!({ "controlPlane": { "unix": site.beside().join("nobody") }, "stateDir": state })).ready();
    assert_eq!(sidecar.admin.config()["tenants"][0]["limits"][0]["rate"], "100000/s");
}

/// A library that changes a program's clock, where Debian has it: below a directory that is named for the machine.
fn faketime() -> Option<PathBuf> {
    let machines = fs::read_dir("/usr/lib").ok()?.flatten();
    machines.map(|machine| machine.path().join("faketime/libfaketime.so.1")).find(|library| library.exists())
}

#[test]
fn with_its_clock_an_hour_off_it_keeps_to_that_clock_for_tokens_alone() {
    let Some(faketime) = faketime() else { return println!("skipped: no libfaketime") };
    let mut acme = Acme::with("limits: [{ name: few, rate: 5/h, match: { paths: [/few] } }]");
    acme.sidecar.process.kill();
    let clock = acme.site.beside().join("clock");
    let set = |offset: &str| {
        fs::write(clock.with_extension("new"), format!("{offset}\n")).unwrap();
        fs::rename(clock.with_extension("new"), &clock).unwrap();
    };
    set("+0s");
    let mut command = Command::new(binary("ringfence-proxy"));
    command.env("LD_PRELOAD", faketime).env("FAKETIME_TIMESTAMP_FILE", &clock);
    command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let sidecar =
        Sidecar::begin_as(command, &acme.site, "acme-api", &json!({ "controlPlane": { "unix": acme.serve.socket("acme-api") } })).ready();
    let address = sidecar.address();
    let verdict = |path: &str, token: &str| get(address, path).bearer(token).send().verdict();
    let valid = |until: u64| {
        let mut claims = claims("acme", "alice");
        (claims["iat"], claims["exp"]) = (json!(now() - 10_000), json!(until));
        acme.site.key.sign(&claims)
    };
    let (short, long, expired) = (valid(now() + 1800), valid(now() + 7200), valid(now() - 1800));
    let ok = || (200, String::new());
    let over = || (401, "token_expired".to_owned());
    assert_eq!([verdict("/", &short), verdict("/", &long), verdict("/", &expired)], [ok(), ok(), over()]);
    for _ in 0..5 {
        assert_eq!(verdict("/few", &long), ok());
    }
    assert_eq!(verdict("/few", &long), (429, "rate_limited".into()));

    set("+3600s");
    assert_eq!([verdict("/", &short), verdict("/", &long), verdict("/", &expired)], [over(), ok(), over()], "an hour ahead");
    assert_eq!(verdict("/few", &long), (429, "rate_limited".into()), "limits do not go by that clock");

    set("-3600s");
    let back = [verdict("/", &short), verdict("/", &long), verdict("/", &expired)];
    // Tokens are judged by the clock that there is: behind, one that has expired since is good again.
    println!("clock an hour behind: valid for 30 min, for 2 h, expired 30 min ago: {back:?}");
    assert_eq!(back[..2], [ok(), ok()], "an hour behind locks nobody out");
    assert_eq!(verdict("/few", &long), (429, "rate_limited".into()));

    // Configuration comes in all the same.
    acme.site.tenant("acme", "limits: [{ name: few, rate: 7/h, match: { paths: [/few] } }]");
    sidecar.admin.config_where("the edit is in force", |config| config["tenants"][0]["limits"][0]["rate"] == "7/h");
    set("+0s");
    assert_eq!([verdict("/", &short), verdict("/", &long), verdict("/", &expired)], [ok(), ok(), over()], "and right again");
}
