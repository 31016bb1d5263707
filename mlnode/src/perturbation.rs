//! Noise that makes an answer wrong on purpose: the answer to a [`GenerateRequest`](starling_mlnode_api::GenerateRequest)
//! with a [`Perturbation`].

use rand_chacha::{
    rand_core::{RngCore, SeedableRng},
    ChaCha8Rng,
};
use starling_mlnode_api::Perturbation;

/// Mean of the sum of four numbers of 16 bits.
const MEAN: f32 = 2.0 * 65_535.0;

/// Adds the noise of one place in the completion to the logits over the whole vocabulary. The same everywhere, bit for bit.
pub fn perturb(logits: &mut [f32], perturbation: &Perturbation, position: u32) {
    let mut noise = ChaCha8Rng::from_seed(perturbation.seed.0);
    noise.set_stream(position.into());
    // The sum of four uniform numbers of 16 bits is nearly normal, and its standard deviation 2^16 / sqrt(3).
    let scale = perturbation.strength_milli as f32 / 1_000.0 * 3f32.sqrt() / 65_536.0;
    for logit in logits {
        let bits = noise.next_u64();
        let sum: u32 = [0, 16, 32, 48].map(|shift| (bits >> shift) as u32 & 0xffff).iter().sum();
        *logit += (sum as f32 - MEAN) * scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_primitives::H256;

    fn noise(seed: u8, strength_milli: u32, position: u32) -> Vec<f32> {
        let mut logits = vec![0.0; 20_000];
        let seed = H256::repeat_byte(seed);
        perturb(&mut logits, &Perturbation { seed, strength_milli }, position);
        logits
    }

    #[test]
    fn noise_has_the_strength_that_was_asked_for() {
        for strength in [1, 500, 2_000] {
            let noise = noise(1, strength, 7);
            let count = noise.len() as f64;
            let mean = noise.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
            let variance = noise.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count;
            let expected = f64::from(strength) / 1_000.0;
            assert!(mean.abs() < expected * 0.03, "{mean}");
            assert!((variance.sqrt() / expected - 1.0).abs() < 0.03, "{variance}");
        }
    }

    #[test]
    fn noise_follows_from_seed_and_place() {
        assert_eq!(noise(1, 500, 7), noise(1, 500, 7));
        assert_ne!(noise(1, 500, 7), noise(2, 500, 7));
        assert_ne!(noise(1, 500, 7), noise(1, 500, 8));
        // A longer vocabulary has the same noise where both have some.
        let mut longer = vec![0.0; 20_001];
        perturb(&mut longer, &Perturbation { seed: H256::repeat_byte(1), strength_milli: 500 }, 7);
        assert_eq!(longer[..20_000], noise(1, 500, 7));
    }
}
