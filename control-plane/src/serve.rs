//! `ringfence serve`: the control plane alone, for sidecars that are started otherwise.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use crate::{
    fleet::FleetEvent,
    plane::{Plane, PlaneError, Step},
    say::say,
};

/// Where sidecars connect.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// A directory with a Unix socket for each workload.
    pub sockets: Option<PathBuf>,
    /// Loopback, without authentication.
    pub dangerous_plaintext: Option<SocketAddr>,
    /// For the notifications of primaries.
    pub notify: Option<SocketAddr>,
    /// The configuration key, where it is not to be the directory's own.
    pub config_key: Option<PathBuf>,
}

/// Runs until SIGINT or SIGTERM.
pub async fn serve(dir: &Path, config: &ServeConfig) -> Result<(), PlaneError> {
    let mut plane = Plane::open(dir, config.sockets.clone(), config.config_key.as_deref()).await?;
    if let Some(sockets) = &config.sockets {
        say(format_args!("ringfence: sockets in {}", sockets.display()));
    }
    if let Some(address) = config.dangerous_plaintext {
        say(format_args!("ringfence: plaintext on {}", plane.serve_dangerous_plaintext(address).await?));
    }
    if let Some(address) = config.notify {
        say(format_args!("ringfence: notifications on {}", plane.serve_notify(address).await?));
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
    Ok(())
}
