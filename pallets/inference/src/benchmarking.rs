//! Benchmarks of the calls, by what their items can be, and of the bounded steps of the hooks.

use crate::*;
use alloc::vec::Vec;
use frame_benchmarking::v2::*;
use frame_support::{
    dispatch::CheckIfFeeless,
    traits::{Get, UnfilteredDispatchable},
    BoundedVec,
};
use frame_system::RawOrigin;
use sp_core::{crypto::KeyTypeId, sr25519};
use starling_math::draw::DrawTable;
use starling_primitives::{
    benchmarking::{self as scene, Scene, EPOCH, HOSTS, RESERVE, START},
    records::{Delivered, Finished, FinishedIn, InferenceRecord, InferenceState, Started},
    request::{Authorization, SignedAuthorization},
    traits::HostWeight,
    AccountId, EpochIndex, InferenceId, MultiSignature, ProfileId, H256, TOKEN,
};
use types::{PruneCursor, MAX_DELIVERED, MAX_EXPIRED, MAX_FINISHED, MAX_HOSTS, MAX_STARTED};

const KEYS: KeyTypeId = KeyTypeId(*b"bnch");
/// What an account of the scene has to spend.
const FUNDS: u128 = 1_000_000 * TOKEN;

/// Host 0 and all others have weight for `profiles` profiles; the pallet's account holds what the ledger says.
fn prepare<T: Config + Scene>(profiles: u32) -> Vec<HostWeight> {
    T::set_clock(START + 1_000);
    T::set_profiles(profiles);
    let hosts = scene::weights(HOSTS);
    T::set_weights(EPOCH, profiles, &hosts);
    T::set_host(&scene::host(0), &scene::worker(0));
    T::fund(&Pallet::<T>::account_id(), 1_000 * FUNDS);
    hosts
}

/// Sends what a worker sends: whether it is free of fees is asked first, as in every block.
fn send<T: Config>(call: Call<T>) -> Result<(), BenchmarkError> {
    let origin = RawOrigin::Signed(scene::worker(0)).into();
    if !call.is_feeless(&origin) {
        return Err(BenchmarkError::Stop("a worker's call is free of fees"));
    }
    call.dispatch_bypass_filter(origin).map(drop).map_err(|error| error.error.into())
}

/// A client with a deposit that lets a key sign.
struct Payer {
    client: AccountId,
    key: sr25519::Public,
}

impl Payer {
    /// Of the kinds of signatures sr25519 is the common one, and none is dearer.
    fn new<T: Config>(index: u32) -> Self {
        let key = sp_io::crypto::sr25519_generate(KEYS, None);
        let client = scene::account("client", index);
        Deposits::<T>::insert(&client, Deposit { free: FUNDS, reserved: 0 });
        let delegation = Delegation { limit: FUNDS, spent: 0, reserved: 0 };
        Delegations::<T>::insert(&client, AccountId::from(key), delegation);
        DelegationCount::<T>::insert(&client, 1);
        Self { client, key }
    }

    fn started<T: Config>(&self, hosts: &DrawTable, index: u32, profile: ProfileId) -> Started {
        let (request_id, gateway) = (scene::request(index), scene::host(0));
        let executor = hosts.executor(&scene::epoch_seed(EPOCH), &request_id, 0, &gateway);
        let executor = executor.cloned().unwrap_or_else(|| gateway.clone());
        let authorization = Authorization {
            client: self.client.clone(),
            request_id,
            profile,
            max_price: RESERVE,
            gateway,
            expires_at: Pallet::<T>::now() + 100,
        };
        let hash = authorization.signing_hash(&scene::genesis());
        let signature = sp_io::crypto::sr25519_sign(KEYS, &self.key, hash.as_bytes()).unwrap_or_default();
        let signer = AccountId::from(self.key);
        let signature = MultiSignature::Sr25519(signature);
        let authorization = SignedAuthorization { authorization, signer, signature };
        Started { authorization, epoch: EPOCH, attempt: 0, executor }
    }
}

fn start_call<T: Config>(items: Vec<Started>) -> Call<T> {
    Call::start { items: BoundedVec::truncate_from(items) }
}

/// Stores records of host 0, whose clients and keys have their reserves in the ledger.
fn store<T: Config>(epoch: EpochIndex, records: Vec<InferenceRecord>) {
    for (index, record) in (0u32..).zip(records) {
        if record.state == InferenceState::Started {
            let deposit = Deposit { free: FUNDS, reserved: record.amount };
            Deposits::<T>::insert(&record.client, deposit);
            if let Some(key) = &record.delegate {
                let delegation = Delegation { limit: FUNDS, spent: 0, reserved: record.amount };
                Delegations::<T>::insert(&record.client, key, delegation);
                DelegationCount::<T>::insert(&record.client, 1);
            }
        }
        RequestIndex::<T>::insert(record.request_id, InferenceId { epoch, index });
        Inferences::<T>::insert(epoch, index, record);
        Counts::<T>::insert(epoch, index + 1);
    }
}

fn own(record: InferenceRecord) -> InferenceRecord {
    InferenceRecord { delegate: None, ..record }
}

fn finish_call<T: Config>(count: u32, tokens: u32) -> Call<T> {
    let item = |index| FinishedIn {
        epoch: EPOCH,
        finished: Finished {
            request_id: scene::request(index),
            response_hash: H256::repeat_byte(1),
            transcript_root: H256::repeat_byte(2),
            prompt_tokens: tokens,
            completion_tokens: tokens,
        },
    };
    Call::finish { items: BoundedVec::truncate_from((0..count).map(item).collect()) }
}

/// Running records of host 0, each of a client of its own.
fn run<T: Config>(count: u32, profiles: u32, delegated: bool) {
    let record = |index: u32| {
        let record = scene::running(index, scene::host(0), index % profiles, START + 990);
        if delegated {
            record
        } else {
            own(record)
        }
    };
    store::<T>(EPOCH, (0..count).map(record).collect());
}

fn states<T: Config>(state: InferenceState) -> u32 {
    Inferences::<T>::iter_values().filter(|record| record.state == state).count() as u32
}

#[benchmarks(where T: Scene)]
mod benches {
    use super::*;

    #[benchmark]
    fn deposit() {
        prepare::<T>(1);
        let client = scene::account("client", 0);
        T::fund(&client, FUNDS);
        #[extrinsic_call]
        _(RawOrigin::Signed(client.clone()), 100 * TOKEN);
        assert_eq!(Deposits::<T>::get(&client).free, 100 * TOKEN);
    }

    #[benchmark]
    fn withdraw() {
        prepare::<T>(1);
        let client = scene::account("client", 0);
        Deposits::<T>::insert(&client, Deposit { free: FUNDS, reserved: 0 });
        #[extrinsic_call]
        _(RawOrigin::Signed(client.clone()), FUNDS);
        assert!(!Deposits::<T>::contains_key(&client));
    }

    #[benchmark]
    fn delegate() {
        let (client, key) = (scene::account("client", 0), scene::account("key", 0));
        #[extrinsic_call]
        _(RawOrigin::Signed(client.clone()), key.clone(), FUNDS);
        assert!(Delegations::<T>::contains_key(&client, &key));
    }

    #[benchmark]
    fn revoke() {
        let (client, key) = (scene::account("client", 0), scene::account("key", 0));
        Delegations::<T>::insert(&client, &key, Delegation { limit: FUNDS, spent: 0, reserved: 0 });
        DelegationCount::<T>::insert(&client, 1);
        #[extrinsic_call]
        _(RawOrigin::Signed(client.clone()), key.clone());
        assert!(!Delegations::<T>::contains_key(&client, &key));
    }

    /// Items of one client whose key signs all of them.
    #[benchmark]
    fn start(n: Linear<1, MAX_STARTED>) -> Result<(), BenchmarkError> {
        let hosts = prepare::<T>(1);
        let (table, payer) = (DrawTable::new(&hosts), Payer::new::<T>(0));
        let count = n;
        let items = (0..count).map(|index| payer.started::<T>(&table, index, 0)).collect();
        let call = start_call::<T>(items);
        #[block]
        {
            send(call)?;
        }
        assert_eq!(Counts::<T>::get(EPOCH), count);
        Ok(())
    }

    /// Items that each have a client and a key of their own.
    #[benchmark]
    fn start_payers(n: Linear<1, MAX_STARTED>) -> Result<(), BenchmarkError> {
        let hosts = prepare::<T>(1);
        let table = DrawTable::new(&hosts);
        let count = n;
        let items = (0..count).map(|index| Payer::new::<T>(index).started::<T>(&table, index, 0)).collect();
        let call = start_call::<T>(items);
        #[block]
        {
            send(call)?;
        }
        assert_eq!(Counts::<T>::get(EPOCH), count);
        Ok(())
    }

    /// A full batch over so many profiles, each served by every host.
    #[benchmark]
    fn start_profiles(p: Linear<1, MAX_STARTED>) -> Result<(), BenchmarkError> {
        let hosts = prepare::<T>(p);
        let (table, payer) = (DrawTable::new(&hosts), Payer::new::<T>(0));
        let items = (0..MAX_STARTED).map(|index| payer.started::<T>(&table, index, index % p)).collect();
        let call = start_call::<T>(items);
        #[block]
        {
            send(call)?;
        }
        assert_eq!(Counts::<T>::get(EPOCH), MAX_STARTED);
        Ok(())
    }

    /// Items whose signatures are another's: the last and dearest of the checks.
    #[benchmark]
    fn start_refused(n: Linear<1, MAX_STARTED>) -> Result<(), BenchmarkError> {
        let hosts = prepare::<T>(1);
        let (table, payer) = (DrawTable::new(&hosts), Payer::new::<T>(0));
        let refused = |index| {
            let mut item = payer.started::<T>(&table, index, 0);
            item.authorization.signer = scene::account("key", index);
            item
        };
        let items: Vec<_> = (0..n).map(refused).collect();
        let call = start_call::<T>(items);
        #[block]
        {
            send(call)?;
        }
        assert_eq!(Counts::<T>::get(EPOCH), 0);
        Ok(())
    }

    /// Answers to requests that clients signed themselves.
    #[benchmark]
    fn finish(n: Linear<1, MAX_FINISHED>) -> Result<(), BenchmarkError> {
        prepare::<T>(1);
        let count = n;
        run::<T>(count, 1, false);
        let call = finish_call::<T>(count, 1_000);
        #[block]
        {
            send(call)?;
        }
        assert_eq!(states::<T>(InferenceState::Finished), count);
        Ok(())
    }

    /// Answers to requests that delegated keys signed.
    #[benchmark]
    fn finish_delegated(n: Linear<1, MAX_FINISHED>) -> Result<(), BenchmarkError> {
        prepare::<T>(1);
        let count = n;
        run::<T>(count, 1, true);
        let call = finish_call::<T>(count, 1_000);
        #[block]
        {
            send(call)?;
        }
        assert_eq!(states::<T>(InferenceState::Finished), count);
        Ok(())
    }

    /// A full batch over so many profiles.
    #[benchmark]
    fn finish_profiles(p: Linear<1, MAX_FINISHED>) -> Result<(), BenchmarkError> {
        prepare::<T>(1);
        T::set_profiles(p);
        run::<T>(MAX_FINISHED, p, false);
        let call = finish_call::<T>(MAX_FINISHED, 1_000);
        #[block]
        {
            send(call)?;
        }
        assert_eq!(states::<T>(InferenceState::Finished), MAX_FINISHED);
        Ok(())
    }

    /// Answers that are longer than the profile allows.
    #[benchmark]
    fn settle_refused(n: Linear<1, MAX_FINISHED>) -> Result<(), BenchmarkError> {
        prepare::<T>(1);
        let count = n;
        run::<T>(count, 1, true);
        let call = finish_call::<T>(count, u32::MAX / 2);
        #[block]
        {
            send(call)?;
        }
        assert_eq!(states::<T>(InferenceState::Started), count);
        Ok(())
    }

    #[benchmark]
    fn deliver(n: Linear<1, MAX_DELIVERED>) -> Result<(), BenchmarkError> {
        prepare::<T>(1);
        let count = n;
        let record = |index| scene::finished(index, scene::host(1), 0, START + 990);
        store::<T>(EPOCH, (0..count).map(record).collect());
        let item = |index| Delivered { request_id: scene::request(index), response_hash: H256::zero() };
        let call = Call::<T>::deliver { items: BoundedVec::truncate_from((0..count).map(item).collect()) };
        #[block]
        {
            send(call)?;
        }
        assert_eq!(states::<T>(InferenceState::Delivered), count);
        Ok(())
    }

    /// Requests of different executors, each signed by a delegated key.
    #[benchmark]
    fn expire(n: Linear<1, MAX_EXPIRED>) -> Result<(), BenchmarkError> {
        prepare::<T>(1);
        let count = n;
        let record = |index| scene::running(index, scene::host(1 + index), 0, START);
        store::<T>(EPOCH, (0..count).map(record).collect());
        let items = (0..count).map(scene::request).collect();
        let call = Call::<T>::expire { items: BoundedVec::truncate_from(items) };
        #[block]
        {
            send(call)?;
        }
        assert_eq!(states::<T>(InferenceState::Expired), count);
        Ok(())
    }

    /// So many steps, each of a record that still has its reserve.
    #[benchmark]
    fn prune(n: Linear<0, { T::MaxPrunedPerBlock::get() }>) {
        prepare::<T>(1);
        let epoch = EPOCH - 3;
        let record = |index| scene::running(index, scene::host(1 + index), 0, 100);
        store::<T>(epoch, (0..n + 1).map(record).collect());
        Pruned::<T>::put(PruneCursor { epoch, index: 0 });
        #[block]
        {
            Pallet::<T>::prune_steps(n);
        }
        assert_eq!(states::<T>(InferenceState::Started), 1);
    }

    /// The end of an epoch with so many fees that its pot could not take, while the current one's wait as well.
    #[benchmark]
    fn close_epoch(h: Linear<0, MAX_HOSTS>) {
        prepare::<T>(1);
        let epoch = EPOCH - 3;
        let fees = |from: u32, count: u32| {
            let fees: Vec<_> = (from..from + count).map(|index| (scene::host(index), TOKEN)).collect();
            BoundedVec::truncate_from(fees)
        };
        PendingFees::<T>::insert(epoch, fees(MAX_HOSTS - h, h));
        PendingFees::<T>::insert(EPOCH, fees(0, MAX_HOSTS - h));
        Counts::<T>::insert(epoch, 1);
        #[block]
        {
            Pallet::<T>::close_epoch(epoch, EPOCH);
        }
        assert_eq!(PendingFees::<T>::get(EPOCH).len() as u32, MAX_HOSTS);
    }

    /// The pot of the epoch before takes so many hosts' fees.
    #[benchmark]
    fn flush_pending(h: Linear<0, MAX_HOSTS>) {
        prepare::<T>(1);
        let fees: Vec<_> = (0..h).map(|index| (scene::host(index), TOKEN)).collect();
        PendingFees::<T>::insert(EPOCH - 1, BoundedVec::truncate_from(fees));
        #[block]
        {
            Pallet::<T>::flush_pending(EPOCH - 1);
        }
        assert!(PendingFees::<T>::get(EPOCH - 1).is_empty());
    }
}
