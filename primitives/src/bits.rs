//! Bit streams, most significant bit first, and the Exp-Golomb code.

use alloc::vec::Vec;

/// Appends bits to bytes.
#[derive(Default)]
pub(crate) struct BitWriter {
    bytes: Vec<u8>,
    /// The last `pending` bits, fewer than 8, wait here.
    accumulator: u64,
    pending: u32,
}

impl BitWriter {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Appends the low `count <= 32` bits of `value`.
    pub(crate) fn write(&mut self, value: u32, count: u32) {
        let mask = (1u64 << count) - 1;
        self.accumulator = self.accumulator << count | (u64::from(value) & mask);
        self.pending += count;
        while self.pending >= 8 {
            self.pending -= 8;
            self.bytes.push((self.accumulator >> self.pending) as u8);
        }
    }

    /// Appends `value` in the Exp-Golomb code of order `k < 32`; costs [`exp_golomb_bits`].
    pub(crate) fn write_exp_golomb(&mut self, value: u32, k: u32) {
        let prefix = u64::from(value >> k) + 1;
        let zeros = prefix.ilog2();
        self.write(0, zeros);
        self.write(1, 1);
        self.write(prefix as u32, zeros);
        self.write(value, k);
    }

    /// The bytes, the last one filled up with zeros.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        if self.pending > 0 {
            self.bytes.push((self.accumulator << (8 - self.pending)) as u8);
        }
        self.bytes
    }
}

/// Length of a value's Exp-Golomb code.
pub(crate) fn exp_golomb_bits(value: u32, k: u32) -> u32 {
    2 * (u64::from(value >> k) + 1).ilog2() + 1 + k
}

/// Takes bits from bytes. `None` means that they end too early or code a number that does not fit.
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    /// Bits taken so far.
    position: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// At least 57 coming bits at the top of a word; zeros beyond the end.
    fn peek(&self) -> u64 {
        let rest = self.bytes.get(self.position / 8..).unwrap_or(&[]);
        let word = match rest.first_chunk::<8>() {
            Some(chunk) => u64::from_be_bytes(*chunk),
            None => {
                let mut padded = [0; 8];
                padded.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
                u64::from_be_bytes(padded)
            }
        };
        word << (self.position % 8)
    }

    fn skip(&mut self, count: u32) -> Option<()> {
        let position = self.position + count as usize;
        if position > self.bytes.len() * 8 {
            return None;
        }
        self.position = position;
        Some(())
    }

    /// The next `count <= 32` bits.
    pub(crate) fn read(&mut self, count: u32) -> Option<u32> {
        let value = (self.peek() >> 32 >> (32 - count)) as u32;
        self.skip(count)?;
        Some(value)
    }

    /// The next number in the Exp-Golomb code of order `k < 32`.
    pub(crate) fn read_exp_golomb(&mut self, k: u32) -> Option<u32> {
        let zeros = self.peek().leading_zeros();
        if zeros > 32 {
            return None;
        }
        self.skip(zeros + 1)?;
        let high = (1u64 << zeros | u64::from(self.read(zeros)?)) - 1;
        let low = self.read(k)?;
        u32::try_from(high << k).ok().map(|high| high | low)
    }

    /// Whether all that is left is the filling of the last byte: fewer than 8 bits, all zero.
    pub(crate) fn is_at_padding(&self) -> bool {
        // `peek` gives zeros beyond the end.
        self.bytes.len() * 8 - self.position < 8 && self.peek() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        let values = [0, 1, 2, 7, 8, 255, 4_095, 151_935, 1 << 31, u32::MAX - 1, u32::MAX];
        for k in 0..32 {
            let mut writer = BitWriter::default();
            let mut bits = 0;
            for value in values {
                writer.write_exp_golomb(value, k);
                writer.write(value, 32);
                writer.write(value, k);
                bits += exp_golomb_bits(value, k) + 32 + k;
            }
            let bytes = writer.finish();
            assert_eq!(bytes.len() as u32, bits.div_ceil(8));
            let mut reader = BitReader::new(&bytes);
            for value in values {
                assert_eq!(reader.read_exp_golomb(k), Some(value));
                assert_eq!(reader.read(32), Some(value));
                assert_eq!(reader.read(k), Some(value & ((1u64 << k) - 1) as u32));
            }
            assert!(reader.is_at_padding());
        }
    }

    #[test]
    fn numbers_above_32_bits_are_refused() {
        // 2^32 in order 0: 32 zeros, then 2^32 + 1 in 33 bits.
        let mut writer = BitWriter::default();
        writer.write(0, 32);
        writer.write(1, 1);
        writer.write(1, 32);
        assert_eq!(BitReader::new(&writer.finish()).read_exp_golomb(0), None);
        assert_eq!(BitReader::new(&[0; 16]).read_exp_golomb(0), None);
        assert_eq!(BitReader::new(&[0x80]).read_exp_golomb(8), None);
        assert_eq!(BitReader::new(&[]).read(1), None);
        assert_eq!(BitReader::new(&[]).read(0), Some(0));
    }
}
