//! The tape: the noise that a generation is sampled with.
//!
//! The noise of (position `t`, token id `v`) is the standard Gumbel variate `-ln(-ln u)`, where `u` comes from the
//! first eight bytes of the ChaCha8 block with key = tape seed, stream (nonce) = `t` and block counter = `v`, exactly
//! as `rand_chacha::ChaCha8Rng` computes it after `set_stream(t)` and `set_word_pos(16 v)`. Only the blocks of actual
//! candidates are ever computed.
//!
//! Eight rounds are enough here: the tape needs outputs that nobody can predict without the seed or tell from
//! random, no ciphertext depends on it, and the best known attacks on ChaCha end at seven rounds.

use crate::{fixed::ln_int, H256};

/// Fractional bits of the noise: one unit is 1/2^16 nat.
pub const GUMBEL_BITS: u32 = 16;
/// Smallest value of [`gumbel`]: `-ln(64 ln 2)`, at u = 2^-64.
pub const GUMBEL_MIN: i64 = -248_537;
/// Largest value of [`gumbel`]: `64 ln 2`, at u = 1 - 2^-64.
pub const GUMBEL_MAX: i64 = 2_907_269;

/// Seed of a generation's tape: `blake2_256("starling/tape" ++ epoch seed ++ request id)`.
///
/// Neither the client (who does not choose the epoch seed) nor the executor (who chooses neither) can steer it.
pub fn tape_seed(epoch_seed: &H256, request_id: &H256) -> H256 {
    crate::hashing::hash_of(b"starling/tape", &(epoch_seed, request_id))
}

/// The Gumbel noise of a token at a position, in 1/2^16 nat, within `GUMBEL_MIN..=GUMBEL_MAX`.
pub fn gumbel(seed: &H256, position: u32, token: u32) -> i64 {
    Tape::new(seed).gumbel(position, token)
}

/// A tape with its key unpacked, for many draws.
#[derive(Clone, Debug)]
pub struct Tape {
    key: [u32; 8],
}

impl Tape {
    /// The tape of a seed.
    pub fn new(seed: &H256) -> Self {
        let mut key = [0; 8];
        for (word, bytes) in key.iter_mut().zip(seed.0.chunks_exact(4)) {
            *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        }
        Self { key }
    }

    /// The Gumbel noise of a token at a position; see [`gumbel`].
    pub fn gumbel(&self, position: u32, token: u32) -> i64 {
        gumbel_of_bits(self.bits(position, token))
    }

    /// First 64 bits of the ChaCha8 block for (position, token).
    ///
    /// `rand_chacha` computes four blocks at a time, of which three would be thrown away here.
    fn bits(&self, position: u32, token: u32) -> u64 {
        let [k0, k1, k2, k3, k4, k5, k6, k7] = self.key;
        let [c0, c1, c2, c3] = CONSTANTS;
        // Constants, key, 64-bit counter, 64-bit stream.
        let mut x = [c0, c1, c2, c3, k0, k1, k2, k3, k4, k5, k6, k7, token, 0, position, 0];
        for _ in 0..4 {
            quarter_round(&mut x, 0, 4, 8, 12);
            quarter_round(&mut x, 1, 5, 9, 13);
            quarter_round(&mut x, 2, 6, 10, 14);
            quarter_round(&mut x, 3, 7, 11, 15);
            quarter_round(&mut x, 0, 5, 10, 15);
            quarter_round(&mut x, 1, 6, 11, 12);
            quarter_round(&mut x, 2, 7, 8, 13);
            quarter_round(&mut x, 3, 4, 9, 14);
        }
        u64::from(x[1].wrapping_add(c1)) << 32 | u64::from(x[0].wrapping_add(c0))
    }
}

/// "expand 32-byte k".
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

#[inline(always)]
fn quarter_round(x: &mut [u32; 16], a: usize, b: usize, c: usize, d: usize) {
    x[a] = x[a].wrapping_add(x[b]);
    x[d] = (x[d] ^ x[a]).rotate_left(16);
    x[c] = x[c].wrapping_add(x[d]);
    x[b] = (x[b] ^ x[c]).rotate_left(12);
    x[a] = x[a].wrapping_add(x[b]);
    x[d] = (x[d] ^ x[a]).rotate_left(8);
    x[c] = x[c].wrapping_add(x[d]);
    x[b] = (x[b] ^ x[c]).rotate_left(7);
}

/// `-ln(-ln u)` in 1/2^16 nat, rounded down, for `u = (bits | 1) / 2^64`; never decreasing in `bits`, within one unit
/// of the true value.
///
/// The odd numerator keeps `u` away from 0 and 1, and makes `1 - u` a number of the same kind.
pub fn gumbel_of_bits(bits: u64) -> i64 {
    const LN_2_64: u64 = 48_775_896_626_304;
    let u = bits | 1;
    let complement = u.wrapping_neg();
    // ln 2^64 and ln x with 40 fractional bits; E = -ln u as `energy / 2^scale`.
    let (energy, scale) = if complement >> 59 == 0 {
        // u > 1 - 2^-5: -ln(1 - v) = v + v^2/2 + ... + v^5/5, where the logarithm of u would lose its digits.
        // Every term is monotone in v; what is left out is below v^5/6 < 2^-27 of the sum.
        (neg_ln_1m(complement), 64)
    } else {
        (LN_2_64.saturating_sub(ln_int(u)), 40)
    };
    // -ln E = scale ln 2 - ln energy.
    let ln_scale = LN_2_64 / 64 * scale;
    (ln_scale as i64 - ln_int(energy) as i64) >> (40 - GUMBEL_BITS)
}

/// `ln weight` with the Gumbel noise of these bits, in 1/2^16 nat: of several, the largest is each with a probability that is its
/// share of the weight, and the largest `n` are `n` draws without replacement (Yellott 1977). Of weight 0 as of 1.
pub fn perturbed_ln(weight: u64, bits: u64) -> i64 {
    let ln = ln_int(weight) >> (40 - GUMBEL_BITS);
    gumbel_of_bits(bits).saturating_add(ln as i64)
}

/// `-ln(1 - v)` for `v = x / 2^64 < 2^-5`, in 1/2^64.
fn neg_ln_1m(x: u64) -> u64 {
    let times = |a: u64, b: u64| ((u128::from(a) * u128::from(b)) >> 64) as u64;
    let x2 = times(x, x);
    let x3 = times(x2, x);
    let x4 = times(x2, x2);
    let x5 = times(x4, x);
    x + x2 / 2 + x3 / 3 + x4 / 4 + x5 / 5
}
