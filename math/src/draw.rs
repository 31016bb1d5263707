//! Draws that everybody can repeat: executors, verifiers, samples.

use alloc::{collections::BTreeSet, vec::Vec};
use starling_primitives::{
    hashing::hash_of, tape::perturbed_ln, traits::HostWeight, AccountId, RequestId, Work, H256,
};

/// Hosts prepared for many draws: `O(n)` once, then `O(log n)` each.
#[derive(Debug)]
pub struct DrawTable<'a> {
    hosts: &'a [HostWeight],
    /// Sum of the weights before each host.
    before: Vec<u128>,
    total: u128,
}

impl<'a> DrawTable<'a> {
    /// `hosts` are sorted by account, as [`starling_primitives::traits::Weights`] gives them.
    pub fn new(hosts: &'a [HostWeight]) -> Self {
        let mut total = 0u128;
        let before = hosts
            .iter()
            .map(|host| {
                let sum = total;
                total = total.saturating_add(host.weight.into());
                sum
            })
            .collect();
        Self { hosts, before, total }
    }

    /// Executor of a request at an attempt.
    ///
    /// The gateway does not run its own client's request, unless it is the only host. An attempt never draws an
    /// executor of an earlier attempt while others remain; then it starts over. `None` when there are no hosts.
    pub fn executor(
        &self,
        epoch_seed: &H256,
        request_id: &RequestId,
        attempt: u8,
        gateway: &AccountId,
    ) -> Option<&'a AccountId> {
        let gateway = self.index_of(gateway).filter(|_| self.hosts.len() > 1);
        let mut excluded: Vec<usize> = gateway.into_iter().collect();
        let mut drawn = self.draw_without(&executor_seed(epoch_seed, request_id, 0), &excluded)?;
        for attempt in 1..=attempt {
            excluded.push(drawn);
            excluded.sort_unstable();
            if excluded.len() >= self.hosts.len() {
                excluded = gateway.into_iter().collect();
            }
            drawn = self.draw_without(&executor_seed(epoch_seed, request_id, attempt), &excluded)?;
        }
        self.hosts.get(drawn).map(|host| &host.host)
    }

    /// Index of a host drawn by weight from all but `excluded` (sorted, distinct indices).
    pub(crate) fn draw_without(&self, seed: &H256, excluded: &[usize]) -> Option<usize> {
        let removed = excluded.iter().map(|&index| self.weight(index)).fold(0u128, u128::saturating_add);
        let mut point = point_below(seed, self.total.saturating_sub(removed))?;
        for &index in excluded {
            if point >= *self.before.get(index)? {
                point = point.saturating_add(self.weight(index));
            }
        }
        // The last host whose range starts at or before the point.
        self.before.partition_point(|&before| before <= point).checked_sub(1)
    }

    fn weight(&self, index: usize) -> u128 {
        self.hosts.get(index).map_or(0, |host| host.weight.into())
    }

    fn index_of(&self, host: &AccountId) -> Option<usize> {
        self.hosts.binary_search_by(|entry| entry.host.cmp(host)).ok()
    }
}

/// One host drawn by weight. `None` when the total weight is 0.
pub fn draw_weighted<'a>(seed: &H256, hosts: &'a [HostWeight]) -> Option<&'a HostWeight> {
    hosts.get(DrawTable::new(hosts).draw_without(seed, &[])?)
}

/// [`DrawTable::executor`] for a single draw.
pub fn executor(
    epoch_seed: &H256,
    request_id: &RequestId,
    attempt: u8,
    hosts: &[HostWeight],
    gateway: &AccountId,
) -> Option<AccountId> {
    DrawTable::new(hosts).executor(epoch_seed, request_id, attempt, gateway).cloned()
}

/// Hosts that a coverage window's seed names at most for a request. Where a third of the weight has fallen, the turns of one in
/// 730 requests end with nobody.
pub const COVERAGE_TURNS: u8 = 6;

/// The hosts that must verify a request nobody has verified when its coverage window closed: the first one; the next one if
/// that one has fallen (been convicted) without having looked; and so on. Distinct, each drawn by weight among the profile's
/// hosts without the executor and those drawn before it.
pub fn coverage_verifiers<'a>(
    window_seed: &H256,
    request_id: &RequestId,
    hosts: &'a [HostWeight],
    executor: &AccountId,
) -> impl Iterator<Item = &'a AccountId> {
    let table = DrawTable::new(hosts);
    let mut excluded: Vec<usize> = table.index_of(executor).into_iter().collect();
    let (window_seed, request_id) = (*window_seed, *request_id);
    (0..COVERAGE_TURNS).map_while(move |turn| {
        let seed = hash_of(b"starling/draw/coverage", &(window_seed, request_id, turn));
        let drawn = table.draw_without(&seed, &excluded)?;
        excluded.insert(excluded.partition_point(|&index| index < drawn), drawn);
        hosts.get(drawn).map(|host| &host.host)
    })
}

/// Nonces that `verifier` checks of `prover`'s commitment: distinct, ascending; all of them when there are no more than
/// `samples`.
pub fn sprint_samples(
    challenge_seed: &H256,
    prover: &AccountId,
    verifier: &AccountId,
    count: u32,
    samples: u32,
) -> Vec<u32> {
    distinct(&hash_of(b"starling/draw/sprint", &(challenge_seed, prover, verifier)), count, samples)
}

/// Score of a verifier among all that could judge `prover`'s commitment: the highest `n` scores belong to `n` distinct hosts that
/// are drawn by weight. A function of each verifier alone, so that nobody has to draw for all. In 1/2^16 nat.
pub fn sprint_score(challenge_seed: &H256, prover: &AccountId, verifier: &AccountId, weight: Work) -> i64 {
    let seed = hash_of(b"starling/draw/sprint-verifiers", &(challenge_seed, prover, verifier));
    let bits = seed.as_bytes().iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte));
    perturbed_ln(weight, bits)
}

/// Indices of the inferences whose duties are checked when `host` claims: distinct, ascending; all of them when there
/// are no more than `samples`. A function of the host and the seed only: claiming later changes nothing.
pub fn claim_samples(claim_seed: &H256, host: &AccountId, count: u32, samples: u32) -> Vec<u32> {
    distinct(&hash_of(b"starling/draw/claim", &(claim_seed, host)), count, samples)
}

fn executor_seed(epoch_seed: &H256, request_id: &RequestId, attempt: u8) -> H256 {
    hash_of(b"starling/draw/executor", &(epoch_seed, request_id, attempt))
}

/// A number below `bound` from the first 16 bytes of a hash; its bias is below `bound / 2^128`.
fn point_below(seed: &H256, bound: u128) -> Option<u128> {
    let bytes: [u8; 16] = seed.as_bytes().get(..16)?.try_into().ok()?;
    u128::from_le_bytes(bytes).checked_rem(bound)
}

/// `samples` distinct numbers below `count`, ascending (Floyd's algorithm: one hash each, no rejection).
fn distinct(seed: &H256, count: u32, samples: u32) -> Vec<u32> {
    if count <= samples {
        return (0..count).collect();
    }
    let mut chosen = BTreeSet::new();
    for last in count.saturating_sub(samples)..count {
        let bound = u128::from(last).saturating_add(1);
        let point = point_below(&hash_of(b"starling/draw/distinct", &(seed, last)), bound).unwrap_or(0);
        // The point is at most `last`, which is a u32.
        let point = u32::try_from(point).unwrap_or(last);
        if !chosen.insert(point) {
            chosen.insert(last);
        }
    }
    chosen.into_iter().collect()
}

/// Sum of the weights.
pub fn total(hosts: &[HostWeight]) -> Work {
    hosts.iter().fold(0, |sum: Work, host| sum.saturating_add(host.weight))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn account(id: u8) -> AccountId {
        AccountId::new([id; 32])
    }

    fn hosts(weights: &[u64]) -> Vec<HostWeight> {
        let entry =
            |(id, &weight): (usize, &u64)| HostWeight { host: account(id as u8), weight, reputation: 0 };
        weights.iter().enumerate().map(entry).collect()
    }

    fn seed(n: u64) -> H256 {
        hash_of(b"test", &n)
    }

    #[test]
    fn draws_follow_weight() {
        let hosts = hosts(&[1, 2, 3, 4]);
        let mut counts = [0u32; 4];
        for n in 0..20_000 {
            let drawn = draw_weighted(&seed(n), &hosts).unwrap();
            counts[hosts.iter().position(|host| host.host == drawn.host).unwrap()] += 1;
        }
        for (index, count) in counts.iter().enumerate() {
            let expected = 2_000 * (index as u32 + 1);
            // Five standard deviations of a binomial with 20,000 draws are below 350.
            assert!(count.abs_diff(expected) < 350, "{counts:?}");
        }
    }

    fn account_of(id: u16) -> AccountId {
        let mut bytes = [3; 32];
        bytes[..2].copy_from_slice(&id.to_be_bytes());
        AccountId::new(bytes)
    }

    /// Indices of the hosts with these weights whose scores for the n-th prover are the highest.
    fn verifiers(n: u64, weights: &[u64], places: usize) -> Vec<usize> {
        let score = |index: usize, weight| {
            sprint_score(&seed(n), &account_of(9_999), &account_of(index as u16), weight)
        };
        let mut scores: Vec<(i64, usize)> =
            weights.iter().enumerate().map(|(index, weight)| (score(index, *weight), index)).collect();
        scores.sort_unstable_by(|a, b| b.cmp(a));
        scores.into_iter().take(places).map(|(_, index)| index).collect()
    }

    #[test]
    fn verifiers_of_a_sprint_follow_weight() {
        let weights = [1u64 << 40, 2 << 40, 3 << 40, 4 << 40];
        let mut counts = [0u32; 4];
        for n in 0..20_000 {
            counts[verifiers(n, &weights, 1)[0]] += 1;
        }
        for (index, count) in counts.iter().enumerate() {
            assert!(count.abs_diff(2_000 * (index as u32 + 1)) < 350, "{counts:?}");
        }
    }

    #[test]
    fn a_third_of_the_weight_seldom_has_half_of_the_places() {
        // However it is split: in few heavy hosts, or in many light ones.
        let few = [vec![1_000u64; 40], vec![100; 800]].concat();
        let many = [vec![10u64; 800], vec![100; 160]].concat();
        for (weights, liars) in [(few, 40), (many, 800)] {
            let majorities = (0..300).filter(|n| {
                let places = verifiers(*n, &weights, 32);
                2 * places.iter().filter(|index| **index < liars).count() > places.len()
            });
            // A binomial of 32 with a third exceeds 16 with 1.6 %.
            assert!(majorities.count() < 15);
        }
    }

    #[test]
    fn nobody_is_drawn_from_nothing() {
        assert_eq!(draw_weighted(&seed(0), &[]), None);
        assert_eq!(executor(&seed(0), &seed(1), 0, &[], &account(0)), None);
        assert_eq!(coverage_verifiers(&seed(0), &seed(1), &hosts(&[5]), &account(0)).next(), None);
    }

    #[test]
    fn a_lone_gateway_runs_the_request_itself() {
        assert_eq!(executor(&seed(0), &seed(1), 0, &hosts(&[5]), &account(0)), Some(account(0)));
        assert_eq!(executor(&seed(0), &seed(1), 3, &hosts(&[5]), &account(0)), Some(account(0)));
    }

    proptest! {
        #[test]
        fn executor_is_never_the_gateway(weights in prop::collection::vec(1u64..1 << 48, 2..40), gateway: u8, n: u64, attempt in 0u8..8) {
            let hosts = hosts(&weights);
            let gateway = account(gateway % hosts.len() as u8);
            let drawn = executor(&seed(n), &seed(n + 1), attempt, &hosts, &gateway).unwrap();
            prop_assert_ne!(&drawn, &gateway);
            prop_assert!(hosts.iter().any(|host| host.host == drawn));
        }

        #[test]
        fn coverage_names_distinct_hosts_without_the_executor(weights in prop::collection::vec(1u64..1 << 48, 1..12), executor: u8, n in 0u64..1 << 40) {
            let hosts = hosts(&weights);
            let executor = account(executor % hosts.len() as u8);
            let named: Vec<_> = coverage_verifiers(&seed(n), &seed(n + 1), &hosts, &executor).collect();
            prop_assert_eq!(named.len(), (hosts.len() - 1).min(COVERAGE_TURNS.into()));
            prop_assert!(named.iter().all(|host| **host != executor));
            prop_assert_eq!(named.iter().collect::<BTreeSet<_>>().len(), named.len());
        }

        #[test]
        fn attempts_do_not_repeat_while_others_remain(weights in prop::collection::vec(1u64..1 << 48, 9..20), n in 0u64..1 << 40) {
            let hosts = hosts(&weights);
            let drawn: BTreeSet<_> = (0..8).map(|attempt| executor(&seed(n), &seed(n + 1), attempt, &hosts, &account(0))).collect();
            prop_assert_eq!(drawn.len(), 8);
        }

        #[test]
        fn the_fast_draw_equals_a_walk(weights in prop::collection::vec(1u64..1_000, 1..30), n: u64, skip in prop::collection::btree_set(0usize..30, 0..5)) {
            let hosts = hosts(&weights);
            let excluded: Vec<usize> = skip.into_iter().filter(|&index| index < hosts.len()).collect();
            let kept: Vec<(usize, u128)> = (0..hosts.len()).filter(|index| !excluded.contains(index)).map(|index| (index, weights[index].into())).collect();
            let expected = point_below(&seed(n), kept.iter().map(|(_, weight)| weight).sum()).and_then(|mut point| {
                kept.iter().find(|(_, weight)| { let hit = point < *weight; if !hit { point -= weight; } hit }).map(|(index, _)| *index)
            });
            prop_assert_eq!(DrawTable::new(&hosts).draw_without(&seed(n), &excluded), expected);
        }

        #[test]
        fn samples_are_distinct_and_complete(count in 0u32..5_000, samples in 0u32..300, n: u64) {
            let drawn = sprint_samples(&seed(n), &account(1), &account(2), count, samples);
            prop_assert_eq!(drawn.len() as u32, count.min(samples));
            prop_assert!(drawn.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(drawn.iter().all(|&index| index < count));
        }
    }
}
