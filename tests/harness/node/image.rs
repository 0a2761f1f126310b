//! Images: the machine's own programs, and of ours those that the Dockerfiles put there.

use std::path::PathBuf;

use crate::binaries::binary;

pub(super) struct Image {
    /// In /usr/local/bin.
    pub(super) programs: Vec<PathBuf>,
    pub(super) entrypoint: Vec<String>,
    /// And group.
    pub(super) user: u32,
}

impl Image {
    pub(super) fn find(name: &str) -> Result<Self, String> {
        let path = name.split('@').next().unwrap_or(name);
        let repository = path.rsplit_once(':').map_or(path, |(repository, _)| repository);
        match repository.rsplit_once('/') {
            Some((_, "proxy")) => Ok(Self::of("ringfence-proxy", 64_015)),
            Some((_, "control-plane")) => Ok(Self::of("ringfence", 64_016)),
            Some(("app.test", _)) => Ok(Self { programs: Vec::new(), entrypoint: Vec::new(), user: 0 }),
            _ => Err(format!("image {name}: there is none of this name")),
        }
    }

    fn of(program: &str, user: u32) -> Self {
        Self { programs: vec![binary(program)], entrypoint: vec![format!("/usr/local/bin/{program}")], user }
    }
}
