//! Takes what the control plane sends, puts it in force and answers for it. The only writer of `Current`.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use indexmap::IndexMap;
use parking_lot::Mutex;
use ringfence_policy::{IssuerName, TenantId};
use ringfence_xds::{
    assemble::{self, Known, Lookup},
    client::{Client, Update},
    decode::{Decoded, Rejection},
    generated::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    resource::{Kind, TRUST_BUNDLE, binding_name},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval},
};

use super::{
    Current, heap,
    keys::KeyFile,
    last_good::{LastGood, Stored},
    learn::{Learnt, Question},
    stream::StreamEvent,
    zones::Zones,
};
mod parked;

pub use parked::Parked;

use crate::{
    identity::{CurrentTrust, Trust},
    listeners::Listeners,
    readiness::Pending,
    telemetry::{metrics::Metrics, notice},
};

/// Claim values remembered on a workload that serves any tenant. When they are all in use, further tenants are refused (503).
const MAX_LEARNT: usize = 50_000;
/// An issuer's keys are asked for at most this often, however many unknown keys its tokens name.
const KEYS_EVERY: Duration = Duration::from_secs(10);
/// A workload whose listeners could not be had is asked for again: a port may be freed, a certificate written. The wait doubles from the
/// first to the last of these.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(60);
/// What configuration took for a while goes back to the system once none has come for so long.
const TRIM_AFTER: Duration = Duration::from_secs(1);
/// A last known good that could not be stored is stored after this long, if it can be then: a disk may be full for a while.
const STORE_AGAIN: Duration = Duration::from_secs(10);

/// Tenants that had a request since the last sweep; marked by the data threads of a workload that serves any tenant.
#[derive(Debug, Default)]
pub struct Used {
    tenants: Mutex<HashSet<TenantId>>,
    /// Counted, so that who has marked a tenant need not do so again before the next one.
    sweeps: AtomicU64,
}

impl Used {
    /// The sweep before which the marks of now count.
    pub fn sweep(&self) -> u64 {
        self.sweeps.load(Ordering::Relaxed)
    }

    /// Yields that sweep.
    pub fn mark(&self, tenant: &TenantId) -> u64 {
        let mut tenants = self.tenants.lock();
        if !tenants.contains(tenant) {
            tenants.insert(tenant.clone());
        }
        self.sweep()
    }

    /// Begins anew.
    pub(crate) fn take(&self) -> HashSet<TenantId> {
        let mut tenants = self.tenants.lock();
        self.sweeps.fetch_add(1, Ordering::Relaxed);
        std::mem::take(&mut *tenants)
    }
}

pub struct Apply {
    pub workload: String,
    pub client: Client,
    /// None: whoever speaks on the stream is believed.
    pub config_keys: Option<KeyFile>,
    pub current: Arc<Current>,
    pub listeners: Listeners,
    pub last_good: Option<LastGood>,
    pub zones: Zones,
    pub parked: Vec<Parked>,
    pub metrics: Arc<Metrics>,
    pub used: Arc<Used>,
    /// A learnt tenant that had no request for this long, and up to twice as long, is forgotten.
    pub forget_after: Duration,
    /// Released when the first policy is in force.
    pub unready: Option<Pending>,
    pub learning: Learning,
    /// None: this sidecar has no identity, and no use for a trust bundle.
    pub trust: Option<Arc<Trust>>,
    /// What that believes now: with a Workload API the policy does not tell it.
    pub believed: Option<CurrentTrust>,
}

/// What was asked on behalf of tokens.
#[derive(Debug, Default)]
pub struct Learning {
    outbound: Option<mpsc::Sender<DeltaDiscoveryRequest>>,
    generation: u64,
    /// Names of bindings asked for, and whether they were used in the running sweep interval.
    learnt: IndexMap<String, bool>,
    /// Whether `learnt` has other names than the control plane was last asked for.
    changed: bool,
    waiting: HashMap<String, Vec<oneshot::Sender<Learnt>>>,
    keys_asked: HashMap<IssuerName, Instant>,
    retry: Option<Retry>,
    /// Refused, for no key in the file has signed them; and when to look whether one in it has by now.
    strangers: BTreeSet<(Kind, String)>,
    look: Option<Retry>,
    /// Whether what is held makes a policy.
    complete: bool,
    /// When to store again what could not be.
    unstored: Option<tokio::time::Instant>,
    /// When to give memory back.
    trim: Option<tokio::time::Instant>,
}

/// When to ask again for a workload that could not be put in force.
#[derive(Clone, Copy, Debug)]
struct Retry {
    at: tokio::time::Instant,
    wait: Duration,
}

impl Apply {
    /// Takes the last known good, if there is one, and prepares what it needs. Nothing is in force before `begin`.
    pub fn restore(&mut self, stored: Stored) {
        let Stored { resources, floors } = stored;
        self.client.restore_floors(floors);
        for resource in resources.iter().filter(|resource| resource.kind == Kind::Binding) {
            self.learning.learnt.insert(resource.name.to_string(), true);
        }
        let rejections = self.client.restore(resources);
        for rejection in &rejections {
            notice(format_args!("last known good: {rejection}"));
        }
        self.restore_zones();
        if let Some(Known::Held(Decoded::Workload(policy))) = self.client.known(Kind::Workload, &self.workload) {
            let faults = self.listeners.prepare(&policy.clone());
            for fault in &faults {
                notice(format_args!("last known good: Workload/{}: {fault}", self.workload));
            }
            if !faults.is_empty() {
                // Not held as far as the control plane is told: it sends it again, and hears why it cannot be.
                self.client.forget(Kind::Workload, &self.workload);
            } else if rejections.is_empty() {
                // Only complete policies are stored, so that what this one lacks was not there. What it has learnt may have been on its way.
                self.client.presume_absent(assemble::wanted(&self.workload, &BTreeSet::new(), &self.client));
            }
        }
        self.want();
    }

    /// Puts what was restored in force; whether it makes a policy.
    pub fn begin(&mut self) -> bool {
        self.swap()
    }

    /// Runs until the stream's or the data threads' ends are gone. Nothing is lost when the future is dropped before: it can be run again.
    pub async fn run(&mut self, stream: &mut mpsc::Receiver<StreamEvent>, questions: &mut mpsc::Receiver<Question>) {
        self.want();
        let mut sweep = interval(self.forget_after);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        sweep.reset();
        loop {
            let mut is_good = false;
            tokio::select! {
                event = stream.recv() => match event {
                    Some(event) => is_good = self.on_stream(event),
                    None => return,
                },
                question = questions.recv() => match question {
                    Some(question) => self.on_question(question),
                    None => return,
                },
                // An idle sidecar that has learnt nobody does not wake up.
                _ = sweep.tick(), if !self.learning.learnt.is_empty() => self.forget_idle(),
                () = due(self.learning.retry.map(|retry| retry.at)) => self.retry(),
                () = due(self.learning.look.map(|look| look.at)) => self.look_for_keys(),
                () = due(self.learning.unstored) => {
                    self.learning.unstored = Some(store_again());
                    is_good = self.learning.complete;
                }
                () = due(self.learning.trim) => {
                    self.learning.trim = None;
                    heap::trim();
                }
                checked = self.zones.checked() => is_good = self.on_checked(checked),
                () = changed(&mut self.believed) => drop(self.swap()),
            }
            // A burst of questions is one change of subscription and one snapshot.
            while let Ok(question) = questions.try_recv() {
                self.on_question(question);
            }
            // What is wanted is all names over again: a token that asks for the same one each time must not cost that.
            if std::mem::take(&mut self.learning.changed) {
                self.want();
            }
            self.answer();
            // Last: requests wait for an answer, and nobody for the disk.
            if is_good {
                self.store();
            }
        }
    }

    /// Whether what is held is worth keeping as the last known good.
    fn on_stream(&mut self, event: StreamEvent) -> bool {
        match event {
            StreamEvent::Connected(outbound) => {
                self.learning.outbound = Some(outbound);
                // They are of the stream before.
                self.parked.clear();
                for request in self.client.connected() {
                    self.send(request);
                }
            }
            StreamEvent::Answered => {
                self.metrics.control_plane_connected.set(1);
            }
            StreamEvent::Response { response, done } => {
                let is_good = self.on_response(response);
                let _ = done.send(());
                return is_good;
            }
            StreamEvent::Disconnected(error) => {
                self.metrics.control_plane_connected.set(0);
                // Said once per loss, not once per attempt.
                if self.learning.outbound.take().is_some() {
                    notice(format_args!("control plane: {error}; what was acknowledged stays in force"));
                }
            }
        }
        false
    }

    fn on_response(&mut self, response: DeltaDiscoveryResponse) -> bool {
        self.read_keys_again();
        let mut update = self.client.receive(response);
        self.note_strangers(&update);
        for upsert in &update.upserts {
            // A listener that cannot be bound is a fault of its Workload, told to the author like any other.
            if let Decoded::Workload(policy) = &upsert.decoded {
                let faults = self.listeners.prepare(policy);
                self.learning.retry = (!faults.is_empty()).then(|| Retry::after(self.learning.retry));
                if !faults.is_empty() {
                    update.rejections.push(Rejection { kind: Kind::Workload, name: policy.name.to_string(), faults });
                }
            }
        }
        self.refuse_earlier_trust(&mut update);
        let failures = self.take_chunks(&update);
        let is_good = self.finish_or_park(update);
        self.unpark(failures) || is_good
    }

    /// Puts an update in force and answers for it; whether what is held then is worth keeping.
    fn finish(&mut self, update: Update) -> bool {
        if let Some(refused) = update.refused() {
            notice(format_args!("refused a response: {refused}"));
        }
        for rejection in &update.rejections {
            self.metrics.config_rejections.inc();
            notice(format_args!("{rejection}"));
        }
        self.tell_withdrawn(&update);
        let reply = self.client.finish(update);
        self.want();
        let complete = self.swap();
        self.learning.complete = complete;
        if let Some(reply) = reply {
            self.send(reply);
        }
        // What is held but does not make a policy (its references are still on their way, or the control plane has lost the workload)
        // would be no good one.
        complete
    }

    fn refuse_earlier_trust(&self, update: &mut Update) {
        let Some(trust) = &self.trust else { return };
        for upsert in &update.upserts {
            if let Decoded::TrustBundle(bundle) = &upsert.decoded
                && let Err(fault) = trust.check(bundle)
            {
                let name = upsert.resource.name.to_string();
                update.rejections.push(Rejection { kind: Kind::TrustBundle, name, faults: vec![fault] });
            }
        }
    }

    /// A control plane without our workload has lost it, or was never given it: both are for the operator to know.
    fn tell_withdrawn(&self, update: &Update) {
        let is_withdrawn = update.kind() == Some(Kind::Workload) && update.removed.contains(&self.workload);
        // Said once, however many streams begin with it.
        if is_withdrawn && !matches!(self.client.known(Kind::Workload, &self.workload), Some(Known::Absent)) {
            let rest = if self.current.pin().is_some() { "what was acknowledged stays in force" } else { "nothing is served" };
            notice(format_args!("control plane: there is no Workload/{}; {rest}", self.workload));
        }
    }

    fn store(&mut self) {
        if let Some(last_good) = &self.last_good
            && let Err(error) = last_good.store(self.client.held(), self.client.floors())
        {
            // Said once, and not each time.
            if self.learning.unstored.replace(store_again()).is_none() {
                notice(format_args!("last known good: {error}"));
            }
            return;
        }
        if self.learning.unstored.take().is_some() {
            notice("last known good: stored again");
        }
        let in_use = self.zones_in_use();
        self.zones.sweep(&in_use);
    }

    /// Asks for what the policy refers to and for what was learnt; no more and no less.
    fn want(&mut self) {
        let learnt = self.learning.learnt.keys().cloned().collect();
        let mut wanted = assemble::wanted(&self.workload, &learnt, &self.client);
        if let Some(zones) = wanted.get(&Kind::PolicyZone) {
            self.zones.gather_only(zones);
        }
        wanted.insert(Kind::ZoneChunk, self.zones.missing());
        for (kind, names) in wanted {
            if let Some(request) = self.client.want(kind, names)
                && self.learning.outbound.is_some()
            {
                self.send(request);
            }
        }
    }

    /// Makes what is known the policy in force, if it is complete; else the old one stays. Trust waits for no policy.
    fn swap(&mut self) -> bool {
        if let Some(trust) = &self.trust
            && let Some(Known::Held(Decoded::TrustBundle(bundle))) = self.client.known(Kind::TrustBundle, TRUST_BUNDLE)
        {
            trust.take(bundle);
        }
        let previous = self.current.pin();
        let generation = self.learning.generation + 1;
        let Some(mut snapshot) = assemble::assemble(&self.workload, &self.client, generation, previous.as_deref()) else { return false };
        if let Some(believed) = &mut self.believed {
            snapshot.trust = believed.borrow_and_update().clone();
        }
        self.learning.generation = generation;
        self.learning.trim = Some(tokio::time::Instant::now() + TRIM_AFTER);
        // First the policy, then the doors that it is for.
        let snapshot = Arc::new(snapshot);
        self.current.swap(snapshot.clone());
        self.listeners.commit(&snapshot.workload);
        self.metrics.config_in_force.set(1);
        self.unready = None;
        true
    }

    fn send(&mut self, request: DeltaDiscoveryRequest) {
        if let Some(outbound) = &self.learning.outbound
            && outbound.try_send(request).is_err()
        {
            // The peer does not read. Dropping our end ends the stream; a new one begins with everything said again.
            self.learning.outbound = None;
        }
    }

    fn retry(&mut self) {
        if let Some(retry) = &mut self.learning.retry {
            // Until the answer says how it went.
            retry.at += RETRY_LAST;
        }
        if let Some(request) = self.client.refresh(Kind::Workload, &self.workload) {
            self.send(request);
        }
    }

    /// Keys that the file has come to hold count for what comes, and for what was refused for the lack of them; what others have sealed is to
    /// be told anew.
    fn read_keys_again(&mut self) {
        let Some(keys) = self.config_keys.as_mut().and_then(KeyFile::read_again) else { return };
        let mut names = self.client.trust(keys);
        if let Some(trust) = self.trust.as_ref().filter(|_| names.contains(&(Kind::TrustBundle, TRUST_BUNDLE.to_owned()))) {
            // Else it would be taken again at the next swap.
            self.client.forget(Kind::TrustBundle, TRUST_BUNDLE);
            trust.doubt();
        }
        self.learning.look = None;
        names.append(&mut self.learning.strangers);
        for request in self.client.refresh_all(&names) {
            self.send(request);
        }
    }

    fn look_for_keys(&mut self) {
        self.learning.look = Some(Retry::after(self.learning.look));
        self.read_keys_again();
    }

    /// Nobody tells that the file is another by now, and nobody sends again what was refused: while there is such, it is looked for.
    fn note_strangers(&mut self, update: &Update) {
        let Some(kind) = update.kind() else { return };
        let strangers = &mut self.learning.strangers;
        for upsert in &update.upserts {
            strangers.remove(&(kind, upsert.resource.name.to_string()));
        }
        for name in &update.removed {
            strangers.remove(&(kind, name.clone()));
        }
        strangers.extend(update.strangers.iter().map(|name| (kind, name.clone())));
        self.learning.look = if strangers.is_empty() { None } else { self.learning.look.or_else(|| Some(Retry::after(None))) };
    }

    fn on_question(&mut self, question: Question) {
        match question {
            Question::Keys { issuer } => {
                let asked = self.learning.keys_asked.get(&issuer);
                if asked.is_none_or(|at| at.elapsed() >= KEYS_EVERY)
                    && let Some(request) = self.client.refresh(Kind::Issuer, issuer.as_str())
                {
                    self.learning.keys_asked.insert(issuer, Instant::now());
                    self.send(request);
                }
            }
            Question::Tenant { issuer, value, answer } => {
                let name = binding_name(issuer.as_str(), &value);
                if !self.learning.learnt.contains_key(&name) {
                    if self.learning.learnt.len() >= MAX_LEARNT && !self.forget_one_unknown() {
                        return; // dropping `answer` tells that there is none
                    }
                    self.learning.changed = true;
                }
                self.learning.learnt.insert(name.clone(), true);
                self.learning.waiting.entry(name).or_default().push(answer);
            }
        }
    }

    /// Answers the questions that what is known by now answers.
    fn answer(&mut self) {
        let client = &self.client;
        self.learning.waiting.retain(|name, answers| {
            let learnt = match client.known(Kind::Binding, name) {
                Some(Known::Absent | Known::Unusable) => Learnt::Unknown,
                Some(Known::Held(Decoded::Binding(tenant))) => match client.known(Kind::Tenant, tenant.as_str()) {
                    Some(Known::Held(_)) => Learnt::Known,
                    Some(_) => Learnt::Unknown,
                    None => return keep_waiting(answers),
                },
                _ => return keep_waiting(answers),
            };
            for answer in answers.drain(..) {
                let _ = answer.send(learnt);
            }
            false
        });
    }

    fn forget_one_unknown(&mut self) -> bool {
        let unknown = self.learning.learnt.keys().position(|name| matches!(self.client.known(Kind::Binding, name), Some(Known::Absent)));
        unknown.is_some_and(|index| self.learning.learnt.swap_remove_index(index).is_some())
    }

    fn forget_idle(&mut self) {
        let used = self.used.take();
        let client = &self.client;
        self.learning.learnt.retain(|name, fresh| {
            let in_use = match client.known(Kind::Binding, name) {
                Some(Known::Held(Decoded::Binding(tenant))) => used.contains(tenant),
                _ => false,
            };
            // Learnt in the running interval: it gets a whole one more.
            std::mem::take(fresh) || in_use
        });
        self.want();
        self.swap();
    }
}

impl Retry {
    fn after(earlier: Option<Retry>) -> Self {
        let wait = earlier.map_or(RETRY_FIRST, |earlier| (earlier.wait * 2).min(RETRY_LAST));
        Self { at: tokio::time::Instant::now() + wait, wait }
    }
}

fn store_again() -> tokio::time::Instant {
    tokio::time::Instant::now() + STORE_AGAIN
}

/// Never, where there is nothing that could change.
async fn changed(believed: &mut Option<CurrentTrust>) {
    let is_changed = match believed {
        Some(believed) => believed.changed().await.is_ok(),
        None => false,
    };
    if !is_changed {
        std::future::pending().await
    }
}

async fn due(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Whether anybody still waits.
fn keep_waiting(answers: &mut Vec<oneshot::Sender<Learnt>>) -> bool {
    answers.retain(|answer| !answer.is_closed());
    !answers.is_empty()
}

#[cfg(test)]
mod tests;
