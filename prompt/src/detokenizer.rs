//! Tokens to text while they arrive.

use crate::Tokenizer;

/// Turns tokens into text one by one. A character spread over several tokens is held back until it is whole; the
/// pieces joined are exactly [`Tokenizer::decode`] of all tokens.
#[derive(Debug)]
pub struct Detokenizer<'a> {
    tokenizer: &'a Tokenizer,
    /// Byte-level vocabularies: bytes of a character that is not whole yet (at most three).
    bytes: Vec<u8>,
    /// Other vocabularies: the tokens that the next text depends on.
    window: Vec<u32>,
    /// How many of `window` were already turned into text.
    shown: usize,
}

/// Tokens that an incomplete character may span before it counts as broken: it lacks at most three bytes, and each
/// token brings at least one.
const MAX_HELD_TOKENS: usize = 4;

impl<'a> Detokenizer<'a> {
    /// At the start of a text.
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, bytes: Vec::new(), window: Vec::new(), shown: 0 }
    }

    /// The text that this token completes; may be empty.
    pub fn push(&mut self, token: u32) -> String {
        if self.tokenizer.is_byte_level() {
            self.bytes.extend(self.tokenizer.bytes_of(token).unwrap_or_default());
            return take_utf8(&mut self.bytes);
        }
        if !self.tokenizer.adds_text(token) {
            return String::new();
        }
        self.window.push(token);
        self.advance(self.window.len().saturating_sub(self.shown) < MAX_HELD_TOKENS)
    }

    /// What is still held back, at the end of the text.
    pub fn finish(&mut self) -> String {
        if self.tokenizer.is_byte_level() {
            return String::from_utf8_lossy(&std::mem::take(&mut self.bytes)).into_owned();
        }
        self.advance(false)
    }

    /// Decodes the window with and without its new tokens; the difference is the new text.
    fn advance(&mut self, hold_incomplete: bool) -> String {
        let before = self.tokenizer.decode(self.window.get(..self.shown).unwrap_or_default());
        let after = self.tokenizer.decode(&self.window);
        let Some(new) = after.strip_prefix(before.as_str()).filter(|new| !new.is_empty()) else {
            return String::new();
        };
        if hold_incomplete && new.ends_with(char::REPLACEMENT_CHARACTER) {
            return String::new();
        }
        let new = new.to_owned();
        self.window.drain(..self.shown);
        self.shown = self.window.len();
        new
    }
}

/// Takes all whole characters from the front; what can never become one is replaced as `from_utf8_lossy` does.
fn take_utf8(bytes: &mut Vec<u8>) -> String {
    let incomplete = match std::str::from_utf8(bytes) {
        Ok(_) => 0,
        Err(_) => incomplete_suffix(bytes),
    };
    let rest = bytes.split_off(bytes.len() - incomplete);
    let text = String::from_utf8_lossy(bytes).into_owned();
    *bytes = rest;
    text
}

/// Length of the longest suffix that is the beginning of a character whose end is missing.
fn incomplete_suffix(bytes: &[u8]) -> usize {
    (1..=bytes.len().min(3))
        .find(|n| {
            let suffix = bytes.get(bytes.len() - n..).unwrap_or_default();
            matches!(std::str::from_utf8(suffix), Err(e) if e.valid_up_to() == 0 && e.error_len().is_none())
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support;
    use proptest::prelude::*;

    fn pieces(tokenizer: &Tokenizer, tokens: &[u32]) -> Vec<String> {
        let mut detokenizer = Detokenizer::new(tokenizer);
        let mut out: Vec<_> = tokens.iter().map(|t| detokenizer.push(*t)).collect();
        out.push(detokenizer.finish());
        out
    }

    #[test]
    fn characters_come_whole() {
        let tokenizer = test_support::tokenizer();
        let tokens = tokenizer.encode("é🦀").unwrap();
        assert_eq!(pieces(&tokenizer, &tokens), ["", "é", "", "", "", "🦀", ""]);
        assert_eq!(pieces(&tokenizer, &tokens[..3]), ["", "é", "", "\u{FFFD}"]);
    }

    #[test]
    fn sentencepiece_vocabularies_work_too() {
        let tokenizer = test_support::sentencepiece_tokenizer();
        // "▁a", "▁b", the three bytes of "€", "▁a".
        let tokens = [3, 4, 0xE2 + 5, 0x82 + 5, 0xAC + 5, 3];
        let pieces = pieces(&tokenizer, &tokens);
        assert_eq!(pieces.concat(), "a b€ a");
        assert!(pieces.iter().all(|p| !p.contains(char::REPLACEMENT_CHARACTER)));
    }

    #[test]
    fn broken_bytes_do_not_hold_the_text_back_for_ever() {
        let tokenizer = test_support::sentencepiece_tokenizer();
        let pieces = pieces(&tokenizer, &[0xFF + 5; 20]);
        assert!(pieces[..8].concat().contains(char::REPLACEMENT_CHARACTER));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn pieces_join_to_the_whole(tokens in proptest::collection::vec(0u32..262, 0..40)) {
            let tokenizer = test_support::tokenizer();
            prop_assert_eq!(pieces(&tokenizer, &tokens).concat(), tokenizer.decode(&tokens));
        }

        #[test]
        fn whole_text_is_never_split(text in any::<String>()) {
            let tokenizer = test_support::tokenizer();
            let pieces = pieces(&tokenizer, &tokenizer.encode(&text).unwrap());
            prop_assert_eq!(pieces.concat(), text.clone());
            let broken = |p: &String| p.contains(char::REPLACEMENT_CHARACTER);
            prop_assert!(text.contains(char::REPLACEMENT_CHARACTER) || !pieces.iter().any(broken));
        }
    }
}
