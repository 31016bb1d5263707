//! From commitments and verdicts to the weights of the next epoch.

use crate::{
    types::Voter, Commitments, Config, EpochWeights, Event, Pallet, ProfileWeights, Voters, WeightInfo,
};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use frame_support::{defensive, dispatch::DispatchClass, pallet_prelude::Get, weights::Weight, BoundedVec};
use starling_math::{draw, weights as rules};
use starling_primitives::{
    schedule::Schedule,
    sprint::{SprintCommitment, SprintVerdict},
    traits::{Beacon, Clock, HostWeight, Hosts, Profiles, Reputation, Weights},
    AccountId, EpochIndex, ProfileId, Work,
};

/// Work of each host by profile, both ascending. Entries are never 0.
type WorkTable = BTreeMap<AccountId, Vec<(ProfileId, Work)>>;

/// What of the ended epoch decides.
struct Sprint {
    epoch: EpochIndex,
    schedule: Schedule,
    /// Weights of the ended epoch.
    weights: Vec<HostWeight>,
}

/// A host that could vote.
struct Elector<'a> {
    host: &'a AccountId,
    weight: Work,
    /// Those of the committed profiles that it serves.
    profiles: Vec<ProfileId>,
}

/// How much there was to decide, as far as the weight depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Hosts that committed, or whose weight is set; the larger number.
    pub hosts: u32,
    /// Profiles they committed to.
    pub profiles: u32,
}

/// What an election costs, if there are all votes on each commitment that there can be.
pub fn cost<T: Config>(size: Size) -> Weight {
    let more = |weight: fn(u32) -> Weight, count: u32| weight(count).saturating_sub(weight(0));
    T::WeightInfo::elect(size.hosts)
        .saturating_add(more(T::WeightInfo::elect_profiles, size.profiles.saturating_sub(1)))
}

impl<T: Config> Pallet<T> {
    /// Sets the weights of the epoch that begins: the sprint's result or, without one, the old weights.
    pub(crate) fn elect(ended: EpochIndex) {
        let next = ended.saturating_add(1);
        let Some(state) = T::Clock::previous().filter(|state| state.index == ended) else {
            defensive!("the clock keeps the epoch that has just ended");
            return;
        };
        let sprint = Sprint { epoch: ended, schedule: state.schedule, weights: Self::hosts(ended) };
        let (mut table, mut size) = Self::tabulate(&sprint);
        Self::truncate(&mut table);
        let carried_over = table.is_empty();
        if carried_over {
            (table, size.profiles) = Self::old_table(&sprint);
        } else {
            table = cap(table, state.schedule.max_share);
        }
        let weights = Self::store(next, &table);
        let (total, hosts) = (draw::total(&weights), weights.len() as u32);
        let changed = Self::tell_hosts(&sprint.weights, &weights);
        size.hosts = size.hosts.max(changed);
        let cost = cost::<T>(size);
        frame_system::Pallet::<T>::register_extra_weight_unchecked(cost, DispatchClass::Mandatory);
        Self::deposit_event(if carried_over {
            Event::WeightsCarriedOver { epoch: next, total, hosts }
        } else {
            Event::WeightsSet { epoch: next, total, hosts }
        });
    }

    /// Whether the host can get weight by a sprint. It votes on others' all the same while it is accused.
    pub(crate) fn may_get_weight(host: &AccountId) -> bool {
        T::Hosts::may_sprint(host) && T::Reputation::may_work(host)
    }

    /// Accepted work of every commitment, and how many there were. Bounded by `MaxCommitments x MaxVoters`.
    fn tabulate(sprint: &Sprint) -> (WorkTable, Size) {
        let mut by_profile: BTreeMap<ProfileId, Vec<(AccountId, SprintCommitment)>> = BTreeMap::new();
        for ((profile, host), commitment) in Commitments::<T>::iter_prefix(sprint.epoch) {
            by_profile.entry(profile).or_default().push((host, commitment));
        }
        let mut table = WorkTable::new();
        let mut size = Size::default();
        let profiles: Vec<ProfileId> = by_profile.keys().copied().collect();
        let electors = Self::electors(sprint, &profiles);
        for (profile_id, mut provers) in by_profile {
            // A profile that was retired since the commitment earns nothing more.
            let Some(profile) = T::Profiles::profile(profile_id) else { continue };
            provers.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            let nonce_work = rules::nonce_work(&profile, &sprint.schedule);
            let eligible = Self::eligible(sprint, &electors, profile_id, &provers);
            let total = eligible.values().fold(0, |sum: Work, weight| sum.saturating_add(*weight));
            size.profiles = size.profiles.saturating_add(1);
            for (prover, commitment) in &provers {
                let votes = Self::votes(sprint.epoch, profile_id, prover);
                size.hosts = size.hosts.saturating_add(1);
                let known = electors.binary_search_by(|elector| elector.host.cmp(prover)).is_ok();
                if !(known || T::Hosts::may_sprint(prover)) || !T::Reputation::may_work(prover) {
                    continue;
                }
                let others = total.saturating_sub(eligible.get(prover).copied().unwrap_or(0));
                let accepted = rules::accepted(commitment.count, others, &votes, profile.sprint_tolerance);
                let work = rules::work(accepted, nonce_work);
                if work > 0 {
                    table.entry(prover.clone()).or_default().push((profile_id, work));
                }
            }
        }
        (table, size)
    }

    /// The hosts that could vote, and on which of these profiles, sorted by account; nobody while nobody has weight.
    fn electors<'a>(sprint: &'a Sprint, profiles: &[ProfileId]) -> Vec<Elector<'a>> {
        let elector = |entry: &'a HostWeight| {
            let profiles = T::Hosts::sprint_profiles(&entry.host, profiles)?;
            let withheld = T::Beacon::withheld_its_weight(sprint.epoch, &entry.host);
            (!withheld).then_some(Elector { host: &entry.host, weight: entry.weight, profiles })
        };
        sprint.weights.iter().filter_map(elector).collect()
    }

    /// Voting weight of all that could vote on the profile's commitments. While nobody has weight, who could is not
    /// known: those that committed or voted count.
    fn eligible(
        sprint: &Sprint,
        electors: &[Elector],
        profile: ProfileId,
        provers: &[(AccountId, SprintCommitment)],
    ) -> BTreeMap<AccountId, Work> {
        if !sprint.weights.is_empty() {
            return electors
                .iter()
                .filter(|elector| elector.profiles.contains(&profile))
                .map(|elector| (elector.host.clone(), elector.weight))
                .collect();
        }
        let voters = provers
            .iter()
            .flat_map(|(prover, _)| Voters::<T>::get(sprint.epoch, (profile, prover)))
            .map(|voter| voter.verifier);
        provers.iter().map(|(prover, _)| prover.clone()).chain(voters).map(|host| (host, 1)).collect()
    }

    fn votes(epoch: EpochIndex, profile: ProfileId, prover: &AccountId) -> Vec<(Work, SprintVerdict)> {
        let vote = |Voter { weight, verdict, .. }| (weight, verdict);
        Voters::<T>::get(epoch, (profile, prover)).into_iter().map(vote).collect()
    }

    /// Keeps the heaviest `MaxHosts` hosts; among equals the lower account.
    fn truncate(table: &mut WorkTable) {
        let limit = T::MaxHosts::get() as usize;
        if table.len() <= limit {
            return;
        }
        let mut ranked: Vec<(Work, AccountId)> =
            table.iter().map(|(host, works)| (sum(works), host.clone())).collect();
        ranked.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        let kept: BTreeSet<AccountId> = ranked.into_iter().take(limit).map(|(_, host)| host).collect();
        table.retain(|host, _| kept.contains(host));
    }

    /// The weights of the ended epoch, without hosts that left since, and how many profiles they are of.
    fn old_table(sprint: &Sprint) -> (WorkTable, u32) {
        // Each host is asked about once, however many profiles it has weight for.
        let may_keep: BTreeSet<&AccountId> = sprint
            .weights
            .iter()
            .map(|entry| &entry.host)
            .filter(|host| Self::may_get_weight(host))
            .collect();
        let mut table = WorkTable::new();
        let mut lists: Vec<(ProfileId, Vec<HostWeight>)> = ProfileWeights::<T>::iter_prefix(sprint.epoch)
            .map(|(profile, hosts)| (profile, hosts.into_inner()))
            .collect();
        lists.sort_unstable_by_key(|(profile, _)| *profile);
        let profiles = lists.len() as u32;
        for (profile, hosts) in lists {
            for entry in hosts {
                if may_keep.contains(&entry.host) {
                    table.entry(entry.host).or_default().push((profile, entry.weight));
                }
            }
        }
        (table, profiles)
    }

    /// Stores both kinds of lists and returns the whole weights, sorted by account.
    fn store(epoch: EpochIndex, table: &WorkTable) -> Vec<HostWeight> {
        let mut all = Vec::with_capacity(table.len());
        let mut by_profile: BTreeMap<ProfileId, Vec<HostWeight>> = BTreeMap::new();
        for (host, works) in table {
            let reputation = T::Reputation::reputation(host);
            for (profile, weight) in works {
                let entry = HostWeight { host: host.clone(), weight: *weight, reputation };
                by_profile.entry(*profile).or_default().push(entry);
            }
            all.push(HostWeight { host: host.clone(), weight: sum(works), reputation });
        }
        for (profile, hosts) in by_profile {
            ProfileWeights::<T>::insert(epoch, profile, BoundedVec::truncate_from(hosts));
        }
        EpochWeights::<T>::insert(epoch, BoundedVec::truncate_from(all.clone()));
        all
    }

    /// Tells the registry who has weight and who has it no longer; returns how many hosts that were.
    fn tell_hosts(old: &[HostWeight], new: &[HostWeight]) -> u32 {
        let mut told = 0u32;
        for entry in old.iter().filter(|entry| Self::find(new, &entry.host).is_none()) {
            T::Hosts::on_weight(&entry.host, 0);
            told = told.saturating_add(1);
        }
        for entry in new {
            T::Hosts::on_weight(&entry.host, entry.weight);
            told = told.saturating_add(1);
        }
        told
    }
}

/// Caps the hosts' sums and scales the parts, so that they sum to the capped weight exactly.
fn cap(table: WorkTable, max_share: u32) -> WorkTable {
    let mut sums: Vec<(AccountId, Work)> =
        table.iter().map(|(host, works)| (host.clone(), sum(works))).collect();
    rules::cap(&mut sums, max_share);
    let capped: BTreeMap<AccountId, Work> = sums.into_iter().collect();
    table
        .into_iter()
        .filter_map(|(host, works)| {
            let scaled = scale(&works, *capped.get(&host)?);
            (!scaled.is_empty()).then_some((host, scaled))
        })
        .collect()
}

/// Scales parts to a new sum. Each boundary between parts is rounded down once, so nothing is lost or gained; a part that
/// becomes 0 is left out.
pub(crate) fn scale(works: &[(ProfileId, Work)], to: Work) -> Vec<(ProfileId, Work)> {
    let total = u128::from(sum(works));
    let boundary = |before: u128| {
        let point = before.saturating_mul(to.into()).checked_div(total).unwrap_or(0);
        Work::try_from(point).unwrap_or(to)
    };
    let mut before = 0u128;
    let mut scaled = Vec::with_capacity(works.len());
    for (profile, work) in works {
        let after = before.saturating_add((*work).into());
        let part = boundary(after).saturating_sub(boundary(before));
        if part > 0 {
            scaled.push((*profile, part));
        }
        before = after;
    }
    scaled
}

fn sum(works: &[(ProfileId, Work)]) -> Work {
    works.iter().fold(0, |sum: Work, (_, work)| sum.saturating_add(*work))
}
