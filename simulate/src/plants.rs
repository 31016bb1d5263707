//! Planted transcripts: each host plants an answer in every epoch, and reveals it when others have judged it. How the chain
//! decides about plants is known here and nowhere else in this crate.

use crate::{
    answer::{Answer, Task, PROMPT_TOKENS},
    chain,
    serving::is_live,
    world::{Asked, World},
};
use pallet_verification::{ApproversOf, Call, DisputeStatus, Disputes};
use rand::Rng;
use starling_math::{draw, judge};
use starling_primitives::{
    hashing::hash_of,
    plant,
    records::{FinishedIn, Started},
    verdict::Outcome,
    EpochIndex, InferenceId, H256,
};
use starling_runtime::{Runtime, System};

/// Block of an epoch in which hosts commit themselves; their requests are recorded in the next one.
pub(crate) const COMMITTED: u32 = 1;
/// Block of an epoch in which plants are revealed whatever was said of them: whoever owed a verdict has given it.
pub(crate) const REVEALED: u32 = chain::SCHEDULE.reveal_start + 1;
/// Requests that a planter tries until one draws it.
const TRIES: u64 = 10_000;
/// Number of the first of those requests: beyond all that clients ask.
const FIRST_TRY: u64 = 1 << 40;

/// A plant that is not revealed yet.
#[derive(Debug)]
pub(crate) struct Plant {
    planter: usize,
    gateway: usize,
    /// Its operator's.
    client: usize,
    task: Task,
    salt: H256,
    /// Its place, once it is answered.
    id: Option<InferenceId>,
}

impl World {
    /// Who plants looks for a request that draws it, and commits itself.
    pub(crate) fn commit_plants(&mut self, epoch: EpochIndex) {
        self.plants.clear();
        let Some(view) = self.views.get(&epoch) else { return };
        let weights = view.weights.clone();
        for entry in &weights {
            let planter = self.by_account[&entry.host];
            let host = &self.hosts[planter];
            if !is_live(host) || host.behaviour.plants().is_none() {
                continue;
            }
            let Some(plant) = self.prepare(epoch, planter) else { continue };
            let commitment = plant::commitment(plant.task.request, plant.salt);
            if self.hosts[planter].call(Call::<Runtime>::commit_plant { commitment }).is_ok() {
                self.plants.push(plant);
            }
        }
    }

    fn prepare(&mut self, epoch: EpochIndex, planter: usize) -> Option<Plant> {
        let view = self.views.get(&epoch)?;
        let account = &self.hosts[planter].keys.account;
        let others: Vec<_> = view.weights.iter().filter(|entry| entry.host != *account).collect();
        if others.is_empty() {
            return None;
        }
        let gateway = &others[self.rng.random_range(0..others.len())].host;
        let client = self.rng.random_range(0..self.clients.len());
        for _ in 0..TRIES {
            self.tries += 1;
            let task = Task::new(FIRST_TRY + self.tries, self.size.tokens, &view.seed);
            if draw::executor(&view.seed, &task.request, 0, &view.weights, gateway).as_ref() == Some(account)
            {
                let salt = hash_of(b"starling/simulate/plant", &task.request);
                let gateway = self.by_account[gateway];
                return Some(Plant { planter, gateway, client, task, salt, id: None });
            }
        }
        None
    }

    /// The planters record their requests and the answers.
    pub(crate) fn answer_plants(&mut self, epoch: EpochIndex) {
        for mut plant in std::mem::take(&mut self.plants) {
            plant.id = self.answer_plant(epoch, &plant);
            if plant.id.is_some() {
                self.plants.push(plant);
            }
        }
    }

    fn answer_plant(&mut self, epoch: EpochIndex, plant: &Plant) -> Option<InferenceId> {
        let seed = self.views.get(&epoch)?.seed;
        let price = self.profile.price(PROMPT_TOKENS, self.size.tokens);
        let gateway = &self.hosts[plant.gateway].keys.account;
        let authorization = self.clients[plant.client].authorize(plant.task.request, gateway, price);
        let mut planted = self.hosts[plant.planter].behaviour.plants()?;
        let host = &self.hosts[plant.planter];
        let executor = host.keys.account.clone();
        let items =
            vec![Started { authorization, epoch, attempt: 0, executor }].try_into().expect("one fits");
        host.call(pallet_inference::Call::<Runtime>::start { items }).ok()?;
        let id = pallet_inference::RequestIndex::<Runtime>::get(plant.task.request)?;
        let written = planted.write(&plant.task, &self.profile, &mut self.rng)?;
        let answer = Answer::new(&plant.task, written, &self.profile);
        let finished = FinishedIn { epoch, finished: answer.finished.clone() };
        let items = vec![finished].try_into().expect("one fits");
        host.call(pallet_inference::Call::<Runtime>::finish { items }).ok()?;
        let asked = Asked {
            executor: plant.planter,
            client: plant.client,
            task: plant.task.clone(),
            seed,
            answer: Some(answer),
            at: System::block_number(),
        };
        self.asked.insert(id, asked);
        self.fresh.push(id);
        Some(id)
    }

    /// Planters reveal what is accused, so that no panel has to look; and `all` of them when it is time.
    pub(crate) fn reveal_plants(&mut self, all: bool) {
        let accused = |id: InferenceId| Disputes::<Runtime>::contains_key(id.epoch, id.index);
        let (due, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.plants)
            .into_iter()
            .partition(|plant| plant.id.is_some_and(|id| all || accused(id)));
        self.plants = waiting;
        for plant in due {
            let Some(inference) = plant.id else { continue };
            let consent = self.clients[plant.client].consent(&plant.task.request);
            let call = Call::<Runtime>::reveal_plant { inference, salt: plant.salt, consent };
            // Who was convicted since has no say.
            if self.hosts[plant.planter].call(call).is_ok() {
                self.revealed.push(inference);
            }
        }
    }

    /// Who approved a plant looks whether that was right, and contests it if so.
    pub(crate) fn contest_plants(&mut self) {
        let contestable = |id: &InferenceId| {
            let dispute = Disputes::<Runtime>::get(id.epoch, id.index);
            dispute.is_some_and(|dispute| dispute.status == DisputeStatus::Planted)
        };
        self.revealed.retain(contestable);
        for id in &self.revealed {
            let Some(found) = self.asked.get(id).and_then(|asked| asked.answer.as_ref()).map(|a| a.found)
            else {
                continue;
            };
            let is_good = match found {
                Outcome::Measured(figures) => judge::passes(&figures, &self.profile.calibration),
                Outcome::ReplayFailed | Outcome::Unavailable => false,
            };
            for account in ApproversOf::<Runtime>::get(id.epoch, id.index) {
                let host = &self.hosts[self.by_account[&account]];
                if host.behaviour.contests(is_good) {
                    // Somebody else may have done so in this block.
                    let _ = host.call(Call::<Runtime>::contest_plant { inference: *id });
                }
            }
        }
    }
}
