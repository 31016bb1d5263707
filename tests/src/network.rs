//! A network as a value: nodes, agents and ML nodes of several hosts on this machine.
//!
//! A test owns it and everything dies with it; `starling-localnet` detaches from it. The state lies in one folder, so a
//! second start resumes the same chain.

use crate::{
    paths, poll,
    ports::Ports,
    process::{self, Process},
};
use anyhow::{bail, Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{json, Value};
use sp_core::{sr25519, Pair};
use starling_primitives::AccountId;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// The development accounts that hosts use, in order.
pub const HOST_NAMES: [&str; 4] = ["alice", "bob", "charlie", "dave"];
/// Name of the profile that the demo model serves.
pub const PROFILE: &str = "starling-demo";
/// Time for a process to answer after its start; generous, because every node start compiles the runtime.
const READY: Duration = Duration::from_secs(180);
/// Lines of each log that a failed test prints.
const LOG_LINES: usize = 40;

/// What a network consists of. Stored in its folder, so that a later start finds the same.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Chain specification: `local` or `test`.
    pub chain: String,
    /// Ports of everything.
    pub ports: Ports,
    /// The hosts: at most [`HOST_NAMES`].
    pub hosts: Vec<HostSpec>,
    /// Whether there is one more node that is no validator.
    pub full_node: bool,
}

/// One host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostSpec {
    /// Its ML nodes.
    pub ml_nodes: Vec<MlNodeSpec>,
    /// Whether its agent runs inside its node (`--host-config`) instead of on its own.
    #[serde(default)]
    pub embedded_agent: bool,
    /// Secret URI of the client that its plants are asked by; without one it plants nothing.
    #[serde(default)]
    pub plants: Option<String>,
}

impl Default for HostSpec {
    fn default() -> Self {
        Self { ml_nodes: vec![MlNodeSpec::default()], embedded_agent: false, plants: None }
    }
}

/// One ML node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MlNodeSpec {
    /// Program, by name; `starling-mlnode`, or one that cheats.
    pub program: String,
    /// Model folder that it loads under the profile's name.
    pub model: PathBuf,
    /// Requests at the same time.
    pub max_concurrent: u32,
    /// Environment variables beside the configuration.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

impl Default for MlNodeSpec {
    fn default() -> Self {
        Self {
            program: "starling-mlnode".into(),
            model: paths::demo_model(),
            max_concurrent: 4,
            environment: BTreeMap::new(),
        }
    }
}

impl Spec {
    /// Four hosts with one ML node each and a full node.
    pub fn four_hosts(chain: &str, ports: Ports) -> Self {
        Self {
            chain: chain.into(),
            ports,
            hosts: vec![HostSpec::default(); HOST_NAMES.len()],
            full_node: true,
        }
    }

    /// Number of an ML node, counted over all hosts.
    pub fn ml_index(&self, host: usize, ml_node: usize) -> usize {
        self.hosts.iter().take(host).map(|host| host.ml_nodes.len()).sum::<usize>() + ml_node
    }

    /// Every process, in the order in which they start.
    pub fn processes(&self) -> Vec<Role> {
        let hosts = 0..self.hosts.len();
        let ml_nodes = hosts
            .clone()
            .flat_map(|host| (0..self.hosts[host].ml_nodes.len()).map(move |n| Role::MlNode(host, n)));
        let mut roles: Vec<Role> = hosts.clone().map(Role::Node).collect();
        roles.extend(self.full_node.then_some(Role::FullNode));
        roles.extend(ml_nodes);
        roles.extend(hosts.filter(|host| !self.hosts[*host].embedded_agent).map(Role::Agent));
        roles
    }
}

/// A process of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The node of a host.
    Node(usize),
    /// The node that is no validator.
    FullNode,
    /// An ML node of a host.
    MlNode(usize, usize),
    /// The agent of a host.
    Agent(usize),
}

impl Role {
    /// Name of its log and pid file.
    pub fn name(&self) -> String {
        match self {
            Self::Node(host) => format!("{}-node", HOST_NAMES[*host]),
            Self::FullNode => "full-node".into(),
            Self::MlNode(host, n) => format!("{}-mlnode{n}", HOST_NAMES[*host]),
            Self::Agent(host) => format!("{}-agent", HOST_NAMES[*host]),
        }
    }
}

/// A network, running or stopped.
#[derive(Debug)]
pub struct Network {
    root: PathBuf,
    spec: Spec,
    running: BTreeMap<Role, Process>,
    http: reqwest::Client,
}

impl Network {
    /// Lays out the folder of a network, or takes one that is there as it is (then `spec` must be the same).
    pub fn prepare(root: &Path, spec: Spec) -> Result<Self> {
        fs::create_dir_all(root)?;
        let network = Self { root: root.canonicalize()?, spec, running: BTreeMap::new(), http: client()? };
        let spec_file = network.root.join("network.json");
        fs::write(&spec_file, serde_json::to_string_pretty(&network.spec)?)?;
        network.write_chain_spec()?;
        for host in 0..network.spec.hosts.len() {
            network.write_host(host)?;
        }
        Ok(network)
    }

    /// The network whose folder this is.
    pub fn open(root: &Path) -> Result<Self> {
        let file = root.join("network.json");
        let text = fs::read_to_string(&file).with_context(|| format!("no network in {}", root.display()))?;
        let spec = serde_json::from_str(&text).with_context(|| format!("{} is damaged", file.display()))?;
        Ok(Self { root: root.canonicalize()?, spec, running: BTreeMap::new(), http: client()? })
    }

    /// What it consists of.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Starts everything that does not run and waits until it answers.
    pub async fn start(&mut self) -> Result<()> {
        for role in self.spec.processes() {
            if !process::is_running_by_pid_file(&self.pid_file(role)) {
                self.spawn(role)?;
            }
        }
        for role in self.spec.processes() {
            self.ready(role).await?;
        }
        for host in 0..self.spec.hosts.len() {
            if self.spec.hosts[host].embedded_agent {
                self.answers(Role::Node(host), &self.agent_status(host)).await?;
            }
        }
        Ok(())
    }

    /// Starts one process.
    pub fn spawn(&mut self, role: Role) -> Result<()> {
        let command = match role {
            Role::Node(host) => self.node_command(host, true)?,
            Role::FullNode => self.node_command(self.spec.hosts.len(), false)?,
            Role::MlNode(host, n) => self.ml_node_command(host, n)?,
            Role::Agent(host) => self.agent_command(host)?,
        };
        let process = Process::start(&role.name(), command, &self.root.join("logs"))?;
        self.running.insert(role, process);
        Ok(())
    }

    /// Starts the node that is no validator, with more arguments.
    pub fn spawn_full_node(&mut self, arguments: &[&str]) -> Result<()> {
        let mut command = self.node_command(self.spec.hosts.len(), false)?;
        command.args(arguments);
        let process = Process::start(&Role::FullNode.name(), command, &self.root.join("logs"))?;
        self.running.insert(Role::FullNode, process);
        Ok(())
    }

    /// `kill -9`.
    pub fn kill(&mut self, role: Role) {
        self.running.remove(&role);
    }

    /// Waits until a process answers; fails at once when it has ended.
    pub async fn ready(&mut self, role: Role) -> Result<()> {
        let url = match role {
            Role::Node(node) => format!("http://127.0.0.1:{}/health", self.spec.ports.rpc(node)),
            Role::FullNode => {
                format!("http://127.0.0.1:{}/health", self.spec.ports.rpc(self.spec.hosts.len()))
            }
            Role::MlNode(host, n) => {
                format!("http://127.0.0.1:{}/health", self.spec.ports.management(self.spec.ml_index(host, n)))
            }
            Role::Agent(host) => self.agent_status(host),
        };
        self.answers(role, &url).await
    }

    /// Waits until a URL of a process answers; fails at once when the process has ended.
    async fn answers(&mut self, role: Role, url: &str) -> Result<()> {
        let token = self.ml_token()?;
        let mut process = self.running.remove(&role);
        let http = &self.http;
        let result = poll::until(&format!("{} to answer at {url}", role.name()), READY, || {
            let ended = process.as_mut().and_then(|process| process.check_alive().err());
            let request = http.get(url).bearer_auth(&token).send();
            async move {
                if let Some(ended) = ended {
                    return Ok(Some(Err(ended)));
                }
                Ok(request.await.ok().filter(|response| response.status().is_success()).map(|_| Ok(())))
            }
        })
        .await
        .and_then(|result| result);
        if let Some(process) = process {
            self.running.insert(role, process);
        }
        result
    }

    /// Leaves everything running.
    pub fn detach(mut self) {
        std::mem::take(&mut self.running).into_values().for_each(Process::detach);
    }

    /// Stops everything, agents first.
    pub fn stop(&mut self) -> Result<()> {
        for role in self.spec.processes().into_iter().rev() {
            // The owner's handle is only a second way to the same process.
            if let Some(process) = self.running.remove(&role) {
                process.detach();
            }
            process::stop_by_pid_file(&self.pid_file(role), Duration::from_secs(15))?;
        }
        Ok(())
    }

    /// Whether a process runs, whoever started it.
    pub fn is_running(&self, role: Role) -> bool {
        process::is_running_by_pid_file(&self.pid_file(role))
    }

    /// Log of a process.
    pub fn log(&self, role: Role) -> PathBuf {
        self.root.join("logs").join(format!("{}.log", role.name()))
    }

    /// Starts everything, runs a test's story, and reports how that ended; the processes end with it.
    pub async fn run(mut self, story: impl AsyncFnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let result = match self.start().await {
            Ok(()) => story(&mut self).await,
            failed => failed,
        };
        self.report(result)
    }

    /// Passes on how a test ended. What failed is printed before the end of every log: whoever sees only the first lines
    /// sees the reason.
    pub fn report(&self, result: Result<()>) -> Result<()> {
        let Err(error) = &result else { return result };
        println!("FAILED: {error:#}");
        for role in self.spec.processes() {
            println!("---- {}\n{}", role.name(), process::excerpt(&self.log(role), LOG_LINES));
        }
        println!("---- proxy\n{}", process::excerpt(&self.root.join("logs/proxy.log"), LOG_LINES));
        result
    }

    /// Account of a host.
    pub fn account(&self, host: usize) -> Result<AccountId> {
        development_account(&format!("//{}", capitalised(HOST_NAMES[host])))
    }

    /// Address of a development account.
    pub fn client_account(&self, suri: &str) -> Result<String> {
        Ok(development_account(suri)?.to_string())
    }

    /// Asks one question, plainly, through the proxy that a test started.
    pub async fn ask_through_proxy(&self, question: &str) -> Result<Value> {
        let url = format!("http://127.0.0.1:{}/v1/chat/completions", self.spec.ports.proxy());
        let body = json!({
            "model": PROFILE, "max_tokens": 48, "messages": [{ "role": "user", "content": question }],
        });
        let response = self.http.post(&url).timeout(Duration::from_secs(120)).json(&body).send().await?;
        let status = response.status();
        let text = response.text().await?;
        if !status.is_success() {
            bail!("{url}: {status}: {text}");
        }
        Ok(serde_json::from_str(&text)?)
    }

    /// Waits until three more blocks are finalised.
    pub async fn finality_goes_on(&self, node: usize, limit: Duration) -> Result<()> {
        let before = self.height(node, true).await?;
        poll::until("three more finalised blocks", limit, || async {
            Ok((self.height(node, true).await? >= before + 3).then_some(()))
        })
        .await
    }

    /// URL of a host's gateway.
    pub fn gateway(&self, host: usize) -> String {
        format!("http://127.0.0.1:{}", self.spec.ports.gateway(host))
    }

    /// URL of a host's admin API.
    pub fn admin(&self, host: usize) -> String {
        format!("http://127.0.0.1:{}", self.spec.ports.admin(host))
    }

    /// Token of every admin API of this network.
    pub fn admin_token(&self) -> Result<String> {
        self.secret("admin.token")
    }

    /// WebSocket URL of a node's RPC.
    pub fn rpc(&self, node: usize) -> String {
        format!("ws://127.0.0.1:{}", self.spec.ports.rpc(node))
    }

    /// `GET` of a text.
    pub async fn get_text(&self, url: &str) -> Result<String> {
        let response = self.http.get(url).send().await?;
        let status = response.status();
        let body = response.text().await?;
        if !status.is_success() {
            bail!("{url}: {status}: {body}");
        }
        Ok(body)
    }

    /// `GET` of a JSON document.
    pub async fn get(&self, url: &str) -> Result<Value> {
        let body = self.get_text(url).await?;
        serde_json::from_str(&body).with_context(|| format!("{url}: {body}"))
    }

    /// A call of an admin API.
    pub async fn admin_call(
        &self,
        host: usize,
        method: reqwest::Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value> {
        let url = format!("{}{path}", self.admin(host));
        let mut request = self.http.request(method, &url).bearer_auth(self.admin_token()?);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await?;
        let status = response.status();
        let text = response.text().await?;
        if !status.is_success() {
            bail!("{url}: {status}: {text}");
        }
        Ok(if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? })
    }

    /// A JSON-RPC call of a node.
    pub async fn rpc_call(&self, node: usize, method: &str, params: Value) -> Result<Value> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let url = format!("http://127.0.0.1:{}", self.spec.ports.rpc(node));
        let answer: Value = self.http.post(url).json(&body).send().await?.json().await?;
        match answer.get("error") {
            Some(error) => bail!("{method}: {error}"),
            None => Ok(answer["result"].clone()),
        }
    }

    /// Number of the newest block of a node, or of the newest finalised one.
    pub async fn height(&self, node: usize, finalised: bool) -> Result<u32> {
        let header = if finalised {
            let hash = self.rpc_call(node, "chain_getFinalizedHead", json!([])).await?;
            self.rpc_call(node, "chain_getHeader", json!([hash])).await?
        } else {
            self.rpc_call(node, "chain_getHeader", json!([])).await?
        };
        let number = header["number"].as_str().context("header without number")?;
        Ok(u32::from_str_radix(number.trim_start_matches("0x"), 16)?)
    }

    fn agent_status(&self, host: usize) -> String {
        format!("{}/v1/status", self.gateway(host))
    }

    fn pid_file(&self, role: Role) -> PathBuf {
        self.root.join("logs").join(format!("{}.pid", role.name()))
    }

    fn secret(&self, name: &str) -> Result<String> {
        let path = self.root.join(name);
        Ok(fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?
            .trim()
            .to_owned())
    }

    fn ml_token(&self) -> Result<String> {
        self.secret("mlnode.token")
    }

    fn chain_spec(&self) -> PathBuf {
        self.root.join("chain-spec.json")
    }

    fn write_chain_spec(&self) -> Result<()> {
        for name in ["mlnode.token", "admin.token"] {
            let path = self.root.join(name);
            if !path.exists() {
                write_secret(&path, &hex::encode(rand::random::<[u8; 32]>()))?;
            }
        }
        if self.chain_spec().exists() {
            return Ok(());
        }
        // Raw, so that each node start compiles the runtime once instead of twice.
        let output = Command::new(paths::binary("starling-node")?)
            .args(["export-chain-spec", "--chain", &self.spec.chain, "--raw"])
            .output()
            .context("starling-node export-chain-spec")?;
        if !output.status.success() {
            bail!("starling-node export-chain-spec failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        fs::write(self.chain_spec(), output.stdout)?;
        Ok(())
    }

    fn host_dir(&self, host: usize) -> PathBuf {
        self.root.join(HOST_NAMES[host])
    }

    fn write_host(&self, host: usize) -> Result<()> {
        let dir = self.host_dir(host);
        fs::create_dir_all(dir.join("agent"))?;
        let name = capitalised(HOST_NAMES[host]);
        write_secret(&dir.join("worker.key"), &format!("//{name}//worker"))?;
        if let Some(client) = &self.spec.hosts[host].plants {
            write_secret(&dir.join("plants.key"), client)?;
        }
        fs::write(self.host_config(host), self.agent_config(host)?)?;
        for n in 0..self.spec.hosts[host].ml_nodes.len() {
            fs::write(dir.join(format!("mlnode{n}.toml")), self.ml_node_config(host, n))?;
        }
        Ok(())
    }

    fn agent_config(&self, host: usize) -> Result<String> {
        let ports = self.spec.ports;
        let account = self.account(host)?;
        let mut text = format!(
            "[host]\naccount = \"{account}\"\ndata_dir = \"agent\"\n\n[keys]\nworker_file = \"worker.key\"\n\n\
             [chain]\nurl = \"{}\"\n\n[gateway]\nlisten = \"127.0.0.1:{}\"\npublic_url = \"{}\"\n\n\
             [peer]\nlisten = [\"/ip4/127.0.0.1/tcp/{}\"]\n\n[admin]\nlisten = \"127.0.0.1:{}\"\n\
             token_file = \"../admin.token\"\n\n[fleet]\ntoken_file = \"../mlnode.token\"\n",
            self.rpc(host),
            ports.gateway(host),
            self.gateway(host),
            ports.peer(host),
            ports.admin(host),
        );
        if self.spec.hosts[host].plants.is_some() {
            text += "\n[plants]\nclients_file = \"plants.key\"\n";
        }
        for (n, node) in self.spec.hosts[host].ml_nodes.iter().enumerate() {
            let index = self.spec.ml_index(host, n);
            text += &format!(
                "\n[[fleet.nodes]]\nid = \"ml{n}\"\nhost = \"127.0.0.1\"\ninference_port = {}\npoc_port = {}\n\
                 max_concurrent = {}\n[fleet.nodes.models.{PROFILE}]\nargs = [\"{}\"]\n",
                ports.inference(index),
                ports.management(index),
                node.max_concurrent,
                node.model.display(),
            );
        }
        Ok(text)
    }

    fn ml_node_config(&self, host: usize, n: usize) -> String {
        let ports = self.spec.ports;
        let index = self.spec.ml_index(host, n);
        let node = &self.spec.hosts[host].ml_nodes[n];
        format!(
            "threads = 1\ntoken_file = \"../mlnode.token\"\n\n[inference]\nlisten = \"127.0.0.1:{}\"\n\n\
             [management]\nlisten = \"127.0.0.1:{}\"\n\n[model]\nname = \"{PROFILE}\"\nfolder = \"{}\"\n\n\
             [limits]\nrequests_max = {}\n",
            ports.inference(index),
            ports.management(index),
            node.model.display(),
            node.max_concurrent,
        )
    }

    fn node_command(&self, node: usize, validator: bool) -> Result<Command> {
        let ports = self.spec.ports;
        let name = HOST_NAMES.get(node).copied().unwrap_or("full");
        let mut command = Command::new(paths::binary("starling-node")?);
        command
            .arg("--chain")
            .arg(self.chain_spec())
            .arg("--base-path")
            .arg(self.root.join(format!("{name}-chain")))
            .args(["--name", name, "--no-mdns", "--no-telemetry", "--rpc-cors", "all"])
            .args(["--listen-addr", &format!("/ip4/127.0.0.1/tcp/{}", ports.p2p(node))])
            .args(["--rpc-port", &ports.rpc(node).to_string()])
            .args(["--prometheus-port", &ports.prometheus(node).to_string()])
            .args(["--node-key", &node_key(node)]);
        if node > 0 {
            command.args([
                "--bootnodes",
                &format!("/ip4/127.0.0.1/tcp/{}/p2p/{}", ports.p2p(0), peer_id(&node_key(0))?),
            ]);
        }
        if validator {
            command.args(["--validator", &format!("--{name}")]);
        }
        if self.spec.hosts.get(node).is_some_and(|host| host.embedded_agent) {
            command.arg("--host-config").arg(self.host_config(node));
        }
        Ok(command)
    }

    fn ml_node_command(&self, host: usize, n: usize) -> Result<Command> {
        let node = &self.spec.hosts[host].ml_nodes[n];
        let mut command = Command::new(paths::binary(&node.program)?);
        command
            .arg("--config")
            .arg(self.host_dir(host).join(format!("mlnode{n}.toml")))
            .envs(&node.environment);
        Ok(command)
    }

    fn agent_command(&self, host: usize) -> Result<Command> {
        let mut command = Command::new(paths::binary("starling-host")?);
        command.arg("--config").arg(self.host_config(host));
        Ok(command)
    }

    fn host_config(&self, host: usize) -> PathBuf {
        self.host_dir(host).join("starling-host.toml")
    }
}

/// Secret libp2p key of a node: fixed, so that the boot node's address is known before it starts.
fn node_key(node: usize) -> String {
    format!("{:064x}", node + 1)
}

fn peer_id(node_key: &str) -> Result<String> {
    let mut seed = hex::decode(node_key)?;
    let keypair = libp2p_identity::Keypair::ed25519_from_bytes(&mut seed)?;
    Ok(keypair.public().to_peer_id().to_string())
}

fn development_account(suri: &str) -> Result<AccountId> {
    Ok(sr25519::Pair::from_string(suri, None).context("development account")?.public().into())
}

fn capitalised(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn client() -> Result<reqwest::Client> {
    Ok(reqwest::Client::builder().timeout(Duration::from_secs(30)).build()?)
}

fn write_secret(path: &Path, text: &str) -> Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    Ok(())
}
