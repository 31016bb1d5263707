//! Files of a model folder, which somebody else may have written: only regular ones, and small ones only if small.

use super::ModelError;
use memmap2::Mmap;
use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Maps a file into memory.
pub(crate) fn map(path: &Path) -> Result<Mmap, ModelError> {
    let failed = |source| ModelError::Read { path: path.into(), source };
    let file = open(path).map_err(failed)?;
    // SAFETY: the map is only read. Somebody who truncates a model file while it is read can kill the process, as with
    // every program that maps its weights; a changed byte is a wrong weight, which the digest is there to notice.
    #[allow(unsafe_code, reason = "mapping a file is unsafe by nature; see above")]
    unsafe { Mmap::map(&file) }.map_err(failed)
}

/// Text of a file of at most `most` bytes.
pub(super) fn read_small(path: &Path, most: u64) -> Result<String, ModelError> {
    let failed = |source| ModelError::Read { path: path.into(), source };
    let mut text = String::new();
    // One byte more than allowed tells whether there is more.
    open(path).map_err(failed)?.take(most + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > most {
        return Err(ModelError::TooLarge { path: path.into(), most });
    }
    Ok(text)
}

/// Opens a regular file. Another kind may have no end, or keep whoever opens it waiting for ever.
fn open(path: &Path) -> io::Result<File> {
    // Makes opening a pipe that nobody writes to return at once; without effect on regular files.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok(file)
}
