//! The engine on the processor, against the engine's own kernels.

use super::*;
use crate::{
    model::{Decoder, Precision, SequenceKv},
    source::{Chunk, Draw, ModelSource, Output, Task, TokenSource},
};
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use starling_mlnode_api::Perturbation;
use starling_primitives::{request::SamplingParams, tape::Tape, transcript::TokenRecord, H256};

const VOCAB: u32 = 61;

/// Writes a small model with random weights.
fn write_model(folder: &Path, family: &str) {
    let (hidden, heads, kv_heads, dim, inner, layers) = (24u32, 4u32, 2u32, 8u32, 40u32, 2u32);
    let (experts, expert_inner) = (5u32, 10u32);
    let config = serde_json::json!({"model_type": family, "hidden_size": hidden, "intermediate_size": inner,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "head_dim": dim, "vocab_size": VOCAB, "max_position_embeddings": 200, "num_experts": experts,
        "num_experts_per_tok": 2, "moe_intermediate_size": expert_inner});
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let mut shapes = vec![
        ("model.embed_tokens".to_owned(), vec![VOCAB, hidden]),
        ("model.norm".into(), vec![hidden]),
        ("lm_head".into(), vec![VOCAB, hidden]),
    ];
    for layer in 0..layers {
        let mut parts = vec![
            ("input_layernorm", vec![hidden]),
            ("self_attn.q_proj", vec![heads * dim, hidden]),
            ("self_attn.k_proj", vec![kv_heads * dim, hidden]),
            ("self_attn.v_proj", vec![kv_heads * dim, hidden]),
            ("self_attn.o_proj", vec![hidden, heads * dim]),
            ("post_attention_layernorm", vec![hidden]),
        ];
        if family != "llama" {
            parts.extend([("self_attn.q_norm", vec![dim]), ("self_attn.k_norm", vec![dim])]);
        }
        let mut gated = vec![("mlp".to_owned(), inner)];
        if family == "qwen3_moe" {
            parts.push(("mlp.gate", vec![experts, hidden]));
            gated = (0..experts).map(|i| (format!("mlp.experts.{i}"), expert_inner)).collect();
        }
        let gated = gated.iter().flat_map(|(name, inner)| {
            [("gate", [*inner, hidden]), ("up", [*inner, hidden]), ("down", [hidden, *inner])]
                .map(|(part, shape)| (format!("{name}.{part}_proj"), shape.to_vec()))
        });
        let parts = parts.into_iter().map(|(name, shape)| (name.to_owned(), shape)).chain(gated);
        shapes.extend(parts.map(|(name, shape)| (format!("model.layers.{layer}.{name}"), shape)));
    }
    let mut noise = 7u32;
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let shape: Vec<usize> = shape.iter().map(|n| *n as usize).collect();
            // Norms around 1, rows of matrices of about length 1.5.
            let (middle, width) = match shape.as_slice() {
                [_, inputs] => (0.0, 2.5 / (*inputs as f32).sqrt()),
                _ => (1.0, 0.3),
            };
            let numbers = (0..shape.iter().product::<usize>()).flat_map(|_| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let unit = (noise >> 8) as f32 / (1 << 23) as f32 - 1.0;
                (middle + width * unit).to_le_bytes()
            });
            let numbers = numbers.collect();
            (format!("{name}.weight"), shape, numbers)
        })
        .collect();
    let views = tensors
        .iter()
        .map(|(name, shape, data)| (name, TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
    safetensors::serialize_to_file(views, None, &folder.join("model.safetensors")).unwrap();
}

fn rows<M: Model>(model: &mut M, batch: &mut [Rows<'_, M::Kv>]) -> Vec<Vec<f32>> {
    let wanted = batch.iter().map(|rows| rows.logits as usize).sum();
    model.forward(batch).unwrap();
    let logits = model.logits(0..wanted).unwrap();
    (0..wanted).map(|row| logits.row(row).to_vec()).collect()
}

/// What happens to the sequences of a store.
#[derive(Clone, Debug)]
enum Event {
    Open {
        capacity: u32,
    },
    Close {
        which: usize,
    },
    /// New tokens for some sequences, in this order.
    Step {
        tokens: Vec<(usize, u32)>,
    },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (1u32..70).prop_map(|capacity| Event::Open { capacity }),
        1 => any::<usize>().prop_map(|which| Event::Close { which }),
        4 => proptest::collection::vec((any::<usize>(), prop_oneof![3 => Just(1u32), 1 => 2u32..20]), 1..6)
            .prop_map(|tokens| Event::Step { tokens }),
    ]
}

/// A sequence in both engines.
struct Both {
    ours: LibtorchKv,
    theirs: SequenceKv,
}

/// Runs the events on both engines: together with libtorch, each sequence alone with the kernels. Sequences are refused exactly
/// when the room is taken, and no row says anything else than it would alone.
fn run(folder: &Path, room: u32, events: &[Event]) {
    let mut kernels = Decoder::load(folder, Precision::F32).unwrap();
    let mut model = Libtorch::load(folder, Device::Cpu, Precision::Stored).unwrap();
    model.reserve(room).unwrap();
    let room = in_blocks(room + BLOCK_TOKENS as u32);
    let mut open: Vec<Both> = Vec::new();
    let mut noise = 1u32;
    for event in events {
        match event {
            Event::Open { capacity } => {
                let used: u32 = open.iter().map(|both| in_blocks(both.ours.capacity())).sum();
                match model.new_sequence(*capacity) {
                    Ok(ours) => {
                        assert!(used + in_blocks(*capacity) <= room);
                        open.push(Both { ours, theirs: kernels.new_sequence(*capacity).unwrap() });
                    }
                    Err(error) => {
                        assert!(matches!(error, ModelError::NoKvRoom { .. }), "{error}");
                        assert!(used + in_blocks(*capacity) > room, "{used} of {room}: {capacity} refused");
                    }
                }
            }
            Event::Close { which } => {
                if !open.is_empty() {
                    open.swap_remove(which % open.len());
                }
            }
            Event::Step { tokens } => {
                let mut left: Vec<&mut Both> = open.iter_mut().collect();
                let (mut chosen, mut inputs): (Vec<&mut Both>, Vec<Vec<u32>>) = (Vec::new(), Vec::new());
                for (which, count) in tokens {
                    if left.is_empty() {
                        break;
                    }
                    let both = left.swap_remove(which % left.len());
                    let count = (*count).min(both.ours.capacity() - both.ours.len());
                    if count > 0 {
                        let token = |_| {
                            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                            (noise >> 9) % VOCAB
                        };
                        inputs.push((0..count).map(token).collect());
                        chosen.push(both);
                    }
                }
                if chosen.is_empty() {
                    continue;
                }
                let mut expected = Vec::new();
                for (both, tokens) in chosen.iter_mut().zip(&inputs) {
                    let logits = tokens.len() as u32;
                    expected.extend(rows(&mut kernels, &mut [Rows { kv: &mut both.theirs, tokens, logits }]));
                }
                let mut batch: Vec<_> = chosen
                    .iter_mut()
                    .zip(&inputs)
                    .map(|(both, tokens)| Rows { kv: &mut both.ours, tokens, logits: tokens.len() as u32 })
                    .collect();
                let found = rows(&mut model, &mut batch);
                assert_eq!(found.len(), expected.len());
                for (a, b) in found.iter().flatten().zip(expected.iter().flatten()) {
                    assert!((a - b).abs() < 1e-4, "{a} {b}");
                }
            }
        }
    }
    drop(open);
    // Nothing leaked: all room is there again.
    assert!(model.new_sequence(room).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_sequence_does_not_see_the_others(
        family in proptest::sample::select(vec!["qwen3", "qwen3_moe", "llama"]),
        room in 1u32..200,
        events in proptest::collection::vec(event(), 1..40),
    ) {
        let folder = tempfile::tempdir().unwrap();
        write_model(folder.path(), family);
        run(folder.path(), room, &events);
    }
}

#[test]
fn sequences_that_move_keep_what_they_hold() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path(), "qwen3");
    // Four blocks. The last sequence fits only when the second one moves to where the first was.
    let events = [
        Event::Open { capacity: 32 },
        Event::Open { capacity: 32 },
        Event::Open { capacity: 32 },
        Event::Step { tokens: vec![(0, 9), (0, 17), (0, 1)] },
        Event::Close { which: 0 },
        Event::Open { capacity: 64 },
        Event::Step { tokens: vec![(0, 3), (0, 1), (0, 8)] },
        Event::Step { tokens: vec![(2, 1), (0, 1), (0, 1)] },
        Event::Open { capacity: 1 },
    ];
    run(folder.path(), 96, &events);
}

#[test]
fn there_is_no_room_before_it_is_reserved() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path(), "llama");
    let mut model = Libtorch::load(folder.path(), Device::Cpu, Precision::Stored).unwrap();
    assert!(matches!(model.new_sequence(1), Err(ModelError::NoKvRoom { .. })));
    model.reserve(64).unwrap();
    let mut old = model.new_sequence(3).unwrap();
    model.reserve(64).unwrap();
    let step = model.forward(&mut [Rows { kv: &mut old, tokens: &[1], logits: 1 }]);
    assert!(matches!(step, Err(ModelError::Unsupported(_))), "a sequence of a store that is gone");
}

const PARAMS: SamplingParams = SamplingParams {
    temperature_milli: 1_000,
    frequency_penalty_milli: 700,
    presence_penalty_milli: -300,
    ..SamplingParams::GREEDY
};

/// Records of a completion with penalties.
fn generate(source: &mut dyn TokenSource, tape: &Tape) -> Vec<TokenRecord> {
    source.open(1, 64).unwrap();
    let (mut completion, mut records): (Vec<u32>, Vec<_>) = (Vec::new(), Vec::new());
    for position in 0..40 {
        let tokens = completion.last().map_or(vec![5, 6, 7], |token| vec![*token]);
        let draw = Draw {
            tape,
            params: &PARAMS,
            completion: &completion,
            position,
            bias: &[],
            allowed: &[],
            perturbation: None,
        };
        let chunk = Chunk { sequence: 1, tokens: &tokens, task: Task::Choose(draw) };
        let Output::Chosen(record) = source.step(&[chunk]).unwrap().remove(0) else { panic!() };
        completion.push(record.chosen().unwrap().token);
        records.push(record);
    }
    source.close(1);
    records
}

/// A transcript of one engine is honest to the other, and the wrong tape is not.
#[test]
fn what_one_engine_makes_the_other_verifies() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path(), "qwen3");
    let mut model = Libtorch::load(folder.path(), Device::Cpu, Precision::Stored).unwrap();
    model.reserve(200).unwrap();
    let mut sources: [Box<dyn TokenSource>; 2] = [
        Box::new(ModelSource::new(
            Decoder::load(folder.path(), Precision::F32).unwrap(),
            20,
            200,
            H256::zero(),
        )),
        Box::new(ModelSource::new(model, 20, 200, H256::zero())),
    ];
    let tape = Tape::new(&H256::repeat_byte(3));
    for maker in 0..2 {
        let records = generate(sources[maker].as_mut(), &tape);
        let completion: Vec<u32> = records.iter().map(|record| record.chosen().unwrap().token).collect();
        let tokens: Vec<u32> = [5, 6, 7].iter().chain(&completion).copied().collect();
        let tokens = &tokens[..tokens.len() - 1];
        let figures: Vec<_> = sources
            .iter_mut()
            .map(|source| {
                source.open(2, 64).unwrap();
                let draw = Draw {
                    tape: &tape,
                    params: &PARAMS,
                    completion: &completion,
                    position: 0,
                    bias: &[],
                    allowed: &[],
                    perturbation: None,
                };
                let task = Task::Measure(draw, &records);
                let outputs = source.step(&[Chunk { sequence: 2, tokens, task }]).unwrap();
                source.close(2);
                let Output::Measured(figures) = &outputs[0] else { panic!("{outputs:?}") };
                *figures
            })
            .collect();
        // Up to the rounding of the records both say the same.
        assert_eq!(figures[0].tokens, 40);
        assert_eq!(figures[1].tokens, 40);
        assert!(figures[0].distance_sum.abs_diff(figures[1].distance_sum) <= 40, "{figures:?}");
        assert!(figures[0].margin_sum.abs_diff(figures[1].margin_sum) <= 40, "{figures:?}");
        // At most half a step of 1/128 nat a candidate, in units of 1/1024 nat.
        assert!(figures[1].distance_sum <= 40 * 4, "{figures:?}");
    }
}

/// The records of two sequences that choose in one step; the first one with noise, if any.
fn two_in_a_step(source: &mut dyn TokenSource, noise: Option<Perturbation>) -> [TokenRecord; 2] {
    let tape = Tape::new(&H256::repeat_byte(3));
    let chunks = [(1, noise), (2, None)].map(|(sequence, perturbation)| {
        source.open(sequence, 64).unwrap();
        let (bias, allowed) = (&[], &[]);
        let draw =
            Draw { tape: &tape, params: &PARAMS, completion: &[], position: 0, bias, allowed, perturbation };
        Chunk { sequence, tokens: &[5, 6, 7], task: Task::Choose(draw) }
    });
    let outputs = source.step(&chunks).unwrap();
    source.close(1);
    source.close(2);
    let records = outputs.into_iter().map(|output| match output {
        Output::Chosen(record) => record,
        other => panic!("{other:?}"),
    });
    records.collect::<Vec<_>>().try_into().unwrap()
}

#[test]
fn noise_on_one_row_leaves_the_row_beside_it_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path(), "qwen3");
    let mut model = Libtorch::load(folder.path(), Device::Cpu, Precision::Stored).unwrap();
    model.reserve(200).unwrap();
    let mut source = ModelSource::new(model, 20, 200, H256::zero());
    let noise = Perturbation { seed: H256::repeat_byte(1), strength_milli: 2_000 };
    let [plain, beside_plain] = two_in_a_step(&mut source, None);
    let [noisy, beside_noisy] = two_in_a_step(&mut source, Some(noise));
    assert_eq!(beside_plain, beside_noisy);
    assert_ne!(plain.candidates, noisy.candidates);
    assert_eq!(two_in_a_step(&mut source, Some(noise))[0], noisy);
}
