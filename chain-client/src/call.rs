//! The calls that agents and clients send.

use crate::types::Endpoints;
use codec::{Compact, Encode};
use scale_info::{meta_type, MetaType};
use starling_primitives::{
    fraud::FraudProof,
    plant::Consent,
    profile::Profile,
    records::{Delivered, FinishedIn, Started},
    schedule::Schedule,
    sprint::{SprintCommitment, SprintVerdict},
    verdict::{PanelCommit, PanelReveal, Verdict},
    vrf::VrfProof,
    AccountId, Balance, EpochIndex, InferenceId, ProfileId, RequestId, H256,
};

/// Name and argument types of a call, compared with the runtime by [`crate::shape`].
#[derive(Debug)]
pub struct CallShape {
    /// Name of the pallet in the runtime.
    pub pallet: &'static str,
    /// Name of the call.
    pub name: &'static str,
    /// Types of the arguments.
    pub arguments: Vec<MetaType>,
}

macro_rules! calls {
    ($($(#[$doc:meta])* $variant:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty),* } = $pallet:literal . $name:literal;)*) => {
        /// A call, with its arguments in the order of the runtime.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Call {
            $($(#[$doc])* $variant { $($(#[$field_doc])* $field: $type),* },)*
            /// A call as root; chains for development only.
            Sudo(Box<Call>),
        }

        impl Call {
            /// Pallet and name in the runtime.
            pub fn path(&self) -> (&'static str, &'static str) {
                match self {
                    $(Self::$variant { .. } => ($pallet, $name),)*
                    Self::Sudo(_) => ("Sudo", "sudo"),
                }
            }

            /// Appends the encoded arguments. `index_of` gives the two index bytes of a nested call.
            pub(crate) fn encode_arguments<E>(
                &self,
                out: &mut Vec<u8>,
                index_of: &impl Fn(&Call) -> Result<[u8; 2], E>,
            ) -> Result<(), E> {
                match self {
                    $(Self::$variant { $($field),* } => { $($field.encode_to(out);)* let _ = &out; })*
                    Self::Sudo(call) => {
                        out.extend(index_of(call)?);
                        call.encode_arguments(out, index_of)?;
                    }
                }
                Ok(())
            }
        }

        /// Every call but [`Call::Sudo`].
        pub fn all() -> Vec<CallShape> {
            vec![$(CallShape { pallet: $pallet, name: $name, arguments: vec![$(meta_type::<$type>()),*] }),*]
        }
    };
}

calls! {
    /// A host registers; signed by its account.
    Register {
        /// Its hot key.
        worker: AccountId,
        /// Profiles it serves.
        profiles: Vec<ProfileId>
    } = "Hosts"."register";
    /// A host replaces its hot key; signed by its account.
    SetWorker {
        /// The new key.
        worker: AccountId
    } = "Hosts"."set_worker";
    /// A host changes what it serves; signed by its account.
    SetProfiles {
        /// Profiles it serves.
        profiles: Vec<ProfileId>
    } = "Hosts"."set_profiles";
    /// A host asks for no new work; signed by its account.
    Drain {} = "Hosts"."drain";
    /// A host takes work again; signed by its account.
    Resume {} = "Hosts"."resume";
    /// A host leaves; signed by its account.
    Deregister {} = "Hosts"."deregister";
    /// A host says where it is; signed by its worker.
    Announce {
        /// Where.
        endpoints: Endpoints
    } = "Hosts"."announce";
    /// Governance adds a profile.
    RegisterProfile {
        /// The profile.
        profile: Profile
    } = "Profiles"."register";
    /// Governance retires a profile.
    RetireProfile {
        /// Its number.
        id: ProfileId
    } = "Profiles"."retire";
    /// Governance proposes a schedule for the next epoch.
    ProposeSchedule {
        /// The schedule.
        schedule: Schedule
    } = "Epochs"."propose_schedule";
    /// A worker contributes to the beacon.
    Contribute {
        /// The epoch in its reveal window.
        epoch: EpochIndex,
        /// Proof over `VrfInput::Beacon`.
        proof: VrfProof
    } = "Beacon"."contribute";
    /// A worker commits to its sprint.
    CommitSprint {
        /// Profile it raced with.
        profile: ProfileId,
        /// What it did.
        commitment: SprintCommitment
    } = "Sprint"."commit";
    /// A worker judges other hosts' sprints.
    SubmitSprintVerdicts {
        /// Profile they raced with.
        profile: ProfileId,
        /// Host and verdict.
        verdicts: Vec<(AccountId, SprintVerdict)>
    } = "Sprint"."submit_verdicts";
    /// A client deposits; signed by its account.
    Deposit {
        /// How much.
        amount: Compact<Balance>
    } = "Inference"."deposit";
    /// A client takes back what is free; signed by its account.
    Withdraw {
        /// How much.
        amount: Compact<Balance>
    } = "Inference"."withdraw";
    /// A client lets another key spend; signed by its account.
    Delegate {
        /// The key.
        key: AccountId,
        /// Up to how much in all.
        limit: Compact<Balance>
    } = "Inference"."delegate";
    /// A client takes that back; signed by its account.
    Revoke {
        /// The key.
        key: AccountId
    } = "Inference"."revoke";
    /// A worker records requests that run.
    Start {
        /// The requests.
        records: Vec<Started>
    } = "Inference"."start";
    /// A worker records answers.
    Finish {
        /// The answers.
        records: Vec<FinishedIn>
    } = "Inference"."finish";
    /// A worker records deliveries.
    Deliver {
        /// The deliveries.
        records: Vec<Delivered>
    } = "Inference"."deliver";
    /// Anyone has unfinished requests refunded.
    Expire {
        /// The requests.
        requests: Vec<RequestId>
    } = "Inference"."expire";
    /// A worker judges inferences of other hosts.
    SubmitVerdicts {
        /// The verdicts.
        verdicts: Vec<Verdict>
    } = "Verification"."submit_verdicts";
    /// A worker commits itself to verdicts as a member of panels.
    CommitVerdicts {
        /// The commitments.
        commitments: Vec<PanelCommit>
    } = "Verification"."commit_verdicts";
    /// A worker reveals such verdicts.
    RevealVerdicts {
        /// The verdicts, with what opens the commitments.
        reveals: Vec<PanelReveal>
    } = "Verification"."reveal_verdicts";
    /// Anyone shows that an executor lied; a worker does so for free when the proof holds.
    ProveFraud {
        /// The proof.
        proof: Box<FraudProof>
    } = "Verification"."prove_fraud";
    /// A worker commits its host to a plant of this epoch, or to nothing.
    CommitPlant {
        /// [`starling_primitives::plant::commitment`], or random bytes.
        commitment: H256
    } = "Verification"."commit_plant";
    /// A worker reveals that its host's answer was a plant.
    RevealPlant {
        /// The answer.
        inference: InferenceId,
        /// What opens the commitment.
        salt: H256,
        /// That whoever asked agreed.
        consent: Consent
    } = "Verification"."reveal_plant";
    /// A worker whose host approved a plant says that it was a good answer.
    ContestPlant {
        /// The answer.
        inference: InferenceId
    } = "Verification"."contest_plant";
    /// A worker claims its host's due.
    Claim {
        /// Of which epoch.
        epoch: EpochIndex,
        /// Proof over `VrfInput::Duty`.
        proof: VrfProof
    } = "Rewards"."claim";
    /// Transfers native tokens; signed by the sender.
    Transfer {
        /// To whom.
        to: sp_runtime::MultiAddress<AccountId, ()>,
        /// How much.
        amount: Compact<Balance>
    } = "Balances"."transfer_keep_alive";
}

impl Call {
    /// Deposits `amount`.
    pub fn deposit(amount: Balance) -> Self {
        Self::Deposit { amount: Compact(amount) }
    }

    /// Withdraws `amount`.
    pub fn withdraw(amount: Balance) -> Self {
        Self::Withdraw { amount: Compact(amount) }
    }

    /// Lets `key` spend up to `limit`.
    pub fn delegate(key: AccountId, limit: Balance) -> Self {
        Self::Delegate { key, limit: Compact(limit) }
    }

    /// Transfers `amount` to `to`.
    pub fn transfer(to: AccountId, amount: Balance) -> Self {
        Self::Transfer { to: sp_runtime::MultiAddress::Id(to), amount: Compact(amount) }
    }
}
