//! The beacon's contributions, and the sprint: what hosts commit to, and what verifiers find in their samples.

use crate::{adversaries::Leaf, chain, serving::is_live, world::World};
use pallet_sprint::{types::MAX_VERDICTS_PER_CALL, Call};
use rand::Rng;
use starling_math::draw;
use starling_primitives::{
    sprint::{SprintCommitment, SprintVerdict, MAX_SPRINT_VERIFIERS},
    traits::{Beacon as _, Round},
    AccountId, EpochIndex, Work, H256, PPM,
};
use starling_runtime::{Beacon, Runtime};

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

    /// The hosts that are drawn check the commitments by the challenge's samples, and one spare each.
    pub(crate) fn check_sprint(&mut self, epoch: EpochIndex) {
        let Some(challenge) = Beacon::seed(Round::Challenge(epoch)) else { return };
        let mut commitments: Vec<(AccountId, u32)> =
            pallet_sprint::Commitments::<Runtime>::iter_prefix(epoch)
                .map(|((_, host), commitment)| (host, commitment.count))
                .collect();
        commitments.sort_unstable();
        let mut duties: Vec<Vec<(usize, u32)>> = vec![Vec::new(); self.hosts.len()];
        let voters = self.voters(epoch);
        for (account, count) in commitments {
            let prover = self.by_account[&account];
            for verifier in self.sprint_verifiers(&challenge, &account, &voters) {
                duties[verifier].push((prover, count));
            }
        }
        for (verifier, provers) in duties.into_iter().enumerate() {
            let mut verdicts = Vec::new();
            for prover in provers {
                verdicts.push(self.sprint_verdict(&challenge, verifier, prover));
            }
            for part in verdicts.chunks(MAX_VERDICTS_PER_CALL as usize) {
                let verdicts = part.to_vec().try_into().expect("a part is no longer than a batch");
                let _ = self.hosts[verifier].call(Call::<Runtime>::submit_verdicts { profile: 0, verdicts });
            }
        }
    }

    /// Hosts that may vote, with the weights of their votes; all alike while nobody has weight.
    fn voters(&self, epoch: EpochIndex) -> Vec<(usize, Work)> {
        let weights = self.views.get(&epoch).map(|view| view.weights.clone()).unwrap_or_default();
        if weights.is_empty() {
            return (0..self.hosts.len()).map(|host| (host, 1)).collect();
        }
        weights.iter().map(|entry| (self.by_account[&entry.host], entry.weight)).collect()
    }

    /// Who judges a prover's commitment.
    fn sprint_verifiers(&self, challenge: &H256, prover: &AccountId, voters: &[(usize, Work)]) -> Vec<usize> {
        let others = voters.iter().filter(|(host, _)| self.hosts[*host].keys.account != *prover);
        let mut scores: Vec<(i64, usize)> = others
            .map(|(host, weight)| {
                let account = &self.hosts[*host].keys.account;
                (draw::sprint_score(challenge, prover, account, *weight), *host)
            })
            .collect();
        scores.sort_unstable_by(|a, b| b.cmp(a));
        scores.into_iter().take(MAX_SPRINT_VERIFIERS as usize + 1).map(|(_, host)| host).collect()
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
