//! h2spec, strict cases too, against every listener that speaks HTTP/2. `tests/run` builds it from `h2spec/go.mod`.

use std::{
    collections::BTreeSet,
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use ringfence_tests::{Site, Up, Upstream, raw::Raw, site::object, tls};

/// Of the version that is pinned, strict ones among them.
const CASES: usize = 146;
/// An invalid preface, on a listener that takes HTTP/1.1 as well: what it reads is a bad request line, which is answered by a 400 (RFC 9112
/// §3) before the connection is closed, as RFC 9113 §3.4 wants. h2spec takes that answer for a frame.
const NOT_A_PREFACE: &str = "http2/3.5 Sends invalid connection preface";

/// Answered by more octets than the smallest window that h2spec opens.
const BODY: &str = "/big/100";

/// The tool, where it is built; says so where it is not.
#[allow(clippy::print_stdout, reason = "what a test skips it says in its output")]
fn h2spec() -> Option<PathBuf> {
    let test = env::current_exe().unwrap();
    let program = test.ancestors().nth(3).unwrap().join("h2spec");
    if program.is_file() {
        return Some(program);
    }
    println!("skipped: needs h2spec");
    None
}

/// One workload with a cleartext listener, one with TLS, and the proxy for what leaves it.
struct Listeners {
    up: Up,
    site: Site,
    _upstream: Upstream,
}

impl Listeners {
    fn start() -> Self {
        let (site, upstream) = (Site::new(), Upstream::start());
        let (certificate, key) = tls::pair("localhost");
        site.write("tls.crt", &certificate);
        site.write("tls.key", &key);
        site.tenant("acme", "");
        let to = format!("listen: 127.0.0.1:0, upstream: {}, public: [/**]", upstream.address);
        let inbound = format!("[{{ {to} }}, {{ {to}, tls: {{ certificate: tls.crt, key: tls.key }} }}]");
        let spec = format!("{{ tenant: acme, inbound: {inbound}, egress: {{ listen: 127.0.0.1:0, capture: none }} }}");
        site.write("job.yaml", &object("Workload", "job", &spec));
        Self { up: Up::start(&site.dir()), site, _upstream: upstream }
    }
}

/// Runs all cases; those that failed.
fn failures(program: &Path, report: &Path, address: SocketAddr, options: &[&str]) -> BTreeSet<String> {
    let port = address.port().to_string();
    let output = Command::new(program)
        .args(["--strict", "--timeout", "10", "--host", "127.0.0.1", "--port", &port, "--path", BODY, "--junit-report"])
        .arg(report)
        .args(options)
        .output()
        .unwrap();
    let report = fs::read_to_string(report).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let cases: Vec<_> = report.split("<testcase ").skip(1).collect();
    assert_eq!(cases.len(), CASES, "{report}");
    let failed = cases.into_iter().filter(|case| !case.contains("></testcase>"));
    failed.map(|case| format!("{} {}", attribute(case, "package"), attribute(case, "classname"))).collect()
}

fn attribute<'a>(element: &'a str, name: &str) -> &'a str {
    let (_, value) = element.split_once(&format!("{name}=\"")).unwrap();
    value.split_once('"').unwrap().0
}

#[test]
fn http2_is_spoken_as_h2spec_has_it() {
    let Some(program) = h2spec() else { return };
    let listeners = Listeners::start();
    let admin = listeners.up.admin("job");
    let (inbound, proxy) = (admin.addresses(), admin.listener("outbound"));
    let (clear, secured) = (inbound[0], inbound[1]);
    for (name, address, options, expected) in [
        ("inbound in cleartext", clear, &[][..], &[NOT_A_PREFACE][..]),
        ("inbound over TLS", secured, &["--tls", "--insecure"], &[]),
        ("the proxy for what leaves", proxy, &[], &[NOT_A_PREFACE]),
    ] {
        let report = listeners.site.beside().join("h2spec.xml");
        let expected = expected.iter().map(ToString::to_string).collect();
        let mut failed = failures(&program, &report, address, options);
        // Whoever answers a request's head before its body has come may overtake a case that waits for the fault of the body to be told. What
        // is wrong is so each time.
        for _ in 0..3 {
            if failed == expected {
                break;
            }
            failed = &failed & &failures(&program, &report, address, options);
        }
        assert_eq!(failed, expected, "{name}");
    }
    for address in [clear, proxy] {
        let mut raw = Raw::connect(address);
        raw.send("INVALID CONNECTION PREFACE\r\n\r\n");
        let reply = raw.rest();
        assert!(reply.starts_with("HTTP/1.1 400 ") && reply.to_ascii_lowercase().contains("\r\nconnection: close\r\n"), "{reply}");
    }
}
