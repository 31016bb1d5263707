//! A crowd of hosts under the rules alone: what up to a thousand hosts and a million host-epochs come to.
//!
//! Here the decisions of `starling-math` run without pallets: the draw of executors and the target of verifiers, the
//! judgement of figures, the sequential test with its carrying over from epoch to epoch, disputes by panels, standings,
//! reputation. Two things are simplified: the verifiers of an answer are as many as a Poisson variate with the target as
//! its mean, drawn by weight (what the draws by many secrets come to), and coverage gives an answer nobody drew one more.

use crate::calibrated::promised;
use anyhow::{Context, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Poisson};
use serde::Serialize;
use starling_math::{
    dispute::{finding, Finding, Votes},
    draw::{self, DrawTable},
    duty,
    evidence::{self, Standing},
    judge,
    panel::{self, Case, PANELS},
    reputation,
};
use starling_primitives::{
    hashing::hash_of,
    profile::Calibration,
    traits::HostWeight,
    verdict::{Figures, Outcome},
    AccountId, EpochIndex, Work, PPM,
};
use starling_runtime::configs::{FIRST_PANEL, SECOND_PANEL};
use std::collections::{BTreeMap, BTreeSet};

/// How large a crowd, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct CrowdSize {
    /// Hosts.
    pub hosts: u32,
    /// Epochs.
    pub epochs: u32,
    /// Answers of an epoch for each host, on average.
    pub answers: u32,
    /// Of these hosts' weight, in percent, verifiers that reject whatever they see.
    pub liars_percent: u32,
    /// Everything that is random follows from it.
    pub seed: u64,
}

/// What it came to.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct CrowdResult {
    /// Honest hosts times epochs.
    pub honest_host_epochs: u64,
    /// Answers judged.
    pub answers: u64,
    /// Verdicts on them.
    pub verdicts: u64,
    /// Disputes that liars opened.
    pub disputes: u64,
    /// Disputes that no side decided.
    pub undecided: u64,
    /// Answers that fell although they were good.
    pub fallen: u64,
    /// Accusations by honest verifiers' sequential tests.
    pub accusations: u64,
    /// Convictions of honest hosts.
    pub false_convictions: u64,
    /// The highest running product, in bits.
    pub highest_bits: f64,
}

/// The running state of the crowd.
struct Crowd {
    size: CrowdSize,
    calibration: Calibration,
    rng: ChaCha8Rng,
    hosts: Vec<HostWeight>,
    /// By (executor, verifier): the epoch in which it was written, and the product.
    doubts: BTreeMap<(usize, usize), (EpochIndex, u32)>,
    accusers: BTreeMap<usize, BTreeSet<usize>>,
    result: CrowdResult,
}

/// Runs a crowd whose honest figures exhaust what the calibration promises. Nobody's reputation counts, so that
/// everything is verified.
pub fn run(size: CrowdSize, calibration: Calibration) -> Result<CrowdResult> {
    let rng = ChaCha8Rng::from_seed(hash_of(b"starling/simulate/crowd", &(size.hosts, size.seed)).0);
    let mut crowd = Crowd {
        size,
        calibration,
        rng,
        hosts: Vec::new(),
        doubts: BTreeMap::new(),
        accusers: BTreeMap::new(),
        result: CrowdResult::default(),
    };
    for epoch in 0..size.epochs {
        crowd.epoch(epoch)?;
    }
    Ok(crowd.result)
}

impl Crowd {
    fn is_liar(&self, host: usize) -> bool {
        (host as u64) < u64::from(self.size.hosts) * u64::from(self.size.liars_percent) / 100
    }

    fn epoch(&mut self, epoch: EpochIndex) -> Result<()> {
        self.weigh();
        self.accusers.clear();
        let honest = (0..self.hosts.len()).filter(|host| !self.is_liar(*host)).count();
        self.result.honest_host_epochs += honest as u64;
        let seed = hash_of(b"starling/simulate/epoch", &(self.size.seed, epoch));
        let hosts = std::mem::take(&mut self.hosts);
        let table = DrawTable::new(&hosts);
        for n in 0..self.size.hosts * self.size.answers {
            let request = hash_of(b"starling/simulate/request", &(self.size.seed, epoch, n));
            let gateway = self.rng.random_range(0..hosts.len());
            let executor =
                table.executor(&seed, &request, 0, &hosts[gateway].host).context("hosts have weight")?;
            let executor = index_of(&hosts, executor);
            self.answer(epoch, &hosts, executor)?;
        }
        self.hosts = hosts;
        Ok(())
    }

    /// Weights that vary as races do, and reputations that nobody has.
    fn weigh(&mut self) {
        let host = |n: u32| AccountId::new(hash_of(b"starling/simulate/host", &n).0);
        let mut hosts: Vec<HostWeight> = (0..self.size.hosts)
            .map(|n| HostWeight {
                host: host(n),
                weight: Work::from(self.rng.random_range(9_900..=10_100u32)),
                reputation: reputation::after_conviction(),
            })
            .collect();
        hosts.sort_by(|a, b| a.host.cmp(&b.host));
        self.hosts = hosts;
    }

    fn answer(&mut self, epoch: EpochIndex, hosts: &[HostWeight], executor: usize) -> Result<()> {
        if self.is_liar(executor) {
            return Ok(());
        }
        self.result.answers += 1;
        let figures = promised(64, &self.calibration, &mut self.rng);
        let target = f64::from(duty::target(hosts[executor].reputation)) / f64::from(PPM);
        let drawn: f64 = Poisson::new(target)?.sample(&mut self.rng);
        let mut verifiers = BTreeSet::new();
        while verifiers.len() < (drawn as usize).max(1).min(hosts.len() - 1) {
            let seed = hash_of(b"starling/simulate/verifier", &self.rng.random::<u64>());
            let verifier = draw::draw_weighted(&seed, hosts).context("hosts have weight")?;
            let verifier = index_of(hosts, &verifier.host);
            if verifier != executor {
                verifiers.insert(verifier);
            }
        }
        let mut accuser = None;
        for verifier in verifiers {
            self.result.verdicts += 1;
            if self.is_liar(verifier) {
                accuser = Some(verifier);
            } else {
                self.weigh_in(epoch, hosts, (executor, verifier), &figures);
            }
        }
        if let Some(accuser) = accuser {
            self.dispute(hosts, (executor, accuser), &figures);
        }
        Ok(())
    }

    /// A panel votes, and a larger one if it has no majority: liars against the answer, the others as they measure.
    fn dispute(&mut self, hosts: &[HostWeight], (executor, accuser): (usize, usize), figures: &Figures) {
        self.result.disputes += 1;
        let passes = judge::passes(figures, &self.calibration);
        let parties = [executor, accuser].map(|host| hosts[host].host.clone());
        let request_id = hash_of(b"starling/simulate/dispute", &self.rng.random::<u64>());
        for (round, size) in (0..PANELS).zip([FIRST_PANEL, SECOND_PANEL]) {
            let seed = hash_of(b"starling/simulate/panel", &self.rng.random::<u64>());
            let case = Case { request_id: &request_id, round, parties: &parties };
            let members = panel::draw(&seed, &case, hosts, size, |_| true);
            let outcome = Outcome::Measured(*figures);
            let votes = members.iter().fold(Votes::default(), |votes, member| {
                let passed = passes && !self.is_liar(index_of(hosts, &member.host));
                votes.with(&outcome, passed, member.weight)
            });
            match finding(&votes, draw::total(&members), true) {
                Finding::Valid => return,
                Finding::Undecided => {}
                Finding::Hidden | Finding::Invalid => {
                    self.result.fallen += 1;
                    self.result.false_convictions += 1;
                    return;
                }
            }
        }
        self.result.undecided += 1;
    }

    /// One verdict enters its verifier's running product; what was written before the last epoch is forgotten.
    fn weigh_in(
        &mut self,
        epoch: EpochIndex,
        hosts: &[HostWeight],
        (executor, verifier): (usize, usize),
        figures: &Figures,
    ) {
        let Some(bits) = evidence::bits(figures, &self.calibration) else { return };
        let place = (executor, verifier);
        let known = self.doubts.remove(&place).filter(|(written, _)| written + 1 >= epoch);
        let sum = evidence::step(known.map_or(0, |(_, sum)| sum), bits);
        self.result.highest_bits = self.result.highest_bits.max(f64::from(sum) / f64::from(evidence::UNIT));
        if sum < evidence::ACCUSES {
            if sum > 0 {
                self.doubts.insert(place, (epoch, sum));
            }
            return;
        }
        self.result.accusations += 1;
        let accusers = self.accusers.entry(executor).or_default();
        accusers.insert(verifier);
        let accusing = accusers.iter().map(|host| hosts[*host].weight).sum();
        let eligible = draw::total(hosts).saturating_sub(hosts[executor].weight);
        if evidence::standing(accusing, eligible) == Standing::Convicted {
            self.result.false_convictions += 1;
        }
    }
}

fn index_of(hosts: &[HostWeight], host: &AccountId) -> usize {
    hosts.binary_search_by(|entry| entry.host.cmp(host)).expect("drawn from these")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_crowd_spares_everybody_and_repeats_itself() {
        let size = CrowdSize { hosts: 20, epochs: 30, answers: 3, liars_percent: 33, seed: 1 };
        let calibration = Calibration { distance_limit: 20, margin_limit: 20, short_allowance: 640 };
        let result = run(size, calibration).expect("it runs");
        assert_eq!((result.false_convictions, result.fallen, result.undecided), (0, 0, 0));
        assert!(result.disputes > 100 && result.verdicts > result.answers, "{result:?}");
        let again = run(size, calibration).expect("it runs");
        assert_eq!(format!("{result:?}"), format!("{again:?}"));
    }
}
