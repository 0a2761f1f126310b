//! Floods of names that nobody has heard of.

use std::{collections::HashSet, time::Instant};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use ringfence_tests::{
    eventually,
    liar::{Asked, Says},
    procfs,
};

use super::{ANSWERED_WITHIN, Client, GOOD, REFUSED, Stream, World, good, soa};

/// What a flood may take that was not there before, in KiB: the cache (4 MiB, and what the allocator makes of it), the questions on their
/// way and those who wait for them. If each query of a flood left a KiB behind, it would be more.
const GROWTH_KIB: u64 = 32 * 1024;
/// Different questions that one thread asks at once (`limits::MAX_ASKING`).
const MAX_ASKING: usize = 512;
/// Queries sent before their end is waited for: the kernel's buffer holds them.
const BATCH: usize = 100;

/// Asks for as many names. Every batch ends in names that are known, refused or asked over TCP, and these are answered.
fn flood(world: &World, queries: usize) {
    let mut client = Client::new(world.server);
    let mut stream = Stream::open(world.server);
    for batch in 0..queries / BATCH {
        for number in 0..BATCH {
            client.send(&format!("{batch}-{number}.flood.test"), RecordType::A);
        }
        for (name, expected) in [("known.test", GOOD), (REFUSED, "NXDomain")] {
            assert_eq!(client.ask(name, RecordType::A).short(), expected, "{name} after {} queries", batch * BATCH);
        }
        if batch % 10 == 0 {
            for (name, expected) in [("known.test", GOOD), (REFUSED, "NXDomain")] {
                assert_eq!(stream.ask(name, RecordType::A).short(), expected, "{name} over TCP after {} queries", batch * BATCH);
            }
        }
    }
}

fn is_of_flood(name: &str) -> bool {
    name.ends_with("flood.test")
}

/// Floods; what is taken meanwhile is bounded. Yields that, in KiB.
fn memory_of_flood(world: &World, queries: usize) -> u64 {
    let mut client = Client::new(world.server);
    // Used often, it is not what makes room.
    assert_eq!(client.ask("known.test", RecordType::A).short(), GOOD);
    let before = procfs::anonymous_kib(world.pid());
    flood(world, queries);
    let after = procfs::anonymous_kib(world.pid());
    assert!(after.saturating_sub(before) < GROWTH_KIB, "{before} KiB, {after} KiB");
    after.saturating_sub(before)
}

/// Once it is over, and the last of its questions have come to their end, there is room again.
fn others_are_asked_for_again(world: &World) {
    let mut number = 0;
    eventually("other names are asked for again", || {
        number += 1;
        (world.ask(&format!("after-{number}.test"), RecordType::A).short() == GOOD).then_some(())
    });
}

#[test]
fn a_flood_that_no_upstream_answers_is_bounded_and_the_rest_is_answered() {
    let world = World::new(|asked: &Asked| if is_of_flood(&asked.name()) { Says::Nothing } else { good(asked) });
    // On each of the sidecar's threads.
    let threads = procfs::threads(world.pid());
    let begun = Instant::now();
    println!("the flood has taken {} KiB", memory_of_flood(&world, 50_000));
    // Each question is on its way for as long: so many rounds there can have been.
    let rounds = begun.elapsed().as_secs() / ANSWERED_WITHIN.as_secs() + 1;
    let asked = world.liar.asked();
    let different = asked.iter().filter(|(name, ..)| is_of_flood(name)).map(|(name, ..)| name).collect::<HashSet<_>>().len();
    println!("{different} different questions went upstream in {rounds} rounds");
    assert!(different <= MAX_ASKING * threads * rounds as usize, "{different} in {rounds} rounds");
    others_are_asked_for_again(&world);
}

#[test]
fn a_flood_of_names_that_do_not_exist_is_bounded_and_the_rest_is_answered() {
    let world = World::new(|asked: &Asked| {
        if !is_of_flood(&asked.name()) {
            return good(asked);
        }
        let mut answer = asked.answer(ResponseCode::NXDomain, []);
        answer.add_authority(soa("flood.test"));
        answer.into()
    });
    println!("the flood has taken {} KiB", memory_of_flood(&world, 20_000));
    others_are_asked_for_again(&world);
    assert_eq!(world.ask("never.flood.test", RecordType::A).rcode, ResponseCode::NXDomain);
}
