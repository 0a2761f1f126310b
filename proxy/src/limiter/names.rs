//! What a workload's DNS queries have used of its limits, and which names it has asked for lately.
//!
//! Memory: 8,192 names of eight octets, and a cell of some 45 bytes for each domain met within a limit's window, up to 4,096 a limit; further
//! domains share one cell. Forgetting a name only makes it new again, and charged again.

use std::{collections::HashSet, mem, num::NonZeroU32, sync::Arc, time::Instant};

use ringfence_policy::{
    budget::{self, Budget, Key, Limit, Question},
    ratelimit::Mode,
    tenant::ServedTenants,
};

use super::{
    Bounds, Limiter,
    bucket::{Bucket, CellKey},
    heir::Heir,
    tenant::{self, Charge, Charges, Tenant},
};

/// Names of a generation; there are two.
pub(super) const GENERATION: usize = 4096;
pub(super) const BOUNDS: Bounds = Bounds { cells_per_limit: 4096, cells_per_tenant: 16_384 };

/// What one tenant, or one shared workload, has asked for.
#[derive(Default)]
pub(super) struct Names {
    pub(super) buckets: Vec<Bucket>,
    pub(super) recent: Recent,
    /// From when they were handed over.
    pub(super) heir: Option<Heir>,
}

impl Names {
    /// Whether forgetting them would give the tenant nothing.
    pub(super) fn is_fresh(&self, now: u64) -> bool {
        self.buckets.iter().all(|bucket| bucket.is_fresh(now))
    }

    fn charge<'b>(&mut self, charges: &Charges<'b, Limit>, now: u64) -> Outcome<'b> {
        // Of those used up there is one at least. The platform's stand first.
        let outcome = tenant::charge(&mut self.buckets, charges, &BOUNDS, now).map_err(|used_up| used_up[0].0)?;
        if let Some(heir) = &self.heir {
            heir.tell(charges);
        }
        Ok(outcome)
    }
}

/// Halves of cells' keys: nobody can make one name meet another. A name that is asked for again moves to the younger half; when that is full the
/// older one is forgotten.
#[derive(Default)]
pub(super) struct Recent {
    pub(super) young: HashSet<u64>,
    pub(super) old: HashSet<u64>,
}

impl Recent {
    fn holds(&self, name: u64) -> bool {
        self.young.contains(&name) || self.old.contains(&name)
    }

    fn remember(&mut self, name: u64) {
        if self.young.contains(&name) {
            return;
        }
        if self.young.len() >= GENERATION {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(name);
    }
}

/// The first limit in shadow mode that would have refused; or the first that refuses.
pub type Outcome<'b> = Result<Option<&'b Limit>, &'b Limit>;

impl Limiter {
    /// Counts a query of a workload that serves `tenants`.
    pub fn query<'b>(&self, question: &Question<'_>, budget: &'b Budget, tenants: &ServedTenants, now: Instant) -> Outcome<'b> {
        let mut charges = budget.at_once().peekable();
        if charges.peek().is_none() {
            return Ok(None);
        }
        let charges = self.charges(charges, question);
        let now = self.nanos(now);
        self.asker(tenants, now).outwards().names.lock().charge(&charges, now)
    }

    /// Counts that upstreams are asked for a name. One that is refused stays as new as it was.
    pub fn ask<'b>(&self, question: &Question<'_>, budget: &'b Budget, tenants: &ServedTenants, now: Instant) -> Outcome<'b> {
        if budget.limits().is_empty() {
            return Ok(None);
        }
        let now = self.nanos(now);
        let asker = self.asker(tenants, now);
        let names = &mut *asker.outwards().names.lock();
        let name = self.hash_key.hash(question.identity()) as u64;
        let charges = self.charges(budget.to_ask(question, !names.recent.holds(name)), question);
        let outcome = names.charge(&charges, now)?;
        names.recent.remember(name);
        Ok(outcome)
    }

    /// Counts an answer's free-form octets. Any number may be told by who is not in debt, and is owed from then on.
    pub fn tell<'b>(&self, octets: u32, question: &Question<'_>, budget: &'b Budget, tenants: &ServedTenants, now: Instant) -> Outcome<'b> {
        let charges = self.charges(budget.to_tell(octets), question);
        if charges.is_empty() {
            return Ok(None);
        }
        let now = self.nanos(now);
        let asker = self.asker(tenants, now);
        let names = &mut *asker.outwards().names.lock();
        let outcome = names.charge(&self.charges(budget.to_tell(0), question), now)?;
        if let Some(heir) = &names.heir {
            heir.tell(&charges);
        }
        let buckets = &mut names.buckets;
        for charge in &charges {
            let at = tenant::open(buckets, charge, now);
            // A limit in shadow mode is as if what it would have refused had not been told.
            let is_told = charge.mode == Mode::Enforce || buckets[at].ask(charge.cell, None, now).is_ok();
            if let Some(cost) = charge.cost.filter(|_| is_told) {
                let tat = buckets[at].owe(charge.cell, cost, now);
                tenant::store(buckets, at, charge, tat, &BOUNDS, now);
            }
        }
        Ok(outcome)
    }

    fn charges<'b>(&self, charges: impl Iterator<Item = budget::Charge<'b>>, question: &Question<'_>) -> Charges<'b, Limit> {
        let charge = |(limit, cost): budget::Charge<'b>| Charge {
            limit,
            rule: &limit.rule,
            quota: limit.quota,
            mode: limit.mode,
            cell: self.cell_of(limit, question),
            cost: NonZeroU32::new(cost),
        };
        charges.map(charge).collect()
    }

    /// A limit that comes to count something else finds new cells.
    fn cell_of(&self, limit: &Limit, question: &Question<'_>) -> CellKey {
        if limit.key == Key::Tenant {
            return limit.count as CellKey;
        }
        self.hash_key.hash((limit.count, question.domain()))
    }

    fn asker(&self, tenants: &ServedTenants, now: u64) -> Arc<Tenant> {
        match tenants {
            ServedTenants::One(tenant) => self.tenant(tenant, now),
            ServedTenants::Some(_) | ServedTenants::Any => self.nobodys.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, time::Duration};

    use ringfence_policy::{
        RuleRef,
        budget::Count,
        ratelimit::Quota,
        rpz::{Name, rtype},
    };

    use super::*;

    fn budget(count: Count, key: Key, rate: &str, burst: u32) -> Budget {
        let quota = Quota { rate: rate.parse().unwrap(), burst: NonZeroU32::new(burst).unwrap() };
        std::iter::once(Arc::new(Limit { count, key, quota, mode: Mode::Enforce, rule: RuleRef::new("Tenant/acme: dns.limits[x]") }))
            .collect()
    }

    struct Bench {
        limiter: Limiter,
        tenants: ServedTenants,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let now = Instant::now();
            Self { limiter: Limiter::new(now, Bounds::default()), tenants: ServedTenants::One("acme".parse().unwrap()), now }
        }

        fn asks(&self, budget: &Budget, name: &str) -> bool {
            let name: Name = name.parse().unwrap();
            self.limiter.ask(&Question::new(name.as_wire(), rtype::A, false), budget, &self.tenants, self.now).is_ok()
        }

        fn tells(&self, budget: &Budget, octets: u32) -> bool {
            let name: Name = "c2.example".parse().unwrap();
            self.limiter.tell(octets, &Question::new(name.as_wire(), 16, false), budget, &self.tenants, self.now).is_ok()
        }

        fn held(&self) -> (usize, usize) {
            let asker = self.limiter.asker(&self.tenants, 0);
            let names = asker.outwards().names.lock();
            (names.recent.young.len() + names.recent.old.len(), names.buckets.iter().map(Bucket::len).sum())
        }
    }

    #[test]
    fn names_are_forgotten_by_the_thousand_and_charged_again() {
        let bench = Bench::new();
        let budget = budget(Count::Names, Key::Tenant, "1000000/s", 1_000_000);
        for i in 0..3 * GENERATION {
            assert!(bench.asks(&budget, &format!("n{i}.example")));
            assert!(bench.held().0 <= 2 * GENERATION);
        }
        let spent = self::budget(Count::Names, Key::Tenant, "1/h", 1);
        // The window of what was used is scaled: nothing is left.
        assert!(bench.asks(&spent, &format!("n{}.example", 3 * GENERATION - 1)), "asked for just now");
        assert!(bench.asks(&spent, &format!("n{}.example", 2 * GENERATION + 1)), "among the last four thousand");
        assert!(!bench.asks(&spent, "n0.example"), "long ago");
    }

    /// However many domains there are, no more than a bounded number has a count of its own, and the rest have one together.
    #[test]
    fn a_crowd_of_domains_gets_one_count() {
        let bench = Bench::new();
        let budget = budget(Count::Names, Key::Domain, "1/h", 1);
        let passed = (0..3 * BOUNDS.cells_per_limit).filter(|i| bench.asks(&budget, &format!("data.d{i}.example{i}"))).count();
        assert_eq!((passed, bench.held().1), (BOUNDS.cells_per_limit + 1, BOUNDS.cells_per_limit));
    }

    #[test]
    fn debts_are_paid_off_at_the_rate_and_forgotten_after_a_day() {
        let mut bench = Bench::new();
        let budget = budget(Count::Txt, Key::Tenant, "100/s", 1000);
        assert!(bench.tells(&budget, 6000));
        assert!(!bench.tells(&budget, 1));
        bench.now += Duration::from_millis(49_999);
        assert!(!bench.tells(&budget, 1));
        bench.now += Duration::from_millis(11);
        assert!(bench.tells(&budget, u32::MAX));
        bench.now += Duration::from_secs(86_400 - 11);
        assert!(!bench.tells(&budget, 1));
        bench.now += Duration::from_secs(2);
        assert!(bench.tells(&budget, 1));
    }

    #[test]
    fn a_changed_rate_keeps_the_share_of_a_debt() {
        let mut bench = Bench::new();
        assert!(bench.tells(&budget(Count::Txt, Key::Tenant, "100/s", 1000), 3000));
        // Twenty seconds of debt beyond the window of ten: at half the rate forty and twenty.
        let slower = budget(Count::Txt, Key::Tenant, "50/s", 1000);
        assert!(!bench.tells(&slower, 1));
        bench.now += Duration::from_secs(39);
        assert!(!bench.tells(&slower, 1));
        bench.now += Duration::from_secs(2);
        assert!(bench.tells(&slower, 1));
    }

    #[test]
    fn tenants_and_shared_workloads_count_apart() {
        let mut bench = Bench::new();
        let budget = budget(Count::Names, Key::Tenant, "1/h", 1);
        for tenants in [ServedTenants::One("acme".parse().unwrap()), ServedTenants::One("globex".parse().unwrap()), ServedTenants::Any] {
            bench.tenants = tenants;
            assert!(bench.asks(&budget, "a.example"));
            assert!(!bench.asks(&budget, "b.example"));
            assert!(bench.asks(&budget, "a.example"));
        }
    }
}
