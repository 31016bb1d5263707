//! Tells the dynamic linker where libtorch is, so that no LD_LIBRARY_PATH is needed.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // torch-sys exports the folder it linked against to its direct dependents.
    if let Ok(folder) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        let folder = std::fs::canonicalize(&folder).map_or(folder, |path| path.display().to_string());
        println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
        println!("cargo::metadata=LIBTORCH_LIB={folder}");
    }
}
