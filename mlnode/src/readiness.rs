//! Whether what runs a model can take work now.

use std::sync::{Arc, PoisonError, RwLock};

/// Set by what runs the model, read by who admits work. Cheap to clone; ready unless it says otherwise.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<RwLock<Option<String>>>);

impl Readiness {
    /// From now on work is refused for this reason, a sentence for the one who asks.
    pub fn refuse(&self, reason: String) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }

    /// From now on work is taken.
    pub fn accept(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// An error says why work is refused.
    pub fn check(&self) -> Result<(), String> {
        // A poisoned lock still holds a whole value: it is replaced in one assignment.
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), Err)
    }
}
