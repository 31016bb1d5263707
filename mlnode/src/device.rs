//! Which device models run on. CUDA is found when the program runs: it is linked with libtorch for the processor alone, and
//! the same binary uses a GPU where libtorch's CUDA library lies beside it.

use crate::model::ModelError;
use serde::Deserialize;
use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::OnceLock,
};

/// libtorch's library for CUDA, which registers itself when it is loaded.
const CUDA_LIBRARY: &str = "libtorch_cuda.so";
/// The one that is linked; the other lies beside it in complete installations.
const CPU_LIBRARY: &str = "libtorch_cpu.so";

/// The CUDA library that was loaded, or why none was.
static LOADED: OnceLock<Result<PathBuf, String>> = OnceLock::new();

/// A device as it is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum DeviceChoice {
    /// The first CUDA device where there is one, else the processor.
    #[default]
    Auto,
    /// The processor, with the engine's own kernels.
    Cpu,
    /// The CUDA device of this number.
    Cuda(u32),
}

/// A text that names no device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a device is \"auto\", \"cpu\" or \"cuda:N\"")]
pub struct BadDevice;

impl FromStr for DeviceChoice {
    type Err = BadDevice;

    fn from_str(text: &str) -> Result<Self, BadDevice> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            other => {
                let number = other.strip_prefix("cuda:").and_then(|number| number.parse().ok());
                // libtorch counts devices in a signed byte.
                number.filter(|number| *number < 128).map(Self::Cuda).ok_or(BadDevice)
            }
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = BadDevice;

    fn try_from(text: String) -> Result<Self, BadDevice> {
        text.parse()
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl DeviceChoice {
    /// The number of the CUDA device to use, or `None` for the processor. `library` is where `CUDA_LIBRARY` is if not beside
    /// the library that is linked: the file, or its folder. An error when a CUDA device was asked for that is not there.
    pub fn resolve(self, library: Option<&Path>) -> Result<Option<usize>, ModelError> {
        let number = match self {
            Self::Cpu => return Ok(None),
            Self::Auto => 0,
            Self::Cuda(number) => number as usize,
        };
        let count = cuda_devices(library);
        match (self, count) {
            (_, Ok(count)) if number < count => Ok(Some(number)),
            (Self::Auto, Ok(_)) => Ok(None),
            (Self::Auto, Err(reason)) => {
                tracing::info!(%reason, "models run on the processor");
                Ok(None)
            }
            (_, Ok(count)) => Err(ModelError::NoDevice {
                device: self.to_string(),
                reason: format!("libtorch finds {count} CUDA devices"),
            }),
            (_, Err(reason)) => Err(ModelError::NoDevice { device: self.to_string(), reason }),
        }
    }
}

/// Number of CUDA devices that libtorch can use; the reason where its CUDA library cannot be loaded. The library is loaded
/// once: another path in a later call changes nothing.
fn cuda_devices(library: Option<&Path>) -> Result<usize, String> {
    LOADED.get_or_init(|| load_cuda(library)).clone()?;
    // libtorch keeps what it finds at the first question, so that comes after the library.
    if !tch::Cuda::is_available() {
        return Ok(0);
    }
    Ok(usize::try_from(tch::Cuda::device_count()).unwrap_or_default())
}

/// The folder of the CUDA library, once it is loaded.
pub(crate) fn cuda_folder() -> Option<&'static Path> {
    LOADED.get()?.as_ref().ok()?.parent()
}

fn load_cuda(library: Option<&Path>) -> Result<PathBuf, String> {
    let path = match library {
        Some(path) if path.is_dir() => path.join(CUDA_LIBRARY),
        Some(path) => path.into(),
        None => cpu_library()?.with_file_name(CUDA_LIBRARY),
    };
    if !path.is_file() {
        return Err(format!("there is no {}", path.display()));
    }
    open_for_good(&path)?;
    Ok(path)
}

/// Where the linked library was loaded from.
fn cpu_library() -> Result<PathBuf, String> {
    let maps = std::fs::read_to_string("/proc/self/maps")
        .map_err(|error| format!("cannot read /proc/self/maps: {error}"))?;
    mapped(&maps, CPU_LIBRARY).ok_or_else(|| format!("{CPU_LIBRARY} is not loaded from a file"))
}

/// The path of a mapped file of this name.
fn mapped(maps: &str, name: &str) -> Option<PathBuf> {
    // Address, rights, offset, device, inode, path.
    let paths = maps.lines().filter_map(|line| line.find('/').and_then(|start| line.get(start..)));
    paths.map(Path::new).find(|path| path.file_name().is_some_and(|file| file == name)).map(Into::into)
}

#[allow(unsafe_code, reason = "loading a library runs its initialisers")]
fn open_for_good(path: &Path) -> Result<(), String> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    // SAFETY: libtorch's initialisers register its kernels and may run at any time before the first question about CUDA. The
    // library is never unloaded: libtorch keeps pointers into it.
    let opened = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) };
    match opened {
        Ok(library) => {
            std::mem::forget(library);
            Ok(())
        }
        Err(error) => Err(format!("cannot load {}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read() {
        for (text, device) in
            [("auto", DeviceChoice::Auto), ("cpu", DeviceChoice::Cpu), ("cuda:3", DeviceChoice::Cuda(3))]
        {
            assert_eq!(text.parse(), Ok(device));
            assert_eq!(device.to_string(), text);
        }
        for bad in ["", "cuda", "cuda:", "cuda:-1", "cuda:128", "gpu", "CPU"] {
            assert_eq!(bad.parse::<DeviceChoice>(), Err(BadDevice), "{bad}");
        }
    }

    #[test]
    fn mapped_files_are_found() {
        let maps = "7f00-7f01 r--p 00000000 fe:00 12  /opt/lib torch/libtorch_cpu.so\n7f02-7f03 rw-p 0 00:00 0 [stack]";
        assert_eq!(mapped(maps, CPU_LIBRARY), Some("/opt/lib torch/libtorch_cpu.so".into()));
        assert_eq!(mapped(maps, CUDA_LIBRARY), None);
        assert!(cpu_library().is_ok_and(|path| path.is_file()), "the tests are linked with it");
    }

    #[test]
    fn the_processor_is_always_there_and_a_missing_device_is_named() {
        assert!(matches!(DeviceChoice::Cpu.resolve(None), Ok(None)));
        // With or without a GPU, nobody has this many.
        let error = DeviceChoice::Cuda(127).resolve(None).unwrap_err();
        assert!(error.to_string().starts_with("there is no device cuda:127: "), "{error}");
    }
}
