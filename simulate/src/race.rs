//! The beacon's contributions, and the sprint: what hosts commit to, and what verifiers find in their samples.

use crate::{adversaries::Leaf, chain, serving::is_live, world::World};
use pallet_sprint::{types::MAX_VERDICTS_PER_CALL, Call};
use rand::Rng;
use starling_math::draw;
use starling_primitives::{
    sprint::{SprintCommitment, SprintVerdict},
    traits::{Beacon as _, Round},
    AccountId, EpochIndex, H256, PPM,
};
use starling_runtime::{Beacon, Runtime};

/// Verifiers of each commitment. The chain keeps as many verdicts, those of the heaviest.
const VOTERS: usize = 32;
/// How much a host's speed varies from race to race, in ppm.
const JITTER: u32 = 10_000;

impl World {
    /// Everybody contributes to the next epoch's seed.
    pub(crate) fn contribute(&self, epoch: EpochIndex) {
        for host in self.hosts.iter().filter(|host| is_live(host)) {
            let proof = host.contribution(epoch);
            // Who has no weight has no part in it.
            let _ = host.call(pallet_beacon::Call::<Runtime>::contribute { epoch, proof });
        }
    }

    /// Everybody that may commits to what it did in the race.
    pub(crate) fn commit(&mut self) {
        for host in &self.hosts {
            let count = u64::from(host.behaviour.races(host.capacity));
            let jitter = u64::from(self.rng.random_range(PPM - JITTER..=PPM + JITTER));
            let count = (count * jitter / u64::from(PPM)).max(1) as u32;
            let commitment = SprintCommitment { root: H256::repeat_byte(1), count };
            let _ = host.call(Call::<Runtime>::commit { profile: 0, commitment });
        }
    }

    /// The heaviest hosts check the commitments by the challenge's samples.
    pub(crate) fn check_sprint(&mut self, epoch: EpochIndex) {
        let Some(challenge) = Beacon::seed(Round::Challenge(epoch)) else { return };
        let mut commitments: Vec<(AccountId, u32)> =
            pallet_sprint::Commitments::<Runtime>::iter_prefix(epoch)
                .map(|((_, host), commitment)| (host, commitment.count))
                .collect();
        commitments.sort_unstable();
        for verifier in self.voters(epoch) {
            let mut verdicts = Vec::new();
            for (prover, count) in &commitments {
                let prover = self.by_account[prover];
                if prover != verifier {
                    verdicts.push(self.sprint_verdict(&challenge, verifier, (prover, *count)));
                }
            }
            for part in verdicts.chunks(MAX_VERDICTS_PER_CALL as usize) {
                let verdicts = part.to_vec().try_into().expect("a part is no longer than a batch");
                let _ = self.hosts[verifier].call(Call::<Runtime>::submit_verdicts { profile: 0, verdicts });
            }
        }
    }

    /// Hosts that vote, the heaviest first; anybody while nobody has weight.
    fn voters(&self, epoch: EpochIndex) -> Vec<usize> {
        let mut weights = self.views.get(&epoch).map(|view| view.weights.clone()).unwrap_or_default();
        weights.sort_by(|a, b| b.weight.cmp(&a.weight).then(a.host.cmp(&b.host)));
        let heaviest = weights.iter().map(|entry| self.by_account[&entry.host]);
        let all = 0..self.hosts.len();
        if weights.is_empty() {
            all.take(VOTERS + 1).collect()
        } else {
            heaviest.take(VOTERS + 1).collect()
        }
    }

    fn sprint_verdict(
        &mut self,
        challenge: &H256,
        verifier: usize,
        (prover, count): (usize, u32),
    ) -> (AccountId, SprintVerdict) {
        let samples = chain::epoch().schedule.sprint_samples;
        let (host, judge) = (&self.hosts[prover], &self.hosts[verifier]);
        let account = host.keys.account.clone();
        let mut found = SprintVerdict { checked: count.min(samples), failed: 0, fabricated: false };
        // An honest host's leaves are all good: drawing the samples would change nothing.
        if !host.behaviour.is_honest() {
            for nonce in draw::sprint_samples(challenge, &account, &judge.keys.account, count, samples) {
                let leaf = host.behaviour.leaf(nonce);
                found.failed += u32::from(leaf != Leaf::Good);
                found.fabricated |= leaf == Leaf::Fabricated;
            }
        }
        let friend = judge.befriends(host);
        (account, self.hosts[verifier].behaviour.judge_sprint(friend, found))
    }
}
