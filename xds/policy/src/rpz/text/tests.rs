use super::*;
use crate::ratelimit::Mode;
use crate::rpz::{Action, PolicyZone, Query, Scope, Transport, Trigger, Walk, Zone};

/// The faults of a zone, a line each.
fn faults(text: &str) -> Vec<String> {
    compile(text.as_bytes(), None)
        .outcome
        .faults
        .iter()
        .map(|fault| format!("{}{fault}", if fault.fatal { "fatal: " } else { "" }))
        .collect()
}

fn zone(text: &str) -> Zone {
    let compiled = compile(text.as_bytes(), None);
    assert_eq!(compiled.outcome.faults, [], "{text}");
    Zone::open(compiled.bytes.unwrap().into()).unwrap()
}

#[test]
fn what_the_field_writes_is_read() {
    let zone = zone(
        "; a feed\r\n$TTL 30\r\n@ SOA ns.feed. h.feed. (\r\n 2026112201 ; serial\r\n 3600 900 1w 1h )\r\n  NS localhost.\r\n\
         \r\nbad.example CNAME .\r\n*.bad.example 1h IN CNAME .\r\nworse.example IN 1h30m CNAME *.\r\n\
         $ORIGIN sub\r\na CNAME rpz-drop.\r\n  ; a comment\r\nquoted 5 TXT \"a;b (c)\" d\\\"e \\065\r\n\
         odd TYPE65400 \\# 3 01 0203\r\nservice HTTPS 1 . alpn=\"h2,h3\" ipv4hint=192.0.2.1\r\nmail MX 10 mx",
    );
    assert_eq!((zone.origin().to_string(), zone.serial()), (".".into(), Some(2_026_112_201)));
    assert_eq!(zone.rule_count(Trigger::Qname), 8);
    let policy = [PolicyZone {
        name: "feed".into(),
        zone,
        scope: Scope::Tenant,
        r#override: Default::default(),
        mode: Mode::Enforce,
        max_ttl: None,
    }];
    let policy = policy.into_iter().collect();
    for (name, rtype, expected) in [
        ("bad.example", rtype::A, (Action::NxDomain, 30, vec![])),
        ("x.bad.example", rtype::A, (Action::NxDomain, 30, vec![])),
        ("worse.example", rtype::A, (Action::NoData, 30, vec![])),
        ("quoted.sub", rtype::TXT, (Action::LocalData, 30, b"\x07a;b (c)\x03d\"e\x01A".to_vec())),
        ("odd.sub", 65400, (Action::LocalData, 30, vec![1, 2, 3])),
        ("service.sub", rtype::HTTPS, (Action::LocalData, 30, b"\0\x01\0\0\x01\0\x06\x02h2\x02h3\0\x04\0\x04\xc0\0\x02\x01".to_vec())),
        ("mail.sub", rtype::MX, (Action::LocalData, 30, b"\0\x0a\x02mx\x03sub\0".to_vec())),
    ] {
        let query = Query { name: name.parse().unwrap(), rtype, client: [127, 0, 0, 1].into(), transport: Transport::Udp };
        let Some(crate::rpz::Act::Answer(rewrite)) = Walk::new(&policy, query).filter_query() else { panic!("{name}") };
        let data = rewrite.answer.first().map(|record| record.rdata.clone()).unwrap_or_default();
        assert_eq!((rewrite.decision.action, rewrite.soa.unwrap().ttl, data), expected, "{name}");
    }
}

#[test]
fn the_zone_is_named_by_its_origin_or_its_soa_record() {
    for (text, origin, expected) in [
        ("a CNAME .", None, "."),
        ("a CNAME .", Some("given.example"), "given.example."),
        ("$ORIGIN rpz.example.\na CNAME .", None, "rpz.example."),
        ("$ORIGIN rpz.example.\n@ 60 SOA a b 1 2 3 4 5\na CNAME .", Some("given.example"), "rpz.example."),
        ("rpz.example. 60 SOA a. b. 1 2 3 4 5\na.rpz.example. CNAME .", None, "rpz.example."),
        (
            "rpz.example. 60 NS localhost.\nrpz.example. 60 SOA a. b. 1 2 3 4 5\na.rpz.example. CNAME .",
            Some("given.example"),
            "rpz.example.",
        ),
        ("; nothing", Some("given.example"), "given.example."),
    ] {
        let compiled = compile(text.as_bytes(), origin.map(|origin| origin.parse().unwrap()).as_ref());
        assert_eq!(compiled.outcome.faults, [], "{text}");
        let zone = Zone::open(compiled.bytes.unwrap().into()).unwrap();
        assert_eq!(zone.origin().to_string(), expected, "{text}");
        assert_eq!(zone.rule_count(Trigger::Qname), u32::from(text.contains("CNAME")), "{text}");
    }
}

#[test]
fn what_cannot_be_read_keeps_the_zone_out_of_force() {
    for (text, expected) in [
        ("a CNAME", "fatal: line 1: a name is missing"),
        ("a CNAME . .", "fatal: line 1: `.` is one value too many"),
        ("\n\na WHAT x", "fatal: line 3: `WHAT` is no record type"),
        ("a 60 IN", "fatal: line 1: a record must have a type"),
        (" CNAME .", "fatal: line 1: the first record must have an owner"),
        ("a CH CNAME .", "fatal: line 1: class CH cannot be a policy's; it must be IN"),
        ("a..b CNAME .", "fatal: line 1: owner `a..b`: a label must not be empty"),
        ("a A 192.0.2", "fatal: line 1: `192.0.2` is not an IPv4 address"),
        ("a AAAA ::g", "fatal: line 1: `::g` is not an IPv6 address"),
        ("a MX x mx.", "fatal: line 1: `x` must be a number up to 65535"),
        ("a TXT \"open\n", "fatal: line 1: a quoted string must end on its line"),
        ("a TXT (\nx", "fatal: line 1: a parenthesis is not closed"),
        ("a TXT ((x))", "fatal: line 1: a parenthesis must not stand within another"),
        ("a TXT x)", "fatal: line 1: a parenthesis is closed that was not open"),
        ("a TXT x\\", "fatal: line 1: a backslash must not end a line"),
        ("a TYPE99 \\# 2 01", "fatal: line 1: there must be 2 octets, as two hexadecimal digits each"),
        ("a ANY x", "fatal: line 1: a zone holds no such type"),
        ("$INCLUDE other", "fatal: line 1: $INCLUDE is not supported: the records must be written out"),
        ("$GENERATE 1-9 a$ CNAME .", "fatal: line 1: $GENERATE is not supported: the records must be written out"),
        ("$TTL soon", &*format!("fatal: line 1: $TTL `soon`: {TTL_FORM}")),
        ("$TTL", "fatal: line 1: $TTL must have a value"),
        ("$TLT 5", "fatal: line 1: `$TLT` is no directive; known are $ORIGIN and $TTL"),
    ] {
        assert_eq!(faults(text), [expected], "{text}");
        assert!(compile(text.as_bytes(), None).bytes.is_none(), "{text}");
    }
    let long = format!("a TXT {}", "x".repeat(256));
    assert_eq!(faults(&long), ["fatal: line 1: a string has 256 octets; 255 are the most"]);
    // A mistake does not hide the next; a file of nothing else ends the reading.
    assert_eq!(faults("a CNAME\nb CNAME .\nc A x\n").len(), 2);
    assert_eq!(faults(&"a CNAME\n".repeat(1000)).len(), MAX_FATAL);
}

#[test]
fn what_is_no_rule_is_left_out_and_told() {
    for (text, expected) in [
        ("24.1.2.0.192.rpz-ip CNAME .", "24.1.2.0.192.rpz-ip.: the address has bits beyond the prefix; 24.0.2.0.192 would be right"),
        (
            "47.zz.1.db8.2001.rpz-ip CNAME .",
            "47.zz.1.db8.2001.rpz-ip.: the address has bits beyond the prefix; 47.zz.db8.2001 would be right",
        ),
        ("33.1.2.0.192.rpz-ip CNAME .", "33.1.2.0.192.rpz-ip.: a prefix length must be a number from 1 to 32, without leading zeros"),
        (
            "0.0.0.0.0.rpz-client-ip CNAME .",
            "0.0.0.0.0.rpz-client-ip.: a prefix length must be a number from 1 to 32, without leading zeros",
        ),
        ("032.1.2.0.192.rpz-ip CNAME .", "032.1.2.0.192.rpz-ip.: a prefix length must be a number from 1 to 32, without leading zeros"),
        (
            "32.1.2.0.256.rpz-nsip CNAME .",
            "32.1.2.0.256.rpz-nsip.: an IPv4 address must be four numbers from 0 to 255 without leading zeros, in reverse order",
        ),
        (
            "128.1.zz.zz.2001.rpz-ip CNAME .",
            "128.1.zz.zz.2001.rpz-ip.: an IPv6 address must be groups of hexadecimal digits in reverse order, eight of them or one `zz` for the \
             groups of zeros",
        ),
        (
            "32.rpz-ip CNAME .",
            "32.rpz-ip.: an address trigger must be PREFIXLENGTH.REVERSED-ADDRESS, such as 24.0.2.0.192 or 48.zz.1.db8.2001",
        ),
        ("rpz-nsdname CNAME .", "rpz-nsdname.: there must be a name before rpz-nsdname"),
        (
            "a.rpz-clientip CNAME .",
            "a.rpz-clientip.: `rpz-clientip` is no trigger; known are rpz-client-ip, rpz-ip, rpz-nsdname and rpz-nsip",
        ),
        ("a CNAME rpz-pass.", "a.: `CNAME rpz-pass.` is no action; known are ., *., rpz-passthru., rpz-drop. and rpz-tcp-only."),
        ("@ CNAME .", ".: a rule's owner must stand below the zone's origin"),
        ("good CNAME .\ngood CNAME *.", "does not go with line 1, which has the same trigger and stays"),
        ("good A 192.0.2.1\ngood CNAME garden.example.", "does not go with line 1, which has the same trigger and stays"),
    ] {
        let text = format!("{text}\nstays CNAME .\n");
        let line = if text.starts_with("good") { 2 } else { 1 };
        assert_eq!(faults(&text), [format!("line {line}: {expected}")], "{text}");
        let zone = Zone::open(compile(text.as_bytes(), None).bytes.unwrap().into()).unwrap();
        assert_eq!(zone.rule_count(Trigger::Qname), line, "{text}");
    }
    assert_eq!(
        faults("$ORIGIN rpz.example.\na CNAME .\nb.elsewhere. CNAME ."),
        ["line 3: b.elsewhere.: is outside of the zone rpz.example."]
    );
    let many = compile("24.1.2.0.192.rpz-ip CNAME .\n".repeat(1000).as_bytes(), None).outcome;
    assert_eq!((many.faults.len(), many.more_faults, many.used), (100, 900, 0));
}

#[test]
fn a_rule_has_as_many_records_as_an_answer_has_room_for() {
    // Each of 32,508 octets.
    let long = |owner: &str, octet: u8| format!("{owner} TYPE65400 \\# 32500 {}\n", format!("{octet:02x}").repeat(32_500));
    let text = [long("a", 1), long("a", 2), "a A 192.0.2.1\n".to_owned(), long("b", 1)].concat();
    let compiled = compile(text.as_bytes(), None);
    assert_eq!(faults(&text), ["line 2: is more than an answer has room for, with the other records of its rule"]);
    assert_eq!(Zone::open(compiled.bytes.unwrap().into()).unwrap().rule_count(Trigger::Qname), 2);
    let alone = format!("a TYPE65400 \\# 65000 {}\nb A 192.0.2.1\n", "00".repeat(65_000));
    assert_eq!(faults(&alone), ["line 1: a.: is more than an answer has room for, with the other records of its rule"]);
    assert_eq!(Zone::open(compile(alone.as_bytes(), None).bytes.unwrap().into()).unwrap().rule_count(Trigger::Qname), 1);
}

#[test]
fn records_of_every_zone_are_no_rules() {
    let text = b"$TTL 60\n@ SOA a. b. 1 2 3 4 5\n@ NS localhost.\nx DNAME y.\nx TYPE46 \\# 1 00\nx CNAME .\nx CNAME .\n";
    let outcome = compile(text, None).outcome;
    assert_eq!((outcome.ignored, outcome.used, outcome.faults.len()), (4, 2, 0));
}

#[test]
fn times() {
    for (text, expected) in [
        ("0", Some(0)),
        ("300", Some(300)),
        ("1h30m", Some(5400)),
        ("1W2D3H4M5S", Some(788_645)),
        ("2147483647", Some(i32::MAX as u32)),
        ("2147483648", None),
        ("99999999999", None),
        ("9999999w", None),
        ("h", None),
        ("1hh", None),
        ("1x", None),
        ("", None),
        ("-1", None),
    ] {
        assert_eq!(ttl_of(text.as_bytes()), expected, "{text}");
    }
}
