//! Hosts that say of a good answer that it was a plant.

use super::{Behaviour, Honest};

/// Wants to harm whoever approves its answers: they are good, and it reveals them as plants.
#[derive(Debug)]
pub struct FalsePlanter;

impl Behaviour for FalsePlanter {
    fn name(&self) -> String {
        "false planter".into()
    }

    fn plants(&self) -> Option<Box<dyn Behaviour>> {
        Some(Box::new(Honest))
    }
}
