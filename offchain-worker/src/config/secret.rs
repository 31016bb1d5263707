//! A text that never reaches a log.

use serde::{Deserialize, Deserializer};
use subtle::ConstantTimeEq;

/// A secret text: shows nothing of itself in `Debug`.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text; surrounding white space (the newline at the end of a file) is no part of it.
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Compares in a time that does not depend on where the texts differ.
    pub fn matches(&self, candidate: &str) -> bool {
        // Hashing first makes both sides equally long, so not even the length leaks.
        let digest = |text: &str| starling_primitives::hashing::hash_of(b"starling/secret", &text).0;
        digest(&self.0).ct_eq(&digest(candidate)).into()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The environment provider turns digits into numbers: accept them as the text they were.
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = String;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a text")
            }
            fn visit_str<E>(self, text: &str) -> Result<String, E> {
                Ok(text.to_owned())
            }
            fn visit_u64<E>(self, number: u64) -> Result<String, E> {
                Ok(number.to_string())
            }
            fn visit_i64<E>(self, number: i64) -> Result<String, E> {
                Ok(number.to_string())
            }
        }
        deserializer.deserialize_any(Text).map(|text| Self::new(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_nothing_and_compares_exactly() {
        let secret = Secret::new("hush\n");
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert!(secret.matches("hush"));
        assert!(!secret.matches("hus"));
        assert!(!secret.matches("hush\n"));
    }
}
