mod properties;

use std::{num::NonZeroU32, time::Duration};

use http::HeaderMap;
use ringfence_policy::{
    Reason,
    ratelimit::{LimitPolicy, Quota},
    scope::{RequestMatch, ScopePolicy},
};

use super::*;

/// `rate` as an operator writes it.
fn limit(name: &str, rate: &str, burst: u32, key: LimitKey) -> LimitPolicy {
    LimitPolicy {
        name: name.into(),
        quota: Quota { rate: rate.parse().unwrap(), burst: NonZeroU32::new(burst).unwrap() },
        key,
        matcher: RequestMatch::default(),
        mode: Mode::Enforce,
        rule: RuleRef::new(format!("limits[{name}]")),
    }
}

fn on(path: &str, limit: LimitPolicy) -> LimitPolicy {
    LimitPolicy { matcher: RequestMatch { methods: Vec::new(), paths: vec![path.parse().unwrap()] }, ..limit }
}

fn shadow(limit: LimitPolicy) -> LimitPolicy {
    LimitPolicy { mode: Mode::Shadow, ..limit }
}

fn tenant(id: &str, limits: impl IntoIterator<Item = LimitPolicy>) -> TenantPolicy {
    TenantPolicy {
        id: id.parse().unwrap(),
        identities: Vec::new(),
        limits: limits.into_iter().map(Arc::new).collect(),
        in_flight: None,
        inbound: ScopePolicy::Everywhere,
        peers: Default::default(),
        egress: Default::default(),
        dns: Default::default(),
    }
}

/// A limiter with a clock that stands still until told.
struct Bench {
    limiter: Limiter,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self::bounded(Bounds::default())
    }

    fn bounded(bounds: Bounds) -> Self {
        let now = Instant::now();
        Self { limiter: Limiter::new(now, bounds), now }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn get(&self, policy: &TenantPolicy, path: &str, subject: Option<&str>) -> Result<Admitted, Exceeded> {
        let request = Request { method: "GET", path: &NormalPath::new(path).unwrap(), subject, claim: &|_| subject.map(Cow::Borrowed) };
        self.limiter.charge(&request, policy, u32::MAX, self.now)
    }

    fn admits(&self, policy: &TenantPolicy, subject: &str) -> bool {
        self.get(policy, "/", Some(subject)).is_ok()
    }

    /// Requests until the first refusal.
    fn drain(&self, policy: &TenantPolicy, subject: &str) -> usize {
        (0..1_000_000).take_while(|_| self.admits(policy, subject)).count()
    }
}

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_burst_at_once_and_then_the_rate() {
    let mut bench = Bench::new();
    let acme = tenant("acme", [limit("all", "100/s", 200, LimitKey::Tenant)]);
    assert_eq!(bench.drain(&acme, "a"), 200);
    bench.pass(10 * MS - Duration::from_nanos(1));
    assert_eq!(bench.drain(&acme, "a"), 0);
    bench.pass(Duration::from_nanos(1));
    assert_eq!(bench.drain(&acme, "a"), 1);
    bench.pass(SECOND);
    assert_eq!(bench.drain(&acme, "a"), 100);
    bench.pass(3600 * SECOND);
    assert_eq!(bench.drain(&acme, "a"), 200);
}

#[test]
fn the_reply_tells_limits_and_waits() {
    let mut bench = Bench::new();
    let acme = tenant(
        "acme",
        [
            limit("all", "100/s", 200, LimitKey::Tenant),
            limit("hourly", "2/h", 2, LimitKey::Subject),
            on("/other", limit("other", "1/h", 1, LimitKey::Tenant)),
            shadow(limit("tried", "1/h", 1, LimitKey::Tenant)),
        ],
    );
    let told = |exceeded: &Exceeded| {
        let mut headers = HeaderMap::new();
        exceeded.write_headers(&mut headers);
        ["retry-after", "ratelimit", "ratelimit-policy"].map(|name| headers[name].to_str().unwrap().to_string())
    };
    assert_eq!(bench.drain(&acme, "ann"), 2);
    bench.pass(SECOND / 2);
    let exceeded = bench.get(&acme, "/", Some("ann")).err().unwrap();
    assert_eq!(told(&exceeded), ["1800", r#""hourly";r=0;t=1800"#, r#""all";q=200;w=2, "hourly";q=2;w=3600"#]);
    assert_eq!((exceeded.deny.reason, exceeded.deny.rule.unwrap().as_str()), (Reason::RateLimited, "limits[hourly]"));

    for subject in 0.. {
        if !bench.admits(&acme, &subject.to_string()) {
            break;
        }
    }
    let exceeded = bench.get(&acme, "/", Some("bob")).err().unwrap();
    assert_eq!(told(&exceeded)[..2], ["1", r#""all";r=0;t=1"#]);
    let exceeded = bench.get(&acme, "/", Some("ann")).err().unwrap();
    assert_eq!(told(&exceeded)[..2], ["1800", r#""all";r=0;t=1, "hourly";r=0;t=1800"#], "the longest wait counts");
    assert_eq!(exceeded.deny.rule.unwrap().as_str(), "limits[hourly]");
}

#[test]
fn keys_are_counted_apart_and_missing_ones_together() {
    for (key, apart) in [(LimitKey::Tenant, false), (LimitKey::Subject, true), (LimitKey::Claim("app.user".into()), true)] {
        let bench = Bench::new();
        let acme = tenant("acme", [limit("all", "1/h", 3, key.clone())]);
        assert_eq!(bench.drain(&acme, "ann"), 3);
        assert_eq!(bench.drain(&acme, "bob"), if apart { 3 } else { 0 }, "{key:?}");
        let nobody = (0..10).filter(|_| bench.get(&acme, "/", None).is_ok()).count();
        assert_eq!(nobody, if apart { 3 } else { 0 }, "{key:?}");
        assert_eq!(bench.drain(&acme, ""), if apart { 3 } else { 0 }, "an empty subject is one, {key:?}");
    }
}

#[test]
fn one_tenant_does_not_spend_anothers() {
    let bench = Bench::new();
    let (acme, globex) = (["acme", "globex"]).map(|id| tenant(id, [limit("all", "1/h", 5, LimitKey::Subject)])).into();
    assert_eq!(bench.drain(&acme, "ann"), 5);
    assert_eq!(bench.drain(&globex, "ann"), 5);
}

#[test]
fn a_push_refills_nothing() {
    let mut bench = Bench::new();
    let quota = ("60/m", 60);
    let policy = |limits: &[&str]| tenant("acme", limits.iter().map(|name| limit(name, quota.0, quota.1, LimitKey::Subject)));
    assert_eq!(bench.drain(&policy(&["all"]), "ann"), 60);
    // Another snapshot with the same limit, with another beside it, without it for a while, or without the tenant for a while.
    assert_eq!(bench.drain(&policy(&["all"]), "ann"), 0);
    assert_eq!(bench.drain(&policy(&["more", "all"]), "ann"), 0);
    assert_eq!(bench.drain(&policy(&["more"]), "ann"), 60, "the refused requests before took nothing from it");
    for other in 0..100 {
        assert_eq!(bench.drain(&tenant(&format!("t{other}"), [limit("all", "1/s", 1, LimitKey::Tenant)]), "ann"), 1);
    }
    bench.pass(30 * SECOND);
    assert_eq!(bench.drain(&policy(&["all"]), "ann"), 30);
}

#[test]
fn a_changed_quota_carries_over_in_proportion() {
    // 60 of 100 are used; then the quota changes, and 40 % of the new one is left.
    for (rate, burst, left) in
        [("100/h", 100, 40), ("1000/h", 1000, 400), ("10/h", 10, 4), ("1/s", 100, 40), ("1/h", 100, 40), ("1/h", 1, 0), ("100/h", 50, 20)]
    {
        let bench = Bench::new();
        let before = tenant("acme", [limit("all", "100/h", 100, LimitKey::Subject)]);
        for _ in 0..60 {
            assert!(bench.admits(&before, "ann"));
        }
        let after = tenant("acme", [limit("all", rate, burst, LimitKey::Subject)]);
        assert_eq!(bench.drain(&after, "ann"), left, "{rate}, {burst}");
        assert_eq!(bench.drain(&after, "bob"), burst as usize, "who used nothing has all");
    }
}

#[test]
fn a_changed_quota_holds_from_the_change_on_for_idle_keys_too() {
    let mut bench = Bench::new();
    let slow = tenant("acme", [limit("all", "10/h", 10, LimitKey::Subject)]);
    let fast = tenant("acme", [limit("all", "10/s", 10, LimitKey::Subject)]);
    assert_eq!((bench.drain(&slow, "ann"), bench.drain(&slow, "bob")), (10, 10));
    assert_eq!(bench.drain(&fast, "ann"), 0);
    bench.pass(SECOND / 2);
    // Bob says nothing at the change, and has earned as much as Ann since.
    assert_eq!((bench.drain(&fast, "ann"), bench.drain(&fast, "bob")), (5, 5));
    assert_eq!(bench.drain(&slow, "ann"), 0);
    bench.pass(3600 * SECOND / 2);
    assert_eq!((bench.drain(&slow, "ann"), bench.drain(&slow, "bob")), (5, 5));
}

#[test]
fn a_lowered_rate_is_remembered_for_as_long_as_it_says() {
    let mut bench = Bench::new();
    let [fast, slow, other] = [("all", "10/s"), ("all", "10/h"), ("other", "10/s")]
        .map(|(name, rate)| tenant("acme", [limit(name, rate, 10, LimitKey::Subject)]));
    assert_eq!((bench.drain(&fast, "ann"), bench.drain(&slow, "ann")), (10, 0));
    // Longer than the old window; a limit that is new then makes the tenant's other buckets be looked at.
    bench.pass(2 * SECOND);
    assert_eq!((bench.drain(&other, "ann"), bench.drain(&slow, "ann")), (10, 0));
}

#[test]
fn another_kind_of_key_forgets_nothing_of_the_old_one() {
    let mut bench = Bench::new();
    let by = |key| tenant("acme", [limit("all", "10/h", 10, key)]);
    assert_eq!(bench.drain(&by(LimitKey::Subject), "ann"), 10);
    assert_eq!(bench.drain(&by(LimitKey::Tenant), "ann"), 10);
    assert_eq!(bench.drain(&by(LimitKey::Claim("team".into())), "ann"), 10);
    bench.pass(3600 * SECOND / 2);
    assert_eq!(bench.drain(&by(LimitKey::Subject), "ann"), 5);
    assert_eq!(bench.drain(&by(LimitKey::Tenant), "ann"), 5);
}

#[test]
fn shadow_limits_only_tell() {
    let bench = Bench::new();
    let acme = tenant(
        "acme",
        [
            shadow(limit("first", "1/h", 2, LimitKey::Tenant)),
            limit("real", "1/h", 4, LimitKey::Tenant),
            shadow(limit("second", "1/h", 1, LimitKey::Tenant)),
        ],
    );
    let told: Vec<_> =
        (0..6).map(|_| bench.get(&acme, "/", None).map(|admitted| admitted.shadow.map(|rule| rule.to_string())).ok()).collect();
    let [first, second] = ["limits[first]", "limits[second]"].map(|rule| Some(Some(rule.to_string())));
    assert_eq!(told, [Some(None), second, first.clone(), first, None, None]);

    // What the enforced limit refused was not charged to the shadow ones, and what a shadow one would refuse was charged to the enforced.
    let enforced = tenant("acme", [limit("first", "1/h", 2, LimitKey::Tenant)]);
    assert_eq!(bench.drain(&enforced, "ann"), 0, "a bucket outlives its mode");
}

#[test]
fn no_room_means_a_shared_cell_and_never_a_fresh_one() {
    let mut bench = Bench::bounded(Bounds { cells_per_limit: 3, cells_per_tenant: 4 });
    let acme = tenant("acme", [limit("all", "3/s", 3, LimitKey::Subject)]);
    for subject in ["a", "b", "c"] {
        assert_eq!(bench.drain(&acme, subject), 3, "{subject}");
    }
    assert_eq!((bench.drain(&acme, "d"), bench.drain(&acme, "e")), (3, 0), "d and e share");
    assert_eq!(bench.drain(&acme, "a"), 0, "a was not forgotten for them");

    // The other limit of the tenant has one cell left; another tenant has its own.
    let both = tenant("acme", [limit("more", "3/s", 3, LimitKey::Subject)]);
    assert_eq!((bench.drain(&both, "a"), bench.drain(&both, "b"), bench.drain(&both, "c")), (3, 3, 0));
    let globex = tenant("globex", [limit("all", "3/s", 3, LimitKey::Subject)]);
    assert_eq!(bench.drain(&globex, "d"), 3);

    // A third of the window later there is still no room; d finds one request more in the shared cell, and e none.
    bench.pass(SECOND / 3 + MS);
    assert_eq!((bench.drain(&acme, "d"), bench.drain(&acme, "e")), (1, 0));
    // When a, b and c are full again their places are free. What is left in the shared cell goes with every key that moves in, as nobody
    // knows which of them drew on it.
    bench.pass(SECOND * 2 / 3);
    assert_eq!((bench.drain(&acme, "d"), bench.drain(&acme, "f")), (2, 2));
    bench.pass(SECOND);
    assert_eq!((bench.drain(&acme, "d"), bench.drain(&acme, "e")), (3, 3));
}

#[test]
fn a_limits_old_cells_make_room_for_anothers() {
    let mut bench = Bench::bounded(Bounds { cells_per_limit: 4, cells_per_tenant: 4 });
    let [old, new] = ["old", "new"].map(|name| tenant("acme", [limit(name, "1/s", 1, LimitKey::Subject)]));
    for subject in ["a", "b", "c"] {
        assert_eq!(bench.drain(&old, subject), 1);
    }
    bench.pass(SECOND - MS);
    assert_eq!(bench.drain(&old, "d"), 1);
    bench.pass(MS);
    assert_eq!((bench.drain(&new, "a"), bench.drain(&new, "b"), bench.drain(&old, "d")), (1, 1, 0));
}

#[test]
fn a_flood_of_keys_stays_within_the_bound_and_is_let_go() {
    let mut bench = Bench::bounded(Bounds { cells_per_limit: 100, cells_per_tenant: 150 });
    let acme = tenant("acme", [limit("a", "1/s", 1, LimitKey::Subject), limit("b", "1/s", 1, LimitKey::Subject)]);
    let cells = |bench: &Bench| bench.limiter.tenants.read().known["acme"].cells();
    for key in 0..1000 {
        let _ = bench.get(&acme, "/", Some(&key.to_string()));
        bench.pass(MS);
        assert!(cells(&bench) <= 150);
    }
    assert!(cells(&bench) > 140);
    // Keys that come at a slow pace: no more cells than were met within a window or two.
    for key in 1000..2000 {
        bench.pass(SECOND / 5);
        assert!(bench.admits(&acme, &key.to_string()));
    }
    assert!(cells(&bench) < 30, "{}", cells(&bench));
}

#[test]
fn idle_tenants_are_forgotten_and_busy_ones_are_not() {
    let mut bench = Bench::new();
    let new_tenant = |n: usize, rate: &str| tenant(&format!("t{n}"), [limit("all", rate, 1, LimitKey::Tenant)]);
    let held = bench.get(&new_tenant(0, "1/s"), "/", None).unwrap();
    let drained = new_tenant(1, "1/h");
    assert_eq!(bench.drain(&drained, "a"), 1);
    for n in 2..1000 {
        assert_eq!(bench.drain(&new_tenant(n, "1/s"), "a"), 1);
        bench.pass(SECOND);
    }
    let known = |bench: &Bench, id: &str| bench.limiter.tenants.read().known.contains_key(id);
    assert!(bench.limiter.tenants.read().known.len() < 10);
    assert!(known(&bench, "t0"), "has a request under way");
    assert!(known(&bench, "t1") && bench.drain(&drained, "a") == 0, "has used its hour");
    drop(held);
    for n in 1000..1010 {
        assert_eq!(bench.drain(&new_tenant(n, "1/s"), "a"), 1);
        bench.pass(SECOND);
    }
    assert!(!known(&bench, "t0"));
}

#[test]
fn requests_in_flight_are_bounded_for_each_tenant() {
    let bench = Bench::new();
    let [acme, globex] = ["acme", "globex"].map(|id| tenant(id, [limit("all", "1/h", 3, LimitKey::Tenant)]));
    let path = NormalPath::new("/").unwrap();
    let charge =
        |policy| bench.limiter.charge(&Request { method: "GET", path: &path, subject: None, claim: &|_| None }, policy, 2, bench.now);
    let first = charge(&acme).unwrap();
    let _second = charge(&acme).unwrap();
    let exceeded = charge(&acme).err().unwrap();
    assert_eq!((exceeded.deny.reason, exceeded.deny.rule.as_ref().unwrap().as_str()), (Reason::RateLimited, "Tenant/acme: inFlight"));
    let mut headers = HeaderMap::new();
    exceeded.write_headers(&mut headers);
    assert_eq!(headers["retry-after"], "1");
    assert_eq!(headers[RATE_LIMIT], r#""inFlight";r=0"#);
    assert_eq!(headers[RATE_LIMIT_POLICY], r#""inFlight";q=2;qu="concurrent-requests""#);
    assert!(charge(&globex).is_ok(), "another tenant's requests are its own");

    drop(first);
    let third = charge(&acme);
    assert!(third.is_ok(), "the refused one cost nothing of the three");
    drop(third);
    assert!(charge(&acme).err().unwrap().deny.rule.unwrap().as_str().contains("limits[all]"));
    assert!(charge(&acme).err().unwrap().deny.rule.unwrap().as_str().contains("limits[all]"), "a request over its rate holds no place");
}

#[test]
fn threads_together_get_no_more_than_the_quota() {
    let bench = Bench::new();
    let acme = tenant("acme", [limit("all", "1/h", 700, LimitKey::Tenant), limit("each", "1/h", 300, LimitKey::Subject)]);
    let admitted: Vec<usize> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|n| {
                scope.spawn({
                    let (bench, acme) = (&bench, &acme);
                    move || (0..1000).filter(|_| bench.admits(acme, ["a", "b", "c"][n % 3])).count()
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(admitted.iter().sum::<usize>(), 700);
    assert!(admitted[0] + admitted[3] <= 300 && admitted[1] <= 300 && admitted[2] <= 300, "{admitted:?}");
}
