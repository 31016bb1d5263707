//! The wire format, frozen: agents and nodes of different versions must understand each other.

use serde_json::json;
use starling_mlnode_api::{
    codes, Done, ErrorDetail, FinishReason, GenerateEvent, SprintEvent, VerifyOutcome,
};
use starling_primitives::{
    constraint::{Constraint, Grammar, TokenBias},
    verdict::Figures,
    H256,
};

fn check<T>(value: T, expected: serde_json::Value)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    assert_eq!(serde_json::to_value(&value).unwrap(), expected);
    assert_eq!(serde_json::from_str::<T>(&expected.to_string()).unwrap(), value);
}

#[test]
fn events_keep_their_shape() {
    let zeros = format!("0x{}", "00".repeat(32));
    check(
        GenerateEvent::Token { index: 1, token: 7, text: "é".into(), candidates: vec![] },
        json!({"type": "token", "index": 1, "token": 7, "text": "é"}),
    );
    check(
        GenerateEvent::Token { index: 1, token: 7, text: String::new(), candidates: vec![(7, 3), (1, 90)] },
        json!({"type": "token", "index": 1, "token": 7, "text": "", "candidates": [[7, 3], [1, 90]]}),
    );
    check(
        GenerateEvent::Window { index: 0, bytes: vec![1, 255], hash: H256::zero() },
        json!({"type": "window", "index": 0, "bytes": "0x01ff", "hash": zeros}),
    );
    check(
        GenerateEvent::Done(Done {
            finish_reason: FinishReason::Stop,
            text: String::new(),
            prompt_tokens: 3,
            cached_tokens: 2,
            completion_tokens: 2,
            transcript_root: H256::zero(),
            response_hash: H256::zero(),
            transcript: vec![],
        }),
        json!({"type": "done", "finish_reason": "stop", "text": "", "prompt_tokens": 3, "cached_tokens": 2, "completion_tokens": 2,
            "transcript_root": zeros, "response_hash": zeros, "transcript": "0x"}),
    );
    let biased = Constraint { logit_bias: vec![TokenBias { token: 7, milli: -5 }], grammar: None };
    check(biased, json!({"logit_bias": [{"token": 7, "milli": -5}], "grammar": null}));
    let grammar = Grammar { before: "a".into(), schema: "{}".into(), after: "b".into() };
    check(
        Constraint { logit_bias: vec![], grammar: Some(grammar) },
        json!({"logit_bias": [], "grammar": {"before": "a", "schema": "{}", "after": "b"}}),
    );
    check(
        SprintEvent::Result { nonce: 5, root: H256::zero(), transcript: vec![9] },
        json!({"type": "result", "nonce": 5, "root": zeros, "transcript": "0x09"}),
    );
    let detail = ErrorDetail {
        message: "no".into(),
        kind: "server_error".into(),
        param: None,
        code: Some(codes::INTERNAL.into()),
    };
    let error = json!({"type": "error", "error":
        {"message": "no", "type": "server_error", "param": null, "code": "internal_error"}});
    check(GenerateEvent::Error(detail.clone()), error.clone());
    check(SprintEvent::Error(detail), error);
    check(
        VerifyOutcome::Figures(Figures { tokens: 1, distance_sum: 2, margin_sum: 3 }),
        json!({"type": "figures", "tokens": 1, "distance_sum": 2, "margin_sum": 3}),
    );
    check(
        VerifyOutcome::ReplayFailed { reason: "root".into() },
        json!({"type": "replay_failed", "reason": "root"}),
    );
    check(
        VerifyOutcome::ConstraintBroken { reason: "token".into() },
        json!({"type": "constraint_broken", "reason": "token"}),
    );
}
