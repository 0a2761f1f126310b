use std::time::Instant;

use ringfence_policy::{
    egress::{
        EgressPolicy,
        Protocol::{Http, Tcp, Tls},
    },
    tenant::ServedTenants,
};
use tokio::io::AsyncWriteExt;

use super::peers::{Rule, Server, Sidecar, client_hello, policy, read_some, rest, run, shadow};

/// What is allowed, the name in the ClientHello, and where it arrives or the alert and the reason.
type Case = (&'static [Rule], Option<&'static str>, Result<&'static str, (u8, &'static str)>);

const ALERT: [u8; 6] = [21, 3, 3, 0, 2, 2];

#[test]
fn tls_goes_where_its_name_leads_and_nowhere_else() {
    // Nothing listens at the second loopback address: the workload claims to go there.
    let elsewhere = [127, 0, 0, 2];
    let cases: &[Case] = &[
        (&[Rule(&["api.test"], &[], Tls)], Some("api.test"), Ok("api.test")),
        (&[Rule(&["*.test"], &[], Tcp)], Some("API.test"), Ok("api.test")),
        (&[Rule(&["api.test"], &["127.0.0.0/8"], Tls)], Some("api.test"), Ok("api.test")),
        (&[Rule(&["api.test"], &[], Tls)], Some("other.test"), Err((49, "egress_host_not_listed"))),
        (&[Rule(&["api.test"], &[], Http)], Some("api.test"), Err((49, "egress_protocol_not_allowed"))),
        (&[Rule(&["api.test"], &["10.0.0.0/8"], Tls)], Some("api.test"), Err((49, "egress_address_forbidden"))),
        (&[Rule(&["inside.test"], &[], Tls)], Some("inside.test"), Err((49, "egress_address_forbidden"))),
        (&[Rule(&["absent.test"], &[], Tls)], Some("absent.test"), Err((112, "egress_name_unresolved"))),
        (&[Rule(&["api.test"], &[], Tls)], None, Err((112, "egress_name_hidden"))),
        (&[], Some("api.test"), Err((49, "egress_host_not_listed"))),
    ];
    for (rules, name, expected) in cases {
        run(async move {
            let (server, address) = Server::bind().await;
            let sidecar = Sidecar::start(policy(rules, address.port())).await;
            let mut client = sidecar.captured((elsewhere, address.port()).into()).await;
            let hello = client_hello(*name);
            client.write_all(&hello).await.unwrap();
            let case = format!("{name:?} {expected:?}");
            match expected {
                Ok(host) => {
                    let mut upstream = server.accept().await;
                    assert!(read_some(&mut upstream, hello.len()).await == hello, "{case}");
                    upstream.write_all(b"answer").await.unwrap();
                    drop(upstream);
                    client.shutdown().await.unwrap();
                    assert_eq!(rest(&mut client).await, b"answer", "{case}");
                    let line = sidecar.only_line().await;
                    assert_eq!((&line["host"], &line["decision"]), (&(*host).into(), &"allow".into()), "{case}");
                    assert_eq!(line["address"], address.to_string(), "{case}");
                    assert_eq!(line["original_destination"], format!("127.0.0.2:{}", address.port()));
                    assert_eq!((&line["bytes_sent"], &line["bytes_received"]), (&hello.len().into(), &6.into()), "{case}");
                    assert_eq!((&line["rule"], &line["tenant"]), (&"Tenant/acme: egress.allow[0]".into(), &"acme".into()), "{case}");
                }
                Err((alert, reason)) => {
                    assert_eq!(rest(&mut client).await, [&ALERT[..], &[*alert]].concat(), "{case}");
                    assert!(server.is_untouched(), "{case}");
                    drop(client);
                    let line = sidecar.only_line().await;
                    assert_eq!((&line["reason"], &line["decision"]), (&(*reason).into(), &"deny".into()), "{case}");
                    assert_eq!(line["bytes_sent"], 0, "{case}");
                }
            }
        });
    }
}

#[test]
fn tls_that_no_rule_names_may_go_to_an_address_that_a_rule_lists() {
    for (name, protocol) in [(Some("other.test"), Tls), (None, Tls), (None, Tcp), (Some("absent.test"), Tcp)] {
        run(async move {
            let (server, address) = Server::bind().await;
            let rules = [Rule(&["api.test"], &[], Tls), Rule(&[], &["127.0.0.0/8"], protocol)];
            let sidecar = Sidecar::start(policy(&rules, address.port())).await;
            let mut client = sidecar.captured(address).await;
            client.write_all(&client_hello(name)).await.unwrap();
            drop(server.accept().await);
            drop(client);
            let line = sidecar.only_line().await;
            assert_eq!((&line["host"], &line["rule"]), (&"127.0.0.1".into(), &"Tenant/acme: egress.allow[1]".into()), "{name:?}");
        });
    }
}

#[test]
fn what_nobody_can_read_goes_by_address_or_by_a_name_that_leads_there() {
    let cases: &[(&[Rule], Result<&str, &str>)] = &[
        (&[Rule(&[], &["127.0.0.0/8"], Tcp)], Ok("127.0.0.1")),
        (&[Rule(&["inside.test", "absent.test"], &[], Tcp), Rule(&["api.test"], &[], Tcp)], Ok("api.test")),
        (&[Rule(&["inside.test", "absent.test"], &[], Tcp)], Err("egress_host_not_listed")),
        (&[Rule(&["api.test"], &[], Tls)], Err("egress_host_not_listed")),
        (&[Rule(&["*.test"], &[], Tcp)], Err("egress_host_not_listed")),
        (&[Rule(&[], &["127.0.0.0/8"], Tls)], Err("egress_protocol_not_allowed")),
    ];
    for (rules, expected) in cases {
        run(async move {
            let (server, address) = Server::bind().await;
            let sidecar = Sidecar::start(policy(rules, address.port())).await;
            let mut client = sidecar.captured(address).await;
            client.write_all(b"\0\x01opaque").await.unwrap();
            match expected {
                Ok(host) => {
                    assert_eq!(read_some(&mut server.accept().await, 8).await, b"\0\x01opaque", "{host}");
                    drop(client);
                    assert_eq!(sidecar.only_line().await["host"], **host);
                }
                Err(reason) => {
                    assert_eq!(rest(&mut client).await, b"", "{reason}");
                    assert!(server.is_untouched());
                    assert_eq!(sidecar.only_line().await["reason"], **reason);
                }
            }
        });
    }
}

#[test]
fn what_the_workload_was_told_counts_where_a_rule_lists_the_name() {
    for (rules, name, is_allowed) in [
        (&[Rule(&["*.test"], &[], Tcp)], "db.test", true),
        (&[Rule(&["*.test"], &[], Tls)], "db.test", false),
        (&[Rule(&["*.test"], &[], Tcp)], "db.example", false),
    ] {
        run(async move {
            let (server, address) = Server::bind().await;
            let sidecar = Sidecar::start(policy(rules, address.port())).await;
            let now = Instant::now();
            sidecar.outbound.shared.bindings.learn(&name.parse().unwrap(), [address.ip()], now, now);
            let mut client = sidecar.captured(address).await;
            client.write_all(b"\0\x01opaque").await.unwrap();
            if is_allowed {
                assert_eq!(read_some(&mut server.accept().await, 8).await, b"\0\x01opaque");
                drop(client);
                assert_eq!(sidecar.only_line().await["host"], name);
            } else {
                assert_eq!(rest(&mut client).await, b"");
                assert!(server.is_untouched());
                assert_eq!(sidecar.only_line().await["reason"], "egress_host_not_listed");
            }
        });
    }
}

#[test]
fn a_server_that_speaks_first_is_heard() {
    run(async {
        let (server, address) = Server::bind().await;
        let sidecar = Sidecar::start(policy(&[Rule(&[], &["127.0.0.0/8"], Tcp)], address.port())).await;
        let mut client = sidecar.captured(address).await;
        server.accept().await.write_all(b"220 ready\r\n").await.unwrap();
        assert_eq!(rest(&mut client).await, b"220 ready\r\n");
        drop(client);
        assert_eq!(sidecar.only_line().await["protocol"], "tcp");
    });
}

#[test]
fn malformed_tls_is_refused_even_in_shadow_mode() {
    run(async {
        let (server, address) = Server::bind().await;
        let sidecar = Sidecar::start(shadow(policy(&[Rule(&[], &["127.0.0.0/8"], Tcp)], address.port()))).await;
        let mut client = sidecar.captured(address).await;
        client.write_all(b"\x16\x03\x01\x00\x04\x02\x00\x00\x00").await.unwrap();
        assert_eq!(rest(&mut client).await, [&ALERT[..], &[50]].concat());
        assert!(server.is_untouched());
        assert_eq!(sidecar.only_line().await["reason"], "egress_malformed");
    });
}

#[test]
fn shadow_mode_lets_it_go_where_the_workload_wanted_and_says_why_it_would_not() {
    for (name, reason) in [(Some("absent.test"), "egress_host_not_listed"), (None, "egress_name_hidden")] {
        run(async move {
            let (server, address) = Server::bind().await;
            let sidecar = Sidecar::start(shadow(policy(&[Rule(&["api.test"], &[], Tls)], address.port()))).await;
            let mut client = sidecar.captured(address).await;
            client.write_all(&client_hello(name)).await.unwrap();
            drop(server.accept().await);
            drop(client);
            let line = sidecar.only_line().await;
            assert_eq!((&line["decision"], &line["reason"]), (&"shadow".into(), &reason.into()), "{name:?}");
        });
    }
}

#[test]
fn our_own_listeners_are_reached_by_no_rule() {
    run(async {
        let (server, address) = Server::bind().await;
        let sidecar = Sidecar::start(shadow(policy(&[Rule(&["api.test"], &[], Tls)], address.port()))).await;
        sidecar.outbound.shared.own.set(vec![address]);
        let mut client = sidecar.captured(([127, 0, 0, 2], address.port()).into()).await;
        client.write_all(&client_hello(Some("api.test"))).await.unwrap();
        assert_eq!(rest(&mut client).await, [&ALERT[..], &[49]].concat());
        assert!(server.is_untouched());
        assert_eq!(sidecar.only_line().await["reason"], "egress_address_forbidden");
    });
}

#[test]
fn a_shared_workload_cannot_say_whose_its_octets_are() {
    run(async {
        let (server, address) = Server::bind().await;
        let allow = policy(&[Rule(&["api.test"], &[], Tls)], address.port());
        let sidecar = Sidecar::start(allow.clone()).await;
        sidecar.push_of(allow, ServedTenants::Some(["acme".parse().unwrap()].into()));
        let mut client = sidecar.captured(address).await;
        client.write_all(&client_hello(Some("api.test"))).await.unwrap();
        assert_eq!(rest(&mut client).await, [&ALERT[..], &[49]].concat());
        assert!(server.is_untouched());
        let line = sidecar.only_line().await;
        assert_eq!((&line["reason"], line.get("tenant")), (&"egress_context_missing".into(), None));
    });
}

#[test]
fn a_server_that_is_not_there_is_told_by_an_alert() {
    run(async {
        let (server, address) = Server::bind().await;
        drop(server);
        let sidecar = Sidecar::start(policy(&[Rule(&["api.test"], &[], Tls)], address.port())).await;
        let mut client = sidecar.captured(address).await;
        client.write_all(&client_hello(Some("api.test"))).await.unwrap();
        assert_eq!(rest(&mut client).await, [&ALERT[..], &[80]].concat());
        assert_eq!(sidecar.only_line().await["reason"], "upstream_connect");
    });
}

#[test]
fn a_tenant_has_so_many_connections_and_no_more() {
    run(async {
        let (server, address) = Server::bind().await;
        let one = EgressPolicy { max_connections: Some(1), ..policy(&[Rule(&["api.test"], &[], Tls)], address.port()) };
        let sidecar = Sidecar::start(one).await;
        let hello = client_hello(Some("api.test"));
        let mut first = sidecar.captured(address).await;
        first.write_all(&hello).await.unwrap();
        let upstream = server.accept().await;
        let mut second = sidecar.captured(address).await;
        second.write_all(&hello).await.unwrap();
        assert_eq!(rest(&mut second).await, [&ALERT[..], &[49]].concat());
        drop((first, upstream, second));
        sidecar.until_idle().await;
        let mut third = sidecar.captured(address).await;
        third.write_all(&hello).await.unwrap();
        drop(server.accept().await);
        drop(third);
        sidecar.until_idle().await;
        let reasons: Vec<_> = sidecar.lines().iter().filter_map(|line| line["reason"].as_str().map(str::to_owned)).collect();
        assert_eq!(reasons, ["egress_connections_limited"]);
    });
}
