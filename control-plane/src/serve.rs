//! `ringfence serve`: the control plane alone, for sidecars that are started otherwise.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use tokio::task::AbortHandle;

use crate::{
    admin::remote::AdminConfig,
    fleet::FleetEvent,
    inject::{self, Capture, Settings, Webhook},
    kubernetes::{Installation, status},
    plane::{Plane, PlaneConfig, PlaneError, STATE_DIR, Step},
    say::say,
    tenancy,
    trust::TrustConfig,
};

/// How long the API server is waited for at the end.
const LEAVE: Duration = Duration::from_secs(2);

/// Where operators write.
#[derive(Clone, Debug)]
pub enum Source {
    Directory(PathBuf),
    Kubernetes(KubernetesConfig),
}

#[derive(Clone, Debug)]
pub struct KubernetesConfig {
    /// Of the installation; see [`Installation::join`].
    pub namespace: Option<String>,
    /// For what is fetched and transferred, and for `ringfence status` and its like to find the process; default: a directory that ends
    /// with it.
    pub state_dir: Option<PathBuf>,
}

/// Where sidecars connect.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// A directory with a Unix socket for each workload.
    pub sockets: Option<PathBuf>,
    /// Loopback, without authentication.
    pub dangerous_plaintext: Option<SocketAddr>,
    /// For the notifications of primaries.
    pub notify: Option<SocketAddr>,
    /// For operators elsewhere.
    pub admin: Option<AdminConfig>,
    /// For mutual TLS, and who vouches for it.
    pub tls: Option<(SocketAddr, TrustConfig)>,
    /// The configuration key, where it is not to be the directory's own.
    pub config_key: Option<PathBuf>,
    /// For the API server, and what it puts into pods. Kubernetes alone has one.
    pub webhook: Option<(SocketAddr, Settings)>,
}

/// Runs until SIGINT or SIGTERM.
pub async fn serve(source: &Source, config: &ServeConfig) -> Result<(), PlaneError> {
    let own = tempfile::Builder::new().prefix("ringfence-").permissions(fs::Permissions::from_mode(0o700)).tempdir()?;
    let admin = config.sockets.clone().unwrap_or_else(|| own.path().to_owned());
    let trust = config.tls.as_ref().map(|(_, trust)| trust.clone());
    let plane =
        PlaneConfig { sockets: config.sockets.clone(), admin, trust, config_key: config.config_key.clone(), fall_back_to_last: true };
    let mut joined = None;
    let mut plane = match source {
        Source::Directory(dir) => Plane::open(dir, plane).await?,
        Source::Kubernetes(KubernetesConfig { namespace, state_dir }) => {
            let installation = Installation::join(namespace.as_deref()).await?;
            // Below it as below a directory of objects: `ringfence status` looks there for either.
            let state_dir = state_dir.as_deref().unwrap_or(own.path()).join(STATE_DIR);
            let plane = Plane::open_cluster(&installation, &state_dir, plane).await?;
            if let Some((listen, settings)) = config.webhook.clone() {
                let webhook = Webhook { listen, settings, namespace: installation.namespace.clone() };
                let (bound, serving) = inject::serve(installation.client.clone(), webhook, installation.leader.clone()).await?;
                tokio::spawn(serving);
                say(format_args!("ringfence: webhook on {bound}"));
            }
            let mut writing = Vec::new();
            if let Some(ledger) = plane.ledger.clone() {
                writing.push(tokio::spawn(status::run(installation.clone(), plane.fleet.clone(), ledger)).abort_handle());
            }
            // Without identities there are no sidecars in pods, and nothing to give their namespaces.
            if let Some(trust) = plane.trust_text.clone() {
                let pods_capture = config.webhook.as_ref().is_none_or(|(_, settings)| settings.capture == Capture::Redirect);
                let settings = tenancy::Settings {
                    system_namespace: installation.namespace.clone(),
                    pods_capture,
                    pods_end_within: tenancy::PODS_END_WITHIN,
                };
                let onboarding = tenancy::lead(installation.client.clone(), installation.leader.clone(), settings, trust);
                writing.push(tokio::spawn(onboarding).abort_handle());
            }
            joined = Some((installation, writing));
            plane
        }
    };
    if let Some(sockets) = &config.sockets {
        say(format_args!("ringfence: sockets in {}", sockets.display()));
    }
    if let Some(address) = config.dangerous_plaintext {
        say(format_args!("ringfence: plaintext on {}", plane.serve_dangerous_plaintext(address).await?));
    }
    if let (Some((address, _)), Some(trust)) = (&config.tls, plane.trust.clone()) {
        let bundle = trust.bundle_file().map(|file| format!(", trust bundle in {}", file.display())).unwrap_or_default();
        say(format_args!("ringfence: TLS on {}{bundle}", plane.serve_tls(trust, *address).await?));
    }
    if let Some(address) = config.notify {
        say(format_args!("ringfence: notifications on {}", plane.serve_notify(address).await?));
    }
    if let Some(admin) = &config.admin {
        say(format_args!("ringfence: admin on {}", plane.serve_operators(admin).await?));
    }
    say("ready");
    loop {
        match plane.step().await {
            Step::Event(FleetEvent::Rejected { workload, rejections }) => plane.tell(&workload, &rejections),
            Step::Event(FleetEvent::Disconnected { workload }) => say(format_args!("{workload}: a sidecar left")),
            // Keys were seen to by the plane.
            Step::Event(FleetEvent::KeysWanted { .. }) | Step::Reloaded | Step::Fed => {}
            Step::Stop => break,
        }
    }
    plane.close().await;
    if let Some((installation, writing)) = joined {
        writing.iter().for_each(AbortHandle::abort);
        // Whoever is not told by then finds out.
        let _ = tokio::time::timeout(LEAVE, installation.leave()).await;
    }
    Ok(())
}
