//! Requests and responses that pass, and those that do not.

use super::peers::{Origin, Sidecar, run};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn connections_are_kept_on_both_sides() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let sidecar = Sidecar::start(address);
        let mut client = sidecar.client().await;
        client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut workload = origin.accept().await;
        assert!(workload.head().await.starts_with("get /1 http/1.1\r\n"));
        workload.send(OK).await;
        client.until("\r\n\r\nok").await;
        client.send("GET http://A/2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = workload.head().await;
        assert!(head.starts_with("get /2 http/1.1\r\n") && head.contains("\r\nhost: a\r\n"), "{head}");
        workload.send(OK).await;
        client.until("\r\n\r\nok").await;
    });
}

#[test]
fn a_bad_request_is_refused_in_its_turn_and_ends_the_connection() {
    let bad = [
        ("two hosts", "GET /bad HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        ("both framings", "POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("a bad chunk behind a good head", "POST /bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;x\r\n"),
        ("more behind the end", "GET /bad HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /worse HTTP/1.1\r\nHost: a\r\n\r\n"),
    ];
    for (name, bad) in bad {
        run(async {
            let (origin, address) = Origin::bind().await;
            let sidecar = Sidecar::start(address);
            let mut client = sidecar.client().await;
            // The bad request once in one read with a good one and once behind it.
            for follows in [false, true] {
                let good = "GET /good HTTP/1.1\r\nHost: a\r\n\r\n";
                client.send(if follows { good.to_owned() } else { format!("{good}{bad}") }).await;
                let mut workload = origin.accept().await;
                assert!(workload.head().await.starts_with("get /good "), "{name}");
                workload.send(OK).await;
                assert!(client.head().await.starts_with("http/1.1 200 "), "{name}");
                client.until("ok").await;
                if follows {
                    client.send(bad).await;
                }
                let head = client.head().await;
                assert!(head.starts_with("http/1.1 400 "), "{name}: {head}");
                assert!(head.contains("\r\nconnection: close\r\n") && head.contains("application/problem+json"), "{name}: {head}");
                assert!(
                    head.contains(r#"proxy-status: ringfence; error=http_request_error; details="request_malformed""#),
                    "{name}: {head}"
                );
                let body: serde_json::Value = serde_json::from_str(&client.rest().await).unwrap();
                assert_eq!(body["reason"], "request_malformed", "{name}");
                drop(workload);
                client = sidecar.client().await;
            }
        });
    }
}

#[test]
fn a_body_that_turns_bad_never_completes_upstream() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let sidecar = Sidecar::start(address);
        let mut client = sidecar.client().await;
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
        let mut workload = origin.accept().await;
        workload.until("hello\r\n").await;
        client.send("0\r\nContent-Length: 5\r\n\r\n").await;
        assert_eq!(workload.rest().await, "");
        assert!(client.rest().await.starts_with("HTTP/1.1 400 "));
    });
}

#[test]
fn bodies_stream_both_ways() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let sidecar = Sidecar::start(address);
        let mut client = sidecar.client().await;
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
        let mut workload = origin.accept().await;
        workload.until("one").await;
        // The response begins before the request has ended.
        workload.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nuno\r\n").await;
        client.until("uno").await;
        client.send("3\r\ntwo\r\n0\r\n\r\n").await;
        workload.until("two\r\n0\r\n\r\n").await;
        workload.send("3\r\ndue\r\n0\r\n\r\n").await;
        client.until("due\r\n0\r\n\r\n").await;
    });
}

#[test]
fn trailers_pass_both_ways_without_what_is_ours() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let sidecar = Sidecar::start(address);
        let mut client = sidecar.client().await;
        let names = "Trailer: x-sum, x-ringfence-tenant, X_Ringfence_Tenant\r\nTransfer-Encoding: chunked\r\n\r\n";
        let body = "1\r\nx\r\n0\r\nX-Sum: 1\r\nX-Ringfence-Tenant: globex\r\nX_Ringfence_Tenant: globex\r\n\r\n";
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n{names}{body}")).await;
        let mut workload = origin.accept().await;
        let head = workload.head().await;
        assert!(head.contains("\r\nte: trailers\r\n") && head.contains("\r\nconnection: te\r\n"), "{head}");
        assert_eq!(workload.until("\r\n\r\n").await, "1\r\nx\r\n0\r\nx-sum: 1\r\n\r\n");
        workload.send(format!("HTTP/1.1 200 OK\r\n{names}{body}")).await;
        client.head().await;
        assert_eq!(client.until("\r\n\r\n").await, "1\r\nx\r\n0\r\nx-sum: 1\r\n\r\n");
    });
}

#[test]
fn nothing_under_our_name_reaches_either_side() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let sidecar = Sidecar::start(address);
        let mut client = sidecar.client().await;
        let forged = "x-ringfence-tenant: globex\r\nX_RINGFENCE-Subject: globex\r\nX-Ringfence-Tenant: globex\r\n";
        client
            .send(format!(
                "GET / HTTP/1.1\r\nHost: a\r\n{forged}Connection: x-ringfence-tenant, host, x-gone\r\nX-Gone: 1\r\nX-Kept: 1\r\n\r\n"
            ))
            .await;
        let mut workload = origin.accept().await;
        let head = workload.head().await;
        assert!(!head.contains("globex") && !head.contains("x-gone"), "{head}");
        for kept in ["\r\nhost: a\r\n", "\r\nx-kept: 1\r\n", "\r\nx-forwarded-for: 127.0.0.1\r\n", "\r\nvia: 1.1 ringfence\r\n"] {
            assert!(head.contains(kept), "{kept}: {head}");
        }
        workload
            .send(format!("HTTP/1.1 200 OK\r\n{forged}Connection: x-gone\r\nX-Gone: 1\r\nX-Kept: 1\r\nContent-Length: 0\r\n\r\n"))
            .await;
        let head = client.head().await;
        assert!(!head.contains("globex") && !head.contains("x-gone") && head.contains("x-kept"), "{head}");
    });
}

#[test]
fn responses_without_a_body_end_where_they_should() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let sidecar = Sidecar::start(address);
        let mut client = sidecar.client().await;
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut workload = origin.accept().await;
        for response in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\r\n",
            // Informational responses end at the sidecar.
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        ] {
            workload.head().await;
            workload.send(response).await;
            let status = response.rsplit("HTTP/1.1 ").next().unwrap().split(' ').next().unwrap();
            let head = client.head().await;
            assert!(head.starts_with(&format!("http/1.1 {status} ")), "{head}");
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        }
    });
}

#[test]
fn a_body_is_asked_for_when_it_is_wanted() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let sidecar = Sidecar::start(address);
        let mut client = sidecar.client().await;
        client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").await;
        let mut workload = origin.accept().await;
        assert!(!workload.head().await.contains("expect"));
        assert_eq!(client.head().await, "http/1.1 100 continue\r\n\r\n");
        client.send("hi").await;
        workload.until("hi").await;
        workload.send(OK).await;
        assert!(client.head().await.starts_with("http/1.1 200 "));
    });
}

#[test]
fn http_1_0_is_answered_and_closed() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let sidecar = Sidecar::start(address);
        let mut client = sidecar.client().await;
        client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
        let mut workload = origin.accept().await;
        assert!(workload.head().await.starts_with("get / http/1.1\r\n"));
        workload.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.0 200 ") && answer.ends_with("\r\n\r\nok"), "{answer}");
    });
}
