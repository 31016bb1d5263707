//! Counters, gauges and histograms, in base units.
//!
//! What vLLM measures too has vLLM's name and meaning, and the model's name as the label `model_name`: dashboards made for
//! it work. The rest begins with `mlnode_`.

use prometheus::{
    proto::LabelPair, Encoder, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use std::time::Instant;

/// What the names begin with that vLLM has too.
const VLLM: &str = "vllm:";

/// The node's metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// When the node started.
    pub started: Instant,
    /// Requests that ended, by [`finished`].
    pub finished: IntCounterVec,
    /// Requests that were refused because the node was full.
    pub overloaded: IntCounter,
    /// Requests of which tokens are being computed.
    pub requests_running: IntGauge,
    /// Requests that were admitted, and none of whose tokens were computed yet.
    pub requests_waiting: IntGauge,
    /// Tokens of prompts taken in for requests.
    pub prompt_tokens: IntCounter,
    /// Tokens generated for requests.
    pub generation_tokens: IntCounter,
    /// Tokens generated for sprints.
    pub sprint_tokens: IntCounter,
    /// Tokens of prompts, of requests and verification, that were looked up among those of earlier sequences.
    pub prefix_queries: IntCounter,
    /// Of these the tokens whose keys and values were known.
    pub prefix_hits: IntCounter,
    /// Transcripts verified, by result: `figures`, `replay_failed`, `failed`.
    pub verified: IntCounterVec,
    /// Sprint nonces done.
    pub sprint_nonces: IntCounter,
    /// Sequences of background work in the engine by class.
    pub sequences: IntGaugeVec,
    /// Sprint nonces waiting.
    pub sprint_queued: IntGauge,
    /// Share of the KV room in use, 0 to 1.
    pub kv_usage: Gauge,
    /// Seconds of an engine step.
    pub step_seconds: Histogram,
    /// Tokens of an engine step.
    pub step_tokens: Histogram,
    /// Seconds from admission to the first token.
    pub first_token_seconds: Histogram,
    /// Seconds from a token of a request to the next one.
    pub inter_token_seconds: Histogram,
    /// Seconds from admission to the end of an answer.
    pub request_seconds: Histogram,
}

/// The label names of [`Metrics::finished`].
pub mod finished {
    /// By an end-of-sequence token or a stop string.
    pub const STOP: &str = "stop";
    /// By the limit of tokens.
    pub const LENGTH: &str = "length";
    /// The one who asked is gone.
    pub const ABORT: &str = "abort";
    /// By the node's fault, or because the model was unloaded.
    pub const ERROR: &str = "error";
}

/// The label names of [`Metrics::sequences`].
pub mod class {
    /// Verification.
    pub const VERIFICATION: &str = "verification";
    /// Sprint.
    pub const SPRINT: &str = "sprint";
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let vec = |name, help, label| -> Result<IntCounterVec, prometheus::Error> {
            let metric = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let counter = |name, help| -> Result<IntCounter, prometheus::Error> {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauge = |name, help| -> Result<IntGauge, prometheus::Error> {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let histogram = |name, help, buckets: Vec<f64>| -> Result<Histogram, prometheus::Error> {
            let metric = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let seconds = prometheus::exponential_buckets(0.000_5, 2.0, 16)?;
        // An answer may take minutes.
        let long = prometheus::exponential_buckets(0.01, 2.0, 17)?;
        let tokens = prometheus::exponential_buckets(1.0, 2.0, 12)?;
        let sequences = IntGaugeVec::new(
            Opts::new("mlnode_sequences", "Sequences of background work in the engine by class"),
            &["class"],
        )?;
        registry.register(Box::new(sequences.clone()))?;
        let kv_usage = Gauge::new("vllm:kv_cache_usage_perc", "Share of the KV room in use, 0 to 1")?;
        registry.register(Box::new(kv_usage.clone()))?;
        Ok(Self {
            started: Instant::now(),
            finished: vec("vllm:request_success_total", "Requests that ended, by reason", "finished_reason")?,
            overloaded: counter("mlnode_requests_overloaded_total", "Requests refused by a full node")?,
            requests_running: gauge("vllm:num_requests_running", "Requests being computed")?,
            requests_waiting: gauge("vllm:num_requests_waiting", "Admitted requests not begun yet")?,
            prompt_tokens: counter("vllm:prompt_tokens_total", "Prompt tokens of requests")?,
            generation_tokens: counter("vllm:generation_tokens_total", "Tokens generated for requests")?,
            sprint_tokens: counter("mlnode_sprint_tokens_total", "Tokens generated for sprints")?,
            prefix_queries: counter("vllm:prefix_cache_queries_total", "Prompt tokens looked up")?,
            prefix_hits: counter(
                "vllm:prefix_cache_hits_total",
                "Prompt tokens known from earlier sequences",
            )?,
            verified: vec("mlnode_verified_total", "Transcripts verified by result", "result")?,
            sprint_nonces: counter("mlnode_sprint_nonces_total", "Sprint nonces done")?,
            sequences,
            sprint_queued: gauge("mlnode_sprint_queued", "Sprint nonces waiting")?,
            kv_usage,
            step_seconds: histogram("mlnode_step_seconds", "Seconds of an engine step", seconds.clone())?,
            step_tokens: histogram("vllm:iteration_tokens_total", "Tokens of an engine step", tokens)?,
            first_token_seconds: histogram(
                "vllm:time_to_first_token_seconds",
                "Seconds from admission to the first token",
                long.clone(),
            )?,
            inter_token_seconds: histogram(
                "vllm:inter_token_latency_seconds",
                "Seconds from a token to the next one",
                seconds,
            )?,
            request_seconds: histogram(
                "vllm:e2e_request_latency_seconds",
                "Seconds from admission to the end of an answer",
                long,
            )?,
            registry,
        })
    }

    /// In Prometheus' text format, for a node that serves this model.
    pub fn render(&self, model: Option<&str>) -> Result<String, prometheus::Error> {
        let mut families = self.registry.gather();
        let vllms = families.iter_mut().filter(|family| family.name().starts_with(VLLM));
        for metric in vllms.flat_map(|family| family.mut_metric()) {
            let mut label = LabelPair::default();
            label.set_name("model_name".into());
            label.set_value(model.unwrap_or_default().into());
            let mut labels = metric.take_label();
            labels.push(label);
            metric.set_label(labels);
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_vllm_measures_has_its_names_and_the_models() {
        let metrics = Metrics::new().unwrap();
        metrics.finished.with_label_values(&[finished::STOP]).inc();
        metrics.overloaded.inc();
        metrics.kv_usage.set(0.25);
        let text = metrics.render(Some("m")).unwrap();
        for line in [
            "vllm:request_success_total{finished_reason=\"stop\",model_name=\"m\"} 1",
            "vllm:kv_cache_usage_perc{model_name=\"m\"} 0.25",
            "vllm:num_requests_running{model_name=\"m\"} 0",
            "vllm:num_requests_waiting{model_name=\"m\"} 0",
            "vllm:prompt_tokens_total{model_name=\"m\"} 0",
            "vllm:generation_tokens_total{model_name=\"m\"} 0",
            "vllm:prefix_cache_queries_total{model_name=\"m\"} 0",
            "vllm:prefix_cache_hits_total{model_name=\"m\"} 0",
            "vllm:iteration_tokens_total_count{model_name=\"m\"} 0",
            "vllm:time_to_first_token_seconds_count{model_name=\"m\"} 0",
            "vllm:inter_token_latency_seconds_count{model_name=\"m\"} 0",
            "vllm:e2e_request_latency_seconds_count{model_name=\"m\"} 0",
            "mlnode_requests_overloaded_total 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        // Rendering changes nothing.
        assert!(!metrics.render(None).unwrap().contains("\"m\""));
    }
}
