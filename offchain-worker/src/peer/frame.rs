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
    use futures::io::Cursor;
    use proptest::prelude::*;

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

        #[test]
        fn never_panics_on_remote_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut input = Cursor::new(bytes);
            let _ = block(read::<_, Vec<(u32, Option<String>)>>(&mut input, 256));
        }
    }
}
