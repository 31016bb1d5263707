//! Rotary positions: how fast each pair of a head's numbers turns.

use super::{ModelConfig, ModelError};
use serde::Deserialize;
use std::f32::consts::PI;

/// How the frequencies are changed for contexts longer than those of the training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All are divided by the factor.
    Linear {
        /// The factor.
        factor: f32,
    },
    /// As in Llama 3: slow ones are divided by the factor, fast ones stay, those between are blended.
    Llama3 {
        /// The factor.
        factor: f32,
        /// Turns within the original context up to which a frequency is slow.
        low: f32,
        /// Turns within the original context from which on a frequency is fast.
        high: f32,
        /// The original context, in tokens.
        context: f32,
    },
}

/// The settings as Hugging Face writes them: `rope_scaling` before transformers 5, `rope_parameters` since.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct RopeSettings {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    pub(super) rope_theta: Option<f64>,
    factor: Option<f32>,
    low_freq_factor: Option<f32>,
    high_freq_factor: Option<f32>,
    original_max_position_embeddings: Option<f32>,
}

impl RopeSettings {
    /// What they mean; an error when that is not implemented, or not a meaning.
    pub(super) fn scaling(&self) -> Result<RopeScaling, ModelError> {
        let kind = self.rope_type.as_deref().unwrap_or("default");
        let number = |name: &str, value: Option<f32>| match value {
            Some(value) if value.is_finite() && value > 0.0 => Ok(value),
            other => Err(ModelError::Unsupported(format!("{name} of the rotary settings is {other:?}"))),
        };
        match kind {
            "default" => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear { factor: number("factor", self.factor)? }),
            "llama3" => {
                let low = number("low_freq_factor", self.low_freq_factor)?;
                let high = number("high_freq_factor", self.high_freq_factor)?;
                if high <= low {
                    let message = format!("high_freq_factor is {high}, low_freq_factor {low}");
                    return Err(ModelError::Unsupported(message));
                }
                let context = self.original_max_position_embeddings;
                let context = number("original_max_position_embeddings", context)?;
                Ok(RopeScaling::Llama3 { factor: number("factor", self.factor)?, low, high, context })
            }
            other => Err(ModelError::Unsupported(format!("rope_type is {other:?}"))),
        }
    }
}

/// Radians per token of each pair of a head, as f32 like transformers computes them: other roundings would show at large
/// positions.
pub(super) fn frequencies(config: &ModelConfig) -> Vec<f32> {
    let plain = (0..config.head_dim / 2).map(|i| {
        let exponent = (2 * i) as f32 / config.head_dim as f32;
        1.0 / (config.rope_theta as f32).powf(exponent)
    });
    plain.map(|frequency| scale(frequency, config.rope_scaling)).collect()
}

fn scale(frequency: f32, scaling: RopeScaling) -> f32 {
    match scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / factor,
        RopeScaling::Llama3 { factor, low, high, context } => {
            let wavelength = 2.0 * PI / frequency;
            if wavelength > context / low {
                frequency / factor
            } else if wavelength < context / high {
                frequency
            } else {
                let blend = (context / wavelength - low) / (high - low);
                (1.0 - blend) * frequency / factor + blend * frequency
            }
        }
    }
}

/// Cosines and sines of a position, one of each for every frequency. In f64 and rounded once, so that they do not depend on
/// the accuracy of the system's f32 functions. Computed when needed: a table of all positions of a long context would be
/// larger than some models.
pub(super) fn turn(frequencies: &[f32], position: usize, cos: &mut [f32], sin: &mut [f32]) {
    for ((frequency, cos), sin) in frequencies.iter().zip(cos).zip(sin) {
        let angle = f64::from(position as f32 * frequency);
        (*cos, *sin) = (angle.cos() as f32, angle.sin() as f32);
    }
}
