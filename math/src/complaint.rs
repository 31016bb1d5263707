//! Whose complaints about answers are heard.
//!
//! A complaint (a verdict beyond the limits) makes a panel work, and whoever makes one that the panel rejects loses nothing else by
//! it: its executor may have served it other bytes than the panel. So it is the next complaints that a rejected one costs. A host
//! is believed a little beforehand, and as much more as it proves right.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;
use starling_primitives::verdict::Outcome;

/// Complaints that a host can have before panels at once until one is upheld; each that was upheld allows as many more.
pub const OPEN_AT_ONCE: u32 = 4;
/// Complaints that panels have rejected, beyond those upheld, after which a host is not heard any more.
pub const REJECTED_AT_MOST: u32 = 2;

/// What a complaint says. The two are counted apart: an executor that keeps a transcript from one verifier and shows it to the
/// panel has the complaint rejected, and must not silence that verifier on what it does get to see.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Encode,
    Decode,
    DecodeWithMemTracking,
    MaxEncodedLen,
    TypeInfo,
)]
pub enum Ground {
    /// The answer is not the model's.
    Answer,
    /// Its transcript is not to be had.
    Availability,
}

impl Ground {
    /// The ground of a complaint by this verdict.
    pub fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Unavailable => Self::Availability,
            Outcome::Measured(_) | Outcome::ReplayFailed => Self::Answer,
        }
    }
}

/// The complaints of one host in an epoch, on one ground.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Complaints {
    /// Not decided yet.
    pub open: u32,
    /// The answer fell.
    pub upheld: u32,
    /// A panel's majority found the answer good.
    pub rejected: u32,
}

/// What became of a complaint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The answer fell: by a panel, by a proof, or as a plant.
    Upheld,
    /// A panel's majority found the answer good.
    Rejected,
    /// No majority, or nobody to judge.
    None,
}

/// Whether a complaint is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hearing {
    /// A panel will judge.
    Now,
    /// When earlier ones are decided.
    Later,
    /// Not in this epoch: the verdict opens no dispute.
    Never,
}

impl Complaints {
    /// Whether one more is heard.
    pub fn hearing(&self) -> Hearing {
        let allowed = self.upheld.saturating_add(1).saturating_mul(OPEN_AT_ONCE);
        if self.rejected >= self.upheld.saturating_add(REJECTED_AT_MOST) {
            Hearing::Never
        } else if self.open >= allowed {
            Hearing::Later
        } else {
            Hearing::Now
        }
    }

    /// One more is heard.
    pub fn opened(self) -> Self {
        Self { open: self.open.saturating_add(1), ..self }
    }

    /// One of the open ones is decided.
    pub fn decided(self, decision: Decision) -> Self {
        let open = self.open.saturating_sub(1);
        let one_more = |wanted| u32::from(decision == wanted);
        Self {
            open,
            upheld: self.upheld.saturating_add(one_more(Decision::Upheld)),
            rejected: self.rejected.saturating_add(one_more(Decision::Rejected)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use starling_primitives::verdict::Figures;

    fn complaints(open: u32, upheld: u32, rejected: u32) -> Complaints {
        Complaints { open, upheld, rejected }
    }

    #[test]
    fn who_was_right_is_heard_more_often() {
        for (complaints, expected) in [
            (complaints(0, 0, 0), Hearing::Now),
            (complaints(3, 0, 1), Hearing::Now),
            (complaints(4, 0, 0), Hearing::Later),
            (complaints(7, 1, 2), Hearing::Now),
            (complaints(8, 1, 2), Hearing::Later),
            (complaints(0, 0, 2), Hearing::Never),
            (complaints(9, 3, 5), Hearing::Never),
            (complaints(u32::MAX, u32::MAX, u32::MAX - 1), Hearing::Later),
        ] {
            assert_eq!(complaints.hearing(), expected, "{complaints:?}");
        }
    }

    #[test]
    fn a_transcript_that_is_not_to_be_had_is_another_ground() {
        assert_eq!(Ground::of(&Outcome::Unavailable), Ground::Availability);
        assert_eq!(Ground::of(&Outcome::ReplayFailed), Ground::Answer);
        assert_eq!(Ground::of(&Outcome::Measured(Figures::default())), Ground::Answer);
    }

    proptest! {
        /// However complaints and decisions follow each other: panels reject at most this many of a liar's, beyond those upheld.
        #[test]
        fn liars_make_few_panels_work(steps in prop::collection::vec(any::<bool>(), 0..200)) {
            let mut complaints = Complaints::default();
            let mut heard = 0;
            for complains in steps {
                if complains && complaints.hearing() == Hearing::Now {
                    complaints = complaints.opened();
                    heard += 1;
                } else if !complains && complaints.open > 0 {
                    complaints = complaints.decided(Decision::Rejected);
                }
            }
            prop_assert!(heard < REJECTED_AT_MOST + OPEN_AT_ONCE);
        }

        /// Whoever is right waits for decisions, and is never refused for good.
        #[test]
        fn whoever_is_right_is_heard(steps in prop::collection::vec((any::<bool>(), any::<bool>()), 0..200)) {
            let mut complaints = Complaints::default();
            for (complains, decided) in steps {
                if complains && complaints.hearing() == Hearing::Now {
                    complaints = complaints.opened();
                } else if complaints.open > 0 {
                    complaints = complaints.decided(if decided { Decision::Upheld } else { Decision::None });
                }
                prop_assert_ne!(complaints.hearing(), Hearing::Never);
                prop_assert!(complaints.hearing() == Hearing::Now || complaints.open > 0);
            }
        }
    }
}
