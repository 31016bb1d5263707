//! Panels: the random juries that decide disputes, and when their members may speak.
//!
//! A panel's time is counted in coverage boundaries, not in blocks: it follows from the epoch's schedule, and neither an
//! extended reveal nor a new schedule can tear it.

use crate::draw::DrawTable;
use alloc::vec::Vec;
use starling_primitives::{
    hashing::hash_of, traits::HostWeight, verdict::PanelRound, AccountId, RequestId, H256,
};

/// Panels that judge one inference at most: the first, and a larger one when the first has no majority.
pub const PANELS: PanelRound = 2;
/// Coverage windows in which members commit themselves, unless all have done so before.
pub const COMMIT_WINDOWS: u32 = 2;
/// Coverage windows after them in which they reveal.
pub const REVEAL_WINDOWS: u32 = 2;

/// What members of a panel may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Commit themselves. Nobody reveals.
    Commit,
    /// Reveal. Nobody commits any more.
    Reveal,
    /// Nothing: who has not revealed was silent.
    Over,
}

/// Stage of a panel that was drawn at boundary `drawn`, after `now` boundaries. When everybody has committed, nothing can be
/// copied any more, and the reveal begins at once.
pub fn stage(drawn: u32, now: u32, all_committed: bool) -> Stage {
    let passed = now.saturating_sub(drawn);
    if passed >= COMMIT_WINDOWS.saturating_add(REVEAL_WINDOWS) {
        Stage::Over
    } else if all_committed || passed >= COMMIT_WINDOWS {
        Stage::Reveal
    } else {
        Stage::Commit
    }
}

/// First boundary at which a panel that was drawn at boundary `drawn` is over.
pub fn over_at(drawn: u32) -> u32 {
    drawn.saturating_add(COMMIT_WINDOWS).saturating_add(REVEAL_WINDOWS)
}

/// Whether this is the first panel on what it judges: the smaller one.
pub fn is_first(round: PanelRound) -> bool {
    round.is_multiple_of(PANELS)
}

/// Whether another panel follows after `drawn` ones, if none has decided.
pub fn another_follows(drawn: PanelRound) -> bool {
    !drawn.is_multiple_of(PANELS)
}

/// What a panel judges.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The disputed request.
    pub request_id: &'a RequestId,
    /// Which panel on it.
    pub round: PanelRound,
    /// Its executor, the accuser: whoever is party to the dispute.
    pub parties: &'a [AccountId],
}

/// Up to `size` distinct hosts, drawn one after the other by weight from `hosts` without the parties; all there are when
/// they are fewer. Sorted by account, and independent of the order of `hosts` and parties.
///
/// `fits` is asked about a host when it is drawn; one that does not fit (it was suspended since, say) is passed over as if
/// it had not been there.
pub fn draw(
    seed: &H256,
    case: &Case,
    hosts: &[HostWeight],
    size: u32,
    mut fits: impl FnMut(&AccountId) -> bool,
) -> Vec<HostWeight> {
    let is_eligible = |host: &&HostWeight| host.weight > 0 && !case.parties.contains(&host.host);
    let mut eligible: Vec<HostWeight> = hosts.iter().filter(is_eligible).cloned().collect();
    eligible.sort_unstable_by(|a, b| a.host.cmp(&b.host));
    eligible.dedup_by(|a, b| a.host == b.host);

    let table = DrawTable::new(&eligible);
    // Indices that are drawn, sorted; whether or not they fit.
    let mut drawn: Vec<usize> = Vec::new();
    let mut panel: Vec<HostWeight> = Vec::new();
    for step in 0..eligible.len() as u32 {
        if panel.len() as u64 >= u64::from(size) {
            break;
        }
        let seed = hash_of(b"starling/draw/panel", &(seed, case.request_id, case.round, step));
        let Some(index) = table.draw_without(&seed, &drawn) else { break };
        let (Some(host), Err(place)) = (eligible.get(index), drawn.binary_search(&index)) else { break };
        drawn.insert(place, index);
        if fits(&host.host) {
            panel.push(host.clone());
        }
    }
    panel.sort_unstable_by(|a, b| a.host.cmp(&b.host));
    panel
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn account(id: u16) -> AccountId {
        let mut bytes = [7; 32];
        bytes[..2].copy_from_slice(&id.to_be_bytes());
        AccountId::new(bytes)
    }

    fn hosts(weights: &[u64]) -> Vec<HostWeight> {
        let entry =
            |(id, &weight): (usize, &u64)| HostWeight { host: account(id as u16), weight, reputation: 0 };
        weights.iter().enumerate().map(entry).collect()
    }

    fn seed(n: u64) -> H256 {
        hash_of(b"test", &n)
    }

    fn panel(n: u64, hosts: &[HostWeight], parties: &[AccountId], size: u32) -> Vec<HostWeight> {
        let case = Case { request_id: &seed(n + 1), round: 0, parties };
        draw(&seed(n), &case, hosts, size, |_| true)
    }

    #[test]
    fn stages_follow_the_boundaries() {
        let check = |now, all, expected| assert_eq!(stage(10, now, all), expected, "{now}");
        check(10, false, Stage::Commit);
        check(11, false, Stage::Commit);
        check(11, true, Stage::Reveal);
        check(12, false, Stage::Reveal);
        check(13, true, Stage::Reveal);
        check(14, false, Stage::Over);
        check(14, true, Stage::Over);
        assert_eq!(over_at(10), 14);
        // A panel is never judged by an earlier boundary than its own.
        check(9, false, Stage::Commit);
    }

    #[test]
    fn seats_follow_weight() {
        let hosts = hosts(&[1, 2, 3, 4]);
        let mut counts = [0u32; 4];
        for n in 0..10_000 {
            let drawn = panel(n, &hosts, &[], 1);
            counts[hosts.iter().position(|host| host == &drawn[0]).unwrap()] += 1;
        }
        for (index, count) in counts.iter().enumerate() {
            let expected = 1_000 * (index as u32 + 1);
            // Five standard deviations of a binomial with 10,000 draws are below 250.
            assert!(count.abs_diff(expected) < 250, "{counts:?}");
        }
    }

    #[test]
    fn nobody_sits_where_nobody_remains() {
        assert!(panel(0, &[], &[], 5).is_empty());
        assert!(panel(0, &hosts(&[3, 4]), &[account(0), account(1)], 5).is_empty());
        assert!(panel(0, &hosts(&[0, 0]), &[], 5).is_empty());
        assert!(panel(0, &hosts(&[3, 4]), &[], 0).is_empty());
    }

    proptest! {
        #[test]
        fn a_panel_is_distinct_and_without_the_parties(
            weights in prop::collection::vec(0u64..1 << 48, 0..60),
            parties in prop::collection::vec(0u16..70, 0..4),
            unfit in prop::collection::btree_set(0u16..60, 0..20),
            size in 0u32..70,
            n in 0u64..1 << 40,
        ) {
            let hosts = hosts(&weights);
            let parties: Vec<_> = parties.into_iter().map(account).collect();
            let unfit: BTreeSet<_> = unfit.into_iter().map(account).collect();
            let case = Case { request_id: &seed(n + 1), round: 1, parties: &parties };
            let panel = draw(&seed(n), &case, &hosts, size, |host| !unfit.contains(host));
            let may_sit = |host: &&HostWeight| host.weight > 0 && !parties.contains(&host.host) && !unfit.contains(&host.host);
            let available: Vec<_> = hosts.iter().filter(may_sit).collect();
            prop_assert_eq!(panel.len(), available.len().min(size as usize));
            prop_assert!(panel.windows(2).all(|pair| pair[0].host < pair[1].host), "sorted and distinct");
            prop_assert!(panel.iter().all(|member| available.contains(&member)));
        }

        #[test]
        fn the_order_of_hosts_and_parties_does_not_matter(
            weights in prop::collection::vec(1u64..1 << 48, 5..40),
            order in any::<prop::sample::Index>(),
            size in 1u32..20,
            n in 0u64..1 << 40,
        ) {
            let hosts = hosts(&weights);
            let parties = [account(1), account(3)];
            let expected = panel(n, &hosts, &parties, size);
            let mut turned = hosts.clone();
            turned.rotate_left(order.index(hosts.len()));
            turned.swap(0, 2);
            prop_assert_eq!(panel(n, &turned, &[account(3), account(1)], size), expected);
        }

        #[test]
        fn a_larger_panel_holds_the_smaller_one(weights in prop::collection::vec(1u64..1_000, 3..40), small in 1u32..10, more in 0u32..10, n in 0u64..1 << 40) {
            let hosts = hosts(&weights);
            let few = panel(n, &hosts, &[], small);
            let many = panel(n, &hosts, &[], small + more);
            prop_assert!(few.iter().all(|member| many.contains(member)));
        }

        #[test]
        fn another_round_is_another_draw(n in 0u64..1 << 40) {
            let hosts = hosts(&[1; 40]);
            let drawn = |round| draw(&seed(n), &Case { request_id: &seed(n), round, parties: &[] }, &hosts, 20, |_| true);
            prop_assert_ne!(drawn(0), drawn(1));
        }
    }
}
