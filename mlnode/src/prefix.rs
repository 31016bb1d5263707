//! Blocks of tokens that sequences have in common. Knows hashes and tokens, and nothing of what a block holds.
//!
//! A block is found by `blake2_256` over the hash of the block before it and its own tokens; the first one's `before` is a
//! hash that stands for the model. Equal hashes therefore mean equal tokens from the start, in the same model: a
//! collision that one could construct would serve another prompt's keys and values.

use sp_crypto_hashing::blake2_256;
use starling_primitives::H256;
use std::collections::HashMap;

/// Hash of a block of tokens behind those that `before` stands for.
pub fn block_hash(before: &H256, tokens: &[u32]) -> H256 {
    let mut bytes = Vec::with_capacity(48 + 4 * tokens.len());
    bytes.extend_from_slice(b"starling/prefix ");
    bytes.extend_from_slice(before.as_bytes());
    for token in tokens {
        bytes.extend_from_slice(&token.to_le_bytes());
    }
    H256(blake2_256(&bytes))
}

/// Blocks by hash, at most so many; the one unused for longest goes first.
#[derive(Debug)]
pub struct PrefixCache<B> {
    blocks: HashMap<H256, Held<B>>,
    capacity: usize,
    clock: u64,
}

#[derive(Debug)]
struct Held<B> {
    block: B,
    used: u64,
}

impl<B: Clone> PrefixCache<B> {
    /// Room for so many blocks; with 0 nothing is kept.
    pub fn new(capacity: usize) -> Self {
        Self { blocks: HashMap::new(), capacity, clock: 0 }
    }

    /// Blocks held.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The blocks that a sequence can start with, and the hash of the last one (or `root`). Never all of its tokens: at
    /// least one is left to be computed, because what follows it is wanted.
    pub fn find(&mut self, root: &H256, tokens: &[u32], block_tokens: usize) -> (Vec<B>, H256) {
        let known = tokens.split_last().map_or(&[][..], |(_, known)| known);
        let (mut found, mut hash) = (Vec::new(), *root);
        self.clock += 1;
        for block in known.chunks_exact(block_tokens) {
            let next = block_hash(&hash, block);
            let Some(held) = self.blocks.get_mut(&next) else { break };
            held.used = self.clock;
            found.push(held.block.clone());
            hash = next;
        }
        (found, hash)
    }

    /// Keeps a block, unless it is held already.
    pub fn keep(&mut self, hash: H256, block: B) {
        if self.capacity == 0 {
            return;
        }
        self.clock += 1;
        let used = self.clock;
        self.blocks.entry(hash).and_modify(|held| held.used = used).or_insert(Held { block, used });
        while self.blocks.len() > self.capacity {
            // A scan of at most some thousand entries, once for every block of tokens computed.
            let Some(oldest) = self.blocks.iter().min_by_key(|(_, held)| held.used).map(|(hash, _)| *hash)
            else {
                return;
            };
            self.blocks.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    const ROOT: H256 = H256::repeat_byte(7);
    const BLOCK: usize = 3;

    /// What an engine does with a sequence: starts with what is known, computes the rest, and keeps its blocks. A block is
    /// here the list of all tokens up to its end.
    fn run(cache: &mut PrefixCache<Arc<Vec<u32>>>, tokens: &[u32]) -> usize {
        let (found, mut hash) = cache.find(&ROOT, tokens, BLOCK);
        for (index, block) in found.iter().enumerate() {
            assert_eq!(block.as_slice(), &tokens[..(index + 1) * BLOCK], "a block of other tokens");
        }
        for (index, block) in tokens.chunks_exact(BLOCK).enumerate().skip(found.len()) {
            hash = block_hash(&hash, block);
            cache.keep(hash, Arc::new(tokens[..(index + 1) * BLOCK].to_vec()));
        }
        found.len()
    }

    #[test]
    fn a_common_beginning_is_found_and_one_token_is_left() {
        let mut cache = PrefixCache::new(10);
        assert_eq!(run(&mut cache, &[1, 2, 3, 4, 5, 6]), 0);
        assert_eq!(run(&mut cache, &[1, 2, 3, 4, 5, 6]), 1);
        assert_eq!(run(&mut cache, &[1, 2, 3, 4, 5, 6, 7]), 2);
        assert_eq!(run(&mut cache, &[1, 2, 3, 4, 9, 6, 7]), 1);
        assert_eq!(run(&mut cache, &[9, 2, 3, 4, 5, 6, 7]), 0);
        assert_eq!(cache.find(&H256::zero(), &[1, 2, 3, 4], BLOCK).0.len(), 0, "another model");
        assert_eq!(cache.find(&ROOT, &[], BLOCK).0.len(), 0);
    }

    #[test]
    fn the_longest_unused_goes_first() {
        let mut cache = PrefixCache::new(2);
        run(&mut cache, &[1, 1, 1, 0]);
        run(&mut cache, &[2, 2, 2, 0]);
        assert_eq!(run(&mut cache, &[1, 1, 1, 0]), 1);
        run(&mut cache, &[3, 3, 3, 0]);
        assert_eq!((run(&mut cache, &[1, 1, 1, 0]), cache.len()), (1, 2));
        assert_eq!(run(&mut PrefixCache::new(0), &[1, 1, 1, 0]), 0);
    }

    proptest! {
        #[test]
        fn no_sequence_gets_a_block_of_other_tokens(
            sequences in proptest::collection::vec(proptest::collection::vec(0u32..2, 0..20), 0..60),
            capacity in 0usize..12,
        ) {
            let mut cache = PrefixCache::new(capacity);
            for tokens in sequences {
                // `run` compares what it is given.
                let found = run(&mut cache, &tokens);
                prop_assert!(found * BLOCK < tokens.len().max(1));
                prop_assert!(cache.len() <= capacity);
            }
        }
    }
}
