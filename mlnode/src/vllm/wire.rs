//! What the sampler inside of vLLM and the node say to each other, on a Unix socket.
//!
//! A frame is its length (u32) and as many bytes, numbers little-endian. The sampler speaks first: after its connection
//! once [`Message::Hello`], then questions, each answered before the next one comes.
//!
//! | frame | content |
//! |---|---|
//! | hello | 0, then JSON: [`Hello`] |
//! | ask | 1, count (u32), then for each row: key (u64), position (u32) |
//! | its answer | for each row: changes (u32 count; token u32 and f32 to be added to its logit each), the tokens that may come (u32 count of words of 32 tokens; none: any), tokens whose log-probabilities are wanted (u8 count, u32 each) |
//! | rows | 2, count (u32), then for each row: key, position, the most probable tokens (u8 count, u32 each, f32 log-probability each), those asked for (u8 count, f32 each) |
//! | its answer | for each row the token (u32), or [`UNKNOWN`] |

use crate::distribution::Distribution;
use serde::Deserialize;
use std::io::{self, Read};

/// Version of all this, as in [`Hello::protocol`].
pub(super) const PROTOCOL: u32 = 1;
/// In place of a token: the node does not know this request (any more).
pub(super) const UNKNOWN: u32 = u32::MAX;
/// Bytes of a frame at most: a thousand rows take a quarter of a megabyte.
const MAX_FRAME: u32 = 16 << 20;

/// What the sampler says of the server that it runs in.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Hello {
    /// [`PROTOCOL`].
    pub(super) protocol: u32,
    /// The model's folder.
    pub(super) model: String,
    /// What is computed with: `float32`, `bfloat16` or `float16`.
    pub(super) dtype: String,
    /// Name of the weights' quantisation.
    pub(super) quantization: Option<String>,
    /// Tokens of a sequence at most.
    pub(super) max_model_len: u32,
    /// Log-probabilities of a token that a request may ask for.
    pub(super) max_logprobs: i64,
    /// Number of logits.
    pub(super) vocab_size: u32,
}

/// A position in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The request.
    pub(super) key: u64,
    /// Tokens that were drawn before.
    pub(super) position: u32,
}

/// What the sampler says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Message {
    /// The beginning.
    Hello(Hello),
    /// What is to be done with the logits of these rows?
    Ask(Vec<Place>),
    /// Which tokens are drawn?
    Rows(Vec<(Place, Distribution)>),
}

impl Message {
    /// Reads the next one; `None` when the sampler is gone.
    pub(super) fn read(stream: &mut impl Read) -> io::Result<Option<Self>> {
        let mut length = [0; 4];
        match stream.read_exact(&mut length) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let length = u32::from_le_bytes(length);
        if length > MAX_FRAME {
            return Err(bad("the frame is too long"));
        }
        let mut bytes = vec![0; length as usize];
        stream.read_exact(&mut bytes)?;
        Self::parse(&bytes).map(Some)
    }

    fn parse(bytes: &[u8]) -> io::Result<Self> {
        let mut rest = Bytes(bytes);
        let message = match rest.byte()? {
            0 => return serde_json::from_slice(rest.0).map(Self::Hello).map_err(io::Error::from),
            1 => Self::Ask(rest.list(Bytes::place)?),
            2 => Self::Rows(rest.list(Bytes::row)?),
            _ => return Err(bad("the kind of frame is unknown")),
        };
        if rest.0.is_empty() {
            Ok(message)
        } else {
            Err(bad("the frame is longer than its content"))
        }
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What is left of a frame.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk().ok_or_else(|| bad("the frame ends too early"))?;
        self.0 = rest;
        Ok(*first)
    }

    fn byte(&mut self) -> io::Result<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn number(&mut self) -> io::Result<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn float(&mut self) -> io::Result<f32> {
        self.take().map(f32::from_le_bytes)
    }

    fn list<T>(&mut self, one: impl Fn(&mut Self) -> io::Result<T>) -> io::Result<Vec<T>> {
        let count = self.number()?;
        // Its length is known when it is read: a count says nothing about it.
        (0..count).map(|_| one(self)).collect()
    }

    fn place(&mut self) -> io::Result<Place> {
        Ok(Place { key: self.take().map(u64::from_le_bytes)?, position: self.number()? })
    }

    fn row(&mut self) -> io::Result<(Place, Distribution)> {
        let place = self.place()?;
        let count = self.byte()?;
        let tokens = (0..count).map(|_| self.number()).collect::<io::Result<Vec<_>>>()?;
        let log_probs = (0..count).map(|_| self.float()).collect::<io::Result<Vec<_>>>()?;
        let asked = self.byte()?;
        let asked = (0..asked).map(|_| self.float()).collect::<io::Result<_>>()?;
        Ok((place, Distribution { top: tokens.into_iter().zip(log_probs).collect(), asked }))
    }
}

/// An answer on its way to the sampler.
#[derive(Debug)]
pub(super) struct Answer(Vec<u8>);

impl Answer {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self(vec![0; 4])
    }

    /// What is to be done with a row's logits.
    pub(super) fn push_preparation(&mut self, changes: &[(u32, f32)], allowed: &[u32], asked: &[u32]) {
        self.push(changes.len() as u32);
        for (token, add) in changes {
            self.push(*token);
            self.0.extend(add.to_le_bytes());
        }
        self.push(allowed.len() as u32);
        allowed.iter().for_each(|word| self.push(*word));
        // A record has at most MAX_K candidates.
        self.0.push(asked.len() as u8);
        asked.iter().for_each(|token| self.push(*token));
    }

    /// A number; of a row, its token.
    pub(super) fn push(&mut self, number: u32) {
        self.0.extend(number.to_le_bytes());
    }

    /// The whole frame.
    pub(super) fn into_frame(mut self) -> Vec<u8> {
        let length = (self.0.len() - 4) as u32;
        if let Some(head) = self.0.first_chunk_mut() {
            *head = length.to_le_bytes();
        }
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(content: &[u8]) -> Vec<u8> {
        [&(content.len() as u32).to_le_bytes(), content].concat()
    }

    fn check(content: &[u8], expected: Option<Message>) {
        let read = Message::read(&mut frame(content).as_slice());
        match expected {
            Some(message) => assert_eq!(read.unwrap(), Some(message)),
            None => assert!(read.is_err(), "{read:?}"),
        }
    }

    #[test]
    fn frames_are_read() {
        assert_eq!(Message::read(&mut [].as_slice()).unwrap(), None);
        let hello = br#"{"protocol": 1, "model": "m", "dtype": "float32", "quantization": null,
            "max_model_len": 9, "max_logprobs": 20, "vocab_size": 7}"#;
        check(
            &[b"\0".as_slice(), hello].concat(),
            Some(Message::Hello(Hello {
                protocol: PROTOCOL,
                model: "m".into(),
                dtype: "float32".into(),
                quantization: None,
                max_model_len: 9,
                max_logprobs: 20,
                vocab_size: 7,
            })),
        );
        let place = [5u64.to_le_bytes().as_slice(), &3u32.to_le_bytes()].concat();
        let ask = [&[1, 1, 0, 0, 0], place.as_slice()].concat();
        check(&ask, Some(Message::Ask(vec![Place { key: 5, position: 3 }])));
        let row =
            [&[2, 1, 0, 0, 0], place.as_slice(), &[1, 9, 0, 0, 0], &(-0.5f32).to_le_bytes(), &[0]].concat();
        let distribution = Distribution { top: vec![(9, -0.5)], asked: vec![] };
        check(&row, Some(Message::Rows(vec![(Place { key: 5, position: 3 }, distribution)])));
    }

    #[test]
    fn bad_frames_are_refused() {
        check(&[], None);
        check(&[9], None);
        check(&[0, b'{'], None);
        // More rows than there is room for, and more bytes than rows.
        check(&[1, 255, 255, 255, 255], None);
        check(&[1, 0, 0, 0, 0, 0], None);
        assert!(Message::read(&mut [255u8; 8].as_slice()).is_err());
        assert!(Message::read(&mut [8, 0, 0, 0, 1].as_slice()).is_err());
    }

    #[test]
    fn answers_begin_with_their_length() {
        let mut answer = Answer::new();
        answer.push_preparation(&[(1, 2.0)], &[3], &[4]);
        let words = [29u32, 1, 1, 2.0f32.to_bits(), 1, 3];
        let expected: Vec<u8> =
            words.iter().flat_map(|word| word.to_le_bytes()).chain([1, 4, 0, 0, 0]).collect();
        let mut frame = answer.into_frame();
        // The length does not count itself.
        assert_eq!(frame.len(), expected.len());
        assert_eq!(u32::from_le_bytes(frame[..4].try_into().unwrap()) as usize, frame.len() - 4);
        frame[..4].copy_from_slice(&29u32.to_le_bytes());
        assert_eq!(frame, expected);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::read(&mut frame(&bytes).as_slice());
            let _ = Message::read(&mut bytes.as_slice());
        }
    }
}
