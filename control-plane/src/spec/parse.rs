//! A file's bytes -> objects and faults.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use ringfence_xds::policy::name::{NameError, is_dns_label};
use serde::de::DeserializeOwned;

use super::{
    API_VERSION, Fault, JwksSource, Kind, Manifest, Metadata, Object, ObjectKey, Others, PolicyZoneSpec, Position, Spec,
    fault::quoted,
    position::Positions,
    resolve, shape, transfer,
    yaml::{self, Node, Value},
};
use crate::{
    feed::{JwksUri, JwksUriError},
    zones::{self, ZoneFault},
};

/// Longest document, in bytes; no resource may be larger. The parser keeps a whole `{…}` in memory, a hundred times over, until it knows
/// that it is no key.
const MAX_DOCUMENT_BYTES: usize = 1 << 20;

/// What a file holds.
#[derive(Debug, Default)]
pub struct Parsed {
    /// In the file's order.
    pub objects: Vec<Arc<Object>>,
    /// Of what became no object, in the file's order. Those of objects are told by `compile`.
    pub faults: Vec<Fault>,
    /// What of the objects has no effect, and takes nothing else away.
    pub left_out: Vec<Fault>,
    /// The other files that its objects are made of, whether they could be read or not.
    pub needs: Vec<PathBuf>,
}

impl Parsed {
    /// Objects that stand there and could not be read.
    pub fn unread(&self) -> BTreeSet<ObjectKey> {
        self.faults.iter().filter_map(Fault::key).collect()
    }

    pub(super) fn extend(&mut self, other: Parsed) {
        self.objects.extend(other.objects);
        self.faults.extend(other.faults);
        self.left_out.extend(other.left_out);
        self.needs.extend(other.needs);
    }
}

/// Reads a file of any number of documents. `others`: the other files that an object names.
pub fn parse(file: &Arc<Path>, bytes: &[u8], others: impl Others) -> Parsed {
    let mut parse = Parse { file, others, parsed: Parsed::default() };
    match text(bytes) {
        Ok(text) => parse.documents(text),
        Err((position, message)) => parse.fault(position, None, None, "", message),
    }
    parse.parsed
}

/// Reads one object that came as JSON. Its name for faults and for conflicts is `key`, whatever it says itself.
pub fn parse_resource(key: &ObjectKey, resource: &serde_json::Value, others: impl Others) -> Parsed {
    let file: Arc<Path> = Path::new(&key.to_string()).into();
    let mut parse = Parse { file: &file, others, parsed: Parsed::default() };
    parse.document(&Node::from(resource));
    let mut parsed = parse.parsed;
    for object in &parsed.objects {
        parsed.faults.extend(relative_paths(object));
    }
    if !parsed.faults.is_empty() {
        parsed.objects.clear();
    }
    for fault in &mut parsed.faults {
        (fault.kind, fault.name) = (Some(key.kind), Some(key.name.to_string()));
    }
    parsed
}

/// A sidecar's own files are named by absolute paths where there is no file that they could be relative to.
fn relative_paths(object: &Object) -> Vec<Fault> {
    let Spec::Workload(workload) = &object.spec else { return Vec::new() };
    let listeners = workload.inbound.iter().enumerate().filter_map(|(i, inbound)| Some((i, inbound.tls.as_ref()?)));
    let files = listeners.flat_map(|(i, tls)| [(i, "certificate", &tls.certificate), (i, "key", &tls.key)]);
    let relative = files.filter(|(.., path)| Path::new(path).is_relative());
    relative
        .map(|(i, field, _)| object.fault(format!("spec.inbound[{i}].tls.{field}"), "must be an absolute path in the sidecar's container"))
        .collect()
}

struct Parse<'a, O> {
    file: &'a Arc<Path>,
    others: O,
    parsed: Parsed,
}

impl<O: Others> Parse<'_, O> {
    fn documents(&mut self, text: &str) {
        let mut empty = true;
        yaml::documents(text, |document| match document {
            Ok(Node { value: Value::Null, .. }) => {}
            Ok(root) => {
                empty = false;
                self.document(&root);
            }
            Err(broken) => {
                empty = false;
                self.fault(broken.at, None, None, "", broken.message);
            }
        });
        if empty {
            // Most likely cut short while it was written; objects must not vanish over it.
            self.parsed.faults.push(Fault::of_file(self.file, "holds no object: write one, or remove the file"));
        }
    }

    fn fault(&mut self, position: Position, kind: Option<Kind>, name: Option<&str>, path: impl Into<String>, message: String) {
        let (file, name) = (self.file.clone(), name.map(str::to_owned));
        self.parsed.faults.push(Fault { file, position, kind, name, path: path.into(), message });
    }

    fn document(&mut self, root: &Node) {
        if !matches!(root.value, Value::Map(_)) {
            return self.fault(root.at, None, None, "", "must be an object: apiVersion, kind, metadata, spec".into());
        }
        let kind = match kind_of(root) {
            Ok(kind) => kind,
            Err((position, message)) => return self.fault(position, None, None, "kind", message),
        };
        let before = self.parsed.faults.len();
        self.envelope(kind, root);
        let manifest = match kind {
            Kind::Platform => self.manifest(kind, root, Spec::Platform),
            Kind::Issuer => self.manifest(kind, root, Spec::Issuer),
            Kind::PolicyZone => self.manifest(kind, root, Spec::PolicyZone),
            Kind::Tenant => self.manifest(kind, root, Spec::Tenant),
            Kind::Workload => self.manifest(kind, root, Spec::Workload),
        };
        if let (Some((metadata, spec)), Some(name)) = (manifest, name_of(root)) {
            let key = ObjectKey { kind, name: name.into() };
            let positions = Positions::of(root);
            let mut object = Object { key, metadata, spec, file: self.file.clone(), positions, faults: Vec::new() };
            let others = self.read_jwks(&mut object).and_then(|()| self.read_upstream_ca(&mut object));
            match others.map_err(|fault| vec![fault]).and_then(|()| self.read_zone(&mut object)) {
                Ok(()) => {
                    object.faults = self.parsed.faults.split_off(before);
                    object.faults.extend(self.of_another_place(&object));
                    self.parsed.objects.push(Arc::new(object));
                }
                Err(faults) => self.parsed.faults.extend(faults),
            }
        }
        self.parsed.faults[before..].sort();
    }

    /// The document as a type, unless its faults leave too little of it.
    fn manifest<S>(&mut self, kind: Kind, root: &Node, spec: impl FnOnce(S) -> Spec) -> Option<(Metadata, Spec)>
    where
        S: DeserializeOwned,
    {
        let name = name_of(root);
        let (json, faults) = shape::check(root, kind.schema());
        for fault in faults {
            self.fault(fault.at, Some(kind), name, fault.path, fault.message);
        }
        match serde_json::from_value::<Manifest<S>>(json?) {
            Ok(manifest) => Some((manifest.metadata, spec(manifest.spec))),
            // The schema and the type are one, so that this is a defect of ours; it must still not pass unseen.
            Err(error) => {
                self.fault(root.at, Some(kind), name, "", error.to_string());
                None
            }
        }
    }

    /// What the schema does not say of `apiVersion` and `metadata.name`.
    fn envelope(&mut self, kind: Kind, root: &Node) {
        if let Some(Node { at, value: Value::Text(version) }) = root.value.field("apiVersion")
            && version != API_VERSION
        {
            self.fault(*at, Some(kind), name_of(root), "apiVersion", format!("must be {API_VERSION}, not {}", quoted(version)));
        }
        if let Some(Node { at, value: Value::Text(name) }) = root.value.field("metadata").and_then(|m| m.value.field("name"))
            && !is_dns_label(name)
        {
            self.fault(*at, Some(kind), None, "metadata.name", format!("{NameError}, not {}", quoted(name)));
        }
    }

    /// What speaks of a cluster where there is none.
    fn of_another_place(&self, object: &Object) -> Option<Fault> {
        let speaks = match &object.spec {
            Spec::Platform(platform) => platform.kubernetes.is_some(),
            Spec::Tenant(tenant) => tenant.kubernetes.is_some(),
            Spec::Issuer(_) | Spec::PolicyZone(_) | Spec::Workload(_) => false,
        };
        let refused = speaks && !self.others.are_in_a_cluster();
        refused.then(|| object.fault("spec.kubernetes", "is for custom resources in a cluster: remove it from the file"))
    }

    fn read_jwks(&mut self, object: &mut Object) -> Result<(), Fault> {
        let Spec::Issuer(issuer) = &object.spec else { return Ok(()) };
        let JwksSource { file, inline, uri, ca_file, dangerous_allow_private, .. } = &issuer.jwks;
        let (mut text, mut fetched_from) = (Vec::new(), None);
        if let Some(name) = file {
            text = self.read_other(object, "spec.jwks.file", name)?;
            if text.is_empty() {
                return Err(object.fault("spec.jwks.file", "is empty: must hold a JWK set"));
            }
        }
        if let Some(inline) = inline {
            text = serde_json::to_vec(inline).map_err(|e| object.fault("spec.jwks.inline", format!("cannot be written as JSON: {e}")))?;
        }
        if let Some(uri) = uri {
            let mut from: JwksUri = uri.parse().map_err(|error: JwksUriError| object.fault("spec.jwks.uri", error.to_string()))?;
            if let Some(name) = ca_file {
                let pem = self.read_other(object, "spec.jwks.caFile", name)?;
                from = from.trust_only(&pem).map_err(|error| object.fault("spec.jwks.caFile", error.to_string()))?;
            }
            fetched_from = Some(Box::new(if *dangerous_allow_private { from.dangerous_allow_private() } else { from }));
        } else if ca_file.is_some() {
            return Err(object.fault("spec.jwks.caFile", "goes with uri alone: remove it"));
        } else if *dangerous_allow_private {
            return Err(object.fault("spec.jwks.dangerousAllowPrivate", "goes with uri alone: remove it"));
        }
        if let Spec::Issuer(issuer) = &mut object.spec {
            issuer.jwks.text = text.into();
            issuer.jwks.fetched_from = fetched_from;
        }
        Ok(())
    }

    fn read_upstream_ca(&mut self, object: &mut Object) -> Result<(), Fault> {
        const FIELD: &str = "spec.dns.upstreamCaFile";
        let Spec::Workload(workload) = &object.spec else { return Ok(()) };
        let Some(name) = workload.dns.as_ref().and_then(|dns| dns.upstream_ca_file.as_deref()) else { return Ok(()) };
        let pem = self.read_other(object, FIELD, name)?;
        if pem.is_empty() {
            return Err(object.fault(FIELD, "is empty: must hold at least one PEM certificate"));
        }
        if let Spec::Workload(workload) = &mut object.spec
            && let Some(dns) = &mut workload.dns
        {
            dns.upstream_ca = pem.into();
        }
        Ok(())
    }

    /// Faults of a zone stand where its text does: at a line of its file, or at the document's field.
    fn read_zone(&mut self, object: &mut Object) -> Result<(), Vec<Fault>> {
        let Spec::PolicyZone(PolicyZoneSpec { file, inline, transfer, .. }) = &object.spec else { return Ok(()) };
        let name = object.key.name.clone();
        if transfer.is_some() {
            return self.read_transfer(object);
        }
        let (outcome, file) = if let Some(file) = file {
            let path = resolve(self.file, file);
            let outcome = self.others.zone(&path, &name);
            self.parsed.needs.push(path.clone());
            let outcome = outcome.map_err(|error| {
                vec![object.fault("spec.file", format!("cannot read {}: {error}", path.display().to_string().escape_debug()))]
            })?;
            (outcome, Some(Arc::from(path)))
        } else if let Some(text) = inline {
            (zones::compile(text.as_bytes(), &name), None)
        } else {
            return Ok(());
        };
        let fault = |fault: &ZoneFault| match &file {
            Some(file) => {
                let position = Position { line: fault.line, col: 1 };
                Fault { file: Arc::clone(file), position, ..object.fault("", fault.message.clone()) }
            }
            None => object.fault("spec.inline", format!("line {}: {}", fault.line, fault.message)),
        };
        let compiled = outcome.map_err(|faults| faults.iter().map(fault).collect::<Vec<_>>())?;
        self.parsed.left_out.extend(compiled.left_out().iter().map(fault));
        if let Spec::PolicyZone(zone) = &mut object.spec {
            zone.compiled = Some(compiled);
        }
        Ok(())
    }

    /// A zone that comes from elsewhere: what is wrong with its records is not the file's fault, and takes nothing away.
    fn read_transfer(&mut self, object: &mut Object) -> Result<(), Vec<Fault>> {
        let Spec::PolicyZone(PolicyZoneSpec { transfer: Some(spec), .. }) = &object.spec else { return Ok(()) };
        let primary = transfer::primary(object, spec, &mut |path, name| self.read_other(object, path, name))?;
        let found = self.others.transferred(&object.key.name, primary.zone());
        let outcome = found.and_then(|(path, outcome)| {
            self.parsed.needs.push(path);
            outcome
        });
        let left_out = match &outcome {
            Some(Ok(zone)) => zone.left_out(),
            Some(Err(faults)) => faults,
            None => &[],
        };
        let fault = |fault: &ZoneFault| object.fault("spec.transfer.zone", format!("record {}: {}", fault.line, fault.message));
        self.parsed.left_out.extend(left_out.iter().map(fault));
        if let Spec::PolicyZone(zone) = &mut object.spec {
            zone.compiled = outcome.and_then(Result::ok);
            if let Some(transfer) = &mut zone.transfer {
                transfer.from = Some(Arc::new(primary));
            }
        }
        Ok(())
    }

    /// Another file that the object names at `path`.
    fn read_other(&mut self, object: &Object, path: &str, name: &str) -> Result<Vec<u8>, Fault> {
        let other = resolve(self.file, name);
        let bytes = self
            .others
            .text(&other)
            .map_err(|error| object.fault(path, format!("cannot read {}: {error}", other.display().to_string().escape_debug())));
        self.parsed.needs.push(other);
        bytes
    }
}

/// `metadata.name`, where it is one.
fn name_of(root: &Node) -> Option<&str> {
    match &root.value.field("metadata")?.value.field("name")?.value {
        Value::Text(name) if is_dns_label(name) => Some(name),
        _ => None,
    }
}

fn kind_of(root: &Node) -> Result<Kind, (Position, String)> {
    let known = || Kind::ALL.iter().map(|kind| kind.as_str());
    let one_of = || known().collect::<Vec<_>>().join(", ");
    let Some(node) = root.value.field("kind") else {
        return Err((root.at, format!("is missing: must be one of {}", one_of())));
    };
    let Value::Text(text) = &node.value else {
        return Err((node.at, format!("must be one of {}", one_of())));
    };
    if let Some(kind) = Kind::ALL.iter().find(|kind| kind.as_str() == text) {
        return Ok(*kind);
    }
    let message = match shape::nearest(text, known()) {
        Some(meant) => format!("unknown kind {}: did you mean {meant}?", quoted(text)),
        None => format!("unknown kind {}: must be one of {}", quoted(text), one_of()),
    };
    Err((node.at, message))
}

/// The text of a file without its byte order mark. Characters that YAML forbids are refused here: the parser takes a NUL for the end.
fn text(bytes: &[u8]) -> Result<&str, (Position, String)> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        (end_of(&valid), "not UTF-8: save the file as UTF-8".to_owned())
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut document_bytes = 0;
    for (before, line) in text.split_inclusive('\n').enumerate() {
        document_bytes = if yaml::is_separator(line) { 0 } else { document_bytes + line.len() };
        if document_bytes > MAX_DOCUMENT_BYTES {
            let line = u32::try_from(before + 1).unwrap_or(u32::MAX);
            return Err((Position { line, col: 1 }, format!("document too long: at most {} KiB are read", MAX_DOCUMENT_BYTES >> 10)));
        }
    }
    let mut characters = text.char_indices().peekable();
    while let Some((offset, character)) = characters.next() {
        let forbidden = match character {
            '\t' | '\n' => false,
            // The parser would count a line here and nobody else would.
            '\r' => characters.peek().is_none_or(|(_, next)| *next != '\n'),
            _ => character.is_control() && character != '\u{85}',
        };
        if forbidden {
            return Err((end_of(&text[..offset]), format!("control character U+{:04X}: remove it", u32::from(character))));
        }
    }
    Ok(text)
}

/// Where the character after `text` stands.
fn end_of(text: &str) -> Position {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let last_line = text.rsplit('\n').next().unwrap_or_default();
    Position { line: count(text.matches('\n').count() + 1), col: count(last_line.chars().count() + 1) }
}
