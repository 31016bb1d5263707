//! Keys and values of all sequences, on the device.

use super::{
    super::{ModelConfig, ModelError},
    ops::During,
    regions::{Move, Region, RegionId, Regions},
};
use crate::kv::in_blocks;
use std::{cell::RefCell, rc::Rc};
use tch::{Device, Kind, Tensor};

/// One tensor per layer, (tokens, 2 x key heads, head dim): a token's keys, then its values. All memory is taken when the store
/// is made, so a sequence that gets a place has its memory.
#[derive(Debug)]
pub(super) struct Store {
    regions: Rc<RefCell<Regions>>,
    layers: Vec<Tensor>,
}

/// A sequence's place in the store; given back when dropped.
#[derive(Debug)]
pub struct LibtorchKv {
    regions: Rc<RefCell<Regions>>,
    id: RegionId,
    pub(super) length: u32,
    capacity: u32,
}

impl LibtorchKv {
    /// Tokens stored.
    pub fn len(&self) -> u32 {
        self.length
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Tokens that fit.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Where it starts in the store, if it has room for so many tokens more.
    pub(super) fn reserve(&self, new: u32) -> Result<u32, ModelError> {
        let tokens = self.length.saturating_add(new);
        let region = self.regions.borrow().find(self.id);
        match region {
            Some(Region { start, .. }) if tokens <= self.capacity => Ok(start),
            _ => Err(ModelError::CacheFull { tokens, capacity: self.capacity }),
        }
    }
}

impl Drop for LibtorchKv {
    fn drop(&mut self) {
        self.regions.borrow_mut().give(self.id);
    }
}

impl Store {
    /// Room for so many tokens, in blocks as they are counted at admission.
    pub(super) fn new(
        config: &ModelConfig,
        tokens: u32,
        options: (Kind, Device),
    ) -> Result<Self, ModelError> {
        let shape = [tokens, 2 * config.kv_heads, config.head_dim].map(i64::from);
        let layer = |_| Tensor::f_empty(shape, options);
        let layers: Result<Vec<_>, _> = (0..config.layers).map(layer).collect();
        let layers = layers.map_err(|source| ModelError::KvMemory {
            tokens,
            bytes: u64::from(config.layers)
                * shape.iter().map(|n| n.unsigned_abs()).product::<u64>()
                * options.0.elt_size_in_bytes() as u64,
            source,
        })?;
        Ok(Self { regions: Rc::new(RefCell::new(Regions::new(tokens))), layers })
    }

    /// Keys and values of a layer.
    pub(super) fn layer(&self, index: usize) -> Option<&Tensor> {
        self.layers.get(index)
    }

    /// Whether a sequence lies here.
    pub(super) fn has(&self, kv: &LibtorchKv) -> bool {
        Rc::ptr_eq(&self.regions, &kv.regions)
    }

    /// A place for a sequence.
    pub(super) fn open(&self, capacity: u32) -> Result<LibtorchKv, ModelError> {
        let tokens = in_blocks(capacity.max(1));
        let taken = self.regions.borrow_mut().take(tokens);
        let Some((id, moves)) = taken else {
            return Err(ModelError::NoKvRoom { tokens, free: self.regions.borrow().free() });
        };
        let kv = LibtorchKv { regions: Rc::clone(&self.regions), id, length: 0, capacity };
        for one in moves {
            self.apply(one)?;
        }
        Ok(kv)
    }

    fn apply(&self, Move { from, to, tokens }: Move) -> Result<(), ModelError> {
        let _no_grad = tch::no_grad_guard();
        for layer in &self.layers {
            let part = |start: u32| layer.f_narrow(0, i64::from(start), i64::from(tokens));
            // Old and new place may overlap.
            let moved = part(from).and_then(|old| old.f_alias_copy()).during("moving a sequence")?;
            part(to).and_then(|mut new| new.f_copy_(&moved)).during("moving a sequence")?;
        }
        Ok(())
    }
}
