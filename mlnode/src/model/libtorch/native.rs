//! What the engine needs of libtorch and tch does not bind: see `native.cpp`.

use super::super::ModelError;
use std::ffi::{c_char, c_int, c_void, CStr};
use tch::{TchError, Tensor};
use torch_sys::C_tensor;

extern "C" {
    fn starling_free(message: *mut c_char);
    fn starling_flash_attention(
        out: *mut *mut C_tensor,
        query: *const C_tensor,
        keys: *const C_tensor,
        values: *const C_tensor,
        query_starts: *const C_tensor,
        key_starts: *const C_tensor,
        lengths: *const C_tensor,
        query_most: i64,
        length_most: i64,
    ) -> *mut c_char;
    fn starling_use_stream(device: c_int, handle: *mut *mut c_void) -> *mut c_char;
    fn starling_graph_begin(out: *mut *mut c_void) -> *mut c_char;
    fn starling_graph_end(graph: *mut c_void) -> *mut c_char;
    fn starling_graph_replay(graph: *mut c_void) -> *mut c_char;
    fn starling_graph_free(graph: *mut c_void) -> *mut c_char;
}

/// What a function of `native.cpp` answered.
#[allow(unsafe_code, reason = "functions of libtorch that tch does not bind")]
fn answer(operation: &'static str, message: *mut c_char) -> Result<(), ModelError> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: the message is a C string that is ours until it is given back.
    let text = unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        starling_free(message);
        text
    };
    Err(ModelError::Tensor { operation, source: TchError::Torch(text) })
}

/// Rows, keys and values of sequences that are looked at together. The tensors are i32, on the device.
#[derive(Debug)]
pub(super) struct Ranges {
    /// Where the rows of each sequence begin, and where the last one's end.
    pub(super) query_starts: Tensor,
    /// Where the keys of each sequence begin in the store; one number more, of no meaning.
    pub(super) key_starts: Tensor,
    /// Tokens of each sequence, the new ones included.
    pub(super) lengths: Tensor,
    /// Rows of a sequence at most.
    pub(super) query_most: i64,
    /// Tokens of a sequence at most.
    pub(super) length_most: i64,
}

/// Attention of rows (rows, heads, dim) over keys and values (tokens, key heads, dim), on CUDA in 16 bits. A sequence's last row
/// sees all of its tokens, the row before it one less, and so on. Returns (rows, heads, dim).
#[allow(unsafe_code, reason = "a function of libtorch that tch does not bind")]
pub(super) fn flash_attention(
    query: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    ranges: &Ranges,
) -> Result<Tensor, ModelError> {
    let mut out = std::ptr::null_mut();
    // SAFETY: the pointers are those of living tensors, which the function only reads.
    let message = unsafe {
        starling_flash_attention(
            &mut out,
            query.as_ptr(),
            keys.as_ptr(),
            values.as_ptr(),
            ranges.query_starts.as_ptr(),
            ranges.key_starts.as_ptr(),
            ranges.lengths.as_ptr(),
            ranges.query_most,
            ranges.length_most,
        )
    };
    answer("attention", message)?;
    // SAFETY: without a message the function made a tensor that is ours.
    Ok(unsafe { Tensor::from_ptr(out) })
}

/// A CUDA stream; it lives as long as the process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream(pub(super) *mut c_void);

impl Stream {
    /// Takes a stream for what this thread does on a device from now on, through libtorch and otherwise.
    #[allow(unsafe_code, reason = "a function of libtorch that tch does not bind")]
    pub(super) fn take(device: usize) -> Result<Self, ModelError> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: the pointer is valid for the call.
        let message = unsafe { starling_use_stream(device as c_int, &mut handle) };
        answer("taking a stream", message)?;
        Ok(Self(handle))
    }
}

/// Recorded work of this thread's stream.
#[derive(Debug)]
pub(super) struct Graph(*mut c_void);

impl Graph {
    /// Records what `run` does. Nothing of it is done. The memory of the tensors that it makes stays the graph's, and is written to
    /// whenever it is played.
    #[allow(unsafe_code, reason = "functions of libtorch that tch does not bind")]
    pub(super) fn record<T>(run: impl FnOnce() -> Result<T, ModelError>) -> Result<(Self, T), ModelError> {
        let mut graph = std::ptr::null_mut();
        // SAFETY: the pointer is valid for the call. A graph that was made is freed when this value is dropped.
        let begun = answer("recording", unsafe { starling_graph_begin(&mut graph) });
        let graph = Self(graph);
        begun?;
        let result = run();
        // Also after an error: the stream must not go on recording.
        // SAFETY: the graph was begun.
        let ended = answer("recording", unsafe { starling_graph_end(graph.0) });
        let found = result?;
        ended?;
        Ok((graph, found))
    }

    /// Does what was recorded, with what its tensors hold now.
    #[allow(unsafe_code, reason = "a function of libtorch that tch does not bind")]
    pub(super) fn play(&self) -> Result<(), ModelError> {
        // SAFETY: the graph was recorded.
        answer("playing a recorded step", unsafe { starling_graph_replay(self.0) })
    }
}

impl Drop for Graph {
    #[allow(unsafe_code, reason = "a function of libtorch that tch does not bind")]
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: made by `record`, and freed once.
            if let Err(error) = answer("freeing a recorded step", unsafe { starling_graph_free(self.0) }) {
                tracing::warn!(error = &error as &dyn std::error::Error, "a recorded step was not freed");
            }
        }
    }
}
