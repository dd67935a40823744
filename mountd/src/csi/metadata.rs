//! The service SnapshotMetadata: which ranges of a snapshot of a device have data, or differ from
//! those of an earlier one.
//!
//! A list is read as slowly as its client wants. So lists have threads of their own, and a client
//! that reads nothing for a minute is given up.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use laminafs::service::volumes::is_device;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::check;
use super::driver::Driver;
use super::fault::{Fault, Outcome};
use super::wire::snapshot_metadata_server::SnapshotMetadata;
use super::wire::{
    BlockMetadata, BlockMetadataType, GetMetadataAllocatedRequest, GetMetadataAllocatedResponse,
    GetMetadataDeltaRequest, GetMetadataDeltaResponse,
};

/// Lists that are read at once. Others wait.
const LISTS: usize = 8;
/// How long a client may leave a message unread.
const PATIENCE: Duration = Duration::from_secs(60);

/// The service.
pub struct Service {
    driver: Arc<Driver>,
    lists: Arc<Semaphore>,
}

impl Service {
    /// The service of a driver.
    #[must_use]
    pub fn new(driver: Arc<Driver>) -> Self {
        Self { driver, lists: Arc::new(Semaphore::new(LISTS)) }
    }
}

/// Messages that wait for a slow client.
const WAITING: usize = 4;
/// The ranges of a message, unless a request wants fewer.
const RESULTS_MAX: usize = 4096;

type Stream<T> = ReceiverStream<Result<T, Status>>;

/// What a request asks for.
struct Wanted {
    snapshot: String,
    base: Option<String>,
    from: i64,
    results: i32,
}

/// A part of an answer: ranges, and the size of the volume.
type Part = (Vec<BlockMetadata>, i64);

fn number(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// What the answer of a list begins with and ends at.
#[derive(Clone, Copy)]
struct Bounds {
    from: u64,
    size: u64,
    most: usize,
}

/// Where the messages of a list go.
struct Sink<T> {
    to: mpsc::Sender<Result<T, Status>>,
    runtime: Handle,
}

impl<T> Sink<T> {
    /// Sends a message, and returns whether the client takes more.
    fn send(&self, message: T) -> bool {
        let sent = self.runtime.block_on(timeout(PATIENCE, self.to.send(Ok(message))));
        matches!(sent, Ok(Ok(())))
    }
}

impl Wanted {
    /// Refuses what cannot be answered, before anything is sent.
    fn check(&self, driver: &Driver) -> Outcome<Bounds> {
        let of = driver.snapshot(&self.snapshot)?;
        let base = self.base.as_ref().map(|base| driver.snapshot(base)).transpose()?;
        for one in base.iter().chain([&of]) {
            if !is_device(one) {
                return Err(Fault::not_now(format!(
                    "snapshot {} is of a volume with files: only a device has a list of blocks",
                    one.id
                )));
            }
        }
        if base.is_some_and(|base| base.origin != of.origin) {
            return Err(Fault::invalid("the two snapshots are of different volumes"));
        }
        let size = of.size_bytes.unwrap_or(0);
        let most = match usize::try_from(self.results) {
            Ok(0) => RESULTS_MAX,
            Ok(results) => results.min(RESULTS_MAX),
            Err(_) => return Err(Fault::invalid("max_results is negative")),
        };
        match u64::try_from(self.from) {
            Ok(from) if from <= size => Ok(Bounds { from, size, most }),
            _ => Err(Fault::range(format!(
                "starting_offset {} is not within the {size} bytes of the snapshot",
                self.from
            ))),
        }
    }

    /// Sends ranges until the client is gone. It gets one message at least, with the size.
    fn send<T>(
        &self,
        driver: &Driver,
        bounds: Bounds,
        sink: &Sink<T>,
        message: impl Fn(Part) -> T,
    ) -> Outcome<()> {
        let size = number(bounds.size);
        let (mut ranges, mut is_first, mut takes_more) = (Vec::new(), true, true);
        let mut on = |range: Range<u64>| {
            let size_bytes = number(range.end - range.start);
            ranges.push(BlockMetadata { byte_offset: number(range.start), size_bytes });
            if ranges.len() >= bounds.most {
                is_first = false;
                takes_more = sink.send(message((std::mem::take(&mut ranges), size)));
            }
            takes_more
        };
        driver.volumes.blocks(&self.snapshot, self.base.as_deref(), bounds.from, &mut on)?;
        if takes_more && (is_first || !ranges.is_empty()) {
            sink.send(message((ranges, size)));
        }
        Ok(())
    }

    async fn stream<T: Send + 'static>(
        self,
        service: &Service,
        message: impl Fn(Part) -> T + Send + 'static,
    ) -> Result<Response<Stream<T>>, Status> {
        check::required("snapshot_id", &self.snapshot)?;
        if self.base.as_deref() == Some("") {
            return Err(Fault::invalid("base_snapshot_id is missing").into());
        }
        let check = move |driver: &Driver| self.check(driver).map(|bounds| (self, bounds));
        let (wanted, bounds) = service.driver.run([], check).await?.into_inner();
        let (to, from) = mpsc::channel(WAITING);
        let (driver, lists) = (Arc::clone(&service.driver), Arc::clone(&service.lists));
        let sink = Sink { to, runtime: Handle::current() };
        tokio::spawn(async move {
            // It is never closed. The first message finds out that a client went meanwhile.
            let Ok(list) = lists.acquire_owned().await else { return };
            tokio::task::spawn_blocking(move || {
                let _list = list;
                if let Err(fault) = wanted.send(&driver, bounds, &sink, message) {
                    // A client that is gone needs no reason.
                    let sent = sink.to.send(Err(fault.into()));
                    drop(sink.runtime.block_on(timeout(PATIENCE, sent)));
                }
            });
        });
        Ok(Response::new(ReceiverStream::new(from)))
    }
}

#[tonic::async_trait]
impl SnapshotMetadata for Service {
    type GetMetadataAllocatedStream = Stream<GetMetadataAllocatedResponse>;
    type GetMetadataDeltaStream = Stream<GetMetadataDeltaResponse>;

    async fn get_metadata_allocated(
        &self,
        request: Request<GetMetadataAllocatedRequest>,
    ) -> Result<Response<Self::GetMetadataAllocatedStream>, Status> {
        let request = request.into_inner();
        let wanted = Wanted {
            snapshot: request.snapshot_id,
            base: None,
            from: request.starting_offset,
            results: request.max_results,
        };
        wanted
            .stream(self, |(block_metadata, volume_capacity_bytes)| GetMetadataAllocatedResponse {
                block_metadata_type: BlockMetadataType::VariableLength.into(),
                volume_capacity_bytes,
                block_metadata,
            })
            .await
    }

    async fn get_metadata_delta(
        &self,
        request: Request<GetMetadataDeltaRequest>,
    ) -> Result<Response<Self::GetMetadataDeltaStream>, Status> {
        let request = request.into_inner();
        let wanted = Wanted {
            snapshot: request.target_snapshot_id,
            base: Some(request.base_snapshot_id),
            from: request.starting_offset,
            results: request.max_results,
        };
        wanted
            .stream(self, |(block_metadata, volume_capacity_bytes)| GetMetadataDeltaResponse {
                block_metadata_type: BlockMetadataType::VariableLength.into(),
                volume_capacity_bytes,
                block_metadata,
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::FileExt;
    use std::path::{Path, PathBuf};

    use laminafs::service::volumes::{NewVolume, VolumeService};
    use tokio_stream::StreamExt;

    use super::super::Role;
    use super::*;

    const SIZE: u64 = 8 << 20;
    const BLOCK: u64 = 4096;

    /// The largest file below a directory.
    fn largest(dir: &Path) -> Option<(u64, PathBuf)> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let found = entries.filter_map(|path| match fs::symlink_metadata(&path).unwrap() {
            stat if stat.is_dir() => largest(&path),
            stat => Some((stat.len(), path)),
        });
        found.max()
    }

    /// A device with data in each second block; the id of its snapshot.
    fn snapshot(volumes: &VolumeService) -> String {
        let options = [("fs", "none".to_owned()), ("size", SIZE.to_string())];
        let new = NewVolume {
            name: "device".parse().unwrap(),
            driver: Some("image".to_owned()),
            options: options.map(|(key, value)| (key.to_owned(), value)).into(),
            labels: [].into(),
        };
        let made = volumes.create(new).unwrap();
        let (len, path) = largest(made.directory()).unwrap();
        assert_eq!(len, SIZE);
        let file = File::options().write(true).open(path).unwrap();
        for at in (0..SIZE).step_by(2 * BLOCK as usize) {
            file.write_all_at(&[1; BLOCK as usize], at).unwrap();
        }
        file.sync_all().unwrap();
        let taken = volumes.snapshot(&made.name, Some("snapshot".parse().unwrap())).unwrap();
        taken.id
    }

    #[test]
    fn lists_that_nobody_reads_leave_the_threads_of_calls_free() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = Arc::new(VolumeService::open(dir.path()).unwrap());
        let snapshot_id = snapshot(&volumes);
        let driver = Arc::new(Driver::new(volumes, "node".to_owned(), Role::Controller, 2));
        let service = Service::new(Arc::clone(&driver));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let list = async || {
                let snapshot_id = snapshot_id.clone();
                let request = GetMetadataAllocatedRequest {
                    snapshot_id,
                    max_results: 1,
                    ..Default::default()
                };
                service.get_metadata_allocated(Request::new(request)).await.unwrap().into_inner()
            };
            let mut unread = Vec::new();
            for _ in 0..LISTS + 2 {
                unread.push(list().await);
            }
            // All lists that may run wait for their readers by now.
            while service.lists.available_permits() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let limit = Duration::from_secs(30);
            timeout(limit, driver.run([], |_| Ok(()))).await.unwrap().unwrap();
            drop(unread);
            let read = list().await.collect::<Vec<_>>();
            let parts = timeout(limit, read).await.unwrap();
            let ranges = parts.into_iter().map(|part| part.unwrap().block_metadata);
            let bytes: i64 = ranges.flatten().map(|range| range.size_bytes).sum();
            assert_eq!(bytes.unsigned_abs(), SIZE / 2);
        });
    }
}
