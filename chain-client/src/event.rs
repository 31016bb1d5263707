//! Events of a block, typed.

use crate::error::ChainError;
use codec::{Decode, DecodeAll};
use scale_info::{meta_type, MetaType};
use starling_primitives::{
    fraud::Fraud, traits::Round, AccountId, Balance, EpochIndex, InferenceId, Ppm, ProfileId, RequestId, H256,
};

/// An event as the runtime wrote it: names and encoded fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawEvent {
    /// Index of the extrinsic that caused it; `None` for hooks.
    pub extrinsic: Option<u32>,
    /// Name of the pallet in the runtime.
    pub pallet: String,
    /// Name of the event.
    pub name: String,
    /// Names and encoded values of the fields.
    pub fields: Vec<(String, Vec<u8>)>,
}

impl RawEvent {
    /// The field with this name.
    pub fn field<T: Decode>(&self, name: &str) -> Result<T, ChainError> {
        let what = || format!("{}.{}.{name}", self.pallet, self.name);
        let (_, bytes) = self
            .fields
            .iter()
            .find(|(field, _)| field == name)
            .ok_or_else(|| ChainError::decode(what(), "no such field"))?;
        T::decode_all(&mut bytes.as_slice()).map_err(|error| ChainError::decode(what(), error))
    }
}

/// What happened, in the words of the protocol.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ChainEvent {
    /// An epoch began.
    EpochStarted {
        /// Which.
        epoch: EpochIndex,
    },
    /// A seed is final.
    SeedFinal {
        /// Which.
        round: Round,
        /// Its value.
        seed: H256,
    },
    /// A host announced, registered, or changed its status.
    HostsChanged,
    /// A profile was registered or retired.
    ProfilesChanged,
    /// A request runs.
    Started {
        /// Its place.
        id: InferenceId,
        /// The request.
        request_id: RequestId,
        /// Who pays.
        client: AccountId,
        /// Who took it.
        gateway: AccountId,
        /// Who runs it.
        executor: AccountId,
        /// What is held for it.
        reserved: Balance,
    },
    /// An answer is complete and paid.
    Finished {
        /// Its place.
        id: InferenceId,
        /// The request.
        request_id: RequestId,
        /// What it cost.
        price: Balance,
    },
    /// An answer was delivered.
    Delivered {
        /// Its place.
        id: InferenceId,
        /// The request.
        request_id: RequestId,
        /// Whether the delivered hash agrees.
        matched: bool,
    },
    /// Nobody answered in time; the client has its money back.
    Expired {
        /// Its place.
        id: InferenceId,
    },
    /// A record was refused; nothing else of its batch was.
    RecordRefused {
        /// The request.
        request_id: RequestId,
        /// Name of the reason.
        reason: String,
    },
    /// A verdict was refused; nothing else of its batch was.
    VerdictRefused {
        /// On which inference.
        id: InferenceId,
        /// Name of the reason.
        reason: String,
    },
    /// A verdict on an inference arrived.
    VerdictSubmitted {
        /// Of which inference.
        id: InferenceId,
        /// Who said it.
        verifier: AccountId,
        /// Whether it lies within the limits.
        passed: bool,
    },
    /// A verdict beyond the limits is being voted on.
    Disputed {
        /// Which inference.
        id: InferenceId,
    },
    /// A dispute is over.
    Settled {
        /// Which inference.
        id: InferenceId,
        /// In the executor's favour or not.
        valid: bool,
        /// What the client got back.
        refunded: Balance,
    },
    /// A proof made an answer fall, without a vote.
    FraudProven {
        /// Which inference.
        id: InferenceId,
        /// What the executor did.
        fraud: Fraud,
    },
    /// An answer was bad on purpose; the client has its money back.
    Planted {
        /// Its place.
        id: InferenceId,
        /// What the client got back.
        refunded: Balance,
    },
    /// A host committed itself to what may be a plant.
    PlantCommitted {
        /// Who.
        host: AccountId,
        /// In which epoch.
        epoch: EpochIndex,
    },
    /// A plant was revealed.
    PlantRevealed {
        /// The answer.
        id: InferenceId,
        /// Who gave it.
        planter: AccountId,
        /// How many verifiers approved it.
        approvers: u32,
    },
    /// A verifier that approved a plant contests it.
    PlantContested {
        /// The answer.
        id: InferenceId,
        /// Who contests.
        contester: AccountId,
    },
    /// A host approved a plant.
    Negligent {
        /// Who.
        host: AccountId,
        /// The epoch whose due it lost.
        epoch: EpochIndex,
        /// The plant.
        id: InferenceId,
    },
    /// A host was convicted.
    Convicted {
        /// Who.
        host: AccountId,
    },
    /// A host's reputation changed.
    ReputationChanged {
        /// Whose.
        host: AccountId,
        /// To what.
        reputation: Ppm,
    },
    /// A host committed to its sprint.
    Committed {
        /// Who.
        host: AccountId,
        /// With which profile.
        profile: ProfileId,
    },
    /// The weights of an epoch are known.
    WeightsSet {
        /// Which epoch.
        epoch: EpochIndex,
    },
    /// A host was paid.
    Claimed {
        /// For which epoch.
        epoch: EpochIndex,
        /// Who.
        host: AccountId,
        /// From the emission.
        emission: Balance,
        /// From the fees.
        fees: Balance,
    },
    /// An epoch's emission was minted.
    Minted {
        /// Of which epoch.
        epoch: EpochIndex,
        /// How much.
        amount: Balance,
    },
    /// What nobody claimed was burned.
    Burned {
        /// Of which epoch.
        epoch: EpochIndex,
        /// How much.
        amount: Balance,
    },
    /// A transaction failed as a whole.
    ExtrinsicFailed {
        /// `Pallet::Error`, or the name of another dispatch error.
        reason: String,
    },
    /// Any other event.
    Other,
}

impl ChainEvent {
    /// Reads a raw event. Fields that this program does not need are not looked at.
    pub fn read(raw: &RawEvent) -> Result<Self, ChainError> {
        Ok(match (raw.pallet.as_str(), raw.name.as_str()) {
            ("Epochs", "EpochStarted") => Self::EpochStarted { epoch: raw.field("epoch")? },
            ("Beacon", "SeedFinal") => {
                Self::SeedFinal { round: raw.field("round")?, seed: raw.field("seed")? }
            }
            ("Hosts", _) => Self::HostsChanged,
            ("Profiles", _) => Self::ProfilesChanged,
            ("Inference", _) => return Self::read_inference(raw),
            ("Verification", _) => return Self::read_verification(raw),
            ("Sprint", "Committed") => {
                Self::Committed { host: raw.field("host")?, profile: raw.field("profile")? }
            }
            ("Sprint", "WeightsSet") => Self::WeightsSet { epoch: raw.field("epoch")? },
            ("Rewards", "Claimed") => Self::Claimed {
                epoch: raw.field("epoch")?,
                host: raw.field("host")?,
                emission: raw.field("emission")?,
                fees: raw.field("fees")?,
            },
            ("Rewards", "Minted") => {
                Self::Minted { epoch: raw.field("epoch")?, amount: raw.field("amount")? }
            }
            ("Rewards", "Burned") => {
                Self::Burned { epoch: raw.field("epoch")?, amount: raw.field("amount")? }
            }
            ("System", "ExtrinsicFailed") => Self::ExtrinsicFailed { reason: raw.field("reason")? },
            _ => Self::Other,
        })
    }

    fn read_inference(raw: &RawEvent) -> Result<Self, ChainError> {
        Ok(match raw.name.as_str() {
            "Started" => Self::Started {
                id: raw.field("id")?,
                request_id: raw.field("request_id")?,
                client: raw.field("client")?,
                gateway: raw.field("gateway")?,
                executor: raw.field("executor")?,
                reserved: raw.field("reserved")?,
            },
            "Finished" => Self::Finished {
                id: raw.field("id")?,
                request_id: raw.field("request_id")?,
                price: raw.field("price")?,
            },
            "Delivered" => Self::Delivered {
                id: raw.field("id")?,
                request_id: raw.field("request_id")?,
                matched: raw.field("matched")?,
            },
            "Expired" => Self::Expired { id: raw.field("id")? },
            "Disputed" => Self::Disputed { id: raw.field("id")? },
            "Settled" => Self::Settled {
                id: raw.field("id")?,
                valid: raw.field("valid")?,
                refunded: raw.field("refunded")?,
            },
            "Planted" => Self::Planted { id: raw.field("id")?, refunded: raw.field("refunded")? },
            "RecordRefused" => Self::RecordRefused {
                request_id: raw.field("request_id")?,
                reason: raw.field("reason_name")?,
            },
            _ => Self::Other,
        })
    }

    fn read_verification(raw: &RawEvent) -> Result<Self, ChainError> {
        Ok(match raw.name.as_str() {
            "VerdictSubmitted" => Self::VerdictSubmitted {
                id: raw.field("id")?,
                verifier: raw.field("verifier")?,
                passed: raw.field("passed")?,
            },
            "VerdictRefused" => {
                Self::VerdictRefused { id: raw.field("id")?, reason: raw.field("reason_name")? }
            }
            "FraudProven" => Self::FraudProven { id: raw.field("id")?, fraud: raw.field("fraud")? },
            "PlantCommitted" => Self::PlantCommitted { host: raw.field("host")?, epoch: raw.field("epoch")? },
            "PlantRevealed" => Self::PlantRevealed {
                id: raw.field("id")?,
                planter: raw.field("planter")?,
                approvers: raw.field("approvers")?,
            },
            "PlantContested" => {
                Self::PlantContested { id: raw.field("id")?, contester: raw.field("contester")? }
            }
            "Negligent" => {
                Self::Negligent { host: raw.field("host")?, epoch: raw.field("epoch")?, id: raw.field("id")? }
            }
            "Convicted" => Self::Convicted { host: raw.field("host")? },
            "ReputationChanged" => {
                Self::ReputationChanged { host: raw.field("host")?, reputation: raw.field("reputation")? }
            }
            _ => Self::Other,
        })
    }
}

/// Names and types of an event's fields, as far as they are read; compared with the runtime by [`crate::shape`].
#[derive(Debug)]
pub struct EventShape {
    /// Name of the pallet in the runtime.
    pub pallet: &'static str,
    /// Name of the event.
    pub name: &'static str,
    /// The fields that are read.
    pub fields: Vec<(&'static str, MetaType)>,
}

macro_rules! events {
    ($($pallet:literal . $name:literal { $($field:literal: $type:ty),* };)*) => {
        /// Every event that [`ChainEvent`] reads fields of.
        pub fn all() -> Vec<EventShape> {
            vec![$(EventShape {
                pallet: $pallet,
                name: $name,
                fields: vec![$(($field, meta_type::<$type>())),*],
            }),*]
        }
    };
}

events! {
    "Epochs"."EpochStarted" { "epoch": EpochIndex };
    "Beacon"."SeedFinal" { "round": Round, "seed": H256 };
    "Sprint"."Committed" { "host": AccountId, "profile": ProfileId };
    "Sprint"."WeightsSet" { "epoch": EpochIndex };
    "Inference"."Started" {
        "id": InferenceId, "request_id": RequestId, "client": AccountId, "gateway": AccountId,
        "executor": AccountId, "reserved": Balance
    };
    "Inference"."Finished" { "id": InferenceId, "request_id": RequestId, "price": Balance };
    "Inference"."Delivered" { "id": InferenceId, "request_id": RequestId, "matched": bool };
    "Inference"."Expired" { "id": InferenceId };
    "Inference"."Disputed" { "id": InferenceId };
    "Inference"."Settled" { "id": InferenceId, "valid": bool, "refunded": Balance };
    "Inference"."RecordRefused" { "request_id": RequestId };
    "Verification"."VerdictSubmitted" { "id": InferenceId, "verifier": AccountId, "passed": bool };
    "Verification"."VerdictRefused" { "id": InferenceId };
    "Verification"."FraudProven" { "id": InferenceId, "fraud": Fraud };
    "Inference"."Planted" { "id": InferenceId, "refunded": Balance };
    "Verification"."PlantCommitted" { "host": AccountId, "epoch": EpochIndex };
    "Verification"."PlantRevealed" { "id": InferenceId, "planter": AccountId, "approvers": u32 };
    "Verification"."PlantContested" { "id": InferenceId, "contester": AccountId };
    "Verification"."Negligent" { "host": AccountId, "epoch": EpochIndex, "id": InferenceId };
    "Verification"."Convicted" { "host": AccountId };
    "Verification"."ReputationChanged" { "host": AccountId, "reputation": Ppm };
    "Rewards"."Claimed" { "epoch": EpochIndex, "host": AccountId, "emission": Balance, "fees": Balance };
    "Rewards"."Minted" { "epoch": EpochIndex, "amount": Balance };
    "Rewards"."Burned" { "epoch": EpochIndex, "amount": Balance };
}

#[cfg(test)]
mod tests {
    use super::*;
    use codec::Encode;

    #[test]
    fn fields_are_found_by_name() {
        let raw = RawEvent {
            extrinsic: Some(1),
            pallet: "Rewards".into(),
            name: "Burned".into(),
            fields: vec![
                ("amount".into(), 7u128.encode()),
                ("other".into(), vec![1, 2, 3]),
                ("epoch".into(), 3u32.encode()),
            ],
        };
        assert_eq!(ChainEvent::read(&raw).unwrap(), ChainEvent::Burned { epoch: 3, amount: 7 });
        let broken = RawEvent { fields: vec![("epoch".into(), vec![1])], ..raw };
        assert!(matches!(ChainEvent::read(&broken), Err(ChainError::Decode { .. })));
    }
}
