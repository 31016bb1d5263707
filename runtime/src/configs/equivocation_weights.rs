//! What a report of an equivocation costs.

use super::MAX_AUTHORITIES;
use crate::Runtime;
use frame_support::weights::Weight;

/// Signatures, event, and what the offences pallet keeps: 1.9 ms in WASM on a shared core (`runtime/examples/equivocation.rs`);
/// more than twice that.
const REPORT_REF_TIME: u64 = 5_000_000_000;
/// An authority's keys in the trie of all keys: 82 us, likewise.
const AUTHORITY_REF_TIME: u64 = 200_000_000;

/// The ownership of the key is checked when the report is validated and again when it is carried out, each time against
/// the trie of all keys if the session still runs. The number of authorities in the proof is the reporter's to choose, so
/// what is paid for is the largest set.
fn report() -> Weight {
    let db = <Runtime as frame_system::Config>::DbWeight::get();
    let authorities = u64::from(MAX_AUTHORITIES);
    let trie =
        Weight::from_parts(AUTHORITY_REF_TIME, 0).saturating_add(db.reads(1)).saturating_mul(authorities);
    Weight::from_parts(REPORT_REF_TIME, 0)
        .saturating_add(trie.saturating_mul(2))
        // Validators, roots, reports; the host, its conviction, reputation and registration; plan and disabled.
        .saturating_add(db.reads_writes(30, 20))
}

/// Weights of BABE's calls.
#[derive(Debug)]
pub struct Babe;

impl pallet_babe::WeightInfo for Babe {
    fn plan_config_change() -> Weight {
        Weight::from_parts(10_000_000, 0)
            .saturating_add(<Runtime as frame_system::Config>::DbWeight::get().writes(1))
    }

    fn report_equivocation(_validators: u32, _nominators: u32) -> Weight {
        report()
    }
}

/// Weights of GRANDPA's calls.
#[derive(Debug)]
pub struct Grandpa;

impl pallet_grandpa::WeightInfo for Grandpa {
    fn report_equivocation(_validators: u32, _nominators: u32) -> Weight {
        report()
    }

    fn note_stalled() -> Weight {
        Weight::from_parts(10_000_000, 0)
            .saturating_add(<Runtime as frame_system::Config>::DbWeight::get().writes(1))
    }
}
