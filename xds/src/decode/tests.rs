//! One fault a row: where it is and what would be right.

mod egress;

use proptest::prelude::*;
use prost::Message;
use ringfence_policy::{
    budget::{Count, Key},
    ratelimit::{LimitKey, Mode},
    scope::ScopePolicy,
    tenant::ServedTenants,
};

use super::*;
use crate::resource::binding_name;

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).into()).collect()
}

fn good_issuer() -> proto::Issuer {
    proto::Issuer {
        issuer: "https://sso.example.com/".into(),
        audiences: strings(&["api"]),
        algorithms: strings(&["ES256"]),
        jwks: Vec::new().into(),
        tenant_claim: "org_id".into(),
        clock_skew: String::new(),
    }
}

fn good_limit() -> proto::Limit {
    proto::Limit { name: "all".into(), rate: "100/s".into(), ..proto::Limit::default() }
}

fn good_tenant() -> proto::Tenant {
    proto::Tenant {
        identity: vec![proto::Identity { issuer: "sso".into(), values: strings(&["org_acme"]) }],
        limits: vec![good_limit()],
        inbound: Some(proto::TenantInbound {
            allow: vec![proto::AllowRule { methods: strings(&["GET"]), paths: strings(&["/a"]), scopes: strings(&["read"]) }],
        }),
        in_flight: 0,
        peers: Vec::new(),
        egress: None,
        dns: None,
    }
}

fn good_listener() -> proto::InboundListener {
    proto::InboundListener { listen: "127.0.0.1:8080".into(), upstream: "127.0.0.1:9000".into(), ..proto::InboundListener::default() }
}

fn good_workload() -> proto::Workload {
    proto::Workload { tenant: "acme".into(), issuers: strings(&["sso"]), inbound: vec![good_listener()], ..proto::Workload::default() }
}

/// The faults of a body, as an operator reads them.
fn faults<B: Body>(name: &str, body: &B) -> Vec<String> {
    check(&Resource::new(name, body)).iter().map(Fault::to_string).collect()
}

type Change<B> = fn(&mut B);

fn each_fault<B: Body>(good: fn() -> B, rows: &[(Change<B>, &str)]) {
    for (change, expected) in rows {
        let mut body = good();
        change(&mut body);
        assert_eq!(faults("acme", &body), [*expected]);
    }
}

const LABEL: &str = "must be a DNS label: 1 to 63 of a-z, 0-9 and '-', neither beginning nor ending with '-'";

#[test]
fn platform_faults() {
    assert_eq!(faults(PLATFORM, &proto::Platform { in_flight: 1_000_000, ..Default::default() }), [""; 0]);
    assert_eq!(faults(PLATFORM, &proto::Platform { in_flight: 1_000_001, ..Default::default() }), ["inFlight: must be from 1 to 1000000"]);
    assert_eq!(faults("other", &proto::Platform::default()), ["must be named \"platform\": there is one per installation"]);
}

#[test]
fn binding_faults() {
    let to = |tenant: &str| proto::Binding { tenant: tenant.into() };
    for value in ["org_acme", "a/b", "ä", " ", &"x".repeat(256)] {
        assert_eq!(faults(&binding_name("sso", value), &to("acme")), [""; 0], "{value}");
    }
    let long = "x".repeat(257);
    for (issuer, value) in [("sso", ""), ("", "x"), ("SSO", "x"), ("sso", "a\nb"), ("sso", &long)] {
        let faults = faults(&binding_name(issuer, value), &to("acme"));
        assert!(faults[0].starts_with("must be named <issuer>/<claim value>, not \""), "{faults:?}");
    }
    assert_eq!(faults("sso", &to("acme")), ["must be named <issuer>/<claim value>, not \"sso\""]);
    assert_eq!(faults("sso/x", &to("*")), [format!("tenant: {LABEL}, not \"*\"")]);
}

#[test]
fn issuer_faults() {
    let only = |body: &proto::Issuer| faults("sso", body);
    assert_eq!(only(&good_issuer()), [""; 0], "its keys are not fetched yet");
    let text = "must be the exact `iss` of its tokens, at most 2048 bytes";
    let claim = "tenantClaim: must be the name of a claim, dots descend (at most 8 deep), e.g. org_id or app.org";
    let rows: &[(Change<proto::Issuer>, &str)] = &[
        (|i| i.issuer.clear(), &format!("issuer: {text}")),
        (|i| i.issuer = "x".repeat(2049), &format!("issuer: {text}")),
        (|i| i.audiences.clear(), "audiences: must have at least one audience: a token for anyone is a token for an attacker"),
        (|i| i.audiences.push(String::new()), "audiences[1]: must be 1 to 2048 bytes"),
        (|i| i.tenant_claim.clear(), claim),
        (|i| i.tenant_claim = "a..b".into(), claim),
        (|i| i.tenant_claim = "a.b.c.d.e.f.g.h.i".into(), claim),
        (|i| i.clock_skew = "61s".into(), "clockSkew: must be from 0s to 60s, not \"61s\""),
        (|i| i.clock_skew = "2m".into(), "clockSkew: must be from 0s to 60s, not \"2m\""),
        (|i| i.clock_skew = "30".into(), "clockSkew: must be from 0s to 60s, not \"30\""),
        (|i| i.clock_skew = "ä".into(), "clockSkew: must be from 0s to 60s, not \"ä\""),
        (|i| i.jwks = r#"{"keys":[]}"#.into(), "jwks: keys: must not be empty"),
        (|i| i.jwks = " ".into(), "jwks: must be a JWK set: a JSON object with an array `keys`"),
    ];
    for (change, expected) in rows {
        let mut body = good_issuer();
        change(&mut body);
        assert_eq!(only(&body), [*expected]);
    }
    for skew in ["0s", "60s", "1m"] {
        assert_eq!(only(&proto::Issuer { clock_skew: skew.into(), ..good_issuer() }), [""; 0], "{skew}");
    }
    // Without an algorithm no key is looked at: that would only repeat the fault.
    let without = proto::Issuer { algorithms: Vec::new(), jwks: "{}".into(), ..good_issuer() };
    assert_eq!(faults("sso", &without), ["algorithms: must have at least one, e.g. ES256"]);
    assert_eq!(faults("SSO", &without)[0], format!("name {LABEL}, not \"SSO\""));
}

#[test]
fn tenant_faults() {
    assert_eq!(faults("acme", &good_tenant()), [""; 0]);
    assert_eq!(faults("Acme", &good_tenant()), [format!("name {LABEL}, not \"Acme\"")]);
    each_fault(
        good_tenant,
        &[
            (|t| t.identity.clear(), "identity: must name at least one issuer: without one nobody can be this tenant"),
            (|t| t.identity[0].issuer = "Sso".into(), &format!("identity[0].issuer: {LABEL}, not \"Sso\"")),
            (|t| t.identity[0].values.clear(), "identity[0].values: must have from 1 to 1024 values"),
            (|t| t.identity[0].values.push(String::new()), "identity[0].values[1]: must be 1 to 256 bytes without control characters"),
            (|t| t.identity[0].values[0] = "a\0".into(), "identity[0].values[0]: must be 1 to 256 bytes without control characters"),
            (|t| t.identity[0].values[0] = "x".repeat(257), "identity[0].values[0]: must be 1 to 256 bytes without control characters"),
            (|t| t.identity.push(t.identity[0].clone()), "identity[1].values[0]: \"org_acme\" of this issuer is already listed"),
            (
                |t| t.peers = vec!["globex".into(), "acme".into()],
                "peers[1]: is the tenant itself, whose workloads are each other's peers in any case",
            ),
            (|t| t.peers = vec!["globex".into(); 2], "peers[1]: \"globex\" is already listed"),
            (|t| t.peers = vec!["Globex".into()], &format!("peers[0]: {LABEL}, not \"Globex\"")),
            (|t| t.peers = (0..1025).map(|i| format!("t{i}")).collect(), "peers: must be at most 1024 tenants"),
            (|t| t.in_flight = 1_000_001, "inFlight: must be from 1 to 1000000"),
            (
                |t| allow(t).scopes.push("a b".into()),
                "inbound.allow[0].scopes[1]: must be an OAuth scope: visible ASCII without space, \" and \\, not \"a b\"",
            ),
            (|t| allow(t).methods.push("get".into()), "inbound.allow[0].methods[1]: must be a method in upper case, e.g. GET, not \"get\""),
            (|t| allow(t).methods = vec!["GET".into(); 65], "inbound.allow[0].methods: must be at most 64 methods"),
            (|t| allow(t).paths = vec!["/a".into(); 1025], "inbound.allow[0].paths: must be at most 1024 patterns"),
            (|t| inbound(t).allow = vec![proto::AllowRule::default(); 4097], "inbound.allow: must be at most 4096 rules"),
        ],
    );
}

fn inbound(tenant: &mut proto::Tenant) -> &mut proto::TenantInbound {
    tenant.inbound.as_mut().unwrap()
}

fn allow(tenant: &mut proto::Tenant) -> &mut proto::AllowRule {
    &mut inbound(tenant).allow[0]
}

#[test]
fn limit_faults() {
    let burst = "limits[0].burst: must be at most 10000000 and earned back within a day at the limit's rate";
    let rate = "limits[0].rate: must be N/s, N/m or N/h with N from 1 to 1000000, e.g. 100/s, not";
    each_fault(
        good_tenant,
        &[
            (|t| t.limits[0].name = "A".into(), &format!("limits[0].name: {LABEL}, not \"A\"")),
            (|t| t.limits.push(good_limit()), "limits[1].name: \"all\" is already the name of another limit of this tenant"),
            (|t| t.limits[0].rate.clear(), &format!("{rate} \"\"")),
            (|t| t.limits[0].rate = "1/d".into(), &format!("{rate} \"1/d\"")),
            (|t| t.limits[0].burst = 10_000_001, burst),
            (|t| (t.limits[0].rate, t.limits[0].burst) = ("1/h".into(), 25), burst),
            // 3.6e12 ns each: this many are 2^64 ns and a little more.
            (|t| (t.limits[0].rate, t.limits[0].burst) = ("1/h".into(), 5_124_096), burst),
            (|t| t.limits[0].key = "header:x".into(), "limits[0].key: must be tenant, subject or claim:<name>, not \"header:x\""),
            (|t| t.limits[0].key = "claim:".into(), "limits[0].key: must be tenant, subject or claim:<name>, not \"claim:\""),
            (|t| t.limits[0].mode = "Shadow".into(), "limits[0].mode: must be enforce or shadow, not \"Shadow\""),
            (|t| t.limits[0].scope = "cluster".into(), "limits[0].scope: \"cluster\" is not built yet: remove it or write local"),
            (|t| t.limits[0].scope = "node".into(), "limits[0].scope: must be local, not \"node\""),
            (
                |t| t.limits[0].r#match = Some(proto::Match { methods: vec![String::new()], paths: Vec::new() }),
                "limits[0].match.methods[0]: must be a method in upper case, e.g. GET, not \"\"",
            ),
            (
                |t| t.limits = (0..65).map(|i| proto::Limit { name: format!("l{i}"), ..good_limit() }).collect(),
                "limits: must be at most 64",
            ),
        ],
    );
}

#[test]
fn dns_limits_are_read_as_written() {
    let limit = |count: &str, key: &str, mode: &str| proto::DnsLimit {
        name: "x".into(),
        count: count.into(),
        key: key.into(),
        rate: "600/h".into(),
        mode: mode.into(),
        ..Default::default()
    };
    for (count, key, mode, expected) in [
        ("", "", "", (Count::Queries, Key::Tenant, Mode::Enforce)),
        ("names", "domain", "shadow", (Count::Names, Key::Domain, Mode::Shadow)),
        ("entropy", "tenant", "enforce", (Count::Entropy, Key::Tenant, Mode::Enforce)),
        ("txt", "domain", "", (Count::Txt, Key::Domain, Mode::Enforce)),
    ] {
        let dns = proto::TenantDns { limits: vec![limit(count, key, mode)], ..Default::default() };
        let body = proto::Tenant { dns: Some(dns), ..good_tenant() };
        let Ok(Decoded::Tenant(policy)) = decode(Kind::Tenant, "acme", &body.encode_to_vec()) else { panic!("{count}") };
        let limit = &policy.dns.limits[0];
        assert_eq!((limit.count, limit.key, limit.mode), expected);
        assert_eq!((limit.quota.burst.get(), limit.rule.as_str()), (600, "Tenant/acme: dns.limits[x]"));
    }
    let many = proto::TenantDns { limits: vec![limit("", "", ""); 17], ..Default::default() };
    assert_eq!(faults("acme", &proto::Tenant { dns: Some(many), ..good_tenant() }), ["dns.limits: must be at most 16"]);
}

#[test]
fn stale_answers_stand_in_for_a_day_at_most() {
    let served = |text: &str| {
        let dns = proto::PlatformDns { serve_stale: text.into(), ..Default::default() };
        decode(Kind::Platform, "platform", &proto::Platform { dns: Some(dns), ..Default::default() }.encode_to_vec())
    };
    for (text, seconds) in [("", None), ("0s", Some(0)), ("0h", Some(0)), ("90s", Some(90)), ("30m", Some(1800)), ("24h", Some(86_400))] {
        let Ok(Decoded::Platform(platform)) = served(text) else { panic!("{text}") };
        assert_eq!(platform.serve_stale.map(|duration| duration.as_secs()), seconds, "{text}");
    }
    for wrong in ["25h", "1441m", "1d", "h", "+1h", "-1h", "1.5h", "1", "99999999h"] {
        let rejection = served(wrong).unwrap_err();
        let message = format!("must be from 0s (never) to 24h, e.g. 30m or 1h, not {wrong:?}");
        assert_eq!(rejection.faults, [Fault { path: "dns.serveStale".into(), message }]);
    }
}

#[test]
fn workload_faults() {
    assert_eq!(faults("api", &good_workload()), [""; 0]);
    let address = "must be an address and port, e.g. 127.0.0.1:8080 or [::1]:8080, not";
    let connected = "inbound[0].upstream: must be an address that can be connected to, not";
    let itself = "inbound[0].upstream: is the listener itself: requests would go round for ever";
    each_fault(
        good_workload,
        &[
            (|w| w.tenant.clear(), "tenant: is missing: name the tenant, or those of a shared workload as tenants: [...]"),
            (|w| w.tenant = "*".into(), &format!("tenant: {LABEL}, not \"*\"")),
            (|w| w.tenants = strings(&["acme"]), "tenants: cannot stand beside tenant: a workload is dedicated or shared"),
            (|w| shared(w, &["acme", "*"]), "tenants[1]: \"*\" (any tenant) must stand alone"),
            (|w| shared(w, &["acme", "acme"]), "tenants[1]: \"acme\" is already listed"),
            (|w| shared(w, &["Acme"]), &format!("tenants[0]: {LABEL}, not \"Acme\"")),
            (|w| w.issuers.push(String::new()), &format!("issuers[1]: {LABEL}, not \"\"")),
            (|w| w.inbound[0].listen = "8080".into(), &format!("inbound[0].listen: {address} \"8080\"")),
            (|w| w.inbound[0].upstream = "localhost:1".into(), &format!("inbound[0].upstream: {address} \"localhost:1\"")),
            (|w| w.inbound[0].upstream = "127.0.0.1:0".into(), &format!("{connected} \"127.0.0.1:0\"")),
            (|w| w.inbound[0].upstream = "[::]:80".into(), &format!("{connected} \"[::]:80\"")),
            (|w| w.inbound[0].upstream = "127.0.0.1:8080".into(), itself),
            (|w| (w.inbound[0].listen, w.inbound[0].upstream) = ("0.0.0.0:80".into(), "127.0.0.1:80".into()), itself),
            (|w| w.inbound.push(good_listener()), "inbound[1].listen: 127.0.0.1:8080 is already listened on"),
            (|w| w.inbound[0].public = vec!["/a".into(); 1025], "inbound[0].public: must be at most 1024 patterns"),
            (
                |w| w.inbound[0].tls = Some(proto::Tls { certificate: "a.pem".into(), key: String::new() }),
                "inbound[0].tls.key: must be the path of a PEM file",
            ),
            (|w| w.inbound = vec![good_listener(); 65], "inbound: must be at most 64 listeners"),
        ],
    );
}

fn shared(workload: &mut proto::Workload, tenants: &[&str]) {
    workload.tenant.clear();
    workload.tenants = strings(tenants);
}

#[test]
fn every_fault_is_told_up_to_a_bound() {
    let mut tenant = good_tenant();
    tenant.in_flight = 2_000_000;
    tenant.limits[0].rate.clear();
    assert_eq!(faults("acme", &tenant).len(), 2);
    allow(&mut tenant).scopes = vec![String::new(); 200_000];
    let told = faults("acme", &tenant);
    assert_eq!((told.len(), told[100].as_str()), (101, "has more faults than are told here"));
}

#[test]
fn what_is_quoted_is_cut() {
    let mut tenant = good_tenant();
    tenant.limits[0].rate = "\u{7}".repeat(100_000);
    let told = faults("acme", &tenant);
    assert!(told[0].ends_with("\"… (100000 bytes)") && told[0].len() < 600, "{told:?}");
}

#[test]
fn what_is_written_is_meant() {
    let Ok(Decoded::Tenant(policy)) = decode(Kind::Tenant, "acme", &good_tenant().encode_to_vec()) else { panic!() };
    assert_eq!((policy.id.as_str(), policy.in_flight), ("acme", None));
    let limit = &policy.limits[0];
    assert_eq!((limit.quota.burst.get(), &limit.key, limit.mode), (100, &LimitKey::Tenant, Mode::Enforce));
    assert_eq!(limit.rule.as_str(), "Tenant/acme: limits[all]");
    let ScopePolicy::Rules(rules) = &policy.inbound else { panic!() };
    assert_eq!((rules[0].scopes.as_slice(), rules[0].rule.as_str()), (&strings(&["read"])[..], "Tenant/acme: inbound.allow[0]"));

    let Ok(Decoded::Issuer(policy)) = decode(Kind::Issuer, "sso", &good_issuer().encode_to_vec()) else { panic!() };
    assert!(policy.keys.is_empty(), "no token of it is good before its keys are there");

    let everywhere = proto::Tenant { inbound: None, in_flight: 7, ..good_tenant() };
    let Ok(Decoded::Tenant(policy)) = decode(Kind::Tenant, "acme", &everywhere.encode_to_vec()) else { panic!() };
    assert_eq!((&policy.inbound, policy.in_flight), (&ScopePolicy::Everywhere, Some(7)));
    let nowhere = proto::Tenant { inbound: Some(proto::TenantInbound::default()), ..good_tenant() };
    let Ok(Decoded::Tenant(policy)) = decode(Kind::Tenant, "acme", &nowhere.encode_to_vec()) else { panic!() };
    assert_eq!(policy.inbound, ScopePolicy::Rules(Vec::new()), "an empty list is nowhere");

    let limits = [
        ("subject", "shadow", LimitKey::Subject, Mode::Shadow),
        ("tenant", "enforce", LimitKey::Tenant, Mode::Enforce),
        ("claim:app.plan", "", LimitKey::Claim("app.plan".into()), Mode::Enforce),
    ];
    for (key, mode, expected_key, expected_mode) in limits {
        let mut body = good_tenant();
        body.limits[0] = proto::Limit { key: key.into(), mode: mode.into(), burst: 5, scope: "local".into(), ..good_limit() };
        let Ok(Decoded::Tenant(policy)) = decode(Kind::Tenant, "acme", &body.encode_to_vec()) else { panic!() };
        let limit = &policy.limits[0];
        assert_eq!((&limit.key, limit.mode, limit.quota.burst.get()), (&expected_key, expected_mode, 5));
    }

    let served = |change: Change<proto::Workload>| {
        let mut body = good_workload();
        change(&mut body);
        let Ok(Decoded::Workload(policy)) = decode(Kind::Workload, "api", &body.encode_to_vec()) else { panic!() };
        policy.tenants.clone()
    };
    let acme = || "acme".parse().unwrap();
    assert_eq!(served(|_| {}), ServedTenants::One(acme()));
    assert_eq!(served(|w| shared(w, &["acme"])), ServedTenants::Some([acme()].into()));
    assert_eq!(served(|w| shared(w, &["*"])), ServedTenants::Any);
}

#[test]
fn bytes_that_are_none_of_ours() {
    for kind in Kind::ALL {
        let Err(rejection) = decode(kind, "acme", &[0xff; 9]) else { panic!("{kind}") };
        assert!(rejection.to_string().starts_with(&format!("{kind}/acme: cannot be decoded: ")), "{rejection}");
        let Err(rejection) = decode(kind, "acme", &vec![0; MAX_RESOURCE_BYTES + 1]) else { panic!("{kind}") };
        assert_eq!(rejection.to_string(), format!("{kind}/acme: is larger than 1048576 bytes"));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), name in ".{0,70}") {
        for kind in Kind::ALL {
            if let Err(rejection) = decode(kind, &name, &bytes) {
                prop_assert!(!rejection.faults.is_empty());
            }
        }
    }

    #[test]
    fn so_are_good_ones_that_were_tampered_with(
        which in 0..3usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let (kind, mut bytes) = match which {
            0 => (Kind::Tenant, egress::good_egress().encode_to_vec()),
            1 => (Kind::Workload, good_workload().encode_to_vec()),
            _ => (Kind::Issuer, good_issuer().encode_to_vec()),
        };
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        let faults = check(&Resource::encoded(kind, "acme", bytes.into()));
        prop_assert!(faults.len() <= MAX_FAULTS + 1);
        prop_assert!(faults.iter().all(|fault| fault.message.len() < 1000));
    }

    #[test]
    fn any_limit_is_refused_or_earned_back_within_a_day(rate in "[1-9][0-9]{0,6}/[smh]", burst in any::<u32>()) {
        let mut tenant = good_tenant();
        (tenant.limits[0].rate, tenant.limits[0].burst) = (rate, burst);
        if let Ok(Decoded::Tenant(policy)) = decode(Kind::Tenant, "acme", &tenant.encode_to_vec()) {
            let quota = policy.limits[0].quota;
            let seconds = u64::from(quota.burst.get()) * u64::from(quota.rate.per.seconds()) / u64::from(quota.rate.count.get());
            prop_assert!(seconds <= 86_400);
        }
    }
}
