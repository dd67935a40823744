//! Counters of the daemon, in the text format of Prometheus (OpenMetrics 1.0).
//!
//! A scrape renders what is in memory: it asks no volume, so that one that hangs does not delay
//! it. The list of volumes and their used space are put there by [`super::sample`].

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use laminafs::service::volumes::Usage;
use laminafs::types::VolumeName;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::calls::Calls;
use super::volumes::Volume;

/// The media type of [`Metrics::render`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Seconds of a request: from a record that is read to the time-out of dockerd.
const SECONDS: [f64; 11] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 120.0];

type Labels = Vec<(&'static str, String)>;

/// How a request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With a result.
    Ok,
    /// With an error.
    Error,
    /// Not at all: the connection was closed.
    Silence,
}

impl Outcome {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Silence => "none",
        }
    }
}

/// What was measured last.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// The volumes.
    pub volumes: Vec<Volume>,
    /// Their used space, where it is known.
    pub usage: HashMap<VolumeName, Usage>,
    /// Mounts of this host that answer.
    pub mounts: usize,
}

/// The counters.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    seconds: Family<Labels, Histogram, fn() -> Histogram>,
    connections: Family<Labels, Gauge>,
    reloads: Family<Labels, Counter>,
    sample: Arc<Mutex<Sample>>,
}

/// A connection that is counted until it is dropped.
#[derive(Debug)]
pub struct Connection(Gauge);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn histogram() -> Histogram {
    Histogram::new(SECONDS)
}

impl Metrics {
    /// Counters of a daemon with these calls.
    #[must_use]
    pub fn new(calls: Arc<Calls>) -> Arc<Self> {
        let mut registry = Registry::with_prefix("lamina");
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "The version of the program", Info::new(version.to_vec()));
        let requests = Family::<Labels, Counter>::default();
        let help = "Requests by front end, call and result";
        registry.register("requests", help, requests.clone());
        let seconds =
            Family::<Labels, Histogram, fn() -> Histogram>::new_with_constructor(histogram);
        registry.register("request_seconds", "Time to the answer", seconds.clone());
        let connections = Family::<Labels, Gauge>::default();
        registry.register("connections", "Open connections by front end", connections.clone());
        let reloads = Family::<Labels, Counter>::default();
        registry.register("reloads", "Reloads of the configuration by result", reloads.clone());
        let sample = Arc::<Mutex<Sample>>::default();
        let state = State { calls, sample: Arc::clone(&sample) };
        registry.register_collector(Box::new(state));
        Arc::new(Self { registry, requests, seconds, connections, reloads, sample })
    }

    /// Counts an answer.
    pub fn answered(&self, front: &str, call: &str, outcome: Outcome, time: Duration) {
        self.called(front, call, outcome.name(), time);
    }

    /// Counts an answer of a front end with more results than [`Outcome`] has.
    pub fn called(&self, front: &str, call: &str, result: &str, time: Duration) {
        let labels = vec![("front", front.to_owned()), ("call", call.to_owned())];
        self.seconds.get_or_create(&labels).observe(time.as_secs_f64());
        let result = ("result", result.to_owned());
        self.requests.get_or_create(&[labels, vec![result]].concat()).inc();
    }

    /// Counts a connection.
    #[must_use]
    pub fn connected(&self, front: &str) -> Connection {
        let gauge = self.connections.get_or_create(&vec![("front", front.to_owned())]).clone();
        gauge.inc();
        Connection(gauge)
    }

    /// Counts a reload.
    pub fn reloaded(&self, is_ok: bool) {
        let result = if is_ok { Outcome::Ok } else { Outcome::Error };
        self.reloads.get_or_create(&vec![("result", result.name().to_owned())]).inc();
    }

    /// Changes what was measured last.
    pub fn measured(&self, change: impl FnOnce(&mut Sample)) {
        change(&mut self.sample.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The names of the volumes.
    #[must_use]
    pub fn names(&self) -> Vec<VolumeName> {
        let sample = self.sample.lock().unwrap_or_else(PoisonError::into_inner);
        sample.volumes.iter().map(|volume| volume.name.clone()).collect()
    }

    /// The used space of a volume when it was measured last.
    #[must_use]
    pub fn used_bytes(&self, name: &VolumeName) -> Option<u64> {
        let sample = self.sample.lock().unwrap_or_else(PoisonError::into_inner);
        sample.usage.get(name).map(|usage| usage.used_bytes)
    }

    /// All counters as text.
    ///
    /// # Errors
    /// As formatting.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// What is read at a scrape.
#[derive(Debug)]
struct State {
    calls: Arc<Calls>,
    sample: Arc<Mutex<Sample>>,
}

/// A metric of many values.
type Values = Vec<(Labels, u64)>;

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: Values,
) -> fmt::Result {
    let kind = prometheus_client::metrics::MetricType::Gauge;
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in values {
        let value = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        value.encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

impl Collector for State {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let load = self.calls.load();
        let one = |value: usize| vec![(Labels::new(), u64::try_from(value).unwrap_or(u64::MAX))];
        let encoder = &mut encoder;
        gauge(encoder, "calls_running", "Calls on volumes that run.", one(load.running))?;
        gauge(encoder, "calls_waiting", "Calls that wait for a volume.", one(load.waiting))?;
        let oldest = vec![(Labels::new(), load.oldest.as_secs())];
        gauge(encoder, "calls_oldest_seconds", "Age of the oldest running call.", oldest)?;
        let sample = self.sample.lock().unwrap_or_else(PoisonError::into_inner).clone();
        gauge(encoder, "mounts", "Mounts of this host that answer.", one(sample.mounts))?;
        sample.encode(encoder)
    }
}

impl Sample {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut drivers: BTreeMap<&str, u64> = BTreeMap::new();
        for volume in &self.volumes {
            *drivers.entry(&volume.driver).or_default() += 1;
        }
        let drivers = drivers.into_iter();
        let drivers = drivers.map(|(name, count)| (vec![("driver", name.to_owned())], count));
        gauge(encoder, "volumes", "Volumes by driver.", drivers.collect())?;
        let each = |value: &dyn Fn(&Volume) -> Option<u64>| -> Values {
            let labels = |volume: &Volume| {
                let name = volume.name.as_str().to_owned();
                vec![("volume", name), ("driver", volume.driver.clone())]
            };
            let all = self.volumes.iter();
            all.filter_map(|volume| Some((labels(volume), value(volume)?))).collect()
        };
        let usage = |volume: &Volume| self.usage.get(&volume.name);
        let limit = each(&|volume| volume.size_bytes);
        gauge(encoder, "volume_limit_bytes", "Size limit of a volume.", limit)?;
        let limit = each(&|volume| volume.inodes);
        gauge(encoder, "volume_limit_inodes", "Inode limit of a volume.", limit)?;
        let used = each(&|volume| Some(usage(volume)?.used_bytes));
        gauge(encoder, "volume_used_bytes", "Used space of a volume.", used)?;
        let host = each(&|volume| Some(usage(volume)?.host_bytes));
        gauge(encoder, "volume_host_bytes", "Space of a volume on the host.", host)?;
        let inodes = each(&|volume| usage(volume)?.used_inodes);
        gauge(encoder, "volume_used_inodes", "Inodes of a volume.", inodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_text_of_openmetrics() {
        let metrics = Metrics::new(Calls::new(1, 1));
        metrics.answered("docker", "Get", Outcome::Ok, Duration::from_millis(2));
        metrics.answered("docker", "Get", Outcome::Silence, Duration::from_secs(200));
        let open = metrics.connected("docker");
        drop(metrics.connected("docker"));
        let text = metrics.render().unwrap();
        for line in [
            r#"lamina_requests_total{front="docker",call="Get",result="ok"} 1"#,
            r#"lamina_requests_total{front="docker",call="Get",result="none"} 1"#,
            r#"lamina_request_seconds_bucket{le="0.003",front="docker",call="Get"} 1"#,
            r#"lamina_request_seconds_count{front="docker",call="Get"} 2"#,
            r#"lamina_connections{front="docker"} 1"#,
            "lamina_calls_running 0",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} in:\n{text}");
        }
        drop(open);
        assert!(metrics.render().unwrap().contains(r#"lamina_connections{front="docker"} 0"#));
    }
}
