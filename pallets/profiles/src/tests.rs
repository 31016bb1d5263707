//! Registering and retiring.

use crate::{mock::*, Count, Error, Event};
use frame_support::{assert_noop, assert_ok};
use sp_runtime::DispatchError;
use starling_primitives::{profile::Profile, traits::Profiles as _};

#[test]
fn ids_are_dense_from_the_genesis_on() {
    build_and_execute(|| {
        assert_eq!(Profiles::profile(0), Some(profile("genesis")));
        assert_ok!(Profiles::register(RuntimeOrigin::root(), profile("second")));
        System::assert_last_event(
            Event::Registered { id: 1, name: b"second".to_vec().try_into().unwrap() }.into(),
        );
        assert_eq!(Profiles::profile(1), Some(profile("second")));
        assert_eq!(Profiles::profile(2), None);
        assert_eq!(Profiles::registered(2), None);
    });
}

#[test]
fn only_governance_registers_and_retires() {
    build_and_execute(|| {
        let signed = || RuntimeOrigin::signed(1);
        assert_noop!(Profiles::register(signed(), profile("second")), DispatchError::BadOrigin);
        assert_noop!(Profiles::retire(signed(), 0), DispatchError::BadOrigin);
    });
}

#[test]
fn what_cannot_be_served_is_refused() {
    build_and_execute(|| {
        let check = |profile: Profile, error: Error<Test>| {
            assert_noop!(Profiles::register(RuntimeOrigin::root(), profile), error);
        };
        check(Profile { top_k: 0, ..profile("x") }, Error::InvalidProfile);
        check(Profile { top_k: 21, ..profile("x") }, Error::InvalidProfile);
        check(profile(""), Error::InvalidProfile);
        check(Profile { completion_work: 0, ..profile("x") }, Error::InvalidProfile);
        check(profile("genesis"), Error::NameTaken);
        for name in ["a", "b", "c"] {
            assert_ok!(Profiles::register(RuntimeOrigin::root(), profile(name)));
        }
        check(profile("d"), Error::TooManyProfiles);
        assert_eq!(Count::<Test>::get(), 4);
    });
}

#[test]
fn retiring_takes_effect_at_the_boundary_and_forgets_nothing() {
    build_and_execute(|| {
        Epoch::set(5);
        assert_noop!(Profiles::retire(RuntimeOrigin::root(), 7), Error::<Test>::UnknownProfile);
        assert_ok!(Profiles::retire(RuntimeOrigin::root(), 0));
        System::assert_last_event(Event::Retired { id: 0 }.into());
        assert_noop!(Profiles::retire(RuntimeOrigin::root(), 0), Error::<Test>::AlreadyRetired);
        assert!(Profiles::profile(0).is_some());
        Epoch::set(6);
        assert_eq!(Profiles::profile(0), None);
        assert_eq!(Profiles::registered(0), Some(profile("genesis")));
    });
}

#[test]
fn a_name_is_free_again_after_retiring() {
    build_and_execute(|| {
        assert_ok!(Profiles::retire(RuntimeOrigin::root(), 0));
        assert_ok!(Profiles::register(RuntimeOrigin::root(), profile("genesis")));
        assert!(Profiles::profile(1).is_some());
    });
}
