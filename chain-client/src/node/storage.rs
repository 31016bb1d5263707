//! Keys and values of storage, by the runtime's metadata.

use super::{NodeHash, Rpc};
use crate::{entries::Place, error::ChainError};
use starling_primitives::H256;
use std::collections::HashMap;
use subxt::{
    ext::{
        frame_decode::storage::{StorageHasher, StorageKeyInfo},
        scale_decode::visitor::{decode_with_visitor, IgnoreVisitor},
    },
    metadata::Metadata,
};

/// Keys or values that one request asks for at most.
const PAGE: u32 = 512;

/// A storage item as the runtime has it.
pub(super) struct Item<'a> {
    metadata: &'a Metadata,
    place: Place,
    prefix: Vec<u8>,
    keys: Vec<StorageKeyInfo<u32>>,
}

impl<'a> Item<'a> {
    pub(super) fn find(metadata: &'a Metadata, place: Place) -> Result<Self, ChainError> {
        let missing =
            || ChainError::Incompatible(format!("storage {}.{} does not exist", place.pallet, place.item));
        let pallet = metadata.pallet_by_name(place.pallet).ok_or_else(missing)?;
        let storage = pallet.storage().ok_or_else(missing)?;
        let entry = storage.entry_by_name(place.item).ok_or_else(missing)?;
        let mut prefix = sp_crypto_hashing::twox_128(storage.prefix().as_bytes()).to_vec();
        prefix.extend(sp_crypto_hashing::twox_128(place.item.as_bytes()));
        Ok(Self { metadata, place, prefix, keys: entry.keys().cloned().collect() })
    }

    /// The key of these parts, or the prefix of all keys that begin with them.
    pub(super) fn key(&self, parts: &[Vec<u8>]) -> Result<Vec<u8>, ChainError> {
        if parts.len() > self.keys.len() {
            return Err(self.unfit("it has fewer keys"));
        }
        let mut key = self.prefix.clone();
        for (part, info) in parts.iter().zip(&self.keys) {
            key.extend(hashed(info.hasher, part));
        }
        Ok(key)
    }

    /// The parts of a key after the first `skip`, which take `offset` bytes of it.
    pub(super) fn remaining(
        &self,
        key: &[u8],
        skip: usize,
        offset: usize,
    ) -> Result<Vec<Vec<u8>>, ChainError> {
        let mut input = key.get(offset..).unwrap_or_default();
        let mut parts = Vec::new();
        for info in self.keys.iter().skip(skip) {
            if !matches!(
                info.hasher,
                StorageHasher::Identity | StorageHasher::Twox64Concat | StorageHasher::Blake2_128Concat
            ) {
                return Err(self.unfit("its keys cannot be read back"));
            }
            input = input
                .get(info.hasher.len_excluding_key()..)
                .ok_or_else(|| self.unfit("a key is too short"))?;
            let start = input;
            decode_with_visitor(&mut input, info.key_id, self.metadata.types(), IgnoreVisitor::new())
                .map_err(|error| {
                    ChainError::decode(format!("a key of {}.{}", self.place.pallet, self.place.item), error)
                })?;
            let length = start.len().saturating_sub(input.len());
            parts.push(start.get(..length).unwrap_or_default().to_vec());
        }
        Ok(parts)
    }

    fn unfit(&self, reason: &str) -> ChainError {
        ChainError::Incompatible(format!("storage {}.{}: {reason}", self.place.pallet, self.place.item))
    }
}

fn hashed(hasher: StorageHasher, part: &[u8]) -> Vec<u8> {
    let concat = |hash: &[u8]| [hash, part].concat();
    match hasher {
        StorageHasher::Blake2_128 => sp_crypto_hashing::blake2_128(part).to_vec(),
        StorageHasher::Blake2_256 => sp_crypto_hashing::blake2_256(part).to_vec(),
        StorageHasher::Blake2_128Concat => concat(&sp_crypto_hashing::blake2_128(part)),
        StorageHasher::Twox128 => sp_crypto_hashing::twox_128(part).to_vec(),
        StorageHasher::Twox256 => sp_crypto_hashing::twox_256(part).to_vec(),
        StorageHasher::Twox64Concat => concat(&sp_crypto_hashing::twox_64(part)),
        StorageHasher::Identity => part.to_vec(),
    }
}

/// All keys that begin with `prefix`.
pub(super) async fn keys(rpc: &Rpc, at: H256, prefix: &[u8]) -> Result<Vec<Vec<u8>>, subxt::rpcs::Error> {
    let at = NodeHash::from(at.0);
    let mut keys: Vec<Vec<u8>> = Vec::new();
    loop {
        let page = rpc.state_get_keys_paged(prefix, PAGE, keys.last().map(Vec::as_slice), Some(at)).await?;
        let last = page.len() < PAGE as usize;
        keys.extend(page);
        if last {
            return Ok(keys);
        }
    }
}

/// The values at these keys, in order.
pub(super) async fn values(
    rpc: &Rpc,
    at: H256,
    keys: &[Vec<u8>],
) -> Result<Vec<Option<Vec<u8>>>, subxt::rpcs::Error> {
    let at = NodeHash::from(at.0);
    if let [only] = keys {
        return Ok(vec![rpc.state_get_storage(only, Some(at)).await?]);
    }
    let mut found = HashMap::new();
    for page in keys.chunks(PAGE as usize) {
        for set in rpc.state_query_storage_at(page.iter().map(Vec::as_slice), Some(at)).await? {
            found.extend(set.changes.into_iter().filter_map(|(key, value)| Some((key.0, value?.0))));
        }
    }
    Ok(keys.iter().map(|key| found.get(key).cloned()).collect())
}
