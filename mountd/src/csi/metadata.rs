//! The service SnapshotMetadata: which ranges of a snapshot of a device have data, or differ from
//! those of an earlier one.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::controller::required;
use super::driver::Driver;
use super::fault::{Fault, Outcome};
use super::wire::snapshot_metadata_server::SnapshotMetadata;
use super::wire::{
    BlockMetadata, BlockMetadataType, GetMetadataAllocatedRequest, GetMetadataAllocatedResponse,
    GetMetadataDeltaRequest, GetMetadataDeltaResponse,
};

/// The service.
pub struct Service(pub Arc<Driver>);

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

impl Wanted {
    /// Refuses what cannot be answered, before anything is sent.
    fn check(&self, driver: &Driver) -> Outcome<(u64, u64)> {
        let of = driver.snapshot(&self.snapshot)?;
        if let Some(base) = &self.base {
            driver.snapshot(base)?;
        }
        let size = of.size_bytes.unwrap_or(0);
        match u64::try_from(self.from) {
            Ok(from) if from <= size => Ok((from, size)),
            _ => Err(Fault::range(format!(
                "starting_offset {} is not within the {size} bytes of the snapshot",
                self.from
            ))),
        }
    }

    /// Sends ranges until the client is gone.
    fn send<T>(
        &self,
        driver: &Driver,
        to: &mpsc::Sender<Result<T, Status>>,
        message: impl Fn(Part) -> T,
    ) -> Outcome<()> {
        let (from, size) = self.check(driver)?;
        let most = match usize::try_from(self.results) {
            Ok(0) => RESULTS_MAX,
            Ok(results) => results.min(RESULTS_MAX),
            Err(_) => return Err(Fault::invalid("max_results is negative")),
        };
        let mut ranges = Vec::new();
        let mut is_gone = false;
        let mut on = |range: Range<u64>| {
            let size_bytes = number(range.end - range.start);
            ranges.push(BlockMetadata { byte_offset: number(range.start), size_bytes });
            if ranges.len() >= most {
                let part = (std::mem::take(&mut ranges), number(size));
                is_gone = to.blocking_send(Ok(message(part))).is_err();
            }
            !is_gone
        };
        driver.volumes.blocks(&self.snapshot, self.base.as_deref(), from, &mut on)?;
        if !is_gone && !ranges.is_empty() {
            // A client that is gone needs no last part.
            drop(to.blocking_send(Ok(message((ranges, number(size))))));
        }
        Ok(())
    }

    async fn stream<T: Send + 'static>(
        self,
        driver: &Arc<Driver>,
        message: impl Fn(Part) -> T + Send + 'static,
    ) -> Result<Response<Stream<T>>, Status> {
        required("snapshot_id", &self.snapshot)?;
        if self.base.as_deref() == Some("") {
            return Err(Fault::invalid("base_snapshot_id is missing").into());
        }
        let (to, from) = mpsc::channel(WAITING);
        let driver = Arc::clone(driver);
        tokio::spawn(async move {
            let end = to.clone();
            let work = move |driver: &Driver| self.send(driver, &to, message);
            if let Err(status) = driver.run([], work).await {
                // A client that is gone needs no reason.
                drop(end.send(Err(status)).await);
            }
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
            .stream(&self.0, |(block_metadata, volume_capacity_bytes)| {
                GetMetadataAllocatedResponse {
                    block_metadata_type: BlockMetadataType::VariableLength.into(),
                    volume_capacity_bytes,
                    block_metadata,
                }
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
            .stream(&self.0, |(block_metadata, volume_capacity_bytes)| GetMetadataDeltaResponse {
                block_metadata_type: BlockMetadataType::VariableLength.into(),
                volume_capacity_bytes,
                block_metadata,
            })
            .await
    }
}
