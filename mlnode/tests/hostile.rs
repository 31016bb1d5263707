//! Model folders that are damaged, or made to do harm: clear errors, no panic, bounded memory.

use proptest::prelude::*;
use serde_json::{json, Value};
use starling_mlnode::{
    loader::{FolderLoader, LoadError, LoadSpec, Loaded, Loader},
    model::{available, ModelError},
    source::{Chunk, Task},
};
use starling_prompt::{openai::ChatMessage, Tokenizer, TokenizerBundle};
use std::{
    error::Error,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

const WEIGHTS: &str = "model.safetensors";
/// Memory of the process at most, far above what the tests' own model takes.
const MEMORY_MAX: u64 = 1 << 30;

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo-model")
}

/// A folder with the files of the demo model; to change one, replace it.
fn copy() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(demo()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

fn read(name: &str) -> Vec<u8> {
    fs::read(demo().join(name)).unwrap()
}

fn load(folder: &Path) -> Result<Loaded, LoadError> {
    let (name, folder) = ("m".into(), folder.into());
    FolderLoader::default().load(&LoadSpec { name, folder, top_k: 5, max_context: 64, weights_digest: None })
}

/// The whole chain of an error, as the log has it.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The chain of the error that loading ends with.
fn refusal(what: &str, folder: &Path) -> String {
    let error = load(folder).err().unwrap_or_else(|| panic!("{what} was loaded"));
    chain(&error)
}

/// Largest resident size so far.
fn check_memory() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak = line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10;
    assert!(peak < MEMORY_MAX, "{} MiB", peak >> 20);
}

/// A safetensors file.
fn encode(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header, data].concat()
}

/// Header and data of the demo model's weights.
fn parts() -> (Value, Vec<u8>) {
    let bytes = read(WEIGHTS);
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..end]).unwrap(), bytes[end..].to_vec())
}

/// The demo model's weights with another header.
fn with_header(change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> Vec<u8> {
    let (mut header, data) = parts();
    change(header.as_object_mut().unwrap());
    encode(header.to_string().as_bytes(), &data)
}

#[test]
fn damaged_weights_are_refused() {
    let whole = read(WEIGHTS);
    let (header, data) = parts();
    let text = header.to_string();
    let length = |n: u64| [&n.to_le_bytes()[..], &whole[8..]].concat();
    let norm = "model.norm.weight";
    let embedding = "model.embed_tokens.weight";
    let mut cases: Vec<(String, Vec<u8>)> = [0, 7, 8, 9, 500, whole.len() / 2, whole.len() - 1]
        .map(|cut| (format!("cut at {cut}"), whole[..cut].to_vec()))
        .into();
    for n in [0, 1, whole.len() as u64, 100_000_001, 1 << 40, u64::MAX - 7, u64::MAX] {
        cases.push((format!("a header of {n}"), length(n)));
    }
    cases.extend([
        ("trailing bytes".to_owned(), [&whole[..], &[0]].concat()),
        ("a header that is no JSON".into(), encode(b"{\"a\": ", &data)),
        ("a header that is no text".into(), encode(&[0xff; 64], &data)),
        ("a deep header".into(), encode("[".repeat(1_000_000).as_bytes(), &data)),
        ("a deep entry".into(), encode(format!("{{\"a\": {}", "[".repeat(500_000)).as_bytes(), &data)),
        ("a duplicate".into(), encode(format!("{{{0}, {0}}}", &text[1..text.len() - 1]).as_bytes(), &data)),
        ("no header".into(), encode(b"{}", &data)),
        (
            "offsets behind the end".into(),
            with_header(|h| h[norm]["data_offsets"] = json!([1u64 << 50, 1u64 << 51])),
        ),
        ("offsets in the wrong order".into(), with_header(|h| h[norm]["data_offsets"] = json!([384, 0]))),
        ("negative offsets".into(), with_header(|h| h[norm]["data_offsets"] = json!([-384, 0]))),
        (
            "overlapping tensors".into(),
            with_header(|h| h[norm]["data_offsets"] = h[embedding]["data_offsets"].take()),
        ),
        ("a shape without end".into(), with_header(|h| h[norm]["shape"] = json!([u64::MAX, u64::MAX]))),
        ("a shape of another size".into(), with_header(|h| h[norm]["shape"] = json!([191]))),
        ("a shape turned".into(), with_header(|h| h[embedding]["shape"] = json!([192, 4096]))),
        ("another type".into(), with_header(|h| h[norm]["dtype"] = json!("I16"))),
        ("no type".into(), with_header(|h| h[norm]["dtype"] = json!("F3"))),
        (
            "another name".into(),
            with_header(|h| {
                let entry = h.remove(norm).unwrap();
                h.insert("model.norm.wait".into(), entry);
            }),
        ),
    ]);
    let folder = copy();
    for (what, bytes) in cases {
        fs::write(folder.path().join(WEIGHTS), bytes).unwrap();
        let error = refusal(&what, folder.path());
        assert!(
            error.contains(WEIGHTS) || error.contains("tensor") || error.contains("model.norm"),
            "{what}: {error}"
        );
    }
    check_memory();
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let folder = copy();
    let path = folder.path().join(WEIGHTS);
    fs::remove_file(&path).unwrap();
    assert!(refusal("nothing", folder.path()).contains(WEIGHTS));
    for name in [WEIGHTS, "config.json", "tokenizer.json"] {
        let folder = copy();
        let path = folder.path().join(name);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(refusal("a folder", folder.path()).contains(name));
        fs::remove_dir(&path).unwrap();
        // Whoever opens a pipe waits for a writer, unless he takes care.
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(refusal("a pipe", folder.path()).contains(name));
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(refusal("a device", folder.path()).contains(name));
    }
    check_memory();
}

#[test]
fn an_index_must_be_what_it_says() {
    let folder = copy();
    let index = |map: Value| {
        let text = json!({"weight_map": map}).to_string();
        fs::write(folder.path().join("model.safetensors.index.json"), text).unwrap();
    };
    index(json!({"a": WEIGHTS, "b": "model-00002-of-00002.safetensors"}));
    assert!(refusal("a missing shard", folder.path()).contains("model-00002-of-00002.safetensors"));
    fs::copy(folder.path().join(WEIGHTS), folder.path().join("other.safetensors")).unwrap();
    index(json!({"a": WEIGHTS, "b": "other.safetensors"}));
    assert!(refusal("a tensor in two shards", folder.path()).contains("two files have the tensor"));
    index(json!({"a": "../model.safetensors"}));
    assert!(refusal("a way out", folder.path()).contains("not supported"));
    index(json!({"a": 1}));
    assert!(refusal("an index of numbers", folder.path()).contains("index.json"));
    // Sparse, so that the test writes nothing.
    let file = File::create(folder.path().join("model.safetensors.index.json")).unwrap();
    file.set_len(1 << 40).unwrap();
    assert!(refusal("an endless index", folder.path()).contains("index.json"));
    index(json!({"a": WEIGHTS}));
    assert!(load(folder.path()).is_ok());
    check_memory();
}

/// The demo model's config with some changes, and the error that it ends with, if any.
fn with_config(changes: &Value) -> Result<Loaded, String> {
    let folder = copy();
    let mut config: Value = serde_json::from_slice(&read("config.json")).unwrap();
    for (name, value) in changes.as_object().unwrap() {
        config[name] = value.clone();
    }
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    load(folder.path()).map_err(|error| chain(&error))
}

#[test]
fn absurd_configs_are_refused() {
    for changes in [
        json!({"num_attention_heads": 0}),
        json!({"num_hidden_layers": 0}),
        json!({"num_hidden_layers": 1_000_000_000}),
        json!({"num_hidden_layers": 16_000_000}),
        json!({"vocab_size": 16_000_000}),
        json!({"vocab_size": u64::MAX}),
        json!({"hidden_size": 16_000_000, "vocab_size": 16_000_000}),
        json!({"intermediate_size": 16_000_000}),
        json!({"num_attention_heads": 16_000_000, "head_dim": 16_000_000, "num_key_value_heads": 16_000_000}),
        json!({"max_position_embeddings": 4_000_000_000u32}),
        json!({"head_dim": 0}),
        json!({"head_dim": -32}),
        json!({"head_dim": 31}),
        json!({"rms_norm_eps": 0.0}),
        json!({"rms_norm_eps": null}),
        json!({"rms_norm_eps": "NaN"}),
        json!({"model_type": "qwen3_moe"}),
        json!({"model_type": "qwen3_moe", "num_experts": 16_000_000, "num_experts_per_tok": 16_000_000}),
        json!({"model_type": "qwen3_moe", "mlp_only_layers": {}}),
        json!({"model_type": "llama"}),
        json!({"model_type": ["qwen3"]}),
        json!({"quantization_config": {"quant_method": "fp8"}, "num_hidden_layers": 7}),
    ] {
        let error = with_config(&changes).err().unwrap_or_else(|| panic!("{changes} was loaded"));
        assert!(error.contains("model"), "{changes}: {error}");
    }
    // JSON has no such numbers, though Python writes them.
    let folder = copy();
    let text = String::from_utf8(read("config.json")).unwrap();
    for eps in ["NaN", "Infinity", "1e999"] {
        fs::write(folder.path().join("config.json"), text.replace("1e-06", eps)).unwrap();
        assert!(refusal(eps, folder.path()).contains("config.json"));
    }
    fs::write(folder.path().join("config.json"), format!("{}{text}", " ".repeat(2 << 20))).unwrap();
    assert!(refusal("a large config", folder.path()).contains("config.json"));
    check_memory();
}

#[test]
fn weights_larger_than_the_memory_are_refused_before_they_are_read() {
    let memory = available().unwrap();
    let (width, folder) = (1u64 << 16, copy());
    let rows = memory.total * 2 / (4 * width);
    let config = json!({"vocab_size": rows, "hidden_size": width});
    let mut text: Value = serde_json::from_slice(&read("config.json")).unwrap();
    text.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    fs::write(folder.path().join("config.json"), text.to_string()).unwrap();
    let bytes = rows * width * 4;
    let header = json!({"model.embed_tokens.weight": {
        "dtype": "F32", "shape": [rows, width], "data_offsets": [0, bytes]}});
    let start = encode(header.to_string().as_bytes(), &[]);
    fs::write(folder.path().join(WEIGHTS), &start).unwrap();
    let file = File::options().write(true).open(folder.path().join(WEIGHTS)).unwrap();
    file.set_len(start.len() as u64 + bytes).unwrap();
    match load(folder.path()) {
        Err(LoadError::Model(ModelError::NoRoom { needed, free })) => {
            assert!(needed == bytes && free <= memory.total);
        }
        other => panic!("{other:?}"),
    }
    check_memory();
}

/// What loading a tokenizer of this text ends with; and, where it loads, that it can be used.
fn try_tokenizer(what: &str, text: &str) -> Result<(), String> {
    let folder = copy();
    fs::write(folder.path().join("tokenizer.json"), text).unwrap();
    let loaded = load(folder.path()).map_err(|error| chain(&error))?;
    let tokens = loaded.tokenizer.encode("The river has 2 banks, é and \u{1F30A}.");
    println!("{what}: {:?}", tokens.map(|tokens| tokens.len()));
    Ok(())
}

#[test]
fn tokenizer_bombs_are_refused() {
    let text = String::from_utf8(read("tokenizer.json")).unwrap();
    let tokenizer: Value = serde_json::from_str(&text).unwrap();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut changed = tokenizer.clone();
        change(&mut changed);
        changed.to_string()
    };
    // Too deep for the parser.
    let mut nested = json!({"type": "Lowercase"});
    for _ in 0..100 {
        nested = json!({"type": "Sequence", "normalizers": [nested]});
    }
    for (what, text) in [
        ("brackets", "[".repeat(1_000_000)),
        ("deep objects", "{\"a\":".repeat(500_000)),
        ("nested normalizers", with(&|t| t["normalizer"] = nested.clone())),
        ("an id behind the model", with(&|t| t["model"]["vocab"]["zzzz"] = json!(u32::MAX))),
        ("an id that is none", with(&|t| t["model"]["vocab"]["zzzz"] = json!(u64::MAX))),
        (
            "merges of what is no token",
            with(&|t| t["model"]["merges"] = json!([["\u{1}\u{1}", "\u{2}\u{2}"]])),
        ),
        ("merges that are none", with(&|t| t["model"]["merges"] = json!([["a"]]))),
        (
            "a pattern that is none",
            with(&|t| {
                t["pre_tokenizer"] = json!({"type": "Split", "pattern": {"Regex": "(((("}, "behavior": "Isolated", "invert": false});
            }),
        ),
        ("another kind", with(&|t| t["model"]["type"] = json!("Bomb"))),
        ("half", text[..text.len() / 2].to_owned()),
        ("nothing", String::new()),
    ] {
        let error = try_tokenizer(what, &text).err().unwrap_or_else(|| panic!("{what} was loaded"));
        assert!(error.contains("tokenizer"), "{what}: {error}");
    }
    // Allowed, though odd: merges that repeat and go round, a pattern that backtracks without end.
    for (what, text) in [
        (
            "merges in a circle",
            with(&|t| {
                let merges = t["model"]["merges"].as_array_mut().unwrap();
                let again: Vec<Value> = merges.iter().rev().cloned().collect();
                merges.extend(again);
            }),
        ),
        (
            "a pattern without end",
            with(&|t| {
                t["pre_tokenizer"] = json!({"type": "Split", "pattern": {"Regex": "(\\w+\\s?)+$"}, "behavior": "Isolated", "invert": false});
            }),
        ),
    ] {
        let _ = try_tokenizer(what, &text);
    }
    let folder = copy();
    let file = File::create(folder.path().join("tokenizer.json")).unwrap();
    file.set_len(1 << 40).unwrap();
    assert!(refusal("an endless tokenizer", folder.path()).contains("more than is allowed"));
    check_memory();
}

#[test]
fn templates_cannot_run_or_grow_without_end() {
    let message = |text: &str| -> ChatMessage {
        serde_json::from_value(json!({"role": "user", "content": text})).unwrap()
    };
    let bundle = TokenizerBundle::load_from_folder(&demo()).unwrap();
    let render = |template: String| {
        let tokenizer = Tokenizer::new(TokenizerBundle { chat_template: template, ..bundle.clone() });
        tokenizer
            .map_err(|error| chain(&error))?
            .render(&[message("Hello")])
            .map_err(|error| format!("{error:?}"))
    };
    for (what, template) in [
        (
            "loops",
            "{% for a in range(90000) %}{% for b in range(90000) %}x{% endfor %}{% endfor %}".to_owned(),
        ),
        ("a long range", "{% for a in range(1000000000) %}x{% endfor %}".into()),
        ("a long text", "{{ 'x' * 1000000000 }}".into()),
        ("itself", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".into()),
        ("another file", "{% include '/etc/passwd' %}".into()),
        ("nesting", "{% if true %}".repeat(5_000)),
        ("brackets", format!("{{{{ {}1{} }}}}", "(".repeat(30_000), ")".repeat(30_000))),
        ("lists", format!("{{{{ {}{} }}}}", "[".repeat(30_000), "]".repeat(30_000))),
        ("a megabyte", "x".repeat(1 << 20)),
        ("half a tag", "{% for".into()),
    ] {
        let error = render(template).err().unwrap_or_else(|| panic!("{what} was rendered"));
        assert!(error.contains("template"), "{what}: {error}");
    }
    // Allowed, though the compiler goes deep for them.
    for (unit, count) in
        [("-", 60_000), ("not ", 15_000), ("1+", 30_000), ("'a'~", 15_000), ("1 and ", 10_000)]
    {
        assert!(render(format!("{{{{ {}1 }}}}", unit.repeat(count))).is_ok(), "{unit}");
    }
    assert!(render(format!("{{{{ x{} }}}}", "|list".repeat(12_000))).is_ok());
    check_memory();
}

/// A change to a file, at a place given in shares of its length.
#[derive(Clone, Debug)]
enum Change {
    Set(f64, u8),
    Cut(f64),
    Insert(f64, Vec<u8>),
    Repeat(f64, f64),
    Digits(f64, String),
}

impl Change {
    /// Changes the first `within` bytes.
    fn apply(&self, bytes: &mut Vec<u8>, within: usize) {
        let last = bytes.len().saturating_sub(1);
        let at = |share: &f64| ((within as f64 * share) as usize).min(last);
        match self {
            Self::Set(share, byte) => {
                let at = at(share);
                if let Some(place) = bytes.get_mut(at) {
                    *place = *byte;
                }
            }
            Self::Cut(share) => bytes.truncate(at(share)),
            Self::Insert(share, new) => {
                let at = at(share);
                drop(bytes.splice(at..at, new.iter().copied()));
            }
            Self::Repeat(from, to) => {
                let (from, to) = (at(from), at(to));
                let (from, to) = (from.min(to), from.max(to));
                let part = bytes[from..to].to_vec();
                drop(bytes.splice(to..to, part));
            }
            // Another number in the place of the next one.
            Self::Digits(share, number) => {
                let from = at(share);
                let digit = |byte: &u8| byte.is_ascii_digit();
                if let Some(start) = bytes[from..].iter().position(digit).map(|n| from + n) {
                    let end =
                        bytes[start..].iter().position(|b| !digit(b)).map_or(bytes.len(), |n| start + n);
                    drop(bytes.splice(start..end, number.bytes()));
                }
            }
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (0f64..1.0, any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (0f64..1.0).prop_map(Change::Cut),
        (0f64..1.0, proptest::collection::vec(any::<u8>(), 1..20))
            .prop_map(|(at, new)| Change::Insert(at, new)),
        (0f64..1.0, 0f64..1.0).prop_map(|(from, to)| Change::Repeat(from, to)),
        (0f64..1.0, prop_oneof!["[0-9]{1,3}", "[0-9]{10,25}", "-[1-9]", "1e[0-9]{1,3}"])
            .prop_map(|(at, number)| Change::Digits(at, number)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whatever is changed, the model loads and works, or there is an error that says something.
    #[test]
    fn changed_folders_load_or_say_why_not(
        name in proptest::sample::select(vec![
            "config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json",
            "chat_template.jinja", WEIGHTS,
        ]),
        changes in proptest::collection::vec(change(), 1..4),
    ) {
        let folder = copy();
        let mut bytes = read(name);
        // Of the weights the header, and a little of what follows.
        let within = if name == WEIGHTS { 8_000 } else { bytes.len() };
        for change in &changes {
            let within = within.min(bytes.len());
            change.apply(&mut bytes, within);
        }
        fs::write(folder.path().join(name), bytes).unwrap();
        match load(folder.path()) {
            Err(error) => prop_assert!(chain(&error).len() > 30, "{error}"),
            Ok(mut loaded) => {
                let _ = loaded.tokenizer.encode("The river has 2 banks.");
                let message = serde_json::from_value(json!({"role": "user", "content": "Hi"})).unwrap();
                let _ = loaded.tokenizer.render(&[message]);
                loaded.source.open(1, 8).unwrap();
                let _ = loaded.source.step(&[Chunk { sequence: 1, tokens: &[1, 2, 3], task: Task::Extend }]);
            }
        }
        check_memory();
    }
}
