//! Requests, from the client's question to the record of the answer.

use crate::{
    adversaries::Route,
    answer::{Answer, Task, PROMPT_TOKENS},
    chain,
    host::Host,
    world::{Asked, World},
};
use anyhow::{ensure, Result};
use pallet_inference::Call;
use rand::Rng;
use starling_math::draw;
use starling_primitives::{
    records::{Delivered, FinishedIn, Started},
    request::SignedAuthorization,
    traits::Hosts as _,
    AccountId, EpochIndex, InferenceId,
};
use starling_runtime::{Hosts, Runtime, System};

/// Executors that a gateway tries for a request.
const ATTEMPTS: u8 = 3;

/// A request at its gateway.
struct Order {
    client: usize,
    gateway: usize,
    task: Task,
    authorization: SignedAuthorization,
}

impl World {
    /// Clients ask their share of the epoch's requests.
    pub(crate) fn serve(&mut self, epoch: EpochIndex) -> Result<()> {
        for client in &self.clients {
            let filled = client.fill_up();
            ensure!(filled.is_ok(), "a client cannot deposit: {filled:?}");
        }
        for _ in 0..self.share(self.size.requests, chain::SCHEDULE.reveal_start - 1) {
            self.ask(epoch);
        }
        Ok(())
    }

    /// A client asks a random host that has weight.
    fn ask(&mut self, epoch: EpochIndex) {
        let Some(view) = self.views.get(&epoch) else { return };
        let live = |host: &AccountId| is_live(&self.hosts[self.by_account[host]]);
        let gateways: Vec<usize> = view
            .weights
            .iter()
            .filter(|entry| live(&entry.host))
            .map(|entry| self.by_account[&entry.host])
            .collect();
        if gateways.is_empty() {
            return;
        }
        let gateway = gateways[self.rng.random_range(0..gateways.len())];
        let client = self.rng.random_range(0..self.clients.len());
        self.requests += 1;
        let task = Task::new(self.requests, self.size.tokens, &view.seed);
        let price = self.profile.price(PROMPT_TOKENS, self.size.tokens);
        let account = &self.hosts[gateway].keys.account;
        let authorization = self.clients[client].authorize(task.request, account, price);
        self.route(epoch, Order { client, gateway, task, authorization });
    }

    /// The gateway goes from one drawn executor to the next until one answers.
    fn route(&mut self, epoch: EpochIndex, order: Order) {
        let view = &self.views[&epoch];
        let (seed, hosts) = (view.seed, view.weights.clone());
        let gateway = self.hosts[order.gateway].keys.account.clone();
        for attempt in 0..ATTEMPTS {
            let drawn = draw::executor(&seed, &order.task.request, attempt, &hosts, &gateway);
            let Some(drawn) = drawn else { return };
            let executor = self.by_account[&drawn];
            let route = self.hosts[order.gateway].behaviour.route(&drawn);
            if route == Route::Skip {
                continue;
            }
            let authorization = order.authorization.clone();
            let started = Started { authorization, epoch, attempt, executor: drawn };
            let Some(id) = self.start(&order, executor, started.clone()) else { return };
            if route == Route::Swallow {
                return;
            }
            if self.answer(id, order.gateway) {
                if self.clients[order.client].denies {
                    self.clients[order.client].deny(&started);
                }
                return;
            }
        }
    }

    /// Records that the request runs.
    fn start(&mut self, order: &Order, executor: usize, started: Started) -> Option<InferenceId> {
        let items = vec![started].try_into().expect("one fits");
        self.hosts[order.gateway].call(Call::<Runtime>::start { items }).ok()?;
        let id = pallet_inference::RequestIndex::<Runtime>::get(order.task.request)?;
        let seed = self.views[&id.epoch].seed;
        let (client, task) = (order.client, order.task.clone());
        let at = System::block_number();
        self.asked.insert(id, Asked { executor, client, task, seed, answer: None, at });
        Some(id)
    }

    /// Lets the executor answer; whether it did.
    fn answer(&mut self, id: InferenceId, gateway: usize) -> bool {
        let Some(asked) = self.asked.get_mut(&id) else { return false };
        let executor = &mut self.hosts[asked.executor];
        if !is_live(executor) {
            return false;
        }
        let Some(written) = executor.behaviour.write(&asked.task, &self.profile, &mut self.rng) else {
            return false;
        };
        let answer = Answer::new(&asked.task, written, &self.profile);
        let finished = FinishedIn { epoch: id.epoch, finished: answer.finished.clone() };
        let items = vec![finished].try_into().expect("one fits");
        if executor.call(Call::<Runtime>::finish { items }).is_err() {
            return false;
        }
        executor.fate.answers += 1;
        if !answer.honest && executor.fate.convicted_in.is_none() {
            executor.fate.bad_tokens += u64::from(answer.finished.completion_tokens);
        }
        let delivered =
            Delivered { request_id: asked.task.request, response_hash: answer.finished.response_hash };
        let items = vec![delivered].try_into().expect("one fits");
        // Whether the gateway says so changes nothing: the answer is paid.
        let _ = self.hosts[gateway].call(Call::<Runtime>::deliver { items });
        asked.answer = Some(answer);
        self.fresh.push(id);
        true
    }
}

/// Whether the host's worker may do duties.
pub(crate) fn is_live(host: &Host) -> bool {
    Hosts::host_of(&host.keys.worker_account()).is_some()
}
