//! Migrations between runtime versions.

/// Applied, in this order, by the next upgrade. Each is versioned by its pallet, so that it runs once.
pub type Migrations = ();
