//! Attention of the new tokens of a step over what their sequences have stored.

use super::{
    super::{ModelConfig, ModelError},
    native::{flash_attention, Ranges},
    ops::During,
    plan::{Numbers, Place, RangeNumbers},
};
use tch::{Device, Kind, Tensor};

/// How the sequences of a step are looked at; the same for all layers.
#[derive(Debug)]
pub(super) enum Attention {
    /// Sequences with one new token in one call, those with more in another.
    Together([Option<Ranges>; 2]),
    /// A call for each, with what its tokens must not see where several follow stored ones.
    OneByOne(Vec<(Place, Option<Tensor>)>),
}

/// Whether sequences can be looked at together.
pub(super) fn is_together(device: Device, kind: Kind, head_dim: u32) -> bool {
    let sixteen_bits = matches!(kind, Kind::BFloat16 | Kind::Half);
    matches!(device, Device::Cuda(_)) && sixteen_bits && head_dim <= 256 && head_dim.is_multiple_of(8)
}

impl Attention {
    pub(super) fn together(groups: [Option<Ranges>; 2]) -> Self {
        Self::Together(groups)
    }

    /// For a step that runs there.
    pub(super) fn new(
        config: &ModelConfig,
        numbers: &Numbers,
        (kind, device): (Kind, Device),
    ) -> Result<Self, ModelError> {
        if is_together(device, kind, config.head_dim) {
            let [single, longer] = numbers.ranges();
            let upload = |ranges: Option<RangeNumbers>| ranges.map(|r| r.upload(device)).transpose();
            return Ok(Self::Together([upload(single)?, upload(longer)?]));
        }
        let mask = |place: &Place| {
            let mask = (place.past > 0 && place.new > 1).then(|| causal_mask(*place, device)).transpose()?;
            Ok((*place, mask))
        };
        Ok(Self::OneByOne(numbers.sequences.iter().map(mask).collect::<Result<_, ModelError>>()?))
    }

    /// Attention of (rows, heads, dim) over a layer of the store. Returns (rows, heads, dim).
    pub(super) fn run(&self, query: &Tensor, kept: &Tensor) -> Result<Tensor, ModelError> {
        let kv_heads = kept.size().get(1).copied().unwrap_or_default() / 2;
        let keys = kept.f_narrow(1, 0, kv_heads).during("reading keys")?;
        let values = kept.f_narrow(1, kv_heads, kv_heads).during("reading values")?;
        match self {
            Self::Together([single, longer]) => {
                let rows = query.size().first().copied().unwrap_or_default();
                let singles = single.as_ref().map_or(0, |s| s.lengths.size().first().copied().unwrap_or(0));
                let mut found = Vec::with_capacity(2);
                for (ranges, first, count) in [(single, 0, singles), (longer, singles, rows - singles)] {
                    if let Some(ranges) = ranges {
                        let query = query.f_narrow(0, first, count).during("taking queries")?;
                        found.push(flash_attention(&query, &keys, &values, ranges)?);
                    }
                }
                join(found)
            }
            Self::OneByOne(sequences) => {
                let one = |(place, mask): &(Place, Option<Tensor>)| {
                    one(*place, mask.as_ref(), query, &keys, &values)
                };
                join(sequences.iter().map(one).collect::<Result<_, _>>()?)
            }
        }
    }
}

/// Attention of one sequence.
fn one(
    place: Place,
    mask: Option<&Tensor>,
    query: &Tensor,
    keys: &Tensor,
    values: &Tensor,
) -> Result<Tensor, ModelError> {
    let (heads, dim) = match query.size().as_slice() {
        [_, heads, dim] => (*heads, *dim),
        _ => (0, 0),
    };
    let kv_heads = keys.size().get(1).copied().unwrap_or_default();
    let kept = |t: &Tensor| {
        let tokens = t.f_narrow(0, place.start, place.past + place.new);
        tokens.and_then(|t| t.f_transpose(0, 1)?.f_unsqueeze(0)).during("reading a sequence")
    };
    let (keys, values) = (kept(keys)?, kept(values)?);
    let query = query.f_narrow(0, place.row, place.new).during("taking queries")?;
    if place.new == 1 {
        // The queries of a group look at the same keys: they stand as rows of one head.
        let query = query.f_reshape([1, kv_heads, heads / kv_heads, dim]).during("grouping queries")?;
        let found = scaled_dot_product(&query, &keys, &values, None, false, false)?;
        return found.f_reshape([1, heads, dim]).during("ungrouping queries");
    }
    let query = query.f_transpose(0, 1).and_then(|q| q.f_unsqueeze(0)).during("grouping queries")?;
    let found = scaled_dot_product(&query, &keys, &values, mask, mask.is_none(), heads > kv_heads)?;
    found.f_squeeze_dim(0).and_then(|f| f.f_transpose(0, 1)).during("ungrouping queries")
}

fn join(mut parts: Vec<Tensor>) -> Result<Tensor, ModelError> {
    match parts.len() {
        1 => Ok(parts.remove(0)),
        _ => Tensor::f_cat(&parts, 0).during("joining sequences"),
    }
}

fn scaled_dot_product(
    query: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    mask: Option<&Tensor>,
    causal: bool,
    grouped: bool,
) -> Result<Tensor, ModelError> {
    Tensor::f_scaled_dot_product_attention(query, keys, values, mask, 0.0, causal, None, grouped)
        .during("attention")
}

/// (new, past + new), true where a token may look.
fn causal_mask(place: Place, device: Device) -> Result<Tensor, ModelError> {
    Tensor::f_ones([place.new, place.past + place.new], (Kind::Bool, device))
        .and_then(|ones| ones.f_tril(place.past))
        .during("making a mask")
}
