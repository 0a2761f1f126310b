//! The clock that certificates expire by.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A wait looks at the clock this often: it may be set, and stand still while the machine sleeps.
const LOOK: Duration = Duration::from_secs(60);

/// Time since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(pub(super) fn() -> Duration);

impl Clock {
    pub(super) const SYSTEM: Self = Self(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());

    pub(super) fn now(self) -> Duration {
        (self.0)()
    }

    pub(super) async fn sleep_until(self, at: Duration) {
        while let left @ 1.. = at.saturating_sub(self.now()).as_millis() {
            tokio::time::sleep(LOOK.min(Duration::from_millis(u64::try_from(left).unwrap_or(u64::MAX)))).await;
        }
    }
}

/// Goes with tokio's time, which tests can stop.
#[cfg(test)]
pub(super) fn tokio_clock() -> Clock {
    use std::cell::OnceCell;
    use tokio::time::Instant;
    thread_local!(static START: OnceCell<(Duration, Instant)> = const { OnceCell::new() });
    Clock(|| {
        let (time, instant) = START.with(|start| *start.get_or_init(|| (Clock::SYSTEM.now(), Instant::now())));
        time + instant.elapsed()
    })
}
