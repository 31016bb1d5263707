//! Compares the types that this crate decodes with those of the running chain.
//!
//! Bytes are decoded by the types of `starling-primitives`, not by generated code, so a difference must be found
//! before it is read as something else. Two types have the same shape when SCALE encodes them alike: names of types
//! and of fields do not matter, and a wrapper with a single field is what it wraps.

use crate::{call, entries, error::ChainError, event};
use scale_info::{form::PortableForm, Field, MetaType, PortableRegistry, Registry, TypeDef};
use std::collections::HashSet;
use subxt::metadata::Metadata;

/// Refuses a runtime that lacks something of this crate, or types it differently.
pub fn check(metadata: &Metadata) -> Result<(), ChainError> {
    let differences = differences(metadata);
    if differences.is_empty() {
        return Ok(());
    }
    Err(ChainError::Incompatible(differences.join("; ")))
}

/// Everything that differs, one line each.
pub fn differences(metadata: &Metadata) -> Vec<String> {
    let mut found = Vec::new();
    let mut note = |what: String, result: Result<(), String>| {
        if let Err(reason) = result {
            found.push(format!("{what}: {reason}"));
        }
    };
    for entry in entries::all() {
        note(format!("storage {}.{}", entry.place.pallet, entry.place.item), check_entry(metadata, &entry));
    }
    for call in call::all() {
        note(format!("call {}.{}", call.pallet, call.name), check_call(metadata, &call));
    }
    for event in event::all() {
        note(format!("event {}.{}", event.pallet, event.name), check_event(metadata, &event));
    }
    for api in entries::apis() {
        note(format!("runtime API {}.{}", api.name, api.method), check_api(metadata, &api));
    }
    found
}

fn check_entry(metadata: &Metadata, entry: &entries::EntryShape) -> Result<(), String> {
    let found = metadata
        .pallet_by_name(entry.place.pallet)
        .and_then(|pallet| pallet.storage())
        .and_then(|storage| storage.entry_by_name(entry.place.item))
        .ok_or("it does not exist")?;
    let keys: Vec<u32> = found.keys().map(|key| key.key_id).collect();
    same_list(&entry.keys, &keys, metadata).map_err(|reason| format!("keys: {reason}"))?;
    entry.value.as_ref().map_or(Ok(()), |value| same(value, found.value_ty(), metadata))
}

fn check_call(metadata: &Metadata, call: &call::CallShape) -> Result<(), String> {
    let variant = metadata
        .pallet_by_name(call.pallet)
        .and_then(|pallet| pallet.call_variant_by_name(call.name))
        .ok_or("it does not exist")?;
    let arguments: Vec<u32> = variant.fields.iter().map(|field| field.ty.id).collect();
    same_list(&call.arguments, &arguments, metadata)
}

fn check_event(metadata: &Metadata, event: &event::EventShape) -> Result<(), String> {
    let variant = metadata
        .pallet_by_name(event.pallet)
        .and_then(|pallet| pallet.event_variants())
        .and_then(|variants| variants.iter().find(|variant| variant.name == event.name))
        .ok_or("it does not exist")?;
    for (name, expected) in &event.fields {
        let field = variant.fields.iter().find(|field| field.name.as_deref() == Some(*name));
        let field = field.ok_or_else(|| format!("field {name} does not exist"))?;
        same(expected, field.ty.id, metadata).map_err(|reason| format!("field {name}: {reason}"))?;
    }
    Ok(())
}

fn check_api(metadata: &Metadata, api: &entries::ApiShape) -> Result<(), String> {
    let method = metadata
        .runtime_api_trait_by_name(api.name)
        .and_then(|found| found.method_by_name(api.method))
        .ok_or("it does not exist")?;
    let inputs: Vec<u32> = method.inputs().map(|input| input.id).collect();
    same_list(&api.inputs, &inputs, metadata)?;
    same(&api.output, method.output_ty(), metadata).map_err(|reason| format!("output: {reason}"))
}

fn same_list(expected: &[MetaType], found: &[u32], metadata: &Metadata) -> Result<(), String> {
    if expected.len() != found.len() {
        return Err(format!("{} expected, the runtime has {}", expected.len(), found.len()));
    }
    for (index, (expected, &found)) in expected.iter().zip(found).enumerate() {
        same(expected, found, metadata).map_err(|reason| format!("number {index}: {reason}"))?;
    }
    Ok(())
}

fn same(expected: &MetaType, found: u32, metadata: &Metadata) -> Result<(), String> {
    let mut registry = Registry::new();
    let id = registry.register_type(expected).id;
    let local = PortableRegistry::from(registry);
    Comparison { local: &local, remote: metadata.types(), seen: HashSet::new() }.types(id, found)
}

struct Comparison<'a> {
    local: &'a PortableRegistry,
    remote: &'a PortableRegistry,
    seen: HashSet<(u32, u32)>,
}

type Def<'a> = &'a TypeDef<PortableForm>;

impl Comparison<'_> {
    fn types(&mut self, local: u32, remote: u32) -> Result<(), String> {
        let (local, remote) = (unwrapped(self.local, local)?, unwrapped(self.remote, remote)?);
        if !self.seen.insert((local, remote)) {
            return Ok(());
        }
        self.definitions(definition(self.local, local)?, definition(self.remote, remote)?)
            .map_err(|reason| format!("{}: {reason}", describe(self.local, local)))
    }

    fn definitions(&mut self, local: Def<'_>, remote: Def<'_>) -> Result<(), String> {
        use TypeDef::*;
        match (local, remote) {
            (Composite(_) | Tuple(_), Composite(_) | Tuple(_)) => {
                self.lists(&members(local), &members(remote))
            }
            (Variant(local), Variant(remote)) => {
                if local.variants.len() != remote.variants.len() {
                    return Err(format!(
                        "{} variants, the runtime has {}",
                        local.variants.len(),
                        remote.variants.len()
                    ));
                }
                for mine in &local.variants {
                    let theirs = remote.variants.iter().find(|theirs| theirs.index == mine.index);
                    let theirs = theirs.filter(|theirs| theirs.name == mine.name);
                    let theirs =
                        theirs.ok_or_else(|| format!("variant {} is not at {}", mine.name, mine.index))?;
                    self.lists(&ids(&mine.fields), &ids(&theirs.fields))?;
                }
                Ok(())
            }
            (Sequence(local), Sequence(remote)) => self.types(local.type_param.id, remote.type_param.id),
            (Array(local), Array(remote)) if local.len == remote.len => {
                self.types(local.type_param.id, remote.type_param.id)
            }
            (Compact(local), Compact(remote)) => self.types(local.type_param.id, remote.type_param.id),
            (Primitive(local), Primitive(remote)) if local == remote => Ok(()),
            _ => Err(format!("the runtime has {remote:?} for {local:?}")),
        }
    }

    fn lists(&mut self, local: &[u32], remote: &[u32]) -> Result<(), String> {
        if local.len() != remote.len() {
            return Err(format!("{} fields, the runtime has {}", local.len(), remote.len()));
        }
        for (&local, &remote) in local.iter().zip(remote) {
            self.types(local, remote)?;
        }
        Ok(())
    }
}

fn definition(registry: &PortableRegistry, id: u32) -> Result<Def<'_>, String> {
    registry.resolve(id).map(|found| &found.type_def).ok_or_else(|| format!("type {id} is missing"))
}

/// The type inside wrappers of a single field.
fn unwrapped(registry: &PortableRegistry, mut id: u32) -> Result<u32, String> {
    loop {
        match definition(registry, id)? {
            def @ (TypeDef::Composite(_) | TypeDef::Tuple(_)) => match members(def).as_slice() {
                [only] => id = *only,
                _ => return Ok(id),
            },
            _ => return Ok(id),
        }
    }
}

fn members(def: Def<'_>) -> Vec<u32> {
    match def {
        TypeDef::Composite(composite) => ids(&composite.fields),
        TypeDef::Tuple(tuple) => tuple.fields.iter().map(|field| field.id).collect(),
        _ => Vec::new(),
    }
}

fn ids(fields: &[Field<PortableForm>]) -> Vec<u32> {
    fields.iter().map(|field| field.ty.id).collect()
}

fn describe(registry: &PortableRegistry, id: u32) -> String {
    registry
        .resolve(id)
        .map(|found| found.path.to_string())
        .filter(|path| !path.is_empty())
        .unwrap_or_else(|| "it".into())
}
