//! Writes the runtime's metadata (SCALE) to a file: `metadata FILE [FORMAT]`. Starts no chain.
//!
//! Constants that genesis decides (the slot duration) have the values of a chain without a genesis.

use std::{env, error::Error, fs};

/// The newest version that is stable; it has the runtime APIs too.
const FORMAT: u32 = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let file = arguments.next().ok_or("usage: metadata FILE [FORMAT]")?;
    let format = arguments.next().map_or(Ok(FORMAT), |format| format.parse())?;
    let metadata = sp_io::TestExternalities::new_empty()
        .execute_with(|| starling_runtime::Runtime::metadata_at_version(format))
        .ok_or_else(|| format!("the runtime has no metadata of format {format}"))?;
    // The opaque wrapper is a length before the metadata itself.
    Ok(fs::write(file, &*metadata)?)
}
