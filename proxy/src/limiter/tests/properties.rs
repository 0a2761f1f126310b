use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// GCRA told the other way round, as a bucket that leaks: what was poured in and has not leaked yet, in nanoseconds, for each cell.
#[derive(Default)]
struct Oracle {
    cells: HashMap<(usize, Option<u8>), (u128, u128)>,
}

impl Oracle {
    fn level(&self, key: (usize, Option<u8>), now: u128) -> u128 {
        self.cells.get(&key).map_or(0, |(level, at)| level.saturating_sub(now - at))
    }

    /// Nanoseconds to wait; charged only if there are none.
    fn charge(&mut self, quotas: &[(usize, Quota, Option<u8>)], now: u128) -> u128 {
        let wait = |&(limit, quota, key): &(usize, Quota, Option<u8>)| {
            let interval = u128::from(quota.interval_nanos());
            (self.level((limit, key), now) + interval).saturating_sub(interval * u128::from(quota.burst.get()))
        };
        let longest = quotas.iter().map(wait).max().unwrap_or(0);
        if longest == 0 {
            for &(limit, quota, key) in quotas {
                let level = self.level((limit, key), now) + u128::from(quota.interval_nanos());
                self.cells.insert((limit, key), (level, now));
            }
        }
        longest
    }
}

fn quota() -> impl Strategy<Value = (String, u32)> {
    (1..50_u32, prop::sample::select(vec!["s", "m", "h"]), 1..8_u32).prop_map(|(count, per, burst)| (format!("{count}/{per}"), burst))
}

proptest! {
    /// Three limits over different keys and paths; requests of four subjects or none; pauses of any length, and to the very nanosecond.
    #[test]
    fn decisions_are_those_of_a_plain_gcra(
        quotas in prop::array::uniform3(quota()),
        requests in prop::collection::vec((0..5_u8, any::<bool>(), prop_oneof![Just(0), 0..2_000_000_000_u64, 0..4_000_000_000_000_u64], any::<bool>()), 1..120),
    ) {
        let mut bench = Bench::new();
        let mut oracle = Oracle::default();
        let keys = [LimitKey::Tenant, LimitKey::Subject, LimitKey::Claim("team".into())];
        let mut limits: Vec<_> = quotas.iter().zip(keys).enumerate().map(|(n, ((rate, burst), key))| limit(&n.to_string(), rate, *burst, key)).collect();
        limits[1] = on("/one/*", limits[1].clone());
        let acme = tenant("acme", limits.clone());
        let start = bench.now;
        for (subject, one, pause, to_the_point) in requests {
            let key = (subject > 0).then_some(subject);
            let mut counted = vec![(0, limits[0].quota, None), (2, limits[2].quota, key)];
            if one {
                counted.push((1, limits[1].quota, key));
            }
            let name = key.map(|n| n.to_string());
            let ask = |bench: &Bench| bench.get(&acme, if one { "/one/x" } else { "/two" }, name.as_deref());
            let now = |bench: &Bench| (bench.now - start).as_nanos();
            let wait = oracle.charge(&counted, now(&bench));
            let answer = ask(&bench);
            prop_assert_eq!(answer.is_ok(), wait == 0);
            if let Err(exceeded) = answer {
                prop_assert_eq!(u128::from(exceeded.retry_after), wait.div_ceil(1_000_000_000).max(1));
                if to_the_point {
                    bench.pass(Duration::from_nanos(u64::try_from(wait).unwrap() - 1));
                    prop_assert!(ask(&bench).is_err(), "a nanosecond early");
                    bench.pass(Duration::from_nanos(1));
                    prop_assert!(ask(&bench).is_ok(), "when it was told");
                    prop_assert_eq!(oracle.charge(&counted, now(&bench)), 0);
                }
            }
            bench.pass(Duration::from_nanos(pause));
        }
    }

    /// However few cells there are and whoever crowds them: nobody gets more than the quota by it.
    #[test]
    fn crowding_never_gives_anybody_more(
        cells in 1..5_usize,
        requests in prop::collection::vec((0..12_u8, prop_oneof![3 => Just(0), 1 => 0..3_000_000_000_u64]), 1..300),
    ) {
        let mut bench = Bench::bounded(Bounds { cells_per_limit: cells, cells_per_tenant: cells });
        let mut oracle = Oracle::default();
        let limit = limit("all", "2/s", 3, LimitKey::Subject);
        let (quota, acme) = (limit.quota, tenant("acme", [limit]));
        let start = bench.now;
        for (subject, pause) in requests {
            if bench.admits(&acme, &subject.to_string()) {
                prop_assert_eq!(oracle.charge(&[(0, quota, Some(subject))], (bench.now - start).as_nanos()), 0);
            }
            bench.pass(Duration::from_nanos(pause));
        }
    }

    /// Whatever changes are pushed, nobody gets more than a bucket that keeps its share would give, and about as much.
    #[test]
    fn changes_keep_the_share(quotas in prop::collection::vec(quota(), 2..6), used in 0..8_u32) {
        let bench = Bench::new();
        let mut policies = quotas.iter().map(|(rate, burst)| tenant("acme", [limit("all", rate, *burst, LimitKey::Tenant)]));
        let first = policies.next().unwrap();
        let spent = (0..used).filter(|_| bench.admits(&first, "a")).count() as f64;
        let share = spent / f64::from(quotas[0].1);
        // Those between see no request but the one that is refused or charged by a limit of its own.
        let mut last = None;
        for policy in policies {
            let probe = tenant("acme", [(*policy.limits[0]).clone(), limit("never", "1/h", 1, LimitKey::Tenant)]);
            if last.is_none() {
                assert_eq!(bench.drain(&tenant("acme", [limit("never", "1/h", 1, LimitKey::Tenant)]), "a"), 1);
            }
            prop_assert!(!bench.admits(&probe, "a"));
            last = Some(policy);
        }
        let last = last.unwrap();
        let burst = f64::from(last.limits[0].quota.burst.get());
        let left = bench.drain(&last, "a") as f64;
        let exact = burst * (1.0 - share);
        prop_assert!(left <= exact + 1e-6 && left > exact - 1.0 - 1e-6, "{} of {}", left, exact);
    }
}
