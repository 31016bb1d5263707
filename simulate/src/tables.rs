//! What the simulations came to: markdown for people, JSON lines for programs.

use crate::scenario::{Outcome, CAPACITY};
use serde::Serialize;
use starling_primitives::TOKEN;
use std::fmt::Write as _;

/// All hosts of one kind in one scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The scenario.
    pub scenario: &'static str,
    /// What the hosts do.
    pub kind: String,
    /// Whether a conviction would be a false one.
    pub honest: bool,
    /// Hosts of this kind.
    pub hosts: u32,
    /// Sum of their shares of the weight while they had any, in percent.
    pub weight_percent: f64,
    /// Convicted at least once.
    pub convicted: u32,
    /// Epochs with weight up to and including the one of the first conviction: the mean and the longest.
    pub epochs_until_caught: Option<(f64, u32)>,
    /// Bad tokens sold until then by each, on average; all that were sold, when nobody was caught.
    pub bad_tokens: f64,
    /// Accused by a verifier's sequential test.
    pub accused: u32,
    /// Plants that they revealed.
    pub plants: u32,
    /// Found negligent at least once.
    pub negligent: u32,
    /// Epochs in which they were, over all of them.
    pub negligences: u32,
    /// Epochs with weight up to and including the one of the first negligence: the mean and the longest.
    pub epochs_until_negligent: Option<(f64, u32)>,
    /// Answers of theirs.
    pub answers: u32,
    /// Requests that expired on them.
    pub expired: u32,
    /// Paid to all of them, in tokens of the chain.
    pub earned: f64,
    /// The same in percent of what honest hosts of their capacity were paid.
    pub earned_percent: f64,
    /// Bonds lost, in tokens of the chain.
    pub bond_lost: f64,
    /// Epochs whose claim was refused.
    pub claims_refused: u32,
}

/// One scenario as a whole.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The scenario.
    pub scenario: &'static str,
    /// Hosts.
    pub hosts: u32,
    /// Epochs.
    pub epochs: u32,
    /// Requests asked.
    pub requests: u64,
    /// Epochs in which an honest host had weight, over all of them.
    pub honest_host_epochs: u64,
    /// Honest hosts that were convicted.
    pub false_convictions: u32,
    /// Honest hosts that a verifier's sequential test accused.
    pub false_accusations: u32,
    /// What honest hosts were paid less than their share of the hardware of what the network without adversaries was paid, in
    /// percent. Negative: more.
    pub honest_loss_percent: f64,
    /// Tricks of clients that were refused.
    pub tricks_refused: u32,
    /// Tricks of clients that worked.
    pub tricks_worked: u32,
}

fn in_tokens(amount: u128) -> f64 {
    amount as f64 / TOKEN as f64
}

/// The rows of a scenario, in the order of its hosts.
pub fn rows(outcome: &Outcome) -> Vec<Row> {
    let fair = outcome.honest_mean() / TOKEN as f64 / f64::from(CAPACITY);
    let mut names: Vec<String> = Vec::new();
    for host in outcome.simulation.hosts() {
        let name = host.behaviour.name();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.into_iter().map(|name| row(outcome, name, fair)).collect()
}

fn row(outcome: &Outcome, kind: String, fair: f64) -> Row {
    let hosts: Vec<_> =
        outcome.simulation.hosts().iter().filter(|host| host.behaviour.name() == kind).collect();
    let count = hosts.len() as f64;
    let until = |first: fn(&crate::host::Fate) -> Option<u32>| {
        let epochs: Vec<u32> =
            hosts.iter().filter_map(|host| Some(first(&host.fate)? + 1 - host.fate.weight_since?)).collect();
        let mean = f64::from(epochs.iter().sum::<u32>()) / epochs.len().max(1) as f64;
        epochs.iter().max().map(|longest| (mean, *longest))
    };
    let share = |host: &crate::host::Host| {
        host.fate.share_ppm_sum as f64 / f64::from(host.fate.epochs_with_weight.max(1)) / 1e4
    };
    let earned: f64 = hosts.iter().map(|host| in_tokens(host.fate.earned)).sum();
    let capacity: f64 = hosts.iter().map(|host| f64::from(host.capacity)).sum();
    Row {
        scenario: outcome.scenario.name,
        honest: hosts.iter().all(|host| host.behaviour.is_honest()),
        kind,
        hosts: hosts.len() as u32,
        weight_percent: hosts.iter().map(|host| share(host)).sum(),
        convicted: hosts.iter().filter(|host| host.fate.convictions > 0).count() as u32,
        epochs_until_caught: until(|fate| fate.convicted_in),
        bad_tokens: hosts.iter().map(|host| host.fate.bad_tokens as f64).sum::<f64>() / count,
        accused: hosts.iter().filter(|host| host.fate.accused_in.is_some()).count() as u32,
        plants: hosts.iter().map(|host| host.fate.plants).sum(),
        negligent: hosts.iter().filter(|host| host.fate.negligences > 0).count() as u32,
        negligences: hosts.iter().map(|host| host.fate.negligences).sum(),
        epochs_until_negligent: until(|fate| fate.negligent_in),
        answers: hosts.iter().map(|host| host.fate.answers).sum(),
        expired: hosts.iter().map(|host| host.fate.expired).sum(),
        earned,
        earned_percent: 100.0 * earned / (fair * capacity),
        bond_lost: hosts.iter().map(|host| in_tokens(host.fate.bond_lost)).sum(),
        claims_refused: hosts.iter().map(|host| host.fate.claims_refused).sum(),
    }
}

/// The summary of a scenario, beside what a host of the same network without adversaries was paid.
pub fn summary(outcome: &Outcome, honest_mean: f64) -> Summary {
    let honest: Vec<_> =
        outcome.simulation.hosts().iter().filter(|host| host.behaviour.is_honest()).collect();
    let clients = outcome.simulation.clients();
    let hosts = outcome.simulation.hosts();
    let hardware: f64 = hosts.iter().map(|host| f64::from(host.capacity)).sum();
    let fair = honest_mean * hosts.len() as f64 * f64::from(CAPACITY) / hardware;
    Summary {
        scenario: outcome.scenario.name,
        hosts: hosts.len() as u32,
        epochs: outcome.size.epochs,
        requests: outcome.simulation.requests(),
        honest_host_epochs: honest.iter().map(|host| u64::from(host.fate.epochs_with_weight)).sum(),
        false_convictions: honest.iter().filter(|host| host.fate.convictions > 0).count() as u32,
        false_accusations: honest.iter().filter(|host| host.fate.accused_in.is_some()).count() as u32,
        honest_loss_percent: 100.0 * (1.0 - outcome.honest_mean() / fair),
        tricks_refused: clients.iter().map(|client| client.refused).sum(),
        tricks_worked: clients.iter().map(|client| client.worked).sum(),
    }
}

/// The rows as a markdown table.
pub fn markdown_rows(rows: &[Row]) -> String {
    let mut text = String::from(
        "| scenario | hosts that | number · weight | convicted | epochs until caught, mean · longest | bad tokens each | \
         accused | answers · expired | earned, of an honest host's | bond lost |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let caught =
            row.epochs_until_caught.map_or("never".into(), |(mean, most)| format!("{mean:.1} · {most}"));
        let caught = if row.honest { "-".into() } else { caught };
        writeln!(
            text,
            "| {} | {} | {} · {:.1} % | {} | {caught} | {:.0} | {} | {} · {} | {:.1} % | {:.0} |",
            row.scenario,
            row.kind,
            row.hosts,
            row.weight_percent,
            row.convicted,
            row.bad_tokens,
            row.accused,
            row.answers,
            row.expired,
            row.earned_percent,
            row.bond_lost,
        )
        .expect("a string takes everything");
    }
    text
}

/// What came of plants, as a markdown table; nothing where there were none.
pub fn markdown_plants(rows: &[Row]) -> String {
    let planted = |row: &Row| rows.iter().any(|other| other.scenario == row.scenario && other.plants > 0);
    let mut text = String::new();
    for row in rows.iter().filter(|row| planted(row)) {
        if text.is_empty() {
            text.push_str(
                "| scenario | hosts that | number | plants | negligent | epochs until then, mean · longest | negligent \
                 host-epochs | convicted | earned, of an honest host's |\n|---|---|---|---|---|---|---|---|---|\n",
            );
        }
        let until = row.epochs_until_negligent;
        let until = until.map_or("never".into(), |(mean, most)| format!("{mean:.1} · {most}"));
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {until} | {} | {} | {:.1} % |",
            row.scenario,
            row.kind,
            row.hosts,
            row.plants,
            row.negligent,
            row.negligences,
            row.convicted,
            row.earned_percent,
        )
        .expect("a string takes everything");
    }
    text
}

/// The summaries as a markdown table.
pub fn markdown_summaries(summaries: &[Summary]) -> String {
    let mut text = String::from(
        "| scenario | hosts · epochs · requests | honest host-epochs | false convictions · accusations | honest hosts lost |\n\
         |---|---|---|---|---|\n",
    );
    for summary in summaries {
        writeln!(
            text,
            "| {} | {} · {} · {} | {} | {} · {} | {:.1} % |",
            summary.scenario,
            summary.hosts,
            summary.epochs,
            summary.requests,
            summary.honest_host_epochs,
            summary.false_convictions,
            summary.false_accusations,
            summary.honest_loss_percent,
        )
        .expect("a string takes everything");
    }
    text
}
