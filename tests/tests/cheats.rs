//! Hosts that serve other weights than the profile's are caught, whatever they commit to, and the client is refunded. The
//! one whose record contradicts itself falls by a proof, the other by a panel's vote.

use anyhow::{ensure, Context, Result};
use starling_chain_client::{
    Call, ChainClient, ChainEvent, Deposit, DisputeStatus, HostStatus, Keypair, PlacedRecord,
};
use starling_e2e::{
    cheat::{Cheat, CHEAT},
    key::{self, request_id, ApiKey},
    network::{HostSpec, MlNodeSpec, Network, Spec, HOST_NAMES},
    poll,
    ports::Ports,
    watch::{self, EPOCHS},
};
use starling_math::clock;
use starling_primitives::{
    fraud::Fraud, ids::TOKEN, records::InferenceState, replay::ReplayError, traits::Round, vrf::VrfInput,
    BlockNumber, EpochIndex, RequestId,
};
use std::{collections::BTreeMap, time::Duration};

/// The gateway, honest.
const ALICE: usize = 0;
/// Serves other weights.
const BOB: usize = 1;
/// Writes with other weights and commits to the true ones.
const CHARLIE: usize = 2;
/// Honest.
const DAVE: usize = 3;

const CHEATS: [(usize, Cheat); 2] = [(BOB, Cheat::OtherWeights), (CHARLIE, Cheat::BackFilled)];
const CLIENT: &str = "//Eve";
const DEPOSIT: u128 = 500;
/// Tokens that an answer needs to show who wrote it: questions that everybody answers alike begin alike.
const TELLING: u32 = 24;
/// A verdict, a panel and, where a cheat sat on it and fell, a second one: sixty blocks, on a loaded machine.
const VERDICTS: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread")]
async fn cheats_are_caught_and_the_client_is_refunded() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("starling-cheats-").tempdir()?;
    Network::prepare(folder.path(), spec()?)?.run(async |network| story(network).await).await
}

fn spec() -> Result<Spec> {
    let mut spec = Spec::four_hosts("test", Ports::free_block()?);
    spec.full_node = false;
    for (host, cheat) in CHEATS {
        let ml_node = MlNodeSpec {
            program: "cheating-mlnode".into(),
            environment: BTreeMap::from([(CHEAT.into(), cheat.name().into())]),
            ..MlNodeSpec::default()
        };
        spec.hosts[host] = HostSpec { ml_nodes: vec![ml_node], ..HostSpec::default() };
    }
    Ok(spec)
}

async fn story(network: &Network) -> Result<()> {
    let chain = ChainClient::connect(&network.rpc(ALICE)).await?;
    // The cheats have weight: their sprint was honest.
    let everybody: Vec<usize> = (0..HOST_NAMES.len()).collect();
    watch::fresh_epoch(network, &chain, &everybody, 30).await?;
    key::deposit(&chain, CLIENT, DEPOSIT).await?;
    let key = ApiKey::issue(network, &chain, ALICE, CLIENT, DEPOSIT).await?;

    let asked_from = watch::fresh_epoch(network, &chain, &everybody, 8).await?.number;
    let asked = ask_until_each_cheat_answered(network, &key).await?;
    let mut caught = Vec::new();
    for (host, cheat) in CHEATS {
        let request = asked.get(&host).context("a request of each cheat")?;
        caught.push((host, is_refunded(network, request, cheat).await?));
        fell_by(&chain, request, cheat, asked_from).await?;
    }
    for (host, epoch) in &caught {
        is_convicted(network, &chain, *host, *epoch).await?;
    }
    client_has_its_money_back(network, &chain, &caught).await?;
    for (host, epoch) in &caught {
        loses_its_claim(network, &chain, *host, *epoch).await?;
    }
    Ok(())
}

/// Request of the first telling answer by each cheat.
async fn ask_until_each_cheat_answered(
    network: &Network,
    key: &ApiKey,
) -> Result<BTreeMap<usize, RequestId>> {
    let mut first = BTreeMap::new();
    for _ in 0..100 {
        let answer = key.ask("What is a dog?", 48).await?;
        let proof = &answer["starling"];
        for (host, cheat) in CHEATS {
            let by = proof["executor"].as_str() == Some(network.account(host)?.to_string().as_str());
            if by && answer["usage"]["completion_tokens"].as_u64() >= Some(TELLING.into()) {
                println!("{} wrote: {}", cheat.name(), answer["choices"][0]["message"]["content"]);
                let request = request_id(proof["request_id"].as_str().context("request id")?)?;
                first.entry(host).or_insert(request);
            }
        }
        if first.len() == CHEATS.len() {
            return Ok(first);
        }
    }
    anyhow::bail!("only {first:?} of the cheats answered")
}

/// The client sees it where it looks for it. Returns the epoch.
async fn is_refunded(network: &Network, request: &RequestId, cheat: Cheat) -> Result<EpochIndex> {
    let url = format!("{}/v1/inferences/{request:?}", network.gateway(ALICE));
    let inference = poll::until(&format!("the refund of {}", cheat.name()), VERDICTS, || async {
        let inference = network.get(&url).await?;
        Ok((inference["state"] == "Invalid").then_some(inference))
    })
    .await?;
    println!("{}: {inference}", cheat.name());
    ensure!(inference["refunded"] == true, "{inference}");
    let verdicts = inference["verdicts"].as_array().context("verdicts")?;
    if cheat == Cheat::OtherWeights {
        ensure!(verdicts.len() >= 2, "the accuser's and the panel's: {inference}");
    }
    for verdict in verdicts {
        let how = match cheat {
            // Its record is consistent; only the true weights show that it is not theirs.
            Cheat::OtherWeights => &verdict["outcome"]["Measured"],
            // The figures are the true ones; the choices are not the sampler's.
            Cheat::BackFilled => &verdict["outcome"],
        };
        let expected = match cheat {
            Cheat::OtherWeights => how.is_object(),
            Cheat::BackFilled => *how == "ReplayFailed",
        };
        ensure!(verdict["passed"] == false && expected, "{inference}");
    }
    Ok(u32::try_from(inference["epoch"].as_u64().context("epoch")?)?)
}

/// What is seen without a model needs no vote: one verifier that has the receipt is enough.
async fn fell_by(
    chain: &ChainClient,
    request: &RequestId,
    cheat: Cheat,
    asked_from: BlockNumber,
) -> Result<()> {
    let (id, dispute) = poll::until("the end of the dispute in a finalised block", VERDICTS, || async {
        let view = chain.finalized()?;
        let id = view.inferences_of(&[*request]).await?.pop().flatten().context("the record")?.id;
        let over = view.dispute(id).await?.filter(|dispute| dispute.status == DisputeStatus::Invalid);
        Ok(over.map(|dispute| (id, dispute)))
    })
    .await?;
    let events = watch::events(chain, asked_from..=chain.finalized_tick()?.number).await?;
    let proofs: Vec<&ChainEvent> = events
        .iter()
        .filter(|event| matches!(event, ChainEvent::FraudProven { id: of, .. } if *of == id))
        .collect();
    println!("{}: {dispute:?}, {proofs:?}", cheat.name());
    let expected = match cheat {
        Cheat::OtherWeights => proofs.is_empty() && dispute.panels > 0,
        Cheat::BackFilled => matches!(
            proofs.as_slice(),
            [ChainEvent::FraudProven { fraud: Fraud::Window(ReplayError::Chosen { .. }), .. }]
        ),
    };
    ensure!(expected, "{}: {dispute:?}, {proofs:?}", cheat.name());
    Ok(())
}

async fn is_convicted(network: &Network, chain: &ChainClient, host: usize, epoch: EpochIndex) -> Result<()> {
    let account = network.account(host)?;
    poll::until("the conviction in a finalised block", VERDICTS, || async {
        let view = chain.finalized()?;
        let info = view.host(&account).await?.context("the host")?;
        let convicted = view.is_convicted(epoch, &account).await?;
        Ok((convicted && info.status == HostStatus::Suspended).then_some(()))
    })
    .await?;
    ensure!(chain.finalized()?.reputation(&account).await? == 0, "nothing is left of its reputation");
    for honest in [ALICE, DAVE] {
        let info = chain.finalized()?.host(&network.account(honest)?).await?.context("an honest host")?;
        ensure!(info.status == HostStatus::Active, "{} is {:?}", HOST_NAMES[honest], info.status);
    }
    Ok(())
}

/// What the cheats wrote cost nothing in the end, and what the honest hosts did cost its price.
async fn client_has_its_money_back(
    network: &Network,
    chain: &ChainClient,
    caught: &[(usize, EpochIndex)],
) -> Result<()> {
    let epochs = caught.iter().map(|(_, epoch)| *epoch);
    let (first, last) = (epochs.clone().min().unwrap_or_default(), epochs.max().unwrap_or_default());
    let cheats = CHEATS.map(|(host, _)| network.account(host));
    let cheats = cheats.into_iter().collect::<Result<Vec<_>>>()?;
    let client = Keypair::from_suri(CLIENT)?.account();
    let is_cheat = |placed: &PlacedRecord| cheats.contains(&placed.record.executor);
    let refunded = |placed: &PlacedRecord| {
        matches!(placed.record.state, InferenceState::Invalid | InferenceState::Expired)
    };
    let is_telling = |placed: &PlacedRecord| {
        placed.record.result.as_ref().is_some_and(|result| result.completion_tokens >= TELLING)
    };
    poll::until("every telling answer of a cheat to be refunded", VERDICTS, || async {
        let records = watch::inferences(chain, first..=last).await?;
        for placed in &records {
            let open = matches!(placed.record.state, InferenceState::Started | InferenceState::Disputed);
            let stands = is_cheat(placed) && is_telling(placed) && !refunded(placed);
            ensure!(!open && !stands, "{placed:?}");
        }
        let paid: u128 = records.iter().map(|placed| placed.record.amount).sum();
        let honest = records.iter().filter(|placed| !is_cheat(placed));
        ensure!(
            honest.clone().all(|placed| !refunded(placed)),
            "no honest answer falls: {:?}",
            honest.collect::<Vec<_>>()
        );
        let deposit = chain.finalized()?.deposit(&client).await?;
        let expected = Deposit { free: DEPOSIT * TOKEN - paid, reserved: 0 };
        ensure!(deposit == expected, "{deposit:?}, not {expected:?}");
        Ok(Some(()))
    })
    .await
}

/// When the epoch's claims open, the cheat has nothing to claim; the honest hosts have.
async fn loses_its_claim(
    network: &Network,
    chain: &ChainClient,
    host: usize,
    epoch: EpochIndex,
) -> Result<()> {
    let open = poll::until("the claims of the epoch", EPOCHS, || async {
        let tick = chain.best_tick()?;
        let open = tick.epoch.index == epoch + 1 && clock::may_claim_previous(&tick.epoch, tick.number);
        Ok(open.then_some(tick))
    })
    .await?;
    let account = network.account(host)?;
    ensure!(chain.at(open.hash).claimable(epoch, &account).await? == (0, 0), "nothing is due to a cheat");
    let worker = Keypair::from_suri(&format!("{}//worker", suri(host)))?;
    let seed = chain.at(open.hash).seed(Round::Epoch(epoch)).await?.context("seed")?;
    let (proof, _) = worker.vrf(&VrfInput::Duty(chain.genesis(), epoch, seed));
    let refusal = chain.execute(&Call::Claim { epoch, proof }, &worker).await;
    println!("{}'s claim: {refusal:?}", HOST_NAMES[host]);
    ensure!(refusal.is_err(), "a cheat's claim must be refused: {refusal:?}");

    poll::until("the honest claims", VERDICTS, || async {
        let view = chain.finalized()?;
        for honest in [ALICE, DAVE] {
            if !view.has_claimed(epoch, &network.account(honest)?).await? {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .await?;
    ensure!(!chain.finalized()?.has_claimed(epoch, &account).await?, "a cheat was paid");
    Ok(())
}

fn suri(host: usize) -> String {
    let name = HOST_NAMES[host];
    format!("//{}{}", name[..1].to_uppercase(), &name[1..])
}

/// The cheats do what they say, without a network.
mod sources {
    use super::*;
    use starling_e2e::{cheat::CheatingLoader, paths};
    use starling_math::judge;
    use starling_mlnode::{
        engine::{Engine, EngineLimits},
        loader::{FolderLoader, LoadSpec, Loader},
        metrics::Metrics,
        pace::PaceLimits,
        source::Resources,
    };
    use starling_mlnode_api::{
        GenerateEvent, GenerateRequest, NonceRange, SprintEvent, SprintRunRequest, VerifyItem, VerifyOutcome,
    };
    use starling_primitives::{
        profile::Calibration,
        request::{prompt_hash, RequestHeader, SamplingParams},
        sprint::SprintTask,
        tape::tape_seed,
        H256,
    };
    use starling_prompt::{openai::ChatMessage, Tokenizer};

    /// As the runtime's presets have it.
    const CALIBRATION: Calibration = Calibration { distance_limit: 8, margin_limit: 8, short_allowance: 0 };

    async fn engine(loader: impl Loader) -> Result<Engine> {
        let limits = EngineLimits {
            requests_max: 4,
            kv_tokens: 8_192,
            steps: PaceLimits { least: 128, most: 128, time: Duration::ZERO },
            background_tokens: 32,
            sprint_batch: 8,
            verify_batch: 4,
            resources: Resources { threads: 1, prefix_tokens: 0 },
        };
        let engine = Engine::start(Box::new(loader), limits, Metrics::new()?)?;
        let spec = LoadSpec {
            name: "m".into(),
            folder: paths::demo_model(),
            top_k: 20,
            max_context: 1_024,
            weights_digest: None,
        };
        engine.load(spec).await?;
        Ok(engine)
    }

    /// A transcript of 48 tokens at most, written by an engine, as another one is asked to verify it.
    async fn written(engine: &Engine, nonce: u8) -> Result<VerifyItem> {
        let tokenizer = Tokenizer::load_from_folder(&paths::demo_model())?;
        let prompt = tokenizer.render(&[ChatMessage::new("user", "What is a dog?")]);
        let prompt_tokens = prompt.ok().context("the prompt")?;
        let header = RequestHeader {
            profile: 0,
            prompt_hash: prompt_hash(&prompt_tokens),
            sampling: SamplingParams { temperature_milli: 900, ..SamplingParams::GREEDY },
            max_tokens: 48,
            constraint: None,
            nonce: [nonce; 32],
        };
        let tape_seed = tape_seed(&H256::repeat_byte(7), &header.id());
        let mut events = engine.generate(&GenerateRequest {
            model: "m".into(),
            header,
            prompt_tokens: prompt_tokens.clone(),
            tape_seed,
            constraint: None,
            stop: vec![],
            logprobs: false,
            perturbation: None,
        })?;
        while let Some(event) = events.recv().await {
            match event {
                GenerateEvent::Done(done) => {
                    println!("{:?} ({} tokens)", done.text, done.completion_tokens);
                    return Ok(VerifyItem {
                        transcript: done.transcript,
                        prompt_tokens,
                        tape_seed,
                        constraint: None,
                    });
                }
                GenerateEvent::Error(error) => anyhow::bail!("{error:?}"),
                _ => {}
            }
        }
        anyhow::bail!("the engine broke off")
    }

    async fn judged(verifier: &Engine, writer: &Engine) -> Result<Vec<VerifyOutcome>> {
        let mut items = Vec::new();
        for nonce in 0..6 {
            items.push(written(writer, nonce).await?);
        }
        let outcomes = verifier.verify("m", items).await?;
        println!("{outcomes:?}");
        Ok(outcomes)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn other_weights_are_far_and_back_filled_ones_do_not_replay() -> Result<()> {
        let honest = engine(FolderLoader::default()).await?;
        for outcome in judged(&honest, &honest).await? {
            let near =
                matches!(&outcome, VerifyOutcome::Figures(figures) if judge::passes(figures, &CALIBRATION));
            ensure!(near, "honest answers pass: {outcome:?}");
        }
        let other = engine(CheatingLoader(Cheat::OtherWeights)).await?;
        for outcome in judged(&honest, &other).await? {
            let far =
                matches!(&outcome, VerifyOutcome::Figures(figures) if !judge::passes(figures, &CALIBRATION));
            ensure!(far, "other weights are seen: {outcome:?}");
        }
        let back_filled = engine(CheatingLoader(Cheat::BackFilled)).await?;
        for outcome in judged(&honest, &back_filled).await? {
            let seen = matches!(&outcome, VerifyOutcome::ReplayFailed { .. });
            ensure!(seen, "back-filled answers do not replay: {outcome:?}");
        }
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn cheats_race_and_verify_honestly() -> Result<()> {
        let honest = engine(FolderLoader::default()).await?;
        let task = SprintTask {
            seed: H256::repeat_byte(5),
            epoch: 3,
            host: sp_core::crypto::AccountId32::new([1; 32]),
            profile: 0,
            vocab_size: 4_096,
            prompt_tokens: 16,
            decode_tokens: 32,
        };
        for cheat in [Cheat::OtherWeights, Cheat::BackFilled] {
            let cheating = engine(CheatingLoader(cheat)).await?;
            let request = SprintRunRequest {
                task: task.clone(),
                model: "m".into(),
                nonces: NonceRange { from: 0, to: 4 },
            };
            let mut events = cheating.sprint(request)?;
            let mut items = Vec::new();
            while let Some(event) = events.recv().await {
                match event {
                    SprintEvent::Result { nonce, transcript, .. } => items.push(VerifyItem {
                        transcript,
                        prompt_tokens: task.prompt(nonce),
                        tape_seed: task.tape_seed(nonce),
                        constraint: None,
                    }),
                    SprintEvent::Done { .. } => break,
                    SprintEvent::Error(error) => anyhow::bail!("{error:?}"),
                }
            }
            ensure!(items.len() == 4, "{} results", items.len());
            items.push(written(&honest, 1).await?);
            for verifier in [&honest, &cheating] {
                for outcome in verifier.verify("m", items.clone()).await? {
                    let fine = matches!(&outcome, VerifyOutcome::Figures(figures) if judge::passes(figures, &CALIBRATION));
                    ensure!(fine, "{}: {outcome:?}", cheat.name());
                }
            }
        }
        Ok(())
    }
}
