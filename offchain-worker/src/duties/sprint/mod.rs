//! The sprint: race, commit, check.

pub(super) mod check;
mod queue;
pub(super) mod race;

use super::DutyError;
use starling_chain_client::{BlockTick, ChainView};
use starling_primitives::{profile::Profile, sprint::SprintTask, traits::Round, AccountId, ProfileId};

/// The task of a host in the race of this block's epoch; `None` as long as its seed is not final.
async fn task_of(
    view: &ChainView,
    tick: BlockTick,
    host: &AccountId,
    profile: (ProfileId, &Profile),
) -> Result<Option<SprintTask>, DutyError> {
    // The race's seed is the one that the next epoch draws with.
    let seed = view.seed(Round::Epoch(tick.epoch.index.saturating_add(1))).await?;
    let (profile, info) = profile;
    Ok(seed.map(|seed| SprintTask {
        seed,
        epoch: tick.epoch.index,
        host: host.clone(),
        profile,
        vocab_size: info.vocab_size,
        prompt_tokens: tick.epoch.schedule.sprint_prompt_tokens,
        decode_tokens: tick.epoch.schedule.sprint_decode_tokens,
    }))
}
