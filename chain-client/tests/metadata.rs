//! The checked-in metadata has everything that this crate reads and sends, with the types that it uses.

use starling_chain_client::shape;
use subxt::metadata::Metadata;

#[test]
fn the_runtime_has_what_this_crate_uses() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/metadata/starling.scale");
    let bytes = std::fs::read(path).unwrap();
    let metadata = Metadata::decode_from(&bytes).unwrap();
    let differences = shape::differences(&metadata);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn another_runtime_is_refused_with_reasons() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/metadata/starling.scale");
    let mut metadata = Metadata::decode_from(&std::fs::read(path).unwrap()).unwrap();
    // A runtime whose 32-bit numbers are 64 bits wide.
    for entry in &mut metadata.types_mut().types {
        if entry.ty.type_def == scale_info::TypeDef::Primitive(scale_info::TypeDefPrimitive::U32) {
            entry.ty.type_def = scale_info::TypeDef::Primitive(scale_info::TypeDefPrimitive::U64);
        }
    }
    let error = shape::check(&metadata).unwrap_err().to_string();
    assert!(error.contains("storage Epochs.Current"), "{error}");
    assert!(error.contains("call Inference.start"), "{error}");
}
