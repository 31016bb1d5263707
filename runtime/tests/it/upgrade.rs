//! What an upgrade of the runtime does to a chain: versions of the pallets' storage, migrations, and that everything
//! stored still decodes and adds up. `scripts/try-runtime` runs the last part.

use crate::chain::{block, run};
use frame_support::traits::{GetStorageVersion, PalletInfoAccess, StorageVersion};
use starling_runtime::{
    genesis, Authorities, Beacon, DutyCalls, Epochs, Governance, Hosts, Inference, Profiles, Rewards,
    Runtime, Sprint, System, Verification, VERSION,
};

/// Name, version in the code and version on chain.
type Versions = (&'static str, StorageVersion, StorageVersion);

fn of<P>() -> Versions
where
    P: GetStorageVersion<InCodeStorageVersion = StorageVersion> + PalletInfoAccess,
{
    (P::name(), P::in_code_storage_version(), P::on_chain_storage_version())
}

/// The pallets of ours.
fn versions() -> [Versions; 11] {
    [
        of::<Authorities>(),
        of::<Beacon>(),
        of::<DutyCalls>(),
        of::<Epochs>(),
        of::<Governance>(),
        of::<Hosts>(),
        of::<Inference>(),
        of::<Profiles>(),
        of::<Rewards>(),
        of::<Sprint>(),
        of::<Verification>(),
    ]
}

/// Makes the chain one that was begun with the runtime before, whose youngest pallets did not count versions.
fn begin_with_the_runtime_before() {
    for pallet in [DutyCalls::name(), Governance::name(), Inference::name(), Verification::name()] {
        let key = frame_support::storage::storage_prefix(
            pallet.as_bytes(),
            frame_support::traits::STORAGE_VERSION_STORAGE_KEY_POSTFIX,
        );
        frame_support::storage::unhashed::kill(&key);
    }
    frame_system::LastRuntimeUpgrade::<Runtime>::mutate(|last| {
        last.as_mut().expect("a chain knows its runtime").spec_version = (VERSION.spec_version - 1).into();
    });
}

#[test]
fn a_new_chain_has_the_versions_of_the_code() {
    for preset in [genesis::MAIN, genesis::TEST] {
        run(preset, || {
            for (pallet, in_code, on_chain) in versions() {
                assert!(in_code >= 1 && on_chain == in_code, "{pallet}: {in_code:?}, on chain {on_chain:?}");
            }
        });
    }
}

#[test]
fn the_first_block_after_an_upgrade_migrates() {
    run(genesis::TEST, || {
        block();
        begin_with_the_runtime_before();
        assert_eq!(versions().iter().filter(|(_, in_code, on_chain)| on_chain < in_code).count(), 4);
        block();
        assert!(versions().iter().all(|(_, in_code, on_chain)| on_chain == in_code));
        let last = frame_system::LastRuntimeUpgrade::<Runtime>::get().expect("it upgraded");
        assert_eq!(last.spec_version.0, VERSION.spec_version);
        assert_eq!(System::block_number(), 2);
    });
}

#[cfg(feature = "try-runtime")]
mod checked {
    use super::*;
    use crate::{
        answers::Client,
        authorities::sprint,
        chain::{block_with, epoch, next_session, Host},
        equivocations::Authority,
        governance::{propose, vote},
        state::infer,
    };
    use frame_support::traits::UpgradeCheckSelect;
    use starling_runtime::{configs::MAXIMUM_BLOCK_WEIGHT, Executive};

    /// A chain in its second epoch: weights, requests with verdicts, an open referendum, an equivocator.
    fn live() {
        block();
        sprint([4_000, 2_000, 2_000, 2_000]);
        next_session();
        let (client, gateway) = (Client::named("Eve"), Host::named("Alice"));
        block_with(|| {
            client.deposit(100 * starling_primitives::TOKEN).expect("the client has funds");
            (0..5).for_each(|n| infer(&client, &gateway, n));
            propose();
            vote("Alice", true);
            Authority::at(2).is_reported(2);
        });
        assert_eq!(epoch().index, 1);
    }

    #[test]
    fn an_upgrade_keeps_a_chain_with_content() {
        run(genesis::TEST, || {
            live();
            begin_with_the_runtime_before();
            let weight = Executive::try_runtime_upgrade(UpgradeCheckSelect::All).expect("everything fits");
            assert!(weight.all_lt(MAXIMUM_BLOCK_WEIGHT / 2), "{weight:?}");
            assert!(versions().iter().all(|(_, in_code, on_chain)| on_chain == in_code));
            // And it goes on.
            block();
        });
    }

    #[test]
    fn what_does_not_decode_is_found() {
        run(genesis::TEST, || {
            live();
            let key = pallet_hosts::Count::<Runtime>::hashed_key();
            sp_io::storage::set(&key, &[1]);
            assert!(Executive::try_runtime_upgrade(UpgradeCheckSelect::All).is_err());
        });
    }
}
