//! Domain-separated hashing: every hash of the protocol names what it hashes.

use codec::Encode;
use sp_core::H256;

/// `blake2_256(domain ++ SCALE(value))`. Every domain is a distinct `starling/...` string, none a prefix of another.
pub fn hash_of(domain: &[u8], value: &impl Encode) -> H256 {
    let mut bytes = alloc::vec::Vec::with_capacity(domain.len() + value.size_hint());
    bytes.extend_from_slice(domain);
    value.encode_to(&mut bytes);
    H256(sp_crypto_hashing::blake2_256(&bytes))
}
