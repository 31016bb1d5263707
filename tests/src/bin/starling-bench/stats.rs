//! Medians and percentiles.

use serde_json::{json, Value};

/// A percentile of some numbers by nearest rank.
pub(crate) fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

pub(crate) fn median(values: &[f64]) -> f64 {
    percentile(values, 50.0)
}

/// To `digits` places, so that lines stay readable.
pub(crate) fn round(value: f64, digits: i32) -> f64 {
    let unit = 10f64.powi(digits);
    (value * unit).round() / unit
}

/// Median and 99th percentile of times in seconds, in milliseconds.
pub(crate) fn millis(seconds: &[f64]) -> Value {
    json!({
        "median_ms": round(median(seconds) * 1e3, 2),
        "p99_ms": round(percentile(seconds, 99.0) * 1e3, 2),
    })
}

/// Median, least and most.
pub(crate) fn spread(values: &[f64]) -> Value {
    json!({
        "median": round(median(values), 1),
        "min": round(percentile(values, 0.0), 1),
        "max": round(percentile(values, 100.0), 1),
    })
}
