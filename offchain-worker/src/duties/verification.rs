//! Verification: check what other hosts executed, where the secret, a coverage window or a dispute says so.
//!
//! What is a duty is decided by the same functions and the same stored data as on chain. A check fetches transcript and
//! prompt from the executor, replays them against what is on chain, and has an ML node of this host measure them.
//! Checks run behind requests, a few at a time.

mod contests;
mod coverage;
mod fraud;
mod panels;

use super::{verdicts_end, with_sources, DutyError};
use crate::context::{
    self, AgentContext, DutyHelpers, EndTokens, HelperError, Peers, Verifier, VerifyItem, VerifyOutcome,
};
use coverage::Coverage;
use panels::Seat;
use starling_chain_client::{BlockTick, ChainView, Item, PlacedRecord};
use starling_math::{draw, duty, judge};
use starling_primitives::{
    constraint::check_bound,
    fraud::FraudProof,
    profile::Profile,
    records::{Finished, InferenceRecord},
    replay::{replay_with, Checks},
    tape::tape_seed,
    traits::{HostWeight, Round},
    verdict::{Outcome, PanelRound, Verdict},
    vrf::VrfInput,
    AccountId, BlockNumber, EpochIndex, InferenceId, ProfileId, H256, PPM,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};
use tokio::task::JoinSet;

/// Attempts to fetch a transcript before it counts as unavailable, whatever time has passed.
const MIN_ATTEMPTS: u32 = 3;

/// What decides the duties of one epoch.
struct EpochDuties {
    seed: H256,
    /// This host's secret of the epoch.
    secret: H256,
    /// Weights by profile; frozen for the epoch.
    juries: HashMap<ProfileId, Vec<HostWeight>>,
    /// What coverage may assign.
    coverage: Coverage,
    /// Inferences that have this host's verdict, or that are no duty for good.
    done: BTreeSet<u32>,
    /// Schedule's time to serve a transcript.
    patience: BlockNumber,
}

/// A check that is to be made.
#[derive(Clone, Debug)]
struct Job {
    first_try: BlockNumber,
    next_try: BlockNumber,
    attempts: u32,
    running: bool,
    /// A claim waits for it: `Unavailable` need not wait.
    demanded: bool,
    /// `Unavailable` was said; a later success replaces it.
    given_up: bool,
    /// Draw, window or claim ask for this host's verdict, and not a panel alone.
    owed: bool,
    /// A panel waits for it.
    seat: Option<Seat>,
    /// This host approved it, and it was revealed as a plant: is it good after all?
    contested: bool,
}

/// What a check came to.
enum Checked {
    /// A verdict.
    Outcome {
        outcome: Outcome,
        /// Whether it lies within the limits.
        passes: bool,
        /// Makes the answer fall without a vote.
        proof: Option<Box<FraudProof>>,
    },
    /// The executor does not serve it, for now.
    NotServed(HelperError),
    /// This host cannot check it, for now.
    NotNow(String),
    /// There is nothing to check.
    Moot,
}

pub(super) struct Verification {
    context: AgentContext,
    helpers: DutyHelpers,
    concurrency: usize,
    tick: Option<BlockTick>,
    epochs: BTreeMap<EpochIndex, EpochDuties>,
    finished: Vec<PlacedRecord>,
    demanded: Vec<InferenceId>,
    jobs: BTreeMap<InferenceId, Job>,
    /// Panels that know, or will know, what this host found.
    votes: BTreeSet<(InferenceId, PanelRound)>,
    /// Revealed plants that were looked at, if this host had approved them.
    plants: BTreeSet<InferenceId>,
    running: JoinSet<(InferenceId, Result<Checked, DutyError>)>,
    ended: Vec<(InferenceId, Result<Checked, DutyError>)>,
}

impl Verification {
    pub(super) fn new(context: AgentContext, helpers: DutyHelpers, concurrency: usize) -> Self {
        Self {
            context,
            helpers,
            concurrency: concurrency.max(1),
            tick: None,
            epochs: BTreeMap::new(),
            finished: Vec::new(),
            demanded: Vec::new(),
            jobs: BTreeMap::new(),
            votes: BTreeSet::new(),
            plants: BTreeSet::new(),
            running: JoinSet::new(),
            ended: Vec::new(),
        }
    }

    /// Loads what decides the duties of the epochs that are open at this block.
    pub(super) async fn enter(&mut self, view: &ChainView, tick: BlockTick) -> Result<(), DutyError> {
        self.tick = Some(tick);
        let first = tick.epoch.index.saturating_sub(1);
        self.epochs.retain(|epoch, _| *epoch >= first);
        self.jobs.retain(|id, _| id.epoch >= first);
        self.votes.retain(|(id, _)| id.epoch >= first);
        self.plants.retain(|id| id.epoch >= first);
        for epoch in first..=tick.epoch.index {
            if self.epochs.contains_key(&epoch) {
                continue;
            }
            let Some(seed) = view.seed(Round::Epoch(epoch)).await? else { continue };
            let (_, secret) = self.context.worker.vrf(&VrfInput::Duty(self.context.genesis, epoch, seed));
            let mut done = BTreeSet::new();
            for (index, outcome) in self.context.store.verified(epoch).await? {
                // What was found before a crash may not have reached the outbox; to queue it twice does no harm.
                self.submit(InferenceId { epoch, index }, outcome, tick).await?;
                if outcome != Outcome::Unavailable {
                    done.insert(index);
                }
            }
            for vote in self.context.store.panel_votes(epoch).await? {
                self.queue_vote(&vote, tick).await?;
            }
            let duties = EpochDuties {
                seed,
                secret,
                juries: HashMap::new(),
                coverage: Coverage::default(),
                done,
                patience: tick.epoch.schedule.expiry_blocks,
            };
            self.epochs.insert(epoch, duties);
        }
        Ok(())
    }

    /// Takes newly finished records; [`Self::on_block`] decides about them.
    pub(super) fn consider(&mut self, finished: Vec<PlacedRecord>) {
        let host = &self.context.host;
        self.finished.extend(finished.into_iter().filter(|placed| placed.record.executor != *host));
    }

    /// Finds the duties of this block, and starts checks.
    pub(super) async fn on_block(&mut self, view: &ChainView, tick: BlockTick) -> Result<(), DutyError> {
        while let Some(placed) = self.finished.last() {
            let (id, record) = (placed.id, placed.record.clone());
            self.draw(view, id, &record).await?;
            self.finished.pop();
        }
        let best = self.context.chain.best()?;
        for epoch in self.epochs.keys().copied().collect::<Vec<_>>() {
            self.cover(view, epoch, tick).await?;
            self.join_panels(&best, epoch, tick).await?;
        }
        self.take_demands();
        self.start_jobs().await
    }

    /// A claim waits for this verdict.
    pub(super) async fn demand(&mut self, id: InferenceId) -> Result<(), DutyError> {
        self.demanded.push(id);
        self.take_demands();
        self.start_jobs().await
    }

    /// Turns demands into checks, once the first block is known.
    fn take_demands(&mut self) {
        let Some(tick) = self.tick else { return };
        for id in std::mem::take(&mut self.demanded) {
            if let Some(duties) = self.epochs.get_mut(&id.epoch) {
                // The chain says that it is undone, whatever is remembered here.
                duties.done.remove(&id.index);
            }
            let job = self.jobs.entry(id).or_insert_with(|| Job::new(tick.number));
            job.demanded = true;
            job.owed = true;
            if !job.running {
                job.next_try = tick.number;
            }
        }
    }

    /// Resolves when a check has ended; pends while none runs.
    pub(super) async fn job_ended(&mut self) {
        match self.running.join_next().await {
            Some(Ok(ended)) => self.ended.push(ended),
            Some(Err(error)) => {
                tracing::error!(target: "duties::verification", %error, "a check has stopped")
            }
            None => std::future::pending().await,
        }
    }

    /// Takes the results of ended checks, and starts as many as there is room for.
    pub(super) async fn start_jobs(&mut self) -> Result<(), DutyError> {
        let Some(tick) = self.tick else { return Ok(()) };
        while let Some((id, result)) = self.ended.pop() {
            self.take_result(id, result, tick).await?;
        }
        let room = self.concurrency.saturating_sub(self.running.len());
        let due: Vec<InferenceId> = self
            .jobs
            .iter()
            .filter(|(_, job)| !job.running && job.next_try <= tick.number)
            .map(|(id, _)| *id)
            .take(room)
            .collect();
        for id in due {
            let Some(duties) = self.epochs.get(&id.epoch) else { continue };
            if let Some(job) = self.jobs.get_mut(&id) {
                job.running = true;
                job.attempts = job.attempts.saturating_add(1);
            }
            let check = Check {
                context: self.context.clone(),
                peers: self.helpers.peers.clone(),
                verifier: self.helpers.verifier.clone(),
                end_tokens: self.helpers.end_tokens.clone(),
                id,
                epoch_seed: duties.seed,
            };
            self.running.spawn(async move { (id, check.run().await) });
        }
        Ok(())
    }

    fn add_job(&mut self, id: InferenceId, tick: BlockTick) {
        if self.epochs.get(&id.epoch).is_some_and(|duties| !duties.done.contains(&id.index)) {
            self.jobs.entry(id).or_insert_with(|| Job::new(tick.number)).owed = true;
        }
    }

    /// The weights of a profile in an epoch.
    async fn jury(
        &mut self,
        view: &ChainView,
        epoch: EpochIndex,
        profile: ProfileId,
    ) -> Result<&[HostWeight], DutyError> {
        let Some(duties) = self.epochs.get_mut(&epoch) else { return Ok(&[]) };
        if let std::collections::hash_map::Entry::Vacant(entry) = duties.juries.entry(profile) {
            entry.insert(view.weights_of_profile(epoch, profile).await?);
        }
        Ok(duties.juries.get(&profile).map(Vec::as_slice).unwrap_or_default())
    }

    /// Whether the secret draws this host for a newly finished inference.
    async fn draw(
        &mut self,
        view: &ChainView,
        id: InferenceId,
        record: &InferenceRecord,
    ) -> Result<(), DutyError> {
        let host = self.context.host.clone();
        let Some(tick) = self.tick else { return Ok(()) };
        let jury = self.jury(view, id.epoch, record.profile).await?;
        let Some(own) = member(jury, &host).map(|own| own.weight) else { return Ok(()) };
        let executor = member(jury, &record.executor).cloned();
        let total = draw::total(jury);
        let reputation = executor.as_ref().map_or(0, |executor| executor.reputation);
        let Some(duties) = self.epochs.get_mut(&id.epoch) else { return Ok(()) };
        let drawn = duty::is_duty(
            &duties.secret,
            &record.request_id,
            duty::target(reputation),
            own,
            total,
            executor.map_or(0, |executor| executor.weight),
        );
        if drawn {
            self.add_job(id, tick);
        } else if reputation < PPM {
            duties.coverage.consider(id.index, record);
        }
        Ok(())
    }

    async fn take_result(
        &mut self,
        id: InferenceId,
        result: Result<Checked, DutyError>,
        tick: BlockTick,
    ) -> Result<(), DutyError> {
        let Some(duties) = self.epochs.get_mut(&id.epoch) else { return Ok(()) };
        let patience = duties.patience;
        let Some(job) = self.jobs.get_mut(&id) else { return Ok(()) };
        job.running = false;
        let waited = tick.number.saturating_sub(job.first_try);
        match result {
            Ok(Checked::Outcome { passes, .. }) if job.contested => self.contest(id, passes, tick).await?,
            Ok(Checked::Outcome { outcome, proof, .. }) => {
                // Before the outcome: should the process die in between, the next one checks again and finds it again.
                if let Some(proof) = proof {
                    let item = Item::ProveFraud(proof);
                    self.context.outbox.enqueue(&item, verdicts_end(id.epoch, tick)).await?;
                }
                // Durable before it is said: should the process die here, the next one says it.
                self.context.store.put_verified(id, &outcome).await?;
                duties.done.insert(id.index);
                let seat = self.jobs.remove(&id).and_then(|job| job.seat);
                if let Some(seat) = seat {
                    self.vote(id, seat.round, outcome, tick).await?;
                }
                // While a panel judges this waits; and if this host's reveal is on chain, it is said.
                self.submit(id, outcome, tick).await?;
                tracing::info!(target: "duties::verification", epoch = id.epoch, index = id.index, ?outcome, "checked");
            }
            Ok(Checked::Moot) => {
                duties.done.insert(id.index);
                self.jobs.remove(&id);
            }
            Ok(Checked::NotServed(error)) => {
                let tried = job.attempts >= MIN_ATTEMPTS;
                let out_of_time = waited >= patience || job.demanded;
                let give_up = job.owed && !job.given_up && tried && out_of_time;
                job.given_up |= give_up;
                let panel = job.seat.take_if(|seat| tried && tick.number >= seat.patient_until);
                if job.contested && tried {
                    return self.contest_unseen(id, tick).await;
                }
                let over = !job.owed && job.seat.is_none() && !job.contested;
                // After `Unavailable`, now and then: a measured verdict still replaces it.
                let pause = if job.given_up && job.seat.is_none() { patience } else { 1 };
                job.next_try = tick.number.saturating_add(pause.max(1));
                if give_up {
                    tracing::warn!(target: "duties::verification", epoch = id.epoch, index = id.index, %error, "the executor does not serve it");
                    self.context.store.put_verified(id, &Outcome::Unavailable).await?;
                    self.submit(id, Outcome::Unavailable, tick).await?;
                }
                if over {
                    self.jobs.remove(&id);
                }
                if let Some(seat) = panel {
                    self.vote(id, seat.round, Outcome::Unavailable, tick).await?;
                }
            }
            Ok(Checked::NotNow(reason)) => {
                job.next_try = tick.number.saturating_add(1);
                tracing::debug!(target: "duties::verification", epoch = id.epoch, index = id.index, reason, "later");
            }
            Err(error) => {
                job.next_try = tick.number.saturating_add(1);
                tracing::debug!(target: "duties::verification", epoch = id.epoch, index = id.index, error = %with_sources(&error), "later");
            }
        }
        Ok(())
    }

    async fn submit(&self, id: InferenceId, outcome: Outcome, tick: BlockTick) -> Result<(), DutyError> {
        let item = Item::Verdict(Verdict { inference: id, outcome });
        self.context.outbox.enqueue(&item, verdicts_end(id.epoch, tick)).await?;
        Ok(())
    }
}

impl Job {
    fn new(now: BlockNumber) -> Self {
        Self {
            first_try: now,
            next_try: now,
            attempts: 0,
            running: false,
            demanded: false,
            given_up: false,
            owed: false,
            seat: None,
            contested: false,
        }
    }
}

fn member<'a>(jury: &'a [HostWeight], host: &AccountId) -> Option<&'a HostWeight> {
    let position = jury.binary_search_by(|entry| entry.host.cmp(host)).ok()?;
    jury.get(position)
}

/// One check of one inference.
struct Check {
    context: AgentContext,
    peers: Arc<dyn Peers>,
    verifier: Arc<dyn Verifier>,
    end_tokens: Arc<dyn EndTokens>,
    id: InferenceId,
    epoch_seed: H256,
}

impl Check {
    async fn run(self) -> Result<Checked, DutyError> {
        let view = self.context.chain.finalized()?;
        let Some(record) = view.inference(self.id).await? else { return Ok(Checked::Moot) };
        let Some(result) = record.result.clone() else { return Ok(Checked::Moot) };
        let Some(profile) = view.profile(record.profile).await? else { return Ok(Checked::Moot) };
        if !self.verifier.serves(record.profile).await {
            return Ok(Checked::NotNow("no ML node has the profile loaded".into()));
        }
        let end_tokens = match self.end_tokens.end_tokens(&profile).await {
            Ok(end_tokens) => end_tokens,
            Err(error) => return Ok(Checked::NotNow(error.to_string())),
        };
        let served = match self.peers.fetch_transcript(&record.executor, record.request_id).await {
            Ok(served) => served,
            Err(error) => return Ok(Checked::NotServed(error)),
        };
        let expected = Finished {
            request_id: record.request_id,
            response_hash: result.response_hash,
            transcript_root: result.transcript_root,
            prompt_tokens: result.prompt_tokens,
            completion_tokens: result.completion_tokens,
        };
        let tape_seed = tape_seed(&self.epoch_seed, &record.request_id);
        let context::ServedTranscript { transcript, prompt_tokens, constraint, receipt } = served;
        let accused = fraud::Accused {
            id: self.id,
            executor: &record.executor,
            epoch_seed: self.epoch_seed,
            finished: &expected,
            profile: (record.profile, &profile),
        };
        let proof = accused.prove(&view, self.context.genesis, receipt, &transcript).await?;
        let item = VerifyItem { transcript, prompt_tokens, tape_seed, constraint };
        let checked = match replayed(&item, &expected, (record.profile, &profile), &end_tokens) {
            Ok(()) => measure(&*self.verifier, record.profile, item).await,
            Err(error) => {
                tracing::warn!(target: "duties::verification", epoch = self.id.epoch, index = self.id.index, executor = %record.executor, error, "the transcript does not replay");
                Ok(Outcome::ReplayFailed)
            }
        };
        let passes = |outcome: &Outcome| matches!(outcome, Outcome::Measured(figures) if judge::passes(figures, &profile.calibration));
        Ok(match checked {
            Ok(outcome) => Checked::Outcome { passes: passes(&outcome), outcome, proof },
            Err(reason) => Checked::NotNow(reason),
        })
    }
}

/// Everything that can be said without a model. A re-hashed prompt, the tokens' count, every window, every draw; and that
/// the answer ends where the model ended it: whoever goes on sells tokens that nobody asked for.
fn replayed(
    item: &VerifyItem,
    expected: &Finished,
    (id, profile): (ProfileId, &Profile),
    end_tokens: &[u32],
) -> Result<(), String> {
    if item.transcript.header.profile != id {
        return Err("the header names another profile".into());
    }
    check_bound(item.constraint.as_ref(), &item.transcript.header, profile.vocab_size)
        .map_err(|error| error.to_string())?;
    let checks = Checks {
        prompt: Some(&item.prompt_tokens),
        vocab_size: Some(profile.vocab_size),
        top_k: Some(profile.top_k),
    };
    let replayed = replay_with(&item.transcript, &item.tape_seed, expected, &checks)
        .map_err(|error| with_sources(&error))?;
    let before_last = replayed.tokens.split_last().map(|(_, before)| before).unwrap_or_default();
    match before_last.iter().any(|token| end_tokens.binary_search(token).is_ok()) {
        true => Err("the answer goes on after its end".into()),
        false => Ok(()),
    }
}

/// What an ML node of this host finds, or why none can say now.
async fn measure(verifier: &dyn Verifier, profile: ProfileId, item: VerifyItem) -> Result<Outcome, String> {
    let outcomes = verifier.verify(profile, vec![item]).await.map_err(|error| error.to_string())?;
    match outcomes.into_iter().next() {
        Some(VerifyOutcome::Measured(figures)) => Ok(Outcome::Measured(figures)),
        // Two replays of the same bytes cannot disagree; the node is not what it should be.
        Some(VerifyOutcome::ReplayFailed(reason)) => Err(format!("the ML node's replay disagrees: {reason}")),
        Some(VerifyOutcome::ConstraintBroken(reason)) => {
            tracing::warn!(target: "duties::verification", reason, "the answer does not keep to its constraint");
            Ok(Outcome::ReplayFailed)
        }
        None => Err("the ML node gave no answer".into()),
    }
}
