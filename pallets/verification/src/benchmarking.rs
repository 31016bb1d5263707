//! Benchmarks of the calls, by what their items can come to, and of the bounded steps of the hooks.

use crate::*;
use alloc::{boxed::Box, vec::Vec};
use frame_benchmarking::v2::*;
use frame_support::{
    dispatch::CheckIfFeeless,
    traits::{Get, UnfilteredDispatchable},
    BoundedVec,
};
use frame_system::RawOrigin;
use sp_core::crypto::KeyTypeId;
use sp_runtime::MultiSignature;
use starling_math::{
    complaint::{Complaints, Ground},
    dispute::Votes,
    evidence::ACCUSES,
    panel::PANELS,
    plant::FIRST_ROUND,
};
use starling_primitives::{
    benchmarking::{self as scene, Scene, EPOCH, HOSTS, START},
    fraud::{Evidence, FraudProof, OpenedWindow},
    plant::{self, Consent},
    receipt::{Receipt, SignedReceipt},
    records::{response_hash, Finished, InferenceRecord, InferenceResult, InferenceState},
    request::{RequestHeader, SamplingParams},
    sampler::sample,
    tape::tape_seed,
    traits::{EpochHooks, Inferences, Round, Weights},
    transcript::{Candidate, TokenRecord, TranscriptBuilder, WINDOW_TOKENS},
    verdict::{Figures, Outcome, PanelCommit, PanelReveal, Verdict},
    AccountId, InferenceId, ProfileId, H256,
};
use types::{MAX_ACCUSERS, MAX_PANEL, MAX_VERDICTS};

const KEYS: KeyTypeId = KeyTypeId(*b"bnch");

/// Host 0 and all others have weight for `profiles` profiles.
fn prepare<T: Config + Scene>(profiles: u32) {
    T::set_clock(START + 1_000);
    T::set_profiles(profiles);
    T::set_weights(EPOCH, profiles, &scene::weights(HOSTS));
    T::set_host(&scene::host(0), &scene::worker(0));
}

fn id(index: u32) -> InferenceId {
    InferenceId { epoch: EPOCH, index }
}

/// Finished inferences of different hosts.
fn finish<T: Config + Scene>(count: u32, profiles: u32) {
    for index in 0..count {
        let executor = scene::host(1 + index % (HOSTS - 1));
        T::set_paid(id(index), scene::finished(index, executor, index % profiles, START + 990));
    }
}

fn measured(distance_sum: u64) -> Outcome {
    Outcome::Measured(Figures { tokens: 1_000, distance_sum, margin_sum: 0 })
}

fn call<T: Config>(count: u32, outcome: Outcome) -> Call<T> {
    let item = |index| Verdict { inference: id(index), outcome };
    Call::submit_verdicts { items: BoundedVec::truncate_from((0..count).map(item).collect()) }
}

/// Boundary at which the panels below were drawn.
const DRAWN: u32 = 10;
/// Disputes that a block looks at most, where none has a panel: each counts as eight seats.
const MAX_DISPUTES: u32 = 64;
/// The largest panels that a block draws or closes at most.
const MAX_PANELS: u32 = 2;

fn size<T: Config>() -> u32 {
    T::SecondPanel::get().min(MAX_PANEL)
}

/// A panel of the larger size, of the hosts from `first` on.
fn panel<T: Config>(first: u32) -> Panel {
    let mut members: Vec<Member> = (first..first + size::<T>())
        .map(|index| Member { host: scene::host(index % HOSTS), weight: scene::WEIGHT })
        .collect();
    members.sort_unstable_by(|a, b| a.host.cmp(&b.host));
    Panel { drawn: DRAWN, drawn_at: START + 900, members: BoundedVec::truncate_from(members) }
}

/// So many boundaries have passed since [`DRAWN`]; the newest one has a seed.
fn pass_boundaries<T: Config + Scene>(count: u32) {
    LastBoundary::<T>::put(Boundary { count: DRAWN + count, epoch: EPOCH, window: 3 });
    AgendaFrom::<T>::put(DRAWN + count);
    T::set_seed(Round::Coverage(EPOCH, 3), scene::epoch_seed(3));
}

/// A dispute that is due now.
fn dispute<T: Config + Scene>(id: InferenceId, executor: AccountId, profile: ProfileId, panels: u8) {
    let record = scene::finished(id.index, executor, profile, START + 990);
    T::set_paid(id, InferenceRecord { state: InferenceState::Disputed, ..record });
    let due = LastBoundary::<T>::get().count;
    let status = if panels < PANELS { DisputeStatus::Waiting } else { DisputeStatus::Judging };
    let accuser = scene::host(HOSTS - 1);
    let verdict = VerdictRecord { outcome: Outcome::ReplayFailed, passed: false, at: START + 800 };
    Verdicts::<T>::insert(id.epoch, (id.index, &accuser), verdict);
    ComplaintsOf::<T>::mutate(id.epoch, (&accuser, Ground::Answer), |complaints| complaints.open += 1);
    let dispute = Dispute { opened_at: START + 800, accuser: Some(accuser), panels, due, status };
    Disputes::<T>::insert(id.epoch, id.index, dispute);
    OpenDisputes::<T>::mutate(id.epoch, |open| *open += 1);
    Agenda::<T>::insert(due, id, ());
}

/// A plant of host 0 that was revealed, and that the hosts from 1 on approved, so many of them.
fn planted<T: Config + Scene>(approvers: u32) {
    dispute::<T>(id(0), scene::host(0), 0, FIRST_ROUND);
    let mut hosts: Vec<AccountId> = (1..=approvers).map(scene::host).collect();
    hosts.sort_unstable();
    ApproversOf::<T>::insert(EPOCH, 0, BoundedVec::truncate_from(hosts));
    Disputes::<T>::mutate(EPOCH, 0, |dispute| {
        if let Some(dispute) = dispute {
            dispute.status = DisputeStatus::Planted;
        }
    });
}

/// Disputes of different executors on whose last panel host 0 sits, and has committed itself to this.
fn judge<T: Config + Scene>(count: u32, outcome: Outcome) -> Vec<PanelReveal> {
    let round = PANELS - 1;
    let reveal = |index| PanelReveal { inference: id(index), round, outcome, salt: H256::repeat_byte(1) };
    let reveals: Vec<_> = (0..count).map(reveal).collect();
    for reveal in &reveals {
        let index = reveal.inference.index;
        dispute::<T>(reveal.inference, scene::host(1 + index % (HOSTS - 2)), 0, PANELS);
        Panels::<T>::insert(EPOCH, (index, round), panel::<T>(0));
        let commitment = reveal.commitment(&scene::host(0));
        Seats::<T>::insert(EPOCH, (index, round, scene::host(0)), Seat { commitment, verdict: None });
    }
    reveals
}

fn commitments(count: u32) -> Vec<PanelCommit> {
    let commit = |index| PanelCommit { inference: id(index), round: 0, commitment: H256::repeat_byte(1) };
    (0..count).map(commit).collect()
}

/// Sends what a worker sends: whether it is free of fees is asked first, as in every block.
fn send<T: Config>(call: Call<T>, worker: AccountId) -> Result<(), BenchmarkError> {
    let origin = RawOrigin::Signed(worker).into();
    if !call.is_feeless(&origin) {
        return Err(BenchmarkError::Stop("a worker's call is free of fees"));
    }
    call.dispatch_bypass_filter(origin).map(drop).map_err(|error| error.error.into())
}

/// The place of a product of verifier 0 about the host of inference `index`.
fn doubt(index: u32) -> (AccountId, ProfileId, AccountId) {
    (scene::host(1 + index), 0, scene::host(0))
}

/// An answer of host 1 of so many tokens, whose last one is another than the tape's; with every filter on and as many
/// candidates as there can be.
fn lie<T: Config + Scene>(tokens: u32) -> Result<(FraudProof, AccountId), BenchmarkError> {
    let sampling = SamplingParams {
        temperature_milli: 1_000,
        top_p: 9_999,
        min_p: 1,
        top_k: 20,
        ..SamplingParams::GREEDY
    };
    let header = RequestHeader {
        constraint: None,
        profile: 0,
        prompt_hash: H256::zero(),
        sampling,
        max_tokens: 32,
        nonce: [1; 32],
    };
    let (request_id, epoch_seed) = (header.id(), scene::epoch_seed(EPOCH));
    let seed = tape_seed(&epoch_seed, &request_id);
    let mut builder = TranscriptBuilder::new(header.clone());
    for position in 0..tokens {
        let candidate = |rank: u32| Candidate { token: 200 * rank + position, q: 380 + rank as u16 };
        let candidates: Vec<_> = (0..20).map(candidate).collect();
        let chosen = sample(&seed, position, &candidates, &sampling).unwrap_or(0) as u8;
        let chosen = if position + 1 == tokens { (chosen + 1) % 20 } else { chosen };
        builder.push(TokenRecord { candidates, chosen });
    }
    let (transcript, _) = builder.finish();
    let answer = transcript.tokens().map_err(|_| BenchmarkError::Stop("the transcript decodes"))?;
    let finished = Finished {
        request_id,
        response_hash: response_hash(&answer),
        transcript_root: transcript.root(),
        prompt_tokens: 1,
        completion_tokens: tokens,
    };
    let result = InferenceResult {
        response_hash: finished.response_hash,
        transcript_root: finished.transcript_root,
        prompt_tokens: 1,
        completion_tokens: tokens,
        finished_at: START + 990,
    };
    let executor = scene::host(1);
    let record = scene::finished(0, executor.clone(), 0, START + 990);
    T::set_paid(id(0), InferenceRecord { request_id, result: Some(result), ..record });
    let worker = sp_io::crypto::sr25519_generate(KEYS, None);
    T::set_host(&executor, &AccountId::from(worker));
    let receipt = Receipt { epoch: EPOCH, epoch_seed, executor: executor.clone(), finished };
    let hash = receipt.signing_hash(&scene::genesis());
    let signature = sp_io::crypto::sr25519_sign(KEYS, &worker, hash.as_bytes()).unwrap_or_default();
    let receipt = SignedReceipt { receipt, worker, signature };
    let opened = transcript.window_proof(0).and_then(OpenedWindow::new);
    let opened = opened.ok_or(BenchmarkError::Stop("there is a window"))?;
    let evidence = Evidence::Window { header, opened };
    Ok((FraudProof { inference: id(0), receipt, evidence }, executor))
}

#[benchmarks(where T: Scene)]
mod benches {
    use super::*;

    /// Verdicts within the limits, about different hosts, that move a running product of the epoch before.
    #[benchmark]
    fn submit_verdicts(n: Linear<1, MAX_VERDICTS>) -> Result<(), BenchmarkError> {
        prepare::<T>(1);
        let count = n;
        finish::<T>(count, 1);
        for index in 0..count {
            Doubts::<T>::insert(EPOCH - 1, doubt(index), ACCUSES / 2);
        }
        let call = call::<T>(count, measured(0));
        #[block]
        {
            send(call, scene::worker(0))?;
        }
        assert_eq!(Verdicts::<T>::iter_prefix(EPOCH).count() as u32, count);
        Ok(())
    }

    /// A full batch over so many profiles, each served by every host.
    #[benchmark]
    fn submit_profiles(p: Linear<1, MAX_VERDICTS>) -> Result<(), BenchmarkError> {
        prepare::<T>(p);
        finish::<T>(MAX_VERDICTS, p);
        let call = call::<T>(MAX_VERDICTS, measured(0));
        #[block]
        {
            send(call, scene::worker(0))?;
        }
        assert_eq!(Verdicts::<T>::iter_prefix(EPOCH).count() as u32, MAX_VERDICTS);
        Ok(())
    }

    /// Verdicts that would open too many disputes: the last of the checks. The fee rule looks at all of them first.
    #[benchmark]
    fn submit_refused(n: Linear<1, MAX_VERDICTS>) -> Result<(), BenchmarkError> {
        prepare::<T>(1);
        let count = n;
        finish::<T>(count, 1);
        let open = Complaints { open: u32::MAX, upheld: 0, rejected: 0 };
        ComplaintsOf::<T>::insert(EPOCH, (scene::host(0), Ground::Answer), open);
        let call = call::<T>(count, Outcome::ReplayFailed);
        let origin: T::RuntimeOrigin = RawOrigin::Signed(scene::worker(0)).into();
        let mut free = true;
        #[block]
        {
            free &= call.is_feeless(&origin);
            call.dispatch_bypass_filter(origin).map_err(|error| error.error)?;
        }
        assert!(!free);
        assert_eq!(Verdicts::<T>::iter_prefix(EPOCH).count(), 0);
        Ok(())
    }

    /// Verdicts beyond the limits that each open a dispute.
    #[benchmark]
    fn submit_failing(n: Linear<1, MAX_VERDICTS>) -> Result<(), BenchmarkError> {
        prepare::<T>(1);
        let count = n;
        finish::<T>(count, 1);
        // As many are heard of who was right before.
        let upheld = Complaints { open: 0, upheld: count, rejected: 0 };
        ComplaintsOf::<T>::insert(EPOCH, (scene::host(0), Ground::Answer), upheld);
        let call = call::<T>(count, Outcome::ReplayFailed);
        #[block]
        {
            send(call, scene::worker(0))?;
        }
        assert_eq!(OpenDisputes::<T>::get(EPOCH), count);
        Ok(())
    }

    /// Commitments to panels of the larger size.
    #[benchmark]
    fn commit_verdicts(n: Linear<1, MAX_VERDICTS>) -> Result<(), BenchmarkError> {
        prepare::<T>(1);
        pass_boundaries::<T>(0);
        for index in 0..n {
            Panels::<T>::insert(EPOCH, (index, 0), panel::<T>(0));
        }
        let call = Call::<T>::commit_verdicts { items: BoundedVec::truncate_from(commitments(n)) };
        let count = n;
        #[block]
        {
            send(call, scene::worker(0))?;
        }
        assert_eq!(Seats::<T>::iter_prefix(EPOCH).count() as u32, count);
        Ok(())
    }

    /// What the fee rule looks at: commitments that were made before, the last of the checks.
    #[benchmark]
    fn commit_refused(n: Linear<1, MAX_VERDICTS>) {
        prepare::<T>(1);
        pass_boundaries::<T>(0);
        for index in 0..n {
            Panels::<T>::insert(EPOCH, (index, 0), panel::<T>(0));
            let seat = Seat { commitment: H256::repeat_byte(2), verdict: None };
            Seats::<T>::insert(EPOCH, (index, 0, scene::host(0)), seat);
        }
        let (items, taken);
        #[block]
        {
            items = commitments(n);
            taken = Pallet::<T>::may_commit(&scene::host(0), &items);
        }
        assert!(!taken);
    }

    /// Reveals within the limits that decide nothing, and move a running product of the epoch before.
    #[benchmark]
    fn reveal_verdicts(n: Linear<1, MAX_VERDICTS>) -> Result<(), BenchmarkError> {
        prepare::<T>(1);
        pass_boundaries::<T>(2);
        let count = n;
        let reveals = judge::<T>(count, measured(0));
        for index in 0..count {
            Doubts::<T>::insert(EPOCH - 1, doubt(index), ACCUSES / 2);
        }
        let call = Call::<T>::reveal_verdicts { items: BoundedVec::truncate_from(reveals) };
        #[block]
        {
            send(call, scene::worker(0))?;
        }
        // Each beside the one that opened the dispute.
        assert_eq!(Verdicts::<T>::iter_prefix(EPOCH).count() as u32, 2 * count);
        Ok(())
    }

    /// What the fee rule looks at: reveals whose figures belong to no transcript of that length, the last of the checks.
    #[benchmark]
    fn reveal_refused(n: Linear<1, MAX_VERDICTS>) {
        prepare::<T>(1);
        pass_boundaries::<T>(2);
        let reveals = judge::<T>(n, measured(u64::MAX));
        let taken;
        #[block]
        {
            taken = Pallet::<T>::may_reveal(&scene::host(0), &reveals);
        }
        assert!(!taken);
    }

    /// Reveals that each give a panel its majority: a refund and a conviction.
    #[benchmark]
    fn reveal_deciding(n: Linear<1, MAX_VERDICTS>) -> Result<(), BenchmarkError> {
        prepare::<T>(1);
        pass_boundaries::<T>(2);
        let count = n;
        let reveals = judge::<T>(count, Outcome::ReplayFailed);
        let votes = Votes { failed: panel::<T>(0).weight() / 2, ..Votes::default() };
        for index in 0..count {
            T::set_host(&scene::host(1 + index), &scene::worker(1 + index));
            Reputations::<T>::insert(scene::host(1 + index), 500_000);
            PanelTallies::<T>::insert(EPOCH, (index, PANELS - 1), PanelTally { committed: 1, votes });
        }
        let call = Call::<T>::reveal_verdicts { items: BoundedVec::truncate_from(reveals) };
        #[block]
        {
            send(call, scene::worker(0))?;
        }
        assert_eq!(Convictions::<T>::iter_prefix(EPOCH).count() as u32, count);
        Ok(())
    }

    /// One verdict whose product crosses its limit, when so many others of both epochs accuse already.
    #[benchmark]
    fn accuse(a: Linear<0, { HOSTS - 2 }>) -> Result<(), BenchmarkError> {
        prepare::<T>(1);
        finish::<T>(1, 1);
        T::set_host(&scene::host(1), &scene::worker(1));
        let place = (scene::host(1), 0);
        let accusers = |from: u32, to: u32| BoundedVec::truncate_from((from..to).map(scene::host).collect());
        Accusations::<T>::insert(EPOCH, &place, accusers(2, 2 + a / 2));
        Accusations::<T>::insert(EPOCH - 1, &place, accusers(2 + a / 2, 2 + a));
        Doubts::<T>::insert(EPOCH - 1, doubt(0), ACCUSES + 1_000);
        let call = call::<T>(1, measured(0));
        #[block]
        {
            send(call, scene::worker(0))?;
        }
        let accused = Standings::<T>::contains_key(EPOCH, scene::host(1));
        assert!(accused || Convictions::<T>::contains_key(EPOCH, scene::host(1)));
        Ok(())
    }

    /// A window of so many tokens whose last one is the lie.
    #[benchmark]
    fn prove_fraud(w: Linear<1, { WINDOW_TOKENS as u32 }>) -> Result<(), BenchmarkError> {
        prepare::<T>(1);
        let (proof, executor) = lie::<T>(w)?;
        Reputations::<T>::insert(&executor, 500_000);
        let call = Call::<T>::prove_fraud { proof: Box::new(proof) };
        #[block]
        {
            send(call, scene::worker(0))?;
        }
        assert!(Convictions::<T>::contains_key(EPOCH, &executor));
        Ok(())
    }

    /// So many disputes whose time for verdicts is over.
    #[benchmark]
    fn agenda(n: Linear<0, MAX_DISPUTES>) {
        prepare::<T>(1);
        pass_boundaries::<T>(0);
        let epoch = EPOCH - 2;
        for index in 0..n {
            dispute::<T>(InferenceId { epoch, index }, scene::host(1 + index), 0, PANELS);
        }
        #[block]
        {
            Pallet::<T>::work_off_agenda();
        }
        assert_eq!(OpenDisputes::<T>::get(epoch), 0);
    }

    /// Panels of the larger size, each on an inference of another profile, drawn from a full network.
    #[benchmark]
    fn draw_panels(n: Linear<0, MAX_PANELS>) {
        prepare::<T>(MAX_PANELS);
        pass_boundaries::<T>(0);
        for index in 0..HOSTS {
            T::set_host(&scene::host(index), &scene::worker(index));
        }
        for index in 0..n {
            dispute::<T>(id(index), scene::host(1 + index), index, 1);
        }
        #[block]
        {
            Pallet::<T>::work_off_agenda();
        }
        let drawn =
            Panels::<T>::iter_prefix_values(EPOCH).filter(|panel| panel.members.len() as u32 == size::<T>());
        assert_eq!(drawn.count() as u32, n);
    }

    /// Panels of the larger size, of different hosts, that all kept silent until the end.
    #[benchmark]
    fn close_panels(n: Linear<0, MAX_PANELS>) {
        prepare::<T>(1);
        pass_boundaries::<T>(4);
        for index in 0..HOSTS {
            Reputations::<T>::insert(scene::host(index), 500_000);
        }
        for index in 0..n {
            dispute::<T>(id(index), scene::host(HOSTS - 2), 0, PANELS);
            Panels::<T>::insert(EPOCH, (index, PANELS - 1), panel::<T>(index * size::<T>()));
        }
        #[block]
        {
            Pallet::<T>::work_off_agenda();
        }
        assert_eq!(OpenDisputes::<T>::get(EPOCH), 0);
        assert_eq!(Missed::<T>::iter_prefix(EPOCH).count() as u32, n * size::<T>());
    }

    /// The host's first commitment of the epoch.
    #[benchmark]
    fn commit_plant() -> Result<(), BenchmarkError> {
        prepare::<T>(1);
        let call = Call::<T>::commit_plant { commitment: H256::repeat_byte(1) };
        #[block]
        {
            send(call, scene::worker(0))?;
        }
        assert!(Plants::<T>::contains_key(EPOCH, scene::host(0)));
        Ok(())
    }

    /// A plant that so many hosts could have approved and all have, while a panel of the larger size judges it.
    #[benchmark]
    fn reveal_plant(h: Linear<1, HOSTS>) -> Result<(), BenchmarkError> {
        prepare::<T>(1);
        pass_boundaries::<T>(0);
        T::set_weights(EPOCH, 1, &scene::weights(h));
        for index in 1..h {
            let verdict = VerdictRecord { outcome: measured(0), passed: true, at: START };
            Verdicts::<T>::insert(EPOCH, (0, scene::host(index)), verdict);
        }
        dispute::<T>(id(0), scene::host(0), 0, PANELS);
        Panels::<T>::insert(EPOCH, (0, PANELS - 1), panel::<T>(0));
        let client = sp_io::crypto::sr25519_generate(KEYS, None);
        let hash = Consent::signing_hash(&scene::genesis(), &scene::request(0));
        let signature = sp_io::crypto::sr25519_sign(KEYS, &client, hash.as_bytes()).unwrap_or_default();
        let consent = Consent { signer: client.into(), signature: MultiSignature::Sr25519(signature) };
        if let Some(record) = T::Inferences::record(id(0)) {
            T::set_paid(id(0), InferenceRecord { client: client.into(), ..record });
        }
        let salt = H256::repeat_byte(1);
        let commitment = plant::commitment(scene::request(0), salt);
        Plants::<T>::insert(EPOCH, scene::host(0), Plant { commitment, committed_at: START, revealed: None });
        let call = Call::<T>::reveal_plant { inference: id(0), salt, consent };
        #[block]
        {
            send(call, scene::worker(0))?;
        }
        // All but the one who opened the dispute, if it is among them.
        assert_eq!(ApproversOf::<T>::get(EPOCH, 0).len() as u32, (h - 1).min(HOSTS - 2));
        Ok(())
    }

    /// The last of as many approvers as there can be.
    #[benchmark]
    fn contest_plant() -> Result<(), BenchmarkError> {
        prepare::<T>(1);
        pass_boundaries::<T>(0);
        planted::<T>(HOSTS - 2);
        let last = ApproversOf::<T>::get(EPOCH, 0).into_iter().last();
        let last = last.ok_or(BenchmarkError::Stop("there are approvers"))?;
        T::set_host(&last, &scene::worker(1));
        let call = Call::<T>::contest_plant { inference: id(0) };
        #[block]
        {
            send(call, scene::worker(1))?;
        }
        assert!(Disputes::<T>::get(EPOCH, 0).is_some_and(|dispute| dispute.accuser == Some(last)));
        Ok(())
    }

    /// A plant that nobody contests, of so many approvers with a reputation.
    #[benchmark]
    fn release_approvers(n: Linear<0, { T::MaxSeatsPerBlock::get() }>) {
        prepare::<T>(1);
        pass_boundaries::<T>(0);
        planted::<T>(n);
        for index in 0..HOSTS {
            Reputations::<T>::insert(scene::host(index), 500_000);
        }
        #[block]
        {
            Pallet::<T>::work_off_agenda();
        }
        assert_eq!(Negligences::<T>::iter_prefix(EPOCH).count() as u32, n);
    }

    /// The second coverage boundary of an epoch, which closes a window of the epoch before as well.
    #[benchmark]
    fn coverage() {
        prepare::<T>(1);
        for epoch in [EPOCH - 1, EPOCH] {
            finish::<T>(2, 1);
            let id = InferenceId { epoch, index: 1 };
            T::set_paid(id, scene::finished(1, scene::host(1), 0, START - 1_000));
            Coverage::<T>::insert(epoch, CoverageState { windows: 1, closed: 0, counted: 1 });
        }
        let offset = 2 * scene::epoch().schedule.coverage_blocks;
        #[block]
        {
            <Pallet<T> as EpochHooks>::on_coverage_boundary(EPOCH, offset);
        }
        assert_eq!(Coverage::<T>::get(EPOCH - 1).closed, T::Inferences::count(EPOCH - 1));
    }

    /// So many entries of an epoch that nobody can claim any more: the longest, and all lists looked through.
    #[benchmark]
    fn prune(n: Linear<0, { T::MaxPrunedPerBlock::get() }>) {
        prepare::<T>(1);
        let epoch = EPOCH - 3;
        PrunedBefore::<T>::put(epoch);
        let accusers = (0..MAX_ACCUSERS).map(scene::host).collect();
        let accusers = BoundedVec::truncate_from(accusers);
        for index in 0..n {
            Accusations::<T>::insert(epoch, (scene::host(index), 0), &accusers);
        }
        #[block]
        {
            Pallet::<T>::prune_epoch(epoch, n);
        }
        assert!(Accusations::<T>::iter_key_prefix(epoch).next().is_none());
    }
}
