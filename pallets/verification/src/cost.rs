//! What batches and steps cost: the measured weights of their parts.

use crate::{
    types::{MAX_ACCUSERS, MAX_PANEL},
    weights::WeightInfo,
    Config,
};
use frame_support::{traits::Get, weights::Weight};
use starling_primitives::transcript::WINDOW_TOKENS;

/// What `items` cost beyond what any call does.
fn more(weight: fn(u32) -> Weight, items: u32) -> Weight {
    weight(items).saturating_sub(weight(0))
}

/// What a batch of verdicts came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Verdicts taken.
    pub taken: u32,
    /// Verdicts refused.
    pub refused: u32,
    /// Of those taken, the ones that opened or settled a dispute, or accused.
    pub dearer: u32,
    /// Different pairs of epoch and profile: lists of hosts that may judge.
    pub juries: u32,
}

impl Shape {
    /// The dearest that a batch of `items` can come to.
    pub fn worst(items: u32) -> Self {
        Self { taken: items, refused: 0, dearer: items, juries: items }
    }
}

/// What further lists of hosts add.
fn juries<T: Config>(count: u32) -> Weight {
    more(T::WeightInfo::submit_profiles, count.saturating_sub(1))
}

/// What a verdict that accuses, when everybody else does, adds to one that does not.
fn accusation<T: Config>() -> Weight {
    T::WeightInfo::accuse(MAX_ACCUSERS).saturating_sub(T::WeightInfo::submit_verdicts(1))
}

/// `submit_verdicts`. What is refused costs the fee rule's look, too, which ends at the first that is taken; rule and call both
/// load the lists of hosts. What opens a dispute or accuses costs what the dearer of the two does.
pub fn submit_verdicts<T: Config>(shape: Shape) -> Weight {
    let dearer = more(T::WeightInfo::submit_failing, 1).max(accusation::<T>());
    T::WeightInfo::submit_verdicts(shape.taken)
        .saturating_add(more(T::WeightInfo::submit_refused, shape.refused))
        .saturating_add(dearer.saturating_mul(shape.dearer.into()))
        .saturating_add(juries::<T>(shape.juries).saturating_mul(2))
}

/// `commit_verdicts`: all taken, after the fee rule has looked at all.
pub fn commit_verdicts<T: Config>(items: u32) -> Weight {
    T::WeightInfo::commit_verdicts(items).saturating_add(more(T::WeightInfo::commit_refused, items))
}

/// `reveal_verdicts`, of which some decided or accused: all taken, after the fee rule has looked at all. Both load the lists
/// of hosts.
pub fn reveal_verdicts<T: Config>(shape: Shape) -> Weight {
    let items = shape.taken.saturating_add(shape.refused);
    let decided =
        more(T::WeightInfo::reveal_deciding, 1).saturating_sub(more(T::WeightInfo::reveal_verdicts, 1));
    let dearer = decided.max(accusation::<T>());
    T::WeightInfo::reveal_verdicts(items)
        .saturating_add(more(T::WeightInfo::reveal_refused, items))
        .saturating_add(dearer.saturating_mul(shape.dearer.into()))
        .saturating_add(juries::<T>(shape.juries).saturating_mul(2))
}

/// `prove_fraud` with the longest window.
pub fn prove_fraud<T: Config>() -> Weight {
    T::WeightInfo::prove_fraud(WINDOW_TOKENS as u32)
}

/// `reveal_plant` of an answer that so many hosts could have approved.
pub fn reveal_plant<T: Config>(hosts: u32) -> Weight {
    T::WeightInfo::reveal_plant(hosts)
}

/// What a block did of its agenda.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgendaWork {
    /// Disputes that were looked at.
    pub disputes: u32,
    /// Seats that were drawn.
    pub drawn: u32,
    /// Seats of panels that were over.
    pub closed: u32,
    /// Hosts that had approved a plant.
    pub approvers: u32,
}

/// What working off the agenda costs. Each dispute costs what ending it without a panel does. To draw from a full network, a
/// first panel costs what the larger one does, and others in proportion to their seats; to close a panel costs by its seats.
pub fn agenda<T: Config>(done: AgendaWork) -> Weight {
    let seats = |panels: fn(u32) -> Weight, seats: u32, size: u32| {
        more(panels, 1).saturating_mul(seats.into()).saturating_div(size.clamp(1, MAX_PANEL).into())
    };
    T::WeightInfo::agenda(done.disputes)
        .saturating_add(seats(T::WeightInfo::draw_panels, done.drawn, T::FirstPanel::get()))
        .saturating_add(seats(T::WeightInfo::close_panels, done.closed, T::SecondPanel::get()))
        .saturating_add(more(T::WeightInfo::release_approvers, done.approvers))
}
