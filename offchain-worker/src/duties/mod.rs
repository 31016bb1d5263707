//! What the clock asks of a host. One file per duty.
//!
//! Every duty is driven by blocks and decides by the chain's state and the store alone, so it resumes wherever a
//! restart left it: nothing that matters is kept in memory only. None of them stands in the way of a request.

mod announce;
mod beacon;
mod claims;
mod expiry;
mod plants;
mod records;
mod sprint;
mod verification;

use crate::{
    context::{AgentContext, DutyHelpers, HelperError},
    store::StoreError,
};
use futures::future::BoxFuture;
use starling_chain_client::{BlockTick, ChainError, Endpoints, Keypair, OutboxError, Ticks};
use starling_math::clock;
use starling_primitives::{BlockNumber, EpochIndex};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// Blocks after which a duty call that had no effect is sent again, when its window is short.
const URGENT_RETRY_BLOCKS: BlockNumber = 2;
/// Undone duties that a claim can hand over at once.
const DEMANDS: usize = 1_024;

/// How duties are done.
#[derive(Clone, Debug)]
pub struct DutySettings {
    /// Transcripts that are fetched and verified at once.
    pub verify_concurrency: usize,
    /// Where this host is reached; `None` as long as it is not known.
    pub endpoints: watch::Receiver<Option<Endpoints>>,
    /// Clients that ask for plants, epoch by epoch in turn; none: it only looks as if it planted.
    pub plants: Vec<Keypair>,
}

/// A duty could not be done now; the next block tries again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DutyError {
    /// The chain.
    #[error("the chain could not be asked")]
    Chain(#[from] ChainError),
    /// The store.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// The outbox.
    #[error("the outbox failed")]
    Outbox(#[from] OutboxError),
    /// An ML node or another host.
    #[error("a helper failed")]
    Helper(#[from] HelperError),
}

/// Does all duties and runs the outbox, until `shutdown`.
pub async fn run(
    context: AgentContext,
    helpers: DutyHelpers,
    settings: DutySettings,
    shutdown: CancellationToken,
) {
    let outbox = context.outbox.clone();
    let runner =
        outbox.run(context.chain.clone(), context.worker.clone(), context.host.clone(), shutdown.clone());
    let mut tasks = spawn_duties(context, helpers, settings, shutdown);
    tasks.spawn(runner);
    // Each task ends by itself at the shutdown; one that panics must not go unnoticed.
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(target: "duties", %error, "a duty has stopped");
        }
    }
}

fn spawn_duties(
    context: AgentContext,
    helpers: DutyHelpers,
    settings: DutySettings,
    shutdown: CancellationToken,
) -> JoinSet<()> {
    let (demand, demands) = mpsc::channel(DEMANDS);
    let mut tasks = JoinSet::new();
    tasks.spawn(each(beacon::Beacon::new(context.clone()), shutdown.clone()));
    tasks.spawn(each(sprint::race::Races::new(context.clone(), helpers.sprint.clone()), shutdown.clone()));
    tasks.spawn(each(sprint::check::Checks::new(context.clone(), helpers.clone()), shutdown.clone()));
    tasks.spawn(each(claims::Claims::new(context.clone(), demand), shutdown.clone()));
    let plants = plants::Plants::new(context.clone(), helpers.planter.clone(), settings.plants.clone());
    tasks.spawn(each(plants, shutdown.clone()));
    tasks.spawn(each(announce::Announce::new(context.clone(), settings.endpoints.clone()), shutdown.clone()));
    tasks.spawn(each(Retention { context: context.clone(), pruned: None }, shutdown.clone()));
    tasks.spawn(records::follow(context, helpers, settings, demands, shutdown));
    tasks
}

/// A duty that acts on best blocks.
trait Duty: Send + 'static {
    /// Name in logs.
    const NAME: &'static str;

    /// The blocks it follows.
    fn ticks(&self) -> Ticks;

    /// Does what this block asks for.
    fn on_block(&mut self, tick: BlockTick) -> BoxFuture<'_, Result<(), DutyError>>;
}

async fn each<D: Duty>(mut duty: D, shutdown: CancellationToken) {
    let mut ticks = duty.ticks();
    loop {
        let tick = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            tick = ticks.next() => tick,
        };
        let Some(tick) = tick else { return };
        let done = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            done = duty.on_block(tick) => done,
        };
        if let Err(error) = done {
            tracing::warn!(target: "duties", duty = D::NAME, block = tick.number, error = %with_sources(&error), "tried again at the next block");
        }
    }
}

/// Forgets what is too old to be asked for.
struct Retention {
    context: AgentContext,
    pruned: Option<u32>,
}

impl Duty for Retention {
    const NAME: &'static str = "retention";

    fn ticks(&self) -> Ticks {
        self.context.chain.subscribe_finalized()
    }

    fn on_block(&mut self, tick: BlockTick) -> BoxFuture<'_, Result<(), DutyError>> {
        Box::pin(async move {
            if self.pruned != Some(tick.epoch.index) {
                self.context.store.prune(tick.epoch.index).await?;
                self.context.store.set_progress("epoch", tick.epoch.index).await?;
                self.pruned = Some(tick.epoch.index);
            }
            Ok(())
        })
    }
}

/// Last block at which the chain takes verdicts on an epoch's inferences, and reveals of its plants: until the epoch after it
/// ends.
fn verdicts_end(epoch: EpochIndex, tick: BlockTick) -> BlockNumber {
    let end = clock::epoch_end(&tick.epoch);
    match epoch < tick.epoch.index {
        true => end.saturating_sub(1),
        false => end.saturating_add(tick.epoch.schedule.epoch_blocks),
    }
}

/// An error with its sources, for logs.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
