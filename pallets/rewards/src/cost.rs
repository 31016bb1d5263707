//! Bounds that weights depend on.

/// Samples of a claim that any schedule can ask for.
pub const MAX_CLAIM_SAMPLES: u32 = 1_000;
