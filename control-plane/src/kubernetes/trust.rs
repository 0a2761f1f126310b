//! What the replicas of a control plane vouch by: the authority and the configuration key in Secrets of the installation, and what of them
//! the sidecars are given.

use std::sync::Arc;

use kube::Client;
use tokio::sync::watch;

use super::{
    names::{AUTHORITY_SECRET, CONFIG_KEY_SECRET},
    secret::SharedSecret,
};
use crate::{
    fleet::Fleet,
    plane::PlaneError,
    signing,
    trust::{Credentials, Trust, TrustConfig, bundle_pem, since_epoch},
};

/// Whom a sidecar is to believe at its start: what the ConfigMap of a tenant's namespace says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustText {
    /// PEM certificates: the authorities of the trust bundle.
    pub bundle: String,
    /// PEM public keys of the configuration.
    pub config_keys: String,
}

/// A replica's share of it; the tasks that keep it up run until the process ends.
#[derive(Debug)]
pub struct Vouching {
    pub trust: Arc<Trust>,
    pub text: watch::Receiver<TrustText>,
}

/// Makes or reads the key in `namespace`: what `fleet` publishes from then on is signed. Before anything else is. PEM: the public key.
pub async fn sign(client: &Client, namespace: &str, fleet: &Fleet) -> Result<String, PlaneError> {
    let (signer, epochs) = signing::shared::open(SharedSecret::new(client, namespace, CONFIG_KEY_SECRET)).await?;
    let config_keys = signer.key().public_pem();
    fleet.sign(signer);
    tokio::spawn(epochs.run());
    Ok(config_keys)
}

/// Makes or reads the authority in `namespace`, and publishes its bundle. `config_keys`: of `sign`.
pub async fn vouch(
    client: &Client,
    namespace: &str,
    config: &TrustConfig,
    fleet: &Arc<Fleet>,
    config_keys: String,
) -> Result<Vouching, PlaneError> {
    let secret = SharedSecret::new(client, namespace, AUTHORITY_SECRET);
    let trust = Trust::open_shared(secret, client.clone(), config, fleet.clone(), since_epoch()).await?;
    let mut credentials = trust.credentials();
    let read = move |credentials: &Credentials| TrustText { bundle: bundle_pem(&credentials.bundle), config_keys: config_keys.clone() };
    let (text, told) = watch::channel(read(&credentials.borrow()));
    tokio::spawn(async move {
        while credentials.changed().await.is_ok() {
            let next = read(&credentials.borrow_and_update());
            text.send_if_modified(|text| {
                let is_new = *text != next;
                *text = next;
                is_new
            });
        }
    });
    tokio::spawn(trust.clone().follow());
    tokio::spawn(trust.clone().run());
    Ok(Vouching { trust, text: told })
}
