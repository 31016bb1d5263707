//! Starling's chain specifications.
//!
//! A specification is a preset of the runtime (see [`starling_runtime::genesis`]) with a name, and changes that the
//! command line asks for: other profiles, another pace.

mod overrides;

pub use overrides::{OverrideError, Overrides};

use sc_chain_spec::{ChainSpecExtension, ChainType, Properties};
use sc_client_api::{BadBlocks, ForkBlocks};
use sc_sync_state_rpc::LightSyncStateExtension;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use starling_runtime::{genesis, opaque::Block, WASM_BINARY};
use std::path::PathBuf;

/// What a specification says to the node beside the genesis.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ChainSpecExtension)]
#[serde(rename_all = "camelCase")]
pub struct Extensions {
    /// Blocks whose hash is fixed, against long forks.
    pub fork_blocks: ForkBlocks<Block>,
    /// Blocks that are never imported.
    pub bad_blocks: BadBlocks<Block>,
    /// Where light clients start; filled in by the `sync_state` RPC.
    pub light_sync_state: LightSyncStateExtension,
}

/// A chain specification.
pub type ChainSpec = sc_service::GenericChainSpec<Extensions>;

/// Why there is no such specification.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// The binary was built with SKIP_WASM_BUILD.
    #[error("this binary contains no runtime: it was built with SKIP_WASM_BUILD set")]
    NoRuntime,
    /// What was asked to be changed cannot be changed so.
    #[error("cannot change the specification")]
    Override(#[from] OverrideError),
    /// `demo-model.json` is not an object.
    #[error("this binary was built with a description of the demo model that is not JSON")]
    DemoModel(#[source] serde_json::Error),
    /// A specification file has its own genesis.
    #[error("a specification file cannot be changed, only a named specification")]
    NotNamed,
    /// The file is not a specification.
    #[error("cannot read the specification {path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// A named specification.
struct Named {
    preset: &'static str,
    id: &'static str,
    title: &'static str,
    chain_type: ChainType,
}

/// The named specifications; the first is what no name means.
const NAMED: [Named; 4] = [
    Named {
        preset: genesis::LOCAL,
        id: "starling-local",
        title: "Starling Local",
        chain_type: ChainType::Local,
    },
    Named {
        preset: genesis::DEV,
        id: "starling-dev",
        title: "Starling Development",
        chain_type: ChainType::Development,
    },
    Named {
        preset: genesis::TEST,
        id: "starling-test",
        title: "Starling Test",
        chain_type: ChainType::Local,
    },
    Named { preset: genesis::MAIN, id: "starling", title: "Starling", chain_type: ChainType::Live },
];

/// A specification by name (`dev`, `local`, `test`, `main`; empty means `local`) or file.
pub fn load(id: &str, overrides: &Overrides) -> Result<Box<dyn sc_service::ChainSpec>, SpecError> {
    let name = match id {
        "" => NAMED[0].preset,
        "dev" => genesis::DEV,
        other => other,
    };
    match NAMED.iter().find(|named| named.preset == name) {
        Some(named) => Ok(Box::new(build(named, overrides)?)),
        None if overrides.is_empty() => from_file(PathBuf::from(id)),
        None => Err(SpecError::NotNamed),
    }
}

fn build(named: &Named, overrides: &Overrides) -> Result<ChainSpec, SpecError> {
    let code = WASM_BINARY.ok_or(SpecError::NoRuntime)?;
    let patch = genesis_patch(named.preset, overrides)?;
    Ok(ChainSpec::builder(code, Extensions::default())
        .with_name(named.title)
        .with_id(named.id)
        .with_protocol_id(named.id)
        .with_chain_type(named.chain_type.clone())
        .with_properties(properties())
        .with_genesis_config_patch(patch)
        .build())
}

/// What `starling-mlnode digest` says of the demo model, and what its configuration says.
const DEMO_MODEL: &str = include_str!("../demo-model.json");

/// A preset whose demo profile is that of the demo model in this repository, with the changes asked for.
fn genesis_patch(preset: &str, overrides: &Overrides) -> Result<Value, SpecError> {
    let mut patch = genesis::preset_value(preset).unwrap_or_default();
    let demo: serde_json::Map<String, Value> =
        serde_json::from_str(DEMO_MODEL).map_err(SpecError::DemoModel)?;
    let profiles = patch.pointer_mut("/profiles/profiles").and_then(Value::as_array_mut);
    for profile in profiles.into_iter().flatten() {
        for (field, value) in &demo {
            profile[field] = value.clone();
        }
    }
    overrides.apply(&mut patch)?;
    Ok(patch)
}

fn from_file(path: PathBuf) -> Result<Box<dyn sc_service::ChainSpec>, SpecError> {
    match ChainSpec::from_json_file(path.clone()) {
        Ok(spec) => Ok(Box::new(spec)),
        Err(reason) => Err(SpecError::File { path, reason }),
    }
}

/// What wallets show.
fn properties() -> Properties {
    let mut properties = Properties::new();
    properties.insert("tokenSymbol".into(), "STRL".into());
    properties.insert("tokenDecimals".into(), 12.into());
    properties.insert("ss58Format".into(), 42.into());
    properties
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_primitives::profile::Profile;

    #[test]
    fn names_are_known() {
        for (id, expected) in [("", "starling-local"), ("dev", "starling-dev"), ("test", "starling-test")] {
            match load(id, &Overrides::default()) {
                Ok(spec) => assert_eq!(spec.id(), expected),
                Err(SpecError::NoRuntime) => assert!(WASM_BINARY.is_none()),
                Err(error) => panic!("{id}: {error}"),
            }
        }
    }

    #[test]
    fn the_demo_profile_is_that_of_the_demo_model() {
        let patch = genesis_patch(genesis::TEST, &Overrides::default()).expect("the preset exists");
        let profiles = patch["profiles"]["profiles"].clone();
        let profiles: Vec<Profile> = serde_json::from_value(profiles).expect("profiles");
        assert_eq!(profiles.len(), 1);
        let demo = &profiles[0];
        assert_eq!(demo.name_lossy(), "starling-demo");
        assert!(demo.is_valid());
        assert!(!demo.weights_digest.is_zero() && !demo.tokenizer_digest.is_zero());
        let main = genesis_patch(genesis::MAIN, &Overrides::default()).expect("the preset exists");
        assert_eq!(main.pointer("/profiles/profiles/0"), None);
    }

    #[test]
    fn other_names_are_files() {
        let error = load("no-such-file.json", &Overrides::default()).err();
        assert!(matches!(error, Some(SpecError::File { .. })));
        let overrides = Overrides { slot_duration_ms: Some(1_000), ..Overrides::default() };
        assert!(matches!(load("no-such-file.json", &overrides).err(), Some(SpecError::NotNamed)));
    }
}
