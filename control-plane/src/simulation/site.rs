//! What operators write, revision by revision: one object a file, and in each the number of the edit that wrote it, which resources carry
//! to the sidecars. By that number a version is told from an older one.

use std::{collections::HashMap, path::Path, sync::Arc};

use prost::Message;
use ringfence_xds::{
    generated::resource as proto,
    resource::{Kind, Resource},
};

use crate::{
    compile::Compiler,
    spec::{self, Parsed},
};

pub(super) const TENANTS: [&str; 4] = ["acme", "globex", "initech", "umbrella"];
const ISSUERS: [&str; 2] = ["sso", "idp"];
pub(super) const WORKLOADS: [&str; 4] = ["first", "second", "shared", "open"];
/// Whom the workloads serve: what may be written in their files.
const SERVED: [[&[&str]; 3]; 4] = [
    [&["acme"], &["acme"], &["umbrella"]],
    [&["globex"], &["globex"], &["globex"]],
    [&["acme", "initech"], &["initech", "umbrella"], &["globex", "initech"]],
    [&["*"], &["*"], &["acme", "globex"]],
];
/// Where every workload listens, and where its sidecar cannot.
const PORT: usize = 10_000;
const OCCUPIED: usize = 20_000;
/// A P-256 point: the generator itself.
const JWKS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"k","x":"axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY","y":"T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"}]}"#;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum File {
    Platform,
    Issuer(usize),
    Tenant(usize),
    Workload(usize),
}

pub(super) const FILES: [File; 11] = [
    File::Platform,
    File::Issuer(0),
    File::Issuer(1),
    File::Tenant(0),
    File::Tenant(1),
    File::Tenant(2),
    File::Tenant(3),
    File::Workload(0),
    File::Workload(1),
    File::Workload(2),
    File::Workload(3),
];

impl File {
    /// The resource that it is chiefly about.
    pub(super) fn resource(self) -> (Kind, &'static str) {
        match self {
            File::Platform => (Kind::Platform, "platform"),
            File::Issuer(i) => (Kind::Issuer, ISSUERS[i]),
            File::Tenant(i) => (Kind::Tenant, TENANTS[i]),
            File::Workload(i) => (Kind::Workload, WORKLOADS[i]),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Form {
    Gone,
    Good,
    /// Has a field that the control plane refuses.
    Faulty,
    /// Is no YAML.
    Garbled,
    /// A tenant's, that claims what is another's.
    Thief,
    /// A workload's, that its sidecar refuses: it cannot listen there.
    Occupied,
}

/// What a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Text {
    pub(super) form: Form,
    /// Which of the possible references it has.
    pub(super) variant: usize,
    pub(super) edit: u32,
}

impl Text {
    fn yaml(self, file: File) -> String {
        let Text { form, variant, edit } = self;
        let (kind, name) = file.resource();
        let spec = match file {
            _ if form == Form::Garbled => return format!("kind: [ {edit}"),
            File::Platform if form == Form::Faulty => "{ inFlight: -1 }".into(),
            File::Platform => format!("{{ inFlight: {edit} }}"),
            File::Issuer(_) => {
                let algorithm = if form == Form::Faulty { "none" } else { "ES256" };
                format!(
                    "{{ issuer: 'https://{name}.test/', audiences: [e{edit}], algorithms: [{algorithm}], tenantClaim: org, \
                     jwks: {{ inline: {JWKS} }} }}"
                )
            }
            File::Tenant(i) => {
                let claimed = if form == Form::Thief { TENANTS[(i + 1) % TENANTS.len()] } else { name };
                let rate = if form == Form::Faulty { "fast" } else { "5/s" };
                format!(
                    "{{ identity: [{{ issuer: {}, values: [org_{claimed}] }}], inFlight: {edit}, \
                     limits: [{{ name: {}, rate: {rate} }}] }}",
                    issuer(variant),
                    secret(name)
                )
            }
            File::Workload(i) => {
                let upstream = if form == Form::Faulty { "nowhere" } else { "127.0.0.1:9" };
                let port = i + if form == Form::Occupied { OCCUPIED } else { PORT };
                let whose = match serves(i, variant) {
                    [one] if i < 2 => format!("tenant: {one}"),
                    several => format!("tenants: [\"{}\"]", several.join("\", \"")),
                };
                format!("{{ {whose}, inbound: [{{ listen: '127.0.0.1:{port}', upstream: '{upstream}', public: [/e{edit}] }}] }}")
            }
        };
        format!("apiVersion: ringfence.dev/v1alpha1\nkind: {kind}\nmetadata: {{ name: {name} }}\nspec: {spec}\n")
    }
}

/// `["*"]`: any.
pub(super) fn serves(workload: usize, variant: usize) -> &'static [&'static str] {
    SERVED[workload][variant]
}

/// What nothing but the tenant's own resource has in it.
pub(super) fn secret(tenant: &str) -> String {
    format!("limit-of-{tenant}")
}

pub(super) fn issuer(variant: usize) -> &'static str {
    ISSUERS[variant % ISSUERS.len()]
}

/// What the files say at one time, in the order of `FILES`.
pub(super) type Revision = [Text; FILES.len()];

/// All files, and all good.
pub(super) fn first() -> Revision {
    [Text { form: Form::Good, variant: 0, edit: 1 }; FILES.len()]
}

/// The number of the edit that a resource was made by. A Binding has none.
pub(super) fn edit_of(resource: &Resource) -> Option<u32> {
    let bytes = resource.bytes.clone();
    match resource.kind {
        // One that says nothing stands for none.
        Kind::Platform => Some(proto::Platform::decode(bytes).ok()?.in_flight).filter(|edit| *edit > 0),
        Kind::Tenant => Some(proto::Tenant::decode(bytes).ok()?.in_flight),
        Kind::Issuer => proto::Issuer::decode(bytes).ok()?.audiences.first()?.strip_prefix('e')?.parse().ok(),
        Kind::Workload => proto::Workload::decode(bytes).ok()?.inbound.first()?.public.first()?.strip_prefix("/e")?.parse().ok(),
        Kind::TrustBundle | Kind::Binding | Kind::PolicyZone | Kind::ZoneChunk => None,
    }
}

/// Whether a sidecar could listen where the workload wants it to.
pub(super) fn can_listen(port: u16) -> bool {
    usize::from(port) < OCCUPIED
}

/// Reads files once, however often they are met, and keeps what they were compiled to.
#[derive(Default)]
pub(super) struct Reader {
    read: HashMap<(File, Text), Arc<Parsed>>,
    compilers: Vec<Compiler>,
}

impl Reader {
    pub(super) fn read(&mut self, file: File, text: Text) -> Arc<Parsed> {
        let parse = || {
            let (kind, name) = file.resource();
            let path: Arc<Path> = Path::new(&format!("/site/{kind}-{name}.yaml")).into();
            let no_others = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
            Arc::new(if text.form == Form::Gone { Parsed::default() } else { spec::parse(&path, text.yaml(file).as_bytes(), no_others) })
        };
        self.read.entry((file, text)).or_insert_with(parse).clone()
    }

    /// One that may know the objects already: what it says of them is the same.
    pub(super) fn compiler(&mut self) -> Compiler {
        self.compilers.pop().unwrap_or_default()
    }

    pub(super) fn give_back(&mut self, compiler: Compiler) {
        self.compilers.push(compiler);
    }
}
