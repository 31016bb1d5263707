//! A runtime with nothing real but this pallet; the tests set what the others answer.

#![allow(unreachable_pub, reason = "the mock runtime is public in a private module")]

use crate as pallet_verification;
use frame_support::{
    derive_impl, parameter_types,
    traits::{ConstU32, Hooks},
    weights::Weight,
};
use sp_core::{sr25519, Pair};
use sp_runtime::{traits::IdentityLookup, BuildStorage};
use starling_primitives::{
    hashing::hash_of,
    profile::{Calibration, Numerics, Profile},
    records::{Delivery, InferenceRecord, InferenceResult, InferenceState},
    schedule::{EpochState, Schedule},
    traits::{Beacon, Bonds, Clock, EpochHooks, HostWeight, Hosts, Inferences, Profiles, Round, Weights},
    verdict::{Figures, Outcome, PanelCommit, PanelReveal, PanelRound, Verdict},
    AccountId, Balance, BlockNumber, EpochIndex, InferenceId, Ppm, ProfileId, RequestId, Work, H256,
};
use std::collections::BTreeMap;

type Block = frame_system::mocking::MockBlock<Test>;

/// Profile that hosts 1 to 4 serve, with weights 10, 20, 30, 40.
pub(crate) const PROFILE: ProfileId = 0;
/// Tokens of every completion.
pub(crate) const TOKENS: u32 = 100;
/// What a false fraud proof costs.
pub(crate) const STAKE: Balance = 50;
/// What [`client`] has, and each host's bond.
pub(crate) const ENDOWMENT: Balance = 1_000;

frame_support::construct_runtime!(
    pub enum Test {
        System: frame_system,
        Balances: pallet_balances,
        Verification: pallet_verification,
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
    pub const Minimum: Balance = 1;
    pub const Stake: Balance = STAKE;
    /// What each host answers with.
    pub static BondOf: BTreeMap<AccountId, Balance> = BTreeMap::new();
    pub static Current: EpochState = epoch_state(1, 1);
    pub static Before: Option<EpochState> = None;
    pub static Records: BTreeMap<InferenceId, InferenceRecord> = BTreeMap::new();
    pub static FrozenReputation: BTreeMap<AccountId, Ppm> = BTreeMap::new();
    pub static Convicted: Vec<AccountId> = Vec::new();
    /// Hosts that declared to be down, always.
    pub static Away: Vec<AccountId> = Vec::new();
    pub static Settled: Vec<(InferenceId, bool)> = Vec::new();
}

impl pallet_verification::Config for Test {
    type Currency = Balances;
    type Bonds = Mock;
    type FraudDeposit = Stake;
    type Clock = Mock;
    type Beacon = Mock;
    type Hosts = Mock;
    type Profiles = Mock;
    type Weights = Mock;
    type Inferences = Mock;
    type FirstPanel = ConstU32<2>;
    type SecondPanel = ConstU32<3>;
    // Two disputes of two seats.
    type MaxSeatsPerBlock = ConstU32<20>;
    type MaxPrunedPerBlock = ConstU32<8>;
    type WeightInfo = crate::weights::SubstrateWeight<Test>;
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
        Some(hash_of(b"seed", &round))
    }
    fn withheld(_: EpochIndex, _: &AccountId) -> bool {
        false
    }
}

impl Hosts for Mock {
    fn host_of(worker: &AccountId) -> Option<AccountId> {
        (1..=5).map(host).find(|host| worker_of(host) == *worker && !Convicted::get().contains(host))
    }
    fn worker_of(host: &AccountId) -> Option<AccountId> {
        Some(worker_of(host))
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
    fn is_away(host: &AccountId, _: BlockNumber, _: BlockNumber) -> bool {
        Away::get().contains(host)
    }
    fn count() -> u32 {
        5
    }
    fn on_weight(_: &AccountId, _: Work) {}
    fn convict(host: &AccountId) {
        Convicted::mutate(|hosts| hosts.push(host.clone()));
    }
    fn slash_bond(_: &AccountId, _: Balance, _: &AccountId) -> Balance {
        0
    }
}

impl Bonds for Mock {
    fn bond(host: &AccountId) -> Balance {
        BondOf::get().get(host).copied().unwrap_or(0)
    }
    fn burn(host: &AccountId, amount: Balance) -> Balance {
        let burned = amount.min(Self::bond(host));
        BondOf::mutate(|bonds| bonds.insert(host.clone(), Self::bond(host) - burned));
        burned
    }
}

impl Profiles for Mock {
    fn profile(id: ProfileId) -> Option<Profile> {
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
            calibration: Calibration { distance_limit: 10, margin_limit: 20, short_allowance: 0 },
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
        let frozen = FrozenReputation::get();
        let entry = |id: u8| HostWeight {
            host: host(id),
            weight: 10 * u64::from(id),
            reputation: frozen.get(&host(id)).copied().unwrap_or(0),
        };
        (1..=4).map(entry).collect()
    }
    fn weight(epoch: EpochIndex, host: &AccountId) -> Work {
        Self::hosts(epoch).iter().find(|entry| entry.host == *host).map_or(0, |entry| entry.weight)
    }
    fn total(epoch: EpochIndex) -> Work {
        Self::hosts(epoch).iter().map(|entry| entry.weight).sum()
    }
}

impl Inferences for Mock {
    fn count(epoch: EpochIndex) -> u32 {
        Records::get().keys().filter(|id| id.epoch == epoch).count() as u32
    }
    fn record(id: InferenceId) -> Option<InferenceRecord> {
        Records::get().get(&id).cloned()
    }
    fn note_verdict(id: InferenceId, at: BlockNumber) {
        change(id, |record| record.first_verdict_at = record.first_verdict_at.or(Some(at)));
    }
    fn dispute(id: InferenceId) {
        change(id, |record| record.state = InferenceState::Disputed);
    }
    fn settle_dispute(id: InferenceId, valid: bool) {
        let state = if valid { InferenceState::Valid } else { InferenceState::Invalid };
        change(id, |record| {
            assert_eq!(record.state, InferenceState::Disputed, "only a disputed inference is settled");
            record.state = state;
        });
        Settled::mutate(|settled| settled.push((id, valid)));
    }
    fn invalidate(id: InferenceId) {
        use InferenceState::{Delivered, Disputed, Finished, Valid};
        if Self::record(id)
            .is_some_and(|record| matches!(record.state, Finished | Delivered | Disputed | Valid))
        {
            change(id, |record| record.state = InferenceState::Invalid);
            Settled::mutate(|settled| settled.push((id, false)));
        }
    }
    fn plant(id: InferenceId) {
        use InferenceState::{Delivered, Disputed, Finished};
        let state = state(id);
        assert!(matches!(state, Finished | Delivered | Disputed), "a plant is revealed before it is judged");
        change(id, |record| record.state = InferenceState::Planted);
        Settled::mutate(|settled| settled.push((id, false)));
    }
}

pub(crate) fn host(id: u8) -> AccountId {
    AccountId::new([id; 32])
}

/// The key of a host's worker.
pub(crate) fn pair_of(host: &AccountId) -> sr25519::Pair {
    sr25519::Pair::from_seed(host.as_ref())
}

pub(crate) fn worker_of(host: &AccountId) -> AccountId {
    pair_of(host).public().into()
}

/// Who pays for the inferences.
pub(crate) fn client() -> AccountId {
    host(100)
}

pub(crate) fn worker(id: u8) -> RuntimeOrigin {
    RuntimeOrigin::signed(worker_of(&host(id)))
}

pub(crate) fn epoch_state(index: EpochIndex, start: BlockNumber) -> EpochState {
    EpochState { index, start, extension: 0, sprint_cancelled: false, schedule: Schedule::TEST }
}

pub(crate) fn now() -> BlockNumber {
    System::block_number() as u32
}

pub(crate) fn change(id: InferenceId, with: impl FnOnce(&mut InferenceRecord)) {
    Records::mutate(|records| records.get_mut(&id).map(with));
}

pub(crate) fn request_id(id: InferenceId) -> RequestId {
    hash_of(b"request", &id)
}

/// Records an inference of the current epoch that runs at a host.
pub(crate) fn started(executor: u8) -> InferenceId {
    started_in(Current::get().index, executor)
}

pub(crate) fn started_in(epoch: EpochIndex, executor: u8) -> InferenceId {
    let id = InferenceId { epoch, index: <Mock as Inferences>::count(epoch) };
    let record = InferenceRecord {
        request_id: request_id(id),
        client: client(),
        delegate: None,
        expires_at: now(),
        gateway: host(1),
        executor: host(executor),
        profile: PROFILE,
        attempt: 0,
        state: InferenceState::Started,
        started_at: now(),
        amount: 1,
        result: None,
        delivery: Delivery::Pending,
        first_verdict_at: None,
    };
    Records::mutate(|records| records.insert(id, record));
    id
}

pub(crate) fn finish(id: InferenceId) {
    change(id, |record| {
        record.state = InferenceState::Finished;
        record.result = Some(InferenceResult {
            response_hash: H256::zero(),
            transcript_root: H256::zero(),
            prompt_tokens: 10,
            completion_tokens: TOKENS,
            finished_at: now(),
        });
    });
}

/// Records an inference of the current epoch that a host has finished.
pub(crate) fn finished(executor: u8) -> InferenceId {
    let id = started(executor);
    finish(id);
    id
}

pub(crate) fn state(id: InferenceId) -> InferenceState {
    Mock::record(id).unwrap().state
}

/// At the limits of the calibration.
pub(crate) fn good() -> Outcome {
    let tokens = TOKENS;
    Outcome::Measured(Figures { tokens, distance_sum: 1_000, margin_sum: 2_000 })
}

/// Just beyond them.
pub(crate) fn bad() -> Outcome {
    let tokens = TOKENS;
    Outcome::Measured(Figures { tokens, distance_sum: 1_001, margin_sum: 2_000 })
}

pub(crate) fn submit(verifier: u8, inference: InferenceId, outcome: Outcome) {
    let items = vec![Verdict { inference, outcome }].try_into().unwrap();
    Verification::submit_verdicts(worker(verifier), items).unwrap();
}

/// What a member of a panel will say.
pub(crate) fn sealed(
    verifier: u8,
    inference: InferenceId,
    round: PanelRound,
    outcome: Outcome,
) -> PanelReveal {
    PanelReveal { inference, round, outcome, salt: hash_of(b"salt", &(verifier, inference, round)) }
}

pub(crate) fn commit(verifier: u8, sealed: &PanelReveal) {
    let commitment = sealed.commitment(&host(verifier));
    let item = PanelCommit { inference: sealed.inference, round: sealed.round, commitment };
    Verification::commit_verdicts(worker(verifier), vec![item].try_into().unwrap()).unwrap();
}

pub(crate) fn reveal(verifier: u8, sealed: &PanelReveal) {
    Verification::reveal_verdicts(worker(verifier), vec![*sealed].try_into().unwrap()).unwrap();
}

/// Hosts on a panel.
pub(crate) fn members(id: InferenceId, round: PanelRound) -> Vec<u8> {
    let panel = crate::Panels::<Test>::get(id.epoch, (id.index, round)).expect("it was drawn");
    panel.members.iter().map(|member| <[u8; 32]>::from(member.host.clone())[0]).collect()
}

/// Goes on to the next boundary of a coverage window, `times` times.
pub(crate) fn run_to_boundary(times: u32) {
    let boundary = crate::LastBoundary::<Test>::get().count + times;
    while crate::LastBoundary::<Test>::get().count < boundary {
        run_to(now() + 1);
    }
}

/// Lets members of the panel that is drawn next commit and reveal these verdicts, the rest keep silent.
pub(crate) fn hear(id: InferenceId, votes: &[(u8, Outcome)]) {
    let drawn = || crate::Disputes::<Test>::get(id.epoch, id.index).expect("it is disputed").panels;
    let round = drawn();
    while drawn() == round {
        run_to(now() + 1);
    }
    let sealed: Vec<_> =
        votes.iter().map(|(verifier, outcome)| (*verifier, sealed(*verifier, id, round, *outcome))).collect();
    sealed.iter().for_each(|(verifier, sealed)| commit(*verifier, sealed));
    if members(id, round).len() > votes.len() {
        run_to_boundary(starling_math::panel::COMMIT_WINDOWS);
    }
    sealed.iter().for_each(|(verifier, sealed)| reveal(*verifier, sealed));
}

/// Why the last verdict was refused.
pub(crate) fn last_refusal() -> Option<crate::Refusal> {
    take_events().into_iter().rev().find_map(|event| match event {
        crate::Event::VerdictRefused { reason, .. } => Some(reason),
        _ => None,
    })
}

/// Events of the pallet since the last call.
pub(crate) fn take_events() -> Vec<crate::Event<Test>> {
    let events = System::events().into_iter().filter_map(|record| match record.event {
        RuntimeEvent::Verification(event) => Some(event),
        _ => None,
    });
    let events = events.collect();
    System::reset_events();
    events
}

/// Goes on to `block`; the clock ticks as the epochs pallet's does.
pub(crate) fn run_to(block: BlockNumber) {
    while now() < block {
        Verification::on_idle(System::block_number(), Weight::MAX);
        System::set_block_number(System::block_number() + 1);
        tick();
        Verification::on_initialize(System::block_number());
    }
}

fn tick() {
    let epoch = Current::get();
    if now() >= epoch.start + epoch.schedule.epoch_blocks {
        Before::set(Some(epoch));
        Current::set(epoch_state(epoch.index + 1, now()));
        Verification::on_epoch_change(epoch.index);
    }
    let current = Current::get();
    let in_grace = Before::get().filter(|_| now() <= current.start + current.schedule.grace_blocks);
    for epoch in in_grace.into_iter().chain([current]) {
        let offset = now() - epoch.start;
        if offset > 0 && offset.is_multiple_of(epoch.schedule.coverage_blocks) {
            Verification::on_coverage_boundary(epoch.index, offset);
        }
    }
}

/// Goes on to a block of an epoch.
pub(crate) fn run_to_epoch(index: EpochIndex, offset: BlockNumber) {
    while Current::get().index < index {
        run_to(now() + 1);
    }
    run_to(Current::get().start + offset);
}

/// The state before a test: block 1, the first of epoch 1.
pub(crate) fn build() -> sp_io::TestExternalities {
    let balances =
        pallet_balances::GenesisConfig { balances: vec![(client(), ENDOWMENT)], ..Default::default() };
    let config = RuntimeGenesisConfig { balances, ..Default::default() };
    let mut ext = sp_io::TestExternalities::new(config.build_storage().unwrap());
    ext.execute_with(|| {
        Current::set(epoch_state(1, 1));
        Before::set(None);
        Records::set(BTreeMap::new());
        FrozenReputation::set(BTreeMap::new());
        Convicted::set(Vec::new());
        Away::set(Vec::new());
        Settled::set(Vec::new());
        BondOf::set((1..=5).map(|id| (host(id), ENDOWMENT)).collect());
        System::set_block_number(1);
    });
    ext
}

/// Runs a test and checks the pallet's state after it.
pub(crate) fn build_and_execute(test: impl FnOnce()) {
    build().execute_with(|| {
        test();
        Verification::do_try_state().unwrap();
    });
}
