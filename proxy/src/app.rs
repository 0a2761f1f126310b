//! The process: which threads there are and what each is given. The only place that sees everything.
//!
//! | thread | does |
//! |---|---|
//! | main, "control" | the ADS stream, applying policy, the admin endpoint, signals |
//! | data-0 … | connections, each from accept to close |
//! | access-log | formats and writes lines |
//! | handover, late-charges | while one process takes over from another: what they say to each other |

mod succession;

use std::{
    convert::Infallible,
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use ringfence_policy::WorkloadName;
use ringfence_xds::client::Client;
use rustix::process::{DumpableBehavior, Resource, getrlimit, set_dumpable_behavior, setrlimit};
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
        keys::{KeyFile, KeyFileError},
        last_good::LastGoodError,
        learn::Learner,
        stream,
        zones::Zones,
    },
    context::Contexts,
    data::{self, Shared},
    handover::{Estate, Handover, HandoverError},
    identity::{Identity, IdentityError},
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

use self::succession::{Begin, Succession, admin_listener, succeed};

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
    #[error("take-over: needs a stateDir, in which the sidecar that runs is met")]
    NoStateDir,
    #[error("take-over: {0}")]
    Handover(#[from] HandoverError),
    #[error("take-over: the last known good makes no policy here; the other sidecar goes on")]
    NoPolicy,
    #[error(transparent)]
    ConfigKeys(#[from] KeyFileError),
    #[error("accessLog: {0}")]
    AccessLog(io::Error),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the system has no random numbers")]
    Random,
    #[error("workload: {0}")]
    Workload(#[from] ringfence_policy::NameError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Runs until SIGTERM or SIGINT, or until another process has taken over, then drains. `take_over`: from the one that runs, if there is one.
pub fn run(bootstrap: Bootstrap, take_over: bool) -> Result<(), StartError> {
    close_memory()?;
    raise_descriptor_limit();
    let metrics = Arc::new(Metrics::new());
    let workload: WorkloadName = bootstrap.workload.parse()?;
    let config_keys = bootstrap.config_keys.as_deref().map(KeyFile::open).transpose()?;
    let Begin { last_good, predecessor, mut estate } = Begin::new(&bootstrap, take_over)?;
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
    let admin = bootstrap.admin.as_deref().map(|address| admin_listener(address, estate.as_mut())).transpose()?;
    let own = Arc::new(Own::besides(admin.as_ref().and_then(AdminListener::tcp_address)));
    let (learner, mut questions) = Learner::new();
    let (limiter, contexts) = match &estate {
        Some(Estate { limiter, contexts, .. }) => {
            let contexts = Contexts::with_key(contexts).ok_or(HandoverError::Malformed("its contexts' key"))?;
            (Limiter::with_key(Instant::now(), Bounds::default(), limiter.clone()), contexts)
        }
        None => (Limiter::new(Instant::now(), Bounds::default()), Contexts::new().map_err(|_| StartError::Random)?),
    };
    let (limiter, contexts) = (Arc::new(limiter), Arc::new(contexts));
    let identity = match &bootstrap.identity {
        Some(config) => Some(Identity::new(config, &bootstrap.control_plane, &workload, bootstrap.state_dir.as_deref(), &metrics)?),
        None => None,
    };
    let membership = identity.as_ref().map(|identity| identity.membership.clone());
    let drain_for = Duration::from_secs(bootstrap.drain_seconds);
    let shared = Shared {
        current: Arc::new(Current::default()),
        used: Arc::new(Used::default()),
        limiter: limiter.clone(),
        learner,
        access_log,
        metrics: metrics.clone(),
        tracing: tracing.clone(),
        ids: Arc::new(RequestIds::default()),
        contexts: contexts.clone(),
        resolvers: bootstrap.resolvers.as_slice().into(),
        bindings: Arc::default(),
        own: own.clone(),
        // Whoever has no identity shows none.
        svid: membership.as_ref().map_or_else(|| watch::channel(None).1, |membership| membership.svid.clone()),
        drain_for,
    };
    let (commands, threads) = start_data_threads(bootstrap.threads.get(), &shared)?;
    let mut listeners = Listeners::new(commands, drain_for, own, bootstrap.capture_dir);
    listeners.nameless = identity.is_none();
    if let Some(estate) = estate {
        listeners.inherit(estate.listeners)?;
    }
    let readiness = Readiness::default();
    let admin_socket = admin.as_ref().map(AdminListener::socket).transpose()?;
    let admin = admin.map(|listener| {
        let config = dump::config(shared.current.clone(), listeners.bound(), membership.clone());
        (listener, Admin { readiness: readiness.clone(), metrics: metrics.clone(), config })
    });
    let zones = Zones::new(bootstrap.state_dir.as_deref())?;
    let restored = last_good.as_ref().and_then(|last_good| {
        last_good.load(config_keys.as_ref().map(|file| &**file.keys())).unwrap_or_else(|error| {
            notice(format_args!("last known good: {error}"));
            None
        })
    });
    let mut apply = Apply {
        client: match &config_keys {
            Some(file) => Client::new(workload.as_str()).trusting(file.keys().clone()),
            None => Client::new(workload.as_str()),
        },
        config_keys,
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
        believed: identity.as_ref().map(|identity| identity.trust.subscribe()),
        trust: identity.as_ref().map(|identity| identity.trust.clone()),
    };
    let handover = Handover { workload: workload.to_string(), limiter, bindings: shared.bindings.clone() };
    drop(shared);

    runtime.block_on(async {
        apply.restore(restored.unwrap_or_default());
        match predecessor {
            Some(predecessor) => succeed(predecessor, &mut apply, &handover)?,
            None => drop(apply.begin()),
        }
        apply.zones.tidy();
        let admin_socket = bootstrap.admin.zip(admin_socket);
        let mut succession = Succession::offer(bootstrap.state_dir.as_deref(), handover, contexts, admin_socket);
        let (events, mut stream) = mpsc::channel(STREAM_EVENTS);
        let connecting = tokio::spawn(stream::run(bootstrap.control_plane, membership, events));
        // After the last known good: its trust bundle may be later than the bootstrap's.
        let identifying = identity.map(|identity| tokio::spawn(identity.run()));
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut admin = Box::pin(serve_admin(admin));
        let late_charges = loop {
            let said = tokio::select! {
                () = apply.run(&mut stream, &mut questions) => break None,
                never = &mut admin => match never? {},
                _ = interrupt.recv() => break None,
                _ = terminate.recv() => break None,
                said = succession.next() => said,
            };
            if let Some(late_charges) = succession.answer(said, &apply) {
                break Some(late_charges);
            }
        };
        connecting.abort();
        if let Some(identifying) = identifying {
            identifying.abort();
        }
        readiness.drain();
        let cut = tokio::time::Instant::now() + Duration::from_secs(bootstrap.drain_seconds);
        match late_charges {
            Some(late_charges) => {
                let limiter = succession.leave();
                // The directory and the endpoint are the other process's: who asks there asks that one.
                drop((apply.last_good.take(), admin));
                apply.listeners.leave(cut);
                joined(threads).await;
                // Nothing is charged here any more: the other process has heard all when this has ended.
                limiter.keep();
                joined(vec![late_charges]).await;
            }
            None => {
                succession.withdraw();
                let drained = async {
                    apply.listeners.drain(cut);
                    // A workload that is told to end as well may need to reach others until it has: its sidecar is ended after it
                    // (Kubernetes does so with a sidecar container), or it keeps a connection open.
                    let _ = timeout_at(cut, apply.metrics.quiet(QUIET)).await;
                    apply.listeners.end(cut);
                    joined(threads).await;
                };
                tokio::select! {
                    () = drained => {}
                    // Whoever asks meanwhile is told that this sidecar drains.
                    never = &mut admin => match never? {},
                }
            }
        }
        let _ = tokio::task::spawn_blocking(move || tracing.shutdown(FLUSH)).await;
        Ok::<_, StartError>(())
    })?;
    if let Some(Err(error)) = writer.map(|writer| writer.close(FLUSH)) {
        notice(format_args!("{error}"));
    }
    Ok(())
}

/// Tokens and keys pass through this memory. It goes into no core file, and what runs as the same user can neither trace this process nor
/// read its memory, descriptors or environment: that takes CAP_SYS_PTRACE (prctl(2), ptrace(2)).
fn close_memory() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
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

async fn joined(threads: Vec<thread::JoinHandle<()>>) {
    let _ = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join()))).await;
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
