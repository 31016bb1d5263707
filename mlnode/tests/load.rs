//! A node under more clients than it takes, in small. The large run stands in docs/benchmarks.md.

use indicatif::ProgressBar;
use starling_mlnode::{
    calibrate::Sizes,
    device::DeviceChoice,
    load_test::{load_test, LoadPlan},
    model::Precision,
};

/// What the second half of the requests may leave behind, when the cache of prefixes is full: pages that the allocator keeps.
/// Their keys and values alone took twice as much.
const GROWTH_MAX: u64 = 20 << 20;

#[tokio::test]
async fn nothing_is_lost_under_load() {
    let plan = LoadPlan {
        program: env!("CARGO_BIN_EXE_starling-mlnode").into(),
        folder: concat!(env!("CARGO_MANIFEST_DIR"), "/demo-model").into(),
        device: DeviceChoice::Cpu,
        precision: Precision::F32,
        cuda_library: None,
        requests: 480,
        streams: 16,
        threads: 1,
        sizes: Sizes { prompt_max: 128, answer_max: 64 },
        seed: 11,
    };
    let report = load_test(&plan, &ProgressBar::hidden()).await.unwrap();
    for line in report.lines() {
        println!("{} {:.6} {}", line.name, line.value, line.unit);
    }
    assert_eq!((report.error_count, &report.errors, &report.warnings), (0, &vec![], &vec![]));
    assert_eq!(report.answered + report.hung_up, 480);
    assert!(report.hung_up >= 5, "{}", report.hung_up);
    assert!(report.refused > 0, "two clients more than there are streams");
    assert_eq!(report.kept, (0, 0), "permits and room come back");
    // Verified while all the rest went on: rounding of the transcript, and noise far beyond it.
    assert!(report.honest.len() >= 25 && report.planted.len() >= 25, "{report:?}");
    assert!(report.honest.iter().all(|one| one.distance_sum <= 4 * u64::from(one.tokens)));
    let sums = report.planted.iter().map(|one| (one.distance_sum, u64::from(one.tokens)));
    let (distance, tokens) = sums.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    assert!(distance > 100 * tokens, "{distance} in {tokens} tokens");
    assert!(report.memory_at(100) > 0, "the system says how much memory there is");
    assert!(report.memory_at(100) < report.memory_at(50) + GROWTH_MAX, "{:?}", report.memory);
}
