//! How many connections a tenant may open outwards, at once and a second, and how many names it may look up for them at once.

use std::{num::NonZeroU32, sync::Arc, time::Instant};

use parking_lot::Mutex;
use ringfence_policy::{
    Deny, Reason, RuleRef, TenantId,
    egress::{DEFAULT_CONNECTION_RATE, DEFAULT_CONNECTIONS, EgressPolicy},
    ratelimit::{Per, Quota, Rate},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Limiter, gcra::Gcra};
use crate::in_flight::{InFlight, InFlightGuard};

/// Names that a tenant may have looked up at once; more wait. While the upstreams keep silent each costs the resolver some six sockets.
const LOOKUPS: usize = 64;

/// One tenant's connections.
pub(super) struct Connections {
    open: InFlight,
    /// Nanoseconds since the limiter was made.
    tat: Mutex<u64>,
    lookups: Arc<Semaphore>,
}

impl Default for Connections {
    fn default() -> Self {
        Self { open: InFlight::default(), tat: Mutex::default(), lookups: Semaphore::new(LOOKUPS).into() }
    }
}

impl Connections {
    pub(super) fn is_fresh(&mut self, now: u64) -> bool {
        self.open.is_idle() && *self.tat.get_mut() <= now && Arc::strong_count(&self.lookups) == 1
    }

    /// Nanoseconds until the rate is as if none had been opened.
    pub(super) fn remaining(&self, now: u64) -> u64 {
        self.tat.lock().saturating_sub(now)
    }

    pub(super) fn restore(&self, remaining: u64, now: u64) {
        // A debt longer than the rate's window is cut when the next one is opened.
        *self.tat.lock() = now.saturating_add(remaining);
    }

    fn open(&self, max: u32, gcra: &Gcra, now: u64) -> Result<InFlightGuard, &'static str> {
        let guard = self.open.enter(max).ok_or("egress.maxConnections")?;
        let mut tat = self.tat.lock();
        // A debt from a slower rate is cut to what the present one could have run up.
        *tat = (*tat).min(now.saturating_add(gcra.window()));
        *tat = gcra.decide(*tat, NonZeroU32::MIN, now).map_err(|_| "egress.connectionRate")?;
        Ok(guard)
    }
}

impl Limiter {
    /// Counts a connection that `tenant` opens. To be kept until it is closed.
    pub fn connect(&self, tenant: &TenantId, policy: &EgressPolicy, now: Instant) -> Result<InFlightGuard, Deny> {
        let rate =
            policy.connection_rate.unwrap_or(Rate { count: const { NonZeroU32::new(DEFAULT_CONNECTION_RATE).unwrap() }, per: Per::Second });
        let max = policy.max_connections.unwrap_or(DEFAULT_CONNECTIONS);
        let now = self.nanos(now);
        self.tenant(tenant, now).outwards().connections.open(max, &Gcra::new(Quota { rate, burst: rate.count }), now).map_err(|field| {
            let detail = format!("at most {max} connections at once and {rate} new ones");
            Deny::new(Reason::EgressConnectionsLimited, detail).by(&RuleRef::new(format!("Tenant/{tenant}: {field}")))
        })
    }
}

impl Limiter {
    /// The tenant's turn to look a name up. To be kept until it is found.
    pub async fn lookup(&self, tenant: &TenantId, now: Instant) -> Option<OwnedSemaphorePermit> {
        let lookups = self.tenant(tenant, self.nanos(now)).outwards().connections.lookups.clone();
        // Never closed.
        lookups.acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;
    use crate::limiter::Bounds;

    fn policy(max_connections: u32, per_second: u32) -> EgressPolicy {
        let rate = Rate { count: per_second.try_into().unwrap(), per: Per::Second };
        EgressPolicy { max_connections: Some(max_connections), connection_rate: Some(rate), ..EgressPolicy::default() }
    }

    fn refused(outcome: Result<InFlightGuard, Deny>) -> String {
        let deny = outcome.err().unwrap();
        assert_eq!(deny.reason, Reason::EgressConnectionsLimited);
        deny.rule.unwrap().to_string()
    }

    #[test]
    fn both_limits_hold_and_no_tenant_is_charged_for_another() {
        let start = Instant::now();
        let limiter = Limiter::new(start, Bounds::default());
        let [acme, globex] = ["acme", "globex"].map(|name| name.parse::<TenantId>().unwrap());
        let few = policy(2, 10);
        let first = limiter.connect(&acme, &few, start).unwrap();
        let _second = limiter.connect(&acme, &few, start).unwrap();
        assert_eq!(refused(limiter.connect(&acme, &few, start)), "Tenant/acme: egress.maxConnections");
        let _other = limiter.connect(&globex, &few, start).unwrap();
        drop(first);
        let _third = limiter.connect(&acme, &few, start).unwrap();

        let slow = policy(100, 5);
        let open: Vec<_> = (0..5).map_while(|_| limiter.connect(&globex, &slow, start).ok()).collect();
        assert_eq!(open.len(), 4, "the fifth of the second came before the push");
        assert_eq!(refused(limiter.connect(&globex, &slow, start)), "Tenant/globex: egress.connectionRate");
        assert!(limiter.connect(&globex, &slow, start + Duration::from_millis(200)).is_ok());
    }

    #[test]
    fn a_raised_rate_forgives_what_a_slower_one_ran_up() {
        let start = Instant::now();
        let limiter = Limiter::new(start, Bounds::default());
        let acme: TenantId = "acme".parse().unwrap();
        let hourly = EgressPolicy { connection_rate: Some(Rate { count: NonZeroU32::MIN, per: Per::Hour }), ..EgressPolicy::default() };
        let _first = limiter.connect(&acme, &hourly, start).unwrap();
        assert!(limiter.connect(&acme, &hourly, start).is_err());
        assert!(limiter.connect(&acme, &policy(10, 100), start).is_err(), "its window is used up");
        assert!(limiter.connect(&acme, &policy(10, 100), start + Duration::from_millis(10)).is_ok());
    }

    #[test]
    fn lookups_wait_for_those_of_their_tenant_alone() {
        let start = Instant::now();
        let limiter = Limiter::new(start, Bounds::default());
        let [acme, globex] = ["acme", "globex"].map(|name| name.parse::<TenantId>().unwrap());
        let turn = |tenant| limiter.lookup(tenant, start).now_or_never().flatten();
        let mut turns: Vec<_> = (0..LOOKUPS).map(|_| turn(&acme).unwrap()).collect();
        assert!(turn(&acme).is_none());
        assert!(turn(&globex).is_some());
        turns.pop();
        assert!(turn(&acme).is_some());
    }
}
