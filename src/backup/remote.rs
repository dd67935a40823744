//! Objects of a store, behind calls that wait.
//!
//! The crate `object_store` is asynchronous: one thread runs a small runtime for it, and any thread
//! may call. Requests are repeated a few times, within a time limit. Nothing is read from the
//! environment here: the caller passes the variables with credentials.

use std::future::Future;
use std::path::{Path as HostPath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use futures_util::StreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    BackoffConfig, ObjectStore, ObjectStoreExt, ObjectStoreScheme, PutMode, PutOptions, RetryConfig,
};
use parking_lot::RwLock;
use url::Url;

use super::error::{BackupError, Result};
use super::repository::Site;
use crate::error::FromHost;

/// Attempts of one request, and the time for all of them.
const RETRIES: usize = 6;
const RETRY_TIME: Duration = Duration::from_secs(90);
/// The longest time for one request with all its attempts.
const PATIENCE: Duration = Duration::from_secs(300);
/// Seconds for one attempt, and for a connection.
const TIMES: [(&str, &str); 2] = [("timeout", "120s"), ("connect_timeout", "15s")];
/// Objects of a listing that wait for their reader.
const LISTED: usize = 2048;

/// An object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    /// The name below the listed folder.
    pub(super) name: String,
    pub(super) size: u64,
    /// The time of its last change by the clock of the server, in seconds since 1970.
    pub(super) modified: i64,
}

/// Requests and bytes so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests that write.
    pub puts: u64,
    /// Requests that read an object or its attributes.
    pub gets: u64,
    /// Bytes of objects that were written.
    pub sent_bytes: u64,
}

#[derive(Default)]
struct Counters {
    puts: AtomicU64,
    gets: AtomicU64,
    sent: AtomicU64,
}

/// A store, or a folder of one.
pub(super) struct Remote {
    store: Arc<dyn ObjectStore>,
    folder: Path,
    url: String,
    runtime: tokio::runtime::Handle,
    ending: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    counters: Counters,
    /// The directory of a `file:` address.
    directory: Option<PathBuf>,
    /// Held by every write.
    writes: RwLock<()>,
}

impl Drop for Remote {
    fn drop(&mut self) {
        drop(self.ending.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Remote {
    /// Opens a store. The directory of a `file:` address is made if `create`.
    pub(super) fn open(site: &Site, create: bool) -> Result<Self> {
        let bad = |what: String| BackupError::Url { url: shown(&site.url), what };
        let url = Url::parse(&site.url).map_err(|error| {
            bad(format!(
                "{error}: use s3://BUCKET/DIR, gs://BUCKET/DIR, az://CONTAINER/DIR or \
                         file:///DIR"
            ))
        })?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad("credentials belong into the environment".to_owned()));
        }
        let (scheme, folder) = ObjectStoreScheme::parse(&url).map_err(|_| {
            let scheme = url.scheme();
            bad(format!("no store is known for {scheme}: use s3://, gs://, az:// or file:///DIR"))
        })?;
        let failed = |error: object_store::Error| bad(error.to_string());
        let (store, folder, directory) = match scheme {
            ObjectStoreScheme::Local => {
                let dir = url
                    .to_file_path()
                    .map_err(|()| bad("it names a host: use file:///DIR".to_owned()))?;
                (local(&dir, create)?, Path::default(), Some(dir))
            }
            _ => (cloud(scheme, site).map_err(failed)?, folder, None),
        };
        let name = std::thread::Builder::new().name("object store".to_owned());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(16)
            .build()
            .map_err(|error| bad(format!("no runtime: {error}")))?;
        let handle = runtime.handle().clone();
        let (ending, ended) = tokio::sync::oneshot::channel();
        let thread = name.spawn(move || {
            // An error is the end too: the sender is gone.
            drop(runtime.block_on(ended));
            runtime.shutdown_background();
        });
        let thread = Some(thread.map_err(|error| bad(format!("no thread: {error}")))?);
        let (ending, url, counters) = (Some(ending), shown(&site.url), Counters::default());
        Ok(Self {
            store,
            folder,
            url,
            runtime: handle,
            ending,
            thread,
            counters,
            directory,
            writes: RwLock::default(),
        })
    }

    /// The address, without a password.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Requests and bytes so far.
    pub(super) fn traffic(&self) -> Traffic {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { puts, gets, sent } = &self.counters;
        Traffic { puts: load(puts), gets: load(gets), sent_bytes: load(sent) }
    }

    fn place(&self, name: &str) -> Path {
        name.split('/').fold(self.folder.clone(), |path, part| path.join(part))
    }

    fn wait<T: Send + 'static>(
        &self,
        name: &str,
        request: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.runtime.spawn(async move {
            // Without a receiver nobody wants the answer.
            drop(answer.send(tokio::time::timeout(PATIENCE, request).await));
        });
        let object = || format!("{}/{name}", self.url);
        let failed = |what: String| BackupError::Remote { object: object(), what };
        let answer = answered.recv().map_err(|_| failed("the runtime has ended".to_owned()))?;
        let answer = answer.map_err(|_| failed(format!("no answer within {PATIENCE:?}")))?;
        answer.map_err(|error| match error {
            object_store::Error::NotFound { .. } => BackupError::Missing { object: object() },
            error => failed(flat(&error)),
        })
    }

    /// Writes an object. It appears as a whole.
    pub(super) fn put(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        let (store, place, len) = (self.store.clone(), self.place(name), bytes.len() as u64);
        let put = async move { store.put(&place, bytes.into()).await.map(drop) };
        let _write = self.writes.read();
        self.count(&self.counters.puts);
        self.wait(name, put)?;
        self.counters.sent.fetch_add(len, Ordering::Relaxed);
        Ok(())
    }

    /// Waits for the writes under way, and lets none begin from then on.
    pub(super) fn end_writes(&self) {
        std::mem::forget(self.writes.write());
    }

    /// Writes an object unless it exists; returns whether it was written.
    pub(super) fn put_new(&self, name: &str, bytes: Vec<u8>) -> Result<bool> {
        let (store, place) = (self.store.clone(), self.place(name));
        let options = PutOptions::from(PutMode::Create);
        let _write = self.writes.read();
        let put = async move {
            match store.put_opts(&place, bytes.into(), options).await {
                Err(
                    object_store::Error::AlreadyExists { .. }
                    | object_store::Error::Precondition { .. },
                ) => Ok(false),
                done => done.map(|_| true),
            }
        };
        self.count(&self.counters.puts);
        self.wait(name, put)
    }

    /// Reads an object of at most `most` bytes.
    pub(super) fn get(&self, name: &str, most: usize) -> Result<Vec<u8>> {
        let (store, place) = (self.store.clone(), self.place(name));
        let get = async move {
            let found = store.get(&place).await?;
            if found.meta.size > most as u64 {
                return Ok(None);
            }
            found.bytes().await.map(|bytes| Some(bytes.to_vec()))
        };
        self.count(&self.counters.gets);
        self.wait(name, get)?.ok_or_else(|| {
            let what = format!("{}/{name} is longer than {most} bytes", self.url);
            BackupError::TooLarge { what }
        })
    }

    /// The time of the last change of an object by the clock of the server; `None` without it.
    pub(super) fn modified(&self, name: &str) -> Result<Option<i64>> {
        let (store, place) = (self.store.clone(), self.place(name));
        self.count(&self.counters.gets);
        match self.wait(name, async move { store.head(&place).await }) {
            Err(BackupError::Missing { .. }) => Ok(None),
            found => Ok(Some(found?.last_modified.timestamp())),
        }
    }

    /// Removes an object, which may be gone.
    pub(super) fn remove(&self, name: &str) -> Result<()> {
        let (store, place) = (self.store.clone(), self.place(name));
        match self.wait(name, async move { store.delete(&place).await }) {
            Err(BackupError::Missing { .. }) => Ok(()),
            done => done,
        }
    }

    /// Lists the objects below a folder until `each` returns false.
    pub(super) fn list(
        &self,
        folder: &str,
        each: &mut dyn FnMut(Listed) -> Result<bool>,
    ) -> Result<()> {
        let place = self.place(folder);
        let (store, from) = (self.store.clone(), place.clone());
        let (sender, mut receiver) = tokio::sync::mpsc::channel(LISTED);
        self.runtime.spawn(async move {
            let mut stream = store.list(Some(&from));
            while let Some(next) = stream.next().await {
                if sender.send(next).await.is_err() {
                    return;
                }
            }
        });
        while let Some(next) = receiver.blocking_recv() {
            let found = match next {
                Err(object_store::Error::NotFound { .. }) => continue,
                found => found.map_err(|error| BackupError::Remote {
                    object: format!("{}/{folder}", self.url),
                    what: flat(&error),
                })?,
            };
            let Some(below) = found.location.prefix_match(&place) else { continue };
            let name = below.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
            let (size, modified) = (found.size, found.last_modified.timestamp());
            if !each(Listed { name, size, modified })? {
                break;
            }
        }
        Ok(())
    }

    /// Removes what killed processes left in a directory: files that have no name of an object yet
    /// (`NAME#NUMBER`) and are older than a day.
    pub(super) fn sweep(&self) -> Result<()> {
        const DAY: Duration = Duration::from_secs(86_400);
        let Some(directory) = &self.directory else { return Ok(()) };
        for entry in walkdir::WalkDir::new(directory).follow_links(false) {
            let Ok(entry) = entry else { continue };
            let name = entry.file_name().to_string_lossy();
            let number = name.rsplit_once('#').map(|(_, number)| number);
            let is_rest = number.is_some_and(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let age = entry.metadata().ok().and_then(|found| found.modified().ok()?.elapsed().ok());
            if is_rest && entry.file_type().is_file() && age.is_some_and(|age| age > DAY) {
                match std::fs::remove_file(entry.path()) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    removed => removed.map_err(BackupError::io(entry.path()))?,
                }
            }
        }
        Ok(())
    }

    fn count(&self, counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// An address without user and password.
fn shown(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut url) => {
            // Addresses without a host cannot have them.
            let cleaned = url.set_password(None).and_then(|()| url.set_username(""));
            cleaned.unwrap_or_default();
            url.as_str().trim_end_matches('/').to_owned()
        }
        Err(_) => url.to_owned(),
    }
}

/// An error with its causes, in one line.
fn flat(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = next.source();
    }
    text.replace('\n', " ")
}

fn local(dir: &HostPath, create: bool) -> Result<Arc<dyn ObjectStore>> {
    let dir = PathBuf::from(dir);
    if create {
        std::fs::create_dir_all(&dir).map_err(BackupError::io(&dir))?;
    } else if !dir.is_dir() {
        return Err(BackupError::NoRepository { url: format!("file://{}", dir.display()) });
    }
    let failed = |error: object_store::Error| {
        BackupError::io(&dir)(std::io::Error::other(error.to_string()))
    };
    // A manifest must not be on the disk before the chunks that it names.
    Ok(Arc::new(LocalFileSystem::new_with_prefix(&dir).map_err(failed)?.with_fsync(true)))
}

fn cloud(scheme: ObjectStoreScheme, site: &Site) -> object_store::Result<Arc<dyn ObjectStore>> {
    // More than one provider may be compiled in, so that none is chosen by itself. An error means
    // that one is installed already.
    drop(rustls::crypto::ring::default_provider().install_default());
    let retry = RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: RETRIES,
        retry_timeout: RETRY_TIME,
    };
    let given = site.variables.iter().map(|(key, value)| (key.to_ascii_lowercase(), value));
    let set = TIMES.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let set: Vec<(String, String)> =
        set.into_iter().chain(given.map(|(key, value)| (key, value.clone()))).collect();
    macro_rules! build {
        ($builder:ident) => {{
            let mut builder = $builder::new().with_url(&site.url).with_retry(retry);
            for (key, value) in set {
                if let Ok(key) = key.parse() {
                    builder = builder.with_config(key, value);
                }
            }
            Ok(Arc::new(builder.build()?))
        }};
    }
    match scheme {
        ObjectStoreScheme::AmazonS3 => build!(AmazonS3Builder),
        ObjectStoreScheme::GoogleCloudStorage => build!(GoogleCloudStorageBuilder),
        ObjectStoreScheme::MicrosoftAzure => build!(MicrosoftAzureBuilder),
        other => Err(object_store::Error::NotSupported {
            source: format!("{other:?} is not supported: use s3, gs, az or file").into(),
        }),
    }
}
