//! Feed-forward layers of many experts, of which each row uses a few.
//!
//! A router gives every row a probability for each expert; the most probable are used, and what they say is added up by
//! those probabilities. Rows of a step are grouped by expert, so that an expert's weights are read once per step. What a
//! row gets does not depend on the other rows: its experts are found from its own numbers alone, each product is the same
//! with any rows beside it, and its experts are added up in the order of their indices.

use super::{
    config::Experts,
    feed_forward::{Gated, GatedScratch},
    weights::Weights,
    ModelError,
};
use crate::kernel::{Group, Matrix, Pool, RowBuffer, Vector};
use std::ops::Range;

/// The experts of a layer.
#[derive(Debug)]
pub(super) struct Mixture {
    router: Matrix,
    experts: Vec<Gated>,
    per_token: usize,
    normalised: bool,
}

/// Activations, kept so that no step allocates them.
#[derive(Debug)]
pub(super) struct MixtureScratch {
    /// Probabilities of the experts, a row for each row of the step.
    shares: RowBuffer,
    routes: Routes,
    /// The rest has a row for each use of an expert, in the order of [`Routes::uses`].
    picked: RowBuffer,
    inner: GatedScratch,
    found: RowBuffer,
}

/// Which rows use which experts.
#[derive(Debug, Default)]
struct Routes {
    /// By expert, then by row.
    uses: Vec<Use>,
    /// Experts that are used, with their places among the uses.
    groups: Vec<(usize, Range<usize>)>,
    /// For each row so many places among the uses as a token has experts, the experts ascending.
    places: Vec<usize>,
}

/// One row uses one expert.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Use {
    expert: usize,
    row: usize,
    /// The share of what the expert says.
    share: f32,
}

impl MixtureScratch {
    pub(super) fn new(hidden: u32, experts: &Experts) -> Self {
        let rows = |width: u32| RowBuffer::new(width as usize);
        Self {
            shares: rows(experts.count),
            routes: Routes::default(),
            picked: rows(hidden),
            inner: GatedScratch::new(experts.intermediate_size),
            found: rows(hidden),
        }
    }
}

impl Mixture {
    /// Reads a tensor for each expert and projection, as Qwen publishes them, or two with all experts, as transformers 5
    /// has them in memory and may write them.
    pub(super) fn load(
        name: &str,
        hidden: u32,
        experts: &Experts,
        weights: &mut Weights,
    ) -> Result<Self, ModelError> {
        let (count, inner) = (experts.count, experts.intermediate_size);
        let router = weights.matrix(&[(format!("{name}.gate.weight"), count)], hidden)?;
        let fused = format!("{name}.experts.gate_up_proj");
        let list = if weights.has(&fused) {
            let gate_up = weights.stack(&fused, count, 2 * inner, hidden)?;
            let down = weights.stack(&format!("{name}.experts.down_proj"), count, hidden, inner)?;
            gate_up.into_iter().zip(down).map(|(gate_up, down)| Gated { gate_up, down }).collect()
        } else {
            let load = |i| Gated::load(&format!("{name}.experts.{i}"), hidden, inner, weights);
            (0..count).map(load).collect::<Result<_, _>>()?
        };
        let per_token = experts.per_token as usize;
        Ok(Self { router, experts: list, per_token, normalised: experts.normalised })
    }

    pub(super) fn run(&self, pool: &Pool, x: &RowBuffer, s: &mut MixtureScratch, out: &mut RowBuffer) {
        let vector = Vector::new(pool.isa());
        self.router.product(pool, x, &mut s.shares);
        s.shares.for_each(pool, |_, shares| vector.soft_max(shares, shares.len(), 1.0));
        s.routes.find(&s.shares, self.per_token, self.normalised);
        let routes = &s.routes;

        s.picked.resize(routes.uses.len());
        s.picked.for_each(pool, |place, picked| {
            if let Some(one) = routes.uses.get(place) {
                picked.copy_from_slice(x.row(one.row));
            }
        });
        Matrix::products(pool, &self.groups(routes, |e| &e.gate_up), &s.picked, &mut s.inner.gate_up);
        s.inner.gate(pool);
        Matrix::products(pool, &self.groups(routes, |e| &e.down), &s.inner.gated, &mut s.found);

        let found = &s.found;
        out.resize(x.rows());
        out.for_each(pool, |row, sum| {
            sum.fill(0.0);
            let places = routes.places.chunks_exact(self.per_token).nth(row).unwrap_or_default();
            for one in places.iter().filter_map(|place| Some((*place, routes.uses.get(*place)?))) {
                vector.add_scaled(sum, found.row(one.0), one.1.share);
            }
        });
    }

    fn groups(&self, routes: &Routes, matrix: impl Fn(&Gated) -> &Matrix) -> Vec<Group<'_>> {
        let group = |(expert, rows): &(usize, Range<usize>)| {
            Some(Group { matrix: matrix(self.experts.get(*expert)?), rows: rows.clone() })
        };
        routes.groups.iter().filter_map(group).collect()
    }

    /// Bytes of all its weights.
    pub(super) fn bytes(&self) -> usize {
        self.router.bytes() + self.experts.iter().map(Gated::bytes).sum::<usize>()
    }

    /// Bytes of weights that a step of one token reads.
    pub(super) fn step_bytes(&self) -> usize {
        let experts: usize = self.experts.iter().take(self.per_token).map(Gated::bytes).sum();
        self.router.bytes() + experts
    }

    /// Weights that a token does not meet.
    pub(super) fn idle_parameters(&self) -> u64 {
        self.experts.iter().skip(self.per_token).map(Gated::parameters).sum()
    }
}

impl Routes {
    /// Sends every row to the experts of its `per_token` largest shares; of equal ones the lower index is taken. With
    /// `normalised` they are divided by their sum, added up from the largest on.
    fn find(&mut self, shares: &RowBuffer, per_token: usize, normalised: bool) {
        self.uses.clear();
        let mut order: Vec<usize> = Vec::with_capacity(shares.width());
        for row in 0..shares.rows() {
            let shares = shares.row(row);
            let share = |expert: usize| shares.get(expert).copied().unwrap_or(0.0);
            order.clear();
            order.extend(0..shares.len());
            // What is no number is no larger than anything else: the logits will be none, which is noticed there.
            let larger = |a: &usize, b: &usize| share(*b).total_cmp(&share(*a)).then(a.cmp(b));
            if per_token < order.len() {
                order.select_nth_unstable_by(per_token, larger);
                order.truncate(per_token);
            }
            order.sort_unstable_by(larger);
            let sum =
                if normalised { order.iter().fold(0.0, |sum, expert| sum + share(*expert)) } else { 1.0 };
            self.uses.extend(order.iter().map(|e| Use { expert: *e, row, share: share(*e) / sum }));
        }
        self.uses.sort_unstable_by_key(|one| (one.expert, one.row));
        self.group(shares.rows(), per_token);
    }

    fn group(&mut self, rows: usize, per_token: usize) {
        self.groups.clear();
        self.places.clear();
        self.places.resize(rows * per_token, 0);
        let mut filled = vec![0; rows];
        for (place, one) in self.uses.iter().enumerate() {
            match self.groups.last_mut() {
                Some((expert, range)) if *expert == one.expert => range.end = place + 1,
                _ => self.groups.push((one.expert, place..place + 1)),
            }
            if let Some(filled) = filled.get_mut(one.row) {
                if let Some(slot) = self.places.get_mut(one.row * per_token + *filled) {
                    *slot = place;
                }
                *filled += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn buffer(rows: &[Vec<f32>]) -> RowBuffer {
        let mut buffer = RowBuffer::new(rows.first().map_or(0, Vec::len));
        buffer.resize(rows.len());
        for (place, row) in rows.iter().enumerate() {
            buffer.row_mut(place).copy_from_slice(row);
        }
        buffer
    }

    #[test]
    fn of_equal_shares_the_lower_index_is_taken() {
        let mut routes = Routes::default();
        routes.find(&buffer(&[vec![0.1, 0.3, 0.3, 0.3], vec![0.25; 4]]), 2, true);
        let half = |expert, row| Use { expert, row, share: 0.5 };
        assert_eq!(routes.uses, [half(0, 1), half(1, 0), half(1, 1), half(2, 0)]);
        assert_eq!(routes.groups, [(0, 0..1), (1, 1..3), (2, 3..4)]);
        assert_eq!(routes.places, [1, 3, 0, 2]);
        routes.find(&buffer(&[vec![0.5, 0.2, 0.3]]), 3, false);
        assert_eq!(routes.uses.iter().map(|one| one.share).collect::<Vec<_>>(), [0.5, 0.2, 0.3]);
    }

    #[test]
    fn what_is_no_number_still_has_a_place() {
        let mut routes = Routes::default();
        routes.find(&buffer(&[vec![f32::NAN; 4], vec![0.4, f32::NAN, 0.3, 0.3]]), 2, true);
        assert_eq!(routes.uses.len(), 4);
    }

    proptest! {
        #[test]
        fn a_row_goes_where_it_goes_alone(
            rows in proptest::collection::vec(proptest::collection::vec(0u8..6, 7), 1..20),
            per_token in 1usize..8,
            normalised: bool,
        ) {
            let rows: Vec<Vec<f32>> =
                rows.into_iter().map(|row| row.into_iter().map(|x| f32::from(x) / 8.0 + 0.01).collect()).collect();
            let (mut all, mut alone) = (Routes::default(), Routes::default());
            all.find(&buffer(&rows), per_token, normalised);
            let uses: usize = all.groups.iter().map(|(_, range)| range.len()).sum();
            prop_assert_eq!(uses, rows.len() * per_token);
            for (row, places) in all.places.chunks(per_token).enumerate() {
                alone.find(&buffer(&rows[row..=row]), per_token, normalised);
                let found: Vec<Use> = places.iter().map(|p| Use { row: 0, ..all.uses[*p] }).collect();
                prop_assert_eq!(&found, &alone.uses);
                prop_assert!(found.is_sorted_by(|a, b| a.expert < b.expert));
                // No expert that was left out has a larger share.
                let least = found.iter().map(|one| rows[row][one.expert]).fold(f32::MAX, f32::min);
                let left_out = (0..7).filter(|e| found.iter().all(|one| one.expert != *e));
                for expert in left_out {
                    let (share, lower) = (rows[row][expert], found.iter().any(|one| one.expert > expert));
                    prop_assert!(share < least || share == least && !(lower && rows[row][expert] > least));
                }
            }
        }
    }
}
