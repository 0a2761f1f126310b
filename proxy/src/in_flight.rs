//! Requests under way at this sidecar, counted for each tenant.

use std::sync::Arc;

use pingora_limits::estimator::Estimator;

/// The requests of one tenant that are under way.
///
/// pingora-limits' `Inflight` is one count-min sketch over all keys, in which the load of tenants that collide is added up and one would be
/// refused for another. A sketch of a single slot for each tenant never collides: its count is exact.
pub struct InFlight(Arc<Estimator>);

/// One request under way; it ends when this is dropped.
#[must_use = "the request counts as ended when the guard is dropped"]
pub struct InFlightGuard(Arc<Estimator>);

impl std::fmt::Debug for InFlightGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InFlightGuard")
    }
}

impl InFlight {
    pub fn new() -> Self {
        Self(Arc::new(Estimator::new(1, 1)))
    }

    /// Counts one request more; `None` where that would be more than `max`.
    ///
    /// A request counts while it is being judged too, so that two at once can both be refused the last place, never both be given it.
    pub fn enter(&self, max: u32) -> Option<InFlightGuard> {
        let count = self.0.incr((), 1);
        let guard = InFlightGuard(self.0.clone());
        (count as i64 <= i64::from(max)).then_some(guard)
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl Default for InFlight {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.decr((), 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_guard_is_dropped() {
        let in_flight = InFlight::new();
        assert!(in_flight.is_idle());
        let first = in_flight.enter(2).unwrap();
        let second = in_flight.enter(2).unwrap();
        assert!(in_flight.enter(2).is_none() && in_flight.enter(2).is_none(), "refused ones take no place");
        assert!(in_flight.enter(3).is_some(), "a raised bound holds at once");
        drop(first);
        let third = in_flight.enter(2).unwrap();
        assert!(in_flight.enter(2).is_none());
        drop((second, third));
        assert!(in_flight.is_idle());
        assert!(in_flight.enter(0).is_none());
    }

    #[test]
    fn threads_never_hold_more_than_the_bound() {
        let in_flight = InFlight::new();
        let held: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| (0..50).filter_map(|_| in_flight.enter(70)).collect::<Vec<_>>())).collect();
            let guards: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
            guards.iter().map(Vec::len).sum()
        });
        assert!((1..=70).contains(&held), "{held}");
        assert!(in_flight.is_idle());
    }
}
