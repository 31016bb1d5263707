//! How large a step is: as many tokens as the model takes in a given time, so that streams stay smooth on a slow machine and
//! prompts are not cut into crumbs on a fast one.
//!
//! What a sequence gets does not depend on it: its tokens are the same to the bit however they are cut into steps.

use std::time::Duration;

/// Share of the newest step in the estimate: a quarter.
const NEWEST: f64 = 0.25;
/// How many times as long a step of prompts alone may take. They are taken in in order of arrival, so larger pieces keep nobody
/// waiting who would not wait anyway, and read the weights less often.
const QUIET: u32 = 8;

/// Bounds of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaceLimits {
    /// Tokens that a step may always take.
    pub least: u32,
    /// Tokens that no step exceeds; at least `least`.
    pub most: u32,
    /// Time that a step between the two should take.
    pub time: Duration,
}

/// The estimate of what a step can take.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    limits: PaceLimits,
    /// Seconds of a token in steps that are large; `None` before the first.
    token_seconds: Option<f64>,
}

impl Pace {
    /// Nothing is known of the model yet.
    pub fn new(limits: PaceLimits) -> Self {
        Self { limits, token_seconds: None }
    }

    /// Tokens that the next step may take. `quiet`: requests wait for their first tokens, and nobody for a later one.
    pub fn step_tokens(&self, quiet: bool) -> u32 {
        let PaceLimits { least, most, time } = self.limits;
        let time = if quiet { time.saturating_mul(QUIET) } else { time };
        let fitting = self.token_seconds.map_or(0.0, |seconds| time.as_secs_f64() / seconds);
        // `as` saturates, and makes 0 of what is not a number.
        (fitting as u32).clamp(least, most.max(least))
    }

    /// Learns from a step of so many tokens. Small ones take their time for reading the weights: a token of a large one takes no
    /// longer than theirs, and maybe less.
    pub fn observe(&mut self, tokens: usize, took: Duration) {
        if tokens == 0 {
            return;
        }
        let seconds = took.as_secs_f64() / tokens as f64;
        let known = self.token_seconds.unwrap_or(seconds);
        self.token_seconds = Some(match tokens < self.limits.least as usize {
            true => known.min(seconds),
            false => known + NEWEST * (seconds - known),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: PaceLimits = PaceLimits { least: 128, most: 512, time: Duration::from_millis(100) };

    /// What a step may take after many of `tokens` tokens in so many ms.
    fn after(tokens: usize, ms: u64) -> u32 {
        let mut pace = Pace::new(LIMITS);
        (0..50).for_each(|_| pace.observe(tokens, Duration::from_millis(ms)));
        pace.step_tokens(false)
    }

    #[test]
    fn a_step_takes_its_time_within_its_bounds() {
        assert_eq!(Pace::new(LIMITS).step_tokens(false), 128);
        assert_eq!(after(128, 300), 128, "a slow machine keeps its streams smooth");
        assert_eq!(after(128, 50), 256);
        assert_eq!(after(256, 100), 256, "the estimate does not drift");
        assert_eq!(after(128, 1), 512, "a fast one is bounded all the same");
        assert_eq!(after(32, 8), 400, "a small step tells how long a token takes at most");
    }

    #[test]
    fn a_machine_that_gets_slower_is_noticed() {
        let mut pace = Pace::new(LIMITS);
        (0..50).for_each(|_| pace.observe(512, Duration::from_millis(50)));
        (0..8).for_each(|_| pace.observe(512, Duration::from_millis(400)));
        assert!(pace.step_tokens(false) < 200, "{}", pace.step_tokens(false));
    }

    #[test]
    fn decoding_says_nothing_about_prompts() {
        let mut pace = Pace::new(LIMITS);
        pace.observe(1, Duration::from_millis(20));
        assert_eq!(pace.step_tokens(false), 128);
        (0..50).for_each(|_| pace.observe(256, Duration::from_millis(100)));
        (0..50).for_each(|_| pace.observe(8, Duration::from_millis(22)));
        assert!((250..=256).contains(&pace.step_tokens(false)), "{}", pace.step_tokens(false));
    }

    #[test]
    fn prompts_come_in_larger_pieces_while_nobody_streams() {
        let mut pace = Pace::new(LIMITS);
        assert_eq!(pace.step_tokens(true), 128, "nothing is known yet");
        pace.observe(128, Duration::from_millis(320));
        assert_eq!((pace.step_tokens(false), pace.step_tokens(true)), (128, 320));
        pace.observe(128, Duration::from_secs(60));
        assert_eq!(pace.step_tokens(true), 128, "a step that nobody would wait for");
    }

    proptest! {
        #[test]
        fn no_step_leaves_the_bounds(
            steps in proptest::collection::vec((0usize..2_000, 0u64..1 << 40), 0..40),
            (least, most) in (1u32..1_000, 0u32..2_000),
            quiet in any::<bool>(),
        ) {
            let mut pace = Pace::new(PaceLimits { least, most, time: Duration::from_millis(100) });
            for (tokens, nanoseconds) in steps {
                pace.observe(tokens, Duration::from_nanos(nanoseconds));
                prop_assert!((least..=most.max(least)).contains(&pace.step_tokens(quiet)));
            }
        }
    }
}
