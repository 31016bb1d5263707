//! Bytes as hexadecimal text, `0x` in front; for `#[serde(with = "hex_bytes")]`.

use serde::{de::Error, Deserialize, Deserializer, Serializer};
use std::borrow::Cow;

/// Writes bytes as `0x..`.
pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("0x");
    text.push_str(&hex::encode(bytes));
    serializer.serialize_str(&text)
}

/// Reads bytes from hexadecimal text with or without `0x`.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = Cow::<'de, str>::deserialize(deserializer)?;
    hex::decode(text.strip_prefix("0x").unwrap_or(&text)).map_err(D::Error::custom)
}
