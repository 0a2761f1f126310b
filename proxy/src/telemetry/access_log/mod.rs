//! One canonical JSON line per request, or per connection that leaves the workload, formatted and written off the hot path.
//!
//! A data thread hands over a [`Record`]: values that it has anyway, not yet text. The writer thread takes the whole queue at
//! once, formats, writes, and then naps while more gathers, so that under load a producer pays an uncontended lock and no system call.
//! It waits without a timer when there is nothing to write: an idle sidecar has no wake-ups from here.

mod json;
mod line;
mod query;
mod record;
mod sink;

use std::{
    io::Write,
    mem,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use prometheus_client::metrics::counter::Counter;
use ringfence_policy::WorkloadName;

pub use line::append;
pub use query::{QueryName, QueryRecord};
pub use record::{AccessRecord, Clipped, ConnectError, ConnectionRecord, Destination, Record, Route, Timings, subject_hash};
pub use sink::{LogFile, stdout};

use super::metrics::Metrics;
use sink::Output;

/// Records that wait at most; as many again may be in the writer's hands. A record is about 300 bytes and at most
/// [`Clipped::PATH_BYTES`] of path, so that a stalled sink costs some 3 MB at worst, 10 MB when every path is of full length.
pub const CAPACITY: usize = 4096;

/// Room for records that an idle sidecar keeps; what a burst needed beyond it is given back.
const IDLE_CAPACITY: usize = 64;

/// So many queued records end a nap.
const HURRY: usize = CAPACITY / 2;

/// How long the writer lets records gather. The price: lines appear this much later.
const NAP: Duration = Duration::from_millis(25);

/// Formatted lines are written as soon as they are this many bytes.
const CHUNK: usize = 64 * 1024;

/// See [`AccessLog::with_query_ratio`].
pub const DEFAULT_QUERY_RATIO: f64 = 0.01;

/// Where records are left. Clones share one queue.
#[derive(Clone, Debug)]
pub struct AccessLog {
    queue: Arc<Queue>,
    query_ratio: f64,
}

#[derive(Debug)]
struct Queue {
    state: Mutex<State>,
    /// The writer waits here for a first record.
    arrived: Condvar,
    /// It naps here, until the queue is half full or closed.
    hurry: Condvar,
    dropped: Counter,
}

#[derive(Debug, Default)]
struct State {
    records: Vec<Record>,
    closed: bool,
}

/// The writer thread. Dropping it lets the thread run on; [`AccessLogWriter::close`] ends it.
#[derive(Debug)]
pub struct AccessLogWriter {
    queue: Arc<Queue>,
    /// Hangs up when the thread is through.
    done: mpsc::Receiver<()>,
}

/// What was queued could not be written within this time.
#[derive(Debug, thiserror::Error)]
#[error("the access log was not flushed within {0:?}: its sink is stalled")]
pub struct FlushTimeout(Duration);

impl AccessLog {
    /// Starts the writer thread. `workload`: this sidecar's, told in every line.
    pub fn start(
        sink: impl Write + Send + 'static,
        workload: WorkloadName,
        metrics: &Metrics,
    ) -> std::io::Result<(AccessLog, AccessLogWriter)> {
        Self::start_with_nap(sink, workload, metrics, NAP)
    }

    fn start_with_nap(
        sink: impl Write + Send + 'static,
        workload: WorkloadName,
        metrics: &Metrics,
        nap: Duration,
    ) -> std::io::Result<(AccessLog, AccessLogWriter)> {
        let queue = Arc::new(Queue {
            state: Mutex::default(),
            arrived: Condvar::new(),
            hurry: Condvar::new(),
            dropped: metrics.access_log_dropped.clone(),
        });
        let output = Output::new(sink, metrics);
        let (running, done) = mpsc::channel();
        let taken = Arc::clone(&queue);
        thread::Builder::new().name("access-log".into()).spawn(move || {
            let _running = running;
            write_all(&taken, output, &workload, nap);
        })?;
        Ok((AccessLog { queue: Arc::clone(&queue), query_ratio: DEFAULT_QUERY_RATIO }, AccessLogWriter { queue, done }))
    }

    /// Of the DNS queries that are answered as asked, this share is recorded, 0 to 1. Those that are not all are.
    pub fn with_query_ratio(self, query_ratio: f64) -> Self {
        Self { query_ratio, ..self }
    }

    pub fn query_ratio(&self) -> f64 {
        self.query_ratio
    }

    /// Never blocks on the sink: a record that finds the queue full is dropped and counted.
    pub fn record(&self, record: impl Into<Record>) {
        let mut state = self.queue.state.lock();
        if state.closed || state.records.len() >= CAPACITY {
            drop(state);
            self.queue.dropped.inc();
            return;
        }
        state.records.push(record.into());
        let queued = state.records.len();
        drop(state);
        // Where nobody waits, as during a nap, telling costs one atomic load.
        match queued {
            1 => self.queue.arrived.notify_one(),
            HURRY => self.queue.hurry.notify_one(),
            _ => false,
        };
    }
}

impl AccessLogWriter {
    /// Takes no more records, writes all that are queued and ends the thread. After `deadline` it is left behind.
    pub fn close(self, deadline: Duration) -> Result<(), FlushTimeout> {
        self.queue.state.lock().closed = true;
        self.queue.arrived.notify_one();
        self.queue.hurry.notify_one();
        match self.done.recv_timeout(deadline) {
            Err(mpsc::RecvTimeoutError::Timeout) => Err(FlushTimeout(deadline)),
            Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => Ok(()),
        }
    }
}

impl Queue {
    /// Waits for records and swaps them into `batch`, which is empty; `false` once the log is closed and nothing is left.
    fn take(&self, batch: &mut Vec<Record>) -> bool {
        let mut state = self.state.lock();
        if state.records.is_empty() {
            batch.shrink_to(IDLE_CAPACITY);
            state.records.shrink_to(IDLE_CAPACITY);
        }
        while state.records.is_empty() {
            if state.closed {
                return false;
            }
            self.arrived.wait(&mut state);
        }
        mem::swap(batch, &mut state.records);
        true
    }

    fn nap(&self, nap: Duration) {
        self.hurry.wait_while_for(&mut self.state.lock(), |state| !state.closed && state.records.len() < HURRY, nap);
    }
}

fn write_all(queue: &Queue, mut output: Output<impl Write>, workload: &WorkloadName, nap: Duration) {
    let (mut batch, mut lines) = (Vec::new(), Vec::new());
    while queue.take(&mut batch) {
        for record in batch.drain(..) {
            line::append(&record, workload, &mut lines);
            if lines.len() >= CHUNK {
                output.write(&lines);
                lines.clear();
            }
        }
        output.write(&lines);
        lines.clear();
        queue.nap(nap);
    }
}

#[cfg(test)]
mod tests;
