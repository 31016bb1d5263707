//! What a device computes with.

use std::str::FromStr;

/// What numbers are computed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// As wide as the weights are stored; f32 on the processor, for which libtorch has no fast kernels of 16 bits.
    Stored,
    /// f32, whatever the weights are: the class of the engine's own kernels.
    #[default]
    F32,
}

/// A text that names no precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a precision is \"stored\" or \"f32\"")]
pub struct BadPrecision;

impl FromStr for Precision {
    type Err = BadPrecision;

    fn from_str(text: &str) -> Result<Self, BadPrecision> {
        match text {
            "stored" => Ok(Self::Stored),
            "f32" => Ok(Self::F32),
            _ => Err(BadPrecision),
        }
    }
}
