//! Frames: a big-endian `u32` length, then SCALE. Every read names the most it accepts.

use codec::{Decode, Encode};
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Why a frame cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The other side closed the stream between two frames.
    #[error("the peer closed the stream")]
    Closed,
    /// The stream broke.
    #[error("the stream broke")]
    Io(#[source] std::io::Error),
    /// A frame longer than this exchange allows.
    #[error("a frame of {length} bytes exceeds the limit of {limit}")]
    TooLong {
        /// What it announced.
        length: u64,
        /// What is allowed.
        limit: u32,
    },
    /// The bytes are no message of this protocol.
    #[error("a frame does not decode")]
    Malformed(#[source] codec::Error),
}

/// Writes one message and flushes it.
pub async fn write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    message: &impl Encode,
    limit: u32,
) -> Result<(), FrameError> {
    // One buffer and one write: a frame split in two costs a segment and a wake-up each.
    let mut bytes = vec![0_u8; 4];
    message.encode_to(&mut bytes);
    let length = bytes.len().saturating_sub(4);
    let prefix = u32::try_from(length)
        .ok()
        .filter(|length| *length <= limit)
        .ok_or(FrameError::TooLong { length: length as u64, limit })?;
    bytes[..4].copy_from_slice(&prefix.to_be_bytes());
    stream.write_all(&bytes).await.map_err(FrameError::Io)?;
    stream.flush().await.map_err(FrameError::Io)
}

/// Reads one message. The memory used never exceeds what really arrived, plus one chunk.
pub async fn read<S: AsyncRead + Unpin, T: Decode>(stream: &mut S, limit: u32) -> Result<T, FrameError> {
    let mut prefix = [0_u8; 4];
    match stream.read(&mut prefix[..1]).await {
        Ok(0) => return Err(FrameError::Closed),
        Ok(_) => stream.read_exact(&mut prefix[1..]).await.map_err(FrameError::Io)?,
        Err(error) => return Err(FrameError::Io(error)),
    }
    let length = u32::from_be_bytes(prefix);
    if length > limit {
        return Err(FrameError::TooLong { length: length.into(), limit });
    }
    let mut bytes = Vec::new();
    let read = stream.take(length.into()).read_to_end(&mut bytes).await.map_err(FrameError::Io)?;
    if read != length as usize {
        return Err(FrameError::Io(std::io::ErrorKind::UnexpectedEof.into()));
    }
    let mut input = bytes.as_slice();
    let message = T::decode(&mut input).map_err(FrameError::Malformed)?;
    if !input.is_empty() {
        return Err(FrameError::Malformed("bytes after the message".into()));
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::protocol::{
        ExecuteControl, ExecuteEvent, ExecuteRequest, Refusal, ServedTranscript, SprintLeaf, SprintQuery,
        TranscriptQuery,
    };
    use futures::io::Cursor;
    use proptest::prelude::*;
    use starling_primitives::{
        merkle::Proof,
        transcript::{Candidate, TokenRecord},
        H256,
    };

    fn block<T>(future: impl std::future::Future<Output = T>) -> T {
        futures::executor::block_on(future)
    }

    #[test]
    fn refuses_long_truncated_and_trailing() {
        let mut out = Vec::new();
        assert!(matches!(block(write(&mut out, &vec![0_u8; 64], 16)), Err(FrameError::TooLong { .. })));
        let mut long = Cursor::new(u32::MAX.to_be_bytes().to_vec());
        assert!(matches!(block(read::<_, u8>(&mut long, 16)), Err(FrameError::TooLong { .. })));
        let mut truncated = Cursor::new(vec![0, 0, 0, 4, 1, 2]);
        assert!(matches!(block(read::<_, u32>(&mut truncated, 16)), Err(FrameError::Io(_))));
        let mut trailing = Cursor::new(vec![0, 0, 0, 2, 1, 2]);
        assert!(matches!(block(read::<_, u8>(&mut trailing, 16)), Err(FrameError::Malformed(_))));
        let mut empty = Cursor::new(Vec::new());
        assert!(matches!(block(read::<_, u8>(&mut empty, 16)), Err(FrameError::Closed)));
    }

    proptest! {
        #[test]
        fn round_trips(messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..8)) {
            let mut wire = Vec::new();
            for message in &messages {
                block(write(&mut wire, message, 1 << 16)).unwrap();
            }
            let mut input = Cursor::new(wire);
            for message in &messages {
                prop_assert_eq!(&block(read::<_, Vec<u8>>(&mut input, 1 << 16)).unwrap(), message);
            }
            prop_assert!(matches!(block(read::<_, Vec<u8>>(&mut input, 16)), Err(FrameError::Closed)));
        }

        /// Every message that a peer sends, from any bytes: it is refused, or it has that one encoding.
        #[test]
        fn any_bytes_are_refused_or_come_back(
            bytes in proptest::collection::vec(prop_oneof![0u8..5, any::<u8>()], 0..400),
        ) {
            check_all(&bytes);
        }

        /// Frames of real messages that were damaged on their way.
        #[test]
        fn damaged_messages_are_refused_or_come_back(
            which: prop::sample::Index, at: prop::sample::Index, with: u8, cut: prop::sample::Index,
        ) {
            let messages = messages();
            let mut message = which.get(&messages).clone();
            check_all(&message);
            let at = at.index(message.len());
            message[at] = with;
            check_all(&message);
            message.truncate(cut.index(message.len() + 1));
            check_all(&message);
        }
    }

    fn check<T: Encode + Decode>(bytes: &[u8]) {
        let mut wire = (bytes.len() as u32).to_be_bytes().to_vec();
        wire.extend_from_slice(bytes);
        if let Ok(message) = block(read::<_, T>(&mut Cursor::new(wire), 1 << 16)) {
            assert_eq!(message.encode(), bytes);
        }
        // The same bytes without a length of their own.
        let _ = block(read::<_, T>(&mut Cursor::new(bytes.to_vec()), 1 << 16));
    }

    fn check_all(bytes: &[u8]) {
        check::<ExecuteRequest>(bytes);
        check::<ExecuteControl>(bytes);
        check::<ExecuteEvent>(bytes);
        check::<TranscriptQuery>(bytes);
        check::<Option<ServedTranscript>>(bytes);
        check::<SprintQuery>(bytes);
        check::<Vec<SprintLeaf>>(bytes);
    }

    /// One message of each kind that is not a single number.
    fn messages() -> Vec<Vec<u8>> {
        let record = TokenRecord { candidates: vec![Candidate { token: 3, q: 5 }], chosen: 0 };
        let transcript = vec![7; 60];
        vec![
            ExecuteEvent::Token { text: "ä".into(), record }.encode(),
            ExecuteEvent::Refused(Refusal::Busy { retry_after_s: 9 }).encode(),
            TranscriptQuery { request_id: H256::repeat_byte(1) }.encode(),
            Some(ServedTranscript {
                transcript: transcript.clone(),
                prompt_tokens: vec![1, 2],
                constraint: None,
                receipt: None,
            })
            .encode(),
            SprintQuery { epoch: 1, profile: 0, nonces: vec![1, 2, 3] }.encode(),
            vec![SprintLeaf { nonce: 1, transcript, proof: Proof { siblings: vec![H256::zero()] } }].encode(),
        ]
    }
}
