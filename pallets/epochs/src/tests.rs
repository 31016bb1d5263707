//! The clock, through a few epochs.

use crate::{mock::*, Current, Error, Event, NextSchedule, Previous, WeightInfo};
use frame_support::{assert_noop, assert_ok, traits::Hooks};
use proptest::prelude::*;
use sp_runtime::DispatchError;
use starling_math::clock::{phase, Phase};
use starling_primitives::{schedule::Schedule, traits::Clock};

fn events() -> Vec<Event<Test>> {
    let events = System::events();
    System::reset_events();
    events
        .into_iter()
        .filter_map(|record| match record.event {
            RuntimeEvent::Epochs(event) => Some(event),
            _ => None,
        })
        .collect()
}

#[test]
fn an_epoch_passes_its_stages_in_order() {
    build_and_execute(|| {
        run_to(59);
        use Told::*;
        assert_eq!(told(), [(30, Reveal(0)), (36, Gun(0, 2)), (47, Check(0))]);
        assert_eq!(Epochs::epoch().index, 0);
        assert_eq!(phase(&Epochs::epoch(), 59), Phase::Check);
        run_to(61);
        assert_eq!(told(), [(60, Change(0))]);
        assert_eq!((Epochs::epoch().index, Epochs::epoch().start), (1, 60));
        assert_eq!(Epochs::previous().map(|epoch| epoch.index), Some(0));
        run_to(120);
        assert_eq!(
            told(),
            [(78, Claims(1)), (90, Reveal(1)), (96, Gun(1, 2)), (107, Check(1)), (120, Change(1))]
        );
    });
}

#[test]
fn events_name_each_boundary() {
    build_and_execute(|| {
        run_to(80);
        assert_eq!(
            events(),
            [
                Event::RevealStarted { epoch: 0 },
                Event::RaceStarted { epoch: 0 },
                Event::CommitStarted { epoch: 0 },
                Event::CheckStarted { epoch: 0 },
                Event::EpochStarted { epoch: 1, block: 60 },
                Event::ClaimsOpen { epoch: 0 },
            ]
        );
    });
}

#[test]
fn coverage_windows_begin_with_the_epoch() {
    build_and_execute(|| {
        run_to(59);
        let blocks: Vec<_> = told_coverage().into_iter().map(|(block, _)| block).collect();
        assert_eq!(blocks, (1..12).map(|window| window * 5).collect::<Vec<_>>());
        run_to(66);
        assert_eq!(told_coverage(), [(65, Told::Coverage(1, 5))]);
    });
}

#[test]
fn missing_contributions_extend_the_reveal_and_shift_the_rest() {
    build_and_execute(|| {
        refuse_seed(1);
        run_to(66);
        use Told::*;
        assert_eq!(
            told(),
            [(30, Reveal(0)), (36, Gun(0, 2)), (42, Gun(0, 1)), (53, Check(0)), (66, Change(0))]
        );
        assert!(events().contains(&Event::RevealExtended { epoch: 0, extension: 6 }));
        assert_eq!(Epochs::epoch().extension, 0);
        assert_eq!(Epochs::previous().map(|epoch| epoch.extension), Some(6));
    });
}

#[test]
fn without_a_seed_the_sprint_is_cancelled_and_the_epoch_still_ends() {
    build_and_execute(|| {
        refuse_seed(3);
        run_to(72);
        use Told::*;
        assert_eq!(
            told(),
            [(30, Reveal(0)), (36, Gun(0, 2)), (42, Gun(0, 1)), (48, Gun(0, 0)), (72, Change(0))]
        );
        let events = events();
        assert!(events.contains(&Event::SprintCancelled { epoch: 0 }));
        assert!(!events.contains(&Event::RaceStarted { epoch: 0 }));
        assert!(!events.contains(&Event::CommitStarted { epoch: 0 }));
        assert_eq!(Epochs::previous().map(|epoch| epoch.sprint_cancelled), Some(true));
        assert!(!Epochs::epoch().sprint_cancelled);
    });
}

#[test]
fn a_schedule_takes_effect_at_the_boundary_only() {
    build_and_execute(|| {
        run_to(10);
        assert_noop!(
            Epochs::propose_schedule(RuntimeOrigin::signed(1), Schedule::DEV),
            DispatchError::BadOrigin
        );
        assert_ok!(Epochs::propose_schedule(RuntimeOrigin::root(), Schedule::DEV));
        assert_eq!(events(), [Event::ScheduleProposed { schedule: Schedule::DEV }]);
        run_to(59);
        assert_eq!(Current::<Test>::get().schedule, Schedule::TEST);
        run_to(60);
        assert_eq!(Current::<Test>::get().schedule, Schedule::DEV);
        assert_eq!(Previous::<Test>::get().map(|epoch| epoch.schedule), Some(Schedule::TEST));
        assert_eq!(NextSchedule::<Test>::get(), None);
        run_to(149);
        assert_eq!(Epochs::epoch().index, 1);
        run_to(150);
        assert_eq!(Epochs::epoch().index, 2);
    });
}

#[test]
fn an_invalid_schedule_is_refused_when_it_is_proposed() {
    build_and_execute(|| {
        let check = |schedule: Schedule, error: Error<Test>| {
            assert_noop!(Epochs::propose_schedule(RuntimeOrigin::root(), schedule), error);
        };
        check(Schedule { race_start: 10, ..Schedule::TEST }, Error::StagesOutOfOrder);
        check(Schedule { grace_blocks: 40, ..Schedule::TEST }, Error::GraceOutOfRange);
        check(Schedule { sprint_samples: 0, ..Schedule::TEST }, Error::ValueOutOfRange);
    });
}

#[test]
fn a_boundary_is_charged_for() {
    type Weights = crate::weights::SubstrateWeight<Test>;
    build_and_execute(|| {
        System::set_block_number(1);
        assert_eq!(Epochs::on_initialize(1), Weights::tick());
        run_to(29);
        System::set_block_number(30);
        assert_eq!(Epochs::on_initialize(30), Weights::boundary());
        assert!(Weights::boundary().ref_time() > Weights::tick().ref_time());
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_valid_schedule_runs(
        lengths in prop::array::uniform5(1u32..20),
        coverage in 1u32..5,
        expiry in 1u32..5,
        refusals in 0u32..12,
    ) {
        let grace = 2 * coverage + expiry;
        let [serving, reveal, race, commit, check] = lengths;
        let reveal_start = grace + serving;
        let schedule = Schedule {
            reveal_start,
            race_start: reveal_start + reveal,
            commit_start: reveal_start + reveal + race,
            check_start: reveal_start + reveal + race + commit,
            epoch_blocks: reveal_start + reveal + race + commit + check,
            coverage_blocks: coverage,
            expiry_blocks: expiry,
            grace_blocks: grace,
            ..Schedule::TEST
        };
        build_and_execute(|| {
            assert_ok!(Epochs::propose_schedule(RuntimeOrigin::root(), schedule));
            run_to(60);
            refuse_seed(refusals);
            run_to(60 + 4 * (schedule.epoch_blocks + 2 * reveal));
            prop_assert!(Epochs::epoch().index >= 5);
            Ok(())
        })?;
    }
}
