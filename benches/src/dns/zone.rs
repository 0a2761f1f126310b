//! The policy zone that all servers are given: real names of blocklists as rules, and three rules of its own that are asked about.

use std::{
    collections::HashSet,
    env, fs,
    path::{Path, PathBuf},
};

use crate::Error;

pub(super) const ORIGIN: &str = "big.rpz";
const HEAD: &str = "$ORIGIN big.rpz.\n$TTL 300\n@ NS localhost.\n";
/// What is put before a name to make more rules of it, when there are more rules than names.
const PREFIXES: [&str; 21] = [
    "",
    "*.",
    "www.",
    "mail.",
    "login.",
    "api.",
    "cdn.",
    "static.",
    "app.",
    "m.",
    "dev.",
    "test.",
    "img.",
    "secure.",
    "account.",
    "update.",
    "download.",
    "web.",
    "portal.",
    "vpn.",
    "smtp.",
];
/// Names that stand in for the real ones where there is no corpus, as many.
const MADE_UP: usize = 121_570;
/// Everything below is refused, but for `ALLOWED`.
const WILD: &str = "wild.bench.example";
pub(super) const ALLOWED: &str = "allowed.wild.bench.example";
/// The rule that edits change.
pub(super) const CHANGING: &str = "changing.bench.example";
/// In no zone.
pub(super) const UNLISTED: &str = "unlisted.bench.example";
/// Rules of the zone's own.
const OWN: usize = 3;

/// Names for rules.
pub(super) struct Names(Vec<String>);

impl Names {
    /// Those of the corpora, which `$RINGFENCE_CORPORA` names or which lie beside the repository; made up ones where they do not.
    pub(super) fn find() -> Self {
        let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/corpora"));
        let corpora = env::var_os("RINGFENCE_CORPORA").map_or_else(beside, PathBuf::from);
        match fs::read_to_string(corpora.join("realdata/domains-121k.txt")) {
            Ok(text) => Self(text.split_whitespace().map(str::to_owned).collect()),
            Err(_) => Self((0..MADE_UP).map(made_up).collect()),
        }
    }

    /// Owners of so many rules, each once: PowerDNS refuses a zone that says something twice, and some of the names are others with `www`.
    fn owners(&self, count: usize) -> Vec<String> {
        let mut taken = HashSet::with_capacity(count);
        let made = PREFIXES.iter().flat_map(|prefix| self.0.iter().map(move |name| format!("{prefix}{name}")));
        made.filter(|owner| taken.insert(owner.clone())).take(count).collect()
    }
}

/// About as long as real ones, and as unevenly spread over top-level domains.
fn made_up(number: usize) -> String {
    const WORDS: [&str; 8] = ["mail", "shop", "free-gifts", "secure-login", "cdn", "news", "my", "temporary"];
    const SUFFIXES: [&str; 8] = ["com", "com", "com", "net", "org", "xyz", "co.uk", "info"];
    // Scattered, so that neighbours in the zone are none in the index (multiplicative hashing).
    let scattered = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    format!("{}{scattered:x}.{}", WORDS[number % WORDS.len()], SUFFIXES[scattered as usize % SUFFIXES.len()])
}

/// What the rule that edits change does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Changing {
    Refuses,
    LetsPass,
}

/// A zone's text, but for what edits change.
pub(super) struct ZoneText {
    before: String,
    after: String,
    pub(super) first: String,
    pub(super) last: String,
    /// Names that it refuses, from all of it: one for each so many rules.
    pub(super) refused: Vec<String>,
}

impl ZoneText {
    /// Of so many rules, as many as there can be made of the names at most.
    pub(super) fn new(names: &Names, rules: usize, refused: usize) -> Self {
        let owners = names.owners(rules.saturating_sub(OWN));
        let (before, after) = owners.split_at(owners.len() / 2);
        let text = |owners: &[String]| owners.iter().map(|owner| format!("{owner} CNAME .\n")).collect();
        let asked = |owner: &String| owner.replacen('*', "any", 1);
        Self {
            before: text(before),
            after: text(after),
            first: owners.first().map(asked).unwrap_or_default(),
            last: owners.last().map(asked).unwrap_or_default(),
            refused: owners.iter().step_by((owners.len() / refused).max(1)).take(refused).map(asked).collect(),
        }
    }

    /// Puts a file with the zone in the place of `path`, whole at once.
    pub(super) fn write(&self, path: &Path, serial: u32, changing: Changing) -> Result<(), Error> {
        let temporary = path.with_extension("new");
        fs::write(&temporary, self.text(serial, changing)).map_err(Error::io("zone"))?;
        fs::rename(&temporary, path).map_err(Error::io("zone"))
    }

    fn text(&self, serial: u32, changing: Changing) -> String {
        let Self { before, after, .. } = self;
        let target = match changing {
            Changing::Refuses => ".",
            Changing::LetsPass => "rpz-passthru.",
        };
        let own = format!("*.{WILD} CNAME .\n{ALLOWED} CNAME rpz-passthru.\n{CHANGING} CNAME {target}\n");
        format!("{HEAD}@ SOA ns.{ORIGIN}. host.{ORIGIN}. {serial} 3600 900 86400 60\n{before}{own}{after}")
    }

    /// Names, and whether they are refused.
    pub(super) fn samples(&self) -> [(String, bool); 6] {
        [
            (self.first.clone(), true),
            (self.last.clone(), true),
            (format!("a.b.{WILD}"), true),
            (ALLOWED.into(), false),
            (CHANGING.into(), true),
            (UNLISTED.into(), false),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_has_as_many_rules_as_it_says_and_its_samples_are_of_it() {
        let names = Names((0..10).map(made_up).collect());
        for rules in [4, 13, 20, 40] {
            let zone = ZoneText::new(&names, rules, 3);
            let text = zone.text(1, Changing::Refuses);
            assert_eq!(text.matches(" CNAME ").count(), rules);
            let refuses = |name: &str| {
                text.contains(&format!("\n{name} CNAME .\n")) || text.contains(&format!("\n{} CNAME .\n", name.replacen("any", "*", 1)))
            };
            for name in zone.refused.iter().chain([&zone.first, &zone.last]) {
                assert!(refuses(name), "{name}");
            }
            assert!(text.ends_with(&format!("{} CNAME .\n", zone.last.replacen("any", "*", 1))));
        }
    }

    #[test]
    fn an_edit_changes_one_rule_and_the_serial() {
        let zone = ZoneText::new(&Names((0..10).map(made_up).collect()), 10, 3);
        let (old, new) = (zone.text(1, Changing::Refuses), zone.text(2, Changing::LetsPass));
        assert_eq!(old.lines().zip(new.lines()).filter(|(old, new)| old != new).count(), 2);
    }

    #[test]
    fn made_up_names_are_all_different() {
        let names: std::collections::HashSet<String> = (0..MADE_UP).map(made_up).collect();
        assert_eq!(names.len(), MADE_UP);
    }
}
