//! The race: work through nonces until the deadline, then commit to what is done.

use super::{super::URGENT_RETRY_BLOCKS, queue::NonceQueue, task_of, DutyError};
use crate::{
    context::{AgentContext, SprintResult, SprintRunner},
    duties::{with_sources, Duty},
};
use futures::future::BoxFuture;
use starling_chain_client::{BlockTick, HostStatus, Item, Ticks};
use starling_math::clock::{self, Phase};
use starling_primitives::{
    merkle,
    sprint::{SprintCommitment, SprintTask, MAX_SPRINT_COUNT},
    EpochIndex, ProfileId,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// How often the race asks for ML nodes that came (back) to life.
const NODES_INTERVAL: Duration = Duration::from_millis(500);
/// Results on their way from the ML nodes to the store.
const RESULTS: usize = 256;
/// Results that one transaction of the store takes.
const RESULTS_PER_WRITE: usize = 64;

/// The races of this host: one per profile that it serves.
pub(in crate::duties) struct Races {
    context: AgentContext,
    runner: Arc<dyn SprintRunner>,
    running: BTreeMap<(EpochIndex, ProfileId), Race>,
    committed: BTreeSet<(EpochIndex, ProfileId)>,
}

struct Race {
    stop: CancellationToken,
    /// When it is over by this machine's clock; each block sets it anew.
    deadline: watch::Sender<Instant>,
    task: AbortOnDropHandle<()>,
}

impl Races {
    pub(in crate::duties) fn new(context: AgentContext, runner: Arc<dyn SprintRunner>) -> Self {
        Self { context, runner, running: BTreeMap::new(), committed: BTreeSet::new() }
    }

    async fn advance(&mut self, tick: BlockTick) -> Result<(), DutyError> {
        let phase = tick.phase();
        if phase != Phase::Race {
            self.stop_all().await;
        }
        match phase {
            Phase::Race => self.start(tick).await,
            Phase::Commit => self.commit(tick).await,
            _ => Ok(()),
        }
    }

    /// Starts the races of this epoch that do not run; after a restart, where they were.
    async fn start(&mut self, tick: BlockTick) -> Result<(), DutyError> {
        let epoch = tick.epoch.index;
        self.committed.retain(|(of, _)| *of == epoch);
        let ended: Vec<_> = self
            .running
            .iter()
            .filter(|((of, _), race)| *of != epoch || race.task.is_finished())
            .map(|(key, _)| *key)
            .collect();
        for key in ended {
            self.running.remove(&key);
        }
        let view = self.context.chain.at(tick.hash);
        let deadline = deadline(tick, view.slot_duration().await?);
        for profile in self.profiles(tick).await? {
            if let Some(race) = self.running.get(&(epoch, profile)) {
                race.deadline.send_replace(deadline);
                continue;
            }
            let Some(info) = view.profile(profile).await? else { continue };
            let Some(task) = task_of(&view, tick, &self.context.host, (profile, &info)).await? else {
                continue;
            };
            let done = self.context.store.sprint_nonces(epoch, profile).await?;
            tracing::info!(target: "duties::sprint", epoch, profile, resumed = done.len(), "the race begins");
            let stop = CancellationToken::new();
            let (deadline, time) = watch::channel(deadline);
            let over = over(stop.clone(), time);
            let race = run(self.context.clone(), self.runner.clone(), task, done, over);
            let task = AbortOnDropHandle::new(tokio::spawn(race));
            self.running.insert((epoch, profile), Race { stop, deadline, task });
        }
        Ok(())
    }

    /// The profiles that this host races with.
    async fn profiles(&self, tick: BlockTick) -> Result<Vec<ProfileId>, DutyError> {
        let info = self.context.chain.at(tick.hash).host(&self.context.host).await?;
        let takes_part = info.filter(|info| matches!(info.status, HostStatus::Joining | HostStatus::Active));
        Ok(takes_part.map(|info| info.profiles).unwrap_or_default())
    }

    /// Ends all races and waits until their results are stored.
    async fn stop_all(&mut self) {
        for race in self.running.values() {
            race.stop.cancel();
        }
        for (_, race) in std::mem::take(&mut self.running) {
            if let Err(error) = race.task.await {
                tracing::error!(target: "duties::sprint", %error, "a race has stopped");
            }
        }
    }

    /// Commits to what the store holds: the same whether this process raced or one before it.
    async fn commit(&mut self, tick: BlockTick) -> Result<(), DutyError> {
        let epoch = tick.epoch.index;
        for profile in self.profiles(tick).await? {
            if self.committed.contains(&(epoch, profile)) {
                continue;
            }
            let roots = self.context.store.sprint_roots(epoch, profile, MAX_SPRINT_COUNT).await?;
            if !roots.is_empty() {
                let count = u32::try_from(roots.len()).unwrap_or(MAX_SPRINT_COUNT);
                let commitment = SprintCommitment { root: merkle::root(&roots), count };
                // Durable before it is sent: what is committed to must be served.
                let commitment = self.context.store.put_sprint_commitment(epoch, profile, commitment).await?;
                let item = Item::Commit { epoch, profile, commitment };
                let deadline = clock::check_start(&tick.epoch).saturating_sub(1);
                self.context.outbox.enqueue_with_retry(&item, deadline, URGENT_RETRY_BLOCKS).await?;
                tracing::info!(target: "duties::sprint", epoch, profile, count = commitment.count, "committing");
            } else {
                tracing::warn!(target: "duties::sprint", epoch, profile, "no nonce was done; nothing to commit to");
            }
            self.committed.insert((epoch, profile));
        }
        Ok(())
    }
}

impl Duty for Races {
    const NAME: &'static str = "sprint";

    fn ticks(&self) -> Ticks {
        self.context.chain.subscribe_best()
    }

    fn on_block(&mut self, tick: BlockTick) -> BoxFuture<'_, Result<(), DutyError>> {
        Box::pin(self.advance(tick))
    }
}

/// When the race that this block belongs to ends, should every slot from here on have its block.
///
/// Blocks decide: each one sets the deadline anew, and one of the commit phase ends the race at once. The clock is for a
/// host that no block reaches: it must not work on while everybody else has stopped.
fn deadline(tick: BlockTick, slot: Duration) -> Instant {
    let blocks = clock::commit_start(&tick.epoch).saturating_sub(tick.number);
    Instant::now() + slot.saturating_mul(blocks)
}

/// Resolves when the race is stopped, or its time is over.
async fn over(stop: CancellationToken, mut deadline: watch::Receiver<Instant>) {
    loop {
        let until = *deadline.borrow_and_update();
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(until) => return,
            changed = deadline.changed() => if changed.is_err() { return },
        }
    }
}

/// Races until it is `over`; when it returns, every result that arrived is stored.
async fn run(
    context: AgentContext,
    runner: Arc<dyn SprintRunner>,
    task: SprintTask,
    done: Vec<u32>,
    over: impl Future<Output = ()>,
) {
    let queue = Arc::new(Mutex::new(NonceQueue::new(done)));
    let (results, arriving) = mpsc::channel(RESULTS);
    let collector = collect(context, task.epoch, task.profile, queue.clone(), arriving);
    let racing = async {
        tokio::select! {
            () = over => {}
            () = race(runner, task, queue, results) => {}
        }
    };
    // The collector ends when the racers and their senders are gone.
    tokio::join!(racing, collector);
}

/// One worker per ML node, as they come and go. Dropping it stops them all.
async fn race(
    runner: Arc<dyn SprintRunner>,
    task: SprintTask,
    queue: Arc<Mutex<NonceQueue>>,
    results: mpsc::Sender<SprintResult>,
) {
    let task = Arc::new(task);
    let mut workers: JoinSet<String> = JoinSet::new();
    let mut busy = BTreeSet::new();
    let mut interval = tokio::time::interval(NODES_INTERVAL);
    loop {
        tokio::select! {
            _ = interval.tick() => {
                for node in runner.nodes(task.profile).await {
                    if busy.insert(node.clone()) {
                        workers.spawn(work(runner.clone(), node, task.clone(), queue.clone(), results.clone()));
                    }
                }
            }
            Some(ended) = workers.join_next() => match ended {
                Ok(node) => { busy.remove(&node); }
                Err(error) => {
                    tracing::error!(target: "duties::sprint", %error, "a racer has stopped");
                    busy.clear();
                }
            },
        }
    }
}

/// Chunk after chunk on one node, until it fails. Returns the node.
async fn work(
    runner: Arc<dyn SprintRunner>,
    node: String,
    task: Arc<SprintTask>,
    queue: Arc<Mutex<NonceQueue>>,
    results: mpsc::Sender<SprintResult>,
) -> String {
    loop {
        let size = runner.chunk_size(&node, task.profile).await;
        let chunk = lock(&queue).take(size);
        if let Err(error) = runner.run(&node, &task, chunk.clone(), results.clone()).await {
            tracing::warn!(target: "duties::sprint", node, ?chunk, error = %with_sources(&error), "an ML node broke off");
            lock(&queue).give_back(chunk);
            return node;
        }
    }
}

/// Stores results before they count.
async fn collect(
    context: AgentContext,
    epoch: EpochIndex,
    profile: ProfileId,
    queue: Arc<Mutex<NonceQueue>>,
    mut arriving: mpsc::Receiver<SprintResult>,
) {
    let mut batch = Vec::new();
    while arriving.recv_many(&mut batch, RESULTS_PER_WRITE).await > 0 {
        match context.store.put_sprint_results(epoch, profile, &batch).await {
            Ok(()) => batch.drain(..).for_each(|result| lock(&queue).finish(result.nonce)),
            Err(error) => {
                tracing::error!(target: "duties::sprint", error = %with_sources(&error), "results cannot be stored; they are done again");
                batch
                    .drain(..)
                    .for_each(|result| lock(&queue).give_back(result.nonce..result.nonce.saturating_add(1)));
            }
        }
    }
}

fn lock(queue: &Mutex<NonceQueue>) -> std::sync::MutexGuard<'_, NonceQueue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}
