//! `ringfence serve`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

use super::{injection::InjectionArgs, trust::TrustArgs};
use crate::{
    admin::remote::AdminConfig,
    plane::PlaneError,
    replica::{self, ReplicaConfig},
    serve::{self, KubernetesConfig, ServeConfig, Source},
};

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("listen").required(true).multiple(true), mut_group("InjectionArgs", |group| group.requires("webhook")))]
pub(super) struct ServeArgs {
    /// Directory to watch
    #[arg(required_unless_present_any = ["signed", "kubernetes"])]
    dir: Option<PathBuf>,
    /// Instead of a directory: the custom resources of the cluster that this runs in, or that KUBECONFIG names
    #[arg(long, conflicts_with_all = ["dir", "signed", "config_key"], group = "stateless")]
    kubernetes: bool,
    /// Namespace of the installation, for what the replicas share; default: that of the pod, or ringfence-system
    #[arg(long, requires = "kubernetes")]
    namespace: Option<String>,
    /// Directory for what is fetched and transferred, which is fetched anew where it is empty, and by which `ringfence status DIR`, `join`
    /// and `trust rotate` find the process; default: one that ends with it. With --signed, for the latter alone; default: the sockets' directory
    #[arg(long, value_name = "DIR", requires = "stateless")]
    state_dir: Option<PathBuf>,
    /// Instead of a directory: a file of `ringfence sign`, and whatever takes its place
    #[arg(long, value_name = "FILE", requires = "config_keys", conflicts_with_all = ["dir", "config_key", "notify", "admin"])]
    #[arg(groups = ["stateless", "believed"])]
    signed: Option<PathBuf>,
    /// Public keys in PEM, one of which must have signed it
    #[arg(long, value_name = "FILE", requires = "signed")]
    config_keys: Option<PathBuf>,
    /// Configuration key: a PKCS#8 private key of Ed25519 in PEM; default: one of the directory's own, made at the first start
    #[arg(long, value_name = "FILE")]
    config_key: Option<PathBuf>,
    /// Directory for a Unix socket <workload>.ads for each workload, which this user alone can open; made with mode 0700 if it is missing
    #[arg(long, group = "listen")]
    sockets: Option<PathBuf>,
    /// Address for sidecars by mutual TLS, and for those that join; with --signed it takes --ca-cert
    #[arg(long, group = "listen", value_name = "ADDR")]
    tls: Option<SocketAddr>,
    #[command(flatten)]
    trust: TrustArgs,
    /// Loopback address for sidecars without authentication: whoever can connect reads any workload's policy
    #[arg(long, group = "listen")]
    dangerous_plaintext: Option<SocketAddr>,
    /// Address, UDP and TCP, at which primaries may notify of policy zones that have changed (RFC 1996)
    #[arg(long, value_name = "ADDR")]
    notify: Option<SocketAddr>,
    /// Address at which operators ask for /status, /resources/<workload> and /metrics, over TLS, with a token of one whom the Platform's
    /// `operators` name
    #[arg(long, value_name = "ADDR", requires_all = ["admin_cert", "admin_key"])]
    admin: Option<SocketAddr>,
    /// PEM certificate chain of the admin listener
    #[arg(long, value_name = "FILE", requires = "admin")]
    admin_cert: Option<PathBuf>,
    /// PEM private key of the admin listener
    #[arg(long, value_name = "FILE", requires = "admin")]
    admin_key: Option<PathBuf>,
    /// Address at which the API server asks for sidecars to be put into pods
    #[arg(long, value_name = "ADDR", requires_all = ["kubernetes", "tls"])]
    webhook: Option<SocketAddr>,
    #[command(flatten)]
    injection: InjectionArgs,
}

impl ServeArgs {
    fn source(&self) -> Source {
        match &self.dir {
            Some(dir) => Source::Directory(dir.clone()),
            None => Source::Kubernetes(KubernetesConfig { namespace: self.namespace.clone(), state_dir: self.state_dir.clone() }),
        }
    }

    /// Of what somebody else has signed; `None`: it is none of that.
    fn replica(&self) -> Result<Option<ReplicaConfig>, Error> {
        let Some((signed, config_keys)) = self.signed.clone().zip(self.config_keys.clone()) else { return Ok(None) };
        let tls = match self.tls {
            Some(address) => Some((address, self.trust.signed().ok_or(Error::NoAuthority)?)),
            None => None,
        };
        Ok(Some(ReplicaConfig {
            signed,
            config_keys,
            sockets: self.sockets.clone(),
            dangerous_plaintext: self.dangerous_plaintext,
            tls,
            state_dir: self.state_dir.clone(),
        }))
    }

    fn admin(&self) -> Option<AdminConfig> {
        Some(AdminConfig { listen: self.admin?, certificate: self.admin_cert.clone()?, key: self.admin_key.clone()? })
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Serve(#[from] PlaneError),
    #[error(
        "--signed with --tls needs --ca-cert and --ca-key: an authority whose roots are in the file, by `ringfence sign --authorities`"
    )]
    NoAuthority,
    #[error("cannot start: {0}")]
    Runtime(#[from] std::io::Error),
}

pub(super) fn run(args: &ServeArgs) -> Result<(), Error> {
    let config = ServeConfig {
        sockets: args.sockets.clone(),
        dangerous_plaintext: args.dangerous_plaintext,
        notify: args.notify,
        admin: args.admin(),
        tls: args.tls.map(|address| (address, args.trust.config())),
        config_key: args.config_key.clone(),
        webhook: args.webhook.map(|address| (address, args.injection.settings(args.trust.config().trust_domain))),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match args.replica()? {
        Some(replica) => runtime.block_on(replica::serve(&replica))?,
        None => runtime.block_on(serve::serve(&args.source(), &config))?,
    }
    Ok(())
}
