use crate::{mock::*, Counts, Deposit, Error, Event, Refusal};
use frame_support::{assert_noop, dispatch::CheckIfFeeless};
use sp_core::{ecdsa, ed25519, Pair};
use starling_primitives::{
    records::{InferenceState, MAX_ATTEMPT},
    request::SignedAuthorization,
    schedule::Schedule,
    AccountId, InferenceId, MultiSignature, MultiSigner, H256,
};

/// Submits one item and says why it was refused.
fn refusal(item: starling_primitives::records::Started, by: &AccountId) -> Option<Refusal> {
    System::reset_events();
    start_as(by, vec![item]);
    last_refusal()
}

#[test]
fn started_reserves_and_is_recorded() {
    ExtBuilder::default().build_and_execute(|| {
        let ask = ask(0);
        start(&ask);
        let id = InferenceId { epoch: 1, index: 0 };
        assert_eq!(ask.id(), Some(id));
        assert_eq!(deposit_of("Client"), Deposit { free: 9_000, reserved: 1_000 });
        let record = ask.record().unwrap();
        assert_eq!(record.state, InferenceState::Started);
        assert_eq!((record.gateway, record.executor), (host(1), ask.executor()));
        assert_eq!((record.amount, record.started_at, record.delegate), (1_000, 1, None));
        assert_eq!(
            take_events(),
            [Event::Started {
                id,
                request_id: request_id(0),
                client: client(),
                gateway: host(1),
                executor: ask.executor(),
                reserved: 1_000,
            }]
        );
    });
}

#[test]
fn records_are_dense_and_a_bad_item_does_not_fail_the_batch() {
    ExtBuilder::default().build_and_execute(|| {
        let mut wrong = ask(1).started();
        wrong.executor = host(1);
        let dear = Ask { max_price: 9_999, ..ask(2) };
        start_as(&host(1), vec![ask(0).started(), wrong, dear.started(), ask(3).started(), ask(3).started()]);
        assert_eq!(Counts::<Test>::get(1), 2);
        assert_eq!(ask(0).id().unwrap().index, 0);
        assert_eq!(ask(3).id().unwrap().index, 1);
        let refused: Vec<_> = take_events()
            .into_iter()
            .filter_map(|event| match event {
                Event::RecordRefused { request_id, reason } => Some((request_id, reason)),
                _ => None,
            })
            .collect();
        assert_eq!(
            refused,
            [
                (request_id(1), Refusal::WrongExecutor),
                (request_id(2), Refusal::DepositTooLow),
                (request_id(3), Refusal::Duplicate),
            ]
        );
    });
}

#[test]
fn any_kind_of_signature_is_taken() {
    ExtBuilder::default().build_and_execute(|| {
        let check = |n: u64, signer: MultiSigner, sign: &dyn Fn(&[u8]) -> MultiSignature| {
            use sp_runtime::traits::IdentifyAccount;
            let account = signer.into_account();
            let started = ask(n).started();
            let mut authorization = started.authorization.authorization.clone();
            authorization.client = account.clone();
            let signature = sign(authorization.signing_hash(&genesis()).as_bytes());
            let authorization = SignedAuthorization { authorization, signer: account.clone(), signature };
            let item = starling_primitives::records::Started { authorization, ..started };
            // The signature is good, so the deposit is asked for.
            assert_eq!(refusal(item, &host(1)), Some(Refusal::DepositTooLow));
        };
        let ed = ed25519::Pair::from_string("//Ed", None).unwrap();
        check(0, ed.public().into(), &|hash| ed.sign(hash).into());
        let ec = ecdsa::Pair::from_string("//Ec", None).unwrap();
        check(1, ec.public().into(), &|hash| ec.sign(hash).into());
    });
}

#[test]
fn what_was_not_signed_is_refused() {
    ExtBuilder::default().build_and_execute(|| {
        let check = |change: &dyn Fn(&mut SignedAuthorization)| {
            let mut item = ask(0).started();
            change(&mut item.authorization);
            assert_eq!(refusal(item, &host(1)), Some(Refusal::BadSignature));
        };
        check(&|signed| signed.authorization.max_price += 1);
        check(&|signed| signed.authorization.expires_at += 1);
        check(&|signed| signed.signer = account("Key"));
        check(&|signed| signed.authorization.client = account("Other"));
        check(&|signed| {
            let hash = signed.authorization.signing_hash(&H256::zero());
            signed.signature = pair("Client").sign(hash.as_bytes()).into();
        });
    });
}

#[test]
fn who_may_submit() {
    ExtBuilder::default().build_and_execute(|| {
        let ask = ask(0);
        let executor = ask.executor();
        let neither = (1..=4).map(host).find(|host| *host != executor && *host != ask.gateway).unwrap();
        assert_eq!(refusal(ask.started(), &neither), Some(Refusal::NotInvolved));
        let items: crate::types::StartedBatch = vec![ask.started()].try_into().unwrap();
        let stranger = RuntimeOrigin::signed(account("Other"));
        assert_noop!(Inference::start(stranger.clone(), items.clone()), Error::<Test>::NotAWorker);
        let cold = RuntimeOrigin::signed(host(1));
        assert_noop!(Inference::start(cold.clone(), items.clone()), Error::<Test>::NotAWorker);
        // The executor may, when the gateway keeps silent.
        assert_eq!(refusal(ask.started(), &executor), None);
        assert!(ask.record().is_some());
        // Only workers of registered hosts call free of fees, and only with something to say.
        let call = crate::Call::<Test>::start { items };
        assert!(call.is_feeless(&worker(&neither)));
        assert!(!call.is_feeless(&stranger));
        assert!(!call.is_feeless(&cold));
        assert!(!crate::Call::<Test>::start { items: Default::default() }.is_feeless(&worker(&neither)));
        assert!(!crate::Call::<Test>::deposit { amount: 1 }.is_feeless(&worker(&neither)));
    });
}

#[test]
fn an_executor_needs_a_registered_gateway() {
    ExtBuilder::default().build_and_execute(|| {
        let ask = Ask { gateway: account("Other"), ..ask(0) };
        assert_eq!(refusal(ask.started(), &ask.executor()), Some(Refusal::UnknownGateway));
    });
}

#[test]
fn terms_out_of_range_are_refused() {
    ExtBuilder::default().build_and_execute(|| {
        run_to(10);
        let check = |ask: Ask, expected| assert_eq!(refusal(ask.started(), &host(1)), expected);
        let out_of_range = Some(Refusal::AuthorizationOutOfRange);
        check(Ask { expires_in: Schedule::TEST.epoch_blocks + 1, ..ask(0) }, out_of_range);
        check(Ask { attempt: MAX_ATTEMPT + 1, ..ask(0) }, Some(Refusal::AttemptTooHigh));
        check(Ask { epoch: 2, ..ask(0) }, Some(Refusal::EpochClosed));
        check(Ask { epoch: 0, ..ask(0) }, Some(Refusal::EpochClosed));
        let mut late = ask(0).started();
        late.authorization.authorization.expires_at = 9;
        assert_eq!(refusal(late, &host(1)), out_of_range);
        let mut unknown = ask(0).started();
        unknown.authorization.authorization.profile = 9;
        assert_eq!(refusal(unknown, &host(1)), Some(Refusal::UnknownProfile));
        Retired::set(true);
        check(ask(0), Some(Refusal::UnknownProfile));
        Retired::set(false);
        check(Ask { expires_in: 0, ..ask(0) }, None);
        check(Ask { expires_in: Schedule::TEST.epoch_blocks, attempt: MAX_ATTEMPT, ..ask(1) }, None);
    });
}

#[test]
fn records_of_the_epoch_before_are_taken_for_two_coverage_windows() {
    ExtBuilder::default().build_and_execute(|| {
        run_to_epoch(2);
        let old = |n| Ask { epoch: 1, ..ask(n) };
        let last = Current::get().start + 2 * Schedule::TEST.coverage_blocks - 1;
        start(&old(0));
        run_to(last);
        start(&old(1));
        assert_eq!(old(1).id(), Some(InferenceId { epoch: 1, index: 1 }));
        start(&ask(2));
        assert_eq!(ask(2).id(), Some(InferenceId { epoch: 2, index: 0 }));
        run_to(last + 1);
        start(&old(3));
        assert_eq!(last_refusal(), Some(Refusal::EpochClosed));
        // Whatever was taken can finish before the claims open.
        assert!(last + Schedule::TEST.expiry_blocks < Current::get().start + Schedule::TEST.grace_blocks);
    });
}

#[test]
fn a_later_attempt_of_the_gateway_reassigns() {
    ExtBuilder::default().build_and_execute(|| {
        start(&ask(0));
        run_to(4);
        let second = Ask { attempt: 1, ..ask(0) };
        assert_ne!(ask(0).executor(), second.executor());
        // Not by the executor it would go to: the authorization is public by now.
        assert_eq!(refusal(second.started(), &second.executor()), Some(Refusal::NotInvolved));
        assert_eq!(refusal(second.started(), &host(1)), None);
        let record = second.record().unwrap();
        assert_eq!((record.executor, record.attempt, record.started_at), (second.executor(), 1, 4));
        assert_eq!(deposit_of("Client"), Deposit { free: 9_000, reserved: 1_000 });
        assert!(matches!(take_events().last(), Some(Event::Reassigned { attempt: 1, .. })));
        // Back, or the same again, is refused; so are other terms.
        assert_eq!(refusal(ask(0).started(), &host(1)), Some(Refusal::Duplicate));
        assert_eq!(refusal(second.started(), &host(1)), Some(Refusal::Duplicate));
        let dearer = Ask { attempt: 2, max_price: 2_000, ..ask(0) };
        assert_eq!(refusal(dearer.started(), &host(1)), Some(Refusal::TermsChanged));
        let elsewhere = Ask { attempt: 2, gateway: host(2), ..ask(0) };
        assert_eq!(refusal(elsewhere.started(), &host(2)), Some(Refusal::NotInvolved));
        // The first executor comes too late.
        System::reset_events();
        finish(&ask(0), 1, 1);
        assert_eq!(last_refusal(), Some(Refusal::NotInvolved));
        finish(&second, 1, 1);
        assert_eq!(second.record().unwrap().state, InferenceState::Finished);
        assert_eq!(refusal(Ask { attempt: 2, ..ask(0) }.started(), &host(1)), Some(Refusal::NotRunning));
    });
}

#[test]
fn nobody_has_weight_in_the_first_epoch() {
    ExtBuilder::default().build_and_execute(|| {
        Current::set(epoch_state(0, 1));
        start(&ask(0));
        assert_eq!(last_refusal(), Some(Refusal::EpochClosed));
    });
}

#[test]
fn a_batch_costs_what_it_touches() {
    ExtBuilder::default().build_and_execute(|| {
        use crate::cost::{start, StartShape};
        let same: Vec<_> = (0..4).map(|n| ask(n).started()).collect();
        assert_eq!(StartShape::of(&same), StartShape { taken: 4, refused: 0, accounts: 1, draws: 1 });
        let by_key = Ask { signer: "Key", ..ask(4) }.started();
        let shape = StartShape::of(&[same, vec![by_key]].concat());
        assert_eq!(shape, StartShape { taken: 5, refused: 0, accounts: 2, draws: 1 });
        assert!(start::<Test>(shape.with_taken(3)).all_lte(start::<Test>(shape)));
    });
}
