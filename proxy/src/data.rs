//! A data thread: serves listeners, each connection from accept to close, with pools and remembered tokens of its own.

use std::{rc::Rc, sync::Arc};

use tokio::{runtime::LocalRuntime, sync::mpsc, task::JoinSet};

use crate::{
    bindings::Bindings,
    config::{Current, apply::Used, learn::Learner},
    inbound::{Enforce, Inbound, Timeouts, listener},
    limiter::Limiter,
    listeners::Serve,
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
    pub bindings: Arc<Bindings>,
}

/// Runs until the control side has hung up and every listener has drained.
pub fn run(runtime: &LocalRuntime, shared: Shared, mut commands: mpsc::UnboundedReceiver<Serve>) {
    let enforce = Rc::new(Enforce::new(shared));
    runtime.block_on(async {
        let mut listeners = JoinSet::new();
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(serve) => {
                        let inbound = Rc::new(Inbound::new(&serve, Timeouts::default(), enforce.clone()));
                        listeners.spawn_local(listener::serve(serve.socket, inbound, serve.drain));
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

fn tell(ended: Result<std::io::Result<()>, tokio::task::JoinError>) {
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => notice(format_args!("a listener ended: {error}")),
        Err(error) => notice(format_args!("a listener ended: {error}")),
    }
}
