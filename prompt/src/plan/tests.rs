use super::*;
use crate::{test_support, GenerationDefaults, TokenizerBundle};
use proptest::prelude::*;
use serde_json::json;

const LIMITS: Limits = Limits { max_context: 128, top_k: 20, vocab_size: 259, default_max_tokens: None };

fn planned(fields: Value) -> Result<Planned, ApiError> {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    plan(&test_support::tokenizer(), &parse_request(body.to_string().as_bytes())?, &LIMITS)
}

fn refused(fields: Value) -> (u16, Option<String>, String) {
    let error = planned(fields.clone()).expect_err(&fields.to_string());
    (error.status, error.code, error.param.unwrap_or_default())
}

#[test]
fn a_bare_request_gets_the_defaults() {
    let planned = planned(json!({})).unwrap();
    let prompt =
        test_support::tokenizer().encode("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n").unwrap();
    assert_eq!(planned.max_tokens, 128 - prompt.len() as u32);
    assert_eq!(planned.prompt_tokens, prompt);
    assert_eq!(planned.sampling, SamplingParams { temperature_milli: 1_000, ..SamplingParams::GREEDY });
    assert!(planned.stop.is_empty() && !planned.stream && !planned.include_usage);
    assert_eq!((planned.logprobs, planned.seed), (None, None));
    let header = planned.header(3, [7; 32]);
    assert_eq!((header.profile, header.prompt_hash, header.nonce), (3, prompt_hash(&prompt), [7; 32]));
}

#[test]
fn parameters_become_integers() {
    let planned = planned(json!({
        "temperature": 0.7, "top_p": 0.95, "min_p": 0.05, "top_k": 5, "frequency_penalty": -1.5, "presence_penalty": 2,
        "max_tokens": 9, "max_completion_tokens": 7, "stop": "x", "stream": true,
        "stream_options": {"include_usage": true}, "logprobs": true, "top_logprobs": 20, "seed": -4,
    }))
    .unwrap();
    let expected = SamplingParams {
        temperature_milli: 700,
        top_p: 9_500,
        min_p: 500,
        top_k: 5,
        frequency_penalty_milli: -1_500,
        presence_penalty_milli: 2_000,
    };
    assert_eq!(planned.sampling, expected);
    assert_eq!((planned.max_tokens, planned.stop), (7, vec!["x".to_owned()]));
    assert!(planned.stream && planned.include_usage);
    assert_eq!((planned.logprobs, planned.seed), (Some(20), Some(-4)));
}

#[test]
fn the_models_defaults_stand_where_the_request_is_silent() {
    let defaults = GenerationDefaults {
        temperature_milli: Some(600),
        top_p: Some(9_500),
        min_p: Some(10),
        top_k: Some(7),
    };
    let tokenizer = Tokenizer::new(TokenizerBundle { defaults, ..test_support::bundle() }).unwrap();
    let request = |fields: &str| {
        let body = format!(r#"{{"model": "m", "messages": [{{"role": "user", "content": "Hi"}}]{fields}}}"#);
        plan(&tokenizer, &parse_request(body.as_bytes()).unwrap(), &LIMITS).unwrap().sampling
    };
    let silent = request("");
    assert_eq!((silent.temperature_milli, silent.top_p, silent.min_p, silent.top_k), (600, 9_500, 10, 7));
    let loud = request(r#", "temperature": 0, "top_p": 1, "min_p": 0, "top_k": -1"#);
    assert_eq!(loud, SamplingParams::GREEDY);
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    let cases = [
        json!({"n": 2}),
        json!({"tools": [{"type": "function"}]}),
        json!({"functions": [{"name": "f"}]}),
        json!({"tool_choice": "required"}),
        json!({"function_call": {"name": "f"}}),
        json!({"response_format": {"type": "json_schema", "json_schema": {}}}),
        json!({"response_format": {"type": "json_object"}}),
        json!({"modalities": ["text", "audio"]}),
        json!({"audio": {"voice": "alloy"}}),
        json!({"web_search_options": {}}),
        json!({"reasoning_effort": "high"}),
        json!({"verbosity": "low"}),
        json!({"service_tier": "priority"}),
        json!({"store": true}),
        json!({"logit_bias": {"1": 2}}),
        json!({"repetition_penalty": 1.1}),
        json!({"min_tokens": 4}),
        json!({"ignore_eos": true}),
        json!({"continue_final_message": true}),
    ];
    for case in cases {
        let name = case.as_object().unwrap().keys().next().unwrap().clone();
        assert_eq!(refused(case), (400, Some("unsupported_parameter".into()), name));
    }
}

#[test]
fn neutral_values_and_unknown_fields_are_tolerated() {
    let plain = planned(json!({})).unwrap();
    let neutral = json!({
        "n": 1, "tools": [], "tool_choice": "none", "function_call": "auto", "response_format": {"type": "text"},
        "modalities": ["text"], "audio": null, "reasoning_effort": null, "verbosity": "medium", "service_tier": "auto",
        "store": false, "logit_bias": {}, "repetition_penalty": 1.0, "min_tokens": 0, "stop": null, "temperature": null,
        "user": "u", "metadata": {"a": "b"}, "prediction": {"type": "content", "content": "x"}, "something_new": [1],
        "parallel_tool_calls": true, "logprobs": false, "safety_identifier": "s", "prompt_cache_key": "k",
        "chat_template_kwargs": {"enable_thinking": false},
    });
    assert_eq!(planned(neutral).unwrap(), plain);
}

#[test]
fn values_outside_their_range_are_refused() {
    let cases = [
        ("temperature", json!({"temperature": 2.1})),
        ("temperature", json!({"temperature": -0.1})),
        ("top_p", json!({"top_p": 1.01})),
        ("min_p", json!({"min_p": -1})),
        ("top_k", json!({"top_k": -2})),
        ("frequency_penalty", json!({"frequency_penalty": 3})),
        ("presence_penalty", json!({"presence_penalty": -2.5})),
        ("max_tokens", json!({"max_tokens": 0})),
        ("max_completion_tokens", json!({"max_completion_tokens": 0, "max_tokens": 1})),
        ("stop", json!({"stop": ["1", "2", "3", "4", "5"]})),
        ("stop", json!({"stop": ""})),
        ("stop", json!({"stop": "x".repeat(2_000)})),
        ("top_logprobs", json!({"top_logprobs": 3})),
        ("top_logprobs", json!({"logprobs": true, "top_logprobs": 21})),
        ("stream_options", json!({"stream_options": {"include_usage": true}})),
    ];
    for (param, case) in cases {
        assert_eq!(refused(case), (400, Some("invalid_value".into()), param.into()));
    }
    assert_eq!(refused(json!({"messages": []})), (400, Some("empty_array".into()), "messages".into()));
}

#[test]
fn wrong_types_and_missing_fields_are_named() {
    let refused = |body: &str| {
        let error = parse_request(body.as_bytes()).unwrap_err();
        (error.status, error.code.unwrap_or_default(), error.param.unwrap_or_default())
    };
    let named = |code: &str, param: &str| (400, code.to_owned(), param.to_owned());
    assert_eq!(refused("{"), named("", ""));
    assert_eq!(refused("{} x"), named("missing_required_parameter", "model"));
    assert_eq!(refused(r#"{"model": "m", "messages": []} x"#), named("", ""));
    assert_eq!(refused("[]"), named("", ""));
    assert_eq!(refused(r#"{"model": "m"}"#), named("missing_required_parameter", "messages"));
    assert_eq!(refused(r#"{"model": 1, "messages": []}"#), named("invalid_type", "model"));
    let role = r#"{"model": "m", "messages": [{"role": "user", "content": "x"}, {"content": "x"}]}"#;
    assert_eq!(refused(role), named("missing_required_parameter", "messages[1].role"));
    let temperature = r#"{"model": "m", "messages": [], "temperature": "hot"}"#;
    assert_eq!(refused(temperature), named("invalid_type", "temperature"));
}

#[test]
fn long_prompts_and_completions_exceed_the_context() {
    let code = |fields| refused(fields).1.unwrap();
    let message = |length| json!([{"role": "user", "content": "a".repeat(length)}]);
    assert_eq!(code(json!({"messages": message(200)})), "context_length_exceeded");
    assert_eq!(code(json!({"messages": message(1_000_000)})), "context_length_exceeded");
    assert_eq!(code(json!({"max_tokens": 128})), "context_length_exceeded");
    assert_eq!(code(json!({"max_tokens": u64::MAX})), "context_length_exceeded");
    let room = planned(json!({})).unwrap().max_tokens;
    assert_eq!(planned(json!({"max_tokens": room})).unwrap().max_tokens, room);
    assert_eq!(code(json!({"max_tokens": room + 1})), "context_length_exceeded");
}

#[test]
fn the_operators_default_never_exceeds_the_room() {
    let request =
        parse_request(br#"{"model": "m", "messages": [{"role": "user", "content": "Hi"}]}"#).unwrap();
    let with = |default| {
        let limits = Limits { default_max_tokens: Some(default), ..LIMITS };
        plan(&test_support::tokenizer(), &request, &limits).unwrap().max_tokens
    };
    assert_eq!((with(16), with(0)), (16, 1));
    assert_eq!(with(10_000), planned(json!({})).unwrap().max_tokens);
}

#[test]
fn a_tokenizer_that_does_not_fit_the_model_is_our_error() {
    let request =
        parse_request(br#"{"model": "m", "messages": [{"role": "user", "content": "Hi"}]}"#).unwrap();
    let limits = Limits { vocab_size: 100, ..LIMITS };
    assert_eq!(plan(&test_support::tokenizer(), &request, &limits).unwrap_err().status, 500);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_body_is_planned_or_refused(body in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Err(error) = parse_request(&body) {
            prop_assert_eq!(error.status, 400);
        }
    }

    #[test]
    fn planned_parameters_stay_in_range(
        temperature in proptest::option::of(any::<f64>()),
        top_p in proptest::option::of(-0.5f64..1.5),
        min_p in proptest::option::of(-0.5f64..1.5),
        top_k in proptest::option::of(any::<i64>()),
        penalty in proptest::option::of(-3f64..3.0),
        max_tokens in proptest::option::of(0u64..200),
        text in "\\PC{0,80}",
    ) {
        let request = ChatCompletionRequest {
            model: "m".into(),
            messages: vec![crate::openai::ChatMessage::new("user", &text)],
            temperature, top_p, min_p, top_k, frequency_penalty: penalty, presence_penalty: penalty, max_tokens,
            ..ChatCompletionRequest::default()
        };
        match plan(&test_support::tokenizer(), &request, &LIMITS) {
            Ok(planned) => {
                let s = planned.sampling;
                prop_assert!(s.temperature_milli <= SamplingParams::MAX_TEMPERATURE);
                prop_assert!((1..=10_000).contains(&s.top_p) && s.min_p <= 10_000 && s.top_k < LIMITS.top_k);
                prop_assert!(s.frequency_penalty_milli.abs() <= 2_000 && s.presence_penalty_milli.abs() <= 2_000);
                prop_assert!(planned.max_tokens >= 1);
                prop_assert!(planned.prompt_len() + planned.max_tokens <= LIMITS.max_context);
            }
            Err(error) => prop_assert_eq!(error.status, 400),
        }
    }

    #[test]
    fn a_request_survives_json(text in any::<String>(), temperature in proptest::option::of(0u32..2_000), n in 0u64..3) {
        let request = ChatCompletionRequest {
            model: "m".into(),
            messages: vec![crate::openai::ChatMessage::new("user", &text)],
            temperature: temperature.map(|t| f64::from(t) / 1_000.0),
            n: Some(n),
            ..ChatCompletionRequest::default()
        };
        let body = serde_json::to_vec(&request).unwrap();
        prop_assert_eq!(parse_request(&body).unwrap(), request);
    }
}
