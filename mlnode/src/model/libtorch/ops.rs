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

/// A vector of indices.
pub(super) fn indices(values: &[i64]) -> Result<Tensor, ModelError> {
    Tensor::f_from_slice(values).during("making an index")
}

/// `x W^T` for rows `x`.
pub(super) fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor, ModelError> {
    x.f_linear::<&Tensor>(weight, None).during("linear")
}

/// Root mean square norm over the last dimension, with an optional weight.
pub(super) fn rms_norm(x: &Tensor, weight: Option<&Tensor>, eps: f64) -> Result<Tensor, ModelError> {
    let width = x.size().last().copied().unwrap_or_default();
    x.f_rms_norm([width], weight, eps).during("rms_norm")
}

/// Uninitialised f32 storage.
pub(super) fn empty(shape: &[i64]) -> Result<Tensor, ModelError> {
    Tensor::f_empty(shape, (Kind::Float, Device::Cpu)).during("allocating")
}
