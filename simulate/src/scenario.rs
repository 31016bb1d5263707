//! The scenarios: who is on the network, and what must come of it.

use crate::{
    adversaries::{
        BackFilled, Behaviour, Bent, Canned, Class, Fabricator, FalsePlanter, Gateway, Honest, Lazy, Leaf,
        Liar, Noisy, OtherWeights, Quantised, Renter, Shielding, Starver, Withholder,
    },
    answer::{Task, Written},
    host::Keys,
    world::{Member, Simulation, Size, Tricks},
};
use anyhow::{ensure, Result};
use rand_chacha::ChaCha8Rng;
use starling_primitives::profile::Profile;

/// Sprint nonces that an ordinary host does in a race.
pub const CAPACITY: u32 = 10_000;

/// What must come of a kind of host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// It is never convicted.
    Spared,
    /// It is convicted, every one of them.
    Caught,
    /// It earns at most so many percent more than an honest host of its capacity.
    Gains(u8),
    /// The rules as they are do not decide it; the tables show what comes of it.
    Open,
}

/// Nothing to speak of: races vary by a percent, and so do fees.
const NO_GAIN: Expect = Expect::Gains(2);
/// What liars with a third of the weight may: they have more than half of a commitment's 32 places with 1.6 %
/// (`starling_math::draw`). An honest host then loses the epoch, and who did not gains its share: the luckiest of many liars
/// some percent more than the mean.
const LIARS_GAIN: Expect = Expect::Gains(5);

/// A network.
#[derive(Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// Who is there beside honest hosts, with what must come of them.
    pub cast: fn(u32) -> Vec<(Expect, Member)>,
    /// What else goes on.
    pub tricks: Tricks,
}

const NONE: Tricks = Tricks { clients_deny: false, plants: false };
const PLANTS: Tricks = Tricks { plants: true, ..NONE };

/// All of them; the first one is what the others are compared with.
pub const SCENARIOS: [Scenario; 14] = [
    Scenario { name: "honest", cast: |_| Vec::new(), tricks: NONE },
    Scenario { name: "promised", cast: |hosts| some(hosts, || Noisy, Expect::Spared), tricks: NONE },
    Scenario { name: "other-weights", cast: |_| vec![one(OtherWeights, Expect::Caught)], tricks: NONE },
    Scenario { name: "quantised", cast: |_| quantised(), tricks: NONE },
    Scenario { name: "dressed-up", cast: |_| dressed_up(), tricks: NONE },
    Scenario { name: "withheld", cast: |_| vec![one(Withholder, Expect::Open)], tricks: NONE },
    Scenario { name: "lazy", cast: lazy, tricks: PLANTS },
    Scenario { name: "false-plants", cast: false_plants, tricks: PLANTS },
    Scenario { name: "lying", cast: lying, tricks: NONE },
    Scenario { name: "sybils", cast: |_| sybils(), tricks: NONE },
    Scenario { name: "fabricated", cast: |_| fabricated(), tricks: NONE },
    Scenario { name: "rented", cast: |_| vec![one(Renter { factor: 4 }, Expect::Open)], tricks: NONE },
    Scenario { name: "starved", cast: |_| starved(), tricks: NONE },
    Scenario { name: "denied", cast: |_| Vec::new(), tricks: Tricks { clients_deny: true, plants: false } },
];

/// The scenario of this name.
pub fn named(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name)
}

fn member(behaviour: impl Behaviour + 'static) -> Member {
    Member { behaviour: Box::new(behaviour), capacity: CAPACITY, gang: None }
}

fn one(behaviour: impl Behaviour + 'static, expect: Expect) -> (Expect, Member) {
    (expect, member(behaviour))
}

/// As many as there are hosts.
fn some<B: Behaviour + 'static>(hosts: u32, behaviour: fn() -> B, expect: Expect) -> Vec<(Expect, Member)> {
    (0..hosts).map(|_| one(behaviour(), expect)).collect()
}

fn quantised() -> Vec<(Expect, Member)> {
    let class = |class, expect| one(Quantised(class), expect);
    // Which of the milder ones stays within the limits is a matter of the profile's calibration.
    vec![
        class(Class::F16, Expect::Open),
        class(Class::Bf16, Expect::Open),
        class(Class::Int8, Expect::Open),
        class(Class::Int8Dynamic, Expect::Caught),
        class(Class::Int4, Expect::Caught),
    ]
}

fn dressed_up() -> Vec<(Expect, Member)> {
    vec![one(BackFilled, Expect::Caught), one(Bent, Expect::Caught), one(Canned::default(), Expect::Caught)]
}

/// A third approves everything; one cheats; the others plant bad answers.
fn lazy(hosts: u32) -> Vec<(Expect, Member)> {
    let lazy = (0..hosts / 3).map(|_| one(Lazy, NO_GAIN));
    lazy.chain([one(OtherWeights, Expect::Caught)]).collect()
}

/// A tenth says of good answers that they were plants.
fn false_plants(hosts: u32) -> Vec<(Expect, Member)> {
    some(hosts.div_ceil(10), || FalsePlanter, Expect::Caught)
}

/// 33 % of the weight belongs to one operator that rejects what all others do; one of its hosts serves other weights, and
/// one commits to ten times the sprint work that it has.
fn lying(hosts: u32) -> Vec<(Expect, Member)> {
    let gang = |behaviour: Box<dyn Behaviour>| Member { behaviour, capacity: CAPACITY, gang: Some(1) };
    let shielding = |inner: Box<dyn Behaviour>| gang(Box::new(Shielding(inner)));
    let liars = (hosts * 33 / 100).max(3) - 2;
    let mut cast: Vec<_> = (0..liars).map(|_| (LIARS_GAIN, gang(Box::new(Liar)))).collect();
    cast.push((Expect::Caught, shielding(Box::new(OtherWeights))));
    let fabricator = Fabricator { percent: 90, leaf: Leaf::Missing };
    cast.push((LIARS_GAIN, shielding(Box::new(fabricator))));
    cast
}

/// One operator with small hosts that are honest but for sparing each other, and one whose small hosts cheat.
fn sybils() -> Vec<(Expect, Member)> {
    const HOSTS: u32 = 3;
    let small = |gang: u32, inner: Box<dyn Behaviour>| Member {
        behaviour: Box::new(Shielding(inner)),
        capacity: CAPACITY / HOSTS,
        gang: Some(gang),
    };
    let honest = (0..HOSTS).map(|_| (NO_GAIN, small(1, Box::new(Honest))));
    let cheating = (0..HOSTS).map(|_| (Expect::Caught, small(2, Box::new(OtherWeights))));
    honest.chain(cheating).collect()
}

fn fabricated() -> Vec<(Expect, Member)> {
    let fabricator = |percent, leaf| one(Fabricator { percent, leaf }, NO_GAIN);
    let mut cast: Vec<_> = [1, 2, 5, 10].map(|percent| fabricator(percent, Leaf::Fabricated)).into();
    cast.extend([1, 10].map(|percent| fabricator(percent, Leaf::Missing)));
    cast
}

/// An executor, a gateway that skips it and a gateway that lets its requests expire.
fn starved() -> Vec<(Expect, Member)> {
    let victim = Keys::of_host(0).account;
    let starver = |how| one(Starver { victim: victim.clone(), how }, Expect::Open);
    vec![one(Starved, Expect::Spared), starver(Gateway::Skips), starver(Gateway::Swallows)]
}

/// Honest, but the one that the gateways starve.
#[derive(Debug)]
struct Starved;

impl Behaviour for Starved {
    fn name(&self) -> String {
        "starved executor".into()
    }

    fn is_honest(&self) -> bool {
        true
    }

    fn write(&mut self, task: &Task, profile: &Profile, rng: &mut ChaCha8Rng) -> Option<Written> {
        Honest.write(task, profile, rng)
    }
}

/// A simulation that has run, with what was expected of each host.
#[derive(Debug)]
pub struct Outcome {
    /// Whose it is.
    pub scenario: &'static Scenario,
    /// Its size.
    pub size: Size,
    /// The network after the last epoch.
    pub simulation: Simulation,
    /// By host.
    pub expected: Vec<Expect>,
}

impl Scenario {
    /// Runs it. The cast comes first; honest hosts fill up to the size.
    pub fn run(&'static self, size: Size) -> Result<Outcome> {
        let mut cast = (self.cast)(size.hosts);
        while (cast.len() as u32) < size.hosts {
            cast.push(one(Honest, Expect::Spared));
        }
        let (expected, members): (Vec<_>, Vec<_>) = cast.into_iter().unzip();
        let mut simulation = Simulation::new(self.name, size, members, self.tricks);
        simulation.run()?;
        Ok(Outcome { scenario: self, size, simulation, expected })
    }
}

impl Outcome {
    /// What honest hosts were paid on average, in the smallest unit.
    pub fn honest_mean(&self) -> f64 {
        let honest = self.simulation.hosts().iter().filter(|host| host.behaviour.is_honest());
        let earned: Vec<f64> = honest.map(|host| host.fate.earned as f64).collect();
        earned.iter().sum::<f64>() / earned.len().max(1) as f64
    }

    /// Refuses what must not happen.
    pub fn check(&self) -> Result<()> {
        let mean = self.honest_mean();
        for (host, expect) in self.simulation.hosts().iter().zip(&self.expected) {
            let (name, fate) = (host.behaviour.name(), &host.fate);
            if host.behaviour.is_honest() {
                ensure!(
                    fate.convictions == 0,
                    "{}: an honest host was convicted: {name}",
                    self.scenario.name
                );
                ensure!(fate.negligences == 0, "{}: an honest host is negligent: {name}", self.scenario.name);
            }
            match expect {
                Expect::Caught => {
                    ensure!(fate.convictions > 0, "{}: not caught: {name}: {fate:?}", self.scenario.name);
                }
                Expect::Gains(percent) => {
                    let fair = mean * f64::from(host.capacity) / f64::from(CAPACITY);
                    let earned = fate.earned as f64;
                    ensure!(
                        earned <= fair * (1.0 + f64::from(*percent) / 100.0),
                        "{}: {name} gains: {earned} of {fair}",
                        self.scenario.name
                    );
                }
                Expect::Spared => ensure!(fate.convictions == 0, "{}: {name} fell", self.scenario.name),
                Expect::Open => {}
            }
        }
        let tricks: u32 = self.simulation.clients().iter().map(|client| client.worked).sum();
        ensure!(tricks == 0, "{}: a client got its money back for a good answer", self.scenario.name);
        let denying = self.simulation.clients().iter().filter(|client| client.denies);
        for client in denying {
            ensure!(client.refused > 0, "{}: the client never tried", self.scenario.name);
        }
        Ok(())
    }
}
