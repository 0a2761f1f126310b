//! Upstreams over TLS are asked only if they are who the operator says, and nothing is asked in the clear instead.

use std::net::SocketAddr;

use hickory_proto::{op::ResponseCode, rr::RecordType};
use ringfence_tests::{Dns, Echo, Site, Up, dns, eventually, raw::Raw, site::object, tls};

/// What the workload sees.
fn look_up(server: SocketAddr, name: &str) -> String {
    let answer = dns::answer(server, name, RecordType::A);
    match answer.metadata.response_code {
        ResponseCode::NoError => answer.answers.iter().map(|record| record.data.to_string()).collect::<Vec<_>>().join(" "),
        rcode => format!("{rcode:?}"),
    }
}

/// The workload `job`, whose upstream is told to be `name`.
fn write_job(site: &Site, upstream: &Dns, name: &str) {
    let workload = format!(
        "{{ tenant: acme, egress: {{ listen: 127.0.0.1:0 }}, \
            dns: {{ listen: 127.0.0.1:0, upstreamCaFile: ca.pem, upstreams: [\"tls://{}#{name}\"] }} }}",
        upstream.address
    );
    site.write("job.yaml", &object("Workload", "job", &workload));
}

#[test]
fn a_workloads_names_and_the_sidecars_own_go_over_tls_to_who_proves_to_be_the_upstream() {
    let (site, upstream, echo) = (Site::new(), Dns::over_tls("dns.test"), Echo::start());
    let port = echo.address.port();
    for name in ["www.test", "own.test", "other.test"] {
        upstream.set(name, &["127.0.0.1"]);
    }
    site.write("ca.pem", &tls::authority());
    site.write("platform.yaml", &object("Platform", "platform", "{ egress: { dangerousAllowPrivate: [127.0.0.0/8] } }"));
    site.tenant("acme", &format!("egress: {{ allow: [{{ name: all, hosts: [\"*.test\"], ports: [{port}], protocol: tcp }}] }}"));
    write_job(&site, &upstream, "dns.test");
    let mut up = Up::start(&site.dir());
    let admin = up.admin("job");
    let server = admin.listener("dns");
    assert_eq!(look_up(server, "www.test"), "127.0.0.1");
    let connect = |name: &str| {
        let mut raw = Raw::connect(admin.listener("outbound"));
        raw.send(format!("CONNECT {name}:{port} HTTP/1.1\r\nHost: {name}:{port}\r\n\r\n"));
        raw.head()
    };
    assert!(connect("own.test").starts_with("HTTP/1.1 200 "));
    assert!(upstream.count("own.test") > 0);

    // It is another now, as far as its certificate tells.
    write_job(&site, &upstream, "other.test");
    eventually("the upstream is not asked", || (look_up(server, "missing.test") == "ServFail").then_some(()));
    assert!(connect("other.test").starts_with("HTTP/1.1 502 "));
    assert_eq!(upstream.count("other.test"), 0);
    up.process.line(|line| line.contains("#other.test: TLS: invalid peer certificate"));
}
