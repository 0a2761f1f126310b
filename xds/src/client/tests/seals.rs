//! Sealed resources, and somebody on the stream who cannot seal.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::{
    assemble,
    resource::PLATFORM,
    seal::{SigningKey, tests as keys},
    tests::fixtures,
    zone::Digest,
};

static KEY: LazyLock<SigningKey> = LazyLock::new(keys::key);

fn client() -> Client {
    Client::new("api").trusting(Arc::new(keys::keys()))
}

fn wanting(tenants: &[&str]) -> Client {
    let mut client = client();
    client.want(Kind::Tenant, set(tenants));
    client.connected();
    client
}

fn sealed(resource: Resource, epoch: u64) -> Resource {
    KEY.seal(resource, epoch).unwrap()
}

fn acme(in_flight: u32, epoch: u64) -> Resource {
    sealed(tenant("acme", in_flight), epoch)
}

/// What comes of a response: the NACK's words, or none.
fn told(client: &mut Client, resources: &[Resource], removed: &[&str]) -> String {
    take(client, tenants("n", resources, removed)).error_detail.map(|status| status.message).unwrap_or_default()
}

#[test]
fn what_is_sealed_is_in_force() {
    let mut client = wanting(&["acme"]);
    assert_eq!(told(&mut client, &[acme(1, 5)], &[]), "");
    assert_eq!(known(&client), "acme=1");
    assert_eq!(client.held().cloned().collect::<Vec<_>>(), [acme(1, 5)]);
    let versions = &client.connected().into_iter().find(|request| request.type_url == Kind::Tenant.type_url()).unwrap();
    assert_eq!(versions.initial_resource_versions["acme"], *acme(1, 9).version);
}

#[test]
fn what_is_not_is_refused_and_the_version_before_stays() {
    let (stranger, _) = SigningKey::generate().unwrap();
    let mut client = wanting(&["acme"]);
    told(&mut client, &[acme(1, 5)], &[]);
    let by_stranger = stranger.seal(tenant("acme", 2), 6).unwrap();
    let borrowed = |from: Resource| Resource { seal: from.seal, ..acme(2, 6) };
    let other_kind = Resource { kind: Kind::Issuer, ..acme(2, 6) };
    for (resource, wanted) in [
        (tenant("acme", 2), "is not signed".to_owned()),
        (by_stranger, format!("was signed by {}, which is none of the configuration keys", stranger.id())),
        (borrowed(acme(3, 6)), "is not what its signature was made for".into()),
        (borrowed(sealed(tenant("globex", 2), 6)), "is not what its signature was made for".into()),
        (borrowed(sealed(other_kind, 6)), "is not what its signature was made for".into()),
        (acme(2, 4), "was signed at an earlier epoch than what is in force: 4, not 5 or later".into()),
        (acme(2, 5), "was signed at the epoch of what is in force, 5, and is another".into()),
    ] {
        assert_eq!(told(&mut client, &[resource], &[]), format!("Tenant/acme: {wanted}"));
        assert_eq!(known(&client), "acme=1");
        assert_eq!(client.held().cloned().collect::<Vec<_>>(), [acme(1, 5)]);
    }
    assert_eq!(told(&mut client, &[acme(2, 6)], &[]), "");
    assert_eq!(known(&client), "acme=2");
}

#[test]
fn a_version_is_made_of_what_came_and_not_as_somebody_says() {
    let mut client = wanting(&["acme"]);
    told(&mut client, &[Resource { version: acme(2, 6).version, ..acme(1, 5) }], &[]);
    // Else an honest control plane would take the old for the new.
    assert_eq!(client.held().next().unwrap().version, acme(1, 5).version);
}

#[test]
fn the_same_content_may_come_by_any_seal_and_lowers_nothing() {
    let mut client = wanting(&["acme"]);
    for epoch in [5, 3, 7, 6] {
        assert_eq!(told(&mut client, &[acme(1, epoch)], &[]), "");
        assert_eq!(known(&client), "acme=1");
    }
    assert_eq!(
        told(&mut client, &[acme(2, 6)], &[]),
        "Tenant/acme: was signed at an earlier epoch than what is in force: 6, not 7 or later"
    );
    let told: Vec<_> = client.floors().collect();
    assert_eq!(told, [(Kind::Tenant, "acme", Floor::of(&acme(1, 7)).unwrap())], "its seal says less than is known");
}

#[test]
fn what_was_refused_for_another_reason_raises_no_floor() {
    let mut client = wanting(&["acme"]);
    told(&mut client, &[acme(1, 5)], &[]);
    assert!(told(&mut client, &[sealed(unusable_tenant("acme", 2), 9)], &[]).contains("identity"));
    assert_eq!(told(&mut client, &[acme(3, 7)], &[]), "");
}

#[test]
fn what_was_taken_away_comes_back_no_older() {
    let mut client = wanting(&["acme"]);
    told(&mut client, &[acme(1, 4)], &[]);
    told(&mut client, &[acme(2, 5)], &[]);
    assert_eq!(told(&mut client, &[], &["acme"]), "", "nobody signs a removal");
    assert_eq!(known(&client), "-acme");
    assert_eq!(
        told(&mut client, &[acme(1, 4)], &[]),
        "Tenant/acme: was signed at an earlier epoch than what is in force: 4, not 5 or later"
    );
    assert_eq!(known(&client), "?acme");
    assert_eq!(told(&mut client, &[acme(2, 5)], &[]), "");
    assert_eq!(known(&client), "acme=2");
}

#[test]
fn a_name_that_is_given_up_for_a_while_comes_back_no_older() {
    let mut client = wanting(&["acme"]);
    told(&mut client, &[acme(1, 4)], &[]);
    told(&mut client, &[acme(2, 5)], &[]);
    // As when somebody takes the workload away, which names all others, and gives it back.
    client.want(Kind::Tenant, set(&[]));
    assert_eq!(client.floors().count(), 1);
    client.want(Kind::Tenant, set(&["acme"]));
    assert!(told(&mut client, &[acme(1, 4)], &[]).contains("earlier epoch"));
    assert_eq!(told(&mut client, &[acme(3, 6)], &[]), "");
}

#[test]
fn a_restart_forgets_no_floor() {
    let mut before = wanting(&["acme", "globex"]);
    told(&mut before, &[acme(2, 5), sealed(tenant("globex", 2), 5)], &[]);
    told(&mut before, &[], &["globex"]);
    let mut after = client();
    assert_eq!(after.restore(before.held().cloned()), []);
    after.restore_floors(before.floors().map(|(kind, name, floor)| (kind, name.to_owned(), floor)));
    after.want(Kind::Tenant, set(&["acme", "globex"]));
    after.connected();
    assert!(told(&mut after, &[acme(1, 4)], &[]).contains("earlier epoch"));
    assert!(told(&mut after, &[sealed(tenant("globex", 1), 4)], &[]).contains("earlier epoch"));
    assert_eq!(known(&after), "acme=2 ?globex");
}

#[test]
fn a_new_key_takes_over_from_the_old() {
    let (next, _) = SigningKey::generate().unwrap();
    let both = [KEY.public_pem(), next.public_pem()].concat();
    let mut client = Client::new("api").trusting(Arc::new(ConfigKeys::from_pem(both.as_bytes()).unwrap()));
    client.want(Kind::Tenant, set(&["acme"]));
    client.connected();
    told(&mut client, &[acme(1, 5)], &[]);
    let renewed = next.seal(tenant("acme", 1), 6).unwrap();
    assert_ne!(renewed.version, acme(1, 5).version, "so that it is sent");
    assert_eq!(told(&mut client, std::slice::from_ref(&renewed), &[]), "");
    assert_eq!(client.held().cloned().collect::<Vec<_>>(), [renewed], "and what is on disk outlives the old key");
    assert!(told(&mut client, &[acme(2, 5)], &[]).contains("earlier epoch"), "epochs go on from key to key");
}

#[test]
fn keys_are_replaced_and_whoever_was_a_stranger_may_be_known_then() {
    let (next, _) = SigningKey::generate().unwrap();
    let mut client = client();
    client.want(Kind::Tenant, set(&["acme"]));
    client.connected();
    told(&mut client, &[acme(1, 5)], &[]);
    let renewed = next.seal(tenant("acme", 2), 6).unwrap();
    let forged = Resource { seal: renewed.seal.clone(), ..acme(3, 7) };
    let receive = |client: &mut Client, resource: &Resource| {
        let update = client.receive(tenants("x", std::slice::from_ref(resource), &[]));
        let found = (update.strangers.clone(), update.rejections.len());
        client.finish(update);
        found
    };
    assert_eq!(receive(&mut client, &renewed), (vec!["acme".to_owned()], 1));
    client.trust(Arc::new(ConfigKeys::from_pem(next.public_pem().as_bytes()).unwrap()));
    assert_eq!(receive(&mut client, &forged), (Vec::new(), 1), "no other key makes it good");
    assert_eq!(receive(&mut client, &renewed), (Vec::new(), 0));
    assert_eq!(receive(&mut client, &acme(4, 9)), (vec!["acme".to_owned()], 1), "the key before counts no more");
    assert_eq!(client.held().cloned().collect::<Vec<_>>(), [renewed]);
}

#[test]
fn with_a_key_goes_what_it_said_of_epochs() {
    let (next, _) = SigningKey::generate().unwrap();
    let only_next = || Arc::new(ConfigKeys::from_pem(next.public_pem().as_bytes()).unwrap());
    let mut client = wanting(&["acme", "globex"]);
    told(&mut client, &[acme(1, u64::MAX), sealed(tenant("globex", 1), u64::MAX)], &[]);
    told(&mut client, &[], &["globex"]);
    let before: Vec<_> = client.floors().map(|(kind, name, floor)| (kind, name.to_owned(), floor)).collect();
    assert_eq!(before.len(), 1, "of what is held, its seal tells");

    let strangers = client.trust(only_next());
    assert_eq!(strangers, ["acme", "globex"].map(|name| (Kind::Tenant, name.to_owned())).into());
    let [request] = client.refresh_all(&strangers).try_into().unwrap();
    assert_eq!(request.resource_names_subscribe, ["acme", "globex"]);
    assert_eq!(known(&client), "acme=1 -globex", "until another is told");
    let genuine = [("acme", 2), ("globex", 2)].map(|(name, in_flight)| next.seal(tenant(name, in_flight), 7).unwrap());
    assert_eq!(told(&mut client, &genuine, &[]), "");
    assert_eq!(known(&client), "acme=2 globex=2");
    assert!(told(&mut client, &[next.seal(tenant("acme", 3), 6).unwrap()], &[]).contains("earlier epoch"));
    assert_eq!(client.trust(only_next()), BTreeSet::new(), "what it has sealed stays as it is");
    assert!(told(&mut client, &[next.seal(tenant("acme", 3), 6).unwrap()], &[]).contains("earlier epoch"));

    let mut restarted = Client::new("api").trusting(only_next());
    restarted.restore_floors(before);
    assert_eq!(restarted.floors().count(), 0);
}

#[test]
fn without_its_platform_a_sidecar_goes_on_with_the_old_or_has_none() {
    let workload = Resource::new("api", &proto::Workload { tenants: vec!["acme".into()], ..Default::default() });
    let assembled = |client: &Client| assemble::assemble("api", client, 1, None).is_some();
    for (mut client, is_believed) in [(Client::new("api"), true), (client(), false)] {
        for kind in Kind::ALL {
            let names: &[&str] = match kind {
                Kind::Platform => &[PLATFORM],
                Kind::Tenant => &["acme"],
                Kind::Workload => &["api"],
                _ => &[],
            };
            client.want(kind, set(names));
        }
        client.connected();
        take(&mut client, response(Kind::Workload, "1", &[sealed(workload.clone(), 1)], &[]));
        take(&mut client, tenants("2", &[acme(1, 1)], &[]));
        assert!(!assembled(&client));
        let ack = take(&mut client, response(Kind::Platform, "3", &[], &[PLATFORM]));
        assert!(is_ack(&ack, "3"));
        assert_eq!(assembled(&client), is_believed, "nobody signs that there is none");
        take(&mut client, response(Kind::Platform, "4", &[sealed(platform(1), 1)], &[]));
        assert!(assembled(&client));
    }
    let mut restored = self::client();
    restored.restore([sealed(workload, 1), acme(1, 1)]);
    restored.presume_absent(assemble::wanted("api", &BTreeSet::new(), &restored));
    assert!(!assembled(&restored));
}

#[test]
fn chunks_need_no_seal() {
    let (_, chunks) = fixtures::policy_zone("malware", &["a"]);
    let mut client = client();
    client.want(Kind::ZoneChunk, set(&[&chunks[0].name]));
    client.connected();
    let update = client.receive(response(Kind::ZoneChunk, "1", &chunks, &[]));
    assert_eq!((update.upserts.len(), update.rejections.len()), (1, 0));
    let altered = Resource { bytes: proto::ZoneChunk { data: b"else".as_slice().into() }.encode_to_vec().into(), ..chunks[0].clone() };
    let update = client.receive(response(Kind::ZoneChunk, "2", &[altered], &[]));
    assert_eq!((update.upserts.len(), update.rejections.len()), (0, 1));
}

#[test]
fn without_keys_a_seal_counts_for_nothing() {
    let mut client = super::wanting(&["acme"]);
    let (stranger, _) = SigningKey::generate().unwrap();
    assert_eq!(told(&mut client, &[stranger.seal(tenant("acme", 1), 5).unwrap()], &[]), "");
    assert_eq!(told(&mut client, &[acme(2, 4)], &[]), "");
    assert_eq!(client.held().next().unwrap().seal, None, "nobody may take it for verified later");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever becomes of a sealed resource on its way, it is in force as it was signed, or not at all.
    #[test]
    fn a_flipped_bit_on_the_wire_changes_nothing(bit in any::<prop::sample::Index>()) {
        let signed = acme(1, 1 << 40);
        let mut octets = wire(&signed).encode_to_vec();
        let at = bit.index(octets.len() * 8);
        octets[at / 8] ^= 1 << (at % 8);
        if let Ok(flipped) = WireResource::decode(octets.as_slice()) {
            let mut client = wanting(&["acme"]);
            let response = DeltaDiscoveryResponse { resources: vec![flipped], ..tenants("n", &[], &[]) };
            let mut update = client.receive(response);
            update.removed.clear();
            client.finish(update);
            prop_assert!(client.held().all(|held| *held == signed));
        }
    }

    /// Any order of deliveries, removals and losses of interest: what is in force under a name is never older than what was.
    #[test]
    fn nothing_in_force_is_ever_rolled_back(steps in prop::collection::vec((0..4u8, 1..8u32), 1..40)) {
        let mut client = wanting(&["acme"]);
        let mut highest = 0;
        for (step, version) in steps {
            match step {
                0 => drop(told(&mut client, &[], &["acme"])),
                1 => {
                    client.want(Kind::Tenant, set(&[]));
                    client.want(Kind::Tenant, set(&["acme"]));
                }
                _ => drop(told(&mut client, &[acme(version, version.into())], &[])),
            }
            if let Some(held) = client.held().next() {
                let epoch = held.epoch().unwrap();
                prop_assert!(epoch >= highest, "{epoch} after {highest}");
                highest = epoch;
            }
        }
    }
}

#[test]
fn digests_of_floors_are_of_bodies() {
    assert_eq!(Floor::of(&acme(1, 1)).unwrap().digest, Digest::of(&tenant("acme", 1).bytes));
}
