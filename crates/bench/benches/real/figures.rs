//! What a run says about itself.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::Instant;

use crate::AnyError;

/// The line that a run prints is this word and its figures as JSON: the official clients' programs
/// print the same.
const RESULT: &str = "RESULT ";

/// The figures of a run.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Figures {
    /// Messages per second.
    pub(crate) rate: f64,
    /// Seconds of this process's processor time for 10,000 messages.
    pub(crate) cpu_per_10k: f64,
    /// Most that was resident, in MB.
    pub(crate) rss_mb: f64,
}

/// From a send to the handler, in microseconds.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) max_us: f64,
}

/// A measurement that runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
    cpu: f64,
}

pub(crate) fn print(figures: &impl Serialize) -> Result<(), AnyError> {
    println!("{RESULT}{}", serde_json::to_string(figures)?);
    Ok(())
}

/// From what a run has printed.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> Option<T> {
    let line = text.lines().find_map(|line| line.strip_prefix(RESULT))?;
    serde_json::from_str(line).ok()
}

// === impl Latency ===

impl Latency {
    /// Of so many, in nanoseconds.
    pub(crate) fn of(mut nanos: Vec<u64>) -> Self {
        nanos.sort_unstable();
        let at = |part: f64| {
            let last = nanos.len().saturating_sub(1);
            let micros = |nanos: &u64| *nanos as f64 / 1e3;
            nanos.get((last as f64 * part) as usize).map_or(0.0, micros)
        };
        Self {
            p50_us: at(0.5),
            p99_us: at(0.99),
            max_us: at(1.0),
        }
    }
}

// === impl Clock ===

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            start: Instant::now(),
            cpu: cpu_seconds(),
        }
    }

    pub(crate) fn stop(self, messages: usize) -> Figures {
        let messages = messages as f64;
        Figures {
            rate: messages / self.start.elapsed().as_secs_f64(),
            cpu_per_10k: (cpu_seconds() - self.cpu) / messages * 1e4,
            rss_mb: resident_mb(),
        }
    }
}

/// User and system time of this process; Linux counts in hundredths.
pub(crate) fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2);
    ticks
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

pub(crate) fn resident_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    let kb = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kb.unwrap_or_default() / 1024.0
}
