//! What always holds.

use crate::{
    types::{Approvers, DisputeStatus, Panel, PanelTally},
    verdicts::Juries,
    Accusations, Agenda, AgendaFrom, ApproversOf, ComplaintsOf, Config, Coverage, CoverageMarks, Disputes,
    Doubts, LastBoundary, Negligences, OpenDisputes, Pallet, PanelTallies, Panels, Plants, PrunedBefore,
    Reputations, Seats, Standings, Verdicts,
};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use frame_support::{ensure, traits::Get};
use sp_runtime::DispatchError;
use starling_math::{
    complaint::Ground,
    dispute::{finding, Finding},
    evidence::ACCUSES,
    panel::{self, Stage},
    plant::FIRST_ROUND,
};
use starling_primitives::{
    records::InferenceState,
    traits::{Clock, Inferences},
    verdict::PanelRound,
    AccountId, EpochIndex, InferenceId, PPM,
};

impl<T: Config> Pallet<T> {
    /// Checks the pallet's state.
    ///
    /// 1. A verdict is of a known inference and was noted there, and no executor judges itself.
    /// 2. The open disputes are counted by epoch, their inferences are disputed or planted, and the agenda names each of them
    ///    when it is due; nothing that was due before [`AgendaFrom`] is left, and nothing is due later than a panel's time from now.
    /// 3. A panel was drawn after the accusation. Its members are sorted, distinct, at least one, at most what the runtime
    ///    asks for, have their weight for the profile, and are neither executor nor accuser, nor approvers of a plant. There are
    ///    as many panels as the dispute says (one less when a proof or a reveal ended it).
    /// 4. A panel's tally counts the seats that committed themselves and sums the verdicts that were revealed; seats are of
    ///    members, nobody reveals at the stage of commitments, and a panel that decided settled its dispute.
    /// 5. Windows of an epoch follow each other without gap or overlap up to what is closed.
    /// 6. Reputations are at most 1,000,000 ppm and never stored as 0.
    /// 7. A running product lies between 1 and the test's limit, nobody doubts or accuses itself, nobody accuses twice, and
    ///    an accused host has a standing.
    /// 8. A revealed plant was committed to before its request was recorded, and its executor's answer has fallen by it.
    /// 9. A plant has approvers as long as it is open what comes of that: sorted, distinct, none its executor, each with a
    ///    verdict that let it pass.
    /// 10. Who is negligent is so by a plant of another host.
    /// 11. Each open dispute that is not about a plant is counted as an open complaint of its accuser, on the ground of its verdict,
    ///     which failed.
    pub fn do_try_state() -> Result<(), DispatchError> {
        Self::check_verdicts()?;
        Self::check_disputes()?;
        Self::check_agenda()?;
        Self::check_panels()?;
        Self::check_coverage()?;
        for reputation in Reputations::<T>::iter_values() {
            ensure!((1..=PPM).contains(&reputation), "a reputation out of range");
        }
        Self::check_suspicion()?;
        Self::check_plants()
    }

    fn check_plants() -> Result<(), DispatchError> {
        let oldest = Self::oldest_whole();
        for (epoch, planter, plant) in Plants::<T>::iter().filter(|(epoch, ..)| *epoch >= oldest) {
            let Some(index) = plant.revealed else { continue };
            let record = T::Inferences::record(InferenceId { epoch, index }).ok_or("a plant of nothing")?;
            ensure!(record.executor == planter, "a plant of somebody else");
            ensure!(record.state == InferenceState::Planted, "a revealed plant stands");
            ensure!(plant.committed_at < record.started_at, "a plant that was decided on afterwards");
            let dispute = Disputes::<T>::get(epoch, index).ok_or("a plant without a dispute")?;
            ensure!(dispute.is_about_plant(), "a dispute outlived the reveal");
            let approvers = ApproversOf::<T>::get(epoch, index);
            ensure!(!approvers.is_empty() || !dispute.status.is_open(), "nobody can contest");
        }
        for (epoch, index, approvers) in ApproversOf::<T>::iter().filter(|(epoch, ..)| *epoch >= oldest) {
            let record = T::Inferences::record(InferenceId { epoch, index }).ok_or("approvers of nothing")?;
            let dispute = Disputes::<T>::get(epoch, index).ok_or("approvers without a dispute")?;
            ensure!(
                Agenda::<T>::contains_key(dispute.due, InferenceId { epoch, index }),
                "approvers forever"
            );
            ensure!(
                approvers.iter().zip(approvers.iter().skip(1)).all(|(a, b)| a < b),
                "approvers are not sorted and distinct"
            );
            for host in &approvers {
                ensure!(*host != record.executor, "a planter approves");
                let verdict = Verdicts::<T>::get(epoch, (index, host));
                ensure!(verdict.is_some_and(|verdict| verdict.passed), "an approver that did not approve");
            }
        }
        for (_, host, id) in Negligences::<T>::iter().filter(|(.., id)| id.epoch >= oldest) {
            let record = T::Inferences::record(id).ok_or("negligent about nothing")?;
            ensure!(
                record.executor != host && record.state == InferenceState::Planted,
                "negligent by no plant"
            );
        }
        Ok(())
    }

    fn check_suspicion() -> Result<(), DispatchError> {
        for (_, (executor, _, verifier), doubt) in Doubts::<T>::iter() {
            ensure!((1..ACCUSES).contains(&doubt), "a doubt out of range");
            ensure!(executor != verifier, "a host doubts itself");
        }
        let oldest = PrunedBefore::<T>::get();
        for (epoch, (executor, _), accusers) in Accusations::<T>::iter().filter(|(epoch, ..)| *epoch > oldest)
        {
            let distinct: BTreeSet<_> = accusers.iter().collect();
            ensure!(distinct.len() == accusers.len() && !distinct.is_empty(), "nobody accuses, or one twice");
            ensure!(!distinct.contains(&executor), "a host accuses itself");
            ensure!(Standings::<T>::contains_key(epoch, executor), "an accused host without a standing");
        }
        Ok(())
    }

    /// First epoch whose weights are still kept and of which nothing is pruned.
    fn oldest_whole() -> EpochIndex {
        let pruned = PrunedBefore::<T>::get();
        let kept = T::Clock::epoch().index.saturating_sub(crate::hooks::KEPT_EPOCHS);
        pruned.max(kept)
    }

    fn check_verdicts() -> Result<(), DispatchError> {
        let oldest = Self::oldest_whole();
        for (epoch, (index, verifier), verdict) in
            Verdicts::<T>::iter().filter(|(epoch, ..)| *epoch >= oldest)
        {
            let record = T::Inferences::record(InferenceId { epoch, index }).ok_or("a verdict on nothing")?;
            ensure!(record.executor != verifier, "an executor judges itself");
            ensure!(
                record.first_verdict_at.is_some_and(|at| at <= verdict.at),
                "a verdict that was not noted"
            );
        }
        Ok(())
    }

    fn check_disputes() -> Result<(), DispatchError> {
        let mut open: BTreeMap<EpochIndex, u32> = BTreeMap::new();
        for (epoch, index, dispute) in Disputes::<T>::iter() {
            if !dispute.status.is_open() {
                continue;
            }
            let id = InferenceId { epoch, index };
            let count = open.entry(epoch).or_default();
            *count = count.saturating_add(1);
            ensure!(Agenda::<T>::contains_key(dispute.due, id), "an open dispute is not on the agenda");
            let uncontested = dispute.status == DisputeStatus::Planted;
            ensure!(uncontested || dispute.accuser.is_some(), "a dispute that nobody opened");
            let last = (index, dispute.panels.saturating_sub(1));
            let judges = Panels::<T>::contains_key(epoch, last);
            ensure!(judges || dispute.status != DisputeStatus::Judging, "no panel judges");
            let record = T::Inferences::record(id);
            let state = match dispute.is_about_plant() {
                true => InferenceState::Planted,
                false => InferenceState::Disputed,
            };
            ensure!(
                record.is_none_or(|record| record.state == state),
                "an open dispute's inference is not disputed"
            );
        }
        ensure!(
            OpenDisputes::<T>::iter().collect::<BTreeMap<_, _>>() == open,
            "open disputes are miscounted"
        );
        Self::check_complaints()
    }

    fn check_complaints() -> Result<(), DispatchError> {
        let mut open: BTreeMap<(EpochIndex, (AccountId, Ground)), u32> = BTreeMap::new();
        for (epoch, index, dispute) in Disputes::<T>::iter() {
            if !dispute.status.is_open() || dispute.is_about_plant() {
                continue;
            }
            let accuser = dispute.accuser.ok_or("a dispute that nobody opened")?;
            let verdict =
                Verdicts::<T>::get(epoch, (index, &accuser)).ok_or("a dispute without a verdict")?;
            ensure!(!verdict.passed, "a dispute about what passed");
            let count = open.entry((epoch, (accuser, Ground::of(&verdict.outcome)))).or_default();
            *count = count.saturating_add(1);
        }
        let noted = ComplaintsOf::<T>::iter()
            .map(|(epoch, of, complaints)| ((epoch, of), complaints.open))
            .filter(|(_, open)| *open > 0);
        ensure!(noted.collect::<BTreeMap<_, _>>() == open, "open complaints are miscounted");
        Ok(())
    }

    fn check_agenda() -> Result<(), DispatchError> {
        let last = panel::over_at(LastBoundary::<T>::get().count);
        for (due, id, ()) in Agenda::<T>::iter() {
            ensure!((AgendaFrom::<T>::get()..=last).contains(&due), "the agenda is out of range");
            let dispute = Disputes::<T>::get(id.epoch, id.index);
            ensure!(dispute.is_none_or(|dispute| dispute.due == due), "a dispute is twice on the agenda");
        }
        Ok(())
    }

    fn check_panels() -> Result<(), DispatchError> {
        let oldest = Self::oldest_whole();
        let mut juries = Juries::default();
        for (epoch, (index, round), panel) in Panels::<T>::iter().filter(|(epoch, ..)| *epoch >= oldest) {
            let id = InferenceId { epoch, index };
            let dispute = Disputes::<T>::get(epoch, index).ok_or("a panel without a dispute")?;
            ensure!(round < dispute.panels, "a panel that was not counted");
            // The panels of a dispute that was over when its answer was revealed as a plant.
            let is_former = dispute.is_about_plant() && round < FIRST_ROUND;
            ensure!(
                is_former || panel.drawn_at > dispute.opened_at,
                "a panel that the accuser could have known"
            );
            let size = if panel::is_first(round) { T::FirstPanel::get() } else { T::SecondPanel::get() };
            ensure!((1..=size).contains(&(panel.members.len() as u32)), "the size of a panel");
            let record = T::Inferences::record(id).ok_or("a panel on nothing")?;
            let jury = juries.of::<T>(epoch, record.profile).ok_or("no jury")?;
            let approvers = match is_former {
                true => Approvers::default(),
                false => ApproversOf::<T>::get(epoch, index),
            };
            let mut before = None;
            for member in &panel.members {
                ensure!(before < Some(&member.host), "members are not sorted and distinct");
                before = Some(&member.host);
                ensure!(jury.weight(&member.host) == member.weight, "a member without its weight");
                let is_party =
                    member.host == record.executor || dispute.accuser.as_ref() == Some(&member.host);
                ensure!(is_former || !is_party && !approvers.contains(&member.host), "a party judges");
            }
            let tally = Self::check_seats(id, round, &panel)?;
            let found = finding(&tally.votes, panel.weight(), false);
            ensure!(
                is_former || found == Finding::Undecided || !dispute.status.is_open(),
                "a decision without effect"
            );
        }
        Ok(())
    }

    fn check_seats(id: InferenceId, round: PanelRound, panel: &Panel) -> Result<PanelTally, DispatchError> {
        let tally = PanelTallies::<T>::get(id.epoch, (id.index, round));
        let mut expected = PanelTally::default();
        for member in &panel.members {
            let Some(seat) = Seats::<T>::get(id.epoch, (id.index, round, &member.host)) else { continue };
            expected.committed = expected.committed.saturating_add(1);
            if let Some(verdict) = seat.verdict {
                expected.votes = expected.votes.with(&verdict.outcome, verdict.passed, member.weight);
            }
        }
        ensure!(tally == expected, "a tally differs from its seats");
        let seats = Seats::<T>::iter_prefix(id.epoch)
            .filter(|((index, of, _), _)| (*index, *of) == (id.index, round));
        ensure!(seats.count() as u32 == tally.committed, "a seat of nobody on the panel");
        let committing = panel.stage(LastBoundary::<T>::get().count, &tally) == Stage::Commit;
        ensure!(!committing || tally.votes == Default::default(), "a verdict is told too early");
        Ok(tally)
    }

    fn check_coverage() -> Result<(), DispatchError> {
        for (epoch, state) in Coverage::<T>::iter().filter(|(epoch, _)| *epoch >= PrunedBefore::<T>::get()) {
            ensure!(state.closed <= state.counted, "more is closed than counted");
            let mut marks: Vec<_> = CoverageMarks::<T>::iter_prefix(epoch).collect();
            if epoch.saturating_add(crate::hooks::KEPT_EPOCHS) < T::Clock::epoch().index {
                continue;
            }
            marks.sort_by_key(|(window, _)| *window);
            let mut end = 0;
            for (window, mark) in marks {
                ensure!(window <= state.windows, "a window beyond the last one");
                ensure!(mark.first == end && mark.first < mark.end, "windows do not follow each other");
                end = mark.end;
            }
            ensure!(end == state.closed, "the last window does not end where coverage does");
        }
        Ok(())
    }
}
