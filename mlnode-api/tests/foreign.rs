//! Bodies from strangers: whatever text arrives, reading it ends in a value that comes back, or in an error.

use proptest::{prelude::*, sample::Index};
use serde::{de::DeserializeOwned, Serialize};
use starling_mlnode_api::{
    Done, ErrorBody, GenerateEvent, GenerateRequest, Health, LoadRequest, ModelsResponse, NodeState,
    Perturbation, SprintEvent, SprintRunRequest, SprintStatus, TokenizeRequest, TokenizeResponse,
    UnloadRequest, VerifyItem, VerifyOutcome, VerifyRequest, VerifyResponse,
};
use starling_primitives::{
    request::{RequestHeader, SamplingParams},
    verdict::Figures,
    H256,
};
use std::fmt::Debug;

fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(body: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(body) else { return };
    let again = serde_json::to_vec(&value).expect("what was read can be written");
    assert_eq!(serde_json::from_slice::<T>(&again).expect("and read again"), value);
}

fn check_all(body: &[u8]) {
    check::<GenerateRequest>(body);
    check::<GenerateEvent>(body);
    check::<Done>(body);
    check::<TokenizeRequest>(body);
    check::<TokenizeResponse>(body);
    check::<LoadRequest>(body);
    check::<UnloadRequest>(body);
    check::<NodeState>(body);
    check::<Health>(body);
    check::<ModelsResponse>(body);
    check::<SprintRunRequest>(body);
    check::<SprintEvent>(body);
    check::<SprintStatus>(body);
    check::<VerifyRequest>(body);
    check::<VerifyResponse>(body);
    check::<ErrorBody>(body);
}

/// Bodies with the fields that are read by code of our own: hashes, bytes as hexadecimal text, figures.
fn bodies() -> Vec<Vec<u8>> {
    let header = RequestHeader {
        profile: 3,
        prompt_hash: H256::repeat_byte(1),
        sampling: SamplingParams::GREEDY,
        max_tokens: 7,
        constraint: None,
        nonce: [9; 32],
    };
    let generate = GenerateRequest {
        model: "demo".into(),
        header,
        prompt_tokens: vec![1, 2, 3],
        tape_seed: H256::repeat_byte(2),
        constraint: None,
        stop: vec!["ä".into()],
        logprobs: true,
        perturbation: Some(Perturbation { seed: H256::zero(), strength_milli: 500 }),
    };
    let (transcript, prompt_tokens) = (vec![0, 255, 16], vec![5]);
    let item = VerifyItem { transcript, prompt_tokens, tape_seed: H256::zero(), constraint: None };
    let figures = Figures { tokens: 1, distance_sum: 2, margin_sum: u64::MAX };
    let outcomes =
        vec![VerifyOutcome::Figures(figures), VerifyOutcome::ReplayFailed { reason: "it differs".into() }];
    let write = |written: serde_json::Result<Vec<u8>>| written.expect("it can be written");
    vec![
        write(serde_json::to_vec(&generate)),
        write(serde_json::to_vec(&GenerateEvent::Window { index: 1, bytes: vec![1, 2], hash: H256::zero() })),
        write(serde_json::to_vec(&VerifyRequest { model: "demo".into(), items: vec![item] })),
        write(serde_json::to_vec(&VerifyResponse { outcomes })),
    ]
}

#[test]
fn valid_bodies_come_back() {
    let bodies = bodies();
    bodies.iter().for_each(|body| check_all(body));
    assert!(serde_json::from_slice::<GenerateRequest>(&bodies[0]).is_ok());
    assert!(serde_json::from_slice::<GenerateEvent>(&bodies[1]).is_ok());
    assert!(serde_json::from_slice::<VerifyRequest>(&bodies[2]).is_ok());
    assert!(serde_json::from_slice::<VerifyResponse>(&bodies[3]).is_ok());
}

proptest! {
    #[test]
    fn random_text_is_refused_or_comes_back(text in r#"[\[\]{}",:a-z_0-9 \\\-]{0,200}"#) {
        check_all(text.as_bytes());
    }

    #[test]
    fn damaged_bodies_are_refused_or_come_back(
        which: Index, at: Index, with in prop_oneof![any::<u8>(), b' '..b'~'], cut: Index, cuts: bool,
    ) {
        let bodies = bodies();
        let mut body = which.get(&bodies).clone();
        let at = at.index(body.len());
        body[at] = with;
        if cuts {
            body.truncate(cut.index(body.len()));
        }
        check_all(&body);
    }
}
