//! A Secret of the installation that all replicas share: whoever is first makes it, whoever is faster changes it, and the others follow.

use std::{collections::BTreeMap, fmt, future::ready, time::Duration};

use futures_util::{Stream, StreamExt};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
    runtime::{WatchStreamExt, watcher::watch_object},
};
use tokio::time::timeout;

use super::names::{FIELD_MANAGER, MANAGED_BY};

/// Of one request to the API server.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a Secret is not read or written.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("Secret {name}: {error}")]
    Api { name: &'static str, error: Box<kube::Error> },
    #[error("Secret {name}: the API server did not answer within {} s", TIMEOUT.as_secs())]
    Slow { name: &'static str },
    #[error("Secret {name}: another replica has changed it at the same time")]
    Raced { name: &'static str },
    #[error("Secret {name}: {message}")]
    Bad { name: &'static str, message: String },
}

#[derive(Clone, Debug)]
pub struct SharedSecret {
    api: Api<Secret>,
    name: &'static str,
}

/// A Secret as it was read or written: what it is replaced by is written only if nothing came between.
#[derive(Clone)]
pub struct Versioned(Secret);

/// Nothing of what is kept in it.
impl fmt::Debug for Versioned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metadata = &self.0.metadata;
        f.debug_struct("Versioned").field("name", &metadata.name).field("version", &metadata.resource_version).finish_non_exhaustive()
    }
}

impl Versioned {
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        Some(&self.0.data.as_ref()?.get(key)?.0)
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.0.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    pub fn set(&mut self, key: &str, value: Vec<u8>) {
        self.0.data.get_or_insert_default().insert(key.into(), ByteString(value));
    }

    pub fn annotate(&mut self, key: &str, value: String) {
        self.0.metadata.annotations.get_or_insert_default().insert(key.into(), value);
    }
}

impl SharedSecret {
    pub fn new(client: &Client, namespace: &str, name: &'static str) -> Self {
        Self { api: Api::namespaced(client.clone(), namespace), name }
    }

    pub fn bad(&self, message: impl Into<String>) -> SecretError {
        SecretError::Bad { name: self.name, message: message.into() }
    }

    /// As it is now: from the API server's storage, not from a cache.
    pub async fn read(&self) -> Result<Option<Versioned>, SecretError> {
        Ok(self.in_time(self.api.get_opt(self.name)).await?.map(Versioned))
    }

    /// An error if it is there.
    pub async fn create(&self, data: impl IntoIterator<Item = (&'static str, Vec<u8>)>) -> Result<Versioned, SecretError> {
        let labels = BTreeMap::from([(MANAGED_BY.0.into(), MANAGED_BY.1.into())]);
        let data = data.into_iter().map(|(key, value)| (key.into(), ByteString(value))).collect();
        let metadata = ObjectMeta { name: Some(self.name.into()), labels: Some(labels), ..ObjectMeta::default() };
        let secret = Secret { metadata, data: Some(data), type_: Some("Opaque".into()), ..Secret::default() };
        Ok(Versioned(self.in_time(self.api.create(&params(), &secret)).await?))
    }

    /// An error if it is not any more what `secret` was made of: its `resourceVersion` goes with it.
    pub async fn replace(&self, secret: &Versioned) -> Result<Versioned, SecretError> {
        Ok(Versioned(self.in_time(self.api.replace(self.name, &params(), &secret.0)).await?))
    }

    /// Yields when it may have changed, for the first time at once. What it is then, `read` tells: events come late.
    pub fn changes(&self) -> impl Stream<Item = ()> + Send + use<> {
        watch_object(self.api.clone(), self.name).default_backoff().filter_map(|event| ready(event.ok().map(drop)))
    }

    async fn in_time<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, SecretError> {
        let name = self.name;
        match timeout(TIMEOUT, request).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(kube::Error::Api(status))) if status.is_conflict() || status.is_already_exists() => Err(SecretError::Raced { name }),
            Ok(Err(error)) => Err(SecretError::Api { name, error: Box::new(error) }),
            Err(_) => Err(SecretError::Slow { name }),
        }
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_secret_holds_is_not_shown() {
        let mut secret =
            Versioned(Secret { metadata: ObjectMeta { name: Some("trust".into()), ..ObjectMeta::default() }, ..Secret::default() });
        secret.set("key", b"PRIVATE".to_vec());
        secret.annotate("note", "PRIVATE".into());
        let shown = format!("{secret:?}");
        let bytes = format!("{:?}", b"PRIVATE");
        assert!(shown.contains("trust") && !shown.contains("PRIVATE") && !shown.contains(&bytes[1..bytes.len() - 1]), "{shown}");
    }
}
