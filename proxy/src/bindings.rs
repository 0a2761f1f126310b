//! What the workload was told: which names its DNS answers gave for an address, and until when.
//!
//! Written by the DNS route of every data thread, read by the egress decision of any: a captured connection that names nothing itself goes
//! where a name led that the workload asked for.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use ringfence_policy::host::HostName;
use smallvec::SmallVec;

/// An answer may be used this long after its TTL: programs look a name up, then wait, queue or try other addresses before they connect.
pub const GRACE: Duration = Duration::from_secs(60);
/// An answer holds for a week at most, whatever its TTL says (RFC 8767 §4).
const MAX_REMAINING: Duration = Duration::from_secs(7 * 86_400);
/// Addresses remembered. With their names about 2 MB.
const MAX_ADDRESSES: usize = 16 * 1024;
/// Names of one address: those of a large CDN share few addresses.
const MAX_NAMES: usize = 32;
const SHARDS: usize = 16;

#[derive(Debug, Default)]
pub struct Bindings {
    shards: [Mutex<HashMap<IpAddr, Names>>; SHARDS],
    hasher: RandomState,
}

type Names = SmallVec<[Binding; 1]>;

#[derive(Debug)]
struct Binding {
    name: HostName,
    until: Instant,
}

impl Bindings {
    /// The workload is told that `name` leads to `addresses`; `expires`: when the answer's TTL ends.
    pub fn learn(&self, name: &HostName, addresses: impl IntoIterator<Item = IpAddr>, expires: Instant, now: Instant) {
        let until = expires + GRACE;
        for address in addresses {
            let address = address.to_canonical();
            let mut shard = self.shard(address).lock();
            if shard.len() >= MAX_ADDRESSES / SHARDS && !shard.contains_key(&address) {
                make_room(&mut shard, now);
            }
            match shard.entry(address) {
                Entry::Vacant(entry) => drop(entry.insert(SmallVec::from_iter([Binding { name: name.clone(), until }]))),
                Entry::Occupied(mut entry) => bind(entry.get_mut(), name, until, now),
            }
        }
    }

    /// The names that led to `address`, the latest to expire first.
    pub fn lookup(&self, address: IpAddr, now: Instant) -> Vec<HostName> {
        let address = address.to_canonical();
        let shard = self.shard(address).lock();
        let mut valid: Vec<&Binding> = shard.get(&address).into_iter().flatten().filter(|binding| now < binding.until).collect();
        valid.sort_by_key(|binding| std::cmp::Reverse(binding.until));
        valid.into_iter().map(|binding| binding.name.clone()).collect()
    }

    /// Whether the workload was told that `name` leads to `address`.
    pub fn holds(&self, name: &HostName, address: IpAddr, now: Instant) -> bool {
        let address = address.to_canonical();
        let shard = self.shard(address).lock();
        shard.get(&address).is_some_and(|names| names.iter().any(|binding| binding.name == *name && now < binding.until))
    }

    /// All that is not forgotten yet, with how long it still holds. In no order.
    pub fn remaining(&self, now: Instant) -> Vec<(IpAddr, HostName, Duration)> {
        let mut all = Vec::new();
        for shard in &self.shards {
            for (address, names) in &*shard.lock() {
                let valid = names.iter().filter(|binding| now < binding.until);
                all.extend(valid.map(|binding| (*address, binding.name.clone(), binding.until - now)));
            }
        }
        all
    }

    /// Takes back what `remaining` told of, no longer than any answer could hold.
    pub fn restore(&self, address: IpAddr, name: &HostName, remaining: Duration, now: Instant) {
        let until = now + remaining.min(MAX_REMAINING);
        self.learn(name, [address], until.checked_sub(GRACE).unwrap_or(now), now);
    }

    fn shard(&self, address: IpAddr) -> &Mutex<HashMap<IpAddr, Names>> {
        // The hasher is keyed: whoever chooses addresses does not choose the shard.
        &self.shards[self.hasher.hash_one(address) as usize % SHARDS]
    }
}

fn bind(names: &mut Names, name: &HostName, until: Instant, now: Instant) {
    if let Some(known) = names.iter_mut().find(|binding| binding.name == *name) {
        known.until = known.until.max(until);
        return;
    }
    names.retain(|binding| now < binding.until);
    if names.len() >= MAX_NAMES
        && let Some(first) = (0..names.len()).min_by_key(|i| names[*i].until)
    {
        names.swap_remove(first);
    }
    names.push(Binding { name: name.clone(), until });
}

/// Forgets what has expired, or else the address whose names expire first.
fn make_room(shard: &mut HashMap<IpAddr, Names>, now: Instant) {
    let ends = |names: &Names| names.iter().map(|binding| binding.until).max();
    let before = shard.len();
    shard.retain(|_, names| ends(names).is_some_and(|until| now < until));
    if shard.len() == before
        && let Some(address) = shard.iter().min_by_key(|(_, names)| ends(names)).map(|(address, _)| *address)
    {
        shard.remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> HostName {
        text.parse().unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const TTL: Duration = Duration::from_secs(30);

    #[test]
    fn what_was_told_holds_until_its_ttl_and_the_grace_have_passed() {
        let (bindings, now) = (Bindings::default(), Instant::now());
        let (api, told) = (name("api.example.com"), address("192.0.2.1"));
        bindings.learn(&api, [told, address("2001:db8::1")], now + TTL, now);
        for (asked, at, expected) in [
            (told, now, true),
            (address("2001:db8::1"), now, true),
            (address("::ffff:192.0.2.1"), now, true),
            (address("192.0.2.2"), now, false),
            (told, now + TTL + GRACE - Duration::from_secs(1), true),
            (told, now + TTL + GRACE, false),
        ] {
            assert_eq!(bindings.holds(&api, asked, at), expected, "{asked}");
            assert_eq!(!bindings.lookup(asked, at).is_empty(), expected, "{asked}");
            assert!(!bindings.holds(&name("other.example.com"), asked, at));
        }
        // A shorter TTL told later takes nothing back of what was promised before.
        bindings.learn(&api, [told], now + Duration::from_secs(1), now);
        assert!(bindings.holds(&api, told, now + TTL));
    }

    #[test]
    fn what_was_told_holds_for_another_process_as_long() {
        let (bindings, now) = (Bindings::default(), Instant::now());
        let (api, www) = (name("api.example.com"), name("www.example.com"));
        let (one, other) = (address("192.0.2.1"), address("2001:db8::1"));
        bindings.learn(&api, [one, other], now + TTL, now);
        bindings.learn(&www, [one], now + 2 * TTL, now);
        let later = now + TTL + GRACE;
        for (at, expected) in [(now, 3), (later, 1), (later + TTL, 0)] {
            let remaining = bindings.remaining(at);
            assert_eq!(remaining.len(), expected);
            let next = Bindings::default();
            remaining.iter().for_each(|(address, name, left)| next.restore(*address, name, *left, at));
            for until in [at, later - Duration::from_millis(1), later, later + TTL - Duration::from_millis(1), later + TTL] {
                for (name, address) in [(&api, one), (&api, other), (&www, one)] {
                    assert_eq!(next.holds(name, address, until.max(at)), bindings.holds(name, address, until.max(at)), "{name} {address}");
                }
            }
        }
    }

    #[test]
    fn the_names_of_an_address_are_told_latest_first_and_bounded() {
        let (bindings, now) = (Bindings::default(), Instant::now());
        let shared = address("192.0.2.1");
        for i in 0..100u64 {
            bindings.learn(&name(&format!("n{i}.example.com")), [shared], now + TTL + Duration::from_secs(i), now);
        }
        let names = bindings.lookup(shared, now);
        assert_eq!(names.len(), MAX_NAMES);
        assert_eq!((names[0].as_str(), names[1].as_str()), ("n99.example.com", "n98.example.com"));
    }

    #[test]
    fn a_flood_of_addresses_is_bounded_and_expired_ones_go_first() {
        let (bindings, now) = (Bindings::default(), Instant::now());
        let of = |i: u32| IpAddr::from((0x0a00_0000 + i).to_be_bytes());
        let held = || bindings.shards.iter().map(|shard| shard.lock().len()).sum::<usize>();
        let flood = name("flood.example.com");
        for i in 0..(MAX_ADDRESSES + MAX_ADDRESSES / 16) as u32 {
            bindings.learn(&flood, [of(i)], now + TTL, now);
        }
        assert!(held() <= MAX_ADDRESSES, "{}", held());
        let later = now + TTL + GRACE;
        for i in 0..1000 {
            bindings.learn(&flood, [of(1_000_000 + i)], later + TTL, later);
        }
        assert!((0..1000).all(|i| bindings.holds(&flood, of(1_000_000 + i), later)));
        assert!(held() <= MAX_ADDRESSES);
    }
}
