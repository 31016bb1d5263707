//! Golden vectors: the bytes that every platform, release and port must reproduce.
//!
//! `STARLING_UPDATE_GOLDEN=1 cargo test -p starling-primitives golden` writes them anew; a change of these files is a
//! change of the protocol.

use crate::common::{generate, header, sorted, Ids, Model, PLAIN, PROMPT};
use ::codec::{Decode, Encode};
use serde_json::{json, Value};
use sp_core::{sr25519::Pair, sr25519::Public, Pair as _};
use starling_primitives::{
    constraint::{Constraint, Grammar, TokenBias},
    merkle,
    records::{response_hash, Finished},
    replay::{replay, ReplayError},
    request::{prompt_hash, RequestHeader, SamplingParams},
    sampler::{kept, sample, score},
    tape::{gumbel, gumbel_of_bits, tape_seed},
    transcript::{window_hash, Transcript, Window},
    vrf::{self, VrfInput, VrfProof},
    H256,
};
use std::path::PathBuf;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn is_updating() -> bool {
    std::env::var_os("STARLING_UPDATE_GOLDEN").is_some()
}

fn read(name: &str) -> Value {
    let text = std::fs::read_to_string(path(name)).expect("golden file exists");
    serde_json::from_str(&text).expect("golden file is JSON")
}

/// Compares with the file, or writes it. Entries are compared one by one, so that a failure names the first.
fn check(name: &str, entries: Vec<Value>) {
    if is_updating() {
        let lines: Vec<String> = entries.iter().map(Value::to_string).collect();
        let text = format!("[\n{}\n]\n", lines.join(",\n"));
        std::fs::write(path(name), text).expect("golden file is writable");
        return;
    }
    let golden = read(name);
    let golden = golden.as_array().expect("a list");
    assert_eq!(golden.len(), entries.len(), "{name}");
    for (index, (golden, entry)) in golden.iter().zip(&entries).enumerate() {
        assert_eq!(golden, entry, "{name}, entry {index}");
    }
}

fn seeds() -> [H256; 3] {
    [H256::zero(), tape_seed(&H256::repeat_byte(1), &H256::repeat_byte(2)), H256::repeat_byte(0xff)]
}

fn all_params() -> Vec<SamplingParams> {
    let with = |temperature_milli, top_p, min_p, top_k| SamplingParams {
        temperature_milli,
        top_p,
        min_p,
        top_k,
        ..SamplingParams::GREEDY
    };
    vec![
        SamplingParams::GREEDY,
        PLAIN,
        with(1, 10_000, 0, 0),
        with(700, 9_000, 0, 0),
        with(800, 9_500, 500, 15),
        with(2_000, 10_000, 100, 20),
        with(1_300, 5_000, 0, 3),
        with(1_000, 1, 10_000, 1),
    ]
}

#[test]
fn golden_hashes() {
    let header = header(all_params()[4], 100);
    let constraint = Constraint {
        logit_bias: vec![TokenBias { token: 3, milli: -100_000 }, TokenBias { token: 70_000, milli: 1_500 }],
        grammar: Some(Grammar {
            before: "<tool_call>".into(),
            schema: r#"{"type":"object"}"#.into(),
            after: "</tool_call>".into(),
        }),
    };
    let constrained = RequestHeader { constraint: Some(constraint.hash()), ..header.clone() };
    check(
        "hashes.json",
        vec![
            json!({"what": "tape seed", "epoch_seed": H256::repeat_byte(1), "request_id": H256::repeat_byte(2), "hash": seeds()[1]}),
            json!({"what": "prompt", "tokens": PROMPT, "hash": prompt_hash(&PROMPT)}),
            json!({"what": "response", "tokens": PROMPT, "hash": response_hash(&PROMPT)}),
            json!({"what": "header", "scale": hex::encode(header.encode()), "hash": header.id()}),
            json!({"what": "constraint", "scale": hex::encode(constraint.encode()), "hash": constraint.hash()}),
            json!({"what": "constrained header", "scale": hex::encode(constrained.encode()), "hash": constrained.id()}),
            json!({"what": "window", "previous": H256::repeat_byte(3), "bytes": "0102", "hash": window_hash(&H256::repeat_byte(3), &[1, 2])}),
        ],
    );
}

#[test]
fn golden_tape() {
    let mut entries = Vec::new();
    for seed in seeds() {
        for position in [0, 1, 31, 4_095, u32::MAX] {
            for token in [0, 1, 2, 257, 151_935, u32::MAX] {
                let value = gumbel(&seed, position, token);
                entries.push(json!({"seed": seed, "position": position, "token": token, "gumbel": value}));
            }
        }
    }
    for exponent in 0..64u32 {
        for bits in [1u64 << exponent, (1 << exponent) - 1, !(1 << exponent), (5 << exponent) | 3] {
            entries.push(json!({"bits": format!("{bits:016x}"), "gumbel": gumbel_of_bits(bits)}));
        }
    }
    check("tape.json", entries);
}

#[test]
fn golden_sampler() {
    let mut model = Model::new(77, 151_936, Ids::ByFrequency);
    let mut lists = vec![
        sorted([(5, 0)]),
        sorted([(9, 50), (4, 50), (7, 50)]),
        sorted((0..20).map(|i| (1_000 * i, 71 * i as u16))),
    ];
    lists.extend((0..12).map(|i| if i % 3 == 0 { model.flat() } else { model.peaked() }));
    let mut entries = Vec::new();
    for (position, candidates) in (0u32..).step_by(13).zip(&lists) {
        for (params, seed) in all_params().iter().zip(seeds().iter().cycle()) {
            let scores: Vec<i64> = candidates.iter().map(|c| score(seed, position, c, params)).collect();
            entries.push(json!({
                "seed": seed,
                "position": position,
                "params": params,
                "candidates": candidates.iter().map(|c| (c.token, c.q)).collect::<Vec<_>>(),
                "kept": kept(candidates, params),
                "scores": scores,
                "chosen": sample(seed, position, candidates, params),
            }));
        }
    }
    check("sampler.json", entries);
}

#[test]
fn golden_windows() {
    let mut entries = Vec::new();
    for (vocab, ids) in [(4_096, Ids::Uniform), (151_936, Ids::ByFrequency), (151_936, Ids::Uniform)] {
        for tokens in [1, 5, 32] {
            let mut model = Model::new(tokens.into(), vocab, ids);
            let (transcript, _) = generate(header(PLAIN, 32), &seeds()[1], tokens, || model.peaked());
            let records = transcript.records().expect("own encoding");
            let listed: Vec<_> = records
                .iter()
                .map(|r| (r.chosen, r.candidates.iter().map(|c| (c.token, c.q)).collect::<Vec<_>>()))
                .collect();
            let bytes = Window { records }.encode();
            entries.push(json!({"bytes": hex::encode(bytes), "records": listed}));
        }
    }
    check("window.json", entries);
}

#[test]
fn golden_transcripts() {
    let mut entries = Vec::new();
    for (params, tokens) in all_params().into_iter().zip([0, 1, 32, 33, 40, 64, 70, 7]) {
        let mut model = Model::new(tokens.into(), 4_096, Ids::ByFrequency);
        let (transcript, finished) = generate(header(params, 70), &seeds()[1], tokens, || model.peaked());
        entries.push(json!({
            "tape_seed": seeds()[1],
            "transcript": hex::encode(transcript.encode()),
            "finished": finished,
            "window_hashes": transcript.window_hashes(),
            "tokens": transcript.tokens().expect("own encoding"),
        }));
    }
    check("transcript.json", entries);
}

/// The transcripts of the file replay from their bytes alone, and no other choice does.
#[test]
fn golden_transcripts_replay() {
    if is_updating() {
        return;
    }
    for entry in read("transcript.json").as_array().expect("a list") {
        let bytes = hex::decode(entry["transcript"].as_str().expect("hex")).expect("hex");
        let transcript = Transcript::decode(&mut &bytes[..]).expect("SCALE");
        let seed: H256 = serde_json::from_value(entry["tape_seed"].clone()).expect("hash");
        let finished: Finished = serde_json::from_value(entry["finished"].clone()).expect("finished");
        let tokens: Vec<u32> = serde_json::from_value(entry["tokens"].clone()).expect("tokens");
        assert_eq!(replay(&transcript, &seed, &finished).map(|replayed| replayed.tokens), Ok(tokens));
        let header: RequestHeader = transcript.header.clone();
        if header.sampling == PLAIN && finished.completion_tokens > 30 {
            let other = replay(&transcript, &H256::zero(), &finished);
            assert!(matches!(other, Err(ReplayError::Chosen { .. })));
        }
    }
}

#[test]
fn golden_merkle() {
    let leaves: Vec<H256> = (0..9).map(H256::from_low_u64_be).collect();
    let entries = (0..=leaves.len()).map(|count| {
        let leaves = &leaves[..count];
        let proofs: Vec<_> = (0..count as u32).map(|index| merkle::proof(leaves, index).siblings).collect();
        json!({"leaves": leaves, "root": merkle::root(leaves), "proofs": proofs})
    });
    check("merkle.json", entries.collect());
}

/// Outputs are unique, proofs are not: the proofs of the file are verified, not made again.
#[test]
fn golden_vrf() {
    let inputs = [
        VrfInput::Beacon(H256::repeat_byte(7), 42),
        VrfInput::Duty(H256::repeat_byte(7), 42, H256::repeat_byte(8)),
    ];
    if is_updating() {
        let pair = Pair::from_seed(&[1; 32]);
        let entry = |input: &VrfInput| {
            let (proof, output) = vrf::sign(&pair, input);
            let (public, input) = (hex::encode(pair.public().0), hex::encode(input.encode()));
            json!({"public": public, "input": input, "proof": hex::encode(proof.encode()), "output": output})
        };
        return check("vrf.json", inputs.iter().map(entry).collect());
    }
    let golden = read("vrf.json");
    let golden = golden.as_array().expect("a list");
    assert_eq!(golden.len(), inputs.len());
    for (entry, input) in golden.iter().zip(&inputs) {
        let bytes = |name: &str| hex::decode(entry[name].as_str().expect("hex")).expect("hex");
        assert_eq!(bytes("input"), input.encode());
        let public = Public::from_raw(bytes("public").try_into().expect("32 bytes"));
        let proof = VrfProof::decode(&mut &bytes("proof")[..]).expect("96 bytes");
        let output: H256 = serde_json::from_value(entry["output"].clone()).expect("hash");
        assert_eq!(vrf::verify(&public, input, &proof), Some(output));
        assert_eq!(vrf::sign(&Pair::from_seed(&[1; 32]), input).1, output);
    }
}
