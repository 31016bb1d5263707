//! From what honest answers came to, to the limits of a profile. Pure arithmetic.
//!
//! The limits are the smallest whole numbers with which *each stratum* (answers of one length from one kind of prompt)
//! keeps the promises of [`starling_math::evidence`] with half of them in reserve, and no answer lies beyond. A client chooses
//! its prompts, so an average over strata would promise nothing.

use super::workload::Kind;
use serde::Serialize;
use starling_math::evidence::{bits, PROMISED, UNIT};
use starling_primitives::{
    profile::Calibration,
    transcript::Q_UNIT,
    verdict::{Figures, FIGURE_UNIT},
};

/// Of a promised share so much is used up by the answers that the limits are made from: one half.
const RESERVE: u32 = 2;
/// Least limit of the distance: twice what rounding to 1/128 nat can add to a token. Whatever the prompt, rounding alone then
/// never leaves the first half of the limit.
pub const DISTANCE_FLOOR: u32 = FIGURE_UNIT / Q_UNIT as u32;
/// Least limit of the margin: one step of the committed integers for each token.
pub const MARGIN_FLOOR: u32 = FIGURE_UNIT / Q_UNIT as u32;
/// Fewest tokens of each length; the last one has no end.
pub const LENGTHS: [u32; 5] = [1, 16, 32, 64, 128];
/// From this length on the limits hold without the allowance.
const LONG: u32 = 64;

/// What an honest answer came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Kind of its prompt.
    pub kind: Kind,
    /// Which pair of engines made and checked it.
    pub pair: usize,
    /// Its figures.
    pub figures: Figures,
}

impl Sample {
    /// Place of its length in [`LENGTHS`].
    pub fn length(&self) -> usize {
        LENGTHS.partition_point(|from| *from <= self.figures.tokens).saturating_sub(1)
    }
}

/// One of the two figures.
type Sum = fn(&Figures) -> u64;

/// The smallest calibration that keeps the promises on these answers.
pub fn fit(samples: &[Sample]) -> Calibration {
    let long = strata(samples, |figures| figures.tokens >= LONG);
    let limit = |sum: Sum, floor: u32| {
        let needed = |sample: &Figures, eighths: u64| {
            let share = eighths.saturating_mul(sample.tokens.into()).max(1);
            sum(sample).saturating_mul(8).div_ceil(share)
        };
        smallest(&long, needed).max(floor)
    };
    let distance_limit = limit(|figures| figures.distance_sum, DISTANCE_FLOOR);
    let margin_limit = limit(|figures| figures.margin_sum, MARGIN_FLOOR);
    let all = strata(samples, |_| true);
    let missing = |sum: Sum, limit: u32| {
        smallest(&all, |sample, eighths| {
            let allowed = u64::from(limit).saturating_mul(sample.tokens.into());
            sum(sample).saturating_mul(8).div_ceil(eighths).saturating_sub(allowed)
        })
    };
    let distance = missing(|figures| figures.distance_sum, distance_limit);
    let margin = missing(|figures| figures.margin_sum, margin_limit);
    Calibration { distance_limit, margin_limit, short_allowance: distance.max(margin) }
}

/// Answers by length and kind.
fn strata(samples: &[Sample], wanted: impl Fn(&Figures) -> bool) -> Vec<Vec<Figures>> {
    let mut strata = Vec::new();
    for length in 0..LENGTHS.len() {
        for kind in Kind::ALL {
            let found: Vec<Figures> = samples
                .iter()
                .filter(|sample| sample.length() == length && sample.kind == kind && wanted(&sample.figures))
                .map(|sample| sample.figures)
                .collect();
            strata.extend((!found.is_empty()).then_some(found));
        }
    }
    strata
}

/// The smallest number that suffices for all strata and promises: `needed` says what one answer needs in order to lie within
/// so many eighths of its limit.
fn smallest(strata: &[Vec<Figures>], needed: impl Fn(&Figures, u64) -> u64) -> u32 {
    let promises = PROMISED.iter().map(|(eighths, one_in)| (*eighths, *one_in));
    // Beyond the limit itself lies none.
    let promises = promises.chain([(8, u32::MAX)]);
    let mut most = 0;
    for (eighths, one_in) in promises {
        for stratum in strata {
            let mut all: Vec<u64> = stratum.iter().map(|sample| needed(sample, eighths)).collect();
            all.sort_unstable_by(|a, b| b.cmp(a));
            let beyond = all.len() / one_in.saturating_mul(RESERVE) as usize;
            most = most.max(all.get(beyond).copied().unwrap_or_default());
        }
    }
    u32::try_from(most).unwrap_or(u32::MAX)
}

/// How many of some honest answers lie where.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tails {
    /// Answers.
    pub answers: usize,
    /// Beyond one half, three quarters and seven eighths of a limit, as [`PROMISED`] has them.
    pub beyond: [usize; PROMISED.len()],
    /// Beyond a limit: false alarms.
    pub beyond_limit: usize,
    /// Mean of the e-values of those within the limits. The test's error bound needs at most 1.
    pub mean_e_value: f64,
}

impl Tails {
    /// Counts.
    pub fn of<'a>(samples: impl Iterator<Item = &'a Sample>, calibration: &Calibration) -> Self {
        let mut tails = Self { answers: 0, beyond: [0; PROMISED.len()], beyond_limit: 0, mean_e_value: 0.0 };
        let mut values = 0.0;
        for sample in samples {
            tails.answers += 1;
            let Some(bits) = bits(&sample.figures, calibration) else {
                tails.beyond_limit += 1;
                tails.beyond.iter_mut().for_each(|count| *count += 1);
                continue;
            };
            values += (f64::from(bits) / f64::from(UNIT)).exp2();
            for (count, (eighths, _)) in tails.beyond.iter_mut().zip(PROMISED) {
                *count += usize::from(bits > worth(eighths));
            }
        }
        tails.mean_e_value = values / tails.answers.saturating_sub(tails.beyond_limit).max(1) as f64;
        tails
    }

    /// Whether no share is larger than promised. Of few answers, none may lie beyond.
    pub fn hold(&self) -> bool {
        let within = |(count, (_, one_in)): (&usize, (u64, u32))| {
            count.saturating_mul(one_in as usize) <= self.answers
        };
        self.beyond.iter().zip(PROMISED).all(within) && self.mean_e_value <= 1.0
    }

    /// Share of false alarms that 95 of 100 such counts would stay below if it were true (Poisson).
    pub fn false_alarms_at_most(&self) -> f64 {
        if self.answers == 0 {
            return 1.0;
        }
        let (mut low, mut high) = (0.0, self.beyond_limit as f64 * 2.0 + 10.0);
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            if poisson_at_most(self.beyond_limit, middle) > 0.05 {
                low = middle;
            } else {
                high = middle;
            }
        }
        (high / self.answers as f64).min(1.0)
    }
}

/// Probability of at most `count` events where `mean` are expected.
fn poisson_at_most(count: usize, mean: f64) -> f64 {
    let mut term = (-mean).exp();
    let mut sum = term;
    for n in 1..=count {
        term *= mean / n as f64;
        sum += term;
    }
    sum
}

/// Log2 of the e-value, in 1/256 bit, of a figure at so many eighths of a limit.
pub fn worth(eighths: u64) -> i32 {
    let unit = Calibration { distance_limit: 8, margin_limit: 8, short_allowance: 0 };
    bits(&Figures { tokens: 1, distance_sum: eighths, margin_sum: 0 }, &unit).unwrap_or(i32::MAX)
}

/// A row of the calibration table: what a share of honest answers stays below, and what going beyond is worth.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Quantile {
    /// One in so many lies beyond; 0: none.
    pub one_in: u32,
    /// Mean distance of a token, in 1/1024 nat.
    pub distance: f64,
    /// Mean margin of a token, in 1/1024 nat.
    pub margin: f64,
}

/// Quantiles of answers of one length.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LengthRow {
    /// Fewest tokens.
    pub tokens_from: u32,
    /// Answers.
    pub answers: usize,
    /// Their quantiles: one in 2, 8, 64, 256, and the largest.
    pub quantiles: Vec<Quantile>,
}

/// The empirical quantiles by length.
pub fn quantiles(samples: &[Sample]) -> Vec<LengthRow> {
    LENGTHS
        .iter()
        .enumerate()
        .map(|(length, tokens_from)| {
            let of_length = || samples.iter().filter(move |sample| sample.length() == length);
            let sorted = |sum: Sum| {
                let mean =
                    |sample: &Sample| sum(&sample.figures) as f64 / f64::from(sample.figures.tokens.max(1));
                let mut means: Vec<f64> = of_length().map(mean).collect();
                means.sort_unstable_by(|a, b| b.total_cmp(a));
                means
            };
            let (distances, margins) = (sorted(|f| f.distance_sum), sorted(|f| f.margin_sum));
            let answers = distances.len();
            let at = |means: &[f64], one_in: u32| {
                let beyond = answers.checked_div(one_in as usize).unwrap_or(0);
                means.get(beyond).map_or(0.0, |mean| (mean * 1_000.0).round() / 1_000.0)
            };
            let shares = [2].into_iter().chain(PROMISED.iter().map(|(_, one_in)| *one_in)).chain([0]);
            let quantiles = shares
                .map(|one_in| Quantile {
                    one_in,
                    distance: at(&distances, one_in),
                    margin: at(&margins, one_in),
                })
                .collect();
            LengthRow { tokens_from: *tokens_from, answers, quantiles }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use starling_math::judge::passes;

    fn sample(kind: Kind, tokens: u32, distance_sum: u64, margin_sum: u64) -> Sample {
        Sample { kind, pair: 0, figures: Figures { tokens, distance_sum, margin_sum } }
    }

    #[test]
    fn rounding_alone_gives_the_floors() {
        // Every token as far away as rounding allows.
        let samples: Vec<Sample> =
            (1..200).map(|tokens| sample(Kind::Chat, tokens, u64::from(tokens) * 4, 0)).collect();
        let found = fit(&samples);
        assert_eq!(found, Calibration { distance_limit: 8, margin_limit: 8, short_allowance: 0 });
        let tails = Tails::of(samples.iter(), &found);
        assert_eq!((tails.beyond, tails.beyond_limit), ([0; 3], 0));
        assert!(tails.hold());
    }

    #[test]
    fn the_worst_stratum_decides() {
        let mut samples: Vec<Sample> = (0..10_000).map(|_| sample(Kind::Chat, 100, 100, 0)).collect();
        // One in a thousand answers, but a tenth of those to random prompts: their half of the limit is what one in
        // sixteen of them stays below.
        samples.extend((0..100).map(|i| sample(Kind::Random, 100, if i < 10 { 2_000 } else { 100 }, 0)));
        let found = fit(&samples);
        assert_eq!((found.distance_limit, found.short_allowance), (40, 0));
        assert!(Tails::of(samples.iter().filter(|s| s.kind == Kind::Random), &found).hold());
    }

    #[test]
    fn short_answers_get_an_allowance() {
        let samples =
            [sample(Kind::Chat, 200, 200, 0), sample(Kind::Chat, 4, 60, 0), sample(Kind::Chat, 2, 8, 90)];
        let found = fit(&samples);
        // Half of 8 x 2 + A must hold 90.
        assert_eq!(found, Calibration { distance_limit: 8, margin_limit: 8, short_allowance: 164 });
    }

    #[test]
    fn false_alarms_are_bounded() {
        let tails =
            |answers, beyond_limit| Tails { answers, beyond: [0; 3], beyond_limit, mean_e_value: 0.7 };
        // The rule of three, and a table of Poisson bounds.
        assert!((tails(3_000, 0).false_alarms_at_most() - 0.001).abs() < 2e-6);
        assert!((tails(1_000, 2).false_alarms_at_most() - 0.006_296).abs() < 1e-5);
        assert_eq!(tails(0, 0).false_alarms_at_most(), 1.0);
    }

    #[test]
    fn e_values_are_those_of_the_test() {
        assert_eq!([4, 6, 7, 8].map(worth), [-107, 256, 512, 1_024]);
    }

    proptest! {
        #[test]
        fn the_promises_hold_on_what_the_limits_are_made_from(
            drawn in prop::collection::vec((0usize..3, 1u32..300, 0u64..20_000, 0u64..20_000), 1..200),
        ) {
            let samples: Vec<Sample> =
                drawn.iter().map(|(kind, tokens, d, m)| sample(Kind::ALL[*kind], *tokens, *d, *m)).collect();
            let found = fit(&samples);
            for sample in &samples {
                prop_assert!(passes(&sample.figures, &found), "{:?} {:?}", sample, found);
            }
            for length in 0..LENGTHS.len() {
                for kind in Kind::ALL {
                    let stratum = samples.iter().filter(|s| s.kind == kind && s.length() == length);
                    let tails = Tails::of(stratum, &found);
                    // Both figures are judged, each with half of the promise.
                    prop_assert!(tails.hold(), "{:?}", tails);
                }
            }
        }
    }
}
