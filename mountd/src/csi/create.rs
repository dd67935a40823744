//! CreateVolume.
//!
//! The volume has the request in its labels, which are written together with it. It appears once it
//! is whole, a copy with its own size and limits: a repetition finds it so, or finds nothing.

use std::collections::{BTreeMap, HashMap};

use laminafs::service::volumes::copy::NewCopy;
use laminafs::service::volumes::{CLAIM_LABEL, Limits, NewVolume, Volume, is_device};
use laminafs::service::{CatalogError, Refusal};
use laminafs::types::{VolumeName, size as sizes};

use super::check::{self, Access};
use super::driver::Driver;
use super::fault::{Fault, Outcome};
use super::record::{self, Request, Source};
use super::wire::volume_content_source::Type;
use super::wire::{
    CreateVolumeRequest, CreateVolumeResponse, Topology, TopologyRequirement, VolumeContentSource,
    volume_content_source,
};
use super::{KUBERNETES, NODE_KEY, UNFINISHED_LABEL, shown};

/// The size of a volume for which none is requested.
const SIZE_DEFAULT: u64 = 1 << 30;
/// The smallest size: anything smaller has no room for a file system.
pub const SIZE_MIN: u64 = 8 << 20;
const XFS_MIN: u64 = 300 << 20;
/// The unit of sizes.
pub const BLOCK: u64 = 4096;
/// Parameters that are options of drivers.
const OPTIONS: [&str; 6] = ["fs", "from", "overcommit", "inodes", "iops", "bandwidth"];
/// Parameters that can change later.
const MUTABLE: [&str; 2] = ["iops", "bandwidth"];

/// A request whose parts are checked.
struct Wanted {
    name: String,
    volume: VolumeName,
    driver: String,
    options: BTreeMap<String, String>,
    claim: String,
    request: Request,
    required: Option<u64>,
    limit: Option<u64>,
    is_marked: bool,
}

/// The parameters that may change.
///
/// # Errors
/// `INVALID_ARGUMENT` for another one.
pub fn mutable(parameters: HashMap<String, String>) -> Outcome<BTreeMap<String, String>> {
    match parameters.keys().find(|key| !MUTABLE.contains(&key.as_str())) {
        Some(key) => {
            Err(Fault::invalid(format!("mutable parameter {key:?}: use iops or bandwidth")))
        }
        None => Ok(parameters.into_iter().collect()),
    }
}

/// The access types of all capabilities: whether the volume is a device, and its file system.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub fn access(
    capabilities: &[super::wire::VolumeCapability],
) -> Outcome<(bool, String, Vec<Access>)> {
    if capabilities.is_empty() {
        return Err(Fault::invalid("volume_capabilities is missing"));
    }
    let all: Vec<Access> =
        capabilities.iter().map(|one| Access::new(Some(one))).collect::<Outcome<_>>()?;
    let is_block = all.first().is_some_and(Access::is_block);
    if all.iter().any(|one| one.is_block() != is_block) {
        return Err(Fault::invalid("a volume is a device or has files, not both"));
    }
    let types = all.iter().filter_map(|one| one.mount.as_ref()).map(|mount| mount.fs_type.as_str());
    let mut types: Vec<&str> = types.filter(|kind| !kind.is_empty()).collect();
    types.sort_unstable();
    types.dedup();
    match types.as_slice() {
        [] => Ok((is_block, String::new(), all)),
        [one] => Ok((is_block, (*one).to_owned(), all)),
        _ => Err(Fault::invalid(format!("fs_type is one of {}: use one", types.join(", ")))),
    }
}

/// The driver, and its options, for parameters.
fn driver_of(
    parameters: &BTreeMap<String, String>,
    is_block: bool,
    fs_type: &str,
) -> Outcome<(String, BTreeMap<String, String>)> {
    let mut options = BTreeMap::new();
    for (key, value) in parameters.iter().filter(|(key, _)| *key != "driver") {
        if !OPTIONS.contains(&key.as_str()) {
            let known = OPTIONS.join(", ");
            return Err(Fault::invalid(format!("unknown parameter {key:?}: use driver, {known}")));
        }
        options.insert(key.clone(), value.clone());
    }
    let named = parameters.get("driver").map(String::as_str);
    let fs = options.get("fs").cloned();
    if let Some(fs) = fs.as_deref().filter(|fs| !fs_type.is_empty() && *fs != fs_type) {
        return Err(Fault::invalid(format!("parameter fs is {fs}, and fs_type is {fs_type}")));
    }
    if is_block {
        if named.is_some_and(|named| named != "image") || fs.is_some_and(|fs| fs != "none") {
            let text = "a block volume has the driver image and no file system: leave out driver \
                        and fs";
            return Err(Fault::invalid(text));
        }
        options.insert("fs".to_owned(), "none".to_owned());
        return Ok(("image".to_owned(), options));
    }
    if fs.as_deref() == Some("none") {
        return Err(Fault::invalid("parameter fs is none: request volumeMode Block"));
    }
    let has_type = !fs_type.is_empty() || fs.is_some();
    match named {
        None if !has_type => Ok(("union".to_owned(), options)),
        None | Some("image") => {
            if !fs_type.is_empty() {
                options.insert("fs".to_owned(), fs_type.to_owned());
            }
            Ok(("image".to_owned(), options))
        }
        Some(named @ ("union" | "local")) if !has_type => Ok((named.to_owned(), options)),
        Some(named @ ("union" | "local")) => Err(Fault::invalid(format!(
            "driver {named} has no file system of its own: leave out fs and fs_type, or use \
             driver image"
        ))),
        Some(named) => {
            Err(Fault::invalid(format!("parameter driver is {named:?}: use union, image or local")))
        }
    }
}

/// The file system of a volume of the driver `image`; nothing for the others.
#[must_use]
pub fn fs_of(volume: &Volume) -> &str {
    match volume.driver.as_str() {
        "image" => volume.options.get("fs").map_or("ext4", String::as_str),
        _ => "",
    }
}

/// Parameters without those about the claim.
#[must_use]
pub fn own(mut all: HashMap<String, String>) -> BTreeMap<String, String> {
    all.retain(|key, _| !key.starts_with(KUBERNETES));
    all.into_iter().collect()
}

/// Parameters without those about the claim, the claim, and the type of the file system there.
fn split(all: HashMap<String, String>) -> (BTreeMap<String, String>, Option<String>, String) {
    let of = |key: &str| all.get(&format!("{KUBERNETES}{key}")).cloned();
    let claim = of("pvc/namespace").zip(of("pvc/name"));
    let claim = claim.map(|(namespace, name)| format!("{namespace}/{name}"));
    let fs_type = of("fstype").unwrap_or_default();
    (own(all), claim, fs_type)
}

/// What volumes of a class can have.
pub struct Bounds {
    /// The smallest size.
    pub least: u64,
    /// Whether the sum of sizes may be more than the host has.
    pub overcommits: bool,
}

/// The bounds for parameters and capabilities.
///
/// # Errors
/// `INVALID_ARGUMENT` for parameters that no volume can have.
pub fn bounds(
    parameters: HashMap<String, String>,
    is_block: bool,
    fs_type: &str,
) -> Outcome<Bounds> {
    let (parameters, _, named) = split(parameters);
    let fs_type = if fs_type.is_empty() { &named } else { fs_type };
    let (driver, options) = driver_of(&parameters, is_block, fs_type)?;
    let overcommits = options.get("overcommit").is_some_and(|text| text == "true");
    Ok(Bounds { least: least(&driver, &options), overcommits })
}

/// The smallest size of a driver with options.
fn least(driver: &str, options: &BTreeMap<String, String>) -> u64 {
    match options.get("fs").map(String::as_str) {
        Some("none") => BLOCK,
        Some("xfs") if driver == "image" => XFS_MIN,
        _ => SIZE_MIN,
    }
}

/// The size of a volume without a source.
fn size(required: Option<u64>, limit: Option<u64>, least: u64) -> Outcome<u64> {
    let most = i64::MAX.unsigned_abs();
    let wanted = required.unwrap_or_else(|| SIZE_DEFAULT.min(limit.unwrap_or(SIZE_DEFAULT)));
    let bytes = wanted.max(least).min(most).next_multiple_of(BLOCK);
    match limit.filter(|limit| *limit < bytes) {
        Some(limit) if required.is_none() && limit >= least => Ok(limit - limit % BLOCK),
        Some(limit) => Err(Fault::range(format!(
            "limit_bytes {limit} is less than {bytes}, the size that this volume would have"
        ))),
        None if bytes > most => Err(Fault::range(format!("{wanted} bytes are too many"))),
        None => Ok(bytes),
    }
}

fn source(source: Option<VolumeContentSource>) -> Outcome<Option<Source>> {
    let Some(source) = source else { return Ok(None) };
    let (field, id) = match &source.r#type {
        Some(Type::Snapshot(of)) => ("snapshot_id", &of.snapshot_id),
        Some(Type::Volume(of)) => ("volume_id", &of.volume_id),
        None => return Err(Fault::invalid("volume_content_source.type is missing")),
    };
    if id.is_empty() {
        return Err(Fault::invalid(format!("volume_content_source.{field} is missing")));
    }
    Ok(source.r#type.map(|of| match of {
        Type::Snapshot(of) => Source::Snapshot(of.snapshot_id),
        Type::Volume(of) => Source::Volume(of.volume_id),
    }))
}

/// Whether a volume of this node is what a request wants.
pub fn is_here(wanted: &Topology, node: &str) -> bool {
    wanted.segments.get(NODE_KEY).is_none_or(|key| key == node)
}

/// Refuses a place that is not this node.
///
/// # Errors
/// `RESOURCE_EXHAUSTED`.
pub fn require_here(wanted: Option<&TopologyRequirement>, node: &str) -> Outcome<()> {
    let requisite = wanted.map(|wanted| wanted.requisite.as_slice()).unwrap_or_default();
    if requisite.is_empty() || requisite.iter().any(|one| is_here(one, node)) {
        return Ok(());
    }
    Err(Fault::exhausted(format!("volumes of this driver are on node {node}, which is not wanted")))
}

fn wanted(request: CreateVolumeRequest, node: &str) -> Outcome<Wanted> {
    let name = check::name("name", &request.name)?.to_owned();
    let (is_block, mut fs_type, all) = access(&request.volume_capabilities)?;
    if let Some(one) = all.iter().find(|one| !one.is_of_one_node()) {
        return Err(Fault::invalid(one.refusal()));
    }
    let (required, limit) = check::range(request.capacity_range.as_ref())?;
    let (parameters, claim, named) = split(request.parameters);
    let claim = claim.unwrap_or_else(|| name.clone());
    if fs_type.is_empty() {
        fs_type = named;
    }
    let (driver, mut options) = driver_of(&parameters, is_block, &fs_type)?;
    let mutable = mutable(request.mutable_parameters)?;
    options.extend(mutable.clone());
    require_here(request.accessibility_requirements.as_ref(), node)?;
    let source = source(request.volume_content_source)?;
    if source.is_some() && options.contains_key("from") {
        return Err(Fault::invalid("parameter from: a copy has the content of its source"));
    }
    let volume = record::volume_name(&name)?;
    let request = Request { parameters, mutable, is_block, fs_type, source };
    let is_marked = false;
    Ok(Wanted { name, volume, driver, options, claim, request, required, limit, is_marked })
}

/// The objects that a request works on.
pub fn objects(request: &CreateVolumeRequest) -> Vec<String> {
    let mut objects = vec![format!("the volume named {:?}", request.name)];
    if let Some(Type::Volume(of)) =
        request.volume_content_source.as_ref().and_then(|source| source.r#type.as_ref())
    {
        objects.push(of.volume_id.clone());
    }
    objects
}

impl Wanted {
    /// Refuses a volume that differs from the request.
    fn require_same(&self, found: &Volume) -> Outcome<()> {
        let name = &self.name;
        let differs =
            |what: &str| Err(Fault::exists(format!("volume {name:?} exists with {what}")));
        if found.labels.get(record::NAME) != Some(name) {
            return Err(Fault::exists(format!(
                "volume {} exists and was not made by this name: choose another name",
                found.name
            )));
        }
        let Some(made) = Request::of(found) else { return differs("a request that is not known") };
        if made.is_block != self.request.is_block || made.fs_type != self.request.fs_type {
            return differs("other capabilities");
        }
        if made.parameters != self.request.parameters || made.mutable != self.request.mutable {
            return differs("other parameters");
        }
        if made.source != self.request.source {
            return differs("another source");
        }
        let bytes = found.size_bytes.unwrap_or(0);
        let is_small = self.required.is_some_and(|required| bytes < required);
        if is_small || self.limit.is_some_and(|limit| bytes > limit) {
            return differs(&format!("another size, {bytes} bytes"));
        }
        Ok(())
    }

    fn labels(&self) -> Outcome<BTreeMap<String, String>> {
        let mut labels = self.request.labels(&self.name)?;
        labels.insert(CLAIM_LABEL.to_owned(), self.claim.clone());
        if self.is_marked {
            labels.insert(UNFINISHED_LABEL.to_owned(), "yes".to_owned());
        }
        Ok(labels)
    }
}

impl Driver {
    /// Makes a volume, or finds the one that the same request made. A new one is marked for the
    /// controller of this host.
    ///
    /// # Errors
    /// Those of CreateVolume.
    pub(super) fn create(
        &self,
        request: CreateVolumeRequest,
        is_marked: bool,
    ) -> Outcome<CreateVolumeResponse> {
        let wanted = Wanted { is_marked, ..wanted(request, &self.node)? };
        let made = match self.volumes.inspect(&wanted.volume) {
            Err(refusal) if !refusal.is_missing() => return Err(refusal.into()),
            Err(_) => self.make(&wanted)?,
            Ok(found) => found,
        };
        // Another process may have made it meanwhile.
        wanted.require_same(&made)?;
        let content_source = wanted.request.source.map(|source| {
            let of = match source {
                Source::Snapshot(snapshot_id) => {
                    Type::Snapshot(volume_content_source::SnapshotSource { snapshot_id })
                }
                Source::Volume(volume_id) => {
                    Type::Volume(volume_content_source::VolumeSource { volume_id })
                }
            };
            VolumeContentSource { r#type: Some(of) }
        });
        let volume = shown::Volume { content_source, ..shown::volume(&made, &self.node) };
        Ok(CreateVolumeResponse { volume: Some(volume) })
    }

    fn make(&self, wanted: &Wanted) -> Outcome<Volume> {
        if let Some(source) = &wanted.request.source {
            return self.make_copy(wanted, source);
        }
        let least = least(&wanted.driver, &wanted.options);
        let size = size(wanted.required, wanted.limit, least)?;
        let mut options = wanted.options.clone();
        options.insert("size".to_owned(), size.to_string());
        let (name, driver) = (wanted.volume.clone(), Some(wanted.driver.clone()));
        let new = NewVolume { name, driver, options, labels: wanted.labels()? };
        Ok(self.volumes.ensure(new)?.0)
    }

    fn make_copy(&self, wanted: &Wanted, source: &Source) -> Outcome<Volume> {
        let (found, text) = match source {
            Source::Volume(id) => {
                let found = self.volume(id)?;
                let name = found.name.to_string();
                (found, name)
            }
            Source::Snapshot(id) => (self.snapshot(id)?, id.clone()),
        };
        wanted.require_like(&found)?;
        let limits = wanted.limits(&found)?;
        let (name, options) = (wanted.volume.clone(), wanted.options(&found));
        let new = NewCopy { name, options, limits, labels: wanted.labels()? };
        match self.volumes.copy_as(&text, new) {
            Err(Refusal::Catalog(CatalogError::Exists { .. })) => {
                Ok(self.volumes.inspect(&wanted.volume)?)
            }
            made => Ok(made?),
        }
    }
}

impl Wanted {
    /// Refuses a source that another driver has, or another kind of volume.
    fn require_like(&self, source: &Volume) -> Outcome<()> {
        if is_device(source) != self.request.is_block {
            return Err(Fault::invalid("a source with files makes no device, nor the reverse"));
        }
        let has_driver = self.request.parameters.contains_key("driver");
        if has_driver && source.driver != self.driver {
            let (has, wants) = (&source.driver, &self.driver);
            return Err(Fault::invalid(format!(
                "the source has the driver {has}, the request asks for {wants}"
            )));
        }
        let has = fs_of(source);
        match self.options.get("fs").filter(|wants| *wants != has) {
            Some(wants) => Err(Fault::invalid(format!(
                "the source has the driver {} and no {wants}: leave out fs and fs_type",
                source.driver
            ))),
            None => Ok(()),
        }
    }

    /// The options of a copy: those of the request, and what the source has that no request names.
    fn options(&self, source: &Volume) -> BTreeMap<String, String> {
        let mut options = source.options.clone();
        options.retain(|key, _| key == "fs" || !OPTIONS.contains(&key.as_str()));
        options.extend(self.options.clone());
        options.remove("inodes");
        options
    }

    /// The limits of a copy.
    fn limits(&self, source: &Volume) -> Outcome<Limits> {
        let has = source.size_bytes.unwrap_or(0);
        let size = self.required.unwrap_or(has).next_multiple_of(BLOCK);
        if size < has || self.limit.is_some_and(|limit| size > limit) {
            return Err(Fault::range(format!("the source has {has} bytes, {size} are requested")));
        }
        let parse = |text: &String| {
            sizes::parse(text).map_err(|error| Fault::invalid(format!("parameter inodes: {error}")))
        };
        let inodes = self.options.get("inodes").map(parse).transpose()?;
        Ok(Limits { size_bytes: Some(size), inodes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_choose_a_driver() {
        let of = |pairs: &[(&str, &str)], is_block, fs_type| {
            let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            driver_of(&pairs.collect(), is_block, fs_type)
                .map(|(driver, options)| (driver, options.get("fs").cloned().unwrap_or_default()))
        };
        let good = |pairs, is_block, fs_type| of(pairs, is_block, fs_type).unwrap();
        assert_eq!(good(&[], false, ""), ("union".into(), String::new()));
        assert_eq!(good(&[], false, "xfs"), ("image".into(), "xfs".into()));
        assert_eq!(good(&[("fs", "ext4")], false, ""), ("image".into(), "ext4".into()));
        assert_eq!(good(&[], true, ""), ("image".into(), "none".into()));
        assert_eq!(good(&[("driver", "local")], false, ""), ("local".into(), String::new()));
        for (pairs, is_block, fs_type) in [
            (&[("driver", "union")][..], true, ""),
            (&[("driver", "union")], false, "ext4"),
            (&[("fs", "ext4")], false, "xfs"),
            (&[("fs", "none")], false, ""),
            (&[("driver", "nfs")], false, ""),
            (&[("size", "1G")], false, ""),
            (&[("Driver", "union")], false, ""),
        ] {
            let fault = of(pairs, is_block, fs_type).unwrap_err();
            assert_eq!(fault.code(), tonic::Code::InvalidArgument, "{pairs:?}: {fault}");
        }
    }

    #[test]
    fn sizes_are_within_the_range() {
        assert_eq!(size(None, None, SIZE_MIN).unwrap(), SIZE_DEFAULT);
        assert_eq!(size(Some(1), None, SIZE_MIN).unwrap(), SIZE_MIN);
        assert_eq!(size(Some((16 << 20) + 1), None, SIZE_MIN).unwrap(), (16 << 20) + BLOCK);
        assert_eq!(size(None, Some(32 << 20), SIZE_MIN).unwrap(), 32 << 20);
        assert_eq!(size(None, Some((32 << 20) + 5), SIZE_MIN).unwrap(), 32 << 20);
        for (required, limit) in
            [(Some(1), Some(1 << 20)), (Some(4097), Some(5000)), (None, Some(1))]
        {
            let fault = size(required, limit, SIZE_MIN).unwrap_err();
            assert_eq!(fault.code(), tonic::Code::OutOfRange, "{required:?} {limit:?}");
        }
        assert_eq!(size(Some(u64::MAX), None, BLOCK).unwrap_err().code(), tonic::Code::OutOfRange);
    }
}
