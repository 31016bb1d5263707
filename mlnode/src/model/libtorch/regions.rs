//! Where sequences lie in a store of tokens. No tensors.
//!
//! A sequence lies in one piece, as long as it may become: attention then reads it without a table of blocks. Nothing is lost
//! to that: where the free tokens are enough but lie apart, sequences move together.

use std::collections::BTreeMap;

/// Names a sequence of the store.
pub(super) type RegionId = u64;

/// The tokens of a store, and whose they are.
#[derive(Debug)]
pub(super) struct Regions {
    capacity: u32,
    free: u32,
    next: RegionId,
    /// Start and tokens of each region.
    regions: BTreeMap<RegionId, Region>,
}

/// Tokens of one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) start: u32,
    pub(super) tokens: u32,
}

/// Tokens that change their place, always towards the beginning: what they held moves with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) tokens: u32,
}

impl Regions {
    pub(super) fn new(capacity: u32) -> Self {
        Self { capacity, free: capacity, next: 0, regions: BTreeMap::new() }
    }

    /// Tokens of nobody.
    pub(super) fn free(&self) -> u32 {
        self.free
    }

    /// Takes a region of so many tokens, at least one. `None` when fewer are free. The moves, to be made in this order, come before it may
    /// be written to.
    pub(super) fn take(&mut self, tokens: u32) -> Option<(RegionId, Vec<Move>)> {
        if tokens > self.free {
            return None;
        }
        let (start, moves) = match self.gap(tokens) {
            Some(start) => (start, Vec::new()),
            None => self.compact(),
        };
        let id = self.next;
        self.next += 1;
        self.free -= tokens;
        self.regions.insert(id, Region { start, tokens });
        Some((id, moves))
    }

    /// Gives a region back.
    pub(super) fn give(&mut self, id: RegionId) {
        if let Some(region) = self.regions.remove(&id) {
            self.free += region.tokens;
        }
    }

    /// Where a region lies now.
    pub(super) fn find(&self, id: RegionId) -> Option<Region> {
        self.regions.get(&id).copied()
    }

    fn in_order(&self) -> Vec<(RegionId, Region)> {
        let mut all: Vec<_> = self.regions.iter().map(|(id, region)| (*id, *region)).collect();
        all.sort_unstable_by_key(|(_, region)| region.start);
        all
    }

    /// The first gap that is large enough.
    fn gap(&self, tokens: u32) -> Option<u32> {
        let mut start = 0;
        for (_, region) in self.in_order() {
            if region.start - start >= tokens {
                return Some(start);
            }
            start = region.start + region.tokens;
        }
        (self.capacity - start >= tokens).then_some(start)
    }

    /// Moves all regions to the beginning; returns where they end.
    fn compact(&mut self) -> (u32, Vec<Move>) {
        let (mut end, mut moves) = (0, Vec::new());
        for (id, region) in self.in_order() {
            if region.start > end {
                moves.push(Move { from: region.start, to: end, tokens: region.tokens });
                self.regions.insert(id, Region { start: end, ..region });
            }
            end += region.tokens;
        }
        (end, moves)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Orders of opening and closing against a model of the store in which every token says whose it is.
        #[test]
        fn no_token_is_leaked_or_shared(
            capacity in 1u32..200,
            orders in proptest::collection::vec((any::<bool>(), 1u32..60), 0..120),
        ) {
            let mut regions = Regions::new(capacity);
            let mut tokens: Vec<Option<RegionId>> = vec![None; capacity as usize];
            let mut held: Vec<(RegionId, u32)> = Vec::new();
            for (take, number) in orders {
                if take {
                    let free = capacity - held.iter().map(|(_, count)| count).sum::<u32>();
                    let Some((id, moves)) = regions.take(number) else {
                        prop_assert!(number > free, "refused {number} of {free}");
                        continue;
                    };
                    prop_assert!(number <= free);
                    for Move { from, to, tokens: count } in moves {
                        prop_assert!(to < from);
                        let moved: Vec<_> = tokens[from as usize..(from + count) as usize].to_vec();
                        tokens[from as usize..(from + count) as usize].fill(None);
                        tokens[to as usize..(to + count) as usize].copy_from_slice(&moved);
                    }
                    let Region { start, tokens: count } = regions.find(id).unwrap();
                    prop_assert_eq!(count, number);
                    let place = &mut tokens[start as usize..(start + count) as usize];
                    prop_assert!(place.iter().all(Option::is_none), "a token of two sequences");
                    place.fill(Some(id));
                    held.push((id, number));
                } else if !held.is_empty() {
                    let (id, _) = held.swap_remove(number as usize % held.len());
                    regions.give(id);
                    regions.give(id);
                    prop_assert_eq!(regions.find(id), None);
                    tokens.iter_mut().filter(|owner| **owner == Some(id)).for_each(|owner| *owner = None);
                }
                // What each one held is where the store says.
                for (id, count) in &held {
                    let Region { start, .. } = regions.find(*id).unwrap();
                    prop_assert!(tokens[start as usize..(start + count) as usize]
                        .iter()
                        .all(|owner| *owner == Some(*id)));
                }
                prop_assert_eq!(regions.free() as usize, tokens.iter().filter(|owner| owner.is_none()).count());
            }
            held.iter().for_each(|(id, _)| regions.give(*id));
            prop_assert_eq!(regions.free(), capacity);
            prop_assert!(regions.take(capacity).is_some());
        }
    }
}
