//! The process: which threads there are and what each is given. The only place that sees everything.
//!
//! | thread | does |
//! |---|---|
//! | main, "control" | the ADS stream, applying policy, the admin endpoint, signals |
//! | data-0 … | connections, each from accept to close |
//! | access-log | formats and writes lines |

use std::{
    convert::Infallible,
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use ringfence_policy::WorkloadName;
use ringfence_xds::client::Client;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::{
    runtime::LocalOptions,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    time::timeout_at,
};

use crate::{
    admin::{Admin, AdminAddressError, AdminBindError, AdminListener},
    bootstrap::{AccessLogSink, Bootstrap},
    config::{
        Current,
        apply::{Apply, Used},
        dump,
        last_good::{LastGood, LastGoodError},
        learn::Learner,
        stream,
        zones::Zones,
    },
    context::Contexts,
    data::{self, Shared},
    limiter::{Bounds, Limiter},
    listeners::Listeners,
    outbound::own::Own,
    readiness::Readiness,
    telemetry::{
        RequestIds,
        access_log::{self, AccessLog, AccessLogWriter},
        metrics::Metrics,
        notice,
        trace::{Tracing, TracingConfig, TracingError},
    },
};

/// Stream events wait one at a time: the next response is read when the last is applied.
const STREAM_EVENTS: usize = 1;
/// While it drains, how often it is looked whether all connections have ended.
const QUIET: Duration = Duration::from_millis(50);
/// What is queued for the access log and the collector gets this long at the end.
const FLUSH: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("admin: {0}")]
    AdminAddress(#[from] AdminAddressError),
    #[error("admin: {0}")]
    AdminBind(#[from] AdminBindError),
    #[error("tracing: {0}")]
    Tracing(#[from] TracingError),
    #[error("stateDir: {0}")]
    State(LastGoodError),
    #[error("accessLog: {0}")]
    AccessLog(io::Error),
    #[error("the system has no random numbers")]
    Random,
    #[error("workload: {0}")]
    Workload(#[from] ringfence_policy::NameError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Runs until SIGTERM or SIGINT, then drains.
pub fn run(bootstrap: Bootstrap) -> Result<(), StartError> {
    raise_descriptor_limit();
    let metrics = Arc::new(Metrics::new());
    let workload: WorkloadName = bootstrap.workload.parse()?;
    let (access_log, writer) = open_access_log(&bootstrap, &workload, &metrics).map_err(StartError::AccessLog)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tracing = {
        let _entered = runtime.enter();
        match &bootstrap.tracing {
            Some(config) => {
                Tracing::new(&TracingConfig { endpoint: config.otlp_endpoint.clone(), root_ratio: config.sample_ratio }, &metrics)?
            }
            None => Tracing::off(),
        }
    };
    let admin = bootstrap.admin.as_ref().map(|address| Ok::<_, StartError>(AdminListener::bind(&address.parse()?)?)).transpose()?;
    let own = Arc::new(Own::besides(admin.as_ref().and_then(AdminListener::tcp_address)));
    let (learner, questions) = Learner::new();
    let shared = Shared {
        current: Arc::new(Current::default()),
        used: Arc::new(Used::default()),
        limiter: Arc::new(Limiter::new(Instant::now(), Bounds::default())),
        learner,
        access_log,
        metrics: metrics.clone(),
        tracing: tracing.clone(),
        ids: Arc::new(RequestIds::default()),
        contexts: Arc::new(Contexts::new().map_err(|_| StartError::Random)?),
        bindings: Arc::default(),
        own: own.clone(),
        svid: watch::channel(None).1,
    };
    let (commands, threads) = start_data_threads(bootstrap.threads.get(), &shared)?;
    let listeners = Listeners::new(commands, Duration::from_secs(bootstrap.drain_seconds), own, bootstrap.capture_dir);
    let readiness = Readiness::default();
    let admin = admin.map(|listener| {
        let config = dump::config(shared.current.clone(), listeners.bound());
        (listener, Admin { readiness: readiness.clone(), metrics: metrics.clone(), config })
    });
    let last_good =
        bootstrap.state_dir.as_deref().map(|dir| LastGood::new(dir, workload.as_str())).transpose().map_err(StartError::State)?;
    let zones = Zones::new(bootstrap.state_dir.as_deref())?;
    let restored = last_good.as_ref().and_then(|last_good| {
        last_good.load().unwrap_or_else(|error| {
            notice(format_args!("last known good: {error}"));
            None
        })
    });
    let mut apply = Apply {
        client: Client::new(workload.as_str()),
        workload: workload.to_string(),
        current: shared.current.clone(),
        listeners,
        last_good,
        zones,
        parked: Vec::new(),
        metrics,
        used: shared.used.clone(),
        forget_after: Duration::from_secs(bootstrap.forget_seconds),
        unready: Some(readiness.delay("configuration")),
        learning: Default::default(),
    };
    drop(shared);

    runtime.block_on(async {
        apply.restore(restored.unwrap_or_default());
        let (events, stream) = mpsc::channel(STREAM_EVENTS);
        let connecting = tokio::spawn(stream::run(bootstrap.control_plane, events));
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut admin = std::pin::pin!(serve_admin(admin));
        tokio::select! {
            () = apply.run(stream, questions) => {}
            never = &mut admin => match never? {},
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        connecting.abort();
        readiness.drain();
        let cut = tokio::time::Instant::now() + Duration::from_secs(bootstrap.drain_seconds);
        let drained = async {
            apply.listeners.drain(cut);
            // A workload that is told to end as well may need to reach others until it has: its sidecar is ended after it
            // (Kubernetes does so with a sidecar container), or it keeps a connection open.
            let _ = timeout_at(cut, apply.metrics.quiet(QUIET)).await;
            apply.listeners.end(cut);
            let _ = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join()))).await;
        };
        tokio::select! {
            () = drained => {}
            // Whoever asks meanwhile is told that this sidecar drains.
            never = &mut admin => match never? {},
        }
        let _ = tokio::task::spawn_blocking(move || tracing.shutdown(FLUSH)).await;
        Ok::<_, StartError>(())
    })?;
    if let Some(Err(error)) = writer.map(|writer| writer.close(FLUSH)) {
        notice(format_args!("{error}"));
    }
    Ok(())
}

/// Takes all the file descriptors that it may have. The usual soft limit, 1024, is kept for programs that call select(2); a thousand
/// connections that say nothing would leave none for a request on its way to the workload.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        notice(format_args!("the limit on open files stays as it was: {error}"));
    }
}

async fn serve_admin(admin: Option<(AdminListener, Admin)>) -> io::Result<Infallible> {
    match admin {
        Some((listener, admin)) => listener.serve(admin).await,
        None => std::future::pending().await,
    }
}

fn open_access_log(
    bootstrap: &Bootstrap,
    workload: &WorkloadName,
    metrics: &Metrics,
) -> io::Result<(Option<AccessLog>, Option<AccessLogWriter>)> {
    let (log, writer) = match &bootstrap.access_log {
        AccessLogSink::Off => return Ok((None, None)),
        AccessLogSink::Stdout => AccessLog::start(access_log::stdout()?, workload.clone(), metrics)?,
        AccessLogSink::File(path) => AccessLog::start(access_log::LogFile::open(path)?, workload.clone(), metrics)?,
    };
    Ok((Some(log.with_query_ratio(bootstrap.query_log_ratio)), Some(writer)))
}

type DataThreads = (Vec<mpsc::UnboundedSender<crate::listeners::Serve>>, Vec<thread::JoinHandle<()>>);

fn start_data_threads(count: usize, shared: &Shared) -> io::Result<DataThreads> {
    let (mut commands, mut threads) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for index in 0..count {
        let (sender, receiver) = mpsc::unbounded_channel();
        let shared = shared.clone();
        // A local runtime stays on the thread that made it; whether it could be made is told here.
        let (made, outcome) = std::sync::mpsc::channel();
        threads.push(thread::Builder::new().name(format!("data-{index}")).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => {
                    let _ = made.send(Ok(()));
                    data::run(&runtime, shared, receiver);
                }
                Err(error) => drop(made.send(Err(error))),
            }
        })?);
        outcome.recv().map_err(io::Error::other)??;
        commands.push(sender);
    }
    Ok((commands, threads))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_descriptors_are_taken() {
        let hard = getrlimit(Resource::Nofile).maximum;
        let low = rustix::process::Rlimit { current: hard.map(|hard| hard - 1), maximum: hard };
        setrlimit(Resource::Nofile, low).unwrap();
        raise_descriptor_limit();
        assert_eq!(getrlimit(Resource::Nofile).current, hard);
    }
}
