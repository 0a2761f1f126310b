//! An installation of any size: its resources as the control plane would send them, and the tokens of its tenants.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use jsonwebtoken::{
    Algorithm, EncodingKey, Header,
    jwk::{Jwk, JwkSet},
};
use ringfence_policy::Snapshot;
use ringfence_xds::{
    assemble,
    client::Client,
    generated::resource as proto,
    resource::{PLATFORM, Resource},
};
use serde_json::json;

/// Unix seconds: when all of this happens.
pub(crate) const NOW: u64 = 1_800_000_000;
pub(crate) const WORKLOAD: &str = "api";
const ISSUER: &str = "sso";
const ISS: &str = "https://sso.example/";
const AUDIENCE: &str = "api.example";

pub(crate) struct World {
    key: EncodingKey,
    jwks: Vec<u8>,
    tenants: usize,
}

impl World {
    /// With a signing key of its own.
    pub(crate) fn new(tenants: usize) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key pair");
        let der = pair.to_pkcs8v1().expect("its encoding");
        let key = EncodingKey::from_ec_der(der.as_ref());
        let public = Jwk::from_encoding_key(&key, Algorithm::ES256).expect("its public half");
        let jwks = serde_json::to_vec(&JwkSet { keys: vec![public] }).expect("JSON");
        Self { key, jwks, tenants }
    }

    /// A token of a tenant's, good at [`NOW`].
    pub(crate) fn token(&self, tenant: usize, subject: &str) -> String {
        let claims = json!({
            "iss": ISS, "aud": AUDIENCE, "sub": subject, "iat": NOW, "exp": NOW + 3600, "org_id": value(tenant), "scope": "read write",
        });
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.key).expect("a token")
    }

    /// Platform, issuer, tenants, and the shared workload that serves them all.
    pub(crate) fn resources(&self) -> Vec<Resource> {
        let issuer = proto::Issuer {
            issuer: ISS.into(),
            audiences: vec![AUDIENCE.into()],
            algorithms: vec!["ES256".into()],
            jwks: self.jwks.clone().into(),
            tenant_claim: "org_id".into(),
            ..proto::Issuer::default()
        };
        let workload = proto::Workload {
            tenants: (0..self.tenants).map(name).collect(),
            issuers: vec![ISSUER.into()],
            inbound: vec![proto::InboundListener {
                listen: "127.0.0.1:18080".into(),
                upstream: "127.0.0.1:19000".into(),
                public: vec!["/healthz".into()],
                ..proto::InboundListener::default()
            }],
            ..proto::Workload::default()
        };
        let mut resources = vec![Resource::new(PLATFORM, &proto::Platform::default()), Resource::new(ISSUER, &issuer)];
        resources.extend((0..self.tenants).map(|number| Resource::new(name(number), &tenant(number))));
        resources.push(Resource::new(WORKLOAD, &workload));
        resources
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        snapshot(self.resources())
    }
}

/// From resources as they came over the wire.
pub(crate) fn snapshot(resources: Vec<Resource>) -> Snapshot {
    let mut client = Client::new(WORKLOAD);
    let rejections = client.restore(resources);
    assert!(rejections.is_empty(), "{rejections:?}");
    assemble::assemble(WORKLOAD, &client, 1, None).expect("nothing is missing")
}

pub(crate) fn name(tenant: usize) -> String {
    format!("tenant-{tenant}")
}

fn value(tenant: usize) -> String {
    format!("org_{tenant}")
}

fn tenant(number: usize) -> proto::Tenant {
    let limit = |name: &str, key: &str| proto::Limit {
        name: name.into(),
        rate: "1000000/s".into(),
        key: key.into(),
        mode: "enforce".into(),
        scope: "local".into(),
        ..proto::Limit::default()
    };
    let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    proto::Tenant {
        identity: vec![proto::Identity { issuer: ISSUER.into(), values: vec![value(number)] }],
        limits: vec![limit("all", "tenant"), limit("each", "subject")],
        inbound: Some(proto::TenantInbound {
            allow: vec![
                proto::AllowRule { methods: strings(&["DELETE"]), paths: strings(&["/tenants/{tenant}/**"]), scopes: strings(&["admin"]) },
                proto::AllowRule {
                    methods: strings(&["GET", "PUT"]),
                    paths: strings(&["/tenants/{tenant}/**"]),
                    scopes: strings(&["read"]),
                },
            ],
        }),
        egress: Some(proto::TenantEgress {
            allow: vec![proto::EgressRule {
                name: "partners".into(),
                hosts: strings(&["api.example.com", "*.example.net"]),
                ports: vec![443],
                protocol: "tls".into(),
                ..proto::EgressRule::default()
            }],
            ..proto::TenantEgress::default()
        }),
        ..proto::Tenant::default()
    }
}
