//! Why the chain did not answer, or refused.

/// A read failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// The connection to the node is down; it is being made again.
    #[error("the node at {url} cannot be reached: {reason}")]
    Disconnected {
        /// Where the node should be.
        url: String,
        /// What the transport says.
        reason: String,
    },
    /// The node answered with an error.
    #[error("the node refused {what}: {reason}")]
    Refused {
        /// What was asked.
        what: String,
        /// What the node says.
        reason: String,
    },
    /// The runtime does not have what this program was built against.
    #[error("the runtime is not compatible: {0}")]
    Incompatible(String),
    /// Bytes that do not decode.
    #[error("cannot decode {what}: {reason}")]
    Decode {
        /// What was read.
        what: String,
        /// Why.
        reason: String,
    },
    /// No block has been seen yet.
    #[error("no block has been seen yet")]
    NoBlock,
}

impl ChainError {
    /// Whether the same question may be answered a little later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Disconnected { .. } | Self::NoBlock | Self::Refused { .. })
    }

    pub(crate) fn decode(what: impl Into<String>, reason: impl ToString) -> Self {
        Self::Decode { what: what.into(), reason: reason.to_string() }
    }
}

/// A transaction was not taken.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The pool holds this very transaction already.
    #[error("already in the pool")]
    AlreadyKnown,
    /// The nonce is used up, or too far ahead for the pool.
    #[error("the nonce does not fit: {0}")]
    Nonce(String),
    /// The pool does not take it now: not owed, not affordable, pool full.
    #[error("the pool refused it: {0}")]
    Invalid(String),
    /// The chain could not be asked.
    #[error(transparent)]
    Chain(#[from] ChainError),
}
