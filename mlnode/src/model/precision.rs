//! What a device computes with.

use std::{fmt, str::FromStr};

/// What numbers are computed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// As wide as the weights are stored, where the device has products of that width: bf16 everywhere, f16 on CUDA alone.
    Stored,
    /// f32, whatever the weights are.
    #[default]
    F32,
}

/// A text that names no precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a precision is \"stored\" or \"f32\"")]
pub struct BadPrecision;

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stored => "stored",
            Self::F32 => "f32",
        })
    }
}

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
