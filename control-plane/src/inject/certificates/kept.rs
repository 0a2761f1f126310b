//! The certificates in their Secret, shown by every replica; the leading one renews them, and tells the API server whom to believe.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwapOption;
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::StreamExt;
use k8s_openapi::{
    ByteString,
    api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Secret},
};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use rustls::{
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use serde_json::json;

use super::{CertificateError, Certificates};
use crate::{
    kubernetes::{
        lease::Leader,
        names::{FIELD_MANAGER, MANAGED_BY, SERVICE, WEBHOOK_CONFIGURATION, WEBHOOK_SECRET},
    },
    say::say,
};

/// The Secret's key.
const KEY: &str = "certificates.json";
/// How often it is looked whether time has brought anything, and what failed is tried again.
const TICK: Duration = Duration::from_secs(30);

/// What is shown to whoever connects: the Secret's, as of now.
#[derive(Debug, Default)]
pub(in crate::inject) struct Shown(ArcSwapOption<CertifiedKey>);

impl ResolvesServerCert for Shown {
    /// None before there is any: the handshake fails.
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error("Secret {WEBHOOK_SECRET}: {0}")]
    Secret(kube::Error),
    #[error("Secret {WEBHOOK_SECRET}: {KEY}: {0}")]
    Unreadable(serde_json::Error),
    #[error("Secret {WEBHOOK_SECRET}: {0}")]
    Certificates(#[from] CertificateError),
    #[error("MutatingWebhookConfiguration {WEBHOOK_CONFIGURATION}: {0}")]
    Configuration(kube::Error),
}

struct Keeping {
    namespace: String,
    secrets: Api<Secret>,
    configurations: Api<MutatingWebhookConfiguration>,
    provider: CryptoProvider,
    shown: Arc<Shown>,
}

/// Until it is dropped. `leader`: which replica writes.
pub(in crate::inject) async fn keep(client: Client, namespace: String, mut leader: Leader, shown: Arc<Shown>) {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(client);
    let mut secret_events = pin!(watcher::watch_object(secrets.clone(), WEBHOOK_SECRET).default_backoff());
    let mut configuration_events = pin!(watcher::watch_object(configurations.clone(), WEBHOOK_CONFIGURATION).default_backoff());
    let keeping = Keeping { namespace, secrets, configurations, provider: aws_lc_rs::default_provider(), shown };
    let (mut secret, mut configuration) = (None, None);
    let mut tick = tokio::time::interval(TICK);
    loop {
        // An error of a watch is that of one attempt: what is known stays.
        tokio::select! {
            Some(event) = secret_events.next() => secret = event.ok().or(secret),
            Some(event) = configuration_events.next() => configuration = event.ok().flatten().or(configuration),
            () = leader.changed() => {}
            _ = tick.tick() => {}
        }
        // Before it is known whether there is a Secret, none is made.
        let Some(found) = &secret else { continue };
        let is_leading = leader.is_held();
        if let Err(error) = keeping.step(found.as_ref(), configuration.as_ref(), is_leading).await {
            say(format_args!("ringfence: webhook: {error}"));
        }
    }
}

impl Keeping {
    async fn step(
        &self,
        secret: Option<&Secret>,
        configuration: Option<&MutatingWebhookConfiguration>,
        is_leading: bool,
    ) -> Result<(), KeepError> {
        let kept = secret.and_then(|secret| secret.data.as_ref()?.get(KEY));
        let mut certificates = match kept {
            Some(ByteString(json)) => serde_json::from_slice(json).map_err(KeepError::Unreadable)?,
            None => Certificates::default(),
        };
        if let Some(key) = certificates.certified_key(&self.provider)? {
            self.shown.0.store(Some(key.into()));
        }
        if !is_leading {
            return Ok(());
        }
        // First what is in the Secret already, which replicas show.
        if let Some(configuration) = configuration
            && kept.is_some()
        {
            self.tell(configuration, &certificates.bundle()).await?;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if certificates.advance(now, &[format!("{SERVICE}.{}.svc", self.namespace)])? {
            self.write(secret, &certificates).await?;
        }
        Ok(())
    }

    /// The watch brings what was written. Another replica's that came between stands.
    async fn write(&self, before: Option<&Secret>, certificates: &Certificates) -> Result<(), KeepError> {
        let json = serde_json::to_vec(certificates).map_err(KeepError::Unreadable)?;
        let mut secret = before.cloned().unwrap_or_else(|| Secret {
            metadata: ObjectMeta {
                name: Some(WEBHOOK_SECRET.into()),
                labels: Some([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())].into()),
                ..ObjectMeta::default()
            },
            ..Secret::default()
        });
        secret.data.get_or_insert_default().insert(KEY.into(), ByteString(json));
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        // With the version that was read: what is not that any more is refused.
        let written = match before {
            Some(_) => self.secrets.replace(WEBHOOK_SECRET, &params, &secret).await,
            None => self.secrets.create(&params, &secret).await,
        };
        match written {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(KeepError::Secret(error)),
        }
    }

    /// Whom the API server is to believe, where it believes somebody else.
    async fn tell(&self, configuration: &MutatingWebhookConfiguration, bundle: &str) -> Result<(), KeepError> {
        let webhooks = configuration.webhooks.as_deref().unwrap_or_default();
        let is_told = |told: &Option<ByteString>| told.as_ref().is_some_and(|told| told.0 == bundle.as_bytes());
        if webhooks.iter().all(|webhook| is_told(&webhook.client_config.ca_bundle)) {
            return Ok(());
        }
        let bundle = STANDARD.encode(bundle);
        let webhooks: Vec<_> = webhooks.iter().map(|webhook| json!({"name": webhook.name, "clientConfig": {"caBundle": bundle}})).collect();
        let apply = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": WEBHOOK_CONFIGURATION},
            "webhooks": webhooks,
        });
        let params = PatchParams::apply(&format!("{FIELD_MANAGER}-webhook")).force();
        let told = self.configurations.patch(WEBHOOK_CONFIGURATION, &params, &Patch::Apply(apply)).await;
        told.map(drop).map_err(KeepError::Configuration)
    }
}
