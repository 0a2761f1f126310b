//! The inbound sockets: bound before a policy that needs them is in force, handed to the data threads when it is, drained when it is gone.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use ringfence_policy::tenant::{InboundPolicy, WorkloadPolicy};
use ringfence_xds::decode::Fault;
use rustls::ServerConfig;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use crate::{
    inbound::{
        listener::{self, Drain},
        tls::{self, TlsIdentity},
    },
    telemetry::notice,
};

/// Which listener of its workload: the address as configured, and, where several ask for port 0, which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerKey {
    pub listen: SocketAddr,
    pub nth: usize,
}

impl ListenerKey {
    /// The listeners of a workload with their keys, in the spec's order.
    pub fn of(workload: &WorkloadPolicy) -> impl Iterator<Item = (ListenerKey, &InboundPolicy)> {
        workload.inbound.iter().enumerate().map(|(i, policy)| {
            let nth = workload.inbound[..i].iter().filter(|other| other.listen == policy.listen).count();
            (ListenerKey { listen: policy.listen, nth }, policy)
        })
    }

    /// What this listener's workload says of it now.
    pub fn policy<'a>(&self, workload: &'a WorkloadPolicy) -> Option<&'a InboundPolicy> {
        workload.inbound.iter().filter(|policy| policy.listen == self.listen).nth(self.nth)
    }
}

/// For a data thread: serve this, until `drain` begins.
pub struct Serve {
    pub key: ListenerKey,
    pub socket: TcpListener,
    pub upstream: SocketAddr,
    pub tls: Option<Arc<ServerConfig>>,
    pub forward_token: bool,
    pub drain: Drain,
}

/// Where the listeners are bound: `listen` as configured and the address in fact.
pub type Bound = Arc<Mutex<Vec<(SocketAddr, SocketAddr)>>>;

pub struct Listeners {
    threads: Vec<mpsc::UnboundedSender<Serve>>,
    drain_for: Duration,
    bound: HashMap<ListenerKey, Listener>,
    told: Bound,
}

struct Listener {
    /// One for each data thread; kept here, so that replacing what serves them never closes the port.
    sockets: Vec<TcpListener>,
    address: SocketAddr,
    /// Loaded when the policy was prepared, used from its commit on.
    next_tls: Option<TlsIdentity>,
    serving: Option<Serving>,
}

struct Serving {
    policy: InboundPolicy,
    tls: Option<TlsIdentity>,
    drain: watch::Sender<Option<Instant>>,
}

impl Listeners {
    pub fn new(threads: Vec<mpsc::UnboundedSender<Serve>>, drain_for: Duration) -> Self {
        Self { threads, drain_for, bound: HashMap::new(), told: Bound::default() }
    }

    /// A view of where the listeners are, for the admin endpoint.
    pub fn bound(&self) -> Bound {
        self.told.clone()
    }

    /// Binds what `workload` needs and is not bound yet, and reads its certificates. Nothing is served before `commit`. What it could not
    /// get is a fault at the field that asked for it, and nothing of the new policy is kept then.
    pub fn prepare(&mut self, workload: &WorkloadPolicy) -> Vec<Fault> {
        let mut faults = Vec::new();
        let (mut fresh, mut certificates) = (Vec::new(), Vec::new());
        for (i, (key, policy)) in ListenerKey::of(workload).enumerate() {
            let fault = |field: &str, message: String| Fault { path: format!("inbound[{i}].{field}"), message };
            let tls = match policy.tls.as_ref().map(|files| tls::identity(&files.certificate, &files.key)).transpose() {
                Ok(tls) => tls,
                Err(error) => {
                    faults.push(fault("tls", error.to_string()));
                    continue;
                }
            };
            if !self.bound.contains_key(&key) {
                match bind(policy.listen, self.threads.len()) {
                    Ok((sockets, address)) => {
                        self.bound.insert(key, Listener { sockets, address, next_tls: None, serving: None });
                        fresh.push(key);
                    }
                    Err(error) => {
                        faults.push(fault("listen", format!("cannot listen on {}: {error}", policy.listen)));
                        continue;
                    }
                }
            }
            certificates.push((key, tls));
        }
        if faults.is_empty() {
            for (key, tls) in certificates {
                if let Some(listener) = self.bound.get_mut(&key) {
                    listener.next_tls = tls;
                }
            }
        } else {
            for key in fresh {
                self.bound.remove(&key);
            }
        }
        faults
    }

    /// Serves the listeners of `workload`, whose policy is in force now, and drains all others.
    pub fn commit(&mut self, workload: &WorkloadPolicy) {
        let wanted: HashSet<ListenerKey> = ListenerKey::of(workload).map(|(key, _)| key).collect();
        let until = Instant::now() + self.drain_for;
        self.bound.retain(|key, listener| {
            let keep = wanted.contains(key);
            if !keep {
                listener.stop(until);
            }
            keep
        });
        for (key, policy) in ListenerKey::of(workload) {
            if let Some(listener) = self.bound.get_mut(&key)
                && let Err(error) = listener.serve(key, policy, &self.threads, until)
            {
                notice(format_args!("cannot serve {}: {error}", policy.listen));
            }
        }
        *self.told.lock() =
            ListenerKey::of(workload).filter_map(|(key, policy)| Some((policy.listen, self.bound.get(&key)?.address))).collect();
    }

    /// Stops accepting everywhere; requests in flight may end until the deadline. The data threads end when theirs have.
    pub fn drain(&mut self) {
        let until = Instant::now() + self.drain_for;
        for (_, mut listener) in self.bound.drain() {
            listener.stop(until);
        }
        self.threads.clear();
    }
}

impl Listener {
    fn stop(&mut self, until: Instant) {
        if let Some(serving) = self.serving.take() {
            serving.drain.send_replace(Some(until));
        }
    }

    fn serve(
        &mut self,
        key: ListenerKey,
        policy: &InboundPolicy,
        threads: &[mpsc::UnboundedSender<Serve>],
        until: Instant,
    ) -> io::Result<()> {
        let tls = match (&policy.tls, &self.next_tls) {
            (None, _) => None,
            (Some(_), Some(identity)) => Some(identity.clone()),
            (Some(_), None) => return Err(io::Error::other("its certificate was never read; it stays as it was")),
        };
        // Paths that need no token are read from the snapshot at each request; only what a connection holds asks for new connections.
        let same = |serving: &Serving| {
            serving.policy.upstream == policy.upstream && serving.policy.forward_token == policy.forward_token && serving.tls == tls
        };
        if self.serving.as_ref().is_some_and(same) {
            return Ok(());
        }
        // All or none: what one thread serves beside the others, nobody would drain.
        let sockets = self.sockets.iter().map(TcpListener::try_clone).collect::<io::Result<Vec<_>>>()?;
        let (drain, draining) = watch::channel(None);
        for (socket, thread) in sockets.into_iter().zip(threads) {
            let serve = Serve {
                key,
                socket,
                upstream: policy.upstream,
                tls: tls.as_ref().map(|identity| identity.config.clone()),
                forward_token: policy.forward_token,
                drain: Drain::new(draining.clone()),
            };
            // A data thread ends only after the control side.
            let _ = thread.send(serve);
        }
        self.stop(until);
        self.serving = Some(Serving { policy: policy.clone(), tls, drain });
        Ok(())
    }
}

/// One socket for each data thread on the same address.
fn bind(address: SocketAddr, threads: usize) -> io::Result<(Vec<TcpListener>, SocketAddr)> {
    if threads > 1 && address.port() != 0 {
        // SO_REUSEPORT would share the port with whoever holds it already, if it is the same user's: ask first without.
        listener::bind(address, false)?;
    }
    let first = listener::bind(address, threads > 1)?;
    let bound = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..threads {
        sockets.push(listener::bind(bound, true)?);
    }
    Ok((sockets, bound))
}

#[cfg(test)]
mod tests;
