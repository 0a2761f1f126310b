//! The latest that was in force under each name of one kind: what is older is refused, also after the name was gone for a while. A name may
//! go because a sidecar has no more use for it, or because somebody who cannot sign says that there is no such resource.

use std::collections::HashMap;

use super::Names;
use crate::{
    resource::Resource,
    seal::{ConfigKeys, Floor, SealError},
};

/// Names of one kind that are remembered beyond those that are wanted. Where there are more, those signed longest ago are forgotten.
pub(super) const MAX_UNWANTED: usize = 16_384;

#[derive(Debug, Default)]
pub(super) struct Floors(HashMap<String, Floor>);

impl Floors {
    /// Whether a resource is none that something later has replaced. Without a seal there is no telling.
    pub(super) fn bear(&self, resource: &Resource) -> Result<(), SealError> {
        match (self.0.get(&*resource.name), Floor::of(resource)) {
            (Some(floor), Some(next)) => floor.bears(&next),
            _ => Ok(()),
        }
    }

    pub(super) fn raise(&mut self, name: &str, floor: Floor) {
        match self.0.get_mut(name) {
            Some(old) if old.epoch >= floor.epoch => {}
            Some(old) => *old = floor,
            None => drop(self.0.insert(name.to_owned(), floor)),
        }
    }

    /// Takes out those that are the word of none of `keys`; their names.
    pub(super) fn forget_strangers(&mut self, keys: &ConfigKeys) -> impl Iterator<Item = String> {
        self.0.extract_if(|_, floor| floor.is_strange(keys)).map(|(name, _)| name)
    }

    pub(super) fn forget_oldest(&mut self, wanted: &Names) {
        if self.0.len() <= wanted.len() + MAX_UNWANTED {
            return;
        }
        let mut epochs: Vec<u64> =
            self.0.iter().filter(|(name, _)| !wanted.contains(name.as_str())).map(|(_, floor)| floor.epoch).collect();
        if epochs.len() > MAX_UNWANTED {
            // Half of them at once, so that this is not done for each name.
            let (_, middle, _) = epochs.select_nth_unstable(MAX_UNWANTED / 2);
            let middle = *middle;
            self.0.retain(|name, floor| floor.epoch > middle || wanted.contains(name.as_str()));
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Floor)> {
        self.0.iter().map(|(name, floor)| (name.as_str(), *floor))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::zone::Digest;

    #[test]
    fn names_without_use_are_bounded_and_the_oldest_go() {
        let mut floors = Floors::default();
        let wanted = Names::from(["wanted".into()]);
        floors.raise("wanted", Floor { epoch: 0, digest: Digest::of(b""), key: None });
        for epoch in 1..=3 * MAX_UNWANTED as u64 {
            floors.raise(&format!("t{epoch}"), Floor { epoch, digest: Digest::of(b""), key: None });
            floors.forget_oldest(&wanted);
            assert!(floors.0.len() <= MAX_UNWANTED + 1);
        }
        assert!(floors.0.contains_key("wanted"));
        let epochs: BTreeSet<u64> = floors.iter().map(|(_, floor)| floor.epoch).filter(|epoch| *epoch > 0).collect();
        let latest = 3 * MAX_UNWANTED as u64;
        assert_eq!(epochs, (latest - epochs.len() as u64 + 1..=latest).collect(), "the latest are left, without a gap");
        assert!(epochs.len() >= MAX_UNWANTED / 2);
    }
}
