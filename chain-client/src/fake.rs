//! A chain in memory, for the tests of everything that acts on one.
//!
//! It has typed storage, best and finalized blocks, a pool with nonces, reorganisations and lost transactions. What
//! calls do is up to the test: it gives a function that is applied to each included transaction.

use crate::{
    backend::{Backend, Head, RawPair},
    call::Call,
    entries::{self, Entry, Keys, Place},
    error::{ChainError, SubmitError},
    event::RawEvent,
    keys::Keypair,
    types::BlockTick,
};
use async_trait::async_trait;
use codec::{Decode, Encode};
use starling_primitives::{
    schedule::{EpochState, Schedule},
    AccountId, BlockNumber, H256,
};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{
        atomic::{AtomicU64, Ordering},
        Mutex, MutexGuard, PoisonError,
    },
};
use tokio::sync::watch;

/// Milliseconds of a slot, unless a test says otherwise.
const SLOT_DURATION_MS: u64 = 6_000;

/// Storage of a block, by place and encoded key parts.
pub type State = BTreeMap<(Place, Vec<Vec<u8>>), Vec<u8>>;

/// What a test makes of an included transaction: (state, signer, call) to events.
pub type Apply = Box<dyn FnMut(&mut FakeState<'_>, &AccountId, &Call) -> Vec<RawEvent> + Send>;

/// Answers a runtime API: (function, arguments) to output.
pub type Answer = Box<dyn Fn(&str, &[u8]) -> Option<Vec<u8>> + Send>;

/// Typed writes to a state.
pub struct FakeState<'a> {
    state: &'a mut State,
    /// Height of the block that is being made.
    pub number: BlockNumber,
}

impl fmt::Debug for FakeState<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FakeState").field("number", &self.number).finish_non_exhaustive()
    }
}

impl FakeState<'_> {
    /// Writes a value.
    pub fn put<K: Keys, V: Encode>(&mut self, entry: &Entry<K, V>, keys: K, value: &V) {
        self.state.insert((entry.place, keys.parts()), value.encode());
    }

    /// Writes a value whose type does not matter.
    pub fn mark<K: Keys>(&mut self, entry: &Entry<K, entries::Present>, keys: K) {
        self.state.insert((entry.place, keys.parts()), Vec::new());
    }

    /// Reads a value.
    pub fn get<K: Keys, V: Decode>(&self, entry: &Entry<K, V>, keys: K) -> Option<V> {
        self.state.get(&(entry.place, keys.parts())).and_then(|bytes| V::decode(&mut bytes.as_slice()).ok())
    }
}

struct FakeBlock {
    hash: H256,
    state: State,
    events: Vec<RawEvent>,
    transactions: Vec<H256>,
    nonces: HashMap<AccountId, u64>,
}

#[derive(Clone)]
struct FakeTransaction {
    hash: H256,
    call: Call,
    signer: AccountId,
    nonce: u64,
}

struct Inner {
    blocks: Vec<FakeBlock>,
    finalized: usize,
    state: State,
    pool: Vec<FakeTransaction>,
    signed: HashMap<Vec<u8>, FakeTransaction>,
    submitted: Vec<Call>,
    apply: Apply,
    answer: Answer,
    refuse: Option<SubmitError>,
    forks: u64,
}

/// A chain in memory.
pub struct FakeChain {
    inner: Mutex<Inner>,
    reads: AtomicU64,
    best: watch::Sender<Option<BlockTick>>,
    finalized: watch::Sender<Option<BlockTick>>,
}

impl fmt::Debug for FakeChain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FakeChain").finish_non_exhaustive()
    }
}

impl Default for FakeChain {
    fn default() -> Self {
        Self::new(Schedule::TEST)
    }
}

impl FakeChain {
    /// A chain at block 0 of epoch 0.
    pub fn new(schedule: Schedule) -> Self {
        let epoch = EpochState { index: 0, start: 0, extension: 0, sprint_cancelled: false, schedule };
        let mut state = State::new();
        state.insert((entries::EPOCH.place, Vec::new()), epoch.encode());
        state.insert((entries::SLOT_DURATION.place, Vec::new()), SLOT_DURATION_MS.encode());
        let hash = H256::repeat_byte(0xee);
        let genesis = FakeBlock {
            hash,
            state: state.clone(),
            events: Vec::new(),
            transactions: Vec::new(),
            nonces: HashMap::new(),
        };
        let tick = BlockTick { number: 0, hash, epoch };
        Self {
            inner: Mutex::new(Inner {
                blocks: vec![genesis],
                finalized: 0,
                state,
                pool: Vec::new(),
                signed: HashMap::new(),
                submitted: Vec::new(),
                apply: Box::new(|_, _, _| Vec::new()),
                answer: Box::new(|_, _| None),
                refuse: None,
                forks: 0,
            }),
            reads: AtomicU64::new(0),
            best: watch::Sender::new(Some(tick)),
            finalized: watch::Sender::new(Some(tick)),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What included transactions do.
    pub fn on_call(
        &self,
        apply: impl FnMut(&mut FakeState<'_>, &AccountId, &Call) -> Vec<RawEvent> + Send + 'static,
    ) {
        self.inner().apply = Box::new(apply);
    }

    /// What runtime APIs answer.
    pub fn on_api(&self, answer: impl Fn(&str, &[u8]) -> Option<Vec<u8>> + Send + 'static) {
        self.inner().answer = Box::new(answer);
    }

    /// Writes into the state of the next block.
    pub fn write(&self, write: impl FnOnce(&mut FakeState<'_>)) {
        let mut inner = self.inner();
        let number = inner.blocks.len() as BlockNumber;
        write(&mut FakeState { state: &mut inner.state, number });
    }

    /// The pool refuses everything with this error, until `None` is given.
    pub fn refuse(&self, error: Option<SubmitError>) {
        self.inner().refuse = error;
    }

    /// How often values were read.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Every call that the pool ever took.
    pub fn submitted(&self) -> Vec<Call> {
        self.inner().submitted.clone()
    }

    /// Forgets the transactions of the pool.
    pub fn drop_pool(&self) {
        self.inner().pool.clear();
    }

    /// Makes a block with the transactions of the pool whose nonces fit.
    pub fn advance(&self) -> BlockTick {
        let mut inner = self.inner();
        let inner = &mut *inner;
        let number = inner.blocks.len() as BlockNumber;
        let mut nonces = inner.blocks.last().map(|block| block.nonces.clone()).unwrap_or_default();
        let (mut events, mut transactions) = (Vec::new(), Vec::new());
        inner.pool.sort_by_key(|transaction| transaction.nonce);
        let mut left = Vec::new();
        for transaction in std::mem::take(&mut inner.pool) {
            let next = nonces.entry(transaction.signer.clone()).or_default();
            if transaction.nonce > *next {
                left.push(transaction);
            } else if transaction.nonce == *next {
                *next = next.saturating_add(1);
                let index = transactions.len() as u32;
                let mut state = FakeState { state: &mut inner.state, number };
                let caused = (inner.apply)(&mut state, &transaction.signer, &transaction.call);
                events.extend(caused.into_iter().map(|event| RawEvent { extrinsic: Some(index), ..event }));
                transactions.push(transaction.hash);
            }
        }
        inner.pool = left;
        let hash = starling_primitives::hashing::hash_of(b"fake", &(number, inner.forks));
        inner.blocks.push(FakeBlock { hash, state: inner.state.clone(), events, transactions, nonces });
        let tick = tick_of(inner, number);
        self.best.send_replace(Some(tick));
        tick
    }

    /// Makes blocks up to this height.
    pub fn advance_to(&self, number: BlockNumber) -> BlockTick {
        loop {
            let tick = self.advance();
            if tick.number >= number {
                return tick;
            }
        }
    }

    /// Finalizes everything up to the best block.
    pub fn finalize(&self) {
        let mut inner = self.inner();
        inner.finalized = inner.blocks.len().saturating_sub(1);
        let tick = tick_of(&inner, inner.finalized as BlockNumber);
        self.finalized.send_replace(Some(tick));
    }

    /// Takes back the last `depth` blocks with all they did. Their transactions are lost.
    pub fn reorganise(&self, depth: usize) {
        let mut inner = self.inner();
        let keep = inner.blocks.len().saturating_sub(depth).max(inner.finalized.saturating_add(1));
        inner.blocks.truncate(keep);
        inner.forks = inner.forks.saturating_add(1);
        inner.state = inner.blocks.last().map(|block| block.state.clone()).unwrap_or_default();
        let tick = tick_of(&inner, keep.saturating_sub(1) as BlockNumber);
        self.best.send_replace(Some(tick));
    }

    fn with_block<T>(&self, at: H256, read: impl FnOnce(&FakeBlock) -> T) -> Result<T, ChainError> {
        let inner = self.inner();
        let block = inner.blocks.iter().find(|block| block.hash == at);
        block
            .map(read)
            .ok_or_else(|| ChainError::Refused { what: "a block".into(), reason: "it is unknown".into() })
    }
}

fn tick_of(inner: &Inner, number: BlockNumber) -> BlockTick {
    let block = inner.blocks.get(number as usize);
    let epoch = block
        .and_then(|block| block.state.get(&(entries::EPOCH.place, Vec::new())))
        .and_then(|bytes| EpochState::decode(&mut bytes.as_slice()).ok());
    let default =
        EpochState { index: 0, start: 0, extension: 0, sprint_cancelled: false, schedule: Schedule::TEST };
    BlockTick {
        number,
        hash: block.map(|block| block.hash).unwrap_or_default(),
        epoch: epoch.unwrap_or(default),
    }
}

#[async_trait]
impl Backend for FakeChain {
    fn genesis(&self) -> H256 {
        H256::repeat_byte(0xee)
    }

    fn head(&self, head: Head) -> watch::Receiver<Option<BlockTick>> {
        match head {
            Head::Best => self.best.subscribe(),
            Head::Finalized => self.finalized.subscribe(),
        }
    }

    async fn fetch(
        &self,
        at: H256,
        place: Place,
        keys: &[Vec<Vec<u8>>],
    ) -> Result<Vec<Option<Vec<u8>>>, ChainError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.with_block(at, |block| {
            keys.iter().map(|key| block.state.get(&(place, key.clone())).cloned()).collect()
        })
    }

    async fn iterate(&self, at: H256, place: Place, prefix: &[Vec<u8>]) -> Result<Vec<RawPair>, ChainError> {
        self.with_block(at, |block| {
            let below =
                block.state.iter().filter(|((found, key), _)| *found == place && key.starts_with(prefix));
            let rest = |key: &Vec<Vec<u8>>| key.get(prefix.len()..).unwrap_or_default().to_vec();
            below.map(|((_, key), value)| (rest(key), value.clone())).collect()
        })
    }

    async fn call_api(&self, at: H256, function: &str, arguments: Vec<u8>) -> Result<Vec<u8>, ChainError> {
        self.with_block(at, |_| ())?;
        let answer = (self.inner().answer)(function, &arguments);
        answer.ok_or_else(|| ChainError::Refused { what: function.into(), reason: "nobody answers".into() })
    }

    async fn events(&self, at: H256) -> Result<Vec<RawEvent>, ChainError> {
        self.with_block(at, |block| block.events.clone())
    }

    async fn block_hash(&self, number: BlockNumber) -> Result<Option<H256>, ChainError> {
        Ok(self.inner().blocks.get(number as usize).map(|block| block.hash))
    }

    async fn transaction_hashes(&self, at: H256) -> Result<Vec<H256>, ChainError> {
        self.with_block(at, |block| block.transactions.clone())
    }

    async fn next_nonce(&self, account: &AccountId) -> Result<u64, ChainError> {
        let inner = self.inner();
        let mut next =
            inner.blocks.last().and_then(|block| block.nonces.get(account)).copied().unwrap_or_default();
        while inner.pool.iter().any(|transaction| transaction.signer == *account && transaction.nonce == next)
        {
            next = next.saturating_add(1);
        }
        Ok(next)
    }

    async fn sign(&self, call: &Call, signer: &Keypair, nonce: u64) -> Result<(H256, Vec<u8>), ChainError> {
        let mut inner = self.inner();
        let bytes = format!("{:?} {nonce} {call:?} {}", signer.account(), inner.blocks.len()).into_bytes();
        let hash = H256(sp_crypto_hashing::blake2_256(&bytes));
        let transaction = FakeTransaction { hash, call: call.clone(), signer: signer.account(), nonce };
        inner.signed.insert(bytes.clone(), transaction);
        Ok((hash, bytes))
    }

    async fn submit(&self, transaction: &[u8]) -> Result<(), SubmitError> {
        let mut inner = self.inner();
        if let Some(error) = &inner.refuse {
            return Err(error.clone());
        }
        let found = inner.signed.get(transaction).cloned();
        let transaction = found.ok_or_else(|| SubmitError::Invalid("it was not signed here".into()))?;
        let nonces = inner.blocks.last().map(|block| block.nonces.clone()).unwrap_or_default();
        if transaction.nonce < nonces.get(&transaction.signer).copied().unwrap_or_default() {
            return Err(SubmitError::Nonce("outdated".into()));
        }
        inner.submitted.push(transaction.call.clone());
        inner.pool.push(transaction);
        Ok(())
    }
}

/// An event with encoded fields.
pub fn event(pallet: &str, name: &str, fields: &[(&str, Vec<u8>)]) -> RawEvent {
    RawEvent {
        extrinsic: None,
        pallet: pallet.into(),
        name: name.into(),
        fields: fields.iter().map(|(name, bytes)| ((*name).to_string(), bytes.clone())).collect(),
    }
}
