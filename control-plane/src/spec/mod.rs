//! What an operator writes: the kinds, and how a file becomes objects or faults.
//!
//! Takes the bytes of a file; yields objects whose every field has a place in it, and one fault for each thing that is wrong.
//! Never knows other files' objects (that is `compile`), nor what a rate or an address means (that is `ringfence_xds::decode`).

mod directory;
mod fault;
mod kubernetes;
mod others;
mod parse;
mod position;
mod shape;
mod transfer;
mod types;
pub(crate) mod vocabulary;
mod yaml;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    path::{Component, Path, PathBuf},
    sync::{Arc, LazyLock},
};

use serde::{Deserialize, Serialize};

pub use directory::{Met, Scan, is_object_file, read_bounded, read_directory, read_directory_as_served, scan};
pub(crate) use directory::{read_at_most, unreadable};
pub use fault::{Fault, Position};
pub use kubernetes::*;
pub use others::{Disk, Others};
pub use parse::{Parsed, parse, parse_resource};
pub use types::*;

pub(crate) use fault::quoted;
pub(crate) use shape::nearest;

pub const API_VERSION: &str = "ringfence.dev/v1alpha1";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    Platform,
    Issuer,
    PolicyZone,
    Tenant,
    Workload,
}

impl Kind {
    pub const ALL: &'static [Kind] = &[Kind::Platform, Kind::Issuer, Kind::PolicyZone, Kind::Tenant, Kind::Workload];

    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Platform => "Platform",
            Kind::Issuer => "Issuer",
            Kind::PolicyZone => "PolicyZone",
            Kind::Tenant => "Tenant",
            Kind::Workload => "Workload",
        }
    }

    /// The JSON schema of a whole document of this kind, without references.
    pub fn schema(self) -> &'static serde_json::Value {
        static SCHEMAS: LazyLock<[serde_json::Value; 5]> = LazyLock::new(|| {
            let settings = || schemars::generate::SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true).into_generator();
            [
                settings().into_root_schema_for::<Manifest<PlatformSpec>>().to_value(),
                settings().into_root_schema_for::<Manifest<IssuerSpec>>().to_value(),
                settings().into_root_schema_for::<Manifest<PolicyZoneSpec>>().to_value(),
                settings().into_root_schema_for::<Manifest<TenantSpec>>().to_value(),
                settings().into_root_schema_for::<Manifest<WorkloadSpec>>().to_value(),
            ]
        });
        &SCHEMAS[self as usize]
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What names an object in the store. Displayed as `Kind/name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ObjectKey {
    pub kind: Kind,
    pub name: Arc<str>,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Spec {
    Platform(PlatformSpec),
    Issuer(IssuerSpec),
    PolicyZone(PolicyZoneSpec),
    Tenant(TenantSpec),
    Workload(WorkloadSpec),
}

/// One object and where it stands. It is whole, but may have more fields than it should: that is a fault which takes nothing away, and
/// the rest can be looked at for others.
#[derive(Debug)]
pub struct Object {
    pub key: ObjectKey,
    pub metadata: Metadata,
    pub spec: Spec,
    pub file: Arc<Path>,
    positions: position::Positions,
    faults: Vec<Fault>,
}

impl Object {
    /// The place of a field by its path from the object's root (`spec.limits[0].rate`; empty: the object itself), or of the
    /// nearest ancestor that is in the file.
    pub fn position(&self, path: &str) -> Position {
        self.positions.nearest(path).unwrap_or(Position { line: 1, col: 1 })
    }

    /// What is wrong with how it is written; `compile` tells these with its own.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    pub fn fault(&self, path: impl Into<String>, message: impl Into<String>) -> Fault {
        let path = path.into();
        Fault {
            file: self.file.clone(),
            position: self.position(&path),
            kind: Some(self.key.kind),
            name: Some(self.key.name.to_string()),
            path,
            message: message.into(),
        }
    }

    /// A path that the object names: relative ones are relative to its file.
    pub fn resolve(&self, path: &str) -> PathBuf {
        resolve(&self.file, path)
    }
}

/// `path` relative to `file`, without `..` in it: the watcher tells of files by the shortest names they have.
fn resolve(file: &Path, path: &str) -> PathBuf {
    let mut resolved = file.parent().unwrap_or(Path::new("")).to_owned();
    for part in Path::new(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if resolved.file_name().is_some() => drop(resolved.pop()),
            part => resolved.push(part),
        }
    }
    resolved
}
