//! Tells the dynamic linker where libtorch is, so that no LD_LIBRARY_PATH is needed, and compiles what tch does not
//! bind.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/model/libtorch/native.cpp");
    // torch-sys exports the folder it linked against to its direct dependents.
    let Ok(folder) = std::env::var("DEP_TCH_LIBTORCH_LIB") else { return };
    let folder = std::fs::canonicalize(&folder).map_or(folder, |path| path.display().to_string());
    println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
    println!("cargo::metadata=LIBTORCH_LIB={folder}");
    // As torch-sys compiles its own.
    let abi = std::env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".into());
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .warnings(false)
        .include(Path::new(&folder).with_file_name("include"))
        .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
        .file("src/model/libtorch/native.cpp")
        .compile("starling_torch");
}
