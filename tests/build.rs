//! Programs of this crate link the ML node, and so libtorch: tells the dynamic linker where it is.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Ok(folder) = std::env::var("DEP_STARLING_MLNODE_LIBTORCH_LIB") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
    }
}
