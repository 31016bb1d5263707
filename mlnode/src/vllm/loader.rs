//! From a model folder to a vLLM server that runs it.

use super::{
    api::Api,
    process::Launch,
    server::{Plan, Server},
    source::{VllmSource, READ_TOP},
    wire::Hello,
    Event, SAMPLER, SAMPLER_FILE,
};
use crate::{
    config::{ConfigError, Vllm},
    loader::{check_folder, LoadError, LoadSpec, Loaded, Loader},
    model::parameters,
    source::{Chunk, Draw, Output, Shape, Task, TokenSource},
};
use starling_primitives::{profile::MAX_K, request::SamplingParams, tape::Tape, H256};
use std::{
    ffi::OsString,
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

/// Starts a server for the model, or attaches to the one that serves it.
#[derive(Clone, Debug)]
pub struct VllmLoader {
    /// How.
    pub settings: Vllm,
}

/// A sequence of the loader's own.
const PROBE: u64 = 0;

impl Loader for VllmLoader {
    fn load(&self, spec: &LoadSpec) -> Result<Loaded, LoadError> {
        let (digest, tokenizer) = check_folder(spec)?;
        let max_context = spec.max_context.min(digest.max_context);
        let shape = Shape {
            vocab_size: digest.vocab_size,
            max_context,
            top_k: spec.top_k.clamp(1, MAX_K),
            parameters: parameters(&spec.folder)?,
        };
        let failed = |error: io::Error| LoadError::Other(format!("vLLM cannot be run: {error}"));
        let server = match &self.settings.url {
            Some(url) => self.attach(url)?,
            None => self.start(spec, max_context).map_err(failed)?,
        };
        let mut source = VllmSource::new(server, shape);
        let deadline = Instant::now() + Duration::from_secs(self.settings.start_seconds.into());
        wait_until_up(&mut source, deadline)?;
        draw_one_token(&mut source, deadline)?;
        let hello = source.hello().ok_or_else(|| LoadError::Other(NO_SAMPLER.into()))?.clone();
        self.check(&hello, spec, &mut source)?;
        tracing::info!(numerics = source.numerics(), max_context = source.shape.max_context, "vLLM serves");
        let readiness = source.server.readiness();
        Ok(Loaded { source: Box::new(source), tokenizer, digest, readiness })
    }
}

/// What to do about a server without the sampler.
const NO_SAMPLER: &str = "vLLM writes tokens, but its sampler did not ask this node for them: start it with \
    --logits-processors starling_vllm:Sampler, with the folder that `starling-mlnode vllm-sampler` wrote to in PYTHONPATH and the \
    configured vllm.socket in STARLING_SAMPLER, and with VLLM_USE_V2_MODEL_RUNNER=0";

impl VllmLoader {
    fn plan(&self, api: Api, launch: Option<Launch>) -> Plan {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        Plan {
            api,
            launch,
            start_time: seconds(self.settings.start_seconds),
            stalled_time: seconds(self.settings.stalled_seconds),
            read_top: READ_TOP,
        }
    }

    fn attach(&self, url: &str) -> Result<Server, LoadError> {
        let key =
            self.settings.api_key().map_err(|error: ConfigError| LoadError::Other(error.to_string()))?;
        let api = Api::at_url(url, key).map_err(LoadError::Other)?;
        // The configuration was checked.
        let socket = self.settings.socket.as_deref().unwrap_or(Path::new("sampler.sock"));
        Server::begin(self.plan(api, None), socket, None)
            .map_err(|error| LoadError::Other(format!("cannot listen at {}: {error}", socket.display())))
    }

    /// Everything that the server needs lies in a folder that only this user can look into, its port too.
    fn start(&self, spec: &LoadSpec, max_context: u32) -> io::Result<Server> {
        let folder = tempfile::Builder::new().prefix("starling-vllm-").tempdir()?;
        let at = |name: &str| folder.path().join(name);
        fs::write(at(SAMPLER_FILE), SAMPLER)?;
        let (port, socket) = (at("port"), at("sampler"));
        let launch = Launch {
            python: self.settings.python.clone().unwrap_or_else(|| "python3".into()),
            arguments: arguments(spec, max_context, &port, &self.settings.arguments),
            port: port.clone(),
            environment: environment(folder.path(), &socket, &self.settings),
        };
        let api = Api::at_socket(&port).map_err(io::Error::other)?;
        Server::begin(self.plan(api, Some(launch)), &socket, Some(folder))
    }

    /// Whether the server runs what is to be served.
    fn check(&self, hello: &Hello, spec: &LoadSpec, source: &mut VllmSource) -> Result<(), LoadError> {
        let shape = &mut source.shape;
        let refuse = |reason: String| Err(LoadError::Other(reason));
        if hello.vocab_size != shape.vocab_size {
            let (theirs, ours) = (hello.vocab_size, shape.vocab_size);
            return refuse(format!(
                "vLLM's model has {theirs} tokens, the folder's {ours}: it serves another model"
            ));
        }
        let same = |folder: &Path| folder.canonicalize().ok() == spec.folder.canonicalize().ok();
        if !same(Path::new(&hello.model)) {
            let (theirs, ours) = (&hello.model, spec.folder.display());
            return refuse(format!(
                "vLLM serves {theirs}, the configured folder is {ours}: start it with that folder"
            ));
        }
        let most = u32::try_from(hello.max_logprobs).unwrap_or(u32::MAX);
        if most < u32::from(shape.top_k) {
            let k = shape.top_k;
            return refuse(format!("vLLM gives {most} log-probabilities of a token, {k} are needed: start it with --max-logprobs {k}"));
        }
        // A text is read by asking for one token more.
        shape.max_context = shape.max_context.min(hello.max_model_len.saturating_sub(1));
        source.server.limit_read_top(most);
        Ok(())
    }
}

/// The arguments of a server: the node's own, then the configured ones.
fn arguments(spec: &LoadSpec, max_context: u32, port: &Path, more: &[String]) -> Vec<OsString> {
    let sampler = SAMPLER_FILE.trim_end_matches(".py");
    let mut arguments: Vec<OsString> =
        ["-m", "vllm.entrypoints.openai.api_server"].map(OsString::from).into();
    let own: [(&str, OsString); 7] = [
        ("--model", spec.folder.as_os_str().into()),
        ("--served-model-name", (&spec.name).into()),
        ("--uds", port.into()),
        // A text is read by asking for one token more.
        ("--max-model-len", max_context.saturating_add(1).to_string().into()),
        ("--max-logprobs", READ_TOP.to_string().into()),
        ("--logits-processors", format!("{sampler}:Sampler").into()),
        // Not what the model's author thinks of as good sampling.
        ("--generation-config", "vllm".into()),
    ];
    for (name, value) in own {
        arguments.extend([name.into(), value]);
    }
    arguments.extend(more.iter().map(OsString::from));
    arguments
}

/// The environment of a server, beside the node's.
fn environment(folder: &Path, socket: &Path, settings: &Vllm) -> Vec<(OsString, OsString)> {
    let own: [(&str, OsString); 7] = [
        ("PYTHONPATH", folder.into()),
        ("STARLING_SAMPLER", socket.into()),
        // The other one takes no logits processors.
        ("VLLM_USE_V2_MODEL_RUNNER", "0".into()),
        // One token more than the model was made for; it is never taken in.
        ("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "1".into()),
        // Its sockets go with the folder, whatever becomes of the server, and nobody else reaches them.
        ("VLLM_RPC_BASE_PATH", folder.into()),
        ("VLLM_NO_USAGE_STATS", "1".into()),
        // The folder has everything.
        ("HF_HUB_OFFLINE", "1".into()),
    ];
    let own = own.map(|(name, value)| (OsString::from(name), value));
    let given = settings.environment.iter().map(|(name, value)| (name.into(), value.into()));
    own.into_iter().chain(given).collect()
}

fn wait_until_up(source: &mut VllmSource, deadline: Instant) -> Result<(), LoadError> {
    loop {
        match source.server.wait_event(deadline) {
            Some(Event::Down { reason, lines }) => {
                let lines = lines.join("\n  ");
                return Err(LoadError::Other(format!("{reason}; the last lines that it wrote:\n  {lines}")));
            }
            Some(event) => {
                let up = matches!(event, Event::Up { .. });
                source.take_event(event);
                if up {
                    return Ok(());
                }
            }
            None => return Err(LoadError::Other("vLLM wrote no token in time (vllm.start_seconds)".into())),
        }
    }
}

/// Proves that tokens are drawn by this node.
fn draw_one_token(source: &mut VllmSource, deadline: Instant) -> Result<(), LoadError> {
    let refuse = |reason: String| Err(LoadError::Other(reason));
    source.open(PROBE, 2).map_err(|error| LoadError::Other(error.to_string()))?;
    let tape = Tape::new(&H256::zero());
    let draw = Draw {
        tape: &tape,
        params: &SamplingParams::GREEDY,
        completion: &[],
        position: 0,
        bias: &[],
        allowed: &[],
        perturbation: None,
    };
    let chunk = Chunk { sequence: PROBE, tokens: &[0], task: Task::Choose(draw) };
    loop {
        let outputs = source.step(&[chunk]).map_err(|error| LoadError::Other(error.to_string()))?;
        match outputs.first() {
            Some(Output::Chosen(_)) => break,
            Some(Output::Pending) => {}
            // It wrote tokens before: these were not drawn here.
            _ if source.hello().is_none() => return refuse(NO_SAMPLER.into()),
            other => return refuse(format!("vLLM cannot write: {other:?}")),
        }
        match source.server.wait_event(deadline) {
            Some(event) => source.take_event(event),
            None => return refuse("vLLM did not draw a token in time (vllm.start_seconds)".into()),
        }
    }
    source.close(PROBE);
    Ok(())
}

impl Hello {
    /// The class of numerics, as profiles name it.
    pub(super) fn numerics(&self) -> &'static str {
        match (self.quantization.as_deref(), self.dtype.as_str()) {
            (Some("fp8"), _) => "fp8",
            (Some(_), _) => "unknown",
            (None, "float32") => "f32",
            (None, "bfloat16") => "bf16",
            (None, "float16") => "f16",
            _ => "unknown",
        }
    }
}
