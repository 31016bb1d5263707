//! Money promised to requests that the chain does not know of yet.
//!
//! `Started` reaches the chain a block or two after the request began. Until then its maximum price is counted here,
//! against the deposit and the delegation limit as the latest block says them, so that requests in parallel cannot
//! spend the same money twice.
//!
//! What the chain says of a client is read when its first request comes, and from then on with each block, beside the
//! requests: the next ones find it in memory.

use starling_chain_client::{ChainClient, ChainError, Delegation};
use starling_primitives::{request::Authorization, AccountId, Balance, BlockNumber, RequestId, H256};
use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Accounts whose deposits are remembered at most, and (account, key) pairs whose limits are.
const MAX_KNOWN: usize = 10_000;
/// Blocks without a request after which an account is forgotten.
const KEPT_BLOCKS: BlockNumber = 64;

/// Why a request is not covered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotCovered {
    /// The deposit does not cover it.
    #[error("the deposit of {available} does not cover {needed}")]
    Deposit {
        /// What is free.
        available: Balance,
        /// What the request may cost.
        needed: Balance,
    },
    /// The key may not spend so much (or not at all).
    #[error("the key may spend {available}, not {needed}")]
    Delegation {
        /// What is left of its limit.
        available: Balance,
        /// What the request may cost.
        needed: Balance,
    },
    /// The same request is running already.
    #[error("the request is running already")]
    Running,
    /// The chain could not be asked.
    #[error("the chain could not be asked")]
    Chain(#[from] ChainError),
}

#[derive(Debug)]
struct Promise {
    client: AccountId,
    signer: AccountId,
    amount: Balance,
    /// Last block at which `Started` can still be recorded; `None` while the request has not been taken.
    until: Option<BlockNumber>,
}

/// What the chain said of an account or a key.
#[derive(Clone, Copy, Debug)]
struct Known {
    balance: Balance,
    /// Block of its last request.
    used: BlockNumber,
}

/// Client, and key that may spend from its deposit.
type Delegated = (AccountId, AccountId);

#[derive(Debug, Default)]
struct State {
    block: H256,
    number: BlockNumber,
    free: HashMap<AccountId, Known>,
    allowed: HashMap<Delegated, Known>,
    promises: HashMap<RequestId, Promise>,
}

/// The ledger of one host. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ledger {
    chain: ChainClient,
    state: Arc<Mutex<State>>,
}

/// Money promised to one request. Given back when dropped, unless [`Promised::keep`] said that the chain will learn
/// of it.
#[derive(Debug)]
pub struct Promised {
    ledger: Ledger,
    request_id: RequestId,
    kept: bool,
}

impl Promised {
    /// `Started` is on its way and can be recorded up to this block.
    pub fn keep(&mut self, until: BlockNumber) {
        self.kept = true;
        if let Some(promise) = self.ledger.lock().promises.get_mut(&self.request_id) {
            promise.until = Some(until);
        }
    }
}

impl Drop for Promised {
    fn drop(&mut self) {
        if !self.kept {
            self.ledger.lock().promises.remove(&self.request_id);
        }
    }
}

impl Ledger {
    /// Nothing promised yet.
    pub fn new(chain: ChainClient) -> Self {
        Self { chain, state: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Promises the maximum price of a request, if deposit and limit cover it.
    pub async fn promise(
        &self,
        authorization: &Authorization,
        signer: &AccountId,
    ) -> Result<Promised, NotCovered> {
        let client = &authorization.client;
        let key = (client.clone(), signer.clone());
        loop {
            let (block, free, allowed) = {
                let mut state = self.lock();
                let number = state.number;
                let free = use_known(&mut state.free, client, number);
                (state.block, free, use_known(&mut state.allowed, &key, number))
            };
            let at = if block.is_zero() { self.chain.best_tick()?.hash } else { block };
            let free = match free {
                Some(free) => free,
                None => self.chain.at(at).deposit(client).await?.free,
            };
            let allowed = match allowed {
                Some(allowed) => Some(allowed),
                None if signer != client => Some(self.allowed_at(at, &key).await?),
                None => None,
            };
            let mut state = self.lock();
            // A block came in between: what was read may contain money that is promised no longer.
            if state.block != block {
                continue;
            }
            let number = state.number;
            remember(&mut state.free, client.clone(), free, number);
            if let Some(allowed) = allowed {
                remember(&mut state.allowed, key.clone(), allowed, number);
            }
            state.check(authorization, signer, free, allowed)?;
            let promise =
                Promise { client: key.0, signer: key.1, amount: authorization.max_price, until: None };
            state.promises.insert(authorization.request_id, promise);
            return Ok(Promised { ledger: self.clone(), request_id: authorization.request_id, kept: false });
        }
    }

    /// A handle on what the gateway of this very host promised for a request. Dropping it gives nothing back.
    pub fn shared(&self, request_id: &RequestId) -> Promised {
        Promised { ledger: self.clone(), request_id: *request_id, kept: true }
    }

    async fn allowed_at(&self, block: H256, key: &(AccountId, AccountId)) -> Result<Balance, ChainError> {
        let delegation = self.chain.at(block).delegation(&key.0, &key.1).await?;
        Ok(delegation.map_or(0, |found| found.available()))
    }

    /// Moves to a new block: reads again what it says of the clients, and forgets the promises that it knows of.
    pub async fn advance(&self, block: H256, number: BlockNumber) -> Result<(), ChainError> {
        let (waiting, clients, keys) = {
            let state = self.lock();
            let waiting = state.promises.iter().filter(|(_, promise)| promise.until.is_some());
            let waiting: Vec<RequestId> = waiting.map(|(id, _)| *id).collect();
            (waiting, in_use(&state.free, number), in_use(&state.allowed, number))
        };
        let view = self.chain.at(block);
        let known = match waiting.is_empty() {
            true => Vec::new(),
            false => view.inferences_of(&waiting).await?,
        };
        let deposits = view.deposits(&clients).await?;
        let delegations = view.delegations(&keys).await?;
        // One step under one lock: nobody sees the old deposit without the promises that it does not contain.
        let mut state = self.lock();
        for (request_id, record) in waiting.iter().zip(known) {
            if record.is_some() {
                state.promises.remove(request_id);
            }
        }
        state.promises.retain(|_, promise| promise.until.is_none_or(|until| number <= until));
        state.block = block;
        state.number = number;
        renew(&mut state.free, clients.into_iter().zip(deposits.iter().map(|deposit| deposit.free)));
        let allowed = delegations.iter().map(|found| found.as_ref().map_or(0, Delegation::available));
        renew(&mut state.allowed, keys.into_iter().zip(allowed));
        Ok(())
    }

    /// Whether a request was promised and the chain does not know of it yet.
    pub fn is_pending(&self, request_id: &RequestId) -> bool {
        self.lock().promises.contains_key(request_id)
    }

    /// Number of requests that the chain does not know of yet.
    pub fn pending(&self) -> usize {
        self.lock().promises.len()
    }
}

/// What is known under a key, which is thereby used.
fn use_known<K: Eq + Hash>(known: &mut HashMap<K, Known>, key: &K, now: BlockNumber) -> Option<Balance> {
    let known = known.get_mut(key)?;
    known.used = now;
    Some(known.balance)
}

/// Keeps what was read, as long as there is room: without it each request asks the chain.
fn remember<K: Eq + Hash>(known: &mut HashMap<K, Known>, key: K, balance: Balance, now: BlockNumber) {
    if known.len() < MAX_KNOWN || known.contains_key(&key) {
        known.insert(key, Known { balance, used: now });
    }
}

/// The keys that had a request lately.
fn in_use<K: Clone>(known: &HashMap<K, Known>, now: BlockNumber) -> Vec<K> {
    let lately = known.iter().filter(|(_, known)| known.used.saturating_add(KEPT_BLOCKS) >= now);
    lately.map(|(key, _)| key.clone()).collect()
}

/// Replaces everything by what a newer block says of some of the keys.
fn renew<K: Eq + Hash>(known: &mut HashMap<K, Known>, balances: impl Iterator<Item = (K, Balance)>) {
    let before = std::mem::take(known);
    known.extend(balances.filter_map(|(key, balance)| {
        let used = before.get(&key)?.used;
        Some((key, Known { balance, used }))
    }));
}

impl State {
    fn check(
        &self,
        authorization: &Authorization,
        signer: &AccountId,
        free: Balance,
        allowed: Option<Balance>,
    ) -> Result<(), NotCovered> {
        if self.promises.contains_key(&authorization.request_id) {
            return Err(NotCovered::Running);
        }
        let needed = authorization.max_price;
        let of_client = || self.promises.values().filter(|promise| promise.client == authorization.client);
        let sum = |total: Balance, promise: &Promise| total.saturating_add(promise.amount);
        let available = free.saturating_sub(of_client().fold(0, sum));
        if available < needed {
            return Err(NotCovered::Deposit { available, needed });
        }
        if let Some(allowed) = allowed {
            let promised = of_client().filter(|promise| promise.signer == *signer).fold(0, sum);
            let available = allowed.saturating_sub(promised);
            if available < needed {
                return Err(NotCovered::Delegation { available, needed });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use starling_chain_client::{entries, fake::FakeChain, Deposit};

    fn authorization(request: u8, amount: Balance) -> Authorization {
        Authorization {
            client: AccountId::new([1; 32]),
            request_id: H256::repeat_byte(request),
            profile: 0,
            max_price: amount,
            gateway: AccountId::new([2; 32]),
            expires_at: 10,
        }
    }

    /// A client with a deposit, and a key of its that may spend a part.
    fn chain(free: Balance, limit: Balance) -> (Arc<FakeChain>, Ledger) {
        let fake = Arc::new(FakeChain::default());
        write(&fake, free, limit);
        let ledger = Ledger::new(ChainClient::new(fake.clone()));
        (fake, ledger)
    }

    fn write(fake: &FakeChain, free: Balance, limit: Balance) {
        fake.write(|state| {
            let client = authorization(0, 0).client;
            state.put(&entries::DEPOSITS, (client.clone(),), &Deposit { free, reserved: 0 });
            let delegation = Delegation { limit, ..Delegation::default() };
            state.put(&entries::DELEGATIONS, (client, key()), &delegation);
        });
        fake.advance();
    }

    fn key() -> AccountId {
        AccountId::new([9; 32])
    }

    async fn advance(ledger: &Ledger) {
        let tick = ledger.chain.best_tick().unwrap();
        ledger.advance(tick.hash, tick.number).await.unwrap();
    }

    #[tokio::test]
    async fn a_known_client_is_looked_up_with_the_block_and_not_with_the_request() {
        let (fake, ledger) = chain(100, 60);
        advance(&ledger).await;
        drop(ledger.promise(&authorization(1, 50), &key()).await.unwrap());
        write(&fake, 100, 40);
        advance(&ledger).await;
        let before = fake.reads();
        let refused = ledger.promise(&authorization(2, 50), &key()).await;
        assert!(matches!(refused, Err(NotCovered::Delegation { available: 40, needed: 50 })), "{refused:?}");
        let promised = ledger.promise(&authorization(3, 30), &key()).await.unwrap();
        let refused = ledger.promise(&authorization(4, 20), &key()).await;
        assert!(matches!(refused, Err(NotCovered::Delegation { available: 10, needed: 20 })), "{refused:?}");
        drop(promised);
        assert_eq!(fake.reads(), before, "the chain was asked for a client that it had told of");
    }

    #[tokio::test]
    async fn a_client_without_requests_is_forgotten() {
        let (fake, ledger) = chain(100, 60);
        advance(&ledger).await;
        drop(ledger.promise(&authorization(1, 50), &key()).await.unwrap());
        let number = ledger.chain.best_tick().unwrap().number;
        fake.advance_to(number + KEPT_BLOCKS + 1);
        advance(&ledger).await;
        assert!(ledger.lock().free.is_empty() && ledger.lock().allowed.is_empty());
        assert!(ledger.promise(&authorization(2, 50), &key()).await.is_ok(), "and asked for anew");
    }

    proptest! {
        /// Whatever comes in parallel, promises never exceed the deposit nor the key's limit.
        #[test]
        fn promises_stay_within_deposit_and_limit(
            free in 0_u128..1_000,
            allowed in proptest::option::of(0_u128..1_000),
            amounts in proptest::collection::vec(0_u128..400, 0..40),
        ) {
            let mut state = State::default();
            let signer = AccountId::new([if allowed.is_some() { 9 } else { 1 }; 32]);
            for (request, amount) in amounts.into_iter().enumerate() {
                let authorization = authorization(request as u8, amount);
                if state.check(&authorization, &signer, free, allowed).is_ok() {
                    state.promises.insert(authorization.request_id, Promise {
                        client: authorization.client.clone(),
                        signer: signer.clone(),
                        amount,
                        until: None,
                    });
                    prop_assert!(
                        matches!(
                            state.check(&authorization, &signer, free, allowed),
                            Err(NotCovered::Running)
                        )
                    );
                }
            }
            let promised: Balance = state.promises.values().map(|promise| promise.amount).sum();
            prop_assert!(promised <= free);
            prop_assert!(allowed.is_none_or(|allowed| promised <= allowed));
        }
    }
}
