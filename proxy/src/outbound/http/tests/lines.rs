//! What the access log says.

use std::{fs::File, time::Duration};

use ringfence_policy::{egress::Protocol, tenant::ServedTenants};
use serde_json::Value;

use super::sidecar::{Sidecar, http, rule};
use crate::{
    hop::peers::{Origin, run},
    telemetry::{access_log::AccessLog, metrics::Metrics},
};

#[test]
fn each_request_has_a_line_and_a_tunnel_has_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let sink = File::create(&path).unwrap();
    let (log, writer) = AccessLog::start(sink, "test".parse().unwrap(), &Metrics::new()).unwrap();
    let (port, address) = run_to_end(log);
    writer.close(Duration::from_secs(20)).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<String> = lines
        .iter()
        .map(|line| {
            assert_eq!((&line["route"], &line["tenant"]), (&"outbound".into(), &"acme".into()), "{line}");
            let field = |name: &str| line.get(name).map_or("-".to_owned(), |value| value.to_string().replace('"', ""));
            let ports = |text: String| text.replace(&address, "A").replace(&port.to_string(), "O");
            ports(
                ["method", "path", "host", "port", "address", "status", "decision", "reason", "bytes_out", "bytes_received"]
                    .map(field)
                    .join(" "),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "GET /ok a.test O A 200 allow - 2 -",
            "GET /no a.test O - 403 deny egress_request_denied 145 -",
            "CONNECT  b.test O - 403 deny egress_host_not_listed 130 -",
            "GET /ok a.test O A 200 deny egress_host_not_listed 6 -",
            "- - c.test O A - allow - - 6",
            // Refused for how they say where they go.
            "GET /ok a.test O - 403 deny egress_name_mismatch 134 -",
            "CONNECT  a.test O - 403 deny egress_name_mismatch 134 -",
            "GET /ok a.test 443 - 400 deny request_malformed 131 -",
            "GET /ok a.test 80 - 403 deny egress_name_mismatch 134 -",
            // The guard lets no octet of these through.
            "GET / - - - 400 deny request_malformed 131 -",
            "GET / - - - 400 deny request_malformed 131 -",
        ]
        .map(|line| line.to_owned()),
        "{text}"
    );
}

/// The port and the address of the one destination.
fn run_to_end(log: AccessLog) -> (u16, String) {
    let mut at = None;
    run(async {
        let (origin, address) = Origin::bind().await;
        let port = address.port();
        at = Some((port, address.to_string()));
        let rules = || vec![rule(&["a.test"], port, Protocol::Http, &["/ok"]), rule(&["c.test"], port, Protocol::Tcp, &[])];
        let tenants = ServedTenants::One("acme".parse().unwrap());
        let mut sidecar = Sidecar::telling(Some(log), tenants, vec![("acme", rules())]).await;
        let mut client = sidecar.client().await;
        let get = |path: &str| format!("GET http://a.test:{port}{path}?secret HTTP/1.1\r\nHost: a.test:{port}\r\n\r\n");
        client.send(get("/ok")).await;
        let mut upstream = origin.accept().await;
        upstream.head().await;
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        client.until("ok").await;
        client.send(get("/no")).await;
        client.until("}").await;
        client.send(format!("CONNECT b.test:{port} HTTP/1.1\r\nHost: b.test:{port}\r\n\r\n")).await;
        client.until("}").await;
        // Cut in the middle.
        client.send(get("/ok")).await;
        upstream.head().await;
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfirst\n").await;
        client.until("first\n").await;
        sidecar.push(vec![("acme", vec![http(&["other.test"], port), rule(&["c.test"], port, Protocol::Tcp, &[])])]);
        client.rest().await;
        let mut client = sidecar.client().await;
        client.send(format!("CONNECT c.test:{port} HTTP/1.1\r\nHost: c.test:{port}\r\n\r\n\x01ping\n")).await;
        client.head().await;
        let mut upstream = origin.accept().await;
        upstream.until("ping\n").await;
        upstream.send("hello\n").await;
        client.until("hello\n").await;
        drop(client);
        upstream.rest().await;
        drop(upstream);
        for head in [
            format!("GET http://a.test:{port}/ok HTTP/1.1\r\nHost: b.test:{port}\r\n"),
            format!("CONNECT a.test:{port} HTTP/1.1\r\nHost: b.test:{port}\r\n"),
            "GET https://a.test/ok HTTP/1.1\r\nHost: a.test\r\n".to_owned(),
            // As if the kernel had brought it here.
            "GET /ok HTTP/1.1\r\nHost: a.test\r\n".to_owned(),
            "GET ftp://a.test/ok HTTP/1.1\r\nHost: a.test\r\n".to_owned(),
            "GET ok HTTP/1.1\r\nHost: a.test\r\n".to_owned(),
        ] {
            let mut client =
                if head.starts_with("GET /") { sidecar.captured(([192, 0, 2, 7], port).into()).await } else { sidecar.client().await };
            client.send(format!("{head}Connection: close\r\n\r\n")).await;
            client.rest().await;
        }
        sidecar.drained().await;
    });
    at.unwrap()
}
