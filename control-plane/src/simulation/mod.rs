//! A seeded simulation of the store, of whoever signs what it holds, of two replicas of the control plane that serve that, and of their
//! sidecars: messages are lost with their streams, ends of streams learn late of each other's, replicas lag behind each other, everybody
//! crashes and comes back (from what it had, from less, or from nothing), edits break and mend.
//! The code is the real one on both sides, from an operator's text to the snapshot in force; without sockets, files and time.
//!
//! ```text
//! RINGFENCE_SEED=7 cargo test -p ringfence-control-plane simulation     one seed, with what happens in it
//! RINGFENCE_SEEDS=100000 …                                              more of them
//! ```

mod author;
mod plane;
mod sidecar;
mod site;
mod world;

use std::{collections::VecDeque, env, fmt, ops::Range, thread};

use site::Reader;
use world::{Tally, World};

const SEEDS: u64 = 10_000;
/// Before the faults end.
const STEPS: u32 = 150;
/// Shown of a seed that fails: what happened last.
const TRACE: usize = 60;

/// What must hold whatever happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promise {
    /// No tenant's data reaches another's stream or another's sidecar.
    Isolation,
    /// What was acknowledged and stored is in force after a crash; a refusal, or a control plane that has lost everything, takes nothing.
    NoLoss,
    /// No signer and no replica goes back to an older edit of a resource, and none makes a sidecar do so: what a replica tells that lags
    /// behind another is refused by its seal.
    NoRollback,
    /// When faults end, every sidecar comes to enforce what is written, in few steps, and is known to.
    Convergence,
    /// The simulation itself is wrong.
    None,
}

#[derive(Debug)]
struct Broken {
    promise: Promise,
    details: String,
}

impl Promise {
    fn broken(self, details: impl fmt::Display) -> Broken {
        Broken { promise: self, details: details.to_string() }
    }
}

/// A way for the code to be wrong, by which the checks are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutation {
    StrangerIsTold,
    ForgetsToStore,
    RefusalEmpties,
    StoreGoesBack,
    SealsAreIgnored,
    MessageIsLost,
}

fn run(seed: u64, reader: &mut Reader, mutation: Option<Mutation>, tell: &mut dyn FnMut(fmt::Arguments<'_>)) -> Result<Tally, Broken> {
    let mut world = World::new(seed, reader, mutation, tell)?;
    for _ in 0..STEPS {
        world.step()?;
    }
    world.settles()?;
    Ok(world.tally)
}

fn fails(seed: u64, reader: &mut Reader, broken: &Broken) -> String {
    let mut trace = VecDeque::new();
    let mut tell = |what: fmt::Arguments<'_>| {
        if trace.len() == TRACE {
            trace.pop_front();
        }
        trace.push_back(what.to_string());
    };
    let again = run(seed, reader, None, &mut tell).err().map(|broken| broken.details);
    let same = again.as_ref() == Some(&broken.details);
    let trace: Vec<String> = trace.into();
    format!(
        "seed {seed}: {:?}: {}\n{}\n(again with RINGFENCE_SEED={seed}{})",
        broken.promise,
        broken.details,
        trace.join("\n"),
        if same { "" } else { ", but the second run went another way" }
    )
}

fn runs(seeds: Range<u64>) -> Result<Tally, String> {
    let mut reader = Reader::default();
    let mut sum = Tally::default();
    for seed in seeds {
        let tally = run(seed, &mut reader, None, &mut |_| {}).map_err(|broken| fails(seed, &mut reader, &broken))?;
        sum.add(tally);
    }
    Ok(sum)
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not {value}")))
}

#[test]
fn the_promises_hold_whatever_fails() {
    if let Some(seed) = number("RINGFENCE_SEED") {
        let outcome = run(seed, &mut Reader::default(), None, &mut |what| println!("{what}"));
        println!("{outcome:?}");
        assert!(outcome.is_ok());
        return;
    }
    let seeds = number("RINGFENCE_SEEDS").unwrap_or(SEEDS);
    let threads = thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let share = |i: u64| seeds * i / threads..seeds * (i + 1) / threads;
    let shares = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|i| scope.spawn(move || runs(share(i)))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let mut sum = Tally::default();
    for share in shares {
        sum.add(share.unwrap_or_else(|failure| panic!("{failure}")));
    }
    println!("{seeds} seeds: {sum:?}");
    assert!(sum.refused > 0 && sum.outdated > 0 && sum.restored > 0 && sum.crashes > 0, "the faults happen");
}

#[test]
fn the_same_seed_goes_the_same_way() {
    let trace = |seed| {
        let mut trace = Vec::new();
        let tally = run(seed, &mut Reader::default(), None, &mut |what| trace.push(what.to_string()));
        (trace, format!("{tally:?}"))
    };
    for seed in 0..20 {
        assert_eq!(trace(seed), trace(seed));
    }
}

#[test]
fn what_is_wrong_is_seen() {
    for (mutation, promise) in [
        (Mutation::StrangerIsTold, Promise::Isolation),
        (Mutation::ForgetsToStore, Promise::NoLoss),
        (Mutation::RefusalEmpties, Promise::NoLoss),
        (Mutation::StoreGoesBack, Promise::NoRollback),
        (Mutation::SealsAreIgnored, Promise::NoRollback),
        (Mutation::MessageIsLost, Promise::Convergence),
    ] {
        let mut reader = Reader::default();
        let seen =
            (0..500).filter_map(|seed| run(seed, &mut reader, Some(mutation), &mut |_| {}).err().map(|broken| (seed, broken))).next();
        let (seed, broken) = seen.unwrap_or_else(|| panic!("{mutation:?} is not seen"));
        println!("{mutation:?}: at seed {seed}: {:?}", broken.promise);
        assert_eq!(broken.promise, promise, "{mutation:?}: {}", broken.details);
    }
}
