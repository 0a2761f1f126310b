//! What `ringfence init` writes: two tenants, a platform, a policy zone, three workloads and an issuer whose key is made on the spot.

mod dev_key;

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

pub use dev_key::{DevKey, KeyError};

/// The development key's file, beside the YAML file of the issuer that it signs for.
pub const DEV_KEY_FILE: &str = "dev-issuer.key.pem";
const JWKS_FILE: &str = "dev-issuer.jwks.json";

const FILES: &[(&str, &str)] = &[
    ("platform.yaml", include_str!("platform.yaml")),
    ("dev-issuer.yaml", include_str!("dev-issuer.yaml")),
    ("tenant-acme.yaml", include_str!("tenant-acme.yaml")),
    ("tenant-globex.yaml", include_str!("tenant-globex.yaml")),
    ("workloads.yaml", include_str!("workloads.yaml")),
    ("policy-zone.yaml", include_str!("policy-zone.yaml")),
    ("malware.rpz", include_str!("malware.rpz")),
    (".gitignore", "*.key.pem\n"),
];

#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("{} is not empty: name a directory that is new or empty", .0.display())]
    NotEmpty(PathBuf),
    #[error("cannot write {}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Writes the quickstart into `dir`, which is made where it is missing. Overwrites nothing.
pub fn write(dir: &Path) -> Result<(), WriteError> {
    let io = |error| WriteError::Io { path: dir.to_owned(), error };
    fs::create_dir_all(dir).map_err(io)?;
    if fs::read_dir(dir).map_err(io)?.next().is_some() {
        return Err(WriteError::NotEmpty(dir.to_owned()));
    }
    let key = DevKey::generate()?;
    create(&dir.join(DEV_KEY_FILE), &key.to_pem(), 0o600)?;
    create(&dir.join(JWKS_FILE), &key.jwks()?, 0o644)?;
    FILES.iter().try_for_each(|(name, text)| create(&dir.join(name), text, 0o644))
}

fn create(path: &Path, text: &str, mode: u32) -> Result<(), WriteError> {
    let written = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path).and_then(|mut f| f.write_all(text.as_bytes()));
    written.map_err(|error| WriteError::Io { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::{compile::compile, spec};

    #[test]
    fn the_quickstart_validates_clean() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path()).unwrap();
        let parsed = spec::read_directory(dir.path()).unwrap();
        let compiled = compile(&parsed.objects, &BTreeSet::new());
        assert_eq!((parsed.faults, compiled.faults()), (vec![], vec![]));
        let names: Vec<_> = parsed.objects.iter().map(|object| object.key.to_string()).collect();
        let wanted = [
            "Issuer/dev",
            "Platform/platform",
            "PolicyZone/malware",
            "Tenant/acme",
            "Tenant/globex",
            "Workload/acme-api",
            "Workload/globex-api",
            "Workload/shared-api",
        ];
        assert_eq!(names, wanted);
    }

    #[test]
    fn the_key_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path()).unwrap();
        let mode = fs::metadata(dir.path().join(DEV_KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_directory_with_anything_in_it_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("mine"), "").unwrap();
        assert!(matches!(write(dir.path()), Err(WriteError::NotEmpty(_))));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
