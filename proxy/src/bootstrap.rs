//! What a sidecar is told at its start, once: where its control plane is, where it keeps things. Policy never stands here.

mod identity;

use std::{
    env, fs,
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use serde::Deserialize;

pub use identity::{Identity, IdentitySource, JoinToken, ProofSource};

use crate::telemetry::access_log::DEFAULT_QUERY_RATIO;

/// The bootstrap: JSON, in a file or in an environment variable. Relative paths are relative to the working directory.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bootstrap {
    /// `metadata.name` of the Workload that this sidecar serves.
    pub workload: String,
    pub control_plane: ControlPlane,
    /// Without it this sidecar has no name of its own; required to reach the control plane over TLS.
    pub identity: Option<Identity>,
    /// PEM public keys of Ed25519, read at the start: policy is what one of them has sealed, from the control plane as from disk. More than
    /// one while a new key takes over. Without any, whoever answers as the control plane is believed.
    pub config_keys: Option<PathBuf>,
    /// Where `/readyz`, `/healthz`, `/metrics` and `/config` are served: `unix:/path` or a loopback address; default: nowhere.
    pub admin: Option<String>,
    /// Holds the last known good and the SVID with its key; made with mode 0700 if it is missing. Without it a restart begins without policy.
    pub state_dir: Option<PathBuf>,
    #[serde(default)]
    pub access_log: AccessLogSink,
    /// Share of the DNS queries answered as asked that the access log tells of, 0 to 1. It tells of all that were refused or failed.
    #[serde(default = "default_query_log_ratio")]
    pub query_log_ratio: f64,
    pub tracing: Option<Tracing>,
    /// Data threads. One serves tens of thousands of requests a second; more are worth it only beyond that.
    #[serde(default = "one")]
    pub threads: NonZeroUsize,
    /// On a workload that serves any tenant: seconds without a request after which a tenant is forgotten.
    #[serde(default = "default_forget")]
    pub forget_seconds: u64,
    /// Seconds that open requests get to end after SIGTERM.
    #[serde(default = "default_drain")]
    pub drain_seconds: u64,
    /// Whom names are asked of, over UDP and TCP, where the Workload names no `dns.upstreams`. Empty: the host's resolvers and its file of names,
    /// which in a pod are for other containers to write.
    #[serde(default)]
    pub resolvers: Vec<SocketAddr>,
    /// Where `ringfence-proxy capture install` says what it has installed: its `--state`.
    #[serde(default = "default_capture_dir")]
    pub capture_dir: PathBuf,
}

/// How the control plane is reached.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum ControlPlane {
    /// The Unix socket that the control plane made for this workload alone.
    Unix(PathBuf),
    /// A loopback address, without authentication of either side.
    DangerousPlaintext(SocketAddr),
    /// `<host>:<port>`, over TLS, each side by its SVID. A name is looked up for every connection.
    Tls(String),
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum AccessLogSink {
    #[default]
    Stdout,
    File(PathBuf),
    Off,
}

/// OTLP export of traces.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tracing {
    /// gRPC, e.g. `http://127.0.0.1:4317`.
    pub otlp_endpoint: String,
    /// Share of the traces that begin here that are recorded, 0 to 1; a caller's decision is kept.
    #[serde(default = "all")]
    pub sample_ratio: f64,
}

fn one() -> NonZeroUsize {
    NonZeroUsize::MIN
}
fn default_forget() -> u64 {
    600
}
fn default_drain() -> u64 {
    30
}
fn default_query_log_ratio() -> f64 {
    DEFAULT_QUERY_RATIO
}
fn default_capture_dir() -> PathBuf {
    "/run/ringfence".into()
}
fn all() -> f64 {
    1.0
}

/// Why there is no bootstrap. `origin`: the file, or the variable with a dollar sign before its name.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error("{origin}: {error}")]
    Read { origin: String, error: std::io::Error },
    #[error("{origin}: {error}")]
    Variable { origin: String, error: std::env::VarError },
    #[error("{origin}:{}:{}: {error}", error.line(), error.column())]
    Parse { origin: String, error: serde_json::Error },
    #[error("{origin}: {field}: {message}")]
    Value { origin: String, field: &'static str, message: String },
}

impl Bootstrap {
    pub fn read(path: &Path) -> Result<Self, BootstrapError> {
        let origin = path.display().to_string();
        match fs::read(path) {
            Ok(text) => Self::parse(&text, origin),
            Err(error) => Err(BootstrapError::Read { origin, error }),
        }
    }

    /// From the environment: a container needs no file then.
    pub fn from_variable(name: &str) -> Result<Self, BootstrapError> {
        let origin = format!("${name}");
        match env::var(name) {
            Ok(text) => Self::parse(text.as_bytes(), origin),
            Err(error) => Err(BootstrapError::Variable { origin, error }),
        }
    }

    fn parse(text: &[u8], origin: String) -> Result<Self, BootstrapError> {
        let bootstrap = match serde_json::from_slice::<Self>(text) {
            Ok(bootstrap) => bootstrap,
            Err(error) => return Err(BootstrapError::Parse { origin, error }),
        };
        match bootstrap.check() {
            Ok(()) => Ok(bootstrap),
            Err((field, message)) => Err(BootstrapError::Value { origin, field, message }),
        }
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        self.workload.parse::<ringfence_policy::WorkloadName>().map_err(|error| ("workload", error.to_string()))?;
        if let ControlPlane::DangerousPlaintext(address) = &self.control_plane
            && !address.ip().is_loopback()
        {
            return Err(("controlPlane.dangerousPlaintext", format!("{address} is not a loopback address")));
        }
        identity::check(self)?;
        // The Unix socket's user and loopback's are trusted with policy by being what they are; a server in the network is not.
        if matches!(self.control_plane, ControlPlane::Tls(_)) && self.config_keys.is_none() {
            return Err(("configKeys", "is required with controlPlane.tls: whoever takes over that server could write policy".into()));
        }
        if self.forget_seconds == 0 {
            return Err(("forgetSeconds", "must be at least 1".into()));
        }
        if self.threads.get() > 256 {
            return Err(("threads", "must be at most 256".into()));
        }
        if !(0.0..=1.0).contains(&self.query_log_ratio) {
            return Err(("queryLogRatio", "must be from 0 to 1".into()));
        }
        if let Some(tracing) = &self.tracing
            && !(0.0..=1.0).contains(&tracing.sample_ratio)
        {
            return Err(("tracing.sampleRatio", "must be from 0 to 1".into()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Bootstrap, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), json).unwrap();
        Bootstrap::read(file.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_minimal_bootstrap_has_safe_defaults() {
        let bootstrap = read(r#"{"workload": "acme-api", "controlPlane": {"unix": "ads.sock"}}"#).unwrap();
        assert_eq!(bootstrap.control_plane, ControlPlane::Unix("ads.sock".into()));
        assert_eq!((bootstrap.threads.get(), bootstrap.drain_seconds, bootstrap.admin), (1, 30, None));
    }

    #[test]
    fn faults_name_the_field() {
        for (json, wanted) in [
            (r#"{"controlPlane": {"unix": "x"}}"#, "missing field `workload`"),
            (r#"{"workload": "a", "controlPlane": {"unix": "x"}, "wrokload": 1}"#, "unknown field `wrokload`"),
            (r#"{"workload": "A", "controlPlane": {"unix": "x"}}"#, "workload: must be a DNS label"),
            (
                r#"{"workload": "a", "controlPlane": {"dangerousPlaintext": "192.0.2.1:1"}}"#,
                "controlPlane.dangerousPlaintext: 192.0.2.1:1 is not a loopback",
            ),
            (r#"{"workload": "a", "controlPlane": {"unix": "x"}, "threads": 0}"#, "nonzero"),
            (r#"{"workload": "a", "controlPlane": {"unix": "x"}, "queryLogRatio": -0.1}"#, "queryLogRatio: must be"),
            (
                r#"{"workload": "a", "controlPlane": {"unix": "x"}, "tracing": {"otlpEndpoint": "http://x", "sampleRatio": 2}}"#,
                "tracing.sampleRatio: must be",
            ),
            ("{", "EOF"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
        let absent = Bootstrap::from_variable("RINGFENCE_NO_SUCH_BOOTSTRAP").unwrap_err().to_string();
        assert_eq!(absent, "$RINGFENCE_NO_SUCH_BOOTSTRAP: environment variable not found");
        assert!(Bootstrap::read(Path::new("does-not-exist.json")).unwrap_err().to_string().starts_with("does-not-exist.json: "));
    }
}
