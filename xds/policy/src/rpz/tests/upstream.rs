//! An upstream that knows a list of records, and answers as a recursive resolver would that sees exactly these.

use std::collections::{HashMap, HashSet};

use super::*;

#[derive(Default)]
pub(super) struct Upstream {
    records: HashMap<Name, Vec<Record>>,
    /// Those that have records, and all above them.
    names: HashSet<Name>,
    pub(super) failing: Vec<Name>,
    pub(super) absent: HashSet<(Name, u16)>,
}

impl Upstream {
    pub(super) fn new(records: Vec<Record>) -> Self {
        let mut upstream = Self::default();
        for record in records {
            upstream.names.extend(std::iter::successors(Some(record.owner.clone()), Name::parent));
            upstream.records.entry(record.owner.clone()).or_default().push(record);
        }
        upstream
    }

    /// RCODE and answer section.
    pub(super) fn resolve(&self, name: &Name, rtype: u16) -> (u8, Vec<Record>) {
        let mut answer = Vec::new();
        let mut name = name.clone();
        for _ in 0..16 {
            if self.failing.iter().any(|failing| name.before(failing).is_some()) {
                return (2, Vec::new());
            }
            let mut node = self.records.get(&name);
            if node.is_none() && !self.names.contains(&name) {
                let encloser = std::iter::successors(name.parent(), Name::parent).find(|name| self.names.contains(name) || name.is_root());
                node = encloser.and_then(|encloser| self.records.get(&super::name("*").followed_by(&encloser)?));
                if node.is_none() {
                    return (3, answer);
                }
            }
            if self.absent.contains(&(name.clone(), rtype)) {
                return (3, answer);
            }
            let node = node.map_or(&[][..], Vec::as_slice);
            let of = |rtype| node.iter().filter(move |record| rtype == rtype::ANY || record.rtype == rtype);
            let at = |record: &Record| Record { owner: name.clone(), ..record.clone() };
            if of(rtype).next().is_some() {
                answer.extend(of(rtype).map(at));
                return (0, answer);
            }
            let Some(cname) = of(rtype::CNAME).next() else { return (0, answer) };
            answer.push(at(cname));
            name = cname.target().unwrap();
        }
        (0, answer)
    }
}
