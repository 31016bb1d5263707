//! Tokenizers small enough to be written out.

use crate::{GenerationDefaults, Tokenizer, TokenizerBundle};
use serde_json::{json, Map, Value};
use std::sync::{Arc, OnceLock};

pub(crate) const IM_START: u32 = 257;
pub(crate) const IM_END: u32 = 258;

pub(crate) const CHATML: &str = "{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}";

fn added(id: u32, content: &str) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": true
    })
}

/// A byte-level vocabulary: 256 bytes and three special tokens.
pub(crate) fn bundle() -> TokenizerBundle {
    let mut next = 256u32;
    let mut vocabulary = Map::new();
    for byte in 0..=255u32 {
        let printable = matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
        let code = if printable {
            byte
        } else {
            next += 1;
            next - 1
        };
        vocabulary.insert(char::from_u32(code).unwrap().to_string(), byte.into());
    }
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(256, "<|endoftext|>"), added(IM_START, "<|im_start|>"), added(IM_END, "<|im_end|>")],
        "normalizer": null, "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary, "merges": []
        }
    });
    TokenizerBundle {
        tokenizer_json: tokenizer.to_string(),
        chat_template: CHATML.into(),
        eos_token: Some("<|im_end|>".into()),
        eos_token_ids: vec![256, IM_END],
        defaults: GenerationDefaults::default(),
        ..TokenizerBundle::default()
    }
}

/// [`bundle`] as a tokenizer.
pub(crate) fn tokenizer() -> Arc<Tokenizer> {
    static TOKENIZER: OnceLock<Arc<Tokenizer>> = OnceLock::new();
    TOKENIZER.get_or_init(|| Arc::new(Tokenizer::new(bundle()).unwrap())).clone()
}

/// A vocabulary in the manner of SentencePiece: `<unk>`, `<s>`, `</s>`, two words, and 256 bytes from id 5 on.
pub(crate) fn sentencepiece_tokenizer() -> Tokenizer {
    let mut vocabulary = Map::new();
    for (id, token) in ["<unk>", "<s>", "</s>", "\u{2581}a", "\u{2581}b"].into_iter().enumerate() {
        vocabulary.insert(token.into(), id.into());
    }
    for byte in 0..=255u32 {
        vocabulary.insert(format!("<0x{byte:02X}>"), (byte + 5).into());
    }
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>")],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}
        ]},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocabulary, "merges": []
        }
    });
    Tokenizer::new(TokenizerBundle {
        tokenizer_json: tokenizer.to_string(),
        chat_template: CHATML.into(),
        eos_token_ids: vec![2],
        ..TokenizerBundle::default()
    })
    .unwrap()
}
