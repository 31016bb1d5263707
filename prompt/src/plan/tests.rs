use super::*;
use crate::{test_support, GenerationDefaults, TokenizerBundle};
use proptest::prelude::*;
use serde_json::json;
use starling_primitives::constraint::{check_bound, TokenBias};

const LIMITS: Limits =
    Limits { max_context: 128, top_k: 20, vocab_size: 259, default_max_tokens: None, choices_max: 1 };

fn planned(fields: Value) -> Result<Planned, ApiError> {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    plan(&test_support::tokenizer(), &parse_request(body.to_string().as_bytes())?, &LIMITS)
}

fn tool(name: &str, parameters: Value) -> Value {
    json!({"type": "function", "function": {"name": name, "parameters": parameters}})
}

/// A model that is told of tools.
fn tooled() -> Tokenizer {
    let template = "{%- if tools %}{{ '<tool_call>' }}{{ tools | tojson }}\n{%- endif %}".to_owned()
        + "{%- for m in messages %}{{ m.role }}:{{ m.content }}"
        + "{%- for c in m.tool_calls %}{{ c.function.name }}{{ c.function.arguments | tojson }}{%- endfor %};{%- endfor %}";
    Tokenizer::new(TokenizerBundle { chat_template: template, ..test_support::bundle() }).unwrap()
}

fn planned_with_tools(fields: Value) -> Result<Planned, ApiError> {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    let limits = Limits { max_context: 1_000, ..LIMITS };
    plan(&tooled(), &parse_request(body.to_string().as_bytes())?, &limits)
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
        json!({"tools": [tool("f", json!({}))]}),
        json!({"functions": [{"name": "f"}]}),
        json!({"function_call": {"name": "f"}}),
        json!({"response_format": {"type": "xml"}}),
        json!({"modalities": ["text", "audio"]}),
        json!({"audio": {"voice": "alloy"}}),
        json!({"web_search_options": {}}),
        json!({"reasoning_effort": "high"}),
        json!({"verbosity": "low"}),
        json!({"service_tier": "priority"}),
        json!({"store": true}),
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

#[test]
fn a_bias_becomes_integers_that_the_header_binds() {
    let plain = planned(json!({})).unwrap();
    let planned = planned(json!({"logit_bias": {"100": -100, "7": 0.0015, "8": 0, "9": 1.5}})).unwrap();
    let bias = |token, milli| TokenBias { token, milli };
    let expected = vec![bias(7, 2), bias(9, 1_500), bias(100, -100_000)];
    let constraint = planned.constraint.clone().unwrap();
    assert_eq!((&constraint.logit_bias, &constraint.grammar), (&expected, &None));
    assert_eq!(planned.header(1, [0; 32]).constraint, Some(constraint.hash()));
    assert_eq!((plain.constraint.clone(), plain.header(1, [0; 32]).constraint), (None, None));
    let refused = |bias: Value| refused(json!({ "logit_bias": bias }));
    for bias in [
        json!({"259": 1}),
        json!({"-1": 1}),
        json!({"x": 1}),
        json!({"1": 100.1}),
        json!({"1": "2"}),
        json!({"1": 1, "01": 2}),
        (0..400).map(|i| (i.to_string(), json!(1))).collect(),
    ] {
        assert_eq!(refused(bias), (400, Some("invalid_value".into()), "logit_bias".into()));
    }
}

#[test]
fn a_response_format_becomes_a_grammar_or_says_why_not() {
    let grammar = |format: Value| {
        planned(json!({ "response_format": format })).unwrap().constraint.and_then(|c| c.grammar)
    };
    assert_eq!(grammar(json!({"type": "text"})), None);
    assert_eq!(grammar(json!({"type": "json_object"})).unwrap().schema, r#"{"type":"object"}"#);
    // The order of the fields is the client's, numbers are written in one way.
    let schema = json!({"type": "object", "properties": {"b": {"maximum": 5.0}, "a": {"type": "null"}}});
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": schema}});
    assert_eq!(grammar(format).unwrap().schema, schema.to_string());
    let refused = |format: Value| refused(json!({ "response_format": format }));
    assert_eq!(refused(json!({})).2, "response_format.type");
    assert_eq!(refused(json!({"type": "json_schema"})).2, "response_format.json_schema.schema");
    let bad = json!({"type": "json_schema", "json_schema": {"schema": {"type": "wizard"}}});
    assert_eq!(refused(bad.clone()), (400, Some("invalid_value".into()), "response_format".into()));
    assert!(planned(json!({ "response_format": bad })).unwrap_err().message.contains("wizard"));
    let long = json!({"type": "json_schema", "json_schema": {"schema": {"title": "x".repeat(40_000)}}});
    assert_eq!(refused(long).2, "response_format");
}

#[test]
fn tools_are_rendered_and_a_forced_call_is_a_grammar() {
    let schema = json!({
        "type": "object", "properties": {"city": {"$ref": "#/$defs/c"}}, "required": ["city"],
        "$defs": {"c": {"enum": ["Rome", "Oslo"]}},
    });
    let tools = json!([tool("time", json!({"type": "object"})), tool("weather", schema)]);
    let auto = planned_with_tools(json!({ "tools": tools })).unwrap();
    assert_eq!((auto.constraint.clone(), auto.tools), (None, Some(ToolFormat::Tagged)));
    let text = tooled().decode(&auto.prompt_tokens);
    assert!(
        text.starts_with("<tool_call>[{\"type\": \"function\", \"function\": {\"name\": \"time\""),
        "{text}"
    );
    let none = planned_with_tools(json!({"tools": tools, "tool_choice": "none"})).unwrap();
    assert_eq!((none.tools, tooled().decode(&none.prompt_tokens).as_str()), (None, "user:Hi;"));

    let grammar = |choice: Value| {
        let planned = planned_with_tools(json!({"tools": tools, "tool_choice": choice})).unwrap();
        assert_eq!(planned.prompt_tokens, auto.prompt_tokens);
        planned.constraint.unwrap().grammar.unwrap()
    };
    let named = grammar(json!({"type": "function", "function": {"name": "weather"}}));
    assert_eq!((named.before.as_str(), named.after.as_str()), ("<tool_call>\n", "\n</tool_call>"));
    assert!(named
        .schema
        .starts_with(r#"{"type":"object","properties":{"name":{"const":"weather"},"arguments":{"#));
    assert!(named.schema.contains(r##""#/properties/arguments/$defs/c""##), "{}", named.schema);
    assert!(grammar(json!("required")).schema.contains(r##""#/anyOf/1/properties/arguments/$defs/c""##));

    let param = |fields: Value| planned_with_tools(fields).unwrap_err().param.unwrap();
    assert_eq!(param(json!({"tool_choice": "required"})), "tool_choice");
    assert_eq!(param(json!({"tools": tools, "tool_choice": "often"})), "tool_choice");
    let unknown = json!({"type": "function", "function": {"name": "x"}});
    assert_eq!(param(json!({"tools": tools, "tool_choice": unknown})), "tool_choice");
    assert_eq!(param(json!({"tools": tools, "parallel_tool_calls": false})), "parallel_tool_calls");
    assert_eq!(param(json!({"tools": tools, "response_format": {"type": "json_object"}})), "response_format");
    assert_eq!(param(json!({"tools": [{"type": "web"}]})), "tools[0].type");
    assert_eq!(param(json!({"tools": [tool("a b", json!({}))]})), "tools[0].function.name");
    assert_eq!(param(json!({"tools": [tool("a", json!(1))]})), "tools[0].function.parameters");
    let bad = json!({"tools": [tool("a", json!({"type": "wizard"}))], "tool_choice": "required"});
    assert_eq!(param(bad), "tools");
}

#[test]
fn calls_and_their_results_are_part_of_the_conversation() {
    let call = |arguments: &str| json!([{"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}]);
    let messages = |arguments: &str| {
        json!({"messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": null, "tool_calls": call(arguments)},
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
        ]})
    };
    let planned = planned_with_tools(messages(r#"{"z": 1, "a": 2.5}"#)).unwrap();
    let text = tooled().decode(&planned.prompt_tokens);
    assert_eq!(text, r#"user:Hi;assistant:f{"z": 1, "a": 2.5};tool:42;"#);
    let error = planned_with_tools(messages("{broken")).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("messages[1].tool_calls[0].function.arguments"));
}

#[test]
fn several_choices_where_they_are_allowed() {
    let request = |n: u64| {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "n": n});
        parse_request(body.to_string().as_bytes()).unwrap()
    };
    let with = |n| plan(&test_support::tokenizer(), &request(n), &Limits { choices_max: 8, ..LIMITS });
    assert_eq!((with(1).unwrap().choices, with(8).unwrap().choices), (1, 8));
    for n in [0, 9, u64::MAX] {
        assert_eq!(with(n).unwrap_err().param.as_deref(), Some("n"));
    }
}

#[test]
fn texts_and_tokens_are_continued() {
    let with = |fields: Value| {
        let mut body = json!({"model": "m", "prompt": "Once"});
        for (name, value) in fields.as_object().unwrap() {
            body[name] = value.clone();
        }
        plan_completion(&test_support::tokenizer(), &parse_completion(body.to_string().as_bytes())?, &LIMITS)
    };
    let tokens = test_support::tokenizer().encode("Once").unwrap();
    let plain = with(json!({})).unwrap();
    assert_eq!((&plain.prompt_tokens, plain.max_tokens, plain.logprobs), (&tokens, 16, None));
    let other =
        with(json!({"prompt": tokens, "logprobs": 2, "max_tokens": 5, "echo": false, "stream": true}))
            .unwrap();
    assert_eq!((&other.prompt_tokens, other.max_tokens, other.logprobs), (&tokens, 5, Some(2)));
    assert!(other.stream);
    let refused = |fields: Value| with(fields).unwrap_err();
    for (fields, param) in [
        (json!({"prompt": ["a", "b"]}), "prompt"),
        (json!({"prompt": [[1], [2]]}), "prompt"),
        (json!({"prompt": [400]}), "prompt"),
        (json!({"prompt": ""}), "prompt"),
        (json!({"prompt": []}), "prompt"),
        (json!({"echo": true}), "echo"),
        (json!({"suffix": "x"}), "suffix"),
        (json!({"best_of": 2}), "best_of"),
        (json!({"logprobs": 21}), "top_logprobs"),
        (json!({"tools": [1]}), "tools"),
        (json!({"messages": []}), "messages"),
        (json!({"temperature": "hot"}), "temperature"),
    ] {
        let error = refused(fields.clone());
        assert_eq!((error.status, error.param.as_deref()), (400, Some(param)), "{fields}");
    }
}

/// JSON of any shape, with the names of parameters more often than by chance.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z]{0,4}".prop_map(Value::from),
        Just(json!("function")),
        Just(json!("required")),
        Just(json!("json_schema")),
        Just(json!("assistant")),
    ];
    let name = prop_oneof![
        proptest::sample::select(vec![
            "role",
            "content",
            "tool_calls",
            "type",
            "function",
            "name",
            "arguments",
            "parameters",
            "schema",
            "json_schema",
            "properties",
            "items",
            "required",
            "$ref",
            "1",
        ]),
        Just("x"),
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            proptest::collection::vec((name.clone(), inner), 0..5).prop_map(|fields| {
                Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_request_is_worse_than_refused(
        fields in proptest::collection::vec((proptest::sample::select(vec![
            "messages", "tools", "tool_choice", "parallel_tool_calls", "response_format", "logit_bias", "n", "stop",
            "stream", "stream_options", "logprobs", "top_logprobs", "prompt", "functions", "chat_template_kwargs",
        ]), any_json()), 0..5),
    ) {
        let mut body = json!({"model": "m", "prompt": "x", "messages": [{"role": "user", "content": "Hi"}]});
        for (name, value) in fields {
            body[name] = value;
        }
        let body = body.to_string();
        let tokenizer = tooled();
        let chat = parse_request(body.as_bytes()).and_then(|request| plan(&tokenizer, &request, &LIMITS));
        let text = parse_completion(body.as_bytes()).and_then(|request| plan_completion(&tokenizer, &request, &LIMITS));
        for planned in [chat, text] {
            match planned {
                Ok(planned) => {
                    let header = planned.header(0, [0; 32]);
                    prop_assert_eq!(check_bound(planned.constraint.as_ref(), &header, LIMITS.vocab_size), Ok(()));
                }
                Err(error) => prop_assert_eq!(error.status, 400),
            }
        }
    }
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
