//! The books: every unit of money is where the events say it went (protocol, section 9).

use anyhow::{ensure, Result};
use frame_support::traits::fungible::InspectHold;
use starling_primitives::{records::InferenceState, AccountId, Balance};
use starling_runtime::{
    configs::EXISTENTIAL_DEPOSIT, Balances, Inference, Rewards, Runtime, RuntimeEvent, RuntimeHoldReason,
};

/// What flowed since the start, as the events tell it.
#[derive(Clone, Debug)]
pub struct Books {
    /// What the issuance must be.
    issuance: Balance,
    /// Clients' deposits, less withdrawals.
    deposited: Balance,
    /// Emission.
    minted: Balance,
    /// Paid to hosts by claims.
    claimed: Balance,
    /// Burned with what was left in a pot.
    burned: Balance,
    /// Given back to clients from bonds.
    from_bonds: Balance,
}

impl Books {
    /// Opens the books of a new chain.
    pub fn open() -> Self {
        let issuance = Balances::total_issuance();
        Self { issuance, deposited: 0, minted: 0, claimed: 0, burned: 0, from_bonds: 0 }
    }

    /// Takes in what happened.
    pub fn note(&mut self, event: &RuntimeEvent) {
        use pallet_rewards::Event as Pot;
        use pallet_verification::{Accuser, Event as Verification};
        match event {
            RuntimeEvent::Inference(pallet_inference::Event::Deposited { amount, .. }) => {
                self.deposited += amount;
            }
            RuntimeEvent::Inference(pallet_inference::Event::Withdrawn { amount, .. }) => {
                self.deposited -= amount;
            }
            RuntimeEvent::Rewards(Pot::Minted { amount, .. }) => {
                self.minted += amount;
                self.issuance += amount;
            }
            RuntimeEvent::Rewards(Pot::Claimed { emission, fees, .. }) => self.claimed += emission + fees,
            RuntimeEvent::Rewards(Pot::Refunded { from_bond, .. }) => self.from_bonds += from_bond,
            RuntimeEvent::Rewards(Pot::Burned { amount, .. }) => {
                self.burned += amount;
                self.issuance -= amount;
            }
            RuntimeEvent::Hosts(pallet_hosts::Event::BondBurned { amount, .. }) => self.issuance -= amount,
            RuntimeEvent::Verification(Verification::FraudUnproven {
                accuser: Accuser::Account(_),
                burned,
                ..
            }) => self.issuance -= burned,
            _ => {}
        }
    }

    /// Refuses books that do not balance to the unit.
    pub fn check(&self) -> Result<()> {
        ensure!(Balances::total_issuance() == self.issuance, "the events do not explain the issuance");
        let held = |account: &AccountId| Balances::free_balance(account) - EXISTENTIAL_DEPOSIT;
        let (deposits, pots) = (held(&Inference::account_id()), held(&Rewards::pots_account()));
        ensure!(
            self.deposited + self.minted + self.from_bonds == self.claimed + self.burned + deposits + pots,
            "deposits and emission are not what was paid, burned and is still held"
        );
        check_deposits(deposits)?;
        let sum: Balance = pallet_rewards::Pots::<Runtime>::iter_values().filter_map(|pot| pot.held()).sum();
        ensure!(pots == sum, "the pots hold {pots}, their ledger {sum}");
        for (host, info) in pallet_hosts::Hosts::<Runtime>::iter() {
            let reason = RuntimeHoldReason::Hosts(pallet_hosts::HoldReason::Bond);
            ensure!(Balances::balance_on_hold(&reason, &host) == info.bond, "the bond of {host} is not held");
        }
        Ok(())
    }
}

/// Deposits are covered, and what is reserved is the sum of what runs.
fn check_deposits(held: Balance) -> Result<()> {
    let deposits: Vec<_> = pallet_inference::Deposits::<Runtime>::iter_values().collect();
    let waiting: Balance =
        pallet_inference::PendingFees::<Runtime>::iter_values().flatten().map(|(_, amount)| amount).sum();
    let owed: Balance = deposits.iter().map(|deposit| deposit.free + deposit.reserved).sum();
    ensure!(held == owed + waiting, "deposits of {owed} and fees of {waiting} lie in {held}");
    let running: Balance = pallet_inference::Inferences::<Runtime>::iter_values()
        .filter(|record| record.state == InferenceState::Started)
        .map(|record| record.amount)
        .sum();
    let reserved: Balance = deposits.iter().map(|deposit| deposit.reserved).sum();
    ensure!(reserved == running, "{reserved} is reserved for requests of {running}");
    Ok(())
}
