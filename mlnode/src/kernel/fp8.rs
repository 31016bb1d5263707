//! Weights of 8 bits (E4M3, without infinities) with a scale for each block, as FP8 checkpoints store them.
//!
//! A weight is the value of its byte times its block's scale, rounded once to f32: what dequantising the checkpoint to f32
//! gives. They stay 8 bits in memory and are widened block by block while a product uses them, so products have the bits of
//! the dequantised weights.

use super::{
    isa::Isa,
    matrix::{Block, Blocks},
    slab::Slab,
    tile::WIDTH,
    vector::Vector,
};
use std::io;

/// Value of a byte: sign, 4 bits of exponent with the bias 7, 3 bits of fraction. The two patterns that are no number (all
/// ones behind the sign) are refused when a checkpoint is read; here they are 480.
#[inline(always)]
pub(super) fn value(byte: u8) -> f32 {
    /// Between the exponents' biases, 127 and 7.
    const REBIAS: f32 = f32::from_bits((127 + 120) << 23);
    let bits = u32::from(byte);
    // Small bytes become subnormal f32 on the way; the product is exact all the same.
    f32::from_bits((bits & 0x80) << 24 | (bits & 0x7f) << 20) * REBIAS
}

/// Packed weights, laid out as those of other storages.
#[derive(Debug)]
pub(super) struct Fp8Panels {
    weights: Slab<u8>,
    /// For each panel and each run of inputs the scales of the panel's outputs.
    scales: Vec<[f32; WIDTH]>,
    /// Inputs that share a scale.
    run: usize,
    inputs: usize,
}

impl Fp8Panels {
    pub(super) fn scale_bytes(&self) -> usize {
        size_of_val(self.scales.as_slice())
    }

    fn scales(&self, panel: usize, run: usize) -> &[f32; WIDTH] {
        &self.scales[panel * self.inputs.div_ceil(self.run) + run]
    }

    /// The weights of one output.
    pub(super) fn output_weights(&self, output: usize, into: &mut [f32]) {
        let (panel, lane) = (output / WIDTH, output % WIDTH);
        let weights = self.weights[panel * self.inputs * WIDTH + lane..].iter().step_by(WIDTH);
        for (input, (into, weight)) in into.iter_mut().zip(weights).enumerate() {
            *into = value(*weight) * self.scales(panel, input / self.run)[lane];
        }
    }
}

impl Blocks for Fp8Panels {
    type Stored = f32;

    fn stored(&self, _block: Block, _rows: usize) -> Option<&[f32]> {
        None
    }

    fn widen(&self, isa: Isa, block: Block, into: &mut [f32]) {
        let (vector, weights) = (Vector::of_pool(isa), &self.weights[block.weights()]);
        let mut done = 0;
        while done < block.depth {
            let input = block.start + done;
            let count = (self.run - input % self.run).min(block.depth - done);
            let part = done * WIDTH..(done + count) * WIDTH;
            let scales = self.scales(block.panel, input / self.run);
            vector.widen_fp8(&weights[part.clone()], scales, &mut into[part]);
            done += count;
        }
    }
}

/// A matrix of 8-bit weights being packed, output by output.
#[derive(Debug)]
pub struct Fp8Packing {
    outputs: usize,
    panels: Fp8Panels,
    filled: usize,
}

impl Fp8Packing {
    /// Room for a matrix of so many outputs, each a weighted sum of `inputs` numbers, of which `run` at a time share a
    /// scale.
    ///
    /// # Panics
    /// When `run` is 0.
    pub fn new(outputs: usize, inputs: usize, run: usize) -> io::Result<Self> {
        assert!(run > 0, "no input has a scale");
        let weights = Slab::zeroed(outputs.next_multiple_of(WIDTH) * inputs)?;
        let scales = vec![[0.0; WIDTH]; outputs.div_ceil(WIDTH) * inputs.div_ceil(run)];
        Ok(Self { outputs, panels: Fp8Panels { weights, scales, run, inputs }, filled: 0 })
    }

    /// Takes the weights of the next output, and the scale of each run of them.
    ///
    /// # Panics
    /// When all outputs were given, or there are not as many weights or scales as it takes.
    pub fn push(&mut self, weights: &[u8], scales: &[f32]) {
        let Fp8Panels { weights: packed, scales: all, run, inputs } = &mut self.panels;
        let runs = inputs.div_ceil(*run);
        let shape = (weights.len(), scales.len());
        assert!(self.filled < self.outputs && shape == (*inputs, runs), "the matrix has another shape");
        let (panel, lane) = (self.filled / WIDTH, self.filled % WIDTH);
        let places = packed[panel * *inputs * WIDTH + lane..].iter_mut().step_by(WIDTH);
        for (place, weight) in places.zip(weights) {
            *place = *weight;
        }
        for (place, scale) in all[panel * runs..].iter_mut().zip(scales) {
            place[lane] = *scale;
        }
        self.filled += 1;
    }

    /// Outputs, inputs and the packed weights.
    pub(super) fn finish(self) -> (usize, usize, Fp8Panels) {
        assert_eq!(self.filled, self.outputs, "the matrix has another shape");
        (self.outputs, self.panels.inputs, self.panels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_the_value_of_its_definition() {
        for byte in 0..=255u8 {
            let sign = if byte & 0x80 == 0 { 1.0 } else { -1.0 };
            let (exponent, fraction) = (i32::from(byte >> 3 & 15), f32::from(byte & 7) / 8.0);
            let expected = if exponent == 0 {
                fraction * 2f32.powi(-6)
            } else {
                (1.0 + fraction) * 2f32.powi(exponent - 7)
            };
            assert_eq!(value(byte).to_bits(), (sign * expected).to_bits(), "{byte:#x}");
        }
        assert_eq!(value(0x7e), 448.0);
    }
}
