//! What bounds any engine on this machine: how fast memory is read, and how fast large products run.

use crate::{
    kernel::{Matrix, Packing, Pool, RowBuffer, Slab, Vector},
    model::Rates,
};
use std::{hint::black_box, io, time::Instant};

/// Far more than any cache of a core holds; 512 MiB.
const READ_FLOATS: usize = 1 << 27;
/// Product that the arithmetic is measured with: a layer of a small model and a long prompt.
const ROWS: usize = 512;
const OUTPUTS: usize = 3_072;
const INPUTS: usize = 1_024;
/// Of so many tries the fastest counts: what else runs on the machine only slows it down.
const TRIES: usize = 5;

/// Measures the processor with so many threads.
pub(super) fn rates(threads: u32) -> io::Result<Rates> {
    let pool = Pool::new(threads.max(1) as usize);
    Ok(Rates { read_bandwidth: read_bandwidth(&pool)?, product_rate: product_rate(&pool)? })
}

/// Bytes per second that all threads together read, from memory like that of the weights.
pub(crate) fn read_bandwidth(pool: &Pool) -> io::Result<f64> {
    let mut data = Slab::<f32>::zeroed(READ_FLOATS)?;
    // Written once: pages that nobody wrote to are all the same one.
    data.fill(1.0);
    let vector = Vector::new(pool.isa());
    let parts = pool.threads() * 16;
    let seconds = fastest(|| {
        pool.run(parts, &|part| {
            let range = part * READ_FLOATS / parts..(part + 1) * READ_FLOATS / parts;
            black_box(vector.max_of(data.get(range).unwrap_or_default()));
        });
    });
    Ok((READ_FLOATS * size_of::<f32>()) as f64 / seconds)
}

/// Floating-point operations per second of a large product.
pub(crate) fn product_rate(pool: &Pool) -> io::Result<f64> {
    let mut packing = Packing::<f32>::new(OUTPUTS, INPUTS)?;
    for output in 0..OUTPUTS {
        packing.push((0..INPUTS).map(|input| ((output * 31 + input * 17) % 13) as f32 - 6.0));
    }
    let matrix = Matrix::from(packing);
    let (mut x, mut out) = (RowBuffer::new(INPUTS), RowBuffer::new(OUTPUTS));
    x.resize(ROWS);
    for row in 0..ROWS {
        x.row_mut(row).fill(row as f32);
    }
    let seconds = fastest(|| matrix.product(pool, &x, &mut out));
    Ok((2 * ROWS * OUTPUTS * INPUTS) as f64 / seconds)
}

fn fastest(mut run: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..TRIES {
        let started = Instant::now();
        run();
        best = best.min(started.elapsed().as_secs_f64());
    }
    best
}
