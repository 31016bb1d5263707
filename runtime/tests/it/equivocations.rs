//! Two blocks for a slot and two votes in a round, signed by the real keys, from the report to the next authority sets.

use crate::{
    authorities::sprint,
    chain::{block, block_by, block_with, epoch, next_session, run, FIRST_SLOT},
};
use codec::{Decode, Encode};
use frame_support::{assert_ok, storage::with_transaction, traits::KeyOwnerProofSystem};
use pallet_hosts::HostStatus;
use sp_consensus_babe::{
    digests::{CompatibleDigestItem, PreDigest, SecondaryPlainPreDigest},
    AuthorityId as BabeId,
};
use sp_consensus_grandpa::{
    localized_payload, AuthorityId as GrandpaId, AuthoritySignature, Message, Prevote,
};
use sp_core::{ed25519, sr25519, Pair};
use sp_runtime::{
    traits::Header as _,
    transaction_validity::{InvalidTransaction, TransactionSource, TransactionValidityError},
    Digest, DispatchError, TransactionOutcome,
};
use sp_session::MembershipProof;
use starling_primitives::{
    traits::{Duties, Hosts as _, Reputation},
    AccountId, BlockNumber, H256,
};
use starling_runtime::{
    genesis, Executive, Grandpa, Hash, Header, Historical, Hosts, Runtime, RuntimeCall, Session, System,
    UncheckedExtrinsic, Verification,
};

type BabeProof = sp_consensus_babe::EquivocationProof<Header>;
type GrandpaProof = sp_consensus_grandpa::EquivocationProof<Hash, BlockNumber>;

/// An authority of the development presets with its session keys.
pub(crate) struct Authority {
    account: AccountId,
    babe: sr25519::Pair,
    grandpa: ed25519::Pair,
}

impl Authority {
    /// The one with this index in the current set.
    pub(crate) fn at(index: u32) -> Self {
        let account = Session::validators().swap_remove(index as usize);
        let named = |name: &&str| {
            sr25519::Pair::from_string(&format!("//{name}"), None).expect("a path").public().0
                == *<AccountId as AsRef<[u8; 32]>>::as_ref(&account)
        };
        let name = ["Alice", "Bob", "Charlie", "Dave"].into_iter().find(named).expect("a development host");
        let path = format!("//{name}");
        Self {
            account,
            babe: sr25519::Pair::from_string(&path, None).expect("a path"),
            grandpa: ed25519::Pair::from_string(&path, None).expect("a path"),
        }
    }

    /// A sealed block for a slot; `variant` makes it another one.
    fn sealed(&self, index: u32, slot: u64, variant: u8) -> Header {
        let digest =
            PreDigest::SecondaryPlain(SecondaryPlainPreDigest { authority_index: index, slot: slot.into() });
        let logs = vec![CompatibleDigestItem::babe_pre_digest(digest)];
        let mut header =
            Header::new(9, H256::zero(), H256::repeat_byte(variant), H256::zero(), Digest { logs });
        let signature = self.babe.sign(header.hash().as_bytes());
        header.digest_mut().push(CompatibleDigestItem::babe_seal(signature.into()));
        header
    }

    fn babe_id(&self) -> BabeId {
        self.babe.public().into()
    }

    /// Two blocks for a slot of the current session.
    fn makes_two_blocks(&self, index: u32, slot: u64) -> BabeProof {
        let [first_header, second_header] = [1, 2].map(|variant| self.sealed(index, slot, variant));
        BabeProof { offender: self.babe_id(), slot: slot.into(), first_header, second_header }
    }

    fn vote(&self, round: u64, set_id: u64, target: u8) -> (Prevote<Header>, AuthoritySignature) {
        let vote = Prevote::<Header>::new(H256::repeat_byte(target), 9);
        let payload = localized_payload(round, set_id, &Message::<Header>::Prevote(vote.clone()));
        (vote, self.grandpa.sign(&payload).into())
    }

    /// Votes for two targets in a round of a set, as they are written down.
    fn votes_for(&self, round: u64, set_id: u64, targets: [u8; 2]) -> GrandpaProof {
        const PREVOTE: u8 = 0;
        let votes = targets.map(|target| self.vote(round, set_id, target));
        let identity = GrandpaId::from(self.grandpa.public());
        let bytes = (set_id, PREVOTE, round, identity, votes).encode();
        GrandpaProof::decode(&mut &bytes[..]).expect("the fields of a proof, in their order")
    }

    /// Its author puts a report into a block that this authority made two for the same slot.
    pub(crate) fn is_reported(&self, index: u32) {
        let report = babe_report(self.makes_two_blocks(index, slot()), self.owns_babe_key());
        assert_eq!(apply(report), Ok(Ok(())));
    }

    fn owns_babe_key(&self) -> MembershipProof {
        Historical::prove((sp_consensus_babe::KEY_TYPE, self.babe_id())).expect("it is an authority")
    }

    fn owns_grandpa_key(&self) -> MembershipProof {
        let key = GrandpaId::from(self.grandpa.public());
        Historical::prove((sp_consensus_grandpa::KEY_TYPE, key)).expect("it is an authority")
    }
}

fn babe_report(equivocation_proof: BabeProof, key_owner_proof: MembershipProof) -> RuntimeCall {
    let equivocation_proof = Box::new(equivocation_proof);
    pallet_babe::Call::report_equivocation_unsigned { equivocation_proof, key_owner_proof }.into()
}

fn grandpa_report(equivocation_proof: GrandpaProof, key_owner_proof: MembershipProof) -> RuntimeCall {
    let equivocation_proof = Box::new(equivocation_proof);
    pallet_grandpa::Call::report_equivocation_unsigned { equivocation_proof, key_owner_proof }.into()
}

/// What the pool says of an unsigned report. It begins a block of its own to say it, which is undone.
fn validate(source: TransactionSource, report: &RuntimeCall) -> Result<(), TransactionValidityError> {
    let extrinsic = UncheckedExtrinsic::new_bare(report.clone());
    let validity = with_transaction(|| {
        let validity = Executive::validate_transaction(source, extrinsic, System::parent_hash());
        TransactionOutcome::Rollback(Ok::<_, DispatchError>(validity))
    });
    validity.expect("nothing else fails").map(|_| ())
}

/// Puts a report into a block, as its author does.
fn apply(report: RuntimeCall) -> Result<Result<(), DispatchError>, TransactionValidityError> {
    Executive::apply_extrinsic(UncheckedExtrinsic::new_bare(report))
}

/// The slot of the block under way.
fn slot() -> u64 {
    FIRST_SLOT + u64::from(System::block_number())
}

fn refused(why: InvalidTransaction) -> Result<(), TransactionValidityError> {
    Err(why.into())
}

fn stored_reports() -> usize {
    pallet_offences::Reports::<Runtime>::iter().count()
}

/// Runs a test in a chain whose authorities have weights of a sprint, in the first block of a session.
fn with_weights(test: impl FnOnce()) {
    run(genesis::TEST, || {
        block();
        sprint([2_000, 2_000, 2_000, 2_000]);
        next_session();
        next_session();
        assert!(Grandpa::grandpa_authorities().iter().all(|(_, weight)| *weight > 1), "they have weights");
        test();
    });
}

fn grandpa_has(authority: &Authority) -> bool {
    let key = GrandpaId::from(authority.grandpa.public());
    Grandpa::grandpa_authorities().iter().any(|(id, _)| *id == key)
}

fn babe_has(authority: &Authority) -> bool {
    pallet_babe::Authorities::<Runtime>::get().iter().any(|(id, _)| *id == authority.babe_id())
}

/// Convicted and disabled now; without weight in finality from the next session on, and in blocks from the one after,
/// which is the first one that was not announced yet.
fn check_consequences(offender: &Authority, index: u32) {
    let account = &offender.account;
    assert_eq!(pallet_hosts::Hosts::<Runtime>::get(account).unwrap().status, HostStatus::Suspended);
    assert!(!Hosts::may_sprint(account));
    assert!(Verification::forfeits(epoch().index, account), "its due of the epoch is lost");
    assert_eq!(Verification::reputation(account), 0);
    assert_eq!(Session::disabled_validators(), [index]);
    assert!(grandpa_has(offender) && babe_has(offender));

    next_session();
    assert!(!grandpa_has(offender), "the next set has no weight for it");
    assert_eq!(Grandpa::grandpa_authorities().len(), 3);
    let still_at = Session::validators().iter().position(|host| host == account).expect("it was announced");
    assert_eq!(Session::disabled_validators(), [still_at as u32]);

    next_session();
    assert!(!grandpa_has(offender) && !babe_has(offender));
    assert_eq!((Session::validators().len(), Session::disabled_validators()), (3, vec![]));
}

#[test]
fn two_blocks_for_a_slot_convict() {
    with_weights(|| {
        let offender = Authority::at(2);
        let session = Session::current_index();
        let report = babe_report(offender.makes_two_blocks(2, slot()), offender.owns_babe_key());
        block_with(|| {
            assert_ok!(validate(TransactionSource::Local, &report));
            assert_eq!(
                validate(TransactionSource::External, &report),
                refused(InvalidTransaction::Call),
                "only block authors report without a fee"
            );
            assert_eq!(apply(report.clone()), Ok(Ok(())));
            let event = pallet_authorities::Event::Equivocated { host: offender.account.clone(), session };
            System::assert_has_event(event.into());
        });
        assert_eq!(validate(TransactionSource::Local, &report), refused(InvalidTransaction::Stale));
        check_consequences(&offender, 2);
    });
}

#[test]
fn two_votes_in_a_round_convict() {
    with_weights(|| {
        let offender = Authority::at(1);
        let set_id = Grandpa::current_set_id();
        let report = grandpa_report(offender.votes_for(7, set_id, [1, 2]), offender.owns_grandpa_key());
        block_with(|| {
            assert_ok!(validate(TransactionSource::Local, &report));
            assert_eq!(validate(TransactionSource::External, &report), refused(InvalidTransaction::Call));
            assert_eq!(apply(report.clone()), Ok(Ok(())));
        });
        assert_eq!(validate(TransactionSource::Local, &report), refused(InvalidTransaction::Stale));
        check_consequences(&offender, 1);
    });
}

#[test]
fn who_signs_everything_twice_is_convicted_once_and_fills_no_storage() {
    with_weights(|| {
        let offender = Authority::at(2);
        let of_slot = |slot| babe_report(offender.makes_two_blocks(2, slot), offender.owns_babe_key());
        let (first, second) = (slot(), slot() + 1);
        block_with(|| {
            let duplicate = Err(pallet_babe::Error::<Runtime>::DuplicateOffenceReport.into());
            assert_eq!(apply(of_slot(first)), Ok(Ok(())));
            assert_eq!(apply(of_slot(first)), Err(InvalidTransaction::Stale.into()));
            assert_eq!(apply(of_slot(second)), Ok(duplicate));
            let set_id = Grandpa::current_set_id();
            let votes = grandpa_report(offender.votes_for(3, set_id, [1, 2]), offender.owns_grandpa_key());
            let duplicate = Err(pallet_grandpa::Error::<Runtime>::DuplicateOffenceReport.into());
            assert_eq!(apply(votes), Ok(duplicate));
        });
        assert_eq!(stored_reports(), 1);
        // In the last session of its punishment it is the same.
        next_session();
        let index = Session::validators().iter().position(|host| *host == offender.account);
        let index = index.expect("it was announced") as u32;
        let later = babe_report(offender.makes_two_blocks(index, slot()), offender.owns_babe_key());
        block_with(|| {
            assert_eq!(apply(later), Ok(Err(pallet_babe::Error::<Runtime>::DuplicateOffenceReport.into())));
        });
        let info = pallet_hosts::Hosts::<Runtime>::get(&offender.account).unwrap();
        assert_eq!((stored_reports(), info.convictions), (1, 1));
    });
}

#[test]
fn an_equivocation_is_proven_sessions_later() {
    with_weights(|| {
        let offender = Authority::at(3);
        let session = Session::current_index();
        let (proof, owns) = (offender.makes_two_blocks(3, slot()), offender.owns_babe_key());
        for _ in 0..5 {
            next_session();
        }
        let event = pallet_authorities::Event::Equivocated { host: offender.account.clone(), session };
        block_with(|| {
            assert_eq!(apply(babe_report(proof, owns)), Ok(Ok(())));
            System::assert_has_event(event.into());
        });
        assert!(Hosts::host_of(&Hosts::worker_of(&offender.account).unwrap()).is_none());
    });
}

#[test]
fn a_set_without_weights_can_be_held_to_account_too() {
    run(genesis::TEST, || {
        block();
        // The sessions of the genesis are over; nobody has raced, and the set has been kept.
        next_session();
        next_session();
        let offender = Authority::at(3);
        let (proof, owns) = (offender.makes_two_blocks(3, slot()), offender.owns_babe_key());
        next_session();
        block_with(|| assert_eq!(apply(babe_report(proof, owns)), Ok(Ok(()))));
        assert_eq!(Session::disabled_validators(), [3]);
        next_session();
        next_session();
        assert!(!grandpa_has(&offender) && !babe_has(&offender), "the set stays, without it");
    });
}

#[test]
fn forged_proofs_convict_nobody() {
    with_weights(|| {
        let (accused, forger) = (Authority::at(2), Authority::at(1));
        let set_id = Grandpa::current_set_id();
        let invalid_blocks = Ok(Err(pallet_babe::Error::<Runtime>::InvalidEquivocationProof.into()));
        let invalid_votes = Ok(Err(pallet_grandpa::Error::<Runtime>::InvalidEquivocationProof.into()));
        block_with(|| {
            // Sealed by somebody else.
            let mut blocks = forger.makes_two_blocks(2, slot());
            blocks.offender = accused.babe_id();
            assert_eq!(apply(babe_report(blocks, accused.owns_babe_key())), invalid_blocks);
            // One block, twice.
            let mut blocks = accused.makes_two_blocks(2, slot());
            blocks.second_header = blocks.first_header.clone();
            assert_eq!(apply(babe_report(blocks, accused.owns_babe_key())), invalid_blocks);
            // Two blocks for two slots.
            let mut blocks = accused.makes_two_blocks(2, slot());
            blocks.second_header = accused.sealed(2, slot() + 1, 2);
            assert_eq!(apply(babe_report(blocks, accused.owns_babe_key())), invalid_blocks);
        });
        // A block has room for four reports.
        block_with(|| {
            // A slot of another session.
            let blocks = accused.makes_two_blocks(2, slot() + 100);
            let other_session = Ok(Err(pallet_babe::Error::<Runtime>::InvalidKeyOwnershipProof.into()));
            assert_eq!(apply(babe_report(blocks, accused.owns_babe_key())), other_session);
            // Somebody else's key.
            let report = babe_report(accused.makes_two_blocks(2, slot()), forger.owns_babe_key());
            assert_eq!(validate(TransactionSource::Local, &report), refused(InvalidTransaction::BadProof));
            assert_eq!(apply(report), Err(InvalidTransaction::BadProof.into()));

            // One vote, twice; another set's votes; a set that there is not.
            let owns = accused.owns_grandpa_key();
            let votes = accused.votes_for(7, set_id, [1, 1]);
            assert_eq!(apply(grandpa_report(votes, owns)), invalid_votes);
        });
        block_with(|| {
            let owns = accused.owns_grandpa_key();
            let votes = accused.votes_for(7, set_id - 1, [1, 2]);
            assert_eq!(apply(grandpa_report(votes, owns.clone())), invalid_votes);
            let votes = accused.votes_for(7, set_id + 1, [1, 2]);
            assert_eq!(apply(grandpa_report(votes, owns)), invalid_votes);
            let report = grandpa_report(accused.votes_for(7, set_id, [1, 2]), forger.owns_grandpa_key());
            assert_eq!(apply(report), Err(InvalidTransaction::BadProof.into()));
        });
        assert_eq!((stored_reports(), Session::disabled_validators()), (0, vec![]));
        assert!(Hosts::may_sprint(&accused.account) && Hosts::may_sprint(&forger.account));
    });
}

#[test]
#[should_panic(expected = "is disabled and should not be attempting to author blocks")]
fn a_disabled_authority_makes_no_block() {
    with_weights(|| {
        let offender = Authority::at(2);
        block_by(2, || ());
        block_with(|| offender.is_reported(2));
        block_by(2, || ());
    });
}

#[test]
fn the_chain_keeps_who_makes_half_of_the_blocks() {
    with_weights(|| {
        let offenders = [1, 2, 3].map(|index| (index, Authority::at(index)));
        block_with(|| {
            offenders.iter().for_each(|(index, offender)| offender.is_reported(*index));
        });
        // The third would leave a quarter of the weight. All are convicted.
        assert_eq!(Session::disabled_validators().len(), 2);
        assert!(offenders.iter().all(|(_, offender)| !Hosts::may_sprint(&offender.account)));
        next_session();
        assert_eq!((Grandpa::grandpa_authorities().len(), Session::disabled_validators().len()), (1, 2));
        next_session();
        assert_eq!((Session::validators().len(), Session::disabled_validators()), (1, vec![]));
    });
}
