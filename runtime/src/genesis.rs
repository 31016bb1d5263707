//! Named first states of chains.
//!
//! | preset | slots | schedule | hosts | sudo |
//! |---|---|---|---|---|
//! | `dev` | 2 s | [`Schedule::DEV`] | Alice | Alice |
//! | `local` | 2 s | [`Schedule::DEV`] | Alice, Bob, Charlie, Dave | Alice |
//! | `test` | 2 s | [`Schedule::TEST`] | Alice, Bob, Charlie, Dave | Alice |
//! | `main` | 5 s | [`Schedule::MAIN`] | to be filled in | nobody |
//!
//! A host's account is sr25519 `//Alice`, its worker key sr25519 `//Alice//worker`, its session keys are those of
//! `//Alice`. Eve and Ferdie are clients: they have funds, but no deposit yet.

use crate::*;
use alloc::{vec, vec::Vec};
use frame_support::build_struct_json_patch;
use serde_json::Value;
use sp_core::hex2array;
use sp_genesis_builder::PresetId;
use sp_keyring::{Ed25519Keyring, Sr25519Keyring};
use starling_primitives::{
    profile::{Calibration, Numerics, Profile},
    schedule::Schedule,
    H256,
};

/// One developer's chain.
pub const DEV: &str = sp_genesis_builder::DEV_RUNTIME_PRESET;
/// Four hosts on one machine.
pub const LOCAL: &str = "local";
/// Four hosts on one machine, with the shortest epochs.
pub const TEST: &str = "test";
/// Template of a real network: without hosts, authorities and profiles.
pub const MAIN: &str = "main";

/// Funds of each account of a development chain.
const ENDOWMENT: Balance = 1_000_000 * TOKEN;

/// The hosts of development chains, with the public key of their `//worker`.
pub const DEVELOPMENT_HOSTS: [(Sr25519Keyring, Ed25519Keyring, [u8; 32]); 4] = [
    (
        Sr25519Keyring::Alice,
        Ed25519Keyring::Alice,
        hex2array!("de0890e2f871c4263480188c3c6f27194198a61f1c56da846851a02554e19f3f"),
    ),
    (
        Sr25519Keyring::Bob,
        Ed25519Keyring::Bob,
        hex2array!("c406f0636e27e7bb858d01d7683eafa66827d32cec3ad3d44287e35848abab2a"),
    ),
    (
        Sr25519Keyring::Charlie,
        Ed25519Keyring::Charlie,
        hex2array!("70b86fb59af3aa4a6aeb778b86a1402731a3c2118772d886d60d08c91027a840"),
    ),
    (
        Sr25519Keyring::Dave,
        Ed25519Keyring::Dave,
        hex2array!("506978e899cd086157035e54acae66310e2a23db9a7f82ef29d9f277014c051c"),
    ),
];

/// Name of the demo model's profile, which development chains register.
pub const DEMO_PROFILE_NAME: &[u8] = b"starling-demo";

/// Names of all presets.
pub fn preset_names() -> Vec<PresetId> {
    vec![PresetId::from(DEV), PresetId::from(LOCAL), PresetId::from(TEST), PresetId::from(MAIN)]
}

/// JSON of a named preset.
pub fn preset(id: &PresetId) -> Option<Vec<u8>> {
    serde_json::to_vec(&preset_value(id.as_ref())?).ok()
}

/// A named preset, as a patch of the default genesis.
pub fn preset_value(name: &str) -> Option<Value> {
    match name {
        DEV => Some(development(Schedule::DEV, 1)),
        LOCAL => Some(development(Schedule::DEV, DEVELOPMENT_HOSTS.len())),
        TEST => Some(development(Schedule::TEST, DEVELOPMENT_HOSTS.len())),
        MAIN => Some(main_template()),
        _ => None,
    }
}

/// A chain of slots of 2 s and sessions of 10 slots with the first `hosts` of the development hosts.
fn development(schedule: Schedule, hosts: usize) -> Value {
    let hosts = DEVELOPMENT_HOSTS.iter().take(hosts);
    let rich = Sr25519Keyring::well_known().map(|key| (key.to_account_id(), ENDOWMENT));
    build_struct_json_patch!(RuntimeGenesisConfig {
        balances: BalancesConfig { balances: rich.collect() },
        epochs: EpochsConfig { schedule, slot_duration_ms: 2_000, session_slots: 10 },
        babe: BabeConfig { epoch_config: configs::BABE_GENESIS_EPOCH_CONFIG },
        session: SessionConfig {
            keys: hosts
                .clone()
                .map(|(account, grandpa, _)| {
                    let babe = account.public().into();
                    let keys = SessionKeys { grandpa: grandpa.public().into(), babe };
                    (account.to_account_id(), account.to_account_id(), keys)
                })
                .collect::<Vec<_>>(),
        },
        sudo: SudoConfig { key: Some(Sr25519Keyring::Alice.to_account_id()) },
        profiles: ProfilesConfig { profiles: vec![demo_profile()] },
        hosts: HostsConfig {
            hosts: hosts
                .map(|(account, _, worker)| (account.to_account_id(), AccountId::new(*worker), vec![0]))
                .collect::<Vec<_>>(),
        },
    })
}

/// The real schedule, and nobody yet. Whoever starts a network fills in balances, session keys, hosts and profiles.
fn main_template() -> Value {
    build_struct_json_patch!(RuntimeGenesisConfig {
        epochs: EpochsConfig { schedule: Schedule::MAIN, slot_duration_ms: 5_000, session_slots: 720 },
        babe: BabeConfig { epoch_config: configs::BABE_GENESIS_EPOCH_CONFIG },
    })
}

/// The demo model's profile.
pub fn demo_profile() -> Profile {
    Profile {
        name: DEMO_PROFILE_NAME.to_vec().try_into().unwrap_or_default(),
        weights_digest: H256::zero(),
        tokenizer_digest: H256::zero(),
        numerics: Numerics::F32,
        top_k: 20,
        max_context: 1_024,
        vocab_size: 4_096,
        prompt_price: TOKEN / 10_000,
        completion_price: TOKEN / 1_000,
        prompt_work: 1,
        completion_work: 4,
        sprint_tolerance: 0,
        // As `starling-mlnode calibrate` finds them for the demo model: rounding is all that honest hosts differ by.
        calibration: Calibration { distance_limit: 8, margin_limit: 8, short_allowance: 0 },
    }
}
