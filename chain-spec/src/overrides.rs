//! Changes to a named specification.

use serde_json::Value;
use starling_primitives::{profile::Profile, schedule::Schedule};
use std::{fs, io, path::PathBuf};

/// What to change in a preset.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// JSON file with a list of profiles that replaces the preset's.
    pub profile_file: Option<PathBuf>,
    /// JSON file whose fields replace those of the preset's schedule.
    pub schedule_file: Option<PathBuf>,
    /// Length of a slot in milliseconds.
    pub slot_duration_ms: Option<u64>,
}

/// Why a preset cannot be changed so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OverrideError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{path} is not {expected}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
        /// Why it is not.
        source: serde_json::Error,
    },
    /// A profile cannot be registered.
    #[error("profile {index} of {path} has a field out of its range")]
    InvalidProfile {
        /// The file.
        path: PathBuf,
        /// Position in its list.
        index: usize,
    },
    /// The schedule cannot run.
    #[error("the schedule cannot run: {0:?}")]
    InvalidSchedule(starling_primitives::schedule::ScheduleError),
    /// Slots last an even number of milliseconds.
    #[error("a slot of {0} ms: must be even and not 0")]
    InvalidSlot(u64),
}

impl Overrides {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.profile_file.is_none() && self.schedule_file.is_none() && self.slot_duration_ms.is_none()
    }

    /// Changes a preset.
    pub(crate) fn apply(&self, patch: &mut Value) -> Result<(), OverrideError> {
        if let Some(path) = &self.profile_file {
            let profiles: Vec<Profile> = read(path, "a list of profiles")?;
            if let Some(index) = profiles.iter().position(|profile| !profile.is_valid()) {
                return Err(OverrideError::InvalidProfile { path: path.clone(), index });
            }
            patch["profiles"]["profiles"] = to_value(&profiles);
        }
        if let Some(path) = &self.schedule_file {
            let changes: serde_json::Map<String, Value> = read(path, "an object of schedule fields")?;
            let fields = &mut patch["epochs"]["schedule"];
            for (field, value) in changes {
                fields[field] = value;
            }
            let schedule: Schedule = serde_json::from_value(fields.clone()).map_err(|source| {
                OverrideError::Parse { path: path.clone(), expected: "a schedule", source }
            })?;
            schedule.check().map_err(OverrideError::InvalidSchedule)?;
        }
        if let Some(slot) = self.slot_duration_ms {
            if slot == 0 || slot % 2 != 0 {
                return Err(OverrideError::InvalidSlot(slot));
            }
            patch["epochs"]["slotDurationMs"] = slot.into();
        }
        Ok(())
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &PathBuf, expected: &'static str) -> Result<T, OverrideError> {
    let text = fs::read(path).map_err(|source| OverrideError::Read { path: path.clone(), source })?;
    serde_json::from_slice(&text).map_err(|source| OverrideError::Parse {
        path: path.clone(),
        expected,
        source,
    })
}

/// The profiles were read from JSON, so they can be written as JSON.
fn to_value(profiles: &[Profile]) -> Value {
    serde_json::to_value(profiles).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_runtime::genesis;

    fn with_file(content: &str, test: impl FnOnce(PathBuf)) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("file.json");
        fs::write(&path, content).expect("a temporary file");
        test(path);
    }

    fn patch() -> Value {
        genesis::preset_value(genesis::TEST).expect("the preset exists")
    }

    #[test]
    fn profiles_are_replaced() {
        let profile = Profile { vocab_size: 77, ..genesis::demo_profile() };
        let json = serde_json::to_string(&[profile]).expect("a profile is JSON");
        with_file(&json, |path| {
            let mut patch = patch();
            let overrides = Overrides { profile_file: Some(path), ..Overrides::default() };
            overrides.apply(&mut patch).expect("the profile is valid");
            assert_eq!(patch["profiles"]["profiles"][0]["vocab_size"], 77);
        });
    }

    #[test]
    fn a_profile_out_of_range_is_refused() {
        let profile = Profile { top_k: 0, ..genesis::demo_profile() };
        let json = serde_json::to_string(&[profile]).expect("a profile is JSON");
        with_file(&json, |path| {
            let overrides = Overrides { profile_file: Some(path), ..Overrides::default() };
            let error = overrides.apply(&mut patch());
            assert!(matches!(error, Err(OverrideError::InvalidProfile { index: 0, .. })));
        });
    }

    #[test]
    fn schedule_fields_are_replaced_one_by_one() {
        with_file(r#"{"epochBlocks": 80}"#, |path| {
            let mut patch = patch();
            let overrides =
                Overrides { schedule_file: Some(path), slot_duration_ms: Some(500), ..Overrides::default() };
            overrides.apply(&mut patch).expect("the schedule can run");
            assert_eq!(patch["epochs"]["schedule"]["epochBlocks"], 80);
            assert_eq!(patch["epochs"]["schedule"]["raceStart"], Schedule::TEST.race_start);
            assert_eq!(patch["epochs"]["slotDurationMs"], 500);
        });
    }

    #[test]
    fn a_schedule_that_cannot_run_is_refused() {
        with_file(r#"{"epochBlocks": 10}"#, |path| {
            let overrides = Overrides { schedule_file: Some(path), ..Overrides::default() };
            assert!(matches!(overrides.apply(&mut patch()), Err(OverrideError::InvalidSchedule(_))));
        });
        let odd = Overrides { slot_duration_ms: Some(501), ..Overrides::default() };
        assert!(matches!(odd.apply(&mut patch()), Err(OverrideError::InvalidSlot(501))));
    }
}
