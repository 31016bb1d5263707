//! Binary Merkle trees with separate domains for leaves, nodes and roots.
//!
//! A level of odd length hands its last node up unchanged. The number of leaves is hashed into the root, so that a
//! proof holds for one index in one tree size only.

use crate::{hashing::hash_of, H256};
use alloc::vec::Vec;
use codec::{Decode, DecodeWithMemTracking, Encode};
use scale_info::TypeInfo;

/// Siblings on the way from a leaf to the top, lowest first. Levels at which the node is handed up have none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Proof {
    /// The siblings; at most 32.
    pub siblings: Vec<H256>,
}

/// A tree with all its levels, for many proofs.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Hashed leaves first, the top (a single node) last. The top level is absent when there are no leaves.
    levels: Vec<Vec<H256>>,
}

impl Tree {
    /// Builds the tree over these leaves; at most `u32::MAX` of them.
    pub fn new(leaves: &[H256]) -> Self {
        let mut levels = Vec::new();
        if leaves.is_empty() {
            return Self { levels };
        }
        let mut level: Vec<H256> = leaves.iter().map(leaf_hash).collect();
        while level.len() > 1 {
            let above = level_above(&level);
            levels.push(core::mem::replace(&mut level, above));
        }
        levels.push(level);
        Self { levels }
    }

    /// Number of leaves.
    pub fn count(&self) -> u32 {
        self.levels.first().map_or(0, |leaves| leaves.len() as u32)
    }

    /// The root, with the count bound in.
    pub fn root(&self) -> H256 {
        let top = self.levels.last().and_then(|level| level.first()).copied().unwrap_or_default();
        root_hash(self.count(), &top)
    }

    /// Proof for the leaf at `index`. An index out of range gives a proof that verifies nowhere.
    pub fn proof(&self, index: u32) -> Proof {
        let mut index = index as usize;
        let mut siblings = Vec::new();
        for level in &self.levels {
            siblings.extend(level.get(index ^ 1));
            index /= 2;
        }
        Proof { siblings }
    }
}

/// Root over the leaves, with their count bound in.
pub fn root(leaves: &[H256]) -> H256 {
    let mut level: Vec<H256> = leaves.iter().map(leaf_hash).collect();
    while level.len() > 1 {
        level = level_above(&level);
    }
    root_hash(leaves.len() as u32, &level.first().copied().unwrap_or_default())
}

/// Proof for the leaf at `index`; [`Tree`] is cheaper for more than one.
pub fn proof(leaves: &[H256], index: u32) -> Proof {
    Tree::new(leaves).proof(index)
}

/// Whether `leaf` is the one at `index` of the `count` leaves under `root`.
pub fn verify(root: &H256, leaf: &H256, index: u32, count: u32, proof: &Proof) -> bool {
    if index >= count {
        return false;
    }
    let mut siblings = proof.siblings.iter();
    let (mut node, mut index, mut width) = (leaf_hash(leaf), index, count);
    while width > 1 {
        // The last node of a level of odd length has no sibling.
        if index ^ 1 < width {
            let Some(sibling) = siblings.next() else { return false };
            node = if index & 1 == 0 { node_hash(&node, sibling) } else { node_hash(sibling, &node) };
        }
        index /= 2;
        width = width.div_ceil(2);
    }
    siblings.next().is_none() && root_hash(count, &node) == *root
}

fn level_above(level: &[H256]) -> Vec<H256> {
    let hash_pair = |pair: &[H256]| match pair {
        [left, right] => node_hash(left, right),
        [single] => *single,
        _ => H256::zero(),
    };
    level.chunks(2).map(hash_pair).collect()
}

fn leaf_hash(leaf: &H256) -> H256 {
    hash_of(b"starling/leaf", leaf)
}

fn node_hash(left: &H256, right: &H256) -> H256 {
    hash_of(b"starling/node", &(left, right))
}

fn root_hash(count: u32, top: &H256) -> H256 {
    hash_of(b"starling/root", &(count, top))
}
