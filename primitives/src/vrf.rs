//! What worker keys prove with their VRF (sr25519, schnorrkel).

use crate::{EpochIndex, H256};
use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;
use sp_core::{
    crypto::VrfPublic,
    sr25519::{
        vrf::{VrfSignature, VrfTranscript},
        Public,
    },
};

/// Context of the 32 output bytes.
const OUTPUT_CONTEXT: &[u8] = b"starling-vrf-out";

/// Output and proof of an sr25519 VRF as bytes: 32 of the pre-output, 64 of the DLEQ proof.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct VrfProof {
    /// Pre-output.
    pub pre_output: [u8; 32],
    /// Proof.
    pub proof: [u8; 64],
}

/// What a worker key evaluates its VRF on.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub enum VrfInput {
    /// Contribution to the beacon: (genesis hash, epoch).
    Beacon(H256, EpochIndex),
    /// Secret that decides the verification duties of an epoch: (genesis hash, epoch, epoch seed).
    Duty(H256, EpochIndex, H256),
}

/// What is signed: label `starling-vrf`, one item `input` = SCALE(input).
pub fn transcript(input: &VrfInput) -> VrfTranscript {
    VrfTranscript::new(b"starling-vrf", &[(b"input", &input.encode())])
}

/// The 32 output bytes, if this is the proof of `worker` for `input`.
pub fn verify(worker: &Public, input: &VrfInput, proof: &VrfProof) -> Option<H256> {
    // Through SCALE, whose decoder refuses bytes that are no curve points.
    let signature = VrfSignature::decode(&mut &proof.encode()[..]).ok()?;
    let transcript = transcript(input);
    if !worker.vrf_verify(&transcript.clone().into_sign_data(), &signature) {
        return None;
    }
    worker.make_bytes::<32>(OUTPUT_CONTEXT, &transcript, &signature.pre_output).ok().map(H256)
}

/// Proof and output of `worker` for `input`. The output is unique; the proof is randomised.
#[cfg(feature = "std")]
pub fn sign(worker: &sp_core::sr25519::Pair, input: &VrfInput) -> (VrfProof, H256) {
    use sp_core::crypto::VrfSecret;
    let transcript = transcript(input);
    let signature = worker.vrf_sign(&transcript.clone().into_sign_data());
    let proof =
        VrfProof { pre_output: *signature.pre_output.0.as_bytes(), proof: signature.proof.0.to_bytes() };
    (proof, H256(worker.make_bytes::<32>(OUTPUT_CONTEXT, &transcript)))
}
