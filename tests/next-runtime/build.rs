//! Builds the next runtime where the runtime was built, so that only the runtime itself is compiled again.

use std::{env, path::Path};
use substrate_wasm_builder::WasmBuilder;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=STARLING_NEXT_RUNTIME");
    if env::var_os("STARLING_NEXT_RUNTIME").is_none() {
        return;
    }
    let here = env::var_os("CARGO_MANIFEST_DIR").expect("cargo names the package's folder");
    let runtime =
        Path::new(&here).join("../../runtime").canonicalize().expect("the runtime is in the checkout");
    WasmBuilder::new()
        .with_project(runtime.join("Cargo.toml"))
        .expect("the runtime is a package")
        .export_heap_base()
        .import_memory()
        .enable_feature("next-version")
        .set_file_name("starling_next_runtime")
        .build();
}
