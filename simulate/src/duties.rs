//! Verification, disputes, claims, and the way back after a conviction.

use crate::{adversaries::Seen, serving::is_live, votes, world::World};
use anyhow::{ensure, Result};
use pallet_hosts::HostStatus;
use sp_core::Pair;
use starling_math::{draw, duty, panel::Stage};
use starling_primitives::{
    fraud::FraudProof,
    hashing::hash_of,
    receipt::{Receipt, SignedReceipt},
    records::InferenceState,
    traits::{Inferences as _, Weights as _},
    verdict::{Outcome, PanelReveal, PanelRound},
    EpochIndex, InferenceId, Ppm,
};
use starling_runtime::{Inference, Rewards, Runtime, Sprint};

impl World {
    /// Hosts whose secret draws them look at what was answered in the block before.
    pub(crate) fn verify_fresh(&mut self) {
        for id in std::mem::take(&mut self.fresh) {
            for verifier in self.drawn(id) {
                self.judge(verifier, id);
            }
        }
    }

    /// Verifiers that an answer's secrets draw.
    fn drawn(&self, id: InferenceId) -> Vec<usize> {
        let (Some(asked), Some(view)) = (self.asked.get(&id), self.views.get(&id.epoch)) else {
            return Vec::new();
        };
        let executor = &self.hosts[asked.executor].keys.account;
        let entry = view.weights.iter().find(|entry| entry.host == *executor);
        let (weight, reputation) = entry.map_or((0, 0), |entry| (entry.weight, entry.reputation));
        let total = draw::total(&view.weights);
        let target: Ppm = duty::target(reputation);
        let others = view.weights.iter().filter(|entry| entry.host != *executor);
        let drawn = others.filter(|entry| {
            let secret = view.secrets[self.by_account[&entry.host]];
            secret.is_some_and(|secret| {
                duty::is_duty(&secret, &asked.task.request, target, entry.weight, total, weight)
            })
        });
        drawn.map(|entry| self.by_account[&entry.host]).collect()
    }

    /// The panels at work: their members look at the answers, commit themselves, and reveal when it is time.
    pub(crate) fn judge_disputes(&mut self) {
        self.disputes.retain(|id| votes::is_open(*id));
        for id in self.disputes.clone() {
            let Some(sitting) = votes::sitting(id) else { continue };
            for account in sitting.members {
                let member = self.by_account[&account];
                let seat = (id, sitting.round, member);
                match sitting.stage {
                    Stage::Commit if !self.sealed.contains_key(&seat) => self.commit_to(seat),
                    Stage::Reveal => {
                        if let Some(reveal) = self.sealed.remove(&seat) {
                            // A proof may have decided it in this block.
                            let _ = votes::reveal(&self.hosts[member], reveal);
                        }
                    }
                    Stage::Commit | Stage::Over => {}
                }
            }
        }
    }

    fn commit_to(&mut self, seat: (InferenceId, PanelRound, usize)) {
        let (inference, round, member) = seat;
        let Some(outcome) = self.look(member, inference) else { return };
        let salt = hash_of(b"starling/simulate/salt", &(inference, round, member as u32));
        let reveal = PanelReveal { inference, round, outcome, salt };
        // Who was suspended since the draw cannot speak.
        if votes::commit(&self.hosts[member], &reveal).is_ok() {
            self.sealed.insert(seat, reveal);
        }
    }

    /// One host looks at one answer, once; its verdict goes out with the block.
    fn judge(&mut self, verifier: usize, id: InferenceId) {
        // What is disputed is the panel's.
        if !votes::is_open(id) && self.judged.insert((id, verifier)) {
            if let Some(outcome) = self.look(verifier, id) {
                self.ballots.entry(verifier).or_default().push((id, outcome));
            }
        }
    }

    /// What a host says of an answer; and it shows a lie to the chain where it sees one.
    fn look(&mut self, verifier: usize, id: InferenceId) -> Option<Outcome> {
        let asked = self.asked.get(&id)?;
        let answer = asked.answer.as_ref()?;
        let (host, executor) = (&self.hosts[verifier], &self.hosts[asked.executor]);
        if verifier == asked.executor || !is_live(host) {
            return None;
        }
        let friend = host.befriends(executor);
        let hidden = !executor.behaviour.serves() && !friend;
        let found = if hidden { Outcome::Unavailable } else { answer.found };
        let tokens = answer.finished.completion_tokens;
        if found == Outcome::ReplayFailed && host.behaviour.proves(friend) {
            self.prove(verifier, id);
        }
        Some(self.hosts[verifier].behaviour.judge(Seen { found, friend, tokens }))
    }

    /// Shows the chain the window that does not replay, beside the executor's receipt.
    fn prove(&self, verifier: usize, id: InferenceId) {
        let asked = &self.asked[&id];
        let (Some(answer), Some(record)) = (&asked.answer, Inference::record(id)) else { return };
        let Some(evidence) = answer.evidence(&asked.task, &self.profile) else { return };
        if record.state == InferenceState::Invalid {
            return;
        }
        let executor = &self.hosts[asked.executor].keys;
        let receipt = Receipt {
            epoch: id.epoch,
            epoch_seed: asked.seed,
            executor: executor.account.clone(),
            finished: answer.finished.clone(),
        };
        let hash = receipt.signing_hash(&crate::chain::genesis_hash());
        let signature = executor.worker.sign(hash.as_bytes());
        let receipt = SignedReceipt { receipt, worker: executor.worker.public(), signature };
        // Somebody else may have shown it in this block.
        let _ = votes::prove(&self.hosts[verifier], FraudProof { inference: id, receipt, evidence });
    }

    /// Sends the verdicts.
    pub(crate) fn vote(&mut self) {
        for (verifier, verdicts) in std::mem::take(&mut self.ballots) {
            // A verifier that was convicted since has no say.
            let _ = votes::vote(&self.hosts[verifier], &verdicts);
        }
    }

    /// Every host looks at what coverage assigned to it, and at what is still disputed.
    pub(crate) fn catch_up(&mut self, epoch: Option<EpochIndex>) {
        let Some(epoch) = epoch else { return };
        let open = |index: &u32| {
            let record = Inference::record(InferenceId { epoch, index: *index });
            record.is_some_and(|r| r.first_verdict_at.is_none() || r.state == InferenceState::Disputed)
        };
        let open: Vec<u32> = (0..Inference::count(epoch)).filter(open).collect();
        for host in 0..self.hosts.len() {
            self.do_undone(host, epoch, Some(&open));
        }
        self.vote();
    }

    /// Does what a host has not done among these inferences; among those that its claim is checked by, when `None`.
    fn do_undone(&mut self, host: usize, epoch: EpochIndex, among: Option<&[u32]>) {
        let Some(secret) = self.views.get(&epoch).and_then(|view| view.secrets[host]) else { return };
        let account = &self.hosts[host].keys.account;
        let undone = match among {
            Some(among) => votes::undone(epoch, account, &secret, among),
            None => Rewards::undone_duties(epoch, account, &secret),
        };
        for index in undone {
            let id = InferenceId { epoch, index };
            // A verdict that was sent while a panel had the say was not taken.
            self.judged.remove(&(id, host));
            self.judge(host, id);
        }
    }

    /// Hosts claim the epoch that ended, after whatever they still had to do. Who sits on a panel that has begun to reveal waits for
    /// it, and tries again with the next block, as long as the epoch lasts.
    pub(crate) fn claim(&mut self, epoch: Option<EpochIndex>, last_try: bool) -> Result<()> {
        let Some(epoch) = epoch else { return Ok(()) };
        for host in 0..self.hosts.len() {
            let (emission, fees) = Rewards::claimable(epoch, &self.hosts[host].keys.account);
            if emission + fees == 0 {
                continue;
            }
            self.do_undone(host, epoch, None);
        }
        self.vote();
        for host in 0..self.hosts.len() {
            let Some(view) = self.views.get(&epoch) else { return Ok(()) };
            let claimant = &self.hosts[host];
            let due = Rewards::claimable(epoch, &claimant.keys.account);
            if due.0 + due.1 == 0 {
                continue;
            }
            let (proof, _) = claimant.duty(epoch, view.seed);
            let claimed = claimant.call(pallet_rewards::Call::<Runtime>::claim { epoch, proof });
            if claimed.is_err() {
                self.hosts[host].fate.claims_refused += 1;
                let claimant = &self.hosts[host];
                let blameless = claimant.behaviour.is_honest() && claimant.fate.convictions == 0;
                ensure!(
                    !(blameless && last_try),
                    "an honest host cannot claim epoch {epoch}: {claimed:?}; {}",
                    self.what_is_missing(host, epoch)
                );
            }
        }
        Ok(())
    }

    /// What keeps a host from its claim, for whoever has to find out why.
    fn what_is_missing(&self, host: usize, epoch: EpochIndex) -> String {
        let account = &self.hosts[host].keys.account;
        let secret = self.views.get(&epoch).and_then(|view| view.secrets[host]);
        let undone = secret.map(|secret| Rewards::undone_duties(epoch, account, &secret)).unwrap_or_default();
        let of = |index: &u32| {
            let id = InferenceId { epoch, index: *index };
            let state = Inference::record(id).map(|record| record.state);
            let stage = votes::sitting(id).map(|panel| panel.stage);
            format!("{index}: {state:?}, panel: {stage:?}")
        };
        undone.iter().map(of).collect::<Vec<_>>().join("; ")
    }

    /// Who was suspended comes back as soon as it may, with a full bond.
    pub(crate) fn settle_in(&mut self) {
        for host in &self.hosts {
            let info = pallet_hosts::Hosts::<Runtime>::get(&host.keys.account);
            let suspended = info.is_some_and(|info| info.status == HostStatus::Suspended);
            if suspended && Sprint::weight(crate::chain::epoch().index, &host.keys.account) == 0 {
                let _ = host.call_cold(pallet_hosts::Call::<Runtime>::resume {});
            }
        }
    }
}
