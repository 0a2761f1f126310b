//! A directory as an operator keeps it, and the identity provider that its issuer names.

use std::{
    fmt::Write,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::token::{self, AUDIENCE, ISSUER, Key};

/// Begins with one issuer, `sso`, whose tokens name the tenant in `org`.
pub struct Site {
    dir: TempDir,
    pub key: Key,
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

impl Site {
    pub fn new() -> Self {
        let site = Self { dir: tempfile::tempdir().unwrap(), key: Key::new("first") };
        fs::create_dir(site.dir()).unwrap();
        site.write("jwks.json", &token::jwks(&[&site.key]));
        let spec = format!(
            "{{ issuer: {ISSUER}, audiences: [{AUDIENCE}], algorithms: [ES256], tenantClaim: org, clockSkew: 0s, jwks: {{ file: jwks.json }} }}"
        );
        site.write("sso.yaml", &object("Issuer", "sso", &spec));
        site
    }

    /// A site with the dedicated workload `acme-api` of tenant `acme` at `upstream`.
    pub fn acme(upstream: SocketAddr) -> Self {
        let site = Self::new();
        site.tenant("acme", "");
        site.workload("acme-api", "tenant: acme", upstream);
        site
    }

    /// The directory of the objects.
    pub fn dir(&self) -> PathBuf {
        self.dir.path().join("site")
    }

    /// Beside the objects: sockets, bootstrap files, state.
    pub fn beside(&self) -> &Path {
        self.dir.path()
    }

    /// The public key of the control plane that serves the directory.
    pub fn config_keys(&self) -> PathBuf {
        self.dir().join(".ringfence/trust/config.pub")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// Replaces a file in one move, as a careful editor does.
    pub fn write(&self, name: &str, text: &str) {
        let temporary = self.path(&format!(".{name}.new"));
        fs::write(&temporary, text).unwrap();
        fs::rename(&temporary, self.path(name)).unwrap();
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    /// Writes `<name>.yaml`. `more`: fields of the spec in flow style, e.g. `limits: [{ name: all, rate: 5/s }]`.
    pub fn tenant(&self, name: &str, more: &str) {
        self.write(&format!("{name}.yaml"), &tenant(name, more));
    }

    /// Writes `<name>.yaml` with one inbound listener on a port of the system's choice.
    pub fn workload(&self, name: &str, whose: &str, upstream: SocketAddr) {
        self.workload_at(name, whose, &format!("[{{ listen: 127.0.0.1:0, upstream: {upstream}, public: [/public/**] }}]"));
    }

    pub fn workload_at(&self, name: &str, whose: &str, inbound: &str) {
        self.write(&format!("{name}.yaml"), &object("Workload", name, &format!("{{ {whose}, inbound: {inbound} }}")));
    }

    /// Writes tenants `<prefix>0` … into one file.
    pub fn tenants(&self, prefix: &str, count: usize) {
        let mut text = String::new();
        for i in 0..count {
            writeln!(text, "{}---", tenant(&format!("{prefix}{i}"), "")).unwrap();
        }
        self.write(&format!("{prefix}s.yaml"), &text);
    }

    /// A token of this tenant for an hour.
    pub fn token(&self, tenant: &str) -> String {
        self.key.token(tenant, "alice")
    }

    pub fn token_of(&self, tenant: &str, subject: &str) -> String {
        self.key.token(tenant, subject)
    }
}

/// A document.
pub fn object(kind: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: ringfence.dev/v1alpha1\nkind: {kind}\nmetadata: {{ name: {name} }}\nspec: {spec}\n")
}

pub fn tenant(name: &str, more: &str) -> String {
    let spec =
        if more.is_empty() { "{ identity: [{ issuer: sso }] }".into() } else { format!("{{ identity: [{{ issuer: sso }}], {more} }}") };
    object("Tenant", name, &spec)
}
