//! Whether a sidecar can tell, by what it is answered or by when, which names of others exist.

use std::time::Instant;

use prost::Message;

use super::*;

/// Of each kind, as many again do not exist.
const EXISTING: usize = 1_250;
const NODES: usize = 2_000;
const KINDS: [Kind; 4] = [Kind::Tenant, Kind::Workload, Kind::Issuer, Kind::PolicyZone];
/// How far from a coin's toss the best guess by time may be. Of ten thousand answers the statistic's own deviation is 0.006.
const TOLERANCE: f64 = 0.05;

/// SplitMix64: what is asked, and in which order, is the same in every run.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn name(&mut self) -> String {
        format!("n{:016x}", self.next())
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, usize::try_from(self.next() % (i as u64 + 1)).unwrap());
        }
    }
}

/// The chance that an answer about what exists took longer than one about what does not (Mann and Whitney's U over the pairs).
fn auc(samples: &[(bool, Duration)]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by_key(|(_, took)| *took);
    let (mut pairs, mut absent) = (0.0, 0.0);
    let mut rest = &*sorted;
    while let [(_, took), ..] = rest {
        let (same, more) = rest.split_at(rest.iter().take_while(|(_, other)| other == took).count());
        let here = same.iter().filter(|(exists, _)| *exists).count() as f64;
        let not_here = same.len() as f64 - here;
        pairs += here * (absent + not_here / 2.0);
        absent += not_here;
        rest = more;
    }
    pairs / (absent * (samples.len() as f64 - absent))
}

#[test]
fn the_statistic_tells_what_can_be_told() {
    let took = Duration::from_nanos;
    let of = |exists: u64, not: u64| auc(&(0..100).flat_map(|i| [(true, took(i + exists)), (false, took(i + not))]).collect::<Vec<_>>());
    assert!((of(0, 0) - 0.5).abs() < 1e-9 && (of(100, 0) - 1.0).abs() < 1e-9 && of(0, 100) < 1e-9 && of(10, 0) > 0.55);
}

fn existing(kind: Kind, name: &str) -> Resource {
    match kind {
        Kind::Tenant => tenant(name, 1),
        Kind::Workload => dedicated(name, "globex"),
        Kind::Issuer => Resource::new(name, &proto::Issuer { issuer: "https://sso.example/".into(), ..Default::default() }),
        _ => Resource::new(name, &proto::PolicyZone::default()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_ten_thousand_names_nobody_learns_which_exist() {
    let served = Secured::new().await;
    let mut seeded = Seeded(6);
    let mut probes = Vec::new();
    for kind in KINDS {
        for _ in 0..EXISTING {
            let name = seeded.name();
            served.fleet.publish(upserts(vec![existing(kind, &name)]));
            probes.extend([(kind, name, true), (kind, seeded.name(), false)]);
        }
    }
    seeded.shuffle(&mut probes);
    assert_eq!(probes.len(), 10_000);

    let (_channel, mut sidecar) = served.sidecar(&served.svid(API), request("api", Kind::Tenant, &["acme"])).await.unwrap();
    let mut last = sidecar.response().await.unwrap().unwrap();
    let mut answers: BTreeMap<Kind, Vec<u8>> = BTreeMap::new();
    let mut samples = Vec::with_capacity(probes.len());
    for (kind, name, exists) in &probes {
        sidecar.answer(&last, None).await;
        let asked = Instant::now();
        sidecar.requests.send(request("api", *kind, &[name])).await.unwrap();
        let mut response = sidecar.response().await.unwrap().unwrap();
        samples.push((*exists, asked.elapsed()));
        assert_eq!(response.removed_resources, [name.as_str()]);
        last = response.clone();
        response.removed_resources.clear();
        response.nonce.clear();
        let bytes = response.encode_to_vec();
        assert_eq!(*answers.entry(*kind).or_insert_with(|| bytes.clone()), bytes, "{kind} {name}");
    }
    let auc = auc(&samples);
    println!("names: AUC {auc:.4} over {} answers", samples.len());
    assert!((auc - 0.5).abs() < TOLERANCE, "AUC {auc}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_four_thousand_nodes_nobody_learns_which_exist() {
    let served = Secured::new().await;
    let mut seeded = Seeded(7);
    let mut probes = Vec::new();
    for _ in 0..NODES {
        let name = seeded.name();
        served.fleet.publish(upserts(vec![dedicated(&name, "globex")]));
        probes.extend([(name, true), (seeded.name(), false)]);
    }
    seeded.shuffle(&mut probes);
    let channel = served.connect(Some(&served.svid(API))).await.unwrap();
    let mut answer = None;
    let mut samples = Vec::with_capacity(probes.len());
    for (node, exists) in &probes {
        let asked = Instant::now();
        let mut sidecar = open(&channel, request(node, Kind::Tenant, &["acme"])).await.unwrap();
        let status = sidecar.response().await.unwrap_err();
        samples.push((*exists, asked.elapsed()));
        let said = (status.code(), status.message().to_owned(), status.details().to_vec(), status.metadata().len());
        assert_eq!(*answer.get_or_insert_with(|| said.clone()), said, "{node}");
    }
    let auc = auc(&samples);
    println!("nodes: AUC {auc:.4} over {} answers", samples.len());
    assert!((auc - 0.5).abs() < TOLERANCE, "AUC {auc}");
}
