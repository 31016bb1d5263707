//! Counters of the agent, served at the gateway's `/metrics`.

use prometheus::{
    core::Collector, Encoder, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// Buckets of latencies, in seconds.
const LATENCY_S: [f64; 13] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0];

/// All metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Chat requests at the gateway, by HTTP status.
    pub requests: IntCounterVec,
    /// Chat requests in flight at the gateway.
    pub in_flight: IntGauge,
    /// Time from the request to its first token, in seconds.
    pub first_token_seconds: Histogram,
    /// Time from the request to its end, in seconds.
    pub request_seconds: Histogram,
    /// Attempts at executors, by outcome.
    pub attempts: IntCounterVec,
    /// Requests run as executor, by outcome.
    pub executed: IntCounterVec,
    /// Tokens delivered to clients.
    pub delivered_tokens: prometheus::IntCounter,
    /// Height of the latest best block seen.
    pub best_block: IntGauge,
    /// Number of connected hosts.
    pub connected_peers: IntGauge,
    /// Requests running on ML nodes, by node.
    pub node_running: IntGaugeVec,
    /// Items in the outbox that wait, by kind.
    pub outbox_pending: IntGaugeVec,
}

impl Metrics {
    /// Registers all metrics in a registry of their own.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some("starling_host".into()), None)?;
        let counters =
            |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let histogram = |name: &str, help: &str| {
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(LATENCY_S.to_vec()))
        };
        let metrics = Self {
            requests: counters("requests_total", "Chat requests at the gateway", &["status"])?,
            in_flight: IntGauge::new("requests_in_flight", "Chat requests in flight at the gateway")?,
            first_token_seconds: histogram(
                "first_token_seconds",
                "Time from the request to its first token",
            )?,
            request_seconds: histogram("request_seconds", "Time from the request to its end")?,
            attempts: counters("attempts_total", "Attempts at executors", &["outcome"])?,
            executed: counters("executed_total", "Requests run as executor", &["outcome"])?,
            delivered_tokens: prometheus::IntCounter::new(
                "delivered_tokens_total",
                "Tokens delivered to clients",
            )?,
            best_block: IntGauge::new("best_block", "Height of the latest best block seen")?,
            connected_peers: IntGauge::new("connected_peers", "Connected hosts")?,
            node_running: IntGaugeVec::new(
                Opts::new("node_running", "Requests running on an ML node"),
                &["node"],
            )?,
            outbox_pending: IntGaugeVec::new(
                Opts::new("outbox_pending", "Items waiting in the outbox"),
                &["kind"],
            )?,
            registry,
        };
        let collectors: [Box<dyn Collector>; 11] = [
            Box::new(metrics.requests.clone()),
            Box::new(metrics.in_flight.clone()),
            Box::new(metrics.first_token_seconds.clone()),
            Box::new(metrics.request_seconds.clone()),
            Box::new(metrics.attempts.clone()),
            Box::new(metrics.executed.clone()),
            Box::new(metrics.delivered_tokens.clone()),
            Box::new(metrics.best_block.clone()),
            Box::new(metrics.connected_peers.clone()),
            Box::new(metrics.node_running.clone()),
            Box::new(metrics.outbox_pending.clone()),
        ];
        for collector in collectors {
            metrics.registry.register(collector)?;
        }
        Ok(metrics)
    }

    /// Text of the Prometheus exposition format.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
