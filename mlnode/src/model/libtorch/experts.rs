//! Feed-forward layers of many experts, as [`super::super::experts`] defines them, by grouped products: rows are sorted by expert on
//! the device, so nothing waits for the host to know who uses what.

use super::{
    super::{config::Experts, weights::Weights, ModelError},
    layer::{elements, take, take_gated, Target},
    ops::{linear_f32, During},
};
use tch::{Kind, Tensor};

/// Bytes that the rows of a grouped product's operands are a multiple of.
const ROW_BYTES: u32 = 16;

/// The experts of a layer.
#[derive(Debug)]
pub(super) struct Mixture {
    router: Tensor,
    /// (experts, 2 width, hidden): gate and up projections of each, one below the other. The width is rounded up to what grouped
    /// products take, with weights of 0.
    gate_up: Tensor,
    /// (experts, hidden, width)
    down: Tensor,
    per_token: i64,
    normalised: bool,
    /// Of one expert, without those of 0.
    expert_weights: u64,
}

/// Which rows use which experts. A *use* is one row with one expert.
struct Routes {
    /// (rows, experts per token): shares of what they say, f32.
    shares: Tensor,
    /// The row of each use, the uses sorted by expert.
    rows: Tensor,
    /// For each row its uses' places in that order.
    places: Tensor,
    /// For each expert the number of uses of it and of those before it.
    ends: Tensor,
}

impl Mixture {
    /// See [`super::super::experts::Mixture::load`] for how they are stored.
    pub(super) fn load(
        name: &str,
        hidden: u32,
        experts: &Experts,
        weights: &mut Weights,
        target: Target,
    ) -> Result<Self, ModelError> {
        let (count, inner) = (experts.count, experts.intermediate_size);
        let aligned = ROW_BYTES / target.kind.elt_size_in_bytes() as u32;
        if !hidden.is_multiple_of(aligned) {
            let message = format!("a mixture {hidden} wide: libtorch takes multiples of {aligned}");
            return Err(ModelError::Unsupported(message));
        }
        let router = take(weights, &format!("{name}.gate.weight"), &[count, hidden], target)?;
        let fused = format!("{name}.experts.gate_up_proj");
        let (gate_up, down) = if weights.has(&fused) {
            let down = format!("{name}.experts.down_proj");
            (
                take(weights, &fused, &[count, 2 * inner, hidden], target)?,
                take(weights, &down, &[count, hidden, inner], target)?,
            )
        } else {
            let one = |i| take_gated(weights, &format!("{name}.experts.{i}"), [hidden, inner], target);
            let all = (0..count).map(one).collect::<Result<Vec<_>, _>>()?;
            let (gate_up, down): (Vec<_>, Vec<_>) = all.into_iter().unzip();
            let stack = |all: &[Tensor]| Tensor::f_stack(all, 0).during("stacking experts");
            (stack(&gate_up)?, stack(&down)?)
        };
        let missing = i64::from(inner.next_multiple_of(aligned) - inner);
        let [count, hidden, inner] = [count, hidden, inner].map(i64::from);
        let gate_up = gate_up
            .f_view([count, 2, inner, hidden])
            .and_then(|t| t.f_constant_pad_nd([0, 0, 0, missing]))
            .and_then(|t| t.f_view([count, 2 * (inner + missing), hidden]))
            .during("aligning experts")?;
        let down = down.f_constant_pad_nd([0, missing]).during("aligning experts")?;
        let expert_weights = 3 * (hidden * inner).unsigned_abs();
        let (per_token, normalised) = (i64::from(experts.per_token), experts.normalised);
        Ok(Self { router, gate_up, down, per_token, normalised, expert_weights })
    }

    /// What the experts say about each row, in the kind of the rows. `gate` makes of gate and up projections what the last
    /// product takes.
    pub(super) fn run(
        &self,
        x: &Tensor,
        gate: impl Fn(&Tensor) -> Result<Tensor, ModelError>,
    ) -> Result<Tensor, ModelError> {
        let routes = self.route(x)?;
        let picked = x.f_index_select(0, &routes.rows).during("picking rows")?;
        let gated = gate(&grouped(&picked, &self.gate_up, &routes.ends)?)?;
        let found = grouped(&gated, &self.down, &routes.ends)?;
        let shape = [-1, self.per_token, found.size().last().copied().unwrap_or_default()];
        let found = found
            .f_index_select(0, &routes.places)
            .and_then(|found| found.f_view(shape)?.f_to_kind(Kind::Float))
            .during("joining experts")?;
        let said = routes.shares.f_unsqueeze(1).and_then(|shares| shares.f_bmm(&found)?.f_squeeze_dim(1));
        said.and_then(|said| said.f_to_kind(x.kind())).during("joining experts")
    }

    /// Sends every row to the experts of its largest shares.
    fn route(&self, x: &Tensor) -> Result<Routes, ModelError> {
        let during = "routing";
        let shares = linear_f32(x, &self.router)?.f_softmax(-1, Kind::Float).during(during)?;
        let (mut shares, experts) = shares.f_topk(self.per_token, -1, true, true).during(during)?;
        if self.normalised {
            let sums = shares.f_sum_dim_intlist(-1, true, Kind::Float).during(during)?;
            shares = shares.f_div(&sums).during(during)?;
        }
        let uses = experts.f_view([-1]).during(during)?;
        let (sorted, order) = uses.f_sort_stable(true, 0, false).during(during)?;
        let rows = order.f_floor_divide_scalar(self.per_token).during(during)?;
        let places = order.f_argsort(0, false).during(during)?;
        let count = self.router.size().first().copied().unwrap_or_default();
        let ends = Tensor::f_arange(count, (Kind::Int64, x.device()))
            .and_then(|experts| experts.f_searchsorted(&sorted, true, true, "right", None::<&Tensor>))
            .during(during)?;
        Ok(Routes { shares, rows, places, ends })
    }

    /// Weights that a step of one token reads.
    pub(super) fn step_weights(&self) -> u64 {
        elements(&[&self.router]) + self.per_token.unsigned_abs() * self.expert_weights
    }

    /// Weights that a token does not meet.
    pub(super) fn idle_weights(&self) -> u64 {
        let count = self.gate_up.size().first().copied().unwrap_or_default();
        (count - self.per_token).unsigned_abs() * self.expert_weights
    }
}

/// `x W^T` for rows in groups, each with its own `W`; a group is the rows from the end of the one before it to its own.
fn grouped(x: &Tensor, weights: &Tensor, ends: &Tensor) -> Result<Tensor, ModelError> {
    let weights = weights.f_transpose(-2, -1).during("a grouped product")?;
    x.f_internal_grouped_mm(&weights, Some(ends), None::<&Tensor>, None::<Kind>).during("a grouped product")
}
