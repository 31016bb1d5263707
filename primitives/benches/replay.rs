//! What replay costs for each token: decoding, noise, sampling and hashing.

#![allow(missing_docs, reason = "criterion_group generates a public function without one")]

#[path = "../tests/all/common.rs"]
mod common;

use common::{generate, header, Ids, Model, PLAIN};
use criterion::{criterion_group, criterion_main, Criterion, Throughput};
use starling_primitives::{
    replay::replay,
    request::SamplingParams,
    sampler::sample,
    tape::Tape,
    transcript::{Window, WINDOW_TOKENS},
    H256,
};
use std::hint::black_box;

const TOKENS: u32 = 1_024;
const VOCAB: u32 = 151_936;

fn replays(c: &mut Criterion) {
    let mut group = c.benchmark_group("replay");
    group.throughput(Throughput::Elements(TOKENS.into()));
    let seed = H256::repeat_byte(5);
    let filtered = SamplingParams { temperature_milli: 800, top_p: 9_500, min_p: 100, ..PLAIN };
    for (name, params) in [("plain", PLAIN), ("filtered", filtered), ("greedy", SamplingParams::GREEDY)] {
        let mut model = Model::new(1, VOCAB, Ids::ByFrequency);
        let peaked = generate(header(params, TOKENS), &seed, TOKENS, || model.peaked());
        let flat = generate(header(params, TOKENS), &seed, TOKENS, || model.flat());
        for (shape, (transcript, finished)) in [("peaked", peaked), ("flat_20", flat)] {
            group.bench_function(format!("{name}/{shape}"), |b| {
                b.iter(|| replay(black_box(&transcript), &seed, &finished).expect("honest"))
            });
        }
    }
    group.finish();
}

fn parts(c: &mut Criterion) {
    let seed = H256::repeat_byte(5);
    let mut model = Model::new(1, VOCAB, Ids::ByFrequency);
    let (transcript, _) = generate(header(PLAIN, 32), &seed, 32, || model.flat());
    let bytes = &transcript.windows[0];
    let window = Window::decode(bytes, 20).expect("own encoding");
    let candidates = &window.records[0].candidates;
    let tape = Tape::new(&seed);

    let mut group = c.benchmark_group("parts");
    group.bench_function("gumbel", |b| b.iter(|| tape.gumbel(black_box(7), black_box(12_345))));
    group.bench_function("sample_20", |b| {
        b.iter(|| sample(&seed, black_box(7), black_box(candidates), &PLAIN))
    });
    group.throughput(Throughput::Elements(WINDOW_TOKENS as u64));
    group.bench_function("window_decode_20", |b| b.iter(|| Window::decode(black_box(bytes), 20)));
    group.bench_function("window_encode_20", |b| b.iter(|| black_box(&window).encode()));
    group.finish();
}

criterion_group!(benches, replays, parts);
criterion_main!(benches);
