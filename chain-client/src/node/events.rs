//! Splits the events of a block into named fields.

use crate::{error::ChainError, event::RawEvent};
use codec::Encode;
use scale_info::TypeDef;
use subxt::{
    events::{Event, Phase},
    ext::scale_decode::visitor::{decode_with_visitor, IgnoreVisitor},
    metadata::Metadata,
    OnlineClientAtBlock, SubstrateConfig,
};

pub(super) fn read(
    at: &OnlineClientAtBlock<SubstrateConfig>,
    bytes: Vec<u8>,
) -> Result<Vec<RawEvent>, ChainError> {
    let metadata = at.metadata_ref();
    let events = at.events().from_bytes(bytes);
    let read = |event: Result<Event<'_, SubstrateConfig>, _>| {
        split(metadata, &event.map_err(|error| ChainError::decode("an event", error))?)
    };
    events.iter().map(read).collect()
}

fn split(metadata: &Metadata, event: &Event<'_, SubstrateConfig>) -> Result<RawEvent, ChainError> {
    let variant = metadata
        .pallet_by_event_index(event.pallet_index())
        .and_then(|pallet| pallet.event_variant_by_index(event.event_index()))
        .ok_or_else(|| ChainError::decode("an event", "its index is unknown"))?;
    let mut input = event.field_bytes();
    let mut fields = Vec::with_capacity(variant.fields.len());
    for (position, field) in variant.fields.iter().enumerate() {
        let start = input;
        decode_with_visitor(&mut input, field.ty.id, metadata.types(), IgnoreVisitor::new())
            .map_err(|error| ChainError::decode("an event", error))?;
        let length = start.len().saturating_sub(input.len());
        let bytes = start.get(..length).unwrap_or_default().to_vec();
        let name = field.name.clone().unwrap_or_else(|| position.to_string());
        if name == "dispatch_error" {
            fields.push(("reason".to_string(), dispatch_error(metadata, field.ty.id, &bytes).encode()));
        } else if let Some(variant) = variant_name(metadata, field.ty.id, &bytes) {
            fields.push((format!("{name}_name"), variant.encode()));
        }
        fields.push((name, bytes));
    }
    let extrinsic = match event.phase() {
        Phase::ApplyExtrinsic(index) => Some(index),
        Phase::Initialization | Phase::Finalization => None,
    };
    Ok(RawEvent { extrinsic, pallet: event.pallet_name().into(), name: event.event_name().into(), fields })
}

/// Name of the variant that an encoded enum begins with.
fn variant_name(metadata: &Metadata, ty: u32, bytes: &[u8]) -> Option<String> {
    let TypeDef::Variant(def) = &metadata.types().resolve(ty)?.type_def else { return None };
    let index = bytes.first()?;
    def.variants.iter().find(|variant| variant.index == *index).map(|variant| variant.name.clone())
}

/// `Pallet::Error` for an error of a pallet, the variant's name for any other.
fn dispatch_error(metadata: &Metadata, ty: u32, bytes: &[u8]) -> String {
    let name = variant_name(metadata, ty, bytes).unwrap_or_else(|| "unknown".into());
    let module = match (name.as_str(), bytes) {
        ("Module", [_, pallet, error, ..]) => metadata.pallet_by_error_index(*pallet).and_then(|pallet| {
            Some(format!("{}::{}", pallet.name(), pallet.error_variant_by_index(*error)?.name))
        }),
        _ => None,
    };
    module.unwrap_or(name)
}
