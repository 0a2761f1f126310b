//! A data thread: serves listeners, each connection from accept to close, with pools and remembered tokens of its own.

use std::{io, net::SocketAddr, pin::Pin, rc::Rc, sync::Arc, time::Duration};

use tokio::{runtime::LocalRuntime, sync::mpsc, task::JoinSet};

use crate::{
    bindings::Bindings,
    config::{Current, apply::Used, learn::Learner},
    context::Contexts,
    dns::{self, Dns},
    hop::Timeouts,
    identity::CurrentSvid,
    inbound::{self, Enforce, Inbound},
    limiter::Limiter,
    listeners::{Route, Serve},
    outbound::{self, Outbound, own::Own},
    telemetry::{RequestIds, access_log::AccessLog, metrics::Metrics, notice, trace::Tracing},
};

/// What the data threads share.
#[derive(Clone)]
pub struct Shared {
    pub current: Arc<Current>,
    pub used: Arc<Used>,
    pub limiter: Arc<Limiter>,
    pub learner: Learner,
    pub access_log: Option<AccessLog>,
    pub metrics: Arc<Metrics>,
    pub tracing: Tracing,
    pub ids: Arc<RequestIds>,
    pub contexts: Arc<Contexts>,
    pub bindings: Arc<Bindings>,
    pub own: Arc<Own>,
    /// In place of the host's resolvers; empty: those.
    pub resolvers: Arc<[SocketAddr]>,
    /// What is shown to peers.
    pub svid: CurrentSvid,
    /// How long what is under way at a workload's old address may go on.
    pub drain_for: Duration,
}

#[cfg(test)]
impl Shared {
    /// Of a process that was told nothing: without policy, identity and access log.
    pub(crate) fn untold() -> Self {
        Self {
            current: Default::default(),
            used: Default::default(),
            limiter: Arc::new(Limiter::new(std::time::Instant::now(), crate::limiter::Bounds::default())),
            learner: Learner::new().0,
            access_log: None,
            metrics: Default::default(),
            tracing: Tracing::off(),
            ids: Default::default(),
            contexts: Arc::new(Contexts::new().expect("random octets")),
            bindings: Default::default(),
            resolvers: Default::default(),
            own: Default::default(),
            svid: tokio::sync::watch::channel(None).1,
            drain_for: Duration::from_secs(30),
        }
    }
}

/// Runs until the control side has hung up and every listener has drained.
pub fn run(runtime: &LocalRuntime, shared: Shared, mut commands: mpsc::UnboundedReceiver<Serve>) {
    let enforce = Rc::new(Enforce::new(shared.clone()));
    let dns = Rc::new(Dns::new(shared.clone()));
    runtime.block_on(async {
        let mut listeners = JoinSet::new();
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(serve) => {
                        listeners.spawn_local(start(serve, &shared, &enforce, &dns));
                    }
                    None => break,
                },
                Some(ended) = listeners.join_next(), if !listeners.is_empty() => tell(ended),
            }
        }
        while let Some(ended) = listeners.join_next().await {
            tell(ended);
        }
    });
}

/// A future for each kind of listener, all of one type.
fn start(serve: Serve, shared: &Shared, enforce: &Rc<Enforce>, dns: &Rc<Dns>) -> Pin<Box<dyn Future<Output = io::Result<()>>>> {
    match &serve.route {
        Route::Inbound(route) => {
            let inbound = Rc::new(Inbound::new(serve.key, route, Timeouts::default(), enforce.clone()));
            Box::pin(inbound::listener::serve(serve.socket, inbound, serve.drain))
        }
        Route::Outbound { capture } => {
            let outbound = Rc::new(Outbound::new(serve.key, *capture, shared.clone(), dns.clone()));
            Box::pin(outbound::listener::serve(serve.socket, outbound, serve.drain))
        }
        Route::Dns => Box::pin(dns::listener::serve(serve, dns.clone())),
    }
}

fn tell(ended: Result<io::Result<()>, tokio::task::JoinError>) {
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => notice(format_args!("a listener ended: {error}")),
        Err(error) => notice(format_args!("a listener ended: {error}")),
    }
}
