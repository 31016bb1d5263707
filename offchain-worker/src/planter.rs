//! Questions that a client could have asked, and answers to them that are bad on purpose.
//!
//! A text that all agents share would tell verifiers what they look at, so the model makes the questions up itself: it is shown
//! the beginning of a conversation, up to where the user speaks, and goes on.

use crate::{
    context::{HelperError, Planter, Planting, Question},
    executor::{Executor, NoPlant},
    fleet::{with_sources, Fleet},
    gateway::{AUTHORIZATION_HEADER, HEADER_HEADER},
    network::Network,
    peer::protocol::{ExecuteRequest, Refusal},
    store::Payload,
    tokenizers::Tokenizers,
};
use async_trait::async_trait;
use codec::Encode;
use futures::StreamExt;
use rand::Rng;
use starling_mlnode_api::{GenerateEvent, GenerateRequest, MlNode};
use starling_primitives::{
    profile::Profile,
    request::{prompt_hash, RequestHeader, SamplingParams},
    AccountId, ProfileId, H256,
};
use starling_prompt::{openai::ChatMessage, AnyRequest, Limits, Tokenizer};
use std::{ops::RangeInclusive, time::Duration};

/// Tokens of a question at most.
const QUESTION_TOKENS: u32 = 48;
/// Tokens that an answer may have at most: enough to be judged by, and no more than clients ask for.
const ANSWER_TOKENS: RangeInclusive<u32> = 64..=256;
/// Time in which a gateway takes a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Time in which it answers: as long as it gives the executors it tries, and an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);
/// Times that a model is asked for a question before it has none.
const ATTEMPTS: u32 = 4;

/// Plants on this host's ML nodes.
#[derive(Debug)]
pub struct FleetPlanter {
    executor: Executor,
    fleet: Fleet,
    tokenizers: Tokenizers,
    network: Network,
    http: reqwest::Client,
}

impl FleetPlanter {
    /// Asks and answers through these. Fails when the system lacks what an HTTP client needs.
    pub fn new(
        executor: Executor,
        fleet: Fleet,
        tokenizers: Tokenizers,
        network: Network,
    ) -> Result<Self, reqwest::Error> {
        // A stranger's gateway leads nowhere else.
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { executor, fleet, tokenizers, network, http })
    }

    /// Where a host's gateway is, as it has announced.
    fn gateway_url(&self, gateway: &AccountId) -> Result<String, HelperError> {
        let view = self.network.view();
        let endpoints = view.hosts.get(gateway).and_then(|info| info.endpoints.as_ref());
        let url = endpoints.and_then(|endpoints| endpoints.gateway());
        url.map(str::to_owned)
            .ok_or_else(|| HelperError::Unavailable(format!("{gateway} announces no gateway")))
    }

    /// Sends the question and waits for the answer's head, which comes when the answer is there: what it says is known.
    async fn ask(&self, url: &str, request: &ExecuteRequest, body: String) -> Result<(), HelperError> {
        let unavailable = |reason: String| HelperError::Unavailable(reason);
        let response = self
            .http
            .post(format!("{url}/v1/chat/completions"))
            .header(reqwest::header::CONTENT_TYPE, "application/json")
            .header(HEADER_HEADER, hex::encode(request.header.encode()))
            .header(AUTHORIZATION_HEADER, hex::encode(request.authorization.encode()))
            .body(body)
            .send()
            .await
            .map_err(|error| unavailable(with_sources(&error)))?;
        let status = response.status();
        match status.as_u16() {
            _ if status.is_success() => Ok(()),
            408 | 429 | 500.. => Err(unavailable(format!("the gateway answered {status}"))),
            // The chain may not know the deposit in the block that this gateway has seen.
            402 => {
                Err(unavailable(format!("the gateway answered {status}: does the client have a deposit?")))
            }
            _ => Err(HelperError::Refused(format!("the gateway answered {status}"))),
        }
    }

    /// What the model has the user say.
    async fn invent(&self, id: ProfileId, profile: &Profile, opening: &[u32]) -> Result<String, HelperError> {
        let unavailable = |reason: String| HelperError::Unavailable(reason);
        let place = self.fleet.take_place(profile, &[]).map_err(|none| unavailable(format!("{none:?}")))?;
        let request = GenerateRequest {
            model: profile.name_lossy(),
            header: RequestHeader {
                profile: id,
                prompt_hash: prompt_hash(opening),
                // As surprising as the model itself.
                sampling: SamplingParams { temperature_milli: 1_000, ..SamplingParams::GREEDY },
                max_tokens: QUESTION_TOKENS,
                constraint: None,
                nonce: rand::random(),
            },
            prompt_tokens: opening.to_vec(),
            tape_seed: H256(rand::random()),
            constraint: None,
            stop: Vec::new(),
            logprobs: false,
            perturbation: None,
        };
        let events = place.node().client.generate(&request).await;
        let mut events = events.map_err(|error| unavailable(with_sources(&error)))?;
        let mut question = String::new();
        while let Some(event) = events.next().await {
            match event.map_err(|error| unavailable(with_sources(&error)))? {
                GenerateEvent::Token { text, .. } => question.push_str(&text),
                GenerateEvent::Window { .. } => {}
                GenerateEvent::Done(done) => {
                    question.push_str(&done.text);
                    return Ok(question.trim().to_owned());
                }
                GenerateEvent::Error(detail) => return Err(unavailable(detail.message)),
            }
        }
        Err(unavailable("the ML node broke off".into()))
    }
}

/// Tokens with which every conversation begins: up to where the user speaks.
fn opening(tokenizer: &Tokenizer) -> Result<Vec<u32>, HelperError> {
    let render = |text: &str| {
        let rendered = tokenizer.render(&[ChatMessage::new("user", text)]);
        rendered.map_err(|error| HelperError::Refused(error.to_string()))
    };
    let shared = render("a")?.into_iter().zip(render("b")?).take_while(|(a, b)| a == b);
    Ok(shared.map(|(token, _)| token).collect())
}

/// The request that a client sends who asks this and says nothing more.
fn asked(
    tokenizer: &Tokenizer,
    (id, profile): (ProfileId, &Profile),
    text: &str,
) -> Result<Question, HelperError> {
    let refused = |error: &dyn std::error::Error| HelperError::Refused(with_sources(error));
    let body = serde_json::json!({
        "model": profile.name_lossy(),
        "max_tokens": rand::rng().random_range(ANSWER_TOKENS),
        "messages": [{ "role": "user", "content": text }],
    });
    let body = body.to_string();
    let request = AnyRequest::chat(body.as_bytes()).map_err(|error| refused(&error))?;
    let planned = request.plan(tokenizer, &Limits::from(profile)).map_err(|error| refused(&error))?;
    Ok(Question { header: planned.header(id, [0; 32]), prompt_tokens: planned.prompt_tokens, body })
}

#[async_trait]
impl Planter for FleetPlanter {
    async fn question(&self, id: ProfileId) -> Result<Question, HelperError> {
        let view = self.network.view();
        let profile = view
            .profiles
            .get(&id)
            .ok_or_else(|| HelperError::Unavailable(format!("profile {id} is not known")))?;
        let tokenizer = self.tokenizers.get(profile, &view).await;
        let tokenizer = tokenizer.map_err(|error| HelperError::Unavailable(error.to_string()))?;
        let opening = opening(&tokenizer)?;
        if opening.is_empty() {
            return Err(HelperError::Refused("conversations of this profile have no beginning".into()));
        }
        for _ in 0..ATTEMPTS {
            let text = self.invent(id, profile, &opening).await?;
            if !text.is_empty() {
                return asked(&tokenizer, (id, profile), &text);
            }
        }
        Err(HelperError::Refused("the model has no question".into()))
    }

    async fn answer(&self, payload: Payload, body: String, noise: H256) -> Result<Planting, HelperError> {
        let Payload { authorization, epoch, attempt, header, prompt_tokens, constraint, .. } = payload;
        let request = ExecuteRequest {
            authorization,
            epoch,
            attempt,
            header,
            prompt_tokens,
            stop: Vec::new(),
            constraint,
        };
        let url = self.gateway_url(&request.authorization.authorization.gateway)?;
        match self.executor.prepare_plant(&request, noise).await {
            Ok(()) => {}
            Err(NoPlant::Unfit(reason)) => return Ok(Planting::Dropped(reason)),
            Err(NoPlant::Refused(refusal)) if is_temporary(&refusal) => {
                return Err(HelperError::Unavailable(format!("{refusal:?}")))
            }
            Err(NoPlant::Refused(refusal)) => return Err(HelperError::Refused(format!("{refusal:?}"))),
        }
        self.ask(&url, &request, body).await?;
        match self.executor.forget_plant(&request.header.id()) {
            true => Ok(Planting::Dropped("the gateway has it from another host".into())),
            false => Ok(Planting::Answered),
        }
    }
}

/// Whether the ML nodes may do it later.
fn is_temporary(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Busy { .. } | Refusal::NoModel | Refusal::Unavailable)
}
