//! The model's numbers against transformers, on random weights of several shapes.

use safetensors::SafeTensors;
use starling_mlnode::{
    kernel::{Isa, Pool},
    model::{Decoder, Libtorch, Model, Precision, Rows},
};
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

/// Largest difference of a logit.
const TOLERANCE: f32 = 1e-3;

fn python() -> PathBuf {
    let default =
        || Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cache/starling/peers/bin/python");
    let python = std::env::var_os("STARLING_PEERS_PYTHON").map_or_else(default, PathBuf::from);
    assert!(
        python.exists(),
        "there is no Python with transformers at {}: run scripts/setup, or set STARLING_PEERS_PYTHON",
        python.display()
    );
    python
}

fn write_references(out: &Path) -> Vec<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/reference.py");
    let output = Command::new(python()).arg(script).arg(out).env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

struct Reference {
    prompt: Vec<u32>,
    logits: Vec<f32>,
    greedy: Vec<u32>,
}

impl Reference {
    fn read(folder: &Path) -> Self {
        let bytes = std::fs::read(folder.join("reference.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let tokens = |name: &str| {
            let words = tensors.tensor(name).unwrap().data().chunks_exact(8);
            words.map(|w| i64::from_le_bytes(w.try_into().unwrap()) as u32).collect()
        };
        let words = tensors.tensor("logits").unwrap().data().chunks_exact(4);
        let logits = words.map(|w| f32::from_le_bytes(w.try_into().unwrap())).collect();
        Self { prompt: tokens("prompt"), logits, greedy: tokens("greedy") }
    }
}

/// Wanted logits, one row after the other.
fn forward<M: Model>(model: &mut M, batch: &mut [Rows<'_, M::Kv>]) -> Vec<f32> {
    let wanted = batch.iter().map(|rows| rows.logits as usize).sum();
    model.forward(batch).unwrap();
    let logits = model.logits(0..wanted).unwrap();
    (0..wanted).flat_map(|row| logits.row(row).to_vec()).collect()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn mean_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f32>() / a.len() as f32
}

fn best(logits: &[f32]) -> u32 {
    (0u32..).zip(logits).max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0
}

/// Compares with the reference; returns all logits of the prompt.
fn check<M: Model>(name: &str, model: &mut M, reference: &Reference) -> Vec<f32> {
    let (prompt, vocab) = (&reference.prompt, model.config().vocab_size as usize);
    let capacity = (prompt.len() + reference.greedy.len()) as u32;
    model.reserve(3 * capacity.next_multiple_of(32)).unwrap();

    let mut kv = model.new_sequence(capacity).unwrap();
    let logits = prompt.len() as u32;
    let whole = forward(model, &mut [Rows { kv: &mut kv, tokens: prompt, logits }]);
    let difference = largest_difference(&whole, &reference.logits);
    println!("{name}: whole prompt {difference:e}");
    assert!(difference < TOLERANCE, "{name}: {difference}");

    // The same prompt in uneven chunks, with rows of another sequence beside it, of which one is asked for or none.
    let mut kv = model.new_sequence(capacity).unwrap();
    let mut other = model.new_sequence(capacity).unwrap();
    let mut chunked = Vec::new();
    for (index, (tokens, beside)) in prompt.chunks(23).zip(prompt.chunks(9)).enumerate() {
        let wanted = (index + 1) % 2;
        let logits = forward(
            model,
            &mut [
                Rows { kv: &mut other, tokens: beside, logits: wanted as u32 },
                Rows { kv: &mut kv, tokens, logits: tokens.len() as u32 },
            ],
        );
        let (last, rest) = logits.split_at(wanted * vocab);
        let row = (9 * index + beside.len()) * vocab;
        assert!(largest_difference(last, &whole[row - last.len()..row]) < TOLERANCE, "{name}: {index}");
        chunked.extend_from_slice(rest);
    }
    let difference = largest_difference(&chunked, &reference.logits);
    println!("{name}: chunks {difference:e}");
    assert!(difference < TOLERANCE, "{name}: {difference}");

    // A step of which nothing is asked for leaves its keys and values.
    drop(other);
    let mut other = model.new_sequence(capacity).unwrap();
    let (start, end) = prompt.split_at(40);
    assert!(forward(model, &mut [Rows { kv: &mut other, tokens: start, logits: 0 }]).is_empty());
    let last = forward(model, &mut [Rows { kv: &mut other, tokens: end, logits: 1 }]);
    assert!(largest_difference(&last, &whole[whole.len() - vocab..]) < TOLERANCE, "{name}: after silence");

    // Greedy decoding from the cache.
    let mut token = best(&chunked[chunked.len() - vocab..]);
    let mut greedy = vec![token];
    while greedy.len() < reference.greedy.len() {
        token = best(&forward(model, &mut [Rows { kv: &mut kv, tokens: &[token], logits: 1 }]));
        greedy.push(token);
    }
    assert_eq!(greedy, reference.greedy, "{name}");
    // One token more fits, two do not.
    assert!(
        model.forward(&mut [Rows { kv: &mut kv, tokens: &[0, 0], logits: 1 }]).is_err(),
        "{name}: overfull"
    );
    chunked
}

/// Logits of every position of the prompt, taken in one token at a time.
fn one_by_one(model: &mut Decoder, prompt: &[u32]) -> Vec<f32> {
    let mut kv = model.new_sequence(prompt.len() as u32).unwrap();
    let step = |token| forward(model, &mut [Rows { kv: &mut kv, tokens: &[token], logits: 1 }]);
    prompt.iter().copied().flat_map(step).collect()
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|x| x.to_bits()).collect()
}

/// What a step of one token reads and multiplies: of the experts only those that it uses.
#[test]
fn sizes_count_what_a_token_uses() {
    let out = tempfile::tempdir().unwrap();
    write_references(out.path());
    // Shapes as in reference.py: 3 layers, 64 wide, 4 heads of 16 with 2 key heads, 3 of 12 experts 40 wide, f32.
    let model = Decoder::load(&out.path().join("moe-normalised"), Precision::F32).unwrap();
    let (embedding, attention, expert) = (307 * 64, (4 + 2 + 2) * 16 * 64 + 4 * 16 * 64, 3 * 40 * 64);
    let (router, norms) = (12 * 64, 2 * 64 + 2 * 16);
    let layer = |experts| attention + router + experts * expert;
    assert_eq!(model.parameters(), 2 * embedding + 3 * (layer(12) + norms) + 64);
    assert_eq!(model.parameters_per_token(), model.parameters() - 3 * 9 * expert);
    assert_eq!(model.weight_bytes(), 4 * (embedding + 3 * layer(3)));
    let model = Decoder::load(&out.path().join("fp8"), Precision::F32).unwrap();
    let (embedding, inner) = (257 * 256, 3 * 256 - 5);
    let projections = [((4 + 2 + 2) * 64, 256), (256, 4 * 64), (2 * inner, 256), (256, inner)];
    let weights: u64 = projections.iter().map(|(outputs, inputs)| outputs * inputs).sum();
    // A scale for every output and 128 inputs, rounded up to panels of 32 outputs.
    let scales = projections
        .map(|(outputs, inputs): (u64, u64)| outputs.next_multiple_of(32) * inputs.div_ceil(128) * 4);
    assert_eq!(model.weight_bytes(), 2 * embedding + 3 * (weights + scales.iter().sum::<u64>()));
    assert_eq!(model.parameters(), embedding + 3 * (weights + 2 * 256 + 2 * 64) + 256);
}

/// Mean difference of a logit between the class `bf16` and f32: what rounding each activation to 8 bits does in these models. A
/// single row may be anywhere: rounding can send it to another expert.
const BF16_TOLERANCE: f32 = 0.06;

/// Checkpoints of bf16 in the class of their weights, by the kernels and by libtorch.
fn check_bf16(name: &str, folder: &Path, reference: &Reference) {
    let mut model = Decoder::load(folder, Precision::Stored).unwrap();
    assert_eq!(model.numerics(), "bf16");
    let mut all = Vec::new();
    for isa in Isa::available() {
        for threads in [1, 3] {
            model.set_pool(Arc::new(Pool::with_isa(threads, isa)));
            all.push(one_by_one(&mut model, &reference.prompt));
            all.push(in_one_piece(&mut model, &reference.prompt));
        }
    }
    for (index, other) in all.iter().enumerate() {
        assert!(
            bits(other) == bits(&all[0]),
            "{name}: the bits differ in way {index} by {}",
            largest_difference(other, &all[0])
        );
    }
    let difference = mean_difference(&all[0], &reference.logits);
    assert!(difference > 0.0 && difference < BF16_TOLERANCE, "{name}: {difference}");
    let mut libtorch = Libtorch::load(folder, tch::Device::Cpu, Precision::Stored).unwrap();
    assert_eq!(libtorch.numerics(), "bf16");
    libtorch.reserve(512).unwrap();
    let found = in_one_piece(&mut libtorch, &reference.prompt);
    let [ours, theirs] = [&all[0], &found].map(|logits| mean_difference(logits, &reference.logits));
    println!("{name}: mean difference to f32: kernels {ours:e}, libtorch {theirs:e}");
    assert!(ours < 1.2 * theirs, "{name}: libtorch, which also keeps activations in bf16, is nearer to f32");
    assert!(mean_difference(&all[0], &found) < ours + theirs, "{name}");
}

fn in_one_piece<M: Model>(model: &mut M, prompt: &[u32]) -> Vec<f32> {
    let mut kv = model.new_sequence(prompt.len() as u32).unwrap();
    forward(model, &mut [Rows { kv: &mut kv, tokens: prompt, logits: prompt.len() as u32 }])
}

/// Whether a folder's weights are bf16, those apart that have 8 bits.
fn is_bf16(folder: &Path) -> bool {
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    ["dtype", "torch_dtype"].iter().any(|name| config.get(name) == Some(&"bfloat16".into()))
}

#[test]
fn logits_agree_with_transformers() {
    let out = tempfile::tempdir().unwrap();
    let names = write_references(out.path());
    assert!(names.len() >= 17);
    let mut of_bf16 = 0;
    for name in names {
        let folder = out.path().join(&name);
        let reference = Reference::read(&folder);
        if is_bf16(&folder) {
            check_bf16(&name, &folder, &reference);
            of_bf16 += 1;
        }
        assert_eq!(reference.greedy.len(), 64);
        let mut model = Decoder::load(&folder, Precision::F32).unwrap();
        let mut libtorch = Libtorch::load(&folder, tch::Device::Cpu, Precision::F32).unwrap();
        check(&format!("{name}, libtorch"), &mut libtorch, &reference);
        assert_eq!(libtorch.parameters(), model.parameters(), "{name}");
        assert_eq!(libtorch.parameters_per_token(), model.parameters_per_token(), "{name}");
        let mut all = Vec::new();
        for isa in Isa::available() {
            for threads in [1, 3] {
                model.set_pool(Arc::new(Pool::with_isa(threads, isa)));
                all.push(bits(&check(&format!("{name}, {isa:?} {threads}"), &mut model, &reference)));
                all.push(bits(&one_by_one(&mut model, &reference.prompt)));
            }
        }
        // In chunks beside another sequence or token by token, with any kernels and threads: the same bits.
        for other in &all {
            assert!(other == &all[0], "{name}: the bits differ");
        }
    }
    assert!(of_bf16 >= 6, "{of_bf16}");
}
