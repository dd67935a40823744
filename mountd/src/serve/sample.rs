//! Measures what metrics show: the volumes, their used space, the mounts of the host.
//!
//! Everything is asked in lanes of its own and with a limit of time. A volume that does not answer
//! keeps its last value, and is not asked again before it has answered.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use laminafs::service::status;
use laminafs::types::VolumeName;
use tokio::sync::watch;

use super::calls::{Calls, Kind, Order};
use super::metrics::Metrics;
use super::volumes::Volumes;

/// How long a scrape waits for the list of volumes before it shows the last one.
const LIST: Duration = Duration::from_millis(500);
/// How long one volume may keep the measurement of the others.
const MEASURE: Duration = Duration::from_secs(5);
/// Between two looks at the interval, which a reload may change.
const PAUSE: Duration = Duration::from_secs(1);

/// What is measured, and where it is shown.
#[derive(Clone)]
pub struct Sampler {
    /// The volumes.
    pub volumes: Arc<dyn Volumes>,
    /// Their lanes.
    pub calls: Arc<Calls>,
    /// Where it is shown.
    pub metrics: Arc<Metrics>,
    /// Where mounts answer.
    pub runtime: Option<PathBuf>,
}

impl Sampler {
    /// Refreshes the list of volumes. Whether it could be read in time.
    pub async fn list(&self) -> bool {
        let volumes = Arc::clone(&self.volumes);
        let order = Order { lane: (Kind::Read, None), limit: LIST, must_run: false };
        match self.calls.run(order, move || volumes.list(), drop).await {
            Ok(Ok(volumes)) => {
                self.metrics.measured(|sample| {
                    let is_there = |name: &VolumeName| volumes.iter().any(|one| one.name == *name);
                    sample.usage.retain(|name, _| is_there(name));
                    sample.volumes = volumes;
                });
                true
            }
            Ok(Err(refusal)) => {
                tracing::warn!("the volumes cannot be read: {refusal}");
                false
            }
            Err(error) => {
                tracing::warn!("the volumes cannot be read: {error}");
                false
            }
        }
    }

    /// Measures again and again. The interval is in seconds; 0 measures nothing.
    pub async fn run(self, interval: watch::Receiver<u64>) {
        loop {
            if *interval.borrow() > 0 {
                self.list().await;
                self.measure().await;
            }
            let mut waited = 0;
            while waited < (*interval.borrow()).max(1) {
                tokio::time::sleep(PAUSE).await;
                waited += 1;
            }
        }
    }

    async fn measure(&self) {
        if let Some(dir) = self.runtime.clone() {
            let order = Order { lane: (Kind::Measure, None), limit: MEASURE, must_run: false };
            let found = self.calls.run(order, move || status::list(&dir), drop).await;
            if let Ok(Ok(found)) = found {
                self.metrics.measured(|sample| sample.mounts = found.len());
            }
        }
        for name in self.metrics.names() {
            let lane = (Kind::Measure, Some(name.clone()));
            if self.calls.is_busy(&lane) {
                continue;
            }
            let (volumes, asked) = (Arc::clone(&self.volumes), name.clone());
            let order = Order { lane, limit: MEASURE, must_run: false };
            let (metrics, late) = (Arc::clone(&self.metrics), name.clone());
            let put = move |name: VolumeName, usage| {
                metrics.measured(|sample| sample.usage.extend([(name, usage)]));
            };
            let put_late = put.clone();
            let found = self.calls.run(
                order,
                move || volumes.usage(&asked),
                move |found| {
                    if let Ok(usage) = found {
                        put_late(late, usage);
                    }
                },
            );
            match found.await {
                Ok(Ok(usage)) => put(name, usage),
                Ok(Err(refusal)) => tracing::debug!("volume {:?}: {refusal}", name.as_str()),
                Err(error) => tracing::debug!("volume {:?}: {error}", name.as_str()),
            }
        }
    }
}
