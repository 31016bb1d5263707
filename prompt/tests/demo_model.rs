//! The demo model's tokenizer and template give what `transformers` gives (golden file by `mlnode/train/golden.py`).

use serde::Deserialize;
use starling_prompt::{openai::ChatMessage, plan, Detokenizer, Limits, Tokenizer};
use std::path::Path;

#[derive(Deserialize)]
struct Case {
    messages: Vec<ChatMessage>,
    text: String,
    tokens: Vec<u32>,
    decoded: String,
}

fn demo_model() -> Tokenizer {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mlnode/demo-model");
    Tokenizer::load_from_folder(&folder).unwrap()
}

#[test]
fn prompts_agree_with_transformers() {
    let tokenizer = demo_model();
    let cases: Vec<Case> = serde_json::from_str(include_str!("golden/demo_prompts.json")).unwrap();
    for case in cases {
        assert_eq!(tokenizer.render_text(&case.messages, &[], None).unwrap(), case.text);
        assert_eq!(tokenizer.render(&case.messages).unwrap(), case.tokens, "{:?}", case.text);
        assert_eq!(tokenizer.decode(&case.tokens), case.decoded);
        let mut detokenizer = Detokenizer::new(&tokenizer);
        let mut text: String = case.tokens.iter().map(|t| detokenizer.push(*t)).collect();
        text.push_str(&detokenizer.finish());
        assert_eq!(text, case.decoded);
    }
}

#[test]
fn a_request_is_planned_with_the_models_defaults() {
    let tokenizer = demo_model();
    let request =
        serde_json::json!({"model": "m", "messages": [{"role": "user", "content": "What is a dog?"}]});
    let request = starling_prompt::parse_request(request.to_string().as_bytes()).unwrap();
    let limits = Limits {
        max_context: 1_024,
        top_k: 20,
        vocab_size: tokenizer.vocab_size(),
        default_max_tokens: None,
        choices_max: 1,
    };
    let planned = plan(&tokenizer, &request, &limits).unwrap();
    assert_eq!(planned.sampling.temperature_milli, 700);
    assert_eq!(planned.max_tokens + planned.prompt_len(), 1_024);
    assert!(tokenizer.vocab_size() == 4_096 && tokenizer.is_eos(4_095) && tokenizer.is_eos(4_093));
}
