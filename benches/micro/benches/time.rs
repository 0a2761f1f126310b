//! Wall time of every case: for a machine of one's own.

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for case in ringfence_micro::cases() {
        // Prepared only if it is to run: some take long.
        let mut run = None;
        criterion.bench_function(case.name, |bencher| bencher.iter(run.get_or_insert_with(case.prepare)));
    }
    criterion.final_summary();
}
