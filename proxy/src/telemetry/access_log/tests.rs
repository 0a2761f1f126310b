use std::{
    io,
    net::Ipv4Addr,
    time::{Instant, SystemTime},
};

use http::{StatusCode, Version};
use opentelemetry::trace::TraceId;
use proptest::prelude::*;
use ringfence_policy::{Reason, RuleRef};
use serde_json::{Value, json};

use super::*;
use crate::telemetry::{Decision, RequestId};

/// Long enough that a test which waits for it has failed.
const NEVER: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_secs(30);

fn workload() -> WorkloadName {
    "acme-api".parse().unwrap()
}

fn plain() -> AccessRecord {
    AccessRecord {
        time: SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789),
        id: RequestId(0xabc),
        route: Route::Inbound,
        listener: (Ipv4Addr::LOCALHOST, 18080).into(),
        destination: None,
        peer: None,
        tenant: None,
        subject_hash: None,
        method: Clipped::method(b"GET"),
        path: Clipped::path(b"/"),
        version: Version::HTTP_11,
        status: Some(StatusCode::OK),
        decision: Decision::Allow,
        rule: None,
        shadow: Vec::new(),
        bytes_in: 0,
        bytes_out: 0,
        timings: Timings::default(),
        upstream_error: None,
        trace_id: None,
    }
}

fn line(record: &AccessRecord) -> String {
    written(&record.clone().into())
}

fn written(record: &Record) -> String {
    let mut lines = b"before\n".to_vec();
    line::append(&record.clone(), &workload(), &mut lines);
    String::from_utf8(lines).unwrap().strip_prefix("before\n").unwrap().to_owned()
}

#[test]
fn a_line_says_all_in_one_order() {
    let record = AccessRecord {
        peer: Some("spiffe://here/tenant/acme/workload/web".parse().unwrap()),
        tenant: Some("acme".parse().unwrap()),
        subject_hash: Some([0x0f; 16]),
        method: Clipped::method(b"POST"),
        path: Clipped::path(b"/tenants/acme?token=secret"),
        version: Version::HTTP_2,
        status: Some(StatusCode::BAD_GATEWAY),
        decision: Decision::Deny(Reason::UpstreamConnect),
        rule: Some(RuleRef::new("Tenant/acme: inbound.allow[0]")),
        shadow: vec![RuleRef::new("Tenant/acme: limits[all]")],
        bytes_in: 12,
        bytes_out: 34,
        timings: Timings {
            total: Duration::from_nanos(1_500_999),
            identify: Some(Duration::from_micros(102)),
            upstream: Some(Duration::from_millis(1)),
        },
        upstream_error: Some(ConnectError::Refused),
        trace_id: Some(TraceId::from(0x4bf9)),
        ..plain()
    };
    assert_eq!(
        line(&record),
        concat!(
            r#"{"time":"2023-11-14T22:13:20.123456Z","id":"00000000000000000000000000000abc","route":"inbound","workload":"acme-api","listener":"127.0.0.1:18080","#,
            r#""peer":"spiffe://here/tenant/acme/workload/web","tenant":"acme","subject_hash":"0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f","method":"POST","path":"/tenants/acme","#,
            r#""protocol":"HTTP/2","status":502,"decision":"deny","reason":"upstream_connect","rule":"Tenant/acme: inbound.allow[0]","#,
            r#""shadow":["Tenant/acme: limits[all]"],"bytes_in":12,"bytes_out":34,"total_us":1500,"identify_us":102,"#,
            r#""upstream_us":1000,"upstream_error":"refused","trace_id":"00000000000000000000000000004bf9"}"#,
            "\n"
        )
    );
    assert_eq!(
        line(&plain()),
        concat!(
            r#"{"time":"2023-11-14T22:13:20.123456Z","id":"00000000000000000000000000000abc","route":"inbound","workload":"acme-api","listener":"127.0.0.1:18080","#,
            r#""method":"GET","path":"/","protocol":"HTTP/1.1","status":200,"decision":"allow","bytes_in":0,"bytes_out":0,"total_us":0}"#,
            "\n"
        )
    );
}

#[test]
fn a_connection_is_told_with_where_it_went() {
    let connection = ConnectionRecord {
        time: SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789),
        id: RequestId(0xabc),
        listener: (Ipv4Addr::LOCALHOST, 15001).into(),
        original: Some("198.51.100.7:443".parse().unwrap()),
        tenant: Some("acme".parse().unwrap()),
        destination: Some(Destination {
            host: "api.example".parse().unwrap(),
            port: 443,
            address: Some("203.0.113.9:443".parse().unwrap()),
        }),
        protocol: Some("tls"),
        decision: Decision::Shadow(Reason::EgressHostNotListed),
        rule: Some(RuleRef::new("Tenant/acme: egress.allow[0]")),
        shadow: vec![RuleRef::new("Tenant/acme: egress")],
        sent: 12,
        received: 34,
        total: Duration::from_micros(1500),
    };
    let begin =
        r#"{"time":"2023-11-14T22:13:20.123456Z","id":"00000000000000000000000000000abc","route":"outbound","workload":"acme-api","#;
    assert_eq!(
        written(&connection.clone().into()),
        [
            begin,
            r#""listener":"127.0.0.1:15001","tenant":"acme","original_destination":"198.51.100.7:443","#,
            r#""host":"api.example","port":443,"address":"203.0.113.9:443","protocol":"tls","decision":"shadow","#,
            r#""reason":"egress_host_not_listed","rule":"Tenant/acme: egress.allow[0]","shadow":["Tenant/acme: egress"],"#,
            r#""bytes_sent":12,"bytes_received":34,"total_us":1500}"#,
            "\n",
        ]
        .concat()
    );
    let silent =
        ConnectionRecord { original: None, tenant: None, destination: None, protocol: None, rule: None, shadow: vec![], ..connection };
    let silent = ConnectionRecord { decision: Decision::Deny(Reason::EgressMalformed), ..silent };
    assert_eq!(
        written(&silent.into()),
        [
            begin,
            r#""listener":"127.0.0.1:15001","decision":"deny","reason":"egress_malformed","bytes_sent":12,"bytes_received":34,"total_us":1500}"#,
            "\n",
        ]
        .concat()
    );
}

#[test]
fn nothing_that_a_client_sends_breaks_a_line() {
    let cases: [(&[u8], &str, &str); 9] = [
        (b"/a\nb", r#""/a\nb""#, "/a\nb"),
        (b"/a\r\n{\"s\":2}", r#""/a\r\n{\"s\":2}""#, "/a\r\n{\"s\":2}"),
        (b"/\"\\", r#""/\"\\""#, "/\"\\"),
        (b"/\0\x1b[31m\x7f", r#""/\u0000\u001b[31m\u007f""#, "/\0\x1b[31m\x7f"),
        (b"/\xff\xfe", r#""/\ufffd\ufffd""#, "/\u{fffd}\u{fffd}"),
        ("/\u{2028}\u{85}\u{202e}".as_bytes(), r#""/\u2028\u0085\u202e""#, "/\u{2028}\u{85}\u{202e}"),
        ("/é".as_bytes(), r#""/\u00e9""#, "/é"),
        ("/😀".as_bytes(), r#""/\ud83d\ude00""#, "/😀"),
        (b"", r#""""#, ""),
    ];
    for (sent, written, meant) in cases {
        let line = line(&AccessRecord { path: Clipped::path(sent), method: Clipped::method(sent), ..plain() });
        assert!(line.contains(&format!(r#""method":{written},"path":{written},"#)), "{line}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["path"], json!(meant));
    }
    let cut = line(&AccessRecord { path: Clipped::path(&[b'x'; 5000]), ..plain() });
    assert!(cut.contains(&format!(r#""path":"{}\u2026","#, "x".repeat(1024))), "{cut}");
}

#[test]
fn a_wrong_clock_costs_no_line() {
    for (time, expected) in [
        (SystemTime::UNIX_EPOCH - Duration::from_secs(1), "1970-01-01T00:00:00.000000Z"),
        (SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 50), "9999-12-31T23:59:59.000000Z"),
    ] {
        assert!(line(&AccessRecord { time, ..plain() }).starts_with(&format!(r#"{{"time":"{expected}""#)));
    }
}

proptest! {
    #[test]
    fn any_bytes_make_one_printable_line(method in prop::collection::vec(any::<u8>(), 0..40), path in prop::collection::vec(any::<u8>(), 0..1200), rule in any::<String>()) {
        let line = line(&AccessRecord {
            method: Clipped::method(&method), path: Clipped::path(&path), rule: Some(RuleRef::new(rule.as_str())), ..plain()
        });
        let inside = line.strip_suffix('\n').unwrap();
        prop_assert!(inside.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        prop_assert_eq!(&serde_json::from_str::<Value>(inside).unwrap()["rule"], &json!(rule));
    }
}

/// Tells of each write that it begins, and ends it when told to.
struct Gated {
    begun: mpsc::Sender<Vec<u8>>,
    go: mpsc::Receiver<()>,
}

impl Write for Gated {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.begun.send(bytes.to_vec()).unwrap();
        let _ = self.go.recv();
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Rig {
    log: AccessLog,
    writer: AccessLogWriter,
    begun: mpsc::Receiver<Vec<u8>>,
    go: mpsc::Sender<()>,
    metrics: Metrics,
}

fn rig(nap: Duration) -> Rig {
    let ((begun, begun_there), (go, go_there)) = (mpsc::channel(), mpsc::channel());
    let metrics = Metrics::new();
    let (log, writer) = AccessLog::start_with_nap(Gated { begun, go: go_there }, workload(), &metrics, nap).unwrap();
    Rig { log, writer, begun: begun_there, go, metrics }
}

fn ids(lines: &[u8]) -> Vec<u64> {
    let lines = std::str::from_utf8(lines).unwrap().lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|line| u64::from_str_radix(line["id"].as_str().unwrap(), 16).unwrap()).collect()
}

fn numbered(id: usize) -> AccessRecord {
    AccessRecord { id: RequestId(id as u128), ..plain() }
}

#[test]
fn a_stalled_sink_blocks_nobody_and_the_dropped_are_counted() {
    let Rig { log, writer, begun, go, metrics } = rig(Duration::ZERO);
    log.record(numbered(0));
    assert_eq!(ids(&begun.recv_timeout(SOON).unwrap()), [0]);
    // The writer is inside its sink: what comes now is queued, and beyond the queue's end dropped.
    (1..=CAPACITY + 7).for_each(|id| log.record(numbered(id)));
    assert_eq!(metrics.access_log_dropped.get(), 7);
    drop(go);
    writer.close(SOON).unwrap();
    let written: Vec<u64> = begun.iter().flat_map(|lines| ids(&lines)).collect();
    assert_eq!(written, (1..=CAPACITY as u64).collect::<Vec<_>>());
    log.record(numbered(0));
    assert_eq!(metrics.access_log_dropped.get(), 8, "a closed log counts what it is given");
}

#[test]
fn a_napping_writer_is_not_woken_and_closing_flushes() {
    let Rig { log, writer, begun, go, .. } = rig(NEVER);
    log.record(numbered(0));
    assert_eq!(ids(&begun.recv_timeout(SOON).unwrap()), [0]);
    drop(go);
    (1..100).for_each(|id| log.record(numbered(id)));
    writer.close(SOON).unwrap();
    // One batch: had the writer been woken on the way, there would be more.
    assert_eq!(begun.iter().map(|lines| ids(&lines)).collect::<Vec<_>>(), [(1..100).collect::<Vec<_>>()]);
}

#[test]
fn a_half_full_queue_ends_the_nap() {
    let Rig { log, writer, begun, go, .. } = rig(NEVER);
    log.record(numbered(0));
    assert_eq!(ids(&begun.recv_timeout(SOON).unwrap()), [0]);
    drop(go);
    (1..=HURRY).for_each(|id| log.record(numbered(id)));
    let mut written = Vec::new();
    while written.len() < HURRY {
        written.extend(ids(&begun.recv_timeout(SOON).unwrap()));
    }
    assert_eq!(written, (1..=HURRY as u64).collect::<Vec<_>>());
    writer.close(SOON).unwrap();
}

#[test]
fn a_waiting_writer_is_woken_by_each_first_record() {
    let Rig { log, writer, begun, go, .. } = rig(Duration::ZERO);
    drop(go);
    for id in 0..100 {
        log.record(numbered(id));
        assert_eq!(ids(&begun.recv_timeout(SOON).unwrap()), [id as u64]);
    }
    writer.close(SOON).unwrap();
}

#[test]
fn closing_a_stalled_log_ends_at_its_deadline() {
    let Rig { log, writer, begun, go, .. } = rig(Duration::ZERO);
    log.record(numbered(0));
    begun.recv_timeout(SOON).unwrap();
    let started = Instant::now();
    let error = writer.close(Duration::from_millis(1)).unwrap_err();
    assert_eq!(error.to_string(), "the access log was not flushed within 1ms: its sink is stalled");
    assert!(started.elapsed() < SOON);
    drop(go);
}

#[test]
fn many_threads_lose_nothing_within_the_bound() {
    let Rig { log, writer, begun, go, metrics } = rig(Duration::ZERO);
    drop(go);
    thread::scope(|scope| {
        for thread in 0..4 {
            let log = log.clone();
            scope.spawn(move || (0..CAPACITY / 4).for_each(|id| log.record(numbered(thread * CAPACITY / 4 + id))));
        }
    });
    writer.close(SOON).unwrap();
    let mut written: Vec<u64> = begun.iter().flat_map(|lines| ids(&lines)).collect();
    written.sort_unstable();
    assert_eq!(written, (0..CAPACITY as u64).collect::<Vec<_>>());
    assert_eq!(metrics.access_log_dropped.get(), 0);
}
