//! Every scenario, on small networks and for a few epochs: cheats are caught, honest hosts are spared, the books balance.

use starling_simulate::{
    scenario::{self, Outcome},
    tables,
    world::Size,
};

const SIZE: Size = Size { hosts: 12, epochs: 5, requests: 60, tokens: 64, seed: 7 };

fn run(name: &str) -> Outcome {
    let scenario = scenario::named(name).expect("a scenario");
    let outcome = scenario.run(SIZE).expect("the books balance");
    outcome.check().expect("what must come of it");
    outcome
}

macro_rules! scenarios {
    ($($test:ident: $name:literal,)*) => {
        $(
            #[test]
            fn $test() {
                run($name);
            }
        )*

        #[test]
        fn all_scenarios_are_tested() {
            let tested = [$($name,)* "honest"];
            for scenario in &scenario::SCENARIOS {
                assert!(tested.contains(&scenario.name), "{}", scenario.name);
            }
        }
    };
}

scenarios! {
    the_noisiest_honest_hosts_are_spared: "promised",
    other_weights_are_caught: "other-weights",
    coarse_quantisation_is_caught: "quantised",
    dressed_up_text_is_caught: "dressed-up",
    withholding_transcripts_harms_no_honest_host: "withheld",
    lazy_verifiers_cannot_shield_a_cheat: "lazy",
    false_planters_convict_only_themselves: "false-plants",
    a_third_of_liars_can_neither_convict_nor_shield: "lying",
    sybils_gain_nothing: "sybils",
    made_up_sprint_work_gains_nothing: "fabricated",
    renting_for_the_race_harms_no_honest_host: "rented",
    a_starved_executor_is_not_convicted: "starved",
    denying_an_answer_does_not_pay: "denied",
}

#[test]
fn who_approves_everything_is_found_negligent() {
    let outcome = run("lazy");
    let rows = tables::rows(&outcome);
    let of = |kind: &str| rows.iter().find(|row| row.kind == kind).expect("a row");
    let (lazy, honest) = (of("lazy verifier"), of("honest"));
    assert_eq!((lazy.hosts, lazy.negligent, lazy.convicted), (4, 4, 0), "{lazy:?}");
    assert!(lazy.earned_percent < 80.0, "{lazy:?}");
    assert!(honest.plants >= 20 && honest.negligent == 0, "{honest:?}");
}

#[test]
fn honest_hosts_share_everything_and_the_same_seed_gives_the_same_table() {
    let outcome = run("honest");
    let rows = tables::rows(&outcome);
    assert_eq!(rows.len(), 1);
    assert!(rows[0].answers > 200 && rows[0].expired == 0 && rows[0].earned > 0.0, "{rows:?}");
    let summary = tables::summary(&outcome, outcome.honest_mean());
    assert_eq!(summary.honest_host_epochs, u64::from(SIZE.hosts * (SIZE.epochs - 1)));
    let again = run("honest");
    assert_eq!(tables::markdown_rows(&rows), tables::markdown_rows(&tables::rows(&again)));
}
