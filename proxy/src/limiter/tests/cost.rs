use super::*;

/// `cargo test --release -p ringfence-proxy --lib limiter -- --ignored --nocapture`
#[test]
#[ignore = "measures"]
fn cost_of_a_charge() {
    let bench = Bench::bounded(Bounds { cells_per_limit: 2_000_000, cells_per_tenant: 2_000_000 });
    let acme = tenant("acme", [limit("all", "1000000/s", u32::MAX, LimitKey::Tenant)]);
    let path = NormalPath::new("/v1/chat").unwrap();
    let subjects: Vec<String> = (0..1_000_000).map(|n| format!("subject-{n:012}")).collect();
    let measure = |what: &str, policy: &TenantPolicy, subjects: &[String], rounds: usize| {
        let begun = Instant::now();
        for subject in subjects.iter().cycle().take(rounds) {
            let request = Request { method: "GET", path: &path, subject: Some(subject), claim: &|_| None };
            assert!(bench.limiter.charge(&request, policy, u32::MAX, bench.now).is_ok());
        }
        println!("{what}: {} ns", begun.elapsed().as_nanos() / rounds as u128);
    };
    let by_subject = |rate: &str| tenant("acme", [limit("each", rate, 10_000_000, LimitKey::Subject)]);
    measure("no limit, requests in flight only", &tenant("acme", []), &subjects[..1], 1_000_000);
    measure("1 limit, tenant", &acme, &subjects[..1], 1_000_000);
    measure("1 limit, 1 subject", &by_subject("1/s"), &subjects[..1], 1_000_000);
    measure("1 limit, 1e6 subjects, new", &by_subject("1/s"), &subjects, subjects.len());
    measure("1 limit, 1e6 subjects, known", &by_subject("1/s"), &subjects, subjects.len());
    measure("a changed quota, 1e6 cells, once", &by_subject("2/s"), &subjects[..1], 1);
    let three = tenant("acme", ["a", "b", "c"].map(|name| limit(name, "1/s", u32::MAX, LimitKey::Subject)));
    measure("3 limits, 1 subject", &three, &subjects[..1], 1_000_000);
}
