//! Kernels of our own on CUDA, compiled when a model is loaded; see `kernels.cu`. NVRTC and the driver are found at run time, like
//! libtorch's CUDA library, which brings the one and needs the other. They run on the stream that libtorch uses.

use super::{super::ModelError, layer::Layer, native::Stream};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use std::{
    ffi::{c_char, c_int, c_uint, c_void, CStr, CString},
    path::{Path, PathBuf},
};
use tch::{Kind, TchError, Tensor};

const SOURCE: &str = include_str!("kernels.cu");
/// Heads that a block of `rotate_and_keep` takes.
const HEADS: u32 = 4;
/// Threads of a block of the other kernels.
const THREADS: u32 = 256;
/// Logits of a block of `best_of_chunks`.
const CHUNK: i64 = 2_048;
/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `_MINOR`.
const CAPABILITY: [c_int; 2] = [75, 76];

type Handle = *mut c_void;
type LaunchKernel = unsafe extern "C" fn(
    Handle,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    Handle,
    *mut Handle,
    *mut Handle,
) -> c_int;

/// The compiled kernels. Their module is never unloaded.
#[derive(Debug)]
pub(super) struct Kernels {
    context: Context,
    stream: Stream,
    launch: LaunchKernel,
    rotate_and_keep: Handle,
    gate: Handle,
    best_of_chunks: Handle,
    best_of_rows: Handle,
}

/// The best of a vocabulary, f32, on the device.
#[derive(Debug)]
pub(super) struct Best {
    /// (rows, 2, k): log-probabilities, the best first, and tokens.
    pub(super) found: Tensor,
    /// (rows): log of the sum of exp(logit).
    pub(super) totals: Tensor,
}

/// What is the same for the rotations of all layers of a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turning<'a> {
    /// f32 (positions, 2, head dim).
    pub(super) rotations: &'a Tensor,
    /// i64, one for each row: of the token in its sequence, and in the store.
    pub(super) positions: &'a Tensor,
    pub(super) places: &'a Tensor,
    pub(super) heads: u32,
    pub(super) kv_heads: u32,
    pub(super) head_dim: u32,
    pub(super) eps: f32,
}

/// libtorch's context of a device. It is current only while something of ours is called: libtorch has its own idea of the current
/// device.
#[derive(Debug)]
struct Context {
    handle: Handle,
    push: unsafe extern "C" fn(Handle) -> c_int,
    pop: unsafe extern "C" fn(*mut Handle) -> c_int,
}

impl Context {
    /// The context of the device of this number, which libtorch has used already.
    #[allow(unsafe_code, reason = "functions of the driver")]
    fn new(driver: &Library, number: c_int) -> Result<Self, String> {
        // SAFETY: as in `Kernels::compile`.
        unsafe {
            let retain = function::<unsafe extern "C" fn(*mut Handle, c_int) -> c_int>(
                driver,
                "cuDevicePrimaryCtxRetain",
            )?;
            let (push, pop) =
                (function(driver, "cuCtxPushCurrent_v2")?, function(driver, "cuCtxPopCurrent_v2")?);
            let mut handle = std::ptr::null_mut();
            check("cuDevicePrimaryCtxRetain", retain(&mut handle, number))?;
            Ok(Self { handle, push, pop })
        }
    }

    #[allow(unsafe_code, reason = "functions of the driver")]
    fn with<T>(&self, run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
        let mut popped = std::ptr::null_mut();
        // SAFETY: the context is never released, and is taken off again where it was put on.
        check("cuCtxPushCurrent", unsafe { (self.push)(self.handle) })?;
        let result = run();
        check("cuCtxPopCurrent", unsafe { (self.pop)(&mut popped) })?;
        result
    }
}

impl Kernels {
    /// Compiles for the CUDA device of this number, on which libtorch has tensors already, and for its stream.
    pub(super) fn compile(kind: Kind, number: usize, stream: Stream) -> Result<Self, String> {
        let driver = open(Path::new("libcuda.so.1"))?;
        let number = number as c_int;
        let code = compile(kind, &format!("--gpu-architecture={}", architecture(&driver, number)?))?;
        let context = Context::new(&driver, number)?;
        let (launch, [rotate_and_keep, gate, best_of_chunks, best_of_rows]) =
            context.with(|| load(&driver, &code))?;
        std::mem::forget(driver);
        Ok(Self { context, stream, launch, rotate_and_keep, gate, best_of_chunks, best_of_rows })
    }

    /// Normalises and rotates queries of (rows, heads + 2 key heads, dim) in place, keys on their way into a layer of the store,
    /// where values go too. All tensors are contiguous, on the device and of the kind that was compiled for.
    pub(super) fn rotate_and_keep(
        &self,
        layer: &Layer,
        qkv: &Tensor,
        kept: &Tensor,
        turning: &Turning<'_>,
    ) -> Result<(), ModelError> {
        let rows = qkv.size().first().map_or(0, |rows| *rows as c_uint);
        let Turning { heads, kv_heads, head_dim, eps, .. } = *turning;
        let weights = layer.head_norms.as_ref().map_or(std::ptr::null_mut(), Tensor::data_ptr);
        let pointers = [
            qkv.data_ptr(),
            weights,
            turning.rotations.data_ptr(),
            turning.positions.data_ptr(),
            turning.places.data_ptr(),
            kept.data_ptr(),
        ];
        let sizes = [heads, kv_heads, head_dim].map(|n| n as c_int);
        let mut arguments: Vec<Handle> = pointers.iter().map(argument).collect();
        arguments.extend(sizes.iter().map(argument));
        arguments.push(argument(&eps));
        let grid = (rows, (heads + 2 * kv_heads).div_ceil(HEADS));
        self.launch(self.rotate_and_keep, grid, (32, HEADS), &mut arguments)
    }

    /// `silu(gate) * up` of contiguous rows (gate, up).
    pub(super) fn gate(&self, both: &Tensor) -> Result<Tensor, ModelError> {
        let width = both.size().last().copied().unwrap_or_default() / 2;
        let rows = both.size().first().copied().unwrap_or_default();
        let out = Tensor::f_empty([rows, width], (both.kind(), both.device()))
            .map_err(|source| ModelError::Tensor { operation: "gating", source })?;
        let pairs = rows * width / 2;
        let pointers = [both.data_ptr(), out.data_ptr()];
        let columns = width as c_int;
        let mut arguments: Vec<Handle> = pointers.iter().map(argument).collect();
        arguments.push(argument(&columns));
        arguments.push(argument(&pairs));
        let blocks = (pairs as u64).div_ceil(u64::from(THREADS)) as c_uint;
        self.launch(self.gate, (blocks, 1), (THREADS, 1), &mut arguments)?;
        Ok(out)
    }

    /// The best `k` of each of the contiguous rows (rows, vocabulary) of f32; `k` is at most the vocabulary.
    pub(super) fn best(&self, logits: &Tensor, k: i64) -> Result<Best, ModelError> {
        let rows = logits.size().first().copied().unwrap_or_default();
        let vocabulary = logits.size().last().copied().unwrap_or_default();
        let chunks = (vocabulary as u64).div_ceil(CHUNK as u64) as i64;
        let empty = |shape: &[i64], kind| {
            Tensor::f_empty(shape, (kind, logits.device()))
                .map_err(|source| ModelError::Tensor { operation: "taking the best", source })
        };
        let picks = empty(&[rows, chunks, k], Kind::Int64)?;
        let largest = empty(&[rows, chunks], Kind::Float)?;
        let sums = empty(&[rows, chunks], Kind::Float)?;
        let best = Best { found: empty(&[rows, 2, k], Kind::Float)?, totals: empty(&[rows], Kind::Float)? };
        let parts = [picks.data_ptr(), largest.data_ptr(), sums.data_ptr()];
        let ends = [best.found.data_ptr(), best.totals.data_ptr()];
        let from = logits.data_ptr();
        let [vocabulary, count, k] = [vocabulary, chunks, k].map(|n| n as c_int);
        let mut arguments = vec![argument(&from), argument(&vocabulary), argument(&k)];
        arguments.extend(parts.iter().map(argument));
        self.launch(self.best_of_chunks, (count as c_uint, rows as c_uint), (THREADS, 1), &mut arguments)?;
        let mut arguments: Vec<Handle> = parts.iter().map(argument).collect();
        arguments.extend([argument(&count), argument(&k)]);
        arguments.extend(ends.iter().map(argument));
        self.launch(self.best_of_rows, (rows as c_uint, 1), (THREADS, 1), &mut arguments)?;
        Ok(best)
    }

    #[allow(unsafe_code, reason = "a function of the driver")]
    fn launch(
        &self,
        kernel: Handle,
        grid: (c_uint, c_uint),
        block: (c_uint, c_uint),
        arguments: &mut [Handle],
    ) -> Result<(), ModelError> {
        // SAFETY: the arguments are those of the kernel, in its order, and live until the call returns, which copies them. The
        // stream is the one that libtorch uses, so tensors are ready, and outlive the kernel: libtorch
        // gives their memory only to what runs later on this stream.
        let mut launch = || unsafe {
            let (stream, more) = (self.stream.0, std::ptr::null_mut());
            let arguments = arguments.as_mut_ptr();
            (self.launch)(kernel, grid.0, grid.1, 1, block.0, block.1, 1, 0, stream, arguments, more)
        };
        let status = self.context.with(|| check("cuLaunchKernel", launch()));
        status.map_err(|text| ModelError::Tensor {
            operation: "launching a kernel",
            source: TchError::Torch(text),
        })
    }
}

/// The function that launches, and the kernels of an image, in the current context.
#[allow(unsafe_code, reason = "functions of the driver")]
fn load(driver: &Library, code: &[u8]) -> Result<(LaunchKernel, [Handle; 4]), String> {
    type Load = unsafe extern "C" fn(*mut Handle, *const c_void) -> c_int;
    type Find = unsafe extern "C" fn(*mut Handle, Handle, *const c_char) -> c_int;
    // SAFETY: the functions have these signatures (cuda.h), and the pointers are valid for each call. The code is a whole image
    // as NVRTC made it.
    unsafe {
        let load = function::<Load>(driver, "cuModuleLoadData")?;
        let find = function::<Find>(driver, "cuModuleGetFunction")?;
        let mut module = std::ptr::null_mut();
        check("cuModuleLoadData", load(&mut module, code.as_ptr().cast()))?;
        let kernel = |name: &CStr| {
            let mut kernel = std::ptr::null_mut();
            check("cuModuleGetFunction", find(&mut kernel, module, name.as_ptr())).map(|()| kernel)
        };
        let kernels = [
            kernel(c"rotate_and_keep")?,
            kernel(c"gate")?,
            kernel(c"best_of_chunks")?,
            kernel(c"best_of_rows")?,
        ];
        Ok((function(driver, "cuLaunchKernel")?, kernels))
    }
}

fn argument<T>(value: &T) -> Handle {
    std::ptr::from_ref(value).cast_mut().cast()
}

fn check(function: &str, status: c_int) -> Result<(), String> {
    if status == 0 {
        Ok(())
    } else {
        Err(format!("{function} answers {status}"))
    }
}

#[allow(unsafe_code, reason = "loading a library runs its initialisers")]
fn open(path: &Path) -> Result<Library, String> {
    // SAFETY: libraries of CUDA, which libtorch's own library loads too.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }.map_err(|error| error.to_string())
}

/// A function of a library.
///
/// # Safety
///
/// It must have this signature.
#[allow(unsafe_code, reason = "the signature of a foreign function cannot be checked")]
unsafe fn function<F: Copy>(library: &Library, name: &str) -> Result<F, String> {
    let found = unsafe { library.get::<F>(name.as_bytes()) };
    found.map(|symbol| *symbol).map_err(|error| error.to_string())
}

/// `sm_90` and the like.
#[allow(unsafe_code, reason = "functions of the driver")]
fn architecture(driver: &Library, device: c_int) -> Result<String, String> {
    // SAFETY: as above (cuda.h).
    unsafe {
        let attribute = function::<unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int>(
            driver,
            "cuDeviceGetAttribute",
        )?;
        let mut found = [0; 2];
        for (value, which) in found.iter_mut().zip(CAPABILITY) {
            check("cuDeviceGetAttribute", attribute(value, which, device))?;
        }
        let [major, minor] = found;
        Ok(format!("sm_{major}{minor}"))
    }
}

/// NVRTC from where Python's packages put it, seen from libtorch's folder, or from anywhere the loader looks.
fn nvrtc() -> Result<Library, String> {
    if let Some(folder) = crate::device::cuda_folder().map(|folder| folder.join("../../nvidia/cu13/lib")) {
        // NVRTC looks for its second half by name, and finds it where it is loaded already.
        let files = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|file| file.path());
        let of = |path: &PathBuf, start: &str| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start))
        };
        for builtins in files.filter(|path| of(path, "libnvrtc-builtins.so.")) {
            if let Ok(library) = open(&builtins) {
                std::mem::forget(library);
            }
        }
        if let Ok(library) = open(&folder.join("libnvrtc.so.13")) {
            return Ok(library);
        }
    }
    open(Path::new("libnvrtc.so.13")).or_else(|_| open(Path::new("libnvrtc.so.12")))
}

#[allow(unsafe_code, reason = "functions of NVRTC")]
fn compile(kind: Kind, architecture: &str) -> Result<Vec<u8>, String> {
    type Create = unsafe extern "C" fn(
        *mut Handle,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int;
    type Compile = unsafe extern "C" fn(Handle, c_int, *const *const c_char) -> c_int;
    type Size = unsafe extern "C" fn(Handle, *mut usize) -> c_int;
    type Get = unsafe extern "C" fn(Handle, *mut c_char) -> c_int;
    type Destroy = unsafe extern "C" fn(*mut Handle) -> c_int;
    let library = nvrtc()?;
    let text = |text: &str| CString::new(text).map_err(|error| error.to_string());
    let (source, name) = (text(SOURCE)?, text("kernels.cu")?);
    let options = [text(architecture)?, text(if kind == Kind::Half { "-DHALF" } else { "-DBFLOAT16" })?];
    let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
    // SAFETY: the functions have these signatures (nvrtc.h), every pointer is valid for its call, and the buffers have the sizes
    // that the library names.
    unsafe {
        let create = function::<Create>(&library, "nvrtcCreateProgram")?;
        let compile = function::<Compile>(&library, "nvrtcCompileProgram")?;
        let destroy = function::<Destroy>(&library, "nvrtcDestroyProgram")?;
        let mut program = std::ptr::null_mut();
        let none = std::ptr::null();
        check("nvrtcCreateProgram", create(&mut program, source.as_ptr(), name.as_ptr(), 0, none, none))?;
        let read = |size: &str, get: &str| {
            let (size, get) = (function::<Size>(&library, size)?, function::<Get>(&library, get)?);
            let mut bytes = 0;
            check("nvrtc", size(program, &mut bytes))?;
            let mut found = vec![0u8; bytes];
            check("nvrtc", get(program, found.as_mut_ptr().cast()))?;
            Ok::<_, String>(found)
        };
        let found = match check("nvrtcCompileProgram", compile(program, 2, options.as_ptr())) {
            Ok(()) => read("nvrtcGetCUBINSize", "nvrtcGetCUBIN"),
            Err(status) => read("nvrtcGetProgramLogSize", "nvrtcGetProgramLog")
                .and_then(|log| Err(format!("{status}: {}", String::from_utf8_lossy(&log)))),
        };
        destroy(&mut program);
        // NVRTC may keep threads.
        std::mem::forget(library);
        found
    }
}
