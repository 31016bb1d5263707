//! The scene that the pallets' benchmarks play in: their neighbours' state, put straight into storage.

use crate::*;
use alloc::vec;
use frame_support::{
    traits::fungible::{Mutate, MutateHold},
    BoundedVec,
};
use pallet_hosts::{Endpoints, HostInfo, HostProfiles, HostStatus};
use pallet_verification::{Conviction, CoverageMark};
use starling_math::{draw, duty};
use starling_primitives::{
    benchmarking::{self as scene, Scene, EPOCH, RESERVE, START},
    hashing::hash_of,
    profile::{Calibration, Numerics, Profile},
    records::InferenceRecord,
    traits::{HostWeight, Pots, Round},
    EpochIndex, InferenceId, ProfileId, RequestId, H256,
};

/// Coverage windows of an epoch of the main schedule.
const WINDOWS: u32 = 48;

/// Addresses as long as they can be.
fn longest_endpoints() -> Endpoints {
    let address = BoundedVec::truncate_from(vec![b'a'; 128]);
    Endpoints {
        peer_id: BoundedVec::truncate_from(vec![b'p'; 64]),
        multiaddrs: BoundedVec::truncate_from(vec![address; 8]),
        gateway_url: BoundedVec::truncate_from(vec![b'u'; 256]),
    }
}

fn profile(id: ProfileId) -> Profile {
    let mut name = vec![b'n'; 64];
    name.splice(..4, alloc::format!("{id:04}").into_bytes());
    Profile {
        name: BoundedVec::truncate_from(name),
        weights_digest: H256::repeat_byte(1),
        tokenizer_digest: H256::repeat_byte(2),
        numerics: Numerics::F32,
        top_k: 20,
        max_context: 32_768,
        vocab_size: 151_936,
        prompt_price: TOKEN / 1_000_000,
        completion_price: TOKEN / 1_000_000,
        prompt_work: 1,
        completion_work: 4,
        sprint_tolerance: 10_000,
        calibration: Calibration { distance_limit: 10, margin_limit: 10, short_allowance: 100 },
    }
}

fn set_epoch_seed(epoch: EpochIndex, at: BlockNumber) {
    pallet_beacon::Seeds::<Runtime>::insert(Round::Epoch(epoch), scene::epoch_seed(epoch));
    pallet_beacon::FinalAt::<Runtime>::insert(epoch, at);
}

fn mint(account: &AccountId, amount: Balance) {
    Balances::mint_into(account, amount).expect("the scene's funds fit into a balance");
}

/// A request that is not the duty of `host`: neither drawn by its secret nor assigned by the window's seed.
fn no_duty(
    hosts: &[HostWeight],
    host: &AccountId,
    secret: &H256,
    executor: &HostWeight,
    (index, window_seed): (u32, &H256),
) -> RequestId {
    let total = draw::total(hosts);
    let target = duty::target(executor.reputation);
    let is_duty = |request: &RequestId| {
        duty::is_duty(secret, request, target, scene::WEIGHT, total, executor.weight)
            || draw::coverage_verifiers(window_seed, request, hosts, &executor.host)
                .any(|verifier| verifier == host)
    };
    let mut requests = (0u32..).map(|attempt| hash_of(b"starling/benchmark/no duty", &(index, attempt)));
    requests.find(|request| !is_duty(request)).unwrap_or_default()
}

impl Scene for Runtime {
    fn set_clock(now: BlockNumber) {
        pallet_epochs::Current::<Runtime>::put(scene::epoch());
        pallet_epochs::Previous::<Runtime>::put(scene::previous());
        System::set_block_number(now);
        frame_system::BlockHash::<Runtime>::insert(0, scene::genesis());
        set_epoch_seed(EPOCH - 1, 1_000);
        set_epoch_seed(EPOCH, 1_100);
        set_epoch_seed(EPOCH + 1, 1_200);
    }

    fn forget_next_seed() {
        pallet_beacon::Seeds::<Runtime>::remove(Round::Epoch(EPOCH + 1));
        pallet_beacon::FinalAt::<Runtime>::remove(EPOCH + 1);
    }

    fn set_seed(round: Round, seed: H256) {
        pallet_beacon::Seeds::<Runtime>::insert(round, seed);
    }

    fn set_profiles(count: u32) {
        for id in 0..count {
            let profile = profile(id);
            pallet_profiles::IdOfName::<Runtime>::insert(&profile.name, id);
            pallet_profiles::Profiles::<Runtime>::insert(id, profile);
        }
        pallet_profiles::Count::<Runtime>::put(count);
    }

    fn set_host(host: &AccountId, worker: &AccountId) {
        let bond = configs::BOND;
        if !pallet_hosts::Hosts::<Runtime>::contains_key(host) {
            mint(host, bond + TOKEN);
            Balances::hold(&pallet_hosts::HoldReason::Bond.into(), host, bond).expect("it was minted");
            pallet_hosts::Count::<Runtime>::mutate(|count| *count += 1);
        }
        let info = HostInfo {
            worker: worker.clone(),
            worker_since: 0,
            endpoints: Some(longest_endpoints()),
            profiles: HostProfiles::truncate_from((0..pallet_hosts::types::MAX_PROFILES).collect()),
            status: HostStatus::Joining,
            bond,
            registered_at: 0,
            convictions: 0,
        };
        pallet_hosts::Hosts::<Runtime>::insert(host, info);
        pallet_hosts::HostOfWorker::<Runtime>::insert(worker, host);
        System::inc_sufficients(worker);
    }

    fn set_weights(epoch: EpochIndex, profiles: u32, hosts: &[HostWeight]) {
        let list = BoundedVec::truncate_from(hosts.to_vec());
        for profile in 0..profiles {
            pallet_sprint::ProfileWeights::<Runtime>::insert(epoch, profile, &list);
        }
        pallet_sprint::EpochWeights::<Runtime>::insert(epoch, list);
    }

    fn set_contributed(epoch: EpochIndex, host: &AccountId) {
        let contribution =
            pallet_beacon::types::Contribution { output: H256::repeat_byte(1), weight: scene::WEIGHT };
        pallet_beacon::Contributions::<Runtime>::insert(epoch, host, contribution);
        pallet_beacon::Tallies::<Runtime>::mutate(epoch, |tally| tally.count += 1);
    }

    fn set_paid(id: InferenceId, record: InferenceRecord) {
        mint(&Rewards::pots_account(), record.amount);
        Rewards::on_fee(id.epoch, &record.executor, record.amount);
        pallet_inference::RequestIndex::<Runtime>::insert(record.request_id, id);
        pallet_inference::Inferences::<Runtime>::insert(id.epoch, id.index, record);
        pallet_inference::Counts::<Runtime>::mutate(id.epoch, |count| *count = (*count).max(id.index + 1));
    }

    fn set_no_duties(hosts: &[HostWeight], host: &AccountId, secret: &H256, count: u32) {
        let epoch = EPOCH - 1;
        // One more than is sampled, so that the sample has to be drawn.
        let (samples, records) = (count.max(1), if count == 0 { 0 } else { count + 1 });
        pallet_epochs::Previous::<Runtime>::mutate(|previous| {
            if let Some(state) = previous {
                state.schedule.claim_samples = samples;
            }
        });
        let executor = hosts.iter().find(|entry| entry.host != *host).expect("there are other hosts");
        // All others have fallen since, and not looked: it is asked for each in turn whether it is this host's.
        for other in hosts.iter().filter(|entry| entry.host != *host) {
            let conviction = Conviction { since: START - 1, answers: 1 };
            pallet_verification::Convictions::<Runtime>::insert(epoch, &other.host, conviction);
        }
        let length = records.div_ceil(WINDOWS).max(1);
        for window in 0..WINDOWS {
            let mark = CoverageMark {
                first: window * length,
                end: (window + 1) * length,
                closed_at: START - 1,
                seed_epoch: epoch,
                seed_window: window,
            };
            pallet_verification::CoverageMarks::<Runtime>::insert(epoch, window, mark);
            Self::set_seed(Round::Coverage(epoch, window), hash_of(b"window", &window));
        }
        for index in 0..records {
            let seed = hash_of(b"window", &(index / length));
            let request_id = no_duty(hosts, host, secret, executor, (index, &seed));
            let record = scene::finished(index, executor.host.clone(), 0, START - 1_000);
            let record = InferenceRecord { request_id, ..record };
            pallet_inference::Inferences::<Runtime>::insert(epoch, index, record);
        }
        pallet_inference::Counts::<Runtime>::insert(epoch, records);
    }

    fn fund(account: &AccountId, amount: Balance) {
        mint(account, amount);
    }

    fn set_pot(epoch: EpochIndex, host: &AccountId) {
        let emission = starling_math::emission::epoch_emission(epoch);
        mint(&Rewards::pots_account(), emission + RESERVE);
        Rewards::on_fee(epoch, host, RESERVE);
        pallet_rewards::Pots::<Runtime>::mutate(epoch, |pot| pot.emission = emission);
    }
}
