//! Tensor operations as errors that say which operation failed.

use super::super::ModelError;
use tch::{Device, Kind, TchError, Tensor};

/// Names the operation that a libtorch error came from.
pub(super) trait During<T> {
    /// `operation` is what the caller was doing, in a few words.
    fn during(self, operation: &'static str) -> Result<T, ModelError>;
}

impl<T> During<T> for Result<T, TchError> {
    fn during(self, operation: &'static str) -> Result<T, ModelError> {
        self.map_err(|source| ModelError::Tensor { operation, source })
    }
}

/// Numbers as a vector on a device.
pub(super) fn vector<T: tch::kind::Element>(values: &[T], device: Device) -> Result<Tensor, ModelError> {
    // Nobody waits for the copy: what is not pinned was read when the call returns.
    Tensor::f_from_slice(values)
        .and_then(|t| t.f_to_device_(device, T::KIND, true, false))
        .during("making an index")
}

/// `x W^T` for rows `x`.
pub(super) fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor, ModelError> {
    x.f_linear::<&Tensor>(weight, None).during("linear")
}

/// `x W^T` in f32, whatever the operands are.
pub(super) fn linear_f32(x: &Tensor, weight: &Tensor) -> Result<Tensor, ModelError> {
    if x.kind() == Kind::Float {
        return linear(x, weight);
    }
    if x.device() == Device::Cpu {
        // There is no such product there: slow, for a device that only stands for others.
        let wide = |t: &Tensor| t.f_to_kind(Kind::Float).during("linear");
        return linear(&wide(x)?, &wide(weight)?);
    }
    weight.f_tr().and_then(|weight| x.f_mm_dtype(&weight, Kind::Float)).during("linear")
}

/// Adds `x W^T` to rows.
pub(super) fn add_linear(rows: &mut Tensor, x: &Tensor, weight: &Tensor) -> Result<(), ModelError> {
    let weight = weight.f_tr().during("linear")?;
    let _ = rows.f_addmm_(x, &weight).during("linear")?;
    Ok(())
}

/// Root mean square norm over the last dimension, with an optional weight.
pub(super) fn rms_norm(x: &Tensor, weight: Option<&Tensor>, eps: f64) -> Result<Tensor, ModelError> {
    let width = x.size().last().copied().unwrap_or_default();
    x.f_rms_norm([width], weight, eps).during("rms_norm")
}
