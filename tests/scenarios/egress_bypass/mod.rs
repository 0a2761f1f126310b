//! What a captured workload may try to get past its sidecar, and that none of it arrives outside. Two network namespaces: a pod and a world
//! with its own DNS, where a canary counts every packet that it does not expect. `tests/README.md` lists the attempts.

mod direct;
mod lifecycle;
mod through;
mod world;

use ringfence_tests::{Canary, pod::SIDECAR};

use self::{
    direct::ATTEMPTS,
    world::{World, net},
};

#[test]
fn nothing_gets_past_the_sidecar_that_would_without_rules() {
    let Some(bare) = net() else { return };
    let canary = Canary::new(&bare);
    for attempt in &ATTEMPTS {
        attempt.make(&bare.pod);
        let seen = canary.seen(SIDECAR);
        assert!(!seen.is_empty(), "without rules, the canary sees: {}", attempt.name);
        println!("{}: without rules the canary sees {}", attempt.name, seen.join(", "));
    }

    drop(canary);
    drop(bare);

    let Some(world) = World::new() else { return };
    attempts_fail(&world, "before the sidecar starts");
    let mut sidecar = world.pod.start().ready();
    attempts_fail(&world, "while the sidecar runs");
    sidecar.process.terminate();
    attempts_fail(&world, "after SIGTERM");
    let mut sidecar = world.pod.start().ready();
    sidecar.process.kill();
    attempts_fail(&world, "after SIGKILL");
}

#[track_caller]
fn attempts_fail(world: &World, when: &str) {
    let canary = world.canary();
    for attempt in &ATTEMPTS {
        attempt.make(&world.pod.net.pod);
        world.nothing_arrived(&canary, &format!("{when}: {}", attempt.name));
    }
}
