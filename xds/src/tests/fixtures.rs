//! Resources and messages with as little in them as a test needs. `inFlight` is the field by which two versions are told apart.

use prost::Message;

use crate::{
    generated::{
        discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Resource as WireResource, Status},
        resource as proto,
    },
    resource::{Kind, PLATFORM, Resource},
    zone::{Digest, MIN_CHUNK_BYTES},
};

pub(crate) fn platform(in_flight: u32) -> Resource {
    Resource::new(PLATFORM, &proto::Platform { in_flight, ..Default::default() })
}

pub(crate) fn tenant(name: &str, in_flight: u32) -> Resource {
    let identity = vec![proto::Identity { issuer: "sso".into(), values: vec![format!("org_{name}")] }];
    Resource::new(name, &proto::Tenant { identity, in_flight, ..proto::Tenant::default() })
}

/// A tenant that the decoder refuses.
pub(crate) fn unusable_tenant(name: &str, in_flight: u32) -> Resource {
    Resource::new(name, &proto::Tenant { in_flight, ..proto::Tenant::default() })
}

pub(crate) fn issuer(name: &str, audience: &str) -> Resource {
    Resource::new(name, &proto::Issuer { audiences: vec![audience.into()], ..proto::Issuer::default() })
}

pub(crate) fn binding(name: &str, tenant: &str) -> Resource {
    Resource::new(name, &proto::Binding { tenant: tenant.into() })
}

/// A shared workload; `["*"]` serves any tenant.
pub(crate) fn workload(name: &str, tenants: &[&str]) -> Resource {
    let tenants = tenants.iter().map(|tenant| (*tenant).into()).collect();
    Resource::new(name, &proto::Workload { tenants, issuers: vec!["sso".into()], ..proto::Workload::default() })
}

/// A policy zone of the pieces that `contents` are, with its chunks. What they say is no zone that could be opened.
pub(crate) fn policy_zone(name: &str, contents: &[&str]) -> (Resource, Vec<Resource>) {
    let chunk = |content: &&str| {
        let body = proto::ZoneChunk { data: content.repeat(MIN_CHUNK_BYTES / content.len() + 1).into() };
        (Digest::of(&body.data), body)
    };
    let chunks: Vec<(Digest, proto::ZoneChunk)> = contents.iter().map(chunk).collect();
    let piece =
        |(digest, body): &(Digest, proto::ZoneChunk)| proto::ZonePiece { digest: digest.0.to_vec().into(), size: body.data.len() as u32 };
    let digest = Digest::of(contents.concat().as_bytes()).0.to_vec().into();
    let manifest = proto::PolicyZone { digest, pieces: chunks.iter().map(piece).collect(), ..proto::PolicyZone::default() };
    let chunk = |(digest, body): &(Digest, proto::ZoneChunk)| Resource::chunk(*digest, body.encode_to_vec().into());
    (Resource::new(name, &manifest), chunks.iter().map(chunk).collect())
}

pub(crate) fn platform_zones(zones: &[&str]) -> Resource {
    Resource::new(
        PLATFORM,
        &proto::Platform { dns: Some(proto::PlatformDns { zones: names(zones), ..Default::default() }), ..proto::Platform::default() },
    )
}

pub(crate) fn tenant_zones(name: &str, zones: &[&str], mode: &str) -> Resource {
    let identity = vec![proto::Identity { issuer: "sso".into(), values: vec![format!("org_{name}")] }];
    let dns = Some(proto::TenantDns { zones: names(zones), mode: mode.into(), ..Default::default() });
    Resource::new(name, &proto::Tenant { identity, dns, ..proto::Tenant::default() })
}

/// Dedicated where there is one tenant, and then without zones of its own.
pub(crate) fn workload_zones(name: &str, tenants: &[&str], zones: &[&str]) -> Resource {
    let dns = Some(proto::WorkloadDns { zones: names(zones), ..proto::WorkloadDns::default() });
    let (tenant, tenants) = if let [tenant] = tenants { ((*tenant).into(), vec![]) } else { (String::new(), names(tenants)) };
    Resource::new(name, &proto::Workload { tenant, tenants, dns, ..proto::Workload::default() })
}

pub(crate) fn names<N: AsRef<str>>(names: &[N]) -> Vec<String> {
    names.iter().map(|name| name.as_ref().to_owned()).collect()
}

/// A request as a client would send it; more is added field by field.
pub(crate) struct Request(pub(crate) DeltaDiscoveryRequest);

pub(crate) fn request(kind: Kind) -> Request {
    let node = Node { id: "api".into(), ..Node::default() };
    Request(DeltaDiscoveryRequest { node: Some(node), type_url: kind.type_url().into(), ..DeltaDiscoveryRequest::default() })
}

impl Request {
    pub(crate) fn subscribe<N: AsRef<str>>(mut self, subscribe: &[N]) -> Self {
        self.0.resource_names_subscribe = names(subscribe);
        self
    }
    pub(crate) fn unsubscribe<N: AsRef<str>>(mut self, unsubscribe: &[N]) -> Self {
        self.0.resource_names_unsubscribe = names(unsubscribe);
        self
    }
    pub(crate) fn holding(mut self, name: &str, version: &str) -> Self {
        self.0.initial_resource_versions.insert(name.into(), version.into());
        self
    }
    pub(crate) fn nonce(mut self, nonce: &str) -> Self {
        self.0.response_nonce = nonce.into();
        self
    }
    pub(crate) fn nack(mut self, message: &str) -> Self {
        self.0.error_detail = Some(Status { code: 3, message: message.into(), details: Vec::new() });
        self
    }
}

/// A response as a server would send it.
pub(crate) fn response(kind: Kind, nonce: &str, resources: &[Resource], removed: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: kind.type_url().into(),
        nonce: nonce.into(),
        resources: resources.iter().map(wire).collect(),
        removed_resources: names(removed),
        ..DeltaDiscoveryResponse::default()
    }
}

pub(crate) fn wire(resource: &Resource) -> WireResource {
    WireResource {
        name: resource.name.to_string(),
        version: resource.version.to_string(),
        seal: resource.seal.as_ref().map(|seal| seal.to_bytes()).unwrap_or_default(),
        resource: Some(prost_types::Any { type_url: resource.kind.type_url().into(), value: resource.bytes.to_vec() }),
        ..WireResource::default()
    }
}

/// A response in a line: `Tenant acme=1 globex=7 -initech`, where the number is `inFlight`.
pub(crate) fn told(response: &DeltaDiscoveryResponse) -> String {
    let kind = Kind::from_type_url(&response.type_url).unwrap();
    let upserts = response.resources.iter().map(|resource| {
        let body = resource.resource.as_ref().unwrap();
        assert_eq!(body.type_url, response.type_url);
        let in_flight = match kind {
            Kind::Platform => Some(proto::Platform::decode(body.value.as_slice()).unwrap().in_flight),
            Kind::Tenant => Some(proto::Tenant::decode(body.value.as_slice()).unwrap().in_flight),
            _ => None,
        };
        format!(" {}{}", resource.name, in_flight.map(|n| format!("={n}")).unwrap_or_default())
    });
    let removals = response.removed_resources.iter().map(|name| format!(" -{name}"));
    format!("{kind}{}", upserts.chain(removals).collect::<String>())
}
