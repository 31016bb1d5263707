//! What a step computes. Pure: it sees numbers, not tensors.
//!
//! There is no prefill and no decode: each sequence has tokens that are known and not yet computed. One pending token is
//! a decode; many are a prompt, which is cut into chunks so that nobody waits long for a token.

use crate::source::SequenceId;

/// Whom a sequence is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Somebody waits for its tokens.
    Request,
    /// A transcript is checked; minutes are fine.
    Verification,
    /// Sprint work: as fast as serving lets it.
    Sprint,
}

/// A sequence as the scheduler sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The sequence.
    pub id: SequenceId,
    /// Whom it is for.
    pub class: Class,
    /// Known tokens that are not computed yet.
    pub pending: u32,
}

/// Tokens of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// For requests; for the background too while there is no request.
    pub step_tokens: u32,
    /// For the background beside requests. Bounds how much it slows them down, and is always granted, so that it never
    /// starves.
    pub background_tokens: u32,
}

/// So many of a sequence's pending tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The sequence.
    pub id: SequenceId,
    /// Tokens, at least one.
    pub tokens: u32,
}

/// Plans a step. `entries` come in order of arrival; within a class the earlier ones go first.
pub fn plan(entries: &[Entry], budget: &Budget) -> Vec<Share> {
    let mut shares = Vec::new();
    let of = |class| entries.iter().filter(move |e| e.class == class && e.pending > 0);
    grant(of(Class::Request), budget.step_tokens, &mut shares);
    let background = if shares.is_empty() { budget.step_tokens } else { budget.background_tokens };
    let waiting = of(Class::Sprint).map(|e| e.pending).fold(0, u32::saturating_add);
    // Half is kept for the sprint where both wait.
    let kept = waiting.min(background / 2);
    let used = grant(of(Class::Verification), background - kept, &mut shares);
    grant(of(Class::Sprint), background - used, &mut shares);
    shares
}

/// Grants single tokens first, then chunks, until the tokens are used up. Returns what was granted.
fn grant<'a>(entries: impl Iterator<Item = &'a Entry> + Clone, tokens: u32, shares: &mut Vec<Share>) -> u32 {
    let mut left = tokens;
    let single = entries.clone().filter(|e| e.pending == 1);
    for entry in single.chain(entries.filter(|e| e.pending > 1)) {
        let granted = entry.pending.min(left);
        if granted == 0 {
            break;
        }
        shares.push(Share { id: entry.id, tokens: granted });
        left -= granted;
    }
    tokens - left
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BUDGET: Budget = Budget { step_tokens: 16, background_tokens: 4 };

    fn check(entries: &[(Class, u32)], expected: &[(u64, u32)]) {
        let entries: Vec<_> = (0..)
            .zip(entries)
            .map(|(id, (class, pending))| Entry { id, class: *class, pending: *pending })
            .collect();
        let shares: Vec<_> = plan(&entries, &BUDGET).iter().map(|s| (s.id, s.tokens)).collect();
        assert_eq!(shares, expected, "{entries:?}");
    }

    #[test]
    fn decodes_come_before_prompts() {
        use Class::Request;
        check(&[(Request, 40), (Request, 1), (Request, 9), (Request, 1)], &[(1, 1), (3, 1), (0, 14)]);
        check(&[(Request, 5), (Request, 40)], &[(0, 5), (1, 11)]);
        check(&[(Request, 0)], &[]);
        check(&[], &[]);
    }

    #[test]
    fn the_background_gets_its_part_beside_requests_and_everything_alone() {
        use Class::{Request, Sprint, Verification};
        check(&[(Request, 99), (Verification, 9)], &[(0, 16), (1, 4)]);
        check(
            &[(Request, 99), (Sprint, 1), (Sprint, 9), (Verification, 9)],
            &[(0, 16), (3, 2), (1, 1), (2, 1)],
        );
        check(&[(Verification, 99), (Sprint, 1)], &[(0, 15), (1, 1)]);
        check(&[(Sprint, 9), (Sprint, 1), (Sprint, 9)], &[(1, 1), (0, 9), (2, 6)]);
    }

    proptest! {
        #[test]
        fn plans_are_bounded_and_make_progress(
            entries in proptest::collection::vec((0u8..3, 0u32..50), 0..40),
            step_tokens in 1u32..64,
            background_tokens in 1u32..64,
        ) {
            let class = |c| [Class::Request, Class::Verification, Class::Sprint][usize::from(c)];
            let entries: Vec<_> =
                (0..).zip(&entries).map(|(id, (c, pending))| Entry { id, class: class(*c), pending: *pending }).collect();
            let shares = plan(&entries, &Budget { step_tokens, background_tokens });
            let total: u32 = shares.iter().map(|s| s.tokens).sum();
            prop_assert!(total <= step_tokens + background_tokens);
            prop_assert_eq!(shares.is_empty(), entries.iter().all(|e| e.pending == 0));
            let mut seen = std::collections::HashSet::new();
            for share in &shares {
                prop_assert!(share.tokens > 0 && seen.insert(share.id));
                prop_assert!(share.tokens <= entries[share.id as usize].pending);
            }
        }

        /// Whatever arrives, whoever is there gets on: after enough steps everybody has all tokens, and a sequence that
        /// has its prompt gets a token in every step.
        #[test]
        fn nobody_starves(
            mut work in proptest::collection::vec((0u8..3, 1u32..60, 1u32..20, 0usize..40), 1..30),
            step_tokens in 32u32..64,
            background_tokens in 1u32..16,
        ) {
            let class = |c| [Class::Request, Class::Verification, Class::Sprint][usize::from(c)];
            let arrivals = work.iter().map(|w| w.3).max().unwrap();
            let total: u32 = work.iter().map(|(_, prompt, decode, _)| prompt + decode).sum();
            // Pending tokens of each, and tokens that it has yet to decode.
            for step in 0..arrivals + total as usize + 1 {
                let here: Vec<usize> = (0..work.len()).filter(|i| work[*i].3 <= step).collect();
                let entries: Vec<_> = here
                    .iter()
                    .map(|i| Entry { id: *i as u64, class: class(work[*i].0), pending: work[*i].1 })
                    .collect();
                let shares = plan(&entries, &Budget { step_tokens, background_tokens });
                for entry in entries.iter().filter(|e| e.class == Class::Request && e.pending == 1) {
                    prop_assert!(shares.iter().any(|share| share.id == entry.id), "a stream stalls");
                }
                for share in shares {
                    let (_, pending, decode, _) = &mut work[share.id as usize];
                    *pending -= share.tokens;
                    if *pending == 0 && *decode > 0 {
                        (*pending, *decode) = (1, *decode - 1);
                    }
                }
            }
            prop_assert!(work.iter().all(|(_, pending, decode, _)| (*pending, *decode) == (0, 0)), "{:?}", work);
        }
    }
}
