//! Room for keys and values, in tokens: counted before a sequence is admitted, so that memory never runs out in the
//! middle of a generation. It is taken in whole blocks, as memory is. No tensors here.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Tokens of a block.
pub const BLOCK_TOKENS: u32 = crate::model::BLOCK_TOKENS as u32;

/// The room of a node.
#[derive(Clone, Debug)]
pub struct KvRoom {
    free: Arc<Semaphore>,
    capacity: u32,
    /// What background work leaves free for requests.
    reserve: u32,
}

/// Room held by a sequence; given back when dropped.
#[derive(Debug)]
pub struct KvLease {
    _tokens: OwnedSemaphorePermit,
}

impl KvRoom {
    /// Room for so many tokens; a quarter of it is closed to background work.
    pub fn new(capacity: u32) -> Self {
        let capacity = capacity.min(u32::MAX >> 3);
        Self { free: Arc::new(Semaphore::new(capacity as usize)), capacity, reserve: capacity / 4 }
    }

    /// Takes room for a request, if there is enough.
    pub fn take(&self, tokens: u32) -> Option<KvLease> {
        let permit = Arc::clone(&self.free).try_acquire_many_owned(in_blocks(tokens)).ok()?;
        Some(KvLease { _tokens: permit })
    }

    /// Takes room for background work, if enough stays free for requests.
    pub fn take_background(&self, tokens: u32) -> Option<KvLease> {
        let free = u32::try_from(self.free.available_permits()).unwrap_or(u32::MAX);
        if free < in_blocks(tokens).saturating_add(self.reserve) {
            return None;
        }
        self.take(tokens)
    }

    /// Whether background work of this size can ever run.
    pub fn fits_background(&self, tokens: u32) -> bool {
        in_blocks(tokens).saturating_add(self.reserve) <= self.capacity
    }

    /// Tokens in use.
    pub fn used(&self) -> u32 {
        self.capacity.saturating_sub(u32::try_from(self.free.available_permits()).unwrap_or(u32::MAX))
    }

    /// The share that is in use, 0 to 1.
    pub fn usage(&self) -> f64 {
        f64::from(self.used()) / f64::from(self.capacity.max(1))
    }
}

/// The tokens of the blocks that hold so many.
pub(crate) fn in_blocks(tokens: u32) -> u32 {
    tokens.checked_next_multiple_of(BLOCK_TOKENS).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    #[test]
    fn room_is_taken_in_blocks_and_given_back() {
        let room = KvRoom::new(4 * BLOCK_TOKENS);
        let first = room.take(2 * BLOCK_TOKENS + 1).unwrap();
        assert!(room.take(BLOCK_TOKENS + 1).is_none());
        assert_eq!(room.used(), 3 * BLOCK_TOKENS);
        drop(first);
        assert!(room.take(4 * BLOCK_TOKENS).is_some());
        assert!(room.take(u32::MAX).is_none());
        assert_eq!(room.used(), 0);
    }

    #[test]
    fn background_work_leaves_a_quarter() {
        let room = KvRoom::new(4 * BLOCK_TOKENS);
        assert!(room.take_background(3 * BLOCK_TOKENS + 1).is_none());
        let lease = room.take_background(3 * BLOCK_TOKENS).unwrap();
        assert!(room.take_background(1).is_none());
        assert!(room.take(BLOCK_TOKENS).is_some());
        drop(lease);
        assert!(room.fits_background(3 * BLOCK_TOKENS) && !room.fits_background(3 * BLOCK_TOKENS + 1));
    }

    proptest! {
        #[test]
        fn no_room_is_lost_or_given_twice(
            capacity in 1u32..2_000,
            orders in proptest::collection::vec((any::<bool>(), any::<bool>(), 0u32..400), 0..80),
        ) {
            let room = KvRoom::new(capacity);
            let mut held: Vec<(u32, KvLease)> = Vec::new();
            for (take, background, tokens) in orders {
                if take {
                    let lease = if background { room.take_background(tokens) } else { room.take(tokens) };
                    held.extend(lease.map(|lease| (in_blocks(tokens), lease)));
                } else if !held.is_empty() {
                    drop(held.swap_remove(tokens as usize % held.len()));
                }
                let used: u32 = held.iter().map(|(tokens, _)| tokens).sum();
                prop_assert_eq!(room.used(), used);
                prop_assert!(used <= capacity);
            }
            held.clear();
            prop_assert_eq!(room.used(), 0);
        }
    }
}
