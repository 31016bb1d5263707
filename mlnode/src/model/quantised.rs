//! `quantization_config` of a model: 8-bit weights with a scale for each block.

use super::ModelError;
use serde::Deserialize;

/// Largest side of a block.
const MAX_BLOCK: u32 = 1 << 16;

/// The block of a matrix that shares a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightBlocks {
    /// Outputs (rows of the stored matrix).
    pub outputs: u32,
    /// Inputs (columns).
    pub inputs: u32,
}

/// The settings as Hugging Face writes them. Which modules are not converted need not be known: a tensor's own type says
/// it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct QuantisedSettings {
    #[serde(default)]
    quant_method: String,
    fmt: Option<String>,
    activation_scheme: Option<String>,
    scale_fmt: Option<String>,
    expert_dtype: Option<String>,
    #[serde(default = "default_block")]
    weight_block_size: Option<Vec<u32>>,
}

fn default_block() -> Option<Vec<u32>> {
    Some(vec![128, 128])
}

impl QuantisedSettings {
    /// The blocks; an error when the weights are of another kind.
    pub(super) fn blocks(self) -> Result<WeightBlocks, ModelError> {
        let refuse = |what: String| Err(ModelError::Unsupported(what));
        if self.quant_method != "fp8" {
            return refuse(format!("quant_method is {:?}; only \"fp8\" is implemented", self.quant_method));
        }
        let expected = [
            ("fmt", self.fmt, "e4m3"),
            ("activation_scheme", self.activation_scheme, "dynamic"),
            ("scale_fmt", self.scale_fmt, "float"),
            ("expert_dtype", self.expert_dtype, "fp8"),
        ];
        for (name, found, implemented) in expected {
            if let Some(found) = found.filter(|found| found != implemented) {
                return refuse(format!("{name} of the quantisation is {found:?}, not {implemented:?}"));
            }
        }
        match self.weight_block_size.as_deref() {
            Some([outputs, inputs])
                if (1..=MAX_BLOCK).contains(outputs) && (1..=MAX_BLOCK).contains(inputs) =>
            {
                Ok(WeightBlocks { outputs: *outputs, inputs: *inputs })
            }
            other => refuse(format!("weight_block_size is {other:?}")),
        }
    }
}
