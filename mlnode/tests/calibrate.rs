//! Calibration and detection on the demo model, in small. The large runs stand in docs/benchmarks.md.

use indicatif::ProgressBar;
use starling_mlnode::{
    calibrate::{calibrate, CalibrationPlan, Sizes, DISTANCE_FLOOR, MARGIN_FLOOR},
    detect::{detect, DetectionPlan, Dress, Row},
    loader::LibtorchLoader,
    model::Precision,
};
use starling_primitives::profile::Calibration;
use std::{path::PathBuf, process::Command};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/demo-model");
/// What `calibrate` finds.
const CALIBRATION: Calibration =
    Calibration { distance_limit: DISTANCE_FLOOR, margin_limit: MARGIN_FLOOR, short_allowance: 0 };

#[test]
fn honest_engines_differ_by_rounding_only() {
    let plan = CalibrationPlan {
        folder: DEMO.into(),
        sequences: 320,
        seed: 7,
        threads: 1,
        sizes: Sizes { prompt_max: 96, answer_max: 64 },
        precision: Precision::F32,
        libtorch: Some(LibtorchLoader::processor(Precision::F32)),
    };
    let report = calibrate(&plan, &ProgressBar::hidden()).unwrap();
    assert!(report.holds, "{report:?}");
    assert_eq!((report.made_from.answers, report.checked_on.answers), (320, 160));
    assert_eq!(report.calibration.distance_limit, DISTANCE_FLOOR);
    assert!(report.highest_product_bits < 40.0);
    // The kernels give the same bytes alone, in batches and on more threads; libtorch is another arithmetic.
    let again: Vec<_> = report.pairs.iter().filter_map(|pair| pair.again.as_ref()).collect();
    assert_eq!(again.len(), 2);
    assert!(again.iter().all(|again| again.answers >= 10 && again.same == again.answers), "{again:?}");
    assert!(report.pairs.iter().all(|pair| pair.answers == 120 && pair.distance > 0.0), "{:?}", report.pairs);
    // Half a step of rounding is all that there is.
    let largest = |row: &starling_mlnode::calibrate::LengthRow| row.quantiles.last().unwrap().distance;
    assert!(report.quantiles.iter().all(|row| largest(row) <= f64::from(DISTANCE_FLOOR) / 2.0));
    assert!(report.not_run.iter().any(|skipped| skipped.reason.contains("bf16")));
}

#[test]
fn laundered_and_sampler_cheats_fall_to_the_replay_alone() {
    let plan = DetectionPlan {
        folder: DEMO.into(),
        precision: Precision::F32,
        calibration: CALIBRATION,
        answers: 24,
        tokens: 32,
        seed: 3,
        threads: 1,
        patternless: false,
    };
    let mut printed = 0;
    let rows = detect(&plan, &ProgressBar::hidden(), |_| printed += 1).unwrap();
    assert_eq!((rows.len(), printed), (27, 27));
    for row in &rows {
        println!("{row:?}");
        assert_eq!((row.answers, row.wronged), (24, 0), "{row:?}");
        match row.dress {
            Dress::Honest => check_honest(row),
            // A token that the true list does not have can take its last place, if it is about as probable as what stood
            // there: then replay and figures see nothing, and there is nothing to see but the 21st candidate.
            Dress::Laundered => {
                assert!(row.differ - row.replay_failed <= 1 && row.beyond_limits == 0, "{row:?}");
                assert!(row.differ <= 1 || row.until_replay.is_some(), "{row:?}");
            }
            Dress::Naive if is_of_the_sampler(row) => check_replay_alone(row),
            // Nothing in a transcript says how long it ought to be: who cuts it off is paid for less.
            Dress::Naive if row.cheat.contains("in silence") => {
                assert_eq!((row.replay_failed, row.beyond_limits), (0, 0), "{row:?}");
            }
            Dress::Naive => {}
        }
    }
    let naive = |cheat: &str| {
        let row = rows.iter().find(|row| row.dress == Dress::Naive && row.cheat.starts_with(cheat));
        row.unwrap_or_else(|| panic!("{cheat} is missing"))
    };
    // What is claimed to be certain, and weights that are far away, no limit lets pass.
    for cheat in ["canned", "answer ended", "weights moved by 25 %", "last layer", "int4"] {
        let row = naive(cheat);
        assert!(row.beyond_limits * 2 > row.answers && row.until_verdict.is_some(), "{row:?}");
    }
    assert!(naive("int8").until_verdict.or(naive("int8").until_accused).is_some());
}

fn check_honest(row: &Row) {
    assert_eq!((row.replay_failed, row.beyond_limits, row.until_accused), (0, 0, None), "{row:?}");
    assert!(row.bits < 0.0, "{row:?}");
}

/// An answer replays exactly when it is the honest one, token for token; no model is needed to see it.
fn check_replay_alone(row: &Row) {
    assert_eq!((row.replay_failed, row.beyond_limits), (row.differ, 0), "{row:?}");
    assert!(row.differ == 0 || row.until_replay.is_some(), "{row:?}");
}

fn is_of_the_sampler(row: &Row) -> bool {
    ["half the temperature", "top_p 0.5"].contains(&row.cheat.as_str())
}

#[test]
fn the_commands_print_json_and_read_it() {
    let program = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_starling-mlnode")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // No bar where nobody looks.
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let printed = program(&[
        "calibrate",
        DEMO,
        "--sequences",
        "64",
        "--prompt",
        "40",
        "--tokens",
        "24",
        "--without-libtorch",
    ]);
    let report: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(report["calibration"]["distance_limit"], DISTANCE_FLOOR);
    assert_eq!(report["not_run"].as_array().unwrap().len(), 2);
    assert_eq!(report["bets"][3]["log2_e"], 1_024);
    let folder = tempfile::tempdir().unwrap();
    let file: PathBuf = folder.path().join("calibration.json");
    std::fs::write(&file, printed).unwrap();
    let file = file.to_str().unwrap();
    let rows = program(&["detect", DEMO, "--calibration", file, "--answers", "2", "--tokens", "4"]);
    assert_eq!(rows.lines().count(), 27);
    let last: serde_json::Value = serde_json::from_str(rows.lines().last().unwrap()).unwrap();
    assert_eq!((&last["dress"], &last["replay_failed"]), (&"laundered".into(), &2.into()));
}
