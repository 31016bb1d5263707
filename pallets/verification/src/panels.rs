//! Panels: drawn at a coverage boundary, committed to, revealed, and over some boundaries later.
//!
//! Everything that time asks for stands in the [`Agenda`], by the boundary at which it is due: the draw of a panel, and the
//! end of one. A block works off as much of it as [`Config::MaxSeatsPerBlock`] allows; what is left is done in the next one.

use crate::{
    cost::{self, AgendaWork, Shape},
    types::{Boundary, Dispute, DisputeStatus, Member, Panel, PanelTally, Refusal, Seat, MAX_PANEL},
    verdicts::{judge_outcome, Frame, Juries},
    Agenda, AgendaFrom, ApproversOf, Config, Disputes, Event, LastBoundary, Pallet, PanelTallies, Panels,
    Seats, VerdictRecord, Verdicts,
};
use alloc::vec::Vec;
use frame_support::{
    traits::{ConstU32, Get},
    weights::Weight,
    BoundedVec,
};
use starling_math::{
    dispute::finding,
    panel::{self, Case, Stage, PANELS},
};
use starling_primitives::{
    records::InferenceRecord,
    traits::{Beacon, HostWeight, Hosts, Inferences, Reputation, Round},
    verdict::{PanelCommit, PanelReveal, PanelRound},
    AccountId, EpochIndex, InferenceId,
};

/// What a step of a dispute costs beside its seats, in seats.
const DISPUTE_SEATS: u32 = 8;

/// A reveal that may be taken.
struct Revealed {
    record: InferenceRecord,
    verdict: VerdictRecord,
    seat: Seat,
    tally: PanelTally,
    panel: Panel,
}

impl<T: Config> Pallet<T> {
    // ---- what time asks for ----

    /// A coverage boundary of the current epoch: its seed was drawn just now.
    pub(crate) fn pass_boundary(epoch: EpochIndex, window: u32) {
        LastBoundary::<T>::mutate(|boundary| {
            *boundary = Boundary { count: boundary.count.saturating_add(1), epoch, window };
        });
    }

    /// Draws and closes the panels that are due, as many as fit into a block.
    pub(crate) fn work_off_agenda() -> Weight {
        let boundary = LastBoundary::<T>::get();
        let mut left = T::MaxSeatsPerBlock::get();
        let mut done = AgendaWork::default();
        let mut juries = Juries::default();
        let first = AgendaFrom::<T>::get();
        let mut from = first;
        while from <= boundary.count && left > 0 {
            match Agenda::<T>::iter_key_prefix(from).next() {
                Some(id) => {
                    Agenda::<T>::remove(from, id);
                    let AgendaWork { drawn, closed, approvers, .. } =
                        Self::proceed(id, &boundary, &mut juries, left);
                    done = AgendaWork {
                        disputes: done.disputes.saturating_add(1),
                        drawn: done.drawn.saturating_add(drawn),
                        closed: done.closed.saturating_add(closed),
                        approvers: done.approvers.saturating_add(approvers),
                    };
                    let looked_at = drawn.saturating_add(closed).saturating_add(approvers);
                    left = left.saturating_sub(looked_at.saturating_add(DISPUTE_SEATS));
                }
                None => from = from.saturating_add(1),
            }
        }
        if from != first {
            AgendaFrom::<T>::put(from);
        }
        cost::agenda::<T>(done)
    }

    /// Takes a dispute one step further; returns what was looked at. What is left of a plant's approvers comes back in the next
    /// block.
    fn proceed(id: InferenceId, boundary: &Boundary, juries: &mut Juries, most: u32) -> AgendaWork {
        let Some(dispute) = Disputes::<T>::get(id.epoch, id.index) else { return AgendaWork::default() };
        if dispute.status == DisputeStatus::Planted {
            // Nobody who approved it says that it was good.
            Self::settle(id, &dispute, false, false);
        }
        let approvers = Self::release_approvers(id, most);
        let done = AgendaWork { approvers, ..AgendaWork::default() };
        if approvers >= most {
            Agenda::<T>::insert(dispute.due, id, ());
            return done;
        }
        if dispute.status == DisputeStatus::Planted {
            return done;
        }
        let AgendaWork { drawn, closed, .. } = Self::step(id, &dispute, boundary, juries);
        // A contest that ends only here convicted nobody.
        Self::release_approvers(id, most);
        AgendaWork { drawn, closed, ..done }
    }

    fn step(id: InferenceId, dispute: &Dispute, boundary: &Boundary, juries: &mut Juries) -> AgendaWork {
        let nothing = AgendaWork::default();
        if !Self::takes_verdicts(id.epoch) {
            // The claims are over, and nobody could speak any more.
            if dispute.status.is_open() {
                Self::settle(id, dispute, true, false);
            }
            return nothing;
        }
        match dispute.status {
            DisputeStatus::Waiting => {
                AgendaWork { drawn: Self::draw_panel(id, dispute, boundary, juries), ..nothing }
            }
            _ => AgendaWork { closed: Self::close_panel(id, dispute, boundary), ..nothing },
        }
    }

    /// Draws the next panel of a dispute. Where nobody remains who could sit on it, nobody contradicts the executor.
    fn draw_panel(id: InferenceId, dispute: &Dispute, boundary: &Boundary, juries: &mut Juries) -> u32 {
        let members = Self::seated(id, dispute, boundary, juries);
        let size = members.len() as u32;
        if size == 0 {
            Self::settle(id, dispute, true, false);
            return 0;
        }
        let round = dispute.panels;
        let panel = Panel { drawn: boundary.count, drawn_at: Self::now(), members };
        Panels::<T>::insert(id.epoch, (id.index, round), panel);
        let (panels, status) = (round.saturating_add(1), DisputeStatus::Judging);
        let due = panel::over_at(boundary.count);
        Self::put_off(id, Dispute { panels, status, due, ..dispute.clone() });
        Self::deposit_event(Event::PanelDrawn { id, round, size });
        size
    }

    fn seated(
        id: InferenceId,
        dispute: &Dispute,
        boundary: &Boundary,
        juries: &mut Juries,
    ) -> BoundedVec<Member, ConstU32<MAX_PANEL>> {
        let record = T::Inferences::record(id);
        let seed = T::Beacon::seed(Round::Coverage(boundary.epoch, boundary.window));
        let (Some(record), Some(seed)) = (record, seed) else { return BoundedVec::new() };
        let Some(jury) = juries.of::<T>(id.epoch, record.profile) else { return BoundedVec::new() };
        let mut parties: Vec<AccountId> = dispute.accuser.iter().cloned().collect();
        parties.push(record.executor);
        let case = Case { request_id: &record.request_id, round: dispute.panels, parties: &parties };
        let size = match panel::is_first(dispute.panels) {
            true => T::FirstPanel::get(),
            false => T::SecondPanel::get(),
        };
        let now = Self::now();
        let approvers = ApproversOf::<T>::get(id.epoch, id.index);
        // Who was suspended or has left since the epoch began cannot speak; who declared that it is down need not; nor does an
        // approver judge whether it looked.
        let may_act = |host: &AccountId| {
            let worker = T::Hosts::worker_of(host);
            approvers.binary_search(host).is_err()
                && worker.and_then(|worker| T::Hosts::host_of(&worker)).as_ref() == Some(host)
                && !T::Hosts::is_away(host, now, now)
        };
        let drawn = panel::draw(&seed, &case, &jury.hosts, size.min(MAX_PANEL), may_act);
        let member = |drawn: HostWeight| Member { host: drawn.host, weight: drawn.weight };
        BoundedVec::truncate_from(drawn.into_iter().map(member).collect())
    }

    /// A panel's time is over: who kept silent has a miss, unless it had declared to be down; and if it has not decided, the next panel follows, or the answer
    /// stands.
    fn close_panel(id: InferenceId, dispute: &Dispute, boundary: &Boundary) -> u32 {
        let Some(round) = dispute.panels.checked_sub(1) else { return 0 };
        let Some(panel) = Panels::<T>::get(id.epoch, (id.index, round)) else { return 0 };
        for member in &panel.members {
            let silent = Self::has_not_revealed(id, round, &member.host);
            if silent && !T::Hosts::is_away(&member.host, panel.drawn_at, Self::now()) {
                <Self as Reputation>::on_missed(&member.host, id.epoch);
            }
        }
        let record = T::Inferences::record(id);
        let votes = PanelTallies::<T>::get(id.epoch, (id.index, round)).votes;
        let found = record.map(|record| (record.executor, finding(&votes, panel.weight(), true)));
        let decided = found.is_some_and(|(executor, found)| Self::decide(id, dispute, &executor, found));
        if !decided && dispute.status.is_open() {
            if panel::another_follows(dispute.panels) {
                // The next seed is unknown to those who voted, too.
                let (status, due) = (DisputeStatus::Waiting, boundary.count.saturating_add(1));
                Self::put_off(id, Dispute { status, due, ..dispute.clone() });
            } else {
                Self::settle(id, dispute, true, false);
            }
        }
        panel.members.len() as u32
    }

    pub(crate) fn put_off(id: InferenceId, dispute: Dispute) {
        Agenda::<T>::insert(dispute.due, id, ());
        Disputes::<T>::insert(id.epoch, id.index, dispute);
    }

    fn has_not_revealed(id: InferenceId, round: PanelRound, host: &AccountId) -> bool {
        Seats::<T>::get(id.epoch, (id.index, round, host)).is_none_or(|seat| seat.verdict.is_none())
    }

    /// The panel at work, or the next one, will not be heard.
    pub(crate) fn dissolve_panel(id: InferenceId, dispute: &Dispute) {
        Agenda::<T>::remove(dispute.due, id);
        let Some(round) = dispute.panels.checked_sub(1) else { return };
        if dispute.status == DisputeStatus::Judging {
            Panels::<T>::remove(id.epoch, (id.index, round));
            PanelTallies::<T>::remove(id.epoch, (id.index, round));
        }
    }

    // ---- what members do ----

    /// Takes what it can of the commitments.
    pub(crate) fn do_commit(host: &AccountId, items: &[PanelCommit]) {
        for item in items {
            let (id, round) = (item.inference, item.round);
            match Self::admit_commit(host, item) {
                Ok(tally) => {
                    let committed = tally.committed.saturating_add(1);
                    PanelTallies::<T>::insert(id.epoch, (id.index, round), PanelTally { committed, ..tally });
                    let seat = Seat { commitment: item.commitment, verdict: None };
                    Seats::<T>::insert(id.epoch, (id.index, round, host), seat);
                    Self::deposit_event(Event::VerdictCommitted { id, round, host: host.clone() });
                }
                Err(reason) => Self::deposit_event(Event::VerdictRefused { id, reason }),
            }
        }
    }

    fn admit_commit(host: &AccountId, item: &PanelCommit) -> Result<PanelTally, Refusal> {
        let id = item.inference;
        let (_, tally) = Self::panel_at(id, item.round, host, Stage::Commit)?;
        if Seats::<T>::contains_key(id.epoch, (id.index, item.round, host)) {
            return Err(Refusal::Duplicate);
        }
        Ok(tally)
    }

    /// The panel that the host sits on, if it is at this stage.
    fn panel_at(
        id: InferenceId,
        round: PanelRound,
        host: &AccountId,
        stage: Stage,
    ) -> Result<(Panel, PanelTally), Refusal> {
        if !Self::takes_verdicts(id.epoch) {
            return Err(Refusal::EpochClosed);
        }
        let panel = Panels::<T>::get(id.epoch, (id.index, round)).ok_or(Refusal::NotOnPanel)?;
        panel.member(host).ok_or(Refusal::NotOnPanel)?;
        let tally = PanelTallies::<T>::get(id.epoch, (id.index, round));
        if panel.stage(LastBoundary::<T>::get().count, &tally) != stage {
            return Err(Refusal::WrongStage);
        }
        Ok((panel, tally))
    }

    /// Takes what it can of the reveals.
    pub(crate) fn do_reveal(host: &AccountId, items: &[PanelReveal]) -> Shape {
        let frame = Frame { verifier: host, now: Self::now() };
        let mut juries = Juries::default();
        let mut shape = Shape::default();
        for item in items {
            match Self::admit_reveal(&frame, &mut juries, item) {
                Ok(revealed) => {
                    let dearer = Self::take_reveal(&frame, &mut juries, item, revealed);
                    shape.taken = shape.taken.saturating_add(1);
                    shape.dearer = shape.dearer.saturating_add(dearer.into());
                }
                Err(reason) => {
                    shape.refused = shape.refused.saturating_add(1);
                    Self::deposit_event(Event::VerdictRefused { id: item.inference, reason });
                }
            }
        }
        shape.juries = juries.len();
        shape
    }

    fn admit_reveal(frame: &Frame, juries: &mut Juries, item: &PanelReveal) -> Result<Revealed, Refusal> {
        let (id, host) = (item.inference, frame.verifier);
        let (panel, tally) = Self::panel_at(id, item.round, host, Stage::Reveal)?;
        let seat = Seats::<T>::get(id.epoch, (id.index, item.round, host)).ok_or(Refusal::NotCommitted)?;
        if seat.verdict.is_some() {
            return Err(Refusal::Duplicate);
        }
        if item.commitment(host) != seat.commitment {
            return Err(Refusal::OtherCommitment);
        }
        let record = T::Inferences::record(id).ok_or(Refusal::UnknownInference)?;
        let result = record.result.as_ref().ok_or(Refusal::NotFinished)?;
        let jury = juries.of::<T>(id.epoch, record.profile).ok_or(Refusal::NotServing)?;
        let calibration = jury.calibration.ok_or(Refusal::UnknownProfile)?;
        let passed = judge_outcome(&item.outcome, result, &calibration)?;
        let verdict = VerdictRecord { outcome: item.outcome, passed, at: frame.now };
        Ok(Revealed { record, verdict, seat, tally, panel })
    }

    /// Lets a reveal count for its panel and, where the member has not said as much before, as its own verdict. Returns
    /// whether that decided the dispute, or accused.
    fn take_reveal(frame: &Frame, juries: &mut Juries, item: &PanelReveal, revealed: Revealed) -> bool {
        let Revealed { record, verdict, seat, tally, panel } = revealed;
        let (id, round, host) = (item.inference, item.round, frame.verifier);
        let place = (id.index, round);
        Seats::<T>::insert(id.epoch, (id.index, round, host), Seat { verdict: Some(verdict), ..seat });
        let weight = panel.member(host).map_or(0, |member| member.weight);
        let votes = tally.votes.with(&verdict.outcome, verdict.passed, weight);
        PanelTallies::<T>::insert(id.epoch, place, PanelTally { votes, ..tally });
        let passed = verdict.passed;
        Self::deposit_event(Event::VerdictRevealed { id, round, host: host.clone(), passed });

        let known = Verdicts::<T>::get(id.epoch, (id.index, host));
        let says_more = known.is_none_or(|known| known.is_replaced_by(&verdict.outcome));
        let accused = says_more && Self::keep(frame, juries, id, &record, verdict);

        let Some(dispute) = Disputes::<T>::get(id.epoch, id.index) else { return accused };
        let found = finding(&votes, panel.weight(), false);
        Self::decide(id, &dispute, &record.executor, found) || accused
    }

    // ---- what fees and claims ask for ----

    /// Whether a commitment of this worker's would be taken.
    pub(crate) fn may_commit(host: &AccountId, items: &[PanelCommit]) -> bool {
        items.iter().any(|item| Self::admit_commit(host, item).is_ok())
    }

    /// Whether a reveal of this worker's would be taken.
    pub(crate) fn may_reveal(host: &AccountId, items: &[PanelReveal]) -> bool {
        let frame = Frame { verifier: host, now: Self::now() };
        let mut juries = Juries::default();
        items.iter().any(|item| Self::admit_reveal(&frame, &mut juries, item).is_ok())
    }

    /// Whether the host owes a panel on this inference its verdict: it could reveal and has not; or it was silent, and has
    /// not made that good by a verdict of its own.
    pub(crate) fn owes_panel(id: InferenceId, host: &AccountId) -> bool {
        let now = LastBoundary::<T>::get().count;
        (0..PANELS).any(|round| {
            let Some(panel) = Panels::<T>::get(id.epoch, (id.index, round)) else { return false };
            if panel.member(host).is_none() || !Self::has_not_revealed(id, round, host) {
                return false;
            }
            match panel.stage(now, &PanelTallies::<T>::get(id.epoch, (id.index, round))) {
                Stage::Commit => false,
                Stage::Reveal => Seats::<T>::contains_key(id.epoch, (id.index, round, host)),
                Stage::Over => !Verdicts::<T>::contains_key(id.epoch, (id.index, host)),
            }
        })
    }
}
