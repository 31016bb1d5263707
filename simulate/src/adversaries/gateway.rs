//! Gateways that keep work from an executor.

use super::{Behaviour, Route};
use starling_primitives::AccountId;

/// How a gateway starves an executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gateway {
    /// It records the next attempt, as if the executor were down.
    Skips,
    /// It records the request and never forwards it, so that it expires.
    Swallows,
}

/// Takes part honestly in everything, except that one executor never gets a request through it.
#[derive(Debug)]
pub struct Starver {
    /// The executor.
    pub victim: AccountId,
    /// How.
    pub how: Gateway,
}

impl Behaviour for Starver {
    fn name(&self) -> String {
        match self.how {
            Gateway::Skips => "gateway that skips an executor".into(),
            Gateway::Swallows => "gateway that swallows an executor's requests".into(),
        }
    }

    fn route(&self, executor: &AccountId) -> Route {
        match self.how {
            _ if *executor != self.victim => Route::Forward,
            Gateway::Skips => Route::Skip,
            Gateway::Swallows => Route::Swallow,
        }
    }
}
