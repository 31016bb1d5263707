//! A runtime with everything real but the other pallets, whose answers the tests set.

#![allow(unreachable_pub, reason = "the mock runtime is public in a private module")]

use frame_support::{
    derive_impl, parameter_types,
    traits::{
        fungible::{Inspect, Mutate},
        tokens::Preservation::Expendable,
        ConstU32, Hooks,
    },
    weights::Weight,
    PalletId,
};
use sp_core::{sr25519, Pair};
use sp_runtime::{traits::IdentityLookup, BuildStorage};
use starling_primitives::{
    hashing::hash_of,
    profile::{Calibration, Numerics, Profile},
    records::{Delivered, Finished, FinishedIn, InferenceRecord, Started},
    request::{Authorization, SignedAuthorization},
    schedule::{EpochState, Schedule},
    traits::{
        Attendance, Beacon, Clock, EpochHooks, HostWeight, Hosts, Pots, Profiles, Reputation, Round, Weights,
    },
    AccountId, Balance, BlockNumber, EpochIndex, InferenceId, MultiSignature, Ppm, ProfileId, RequestId,
    Work, H256,
};
use std::{cell::RefCell, collections::BTreeMap};

type Block = frame_system::mocking::MockBlock<Test>;

/// Existential deposit of the mock: larger than the price of a short answer, so that pots have to wait.
pub(crate) const ED: Balance = 100;
/// Profile with prices 2 and 3.
pub(crate) const PROFILE: ProfileId = 0;
/// What clients have at genesis.
pub(crate) const ENDOWMENT: Balance = 1_000_000;

frame_support::construct_runtime!(
    pub enum Test {
        System: frame_system,
        Balances: pallet_balances,
        Inference: pallet_inference,
    }
);

#[derive_impl(frame_system::config_preludes::TestDefaultConfig)]
impl frame_system::Config for Test {
    type Block = Block;
    type AccountId = AccountId;
    type Lookup = IdentityLookup<AccountId>;
    type AccountData = pallet_balances::AccountData<Balance>;
}

#[derive_impl(pallet_balances::config_preludes::TestDefaultConfig)]
impl pallet_balances::Config for Test {
    type AccountStore = System;
    type Balance = Balance;
    type ExistentialDeposit = Minimum;
}

parameter_types! {
    pub const Minimum: Balance = ED;
    pub const DepositsId: PalletId = PalletId(*b"strl/dep");
    pub const MinDeposit: Balance = 10;
    pub static Current: EpochState = epoch_state(1, 1);
    pub static Before: Option<EpochState> = None;
    pub static Misses: Vec<(AccountId, EpochIndex)> = Vec::new();
    /// When every host had declared to be down: the first and the last block.
    pub static Away: Option<(BlockNumber, BlockNumber)> = None;
    pub static FeesPaid: BTreeMap<(EpochIndex, AccountId), Balance> = BTreeMap::new();
    /// Answers by epoch, profile, executor and gateway.
    pub static Answered: BTreeMap<(EpochIndex, ProfileId, AccountId, AccountId), u32> = BTreeMap::new();
    pub static Struck: Vec<(EpochIndex, ProfileId, AccountId)> = Vec::new();
    pub static Retired: bool = false;
    /// What [`Pots::refund`] gives of what is asked.
    pub static PotRefunds: bool = true;
}

impl pallet_inference::Config for Test {
    type Currency = Balances;
    type Clock = Mock;
    type Beacon = Mock;
    type Hosts = Mock;
    type Profiles = Mock;
    type Weights = Mock;
    type Reputation = Mock;
    type Attendance = Mock;
    type Pots = Mock;
    type PalletId = DepositsId;
    type MinDeposit = MinDeposit;
    type MaxDelegations = ConstU32<3>;
    type MaxPrunedPerBlock = ConstU32<4>;
    type WeightInfo = pallet_inference::weights::SubstrateWeight<Test>;
}

/// The other pallets.
pub struct Mock;

impl Clock for Mock {
    fn epoch() -> EpochState {
        Current::get()
    }
    fn previous() -> Option<EpochState> {
        Before::get()
    }
}

impl Beacon for Mock {
    fn seed(round: Round) -> Option<H256> {
        match round {
            Round::Epoch(0) => None,
            round => Some(hash_of(b"seed", &round)),
        }
    }
    fn withheld(_: EpochIndex, _: &AccountId) -> bool {
        false
    }
}

impl Hosts for Mock {
    fn host_of(worker: &AccountId) -> Option<AccountId> {
        (1..=4).map(host).find(|host| worker_of(host) == *worker)
    }
    fn worker_of(host: &AccountId) -> Option<AccountId> {
        (1..=4).any(|known| self::host(known) == *host).then(|| worker_of(host))
    }
    fn worker_since(_: &AccountId) -> Option<BlockNumber> {
        Some(0)
    }
    fn may_sprint(_: &AccountId) -> bool {
        true
    }
    fn serves(_: &AccountId, _: ProfileId) -> bool {
        true
    }
    fn is_away(_: &AccountId, from: BlockNumber, to: BlockNumber) -> bool {
        Away::get().is_some_and(|(first, last)| first <= to && from <= last)
    }
    fn count() -> u32 {
        4
    }
    fn on_weight(_: &AccountId, _: Work) {}
    fn convict(_: &AccountId) {}
    fn slash_bond(_: &AccountId, _: Balance, _: &AccountId) -> Balance {
        0
    }
}

impl Profiles for Mock {
    fn profile(id: ProfileId) -> Option<Profile> {
        Self::registered(id).filter(|_| !Retired::get())
    }
    fn registered(id: ProfileId) -> Option<Profile> {
        (id == PROFILE).then(|| Profile {
            name: b"mock".to_vec().try_into().unwrap(),
            weights_digest: H256::zero(),
            tokenizer_digest: H256::zero(),
            numerics: Numerics::F32,
            top_k: 20,
            max_context: 1_000,
            vocab_size: 100,
            prompt_price: 2,
            completion_price: 3,
            prompt_work: 1,
            completion_work: 1,
            sprint_tolerance: 0,
            calibration: Calibration { distance_limit: 10, margin_limit: 10, short_allowance: 0 },
        })
    }
}

impl Weights for Mock {
    fn hosts(epoch: EpochIndex) -> Vec<HostWeight> {
        Self::of_profile(epoch, PROFILE)
    }
    fn of_profile(epoch: EpochIndex, profile: ProfileId) -> Vec<HostWeight> {
        if epoch == 0 || profile != PROFILE {
            return Vec::new();
        }
        let entry = |id: u8| HostWeight { host: host(id), weight: 10 * u64::from(id), reputation: 0 };
        (1..=4).map(entry).collect()
    }
    fn weight(epoch: EpochIndex, host: &AccountId) -> Work {
        Self::hosts(epoch).iter().find(|entry| entry.host == *host).map_or(0, |entry| entry.weight)
    }
    fn total(epoch: EpochIndex) -> Work {
        Self::hosts(epoch).iter().map(|entry| entry.weight).sum()
    }
}

impl Reputation for Mock {
    fn reputation(_: &AccountId) -> Ppm {
        0
    }
    fn on_clean_epoch(_: &AccountId, _: EpochIndex) {}
    fn on_missed(host: &AccountId, epoch: EpochIndex) {
        Misses::mutate(|misses| misses.push((host.clone(), epoch)));
    }
}

impl Attendance for Mock {
    fn on_answered(
        epoch: EpochIndex,
        profile: ProfileId,
        executor: &AccountId,
        gateway: &AccountId,
        count: u32,
    ) {
        let place = (epoch, profile, executor.clone(), gateway.clone());
        Answered::mutate(|answered| *answered.entry(place).or_default() += count);
    }
    fn on_struck(epoch: EpochIndex, profile: ProfileId, executor: &AccountId) {
        Struck::mutate(|struck| struck.push((epoch, profile, executor.clone())));
    }
    fn on_planted(epoch: EpochIndex, profile: ProfileId, executor: &AccountId, gateway: &AccountId) {
        let place = (epoch, profile, executor.clone(), gateway.clone());
        Answered::mutate(|answered| *answered.get_mut(&place).expect("it was answered") -= 1);
    }
    fn is_absent(_: EpochIndex, _: &AccountId) -> bool {
        false
    }
    fn on_claim(_: EpochIndex, _: &AccountId) -> bool {
        false
    }
    fn profiles(_: EpochIndex) -> u32 {
        1
    }
}

impl Pots for Mock {
    fn account(epoch: EpochIndex) -> AccountId {
        pot(epoch)
    }
    fn on_fee(epoch: EpochIndex, host: &AccountId, amount: Balance) {
        FeesPaid::mutate(|fees| *fees.entry((epoch, host.clone())).or_default() += amount);
    }
    fn refund(epoch: EpochIndex, _: &AccountId, amount: Balance, to: &AccountId) -> Balance {
        if !PotRefunds::get() {
            return 0;
        }
        // The mock has an account for each pot: what would leave one with less than an account can hold is not given.
        let rest = Balances::balance(&pot(epoch)).saturating_sub(amount);
        if (1..ED).contains(&rest) {
            return 0;
        }
        <Balances as Mutate<_>>::transfer(&pot(epoch), to, amount, Expendable).unwrap_or(0)
    }
}

pub(crate) fn host(id: u8) -> AccountId {
    AccountId::new([id; 32])
}

pub(crate) fn worker_of(host: &AccountId) -> AccountId {
    let mut bytes: [u8; 32] = host.clone().into();
    bytes[31] ^= 0xFF;
    AccountId::new(bytes)
}

/// Origin of a host's worker.
pub(crate) fn worker(host: &AccountId) -> RuntimeOrigin {
    RuntimeOrigin::signed(worker_of(host))
}

pub(crate) fn pot(epoch: EpochIndex) -> AccountId {
    let mut bytes = [0xF0; 32];
    bytes[..4].copy_from_slice(&epoch.to_le_bytes());
    AccountId::new(bytes)
}

pub(crate) fn epoch_state(index: EpochIndex, start: BlockNumber) -> EpochState {
    EpochState { index, start, extension: 0, sprint_cancelled: false, schedule: Schedule::TEST }
}

/// Key pair of a name. Deriving one takes longer than everything else in a step, so they are kept.
pub(crate) fn pair(name: &'static str) -> sr25519::Pair {
    thread_local! {
        static PAIRS: RefCell<BTreeMap<&'static str, sr25519::Pair>> = const { RefCell::new(BTreeMap::new()) };
    }
    let derive = || sr25519::Pair::from_string(&format!("//{name}"), None).unwrap();
    PAIRS.with_borrow_mut(|pairs| pairs.entry(name).or_insert_with(derive).clone())
}

/// Account of the first client.
pub(crate) fn client() -> AccountId {
    account("Client")
}

pub(crate) fn account(name: &'static str) -> AccountId {
    AccountId::new(pair(name).public().0)
}

pub(crate) fn genesis() -> H256 {
    System::block_hash(0)
}

/// A request as a client asks for it.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) n: u64,
    pub(crate) client: &'static str,
    pub(crate) signer: &'static str,
    pub(crate) max_price: Balance,
    pub(crate) gateway: AccountId,
    pub(crate) expires_in: BlockNumber,
    pub(crate) epoch: EpochIndex,
    pub(crate) attempt: u8,
}

/// Request `n` of the first client, at host 1, for at most 1,000.
pub(crate) fn ask(n: u64) -> Ask {
    Ask {
        n,
        client: "Client",
        signer: "Client",
        max_price: 1_000,
        gateway: host(1),
        expires_in: 5,
        epoch: Current::get().index,
        attempt: 0,
    }
}

pub(crate) fn request_id(n: u64) -> RequestId {
    hash_of(b"request", &n)
}

impl Ask {
    pub(crate) fn authorization(&self) -> Authorization {
        Authorization {
            client: account(self.client),
            request_id: request_id(self.n),
            profile: PROFILE,
            max_price: self.max_price,
            gateway: self.gateway.clone(),
            expires_at: System::block_number() as u32 + self.expires_in,
        }
    }

    pub(crate) fn executor(&self) -> AccountId {
        let seed = Mock::seed(Round::Epoch(self.epoch)).unwrap_or_default();
        let hosts = Mock::of_profile(self.epoch, PROFILE);
        starling_math::draw::executor(&seed, &request_id(self.n), self.attempt, &hosts, &self.gateway)
            .unwrap_or(host(1))
    }

    pub(crate) fn started(&self) -> Started {
        let authorization = self.authorization();
        let hash = authorization.signing_hash(&genesis());
        let signature = MultiSignature::Sr25519(pair(self.signer).sign(hash.as_bytes()));
        Started {
            authorization: SignedAuthorization { authorization, signer: account(self.signer), signature },
            epoch: self.epoch,
            attempt: self.attempt,
            executor: self.executor(),
        }
    }

    pub(crate) fn finished(&self, prompt_tokens: u32, completion_tokens: u32) -> Finished {
        Finished {
            request_id: request_id(self.n),
            response_hash: hash_of(b"response", &self.n),
            transcript_root: hash_of(b"root", &self.n),
            prompt_tokens,
            completion_tokens,
        }
    }

    pub(crate) fn delivered(&self) -> Delivered {
        Delivered { request_id: request_id(self.n), response_hash: hash_of(b"response", &self.n) }
    }

    pub(crate) fn id(&self) -> Option<InferenceId> {
        pallet_inference::RequestIndex::<Test>::get(request_id(self.n))
    }

    pub(crate) fn record(&self) -> Option<InferenceRecord> {
        let id = self.id()?;
        pallet_inference::Inferences::<Test>::get(id.epoch, id.index)
    }
}

/// Calls that the gateway and the executor of a request would send.
pub(crate) fn start(ask: &Ask) {
    start_as(&ask.gateway, vec![ask.started()]);
}

pub(crate) fn start_as(host: &AccountId, items: Vec<Started>) {
    Inference::start(worker(host), items.try_into().unwrap()).unwrap();
}

pub(crate) fn finish(ask: &Ask, prompt_tokens: u32, completion_tokens: u32) {
    finish_as(&ask.executor(), vec![ask.finished(prompt_tokens, completion_tokens)]);
}

/// Each answer made with the tape of the epoch that its request is recorded in.
pub(crate) fn finish_as(host: &AccountId, items: Vec<Finished>) {
    let recorded = |finished: &Finished| {
        pallet_inference::RequestIndex::<Test>::get(finished.request_id).map_or(0, |id| id.epoch)
    };
    let items: Vec<_> =
        items.into_iter().map(|finished| FinishedIn { epoch: recorded(&finished), finished }).collect();
    Inference::finish(worker(host), items.try_into().unwrap()).unwrap();
}

pub(crate) fn deliver(ask: &Ask) {
    Inference::deliver(worker(&ask.gateway), vec![ask.delivered()].try_into().unwrap()).unwrap();
}

pub(crate) fn expire(ask: &Ask) {
    let items = vec![request_id(ask.n)].try_into().unwrap();
    Inference::expire(RuntimeOrigin::signed(host(99)), items).unwrap();
}

pub(crate) fn deposit_of(name: &'static str) -> pallet_inference::Deposit {
    pallet_inference::Deposits::<Test>::get(account(name))
}

pub(crate) fn ledger_account() -> Balance {
    Balances::balance(&Inference::account_id())
}

/// Why the last item was refused.
pub(crate) fn last_refusal() -> Option<pallet_inference::Refusal> {
    System::events().into_iter().rev().find_map(|record| match record.event {
        RuntimeEvent::Inference(pallet_inference::Event::RecordRefused { reason, .. }) => Some(reason),
        _ => None,
    })
}

/// Events of the pallet since the last call.
pub(crate) fn take_events() -> Vec<pallet_inference::Event<Test>> {
    let events = System::events().into_iter().filter_map(|record| match record.event {
        RuntimeEvent::Inference(event) => Some(event),
        _ => None,
    });
    let events = events.collect();
    System::reset_events();
    events
}

/// Goes on to `block`, with all the time of each block left for pruning.
pub(crate) fn run_to(block: BlockNumber) {
    while System::block_number() < u64::from(block) {
        Inference::on_idle(System::block_number(), Weight::MAX);
        System::set_block_number(System::block_number() + 1);
        let epoch = Current::get();
        let now = System::block_number() as u32;
        if now >= epoch.start + epoch.schedule.epoch_blocks {
            Before::set(Some(epoch));
            Current::set(epoch_state(epoch.index + 1, now));
            Inference::on_epoch_change(epoch.index);
        }
        if now == Current::get().start + Current::get().schedule.grace_blocks {
            Inference::on_claims_open(Current::get().index);
        }
    }
}

/// Goes on to the first block of an epoch.
pub(crate) fn run_to_epoch(index: EpochIndex) {
    while Current::get().index < index {
        run_to(System::block_number() as u32 + 1);
    }
}

/// Builds the externalities of a test.
pub(crate) struct ExtBuilder {
    deposit: Balance,
}

impl Default for ExtBuilder {
    fn default() -> Self {
        Self { deposit: 10_000 }
    }
}

impl ExtBuilder {
    /// What the first client deposits before the test.
    pub(crate) fn deposit(self, deposit: Balance) -> Self {
        Self { deposit }
    }

    pub(crate) fn build(self) -> sp_io::TestExternalities {
        let balances = ["Client", "Other", "Key"].map(|name| (account(name), ENDOWMENT)).to_vec();
        let config = RuntimeGenesisConfig {
            balances: pallet_balances::GenesisConfig { balances, ..Default::default() },
            ..Default::default()
        };
        let mut ext = sp_io::TestExternalities::new(config.build_storage().unwrap());
        ext.execute_with(|| {
            reset_mocks();
            System::set_block_number(1);
            frame_system::BlockHash::<Test>::insert(0, H256::repeat_byte(7));
            if self.deposit > 0 {
                Inference::deposit(RuntimeOrigin::signed(client()), self.deposit).unwrap();
            }
            System::reset_events();
        });
        ext
    }

    /// Runs a test and checks the pallet's state after it.
    #[cfg(test)]
    pub(crate) fn build_and_execute(self, test: impl FnOnce()) {
        self.build().execute_with(|| {
            test();
            Inference::do_try_state().unwrap();
        });
    }
}

fn reset_mocks() {
    Current::set(epoch_state(1, 1));
    Before::set(None);
    Misses::set(Vec::new());
    Away::set(None);
    Answered::set(BTreeMap::new());
    Struck::set(Vec::new());
    FeesPaid::set(BTreeMap::new());
    Retired::set(false);
    PotRefunds::set(true);
}
