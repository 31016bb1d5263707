//! Several real agents (HTTP, libp2p, databases) on a chain in memory.

use crate::node::{profile, FakeNode, MODEL, TOKEN};
use codec::Encode;
use sp_core::{sr25519, Pair};
use starling_chain_client::{
    entries,
    fake::{FakeChain, FakeState},
    Call, ChainClient, Delegation, Deposit, Endpoints, HostInfo, HostStatus, Plant, RawEvent,
};
use starling_host::{Agent, Config};
use starling_primitives::{
    records::{Delivery, Finished, InferenceRecord, InferenceResult, InferenceState, Started},
    request::{Authorization, RequestHeader, SignedAuthorization},
    schedule::Schedule,
    traits::{HostWeight, Round},
    AccountId, Balance, InferenceId, MultiSignature, H256,
};
use std::{future::Future, path::PathBuf, sync::Arc, time::Duration};

pub(crate) const EPOCH_SEED: H256 = H256::repeat_byte(0x5e);

/// The client, by its development key.
const PAYER: &str = "Ferdie";

pub(crate) struct Host {
    pub(crate) agent: Agent,
    pub(crate) node: FakeNode,
    pub(crate) account: AccountId,
    pub(crate) data_dir: PathBuf,
}

pub(crate) struct Network {
    pub(crate) chain: Arc<FakeChain>,
    pub(crate) client: ChainClient,
    pub(crate) hosts: Vec<Host>,
    pub(crate) payer: sr25519::Pair,
    pub(crate) http: reqwest::Client,
    _folder: tempfile::TempDir,
}

fn pair(name: &str) -> sr25519::Pair {
    sr25519::Pair::from_string(&format!("//{name}"), None).unwrap()
}

fn account(pair: &sr25519::Pair) -> AccountId {
    AccountId::from(pair.public())
}

/// A host that has not said yet where it is.
fn registered(index: usize) -> HostInfo {
    HostInfo {
        worker: account(&pair(&format!("worker{index}"))),
        worker_since: 0,
        endpoints: None,
        profiles: vec![0],
        status: HostStatus::Active,
        bond: 0,
        registered_at: 0,
        convictions: 0,
    }
}

/// Asks until the condition holds; a hang is a failure.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut condition: impl FnMut() -> F,
) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn configuration(
    index: usize,
    account: &AccountId,
    folder: &std::path::Path,
    node: &FakeNode,
    (extra, duties): (&str, bool),
) -> Config {
    let data_dir = folder.join(format!("host-{index}"));
    std::fs::create_dir_all(&data_dir).unwrap();
    std::fs::write(data_dir.join("worker.key"), format!("//worker{index}")).unwrap();
    std::fs::write(data_dir.join("node.token"), TOKEN).unwrap();
    std::fs::write(data_dir.join("admin.token"), "operator").unwrap();
    std::fs::write(data_dir.join("client.key"), format!("//{PAYER}")).unwrap();
    let port = node.address.port();
    let data_dir = data_dir.display().to_string();
    let extra = extra.replace("DATA", &data_dir);
    let text = format!(
        r#"
        [host]
        account = "{account}"
        data_dir = "{data_dir}"
        [keys]
        worker_file = "{data_dir}/worker.key"
        [peer]
        listen = ["/ip4/127.0.0.1/tcp/0"]
        [admin]
        listen = "127.0.0.1:0"
        [duties]
        enabled = {duties}
        [log]
        shutdown_deadline_ms = 2000
        [fleet]
        token_file = "{data_dir}/node.token"
        health_interval_ms = 50
        [[fleet.nodes]]
        id = "n0"
        host = "127.0.0.1"
        inference_port = {port}
        poc_port = {port}
        max_concurrent = 4
        models = {{ "{MODEL}" = {{}} }}
        [gateway]
        listen = "127.0.0.1:0"
        {extra}
        "#
    );
    Config::from_toml(&text, false).unwrap()
}

impl Network {
    pub(crate) async fn start(count: usize) -> Self {
        Self::start_with(count, "").await
    }

    /// `extra` goes into the section of the gateway.
    pub(crate) async fn start_with(count: usize, extra: &str) -> Self {
        Self::start_as(count, extra, false).await
    }

    /// Hosts that do their duties. `extra` goes into the section of the gateway, or follows it; DATA stands for the host's
    /// data folder.
    pub(crate) async fn start_as(count: usize, extra: &str, duties: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let chain = Arc::new(FakeChain::new(Schedule::TEST));
        chain.on_call(apply);
        let client = ChainClient::new(chain.clone());
        let payer = pair(PAYER);
        let accounts: Vec<AccountId> =
            (0..count).map(|index| account(&pair(&format!("host{index}")))).collect();
        let weights = {
            let mut sorted = accounts.clone();
            sorted.sort();
            let weigh = |host| HostWeight { host, weight: 100, reputation: 0 };
            sorted.into_iter().map(weigh).collect::<Vec<_>>()
        };
        chain.write(|state| {
            state.put(&entries::PROFILES, (0,), &profile());
            state.put(&entries::SEEDS, (Round::Epoch(0),), &EPOCH_SEED);
            state.put(&entries::EPOCH_WEIGHTS, (0,), &weights);
            state.put(&entries::PROFILE_WEIGHTS, (0, 0), &weights);
            let deposit = Deposit { free: 1_000_000, reserved: 0 };
            state.put(&entries::DEPOSITS, (account(&payer),), &deposit);
            for (index, account) in accounts.iter().enumerate() {
                state.put(&entries::HOSTS, (account.clone(),), &registered(index));
            }
        });
        chain.advance();
        chain.finalize();
        let mut hosts = Vec::new();
        for (index, account) in accounts.into_iter().enumerate() {
            let node = FakeNode::start().await;
            let config = configuration(index, &account, folder.path(), &node, (extra, duties));
            let data_dir = config.host.data_dir.clone();
            let agent = Agent::start_on(config, client.clone()).await.unwrap();
            hosts.push(Host { agent, node, account, data_dir });
        }
        let network = Self { chain, client, hosts, payer, http: reqwest::Client::new(), _folder: folder };
        network.announce().await;
        network
    }

    /// Puts every host on chain and waits until everybody knows everybody and the ML nodes are well.
    async fn announce(&self) {
        for (index, host) in self.hosts.iter().enumerate() {
            let peers = host.agent.peers().network();
            let multiaddrs = peers.listeners().await.iter().map(|a| a.to_string().into_bytes()).collect();
            let endpoints = Endpoints {
                peer_id: peers.local_peer().to_bytes(),
                multiaddrs,
                gateway_url: format!("http://{}", host.agent.gateway()).into_bytes(),
            };
            let info = HostInfo { endpoints: Some(endpoints), ..registered(index) };
            self.chain.write(|state| state.put(&entries::HOSTS, (host.account.clone(),), &info));
        }
        self.chain.advance();
        for host in &self.hosts {
            eventually("hosts are known and nodes are healthy", || async {
                let table = host.agent.peers().network().table();
                let known = self.hosts.iter().all(|other| table.entry_of(&other.account).is_some());
                (known && !host.agent.fleet().serving(&profile()).is_empty()).then_some(())
            })
            .await;
        }
    }

    pub(crate) fn url(&self, host: usize, path: &str) -> String {
        format!("http://{}{path}", self.hosts[host].agent.gateway())
    }

    pub(crate) fn admin(&self, host: usize, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("http://{}{path}", self.hosts[host].agent.admin());
        self.http.request(method, url).bearer_auth("operator")
    }

    pub(crate) fn payer_account(&self) -> AccountId {
        account(&self.payer)
    }

    pub(crate) fn write_deposit(&self, free: Balance) {
        let deposit = Deposit { free, reserved: 0 };
        self.chain.write(|state| state.put(&entries::DEPOSITS, (self.payer_account(),), &deposit));
        self.chain.advance();
    }

    /// An API key of a host's gateway, with a delegation on chain.
    pub(crate) async fn api_key(&self, host: usize, limit: Option<&str>) -> String {
        let body = serde_json::json!({ "account": self.payer_account().to_string(), "limit": limit });
        let answer =
            self.admin(host, reqwest::Method::POST, "/admin/v1/keys").json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        let issued: serde_json::Value = answer.json().await.unwrap();
        let delegate: AccountId = issued["delegate"].as_str().unwrap().parse().unwrap();
        let delegation = Delegation { limit: 1_000_000, spent: 0, reserved: 0 };
        self.chain
            .write(|state| state.put(&entries::DELEGATIONS, (self.payer_account(), delegate), &delegation));
        self.chain.advance();
        issued["key"].as_str().unwrap().to_owned()
    }

    pub(crate) fn sign(
        &self,
        gateway: usize,
        header: &RequestHeader,
        max_price: Balance,
    ) -> SignedAuthorization {
        let authorization = Authorization {
            client: self.payer_account(),
            request_id: header.id(),
            profile: header.profile,
            max_price,
            gateway: self.hosts[gateway].account.clone(),
            expires_at: 20,
        };
        let hash = authorization.signing_hash(&self.client.genesis());
        let signature = MultiSignature::Sr25519(self.payer.sign(hash.as_bytes()));
        SignedAuthorization { authorization, signer: self.payer_account(), signature }
    }

    pub(crate) async fn stop(self) {
        for host in self.hosts {
            host.agent.stop().await;
        }
    }
}

pub(crate) fn hex_of(value: &impl Encode) -> String {
    hex::encode(value.encode())
}

/// What the inference pallet does, as far as the agents look at it.
fn apply(state: &mut FakeState<'_>, signer: &AccountId, call: &Call) -> Vec<RawEvent> {
    match call {
        Call::CommitPlant { commitment } => {
            let plant = Plant { commitment: *commitment, committed_at: state.number, revealed: None };
            state.put(&entries::PLANTS, (0, host_of(signer)), &plant);
        }
        Call::RevealPlant { inference, .. } => {
            let host = host_of(signer);
            let mut plant: Plant = state.get(&entries::PLANTS, (0, host.clone())).unwrap();
            plant.revealed = Some(inference.index);
            state.put(&entries::PLANTS, (0, host), &plant);
        }
        Call::Start { records } => records.iter().for_each(|record| start(state, record)),
        Call::Finish { records } => records.iter().for_each(|record| finish(state, &record.finished)),
        Call::Deliver { records } => {
            for record in records {
                change(state, &record.request_id, |inference, _| {
                    let matched = inference.result.as_ref().map(|result| result.response_hash);
                    if matched.is_none() {
                        return;
                    }
                    inference.delivery = match matched == Some(record.response_hash) {
                        true => Delivery::Matched,
                        false => Delivery::Mismatched,
                    };
                    inference.state = InferenceState::Delivered;
                });
            }
        }
        _ => {}
    }
    Vec::new()
}

/// Host of a worker key.
fn host_of(worker: &AccountId) -> AccountId {
    let is_worker = |index: &usize| account(&pair(&format!("worker{index}"))) == *worker;
    let index = (0..16).find(is_worker).expect("a worker of these hosts");
    account(&pair(&format!("host{index}")))
}

fn start(state: &mut FakeState<'_>, record: &Started) {
    let authorization = &record.authorization.authorization;
    if let Some(place) = state.get(&entries::REQUEST_INDEX, (authorization.request_id,)) {
        let InferenceId { epoch, index } = place;
        let mut known = state.get(&entries::INFERENCES, (epoch, index)).unwrap();
        if record.attempt > known.attempt {
            known.attempt = record.attempt;
            known.executor = record.executor.clone();
            state.put(&entries::INFERENCES, (epoch, index), &known);
        }
        return;
    }
    let index = state.get(&entries::COUNTS, (record.epoch,)).unwrap_or(0);
    let inference = InferenceRecord {
        request_id: authorization.request_id,
        client: authorization.client.clone(),
        delegate: (record.authorization.signer != authorization.client)
            .then(|| record.authorization.signer.clone()),
        expires_at: authorization.expires_at,
        gateway: authorization.gateway.clone(),
        executor: record.executor.clone(),
        profile: authorization.profile,
        attempt: record.attempt,
        state: InferenceState::Started,
        started_at: state.number,
        amount: authorization.max_price,
        result: None,
        delivery: Delivery::Pending,
        first_verdict_at: None,
    };
    let mut deposit = state.get(&entries::DEPOSITS, (authorization.client.clone(),)).unwrap_or_default();
    deposit.free = deposit.free.checked_sub(authorization.max_price).expect("the agents never overspend");
    deposit.reserved += authorization.max_price;
    state.put(&entries::DEPOSITS, (authorization.client.clone(),), &deposit);
    state.put(&entries::COUNTS, (record.epoch,), &(index + 1));
    state.put(&entries::INFERENCES, (record.epoch, index), &inference);
    let place = InferenceId { epoch: record.epoch, index };
    state.put(&entries::REQUEST_INDEX, (authorization.request_id,), &place);
}

fn finish(state: &mut FakeState<'_>, record: &Finished) {
    change(state, &record.request_id, |inference, now| {
        inference.amount = profile().price(record.prompt_tokens, record.completion_tokens);
        inference.state = InferenceState::Finished;
        inference.result = Some(InferenceResult {
            response_hash: record.response_hash,
            transcript_root: record.transcript_root,
            prompt_tokens: record.prompt_tokens,
            completion_tokens: record.completion_tokens,
            finished_at: now,
        });
    });
}

fn change(state: &mut FakeState<'_>, request: &H256, change: impl FnOnce(&mut InferenceRecord, u32)) {
    let Some(InferenceId { epoch, index }) = state.get(&entries::REQUEST_INDEX, (*request,)) else { return };
    let Some(mut inference) = state.get(&entries::INFERENCES, (epoch, index)) else { return };
    change(&mut inference, state.number);
    state.put(&entries::INFERENCES, (epoch, index), &inference);
}
