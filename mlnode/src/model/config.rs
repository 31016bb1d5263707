//! `config.json` of a model of the Qwen3 or Llama family.

use super::{
    files::read_small,
    quantised::{QuantisedSettings, WeightBlocks},
    rope::{RopeScaling, RopeSettings},
    ModelError,
};
use serde::Deserialize;
use std::path::Path;

/// Largest value of any size in a config, and of the width of all heads together; products of two fit `i64` with room.
const MAX_SIZE: u32 = 1 << 24;
/// Bytes of a `config.json` at most; real ones have a few thousand.
const MAX_FILE: u64 = 1 << 20;

/// Kinds of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Qwen3, dense: queries and keys are normalised.
    Qwen3,
    /// Qwen3 with experts: as Qwen3, and feed-forward layers of which each token uses a few.
    Qwen3Moe,
    /// Llama 2 and 3.
    Llama,
}

/// The numbers that shape the model. Only what the engine implements is accepted: everything else would give other
/// logits than the model's authors meant, in silence.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Kind of the model.
    pub family: Family,
    /// Width of the residual stream.
    pub hidden_size: u32,
    /// Width of the gated feed-forward layer.
    pub intermediate_size: u32,
    /// The experts of the layers that have some; see [`Self::experts_of`].
    pub experts: Option<Experts>,
    /// Layers.
    pub layers: u32,
    /// Query heads of a layer.
    pub heads: u32,
    /// Key and value heads of a layer; divides `heads`.
    pub kv_heads: u32,
    /// Width of a head.
    pub head_dim: u32,
    /// Epsilon of the norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// What is done to them.
    pub rope_scaling: RopeScaling,
    /// Rows of the embedding.
    pub vocab_size: u32,
    /// Whether the output layer is the embedding.
    pub tied_embeddings: bool,
    /// Longest context.
    pub max_context: u32,
    /// Blocks of the 8-bit weights, in models that have such.
    pub weight_blocks: Option<WeightBlocks>,
}

/// Feed-forward layers of which each token uses a few.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Experts {
    /// Experts of a layer.
    pub count: u32,
    /// Experts that a token uses.
    pub per_token: u32,
    /// Width of an expert.
    pub intermediate_size: u32,
    /// Whether the shares of the experts that a token uses are scaled to add up to 1.
    pub normalised: bool,
    /// Every so many layers have experts.
    step: u32,
    /// Layers that have none in any case.
    dense_layers: Vec<u32>,
}

/// The file, with Hugging Face's names.
#[derive(Deserialize)]
struct File {
    model_type: String,
    hidden_size: u32,
    intermediate_size: u32,
    num_hidden_layers: u32,
    num_attention_heads: u32,
    num_key_value_heads: Option<u32>,
    head_dim: Option<u32>,
    #[serde(default = "default_eps")]
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<RopeSettings>,
    rope_parameters: Option<RopeSettings>,
    vocab_size: u32,
    #[serde(default)]
    tie_word_embeddings: bool,
    max_position_embeddings: Option<u32>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default)]
    use_sliding_window: bool,
    #[serde(default)]
    layer_types: Option<Vec<String>>,
    #[serde(default = "default_activation")]
    hidden_act: String,
    quantization_config: Option<QuantisedSettings>,
    /// Both names are in use.
    num_experts: Option<u32>,
    num_local_experts: Option<u32>,
    #[serde(default = "default_experts_per_token")]
    num_experts_per_tok: u32,
    #[serde(default = "default_expert_size")]
    moe_intermediate_size: u32,
    #[serde(default)]
    norm_topk_prob: bool,
    #[serde(default = "default_sparse_step")]
    decoder_sparse_step: u32,
    #[serde(default)]
    mlp_only_layers: Option<Vec<u32>>,
}

/// Transformers' defaults.
fn default_experts_per_token() -> u32 {
    8
}

fn default_expert_size() -> u32 {
    768
}

fn default_sparse_step() -> u32 {
    1
}

fn default_eps() -> f64 {
    1e-6
}

fn default_activation() -> String {
    "silu".into()
}

impl ModelConfig {
    /// Reads `config.json` of a model folder.
    pub fn load(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("config.json");
        let text = read_small(&path, MAX_FILE)?;
        let file: File = serde_json::from_str(&text).map_err(|source| ModelError::Json { path, source })?;
        Self::from_file(file)
    }

    fn from_file(file: File) -> Result<Self, ModelError> {
        let family = family(&file)?;
        refuse_unknown(&file)?;
        let rope = file.rope_parameters.or(file.rope_scaling).unwrap_or_default();
        // What transformers assumes where the file says nothing.
        let (head_dim, max_context) = match family {
            Family::Qwen3 => (128, 32_768),
            Family::Qwen3Moe => (file.hidden_size / file.num_attention_heads.max(1), 32_768),
            Family::Llama => (file.hidden_size / file.num_attention_heads.max(1), 2_048),
        };
        let experts = match family {
            Family::Qwen3Moe => Some(Experts {
                count: file.num_experts.or(file.num_local_experts).unwrap_or(128),
                per_token: file.num_experts_per_tok,
                intermediate_size: file.moe_intermediate_size,
                normalised: file.norm_topk_prob,
                step: file.decoder_sparse_step,
                dense_layers: file.mlp_only_layers.unwrap_or_default(),
            }),
            Family::Qwen3 | Family::Llama => None,
        };
        let config = Self {
            family,
            hidden_size: file.hidden_size,
            intermediate_size: file.intermediate_size,
            experts,
            layers: file.num_hidden_layers,
            heads: file.num_attention_heads,
            kv_heads: file.num_key_value_heads.unwrap_or(file.num_attention_heads),
            head_dim: file.head_dim.unwrap_or(head_dim),
            rms_norm_eps: file.rms_norm_eps,
            rope_theta: rope.rope_theta.or(file.rope_theta).unwrap_or(10_000.0),
            rope_scaling: rope.scaling()?,
            vocab_size: file.vocab_size,
            tied_embeddings: file.tie_word_embeddings,
            max_context: file.max_position_embeddings.unwrap_or(max_context),
            weight_blocks: file.quantization_config.map(|settings| settings.blocks()).transpose()?,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ModelError> {
        let sizes = [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.layers),
            ("num_attention_heads", self.heads),
            ("num_key_value_heads", self.kv_heads),
            ("head_dim", self.head_dim),
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_context),
        ];
        for (name, size) in sizes {
            check_size(name, size.into())?;
        }
        check_size("num_attention_heads x head_dim", u64::from(self.heads) * u64::from(self.head_dim))?;
        if let Some(experts) = &self.experts {
            experts.check()?;
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            let (heads, kv_heads) = (self.heads, self.kv_heads);
            return Err(ModelError::Unsupported(format!("{heads} query heads for {kv_heads} key heads")));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(ModelError::Unsupported(format!("head_dim is {}, which is odd", self.head_dim)));
        }
        let positive = |x: f64| x.is_finite() && x > 0.0;
        if !positive(self.rope_theta) || !positive(self.rms_norm_eps) {
            return Err(ModelError::Unsupported("rope_theta and rms_norm_eps must be positive".into()));
        }
        Ok(())
    }

    /// The experts of a layer, if it has some.
    pub fn experts_of(&self, layer: u32) -> Option<&Experts> {
        self.experts.as_ref().filter(|experts| {
            (layer + 1).is_multiple_of(experts.step) && !experts.dense_layers.contains(&layer)
        })
    }

    /// Query heads that share a key head.
    pub fn group(&self) -> u32 {
        self.heads / self.kv_heads
    }
}

impl Experts {
    fn check(&self) -> Result<(), ModelError> {
        let sizes = [
            ("num_experts", self.count),
            ("num_experts_per_tok", self.per_token),
            ("moe_intermediate_size", self.intermediate_size),
            ("decoder_sparse_step", self.step),
        ];
        for (name, size) in sizes {
            check_size(name, size.into())?;
        }
        if self.per_token > self.count {
            let message = format!("num_experts_per_tok is {} of {}", self.per_token, self.count);
            return Err(ModelError::Unsupported(message));
        }
        Ok(())
    }
}

fn check_size(name: &str, size: u64) -> Result<(), ModelError> {
    if size == 0 || size > u64::from(MAX_SIZE) {
        return Err(ModelError::Unsupported(format!("{name} is {size}; it must be 1 to {MAX_SIZE}")));
    }
    Ok(())
}

fn family(file: &File) -> Result<Family, ModelError> {
    match file.model_type.as_str() {
        "qwen3" => Ok(Family::Qwen3),
        "qwen3_moe" => Ok(Family::Qwen3Moe),
        "llama" => Ok(Family::Llama),
        other => {
            let message =
                format!("model_type is {other:?}; \"qwen3\", \"qwen3_moe\" and \"llama\" are implemented");
            Err(ModelError::Unsupported(message))
        }
    }
}

fn refuse_unknown(file: &File) -> Result<(), ModelError> {
    let refuse = |what: String| Err(ModelError::Unsupported(what));
    if file.hidden_act != "silu" {
        return refuse(format!("hidden_act is {:?}", file.hidden_act));
    }
    if file.attention_bias {
        return refuse("attention_bias is true".into());
    }
    if file.mlp_bias {
        return refuse("mlp_bias is true".into());
    }
    if file.use_sliding_window {
        return refuse("use_sliding_window is true".into());
    }
    if let Some(kind) = file.layer_types.iter().flatten().find(|kind| *kind != "full_attention") {
        return refuse(format!("a layer has the type {kind:?}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{json, Value};

    fn base() -> Value {
        json!({"model_type": "qwen3", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 101})
    }

    fn check(changes: Value) -> Result<ModelConfig, ModelError> {
        let mut value = base();
        for (key, change) in changes.as_object().unwrap() {
            value[key] = change.clone();
        }
        ModelConfig::from_file(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn old_and_new_rope_settings_are_read() {
        assert_eq!(check(json!({})).unwrap().rope_theta, 10_000.0);
        assert_eq!(check(json!({"rope_theta": 5.0, "rope_scaling": null})).unwrap().rope_theta, 5.0);
        let new = json!({"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}});
        assert_eq!(check(new).unwrap().rope_theta, 7.0);
    }

    #[test]
    fn llama_has_defaults_of_its_own_and_scaled_rotations() {
        let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64});
        let config = check(json!({"model_type": "llama", "head_dim": null, "rope_scaling": llama3})).unwrap();
        assert_eq!((config.family, config.head_dim, config.max_context), (Family::Llama, 16, 2_048));
        let expected = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, context: 64.0 };
        assert_eq!(config.rope_scaling, expected);
        let linear = check(json!({"rope_scaling": {"type": "linear", "factor": 2.0}})).unwrap();
        assert_eq!(linear.rope_scaling, RopeScaling::Linear { factor: 2.0 });
    }

    #[test]
    fn experts_are_where_the_config_says() {
        let moe = json!({"model_type": "qwen3_moe", "head_dim": null, "num_experts": 6, "num_experts_per_tok": 2,
            "moe_intermediate_size": 24, "norm_topk_prob": true, "num_hidden_layers": 6, "decoder_sparse_step": 2,
            "mlp_only_layers": [3]});
        let config = check(moe).unwrap();
        let experts = config.experts.as_ref().unwrap();
        assert_eq!((experts.count, experts.per_token, experts.intermediate_size), (6, 2, 24));
        assert!(experts.normalised);
        assert_eq!(config.head_dim, 16);
        let sparse: Vec<u32> = (0..6).filter(|layer| config.experts_of(*layer).is_some()).collect();
        assert_eq!(sparse, [1, 5]);
        // transformers 5 writes another name, published files leave defaults out.
        let config = check(json!({"model_type": "qwen3_moe", "num_local_experts": 9})).unwrap();
        let experts = config.experts.unwrap();
        assert_eq!((experts.count, experts.per_token, experts.normalised), (9, 8, false));
        assert!(check(json!({"num_experts": 6})).unwrap().experts_of(0).is_none());
    }

    #[test]
    fn blocks_of_8_bit_weights_are_read() {
        assert_eq!(check(json!({"quantization_config": null})).unwrap().weight_blocks, None);
        let published = json!({"quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3",
            "quant_method": "fp8", "weight_block_size": [128, 64], "modules_to_not_convert": ["lm_head"]}});
        let expected = WeightBlocks { outputs: 128, inputs: 64 };
        assert_eq!(check(published).unwrap().weight_blocks, Some(expected));
    }

    #[test]
    fn what_is_not_implemented_is_refused() {
        for bad in [
            json!({"model_type": "qwen3_5_moe"}),
            json!({"model_type": "qwen3_moe", "num_experts": 0}),
            json!({"model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 5}),
            json!({"model_type": "qwen3_moe", "decoder_sparse_step": 0}),
            json!({"num_hidden_layers": 1_000_000_000}),
            json!({"num_attention_heads": 0}),
            json!({"num_attention_heads": 1 << 20, "num_key_value_heads": 1, "head_dim": 1 << 20}),
            json!({"vocab_size": u32::MAX}),
            json!({"max_position_embeddings": 1u32 << 31}),
            json!({"rms_norm_eps": -1.0}),
            json!({"attention_bias": true}),
            json!({"use_sliding_window": true}),
            json!({"layer_types": ["full_attention", "sliding_attention"]}),
            json!({"mlp_bias": true}),
            json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}),
            json!({"rope_scaling": {"type": "linear"}}),
            json!({"rope_scaling": {"type": "linear", "factor": 0.0}}),
            json!({"rope_parameters": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}),
            json!({"rope_parameters": {"rope_type": "yarn", "rope_theta": 7.0}}),
            json!({"hidden_act": "gelu"}),
            json!({"num_key_value_heads": 3}),
            json!({"head_dim": 15}),
            json!({"vocab_size": 0}),
            json!({"quantization_config": {"quant_method": "gptq", "bits": 4}}),
            json!({"quantization_config": {"bits": 4}}),
            json!({"quantization_config": {"quant_method": "fp8", "weight_block_size": null}}),
            json!({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 0]}}),
            json!({"quantization_config": {"quant_method": "fp8", "activation_scheme": "static"}}),
            json!({"quantization_config": {"quant_method": "fp8", "fmt": "e5m2"}}),
            json!({"rope_theta": -1.0}),
        ] {
            assert!(matches!(check(bad.clone()), Err(ModelError::Unsupported(_))), "{bad}");
        }
    }
}
