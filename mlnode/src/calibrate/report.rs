//! What a calibration says, for a profile's registration and for whoever doubts it.

use super::{
    limits::{worth, LengthRow, Sample, Tails, LENGTHS},
    workload::Kind,
};
use serde::Serialize;
use starling_math::evidence::{bits, step, PROMISED, UNIT};
use starling_mlnode_api::ModelDigest;
use starling_primitives::profile::Calibration;

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub struct CalibrationReport {
    /// Digests of what was calibrated.
    pub model: ModelDigest,
    /// The arithmetic that is promised.
    pub numerics: &'static str,
    /// Candidates per token.
    pub top_k: u8,
    /// The limits, for the profile.
    pub calibration: Calibration,
    /// What a figure beyond so many eighths of a limit is worth, as log2 of the e-value in 1/256 bit, and how many honest
    /// answers may lie there.
    pub bets: Vec<Bet>,
    /// Empirical quantiles by length, of the answers that the limits were made from.
    pub quantiles: Vec<LengthRow>,
    /// What ran.
    pub pairs: Vec<PairReport>,
    /// What did not, and why.
    pub not_run: Vec<NotRun>,
    /// The answers that the limits were made from.
    pub made_from: Tails,
    /// The fresh answers that they were checked on.
    pub checked_on: Tails,
    /// The same by kind of prompt and length.
    pub checked_by: Vec<Stratum>,
    /// Share of honest answers beyond a limit is at most this, with a confidence of 95 %.
    pub false_alarms_at_most: f64,
    /// Highest running product of the sequential test over the fresh answers, in bits; 40 accuse.
    pub highest_product_bits: f64,
    /// Whether promises and the stated rate of false alarms hold on the fresh answers.
    pub holds: bool,
    /// What was asked: seed and lengths.
    pub seed: u64,
    /// Tokens of a prompt at most.
    pub prompt_max: u32,
    /// Tokens of an answer at most.
    pub answer_max: u32,
    /// Instruction set of the kernels.
    pub instructions: String,
}

/// A place below the limit.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Bet {
    /// Beyond so many eighths of the limit.
    pub beyond_eighths: u64,
    /// At most one honest answer in so many lies there; 1 for the first half, where all may lie.
    pub one_in: u32,
    /// Log2 of the e-value, in 1/256 bit.
    pub log2_e: i32,
}

/// What a pair of engines did.
#[derive(Clone, Debug, Serialize)]
pub struct PairReport {
    /// Who answered and who checked.
    pub name: String,
    /// Answers, the fresh ones included.
    pub answers: usize,
    /// Their tokens.
    pub tokens: u64,
    /// Mean distance of a token, in 1/1024 nat.
    pub distance: f64,
    /// Mean margin of a token, in 1/1024 nat.
    pub margin: f64,
    /// Answers with a margin.
    pub with_margin: usize,
    /// Answers that were generated again in another way: which, how many, and how many had the same bytes.
    pub again: Option<Again>,
}

/// Answers that were generated twice.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Again {
    /// The other way.
    pub name: String,
    /// Answers.
    pub answers: usize,
    /// Of them with the same transcript, byte for byte.
    pub same: usize,
}

/// A pair that was not run.
#[derive(Clone, Debug, Serialize)]
pub struct NotRun {
    /// Which.
    pub pair: String,
    /// Why not.
    pub reason: String,
}

/// Fresh answers of one kind and length.
#[derive(Clone, Debug, Serialize)]
pub struct Stratum {
    /// Kind of the prompts.
    pub kind: Kind,
    /// Fewest tokens.
    pub tokens_from: u32,
    /// Where they lie.
    #[serde(flatten)]
    pub tails: Tails,
}

/// The places below a limit.
pub(super) fn bets() -> Vec<Bet> {
    let first = [Bet { beyond_eighths: 0, one_in: 1, log2_e: worth(0) }].into_iter();
    first
        .chain(PROMISED.map(|(eighths, one_in)| Bet {
            beyond_eighths: eighths,
            one_in,
            log2_e: worth(eighths + 1),
        }))
        .collect()
}

/// Where answers lie, by kind of prompt and length.
pub(super) fn strata(samples: &[Sample], calibration: &Calibration) -> Vec<Stratum> {
    let mut strata = Vec::new();
    for kind in Kind::ALL {
        for (length, tokens_from) in LENGTHS.iter().enumerate() {
            let of = samples.iter().filter(|sample| sample.kind == kind && sample.length() == length);
            strata.push(Stratum { kind, tokens_from: *tokens_from, tails: Tails::of(of, calibration) });
        }
    }
    strata.retain(|stratum| stratum.tails.answers > 0);
    strata
}

/// The highest running product of the sequential test, in bits, as if all were one host's answers to one verifier.
pub(super) fn highest_product(samples: &[Sample], calibration: &Calibration) -> f64 {
    let bets = samples.iter().filter_map(|sample| bits(&sample.figures, calibration));
    let products = bets.scan(0, |product, bits| {
        *product = step(*product, bits);
        Some(*product)
    });
    f64::from(products.max().unwrap_or(0)) / f64::from(UNIT)
}
