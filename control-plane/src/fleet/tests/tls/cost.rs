//! What sidecars cost the control plane. Run alone: `cargo test --lib what_sidecars_cost -- --ignored --nocapture`.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
};

use super::*;

const SIDECARS: usize = 1_000;
/// Where the process that is measured finds the authority.
const DIR: &str = "RINGFENCE_MEASURED_DIR";

fn name(i: usize) -> String {
    format!("w{i:05}")
}

fn fleet_of_many() -> Arc<Fleet> {
    let (fleet, _) = Fleet::new();
    fleet.publish(upserts((0..SIDECARS).map(|i| dedicated(&name(i), "acme")).collect()));
    fleet.publish(upserts(vec![tenant("acme", 1)]));
    fleet
}

fn trust(dir: &Path, fleet: &Arc<Fleet>) -> Arc<Trust> {
    let config = TrustConfig { trust_domain: DOMAIN.parse().unwrap(), svid_ttl: DEFAULT_SVID_TTL, given: None };
    Trust::open(dir.to_owned(), &config, fleet.clone(), since_epoch()).unwrap()
}

/// Resident KiB, and ticks of the CPU, of this process.
fn usage() -> (u64, u64) {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let times: Vec<u64> = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2).map(|n| n.parse().unwrap()).collect();
    (statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4, times.iter().sum())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the process that is measured, which the other test starts"]
async fn measured() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let fleet = fleet_of_many();
    let trust = trust(Path::new(&dir), &fleet);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("\nanswer {}", listener.local_addr().unwrap());
    tokio::spawn(ads::serve_tls(fleet, trust.clone(), listener));
    tokio::task::spawn_blocking(move || {
        for line in std::io::stdin().lines() {
            match line.unwrap().as_str() {
                "usage" => println!("answer {} {}", usage().0, usage().1),
                workload => println!("answer {}", trust.join_token(workload, Duration::from_secs(600)).unwrap()),
            }
        }
    })
    .await
    .unwrap();
}

struct Measured(Child, BufReader<std::process::ChildStdout>);

impl Measured {
    fn answer(&mut self) -> String {
        for line in (&mut self.1).lines() {
            if let Some(answer) = line.unwrap().strip_prefix("answer ") {
                return answer.to_owned();
            }
        }
        panic!("it ended");
    }

    fn ask(&mut self, question: &str) -> String {
        writeln!(self.0.stdin.as_mut().unwrap(), "{question}").unwrap();
        self.answer()
    }

    fn usage(&mut self) -> (f64, f64) {
        let answer = self.ask("usage");
        let (resident, ticks) = answer.split_once(' ').unwrap();
        // USER_HZ is 100 on Linux.
        (resident.parse().unwrap(), ticks.parse::<f64>().unwrap() * 10_000.0)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn what_sidecars_cost() {
    let mut served = Secured::new().await;
    let dir = tempfile::tempdir().unwrap();
    let fleet = fleet_of_many();
    served.trust = trust(&dir.path().join("trust"), &fleet);
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "fleet::tests::tls::cost::measured"])
        .env(DIR, dir.path().join("trust"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let mut measured = Measured(child, stdout);
    served.address = measured.answer().parse().unwrap();
    let per_sidecar = |from: f64, to: f64| (to - from) / SIDECARS as f64;

    let svids: Vec<Svid> = (0..SIDECARS).map(|i| served.svid(&format!("/tenant/acme/workload/{}", name(i)))).collect();
    let before = measured.usage();
    let mut sidecars = Vec::new();
    for (i, svid) in svids.iter().enumerate() {
        let (channel, mut sidecar) = served.sidecar(svid, request(&name(i), Kind::Tenant, &["acme"])).await.unwrap();
        sidecar.told().await;
        sidecars.push((channel, sidecar));
    }
    let streams = measured.usage();
    println!("a stream: {:.1} KiB, {:.0} us of CPU", per_sidecar(before.0, streams.0), per_sidecar(before.1, streams.1));
    let keys: Vec<KeyPair> = (0..SIDECARS).map(|_| KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()).collect();
    let before = measured.usage();
    let mut took = Vec::new();
    for ((i, key), (channel, _)) in keys.iter().enumerate().zip(&sidecars) {
        let token = measured.ask(&name(i));
        let asked = std::time::Instant::now();
        issue(channel, request_of(key, Some(Proof::JoinToken(token)))).await.unwrap();
        took.push(asked.elapsed());
    }
    let issued = measured.usage();
    took.sort();
    println!("a certificate: {:?} median, {:.0} us of CPU", took[SIDECARS / 2], per_sidecar(before.1, issued.1));
    measured.0.kill().unwrap();
    measured.0.wait().unwrap();
}
