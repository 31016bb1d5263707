//! Tensor operations as errors that say which operation failed.

use super::ModelError;
use tch::{Device, Kind, TchError, Tensor};

/// Names the operation that a libtorch error came from.
pub(crate) trait During<T> {
    /// `operation` is what the caller was doing, in a few words.
    fn during(self, operation: &'static str) -> Result<T, ModelError>;
}

impl<T> During<T> for Result<T, TchError> {
    fn during(self, operation: &'static str) -> Result<T, ModelError> {
        self.map_err(|source| ModelError::Tensor { operation, source })
    }
}

/// A vector of indices.
pub(crate) fn indices(values: &[i64]) -> Result<Tensor, ModelError> {
    Tensor::f_from_slice(values).during("making an index")
}

/// `x W^T` for rows `x`.
pub(crate) fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor, ModelError> {
    x.f_linear::<&Tensor>(weight, None).during("linear")
}

/// Root mean square norm over the last dimension, with an optional weight.
pub(crate) fn rms_norm(x: &Tensor, weight: Option<&Tensor>, eps: f64) -> Result<Tensor, ModelError> {
    let width = x.size().last().copied().unwrap_or_default();
    x.f_rms_norm([width], weight, eps).during("rms_norm")
}

/// Uninitialised f32 storage.
pub(crate) fn empty(shape: &[i64]) -> Result<Tensor, ModelError> {
    Tensor::f_empty(shape, (Kind::Float, Device::Cpu)).during("allocating")
}

/// All elements of a tensor of i64.
pub(crate) fn to_i64(tensor: &Tensor) -> Result<Vec<i64>, ModelError> {
    let tensor = tensor.f_contiguous().during("reading a result")?;
    let mut values = vec![0i64; tensor.numel()];
    tensor.f_copy_data(&mut values, tensor.numel()).during("reading a result")?;
    Ok(values)
}

/// All elements of a tensor of f32.
pub(crate) fn to_f32(tensor: &Tensor) -> Result<Vec<f32>, ModelError> {
    let tensor = tensor.f_contiguous().during("reading a result")?;
    let mut values = vec![0f32; tensor.numel()];
    tensor.f_copy_data(&mut values, tensor.numel()).during("reading a result")?;
    Ok(values)
}
