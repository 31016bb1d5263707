//! The presets.

use crate::chain::{config, run, Host};
use sp_core::Pair;
use starling_primitives::{
    schedule::Schedule,
    traits::{Clock, Hosts as _, Profiles as _},
    AccountId,
};
use starling_runtime::{genesis, Babe, Balances, Epochs, Grandpa, Hosts, Profiles, Session};

#[test]
fn workers_are_derived_from_the_hosts() {
    for ((account, _, worker), host) in genesis::DEVELOPMENT_HOSTS.iter().zip(Host::all()) {
        assert_eq!(account.to_account_id(), host.account);
        assert_eq!(AccountId::new(*worker), AccountId::from(host.worker.public()), "{account}//worker");
    }
}

#[test]
fn development_presets_have_hosts_that_are_authorities() {
    for (preset, hosts, schedule) in [
        (genesis::DEV, 1, Schedule::DEV),
        (genesis::LOCAL, 4, Schedule::DEV),
        (genesis::TEST, 4, Schedule::TEST),
    ] {
        run(preset, || {
            assert_eq!(Epochs::epoch().schedule, schedule);
            assert_eq!((Babe::slot_duration(), Hosts::count()), (2_000, hosts));
            let accounts: Vec<_> =
                Host::all().into_iter().take(hosts as usize).map(|host| host.account).collect();
            assert_eq!(Session::validators(), accounts);
            assert_eq!(Babe::authorities().len() as u32, hosts);
            assert!(Babe::authorities().iter().all(|(_, weight)| *weight == 1));
            assert_eq!(Grandpa::grandpa_authorities().len() as u32, hosts);
            let demo = Profiles::profile(0).expect("the demo profile is registered");
            assert_eq!(demo.name_lossy(), "starling-demo");
            for host in Host::all().iter().take(hosts as usize) {
                assert!(Hosts::serves(&host.account, 0));
                assert_eq!(Hosts::worker_of(&host.account), Some(AccountId::from(host.worker.public())));
            }
        });
    }
}

#[test]
fn the_template_of_a_real_network_is_empty() {
    run(genesis::MAIN, || {
        assert_eq!(Epochs::epoch().schedule, Schedule::MAIN);
        assert_eq!(Babe::slot_duration(), 5_000);
        assert_eq!(pallet_epochs::SessionSlots::<starling_runtime::Runtime>::get(), 720);
        assert_eq!((Hosts::count(), Session::validators().len()), (0, 0));
        assert!(Profiles::profile(0).is_none());
        // What accounts of pallets hold to exist is all there is.
        assert!(Balances::total_issuance() < 10 * starling_runtime::configs::EXISTENTIAL_DEPOSIT);
    });
    assert_eq!(config(genesis::MAIN).sudo.key, None);
}

#[test]
fn every_name_has_a_preset() {
    for name in genesis::preset_names() {
        assert!(genesis::preset(&name).is_some());
    }
    assert!(genesis::preset(&"other".into()).is_none());
}
