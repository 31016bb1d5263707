//! The check: recompute samples of what other hosts committed to.

use super::{super::URGENT_RETRY_BLOCKS, task_of, DutyError};
use crate::{
    context::{AgentContext, DutyHelpers, HelperError, SprintLeaf, VerifyItem, VerifyOutcome},
    duties::{with_sources, Duty},
};
use futures::future::BoxFuture;
use starling_chain_client::{BlockTick, HostStatus, Item, PlacedCommitment, Ticks};
use starling_math::{
    clock::{self, Phase},
    draw::{sprint_samples, sprint_score},
    judge,
};
use starling_primitives::{
    merkle,
    profile::Profile,
    replay::replay_sprint,
    sprint::{SprintTask, SprintVerdict, MAX_SPRINT_VERIFIERS},
    traits::{HostWeight, Round},
    AccountId, BlockNumber, EpochIndex, ProfileId, H256,
};
use std::collections::BTreeMap;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// Blocks before the epoch's end at which a verdict must be on its way.
const MARGIN_BLOCKS: BlockNumber = 4;
/// Places in the draw of a commitment's verifiers from which a host checks it: some are spares.
const PLACES: usize = MAX_SPRINT_VERIFIERS as usize + 8;
/// Provers that are checked at once.
const PROVERS_AT_ONCE: usize = 4;
/// Leaves that one request to a prover asks for.
const LEAVES_PER_REQUEST: usize = 64;
/// Samples that one request to an ML node carries: results of a first part count even when time runs out.
const SAMPLES_PER_VERIFICATION: usize = 16;

/// The checks of this host: one pass per epoch.
pub(in crate::duties) struct Checks {
    context: AgentContext,
    helpers: DutyHelpers,
    running: Option<(EpochIndex, AbortOnDropHandle<()>)>,
}

impl Checks {
    pub(in crate::duties) fn new(context: AgentContext, helpers: DutyHelpers) -> Self {
        Self { context, helpers, running: None }
    }

    async fn start(&mut self, tick: BlockTick) -> Result<(), DutyError> {
        let epoch = tick.epoch.index;
        if tick.phase() != Phase::Check {
            return Ok(());
        }
        if self.running.as_ref().is_some_and(|(of, _)| *of == epoch) {
            return Ok(());
        }
        let samples = samples_of(&self.context, tick).await?;
        let Some(samples) = samples else { return Ok(()) };
        tracing::info!(target: "duties::sprint", epoch, provers = samples.len(), "checking");
        let task = tokio::spawn(check_all(self.context.clone(), self.helpers.clone(), tick, samples));
        self.running = Some((epoch, AbortOnDropHandle::new(task)));
        Ok(())
    }
}

impl Duty for Checks {
    const NAME: &'static str = "sprint check";

    fn ticks(&self) -> Ticks {
        self.context.chain.subscribe_best()
    }

    fn on_block(&mut self, tick: BlockTick) -> BoxFuture<'_, Result<(), DutyError>> {
        Box::pin(self.start(tick))
    }
}

/// What the challenge gives this host to check of one commitment.
#[derive(Clone, Debug)]
struct Samples {
    placed: PlacedCommitment,
    profile: Profile,
    task: SprintTask,
    nonces: Vec<u32>,
}

/// The samples of this host. `None` as long as the challenge is not drawn; empty when it has no vote.
async fn samples_of(context: &AgentContext, tick: BlockTick) -> Result<Option<Vec<Samples>>, DutyError> {
    let epoch = tick.epoch.index;
    let view = context.chain.at(tick.hash);
    let Some(challenge) = view.seed(Round::Challenge(epoch)).await? else { return Ok(None) };
    let info = view.host(&context.host).await?;
    let serves = info.filter(|info| matches!(info.status, HostStatus::Joining | HostStatus::Active));
    let Some(serves) = serves.map(|info| info.profiles) else { return Ok(Some(Vec::new())) };
    let weights = view.weights(epoch).await?;
    let own = weights.iter().find(|entry| entry.host == context.host);
    if !weights.is_empty() && own.is_none() {
        return Ok(Some(Vec::new()));
    }
    let mut profiles: BTreeMap<ProfileId, Profile> = BTreeMap::new();
    for id in serves {
        if let Some(profile) = view.profile(id).await? {
            profiles.insert(id, profile);
        }
    }
    let mut samples = Vec::new();
    for placed in view.commitments(epoch).await? {
        let Some(profile) = profiles.get(&placed.profile) else { continue };
        if placed.host == context.host
            || !own.is_none_or(|own| counts(own, &weights, &challenge, &placed.host))
        {
            continue;
        }
        if view.sprint_verdict(epoch, placed.profile, &placed.host, &context.host).await?.is_some() {
            continue;
        }
        let Some(task) = task_of(&view, tick, &placed.host, (placed.profile, profile)).await? else {
            continue;
        };
        let most = tick.epoch.schedule.sprint_samples;
        let nonces = sprint_samples(&challenge, &placed.host, &context.host, placed.commitment.count, most);
        samples.push(Samples { profile: profile.clone(), task, nonces, placed });
    }
    Ok(Some(samples))
}

/// Whether a verdict on the prover's commitment will count, or may, should some of those be silent that are drawn before.
fn counts(own: &HostWeight, weights: &[HostWeight], challenge: &H256, prover: &AccountId) -> bool {
    let score = |entry: &HostWeight| sprint_score(challenge, prover, &entry.host, entry.weight);
    let mine = score(own);
    let others = weights.iter().filter(|entry| entry.host != *prover && entry.host != own.host);
    let before = others.filter(|entry| score(entry) > mine).take(PLACES).count();
    before < PLACES
}

/// What was found so far of one prover's samples.
#[derive(Debug, Default)]
struct Found {
    checked: u32,
    failed: u32,
    fabricated: bool,
    /// The prover answered at least once.
    reached: bool,
}

async fn check_all(context: AgentContext, helpers: DutyHelpers, tick: BlockTick, samples: Vec<Samples>) {
    let cutoff = clock::epoch_end(&tick.epoch).saturating_sub(MARGIN_BLOCKS);
    let deadline = clock::epoch_end(&tick.epoch).saturating_sub(1);
    let several = samples.len() > 1;
    let mut waiting = samples.into_iter();
    let mut running = JoinSet::new();
    let mut unreached = Vec::new();
    let mut any_reached = false;
    loop {
        while running.len() < PROVERS_AT_ONCE {
            let Some(samples) = waiting.next() else { break };
            running.spawn(check_one(context.clone(), helpers.clone(), samples, cutoff));
        }
        let Some(ended) = running.join_next().await else { break };
        let (samples, found) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!(target: "duties::sprint", %error, "a check has stopped");
                continue;
            }
        };
        any_reached |= found.reached;
        if found.reached {
            submit(&context, &samples, &found, deadline).await;
        } else {
            unreached.push((samples, found));
        }
    }
    // A host that reaches nobody is itself cut off: it abstains instead of failing everybody.
    if any_reached || !several {
        for (samples, found) in unreached {
            submit(&context, &samples, &found, deadline).await;
        }
    }
}

async fn submit(context: &AgentContext, samples: &Samples, found: &Found, deadline: BlockNumber) {
    let PlacedCommitment { host, profile, epoch, .. } = &samples.placed;
    if found.checked == 0 {
        tracing::warn!(target: "duties::sprint", epoch, profile, prover = %host, "nothing could be checked; abstaining");
        return;
    }
    let verdict =
        SprintVerdict { checked: found.checked, failed: found.failed, fabricated: found.fabricated };
    let item = Item::SprintVerdict { epoch: *epoch, profile: *profile, prover: host.clone(), verdict };
    match context.outbox.enqueue_with_retry(&item, deadline, URGENT_RETRY_BLOCKS).await {
        Ok(_) => {
            tracing::info!(target: "duties::sprint", epoch, profile, prover = %host, ?verdict, "judged");
        }
        Err(error) => {
            tracing::error!(target: "duties::sprint", error = %with_sources(&error), "a verdict cannot be queued");
        }
    }
}

/// Checks one prover's samples until all are done or the cutoff passes.
async fn check_one(
    context: AgentContext,
    helpers: DutyHelpers,
    samples: Samples,
    cutoff: BlockNumber,
) -> (Samples, Found) {
    let mut found = Found::default();
    let mut ticks = context.chain.subscribe_best();
    let work = check_samples(&context, &helpers, &samples, &mut found);
    tokio::select! {
        () = work => {}
        // Dropping the work stops it; what it found until then counts.
        () = pass(&mut ticks, cutoff) => {}
    }
    if !found.reached {
        let all = u32::try_from(samples.nonces.len()).unwrap_or(u32::MAX);
        found = Found { checked: all, failed: all, ..Found::default() };
    }
    (samples, found)
}

/// Resolves when this block is there.
async fn pass(ticks: &mut Ticks, cutoff: BlockNumber) {
    while let Some(tick) = ticks.next().await {
        if tick.number >= cutoff {
            return;
        }
    }
}

async fn check_samples(context: &AgentContext, helpers: &DutyHelpers, samples: &Samples, found: &mut Found) {
    for nonces in samples.nonces.chunks(LEAVES_PER_REQUEST) {
        let leaves = fetch(context, helpers, samples, nonces).await;
        found.reached = true;
        let mut leaves: BTreeMap<u32, SprintLeaf> =
            leaves.into_iter().map(|leaf| (leaf.nonce, leaf)).collect();
        let mut to_measure = Vec::new();
        for nonce in nonces {
            match leaves.remove(nonce).map(|leaf| replay(samples, leaf)) {
                Some(Ok(item)) => to_measure.push(item),
                Some(Err(Bad::Fabricated(reason))) => {
                    tracing::warn!(target: "duties::sprint", prover = %samples.placed.host, nonce, reason, "a sample is fabricated");
                    found.count(true);
                    found.fabricated = true;
                }
                // Missing data counts as a failed sample.
                Some(Err(Bad::NotCommitted)) | None => found.count(true),
            }
        }
        for batch in to_measure.chunks(SAMPLES_PER_VERIFICATION) {
            measure(context, helpers, samples, batch, found).await;
        }
    }
}

impl Found {
    fn count(&mut self, failed: bool) {
        self.checked = self.checked.saturating_add(1);
        self.failed = self.failed.saturating_add(failed.into());
    }
}

/// Asks the prover until it answers.
async fn fetch(
    context: &AgentContext,
    helpers: &DutyHelpers,
    samples: &Samples,
    nonces: &[u32],
) -> Vec<SprintLeaf> {
    let PlacedCommitment { host, profile, epoch, .. } = &samples.placed;
    let mut ticks = context.chain.subscribe_best();
    loop {
        match helpers.peers.fetch_sprint_leaves(host, *epoch, *profile, nonces.to_vec()).await {
            Ok(leaves) => return leaves,
            Err(HelperError::Refused(reason)) => {
                tracing::warn!(target: "duties::sprint", prover = %host, reason, "the prover does not serve its leaves");
                return Vec::new();
            }
            Err(error) => {
                tracing::debug!(target: "duties::sprint", prover = %host, %error, "asked again at the next block");
            }
        }
        wait_for_next(&mut ticks).await;
    }
}

/// Resolves at the next block after the current one.
async fn wait_for_next(ticks: &mut Ticks) {
    ticks.skip_current();
    if ticks.next().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Why a leaf fails without a model.
enum Bad {
    /// It is not what was committed to.
    NotCommitted,
    /// It was committed to and cannot be true.
    Fabricated(String),
}

fn replay(samples: &Samples, leaf: SprintLeaf) -> Result<VerifyItem, Bad> {
    let commitment = &samples.placed.commitment;
    let root = leaf.transcript.root();
    if !merkle::verify(&commitment.root, &root, leaf.nonce, commitment.count, &leaf.proof) {
        return Err(Bad::NotCommitted);
    }
    replay_sprint(&leaf.transcript, &samples.task, leaf.nonce, &root, samples.profile.top_k)
        .map_err(|error| Bad::Fabricated(with_sources(&error)))?;
    Ok(VerifyItem {
        transcript: leaf.transcript,
        prompt_tokens: samples.task.prompt(leaf.nonce),
        tape_seed: samples.task.tape_seed(leaf.nonce),
        constraint: None,
    })
}

/// Has an ML node measure samples; asks again at each block as long as none can.
async fn measure(
    context: &AgentContext,
    helpers: &DutyHelpers,
    samples: &Samples,
    batch: &[VerifyItem],
    found: &mut Found,
) {
    let mut ticks = context.chain.subscribe_best();
    let outcomes = loop {
        match helpers.verifier.verify(samples.placed.profile, batch.to_vec()).await {
            Ok(outcomes) if outcomes.len() == batch.len() => break outcomes,
            Ok(outcomes) => {
                tracing::warn!(target: "duties::sprint", asked = batch.len(), answered = outcomes.len(), "the ML node left samples out");
            }
            Err(error) => tracing::debug!(target: "duties::sprint", %error, "no ML node verifies now"),
        }
        wait_for_next(&mut ticks).await;
    };
    for outcome in outcomes {
        match outcome {
            VerifyOutcome::Measured(figures) => {
                let calibration = &samples.profile.calibration;
                found.count(!judge::passes(&figures, calibration));
                found.fabricated |= judge::fabricated(&figures, calibration);
            }
            // It replayed here; a node that disagrees says more about itself. The sample is left out.
            VerifyOutcome::ReplayFailed(reason) | VerifyOutcome::ConstraintBroken(reason) => {
                tracing::error!(target: "duties::sprint", reason, "the ML node's replay disagrees");
            }
        }
    }
}
