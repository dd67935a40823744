//! Volumes with a file system of their own in a file: limits, mounts, leftovers of crashes.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use laminafs::sys;
use laminafs::volume::image::ImageDriver;
use laminafs::volume::{Driver, Limits, Place, Spec, VolumeError};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::harness::Site;
use crate::tools::*;

judged!(host:
    a_new_volume_is_empty_and_df_shows_its_size,
    small_writes_end_at_the_limit,
    one_large_write_ends_at_the_limit,
    empty_files_end_at_the_limit_of_inodes,
    removed_files_give_the_host_its_space_back,
    an_image_is_attached_once,
    volumes_are_mounted_at_the_same_time,
    what_a_crash_left_attached_is_used,
    what_a_crash_left_frozen_is_thawed,
    a_mount_in_use_is_busy,
    a_foreign_mount_is_left_alone,
    a_failed_mount_leaves_nothing_attached,
    options_of_the_mount_apply,
    the_host_is_not_overcommitted,
);

pub const MIB: u64 = 1 << 20;
/// How long the kernel may take to detach a device that another process looks at.
const LIMIT: Duration = Duration::from_secs(20);
/// Type and smallest size.
pub const KINDS: [(&str, u64); 2] = [("ext4", 64 * MIB), ("xfs", 300 * MIB)];
pub const DRIVER: ImageDriver = ImageDriver;

pub struct Volume {
    pub place: Place,
    pub spec: Spec,
}

impl Volume {
    pub fn plan(s: &Site, name: &str, size: u64, options: &[(&str, &str)]) -> Self {
        Self::within(&s.root().join("volumes"), name, size, options)
    }

    pub fn within(volumes: &Path, name: &str, size: u64, options: &[(&str, &str)]) -> Self {
        let directory = volumes.join(name);
        dir(directory.join("_data"));
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let options: BTreeMap<_, _> = options.iter().map(own).collect();
        let limits = Limits { size_bytes: Some(size), inodes: None };
        Self { place: Place::new(directory), spec: Spec { options, limits, promised_bytes: 0 } }
    }

    pub fn new(s: &Site, name: &str, size: u64, options: &[(&str, &str)]) -> Self {
        let volume = Self::plan(s, name, size, options);
        volume.create().unwrap();
        volume
    }

    pub fn create(&self) -> Result<(), VolumeError> {
        DRIVER.check(&self.spec)?;
        DRIVER.create(&self.place, &self.spec)
    }

    pub fn promised(&self) -> u64 {
        DRIVER.promised_bytes(&self.place, &self.spec).unwrap()
    }

    #[track_caller]
    pub fn mount(&self) {
        DRIVER.mount(&self.place, &self.spec).unwrap();
    }

    #[track_caller]
    pub fn unmount(&self) {
        // A process that another case starts holds our descriptors until it runs its program.
        let deadline = Instant::now() + LIMIT;
        loop {
            match DRIVER.unmount(&self.place, &self.spec) {
                Err(VolumeError::Busy { .. }) if Instant::now() < deadline => {
                    std::thread::yield_now();
                }
                done => break done.unwrap(),
            }
        }
    }

    pub fn resize(&mut self, size: u64) -> Result<(), VolumeError> {
        let limits = Limits { size_bytes: Some(size), ..self.spec.limits };
        DRIVER.resize(&self.place, &self.spec, limits)?;
        self.spec.limits = limits;
        Ok(())
    }

    /// Copies the image into the directory of another volume.
    pub fn copy_to(&self, to: &Place) -> Result<(), VolumeError> {
        DRIVER.copy(&self.place, &self.spec, to, &|_, _| {})
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.place.data().join(name)
    }

    pub fn image(&self) -> PathBuf {
        self.place.directory().join("image")
    }

    /// All and available bytes, as `df` shows them.
    pub fn df(&self) -> (u64, u64) {
        let found = rustix::fs::statvfs(self.place.data()).unwrap();
        (found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)
    }
}

/// The loop devices over files of a site.
fn devices(s: &Site) -> Vec<String> {
    let entries = fs::read_dir("/sys/block").unwrap().flatten();
    let backing =
        entries.filter_map(|it| fs::read_to_string(it.path().join("loop/backing_file")).ok());
    backing.filter(|path| Path::new(path).starts_with(s.root())).collect()
}

#[track_caller]
pub fn leaves_no_device(s: &Site) {
    let deadline = Instant::now() + LIMIT;
    while !devices(s).is_empty() {
        assert!(Instant::now() < deadline, "still attached: {:?}", devices(s));
        std::thread::yield_now();
    }
}

/// Asserts that an image that is not mounted has no error.
#[track_caller]
pub fn is_sound(kind: &str, image: &Path) {
    let (program, word) = if kind == "ext4" { ("e2fsck", "-fn") } else { ("xfs_repair", "-n") };
    let output = Command::new(program).arg(word).arg(image).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Writes until the volume is full and returns the bytes.
pub fn fill(path: &Path, step: usize) -> u64 {
    let file = fs::File::create(path).unwrap();
    let data = noise(step, 1);
    let mut len = 0;
    loop {
        match file.write_at(&data, len) {
            Ok(written) => len += written as u64,
            Err(error) => {
                fails_io::<()>(Err(error), Errno::NOSPC);
                // What was written is on the device, or an error.
                file.sync_all().unwrap();
                return len;
            }
        }
    }
}

fn a_new_volume_is_empty_and_df_shows_its_size(s: &mut Site) {
    for (kind, size) in KINDS {
        for size in [size, 2 << 30] {
            let volume = Volume::new(s, &format!("{kind}-{size}"), size + 7, &[("fs", kind)]);
            leaves_no_device(s);
            assert_eq!(mode(volume.image()), 0o600);
            volume.mount();
            assert_eq!(names(volume.place.data()), Vec::<String>::new());
            assert_eq!(mode(volume.place.data()), 0o755);
            let (total, available) = volume.df();
            eprintln!("{kind} of {size}: df shows {total}, {available} available");
            let least = if size >= 2 << 30 { size / 100 * 94 } else { size / 100 * 75 };
            assert!(total <= size && total >= least, "{kind}: {total} of {size}");
            let usage = DRIVER.usage(&volume.place, &volume.spec).unwrap();
            assert!(usage.used_inodes.unwrap() > 0);
            assert!(usage.host_bytes < 80 * MIB && usage.used_bytes < 80 * MIB, "{usage:?}");
            let before = usage.used_bytes;
            put(volume.at("f"), noise(5 << 20, 2));
            rustix::fs::syncfs(open(volume.place.data(), OFlags::RDONLY).unwrap()).unwrap();
            let usage = DRIVER.usage(&volume.place, &volume.spec).unwrap();
            assert!(usage.used_bytes - before >= 5 * MIB, "{usage:?}");
            volume.unmount();
            leaves_no_device(s);
            let usage = DRIVER.usage(&volume.place, &volume.spec).unwrap();
            assert!(usage.host_bytes >= 5 * MIB && usage.used_inodes.is_none(), "{usage:?}");
            is_sound(kind, &volume.image());
            assert_eq!(DRIVER.size_bytes(&volume.place).unwrap(), size);
        }
    }
}

fn writes_end_at_the_limit(s: &Site, step: usize) {
    for (kind, size) in KINDS {
        let volume = Volume::new(s, kind, size, &[("fs", kind)]);
        volume.mount();
        let (_, available) = volume.df();
        let len = fill(&volume.at("f"), step);
        eprintln!("{kind}, {step} bytes at once: {len} of {available} available");
        assert!(len <= size && len >= available / 100 * 97, "{kind}: {len} of {available}");
        let image = stat(volume.image());
        assert_eq!(image.st_size as u64, size);
        assert!(image.st_blocks as u64 * 512 <= size + MIB, "{} blocks", image.st_blocks);
        let usage = DRIVER.usage(&volume.place, &volume.spec).unwrap();
        assert!(usage.used_bytes <= size, "{usage:?}");
        fs::remove_file(volume.at("f")).unwrap();
        put(volume.at("g"), "room again");
        volume.unmount();
        is_sound(kind, &volume.image());
    }
    leaves_no_device(s);
}

fn small_writes_end_at_the_limit(s: &mut Site) {
    writes_end_at_the_limit(s, 4096);
}

fn one_large_write_ends_at_the_limit(s: &mut Site) {
    writes_end_at_the_limit(s, 400 << 20);
}

fn empty_files_end_at_the_limit_of_inodes(s: &mut Site) {
    let mut volume = Volume::plan(s, "ext4", 64 * MIB, &[]);
    volume.spec.limits.inodes = Some(1000);
    volume.create().unwrap();
    volume.mount();
    let mut count = 0;
    let error = loop {
        match fs::File::create(volume.at(&format!("f{count}"))) {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
    };
    fails_io::<()>(Err(error), Errno::NOSPC);
    // The number is rounded up to whole blocks of inodes.
    assert!((999..=1016).contains(&count), "{count}");
    let usage = DRIVER.usage(&volume.place, &volume.spec).unwrap();
    assert!((1000..1040).contains(&usage.used_inodes.unwrap()), "{usage:?}");
    let more = Limits { inodes: Some(2000), ..volume.spec.limits };
    let refused = DRIVER.resize(&volume.place, &volume.spec, more).unwrap_err();
    assert!(matches!(refused, VolumeError::Unsupported { .. }), "{refused}");
    volume.unmount();
    // Without a limit of inodes the size is one.
    let volume = Volume::new(s, "xfs", 300 * MIB, &[("fs", "xfs")]);
    volume.mount();
    let total = rustix::fs::statvfs(volume.place.data()).unwrap().f_files;
    assert!(total > 100_000, "{total}");
    volume.unmount();
    leaves_no_device(s);
}

fn removed_files_give_the_host_its_space_back(s: &mut Site) {
    for (kind, size) in KINDS {
        let volume = Volume::new(s, kind, size, &[("fs", kind)]);
        volume.mount();
        let host = || DRIVER.usage(&volume.place, &volume.spec).unwrap().host_bytes;
        let root = open(volume.place.data(), OFlags::RDONLY).unwrap();
        put(volume.at("f"), noise(30 << 20, 3));
        rustix::fs::syncfs(&root).unwrap();
        let full = host();
        fs::remove_file(volume.at("f")).unwrap();
        let deadline = Instant::now() + LIMIT;
        while host() + 25 * MIB > full {
            assert!(Instant::now() < deadline, "{kind}: {} of {full} bytes", host());
            rustix::fs::syncfs(&root).unwrap();
        }
        drop(root);
        volume.unmount();
    }
    leaves_no_device(s);
}

/// Whether the kernel lets this process grow a mounted file system.
pub fn grows_mounted(kind: &str) -> bool {
    let capability = sys::process::Capability::SysResource;
    kind == "xfs" || sys::process::has_capability(sys::process::thread_id(), capability)
}

/// Asserts that a mounted ext4 is not grown without CAP_SYS_RESOURCE, and keeps what it has.
#[track_caller]
pub fn needs_a_capability(volume: &mut Volume, size: u64) {
    let refused = volume.resize(size).unwrap_err();
    assert!(refused.to_string().contains("CAP_SYS_RESOURCE"), "{refused}");
    eprintln!("NOTE: this process has no CAP_SYS_RESOURCE: {refused}");
}

fn an_image_is_attached_once(s: &mut Site) {
    for (kind, size) in KINDS {
        let volume = Volume::new(s, kind, size, &[("fs", kind)]);
        volume.mount();
        volume.mount();
        assert_eq!(devices(s).len(), 1);
        let mounts = crate::harness::mount_points_below(s.root());
        assert_eq!(mounts, [volume.place.data()]);
        // Unmounted here, and still in use in a container: as a bind that stays.
        let bind = s.root().join(format!("bind-{kind}"));
        dir(&bind);
        rustix::mount::mount_bind(volume.place.data(), &bind).unwrap();
        put(volume.at("f"), "one cache");
        volume.unmount();
        assert_eq!(devices(s).len(), 1);
        volume.mount();
        assert_eq!(devices(s).len(), 1);
        assert_eq!(get(volume.at("f")), b"one cache");
        put(volume.at("g"), "seen by both");
        assert_eq!(get(bind.join("g")), b"seen by both");
        volume.unmount();
        rustix::mount::unmount(&bind, UnmountFlags::empty()).unwrap();
        volume.unmount();
        leaves_no_device(s);
    }
}

fn volumes_are_mounted_at_the_same_time(s: &mut Site) {
    let volumes: Vec<Volume> =
        (0..8).map(|number| Volume::new(s, &format!("v{number}"), 8 * MIB, &[])).collect();
    for _ in 0..3 {
        std::thread::scope(|scope| {
            for volume in &volumes {
                scope.spawn(|| volume.mount());
            }
        });
        assert_eq!(devices(s).len(), volumes.len());
        std::thread::scope(|scope| {
            for volume in &volumes {
                scope.spawn(|| volume.unmount());
            }
        });
        leaves_no_device(s);
    }
}

/// Attaches an image as the driver does, and stops before it mounts.
fn attach(image: &Path) -> OwnedFd {
    let control = open("/dev/loop-control", OFlags::RDWR).unwrap();
    let file = open(image, OFlags::RDWR).unwrap();
    loop {
        let number = sys::loops::free_number(control.as_fd()).unwrap();
        let device = open(format!("/dev/loop{number}"), OFlags::RDWR).unwrap();
        match sys::loops::configure(device.as_fd(), file.as_fd(), 4096) {
            Ok(()) => return device,
            Err(error) if error.errno().0 == Errno::BUSY.raw_os_error() => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn what_a_crash_left_attached_is_used(s: &mut Site) {
    for (kind, size) in KINDS {
        let volume = Volume::new(s, kind, size, &[("fs", kind)]);
        let left = attach(&volume.image());
        assert!(sys::loops::status(left.as_fd()).unwrap().autoclear);
        assert_eq!(devices(s).len(), 1);
        volume.mount();
        assert_eq!(devices(s).len(), 1);
        put(volume.at("f"), "x");
        drop(left);
        volume.unmount();
        leaves_no_device(s);
        // A process that ends before it mounts leaves nothing.
        drop(attach(&volume.image()));
        leaves_no_device(s);
    }
}

fn what_a_crash_left_frozen_is_thawed(s: &mut Site) {
    for (kind, size) in KINDS {
        let mut volume = Volume::new(s, kind, size, &[("fs", kind)]);
        let freeze = |volume: &Volume| {
            let root = open(volume.place.data(), OFlags::RDONLY).unwrap();
            sys::disk::freeze(root.as_fd()).unwrap();
        };
        volume.mount();
        freeze(&volume);
        volume.mount();
        put(volume.at("f"), "after the mount");
        if grows_mounted(kind) {
            freeze(&volume);
            volume.resize(size + 50 * MIB).unwrap();
        } else {
            needs_a_capability(&mut volume, size + 50 * MIB);
        }
        put(volume.at("g"), "after the resize");
        freeze(&volume);
        volume.unmount();
        leaves_no_device(s);
        // Unmounted by somebody else, the frozen file system stays on its device.
        volume.mount();
        freeze(&volume);
        rustix::mount::unmount(volume.place.data(), UnmountFlags::empty()).unwrap();
        assert_eq!(devices(s).len(), 1);
        volume.mount();
        assert_eq!(get(volume.at("g")), b"after the resize");
        put(volume.at("h"), "x");
        volume.unmount();
        leaves_no_device(s);
        is_sound(kind, &volume.image());
    }
}

fn a_mount_in_use_is_busy(s: &mut Site) {
    let volume = Volume::new(s, "v", 8 * MIB, &[]);
    DRIVER.unmount(&volume.place, &volume.spec).unwrap();
    volume.mount();
    let file = fs::File::create(volume.at("f")).unwrap();
    let busy = DRIVER.unmount(&volume.place, &volume.spec).unwrap_err();
    assert!(matches!(&busy, VolumeError::Busy { path } if *path == volume.place.data()), "{busy}");
    file.write_all_at(b"goes on", 0).unwrap();
    drop(file);
    volume.unmount();
    volume.unmount();
    leaves_no_device(s);
}

fn a_foreign_mount_is_left_alone(s: &mut Site) {
    let volume = Volume::new(s, "v", 8 * MIB, &[]);
    let data = volume.place.data();
    rustix::mount::mount("other", &data, "tmpfs", MountFlags::empty(), None).unwrap();
    put(data.join("f"), "of another");
    for refused in
        [DRIVER.mount(&volume.place, &volume.spec), DRIVER.unmount(&volume.place, &volume.spec)]
    {
        let refused = refused.unwrap_err();
        assert!(matches!(refused, VolumeError::Busy { .. }), "{refused}");
    }
    assert_eq!(get(data.join("f")), b"of another");
    rustix::mount::unmount(&data, UnmountFlags::empty()).unwrap();
    leaves_no_device(s);
}

fn a_failed_mount_leaves_nothing_attached(s: &mut Site) {
    for (kind, size) in KINDS {
        let volume = Volume::new(s, kind, size, &[("fs", kind)]);
        let file = fs::File::options().write(true).open(volume.image()).unwrap();
        // The magic number stays, the rest of the superblock is lost.
        file.write_all_at(&[0xFF; 40], if kind == "ext4" { 1024 } else { 4 }).unwrap();
        let failed = DRIVER.mount(&volume.place, &volume.spec).unwrap_err();
        assert!(matches!(failed, VolumeError::Host(_)), "{failed}");
        file.write_all_at(&[0; 4096], 0).unwrap();
        let failed = DRIVER.mount(&volume.place, &volume.spec).unwrap_err();
        assert!(failed.to_string().contains("image"), "{failed}");
        leaves_no_device(s);
        assert_eq!(names(volume.place.data()), Vec::<String>::new());
    }
}

fn options_of_the_mount_apply(s: &mut Site) {
    let o = "noexec,nosuid,nodev,noatime,commit=7";
    let volume = Volume::new(s, "v", 16 * MIB, &[("o", o)]);
    volume.mount();
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let data = volume.place.data().display().to_string();
    let row = table.lines().find(|line| line.contains(&data)).unwrap();
    for word in ["noexec", "nosuid", "nodev", "noatime", "commit=7", "discard"] {
        assert!(row.split([' ', ',']).any(|found| found == word), "{word} in {row}");
    }
    put(volume.at("sh"), "#!/bin/sh\n");
    fs::set_permissions(volume.at("sh"), fs::Permissions::from_mode(0o755)).unwrap();
    fails_io(Command::new(volume.at("sh")).status(), Errno::ACCESS);
    volume.unmount();
    for (kind, size) in KINDS {
        for words in ["nonsense", "commit=x", "logbsize=3", "ro,nodiscard=5"] {
            let volume =
                Volume::plan(s, &format!("{kind}-{words}"), size, &[("fs", kind), ("o", words)]);
            let refused = volume.create().unwrap_err();
            assert!(matches!(refused, VolumeError::Option { .. }), "{refused}");
            eprintln!("{refused}");
        }
    }
    leaves_no_device(s);
}

fn the_host_is_not_overcommitted(s: &mut Site) {
    let host = rustix::fs::statvfs(s.root()).unwrap();
    let free = host.f_bavail * host.f_frsize;
    let volume = Volume::plan(s, "large", free + (1 << 30), &[]);
    let refused = volume.create().unwrap_err();
    assert!(matches!(refused, VolumeError::NoSpace { .. }), "{refused}");
    assert_eq!(names(volume.place.directory()), ["_data"]);
    let half = free / 2 + (512 << 20);
    let mut small = Volume::new(s, "small", 64 * MIB, &[]);
    let allowed = Volume::new(s, "allowed", free + (1 << 30), &[("overcommit", "true")]);
    allowed.mount();
    assert!(allowed.df().0 > free / 10 * 9);
    allowed.unmount();
    assert_eq!(allowed.promised(), 0, "it may be more than there is");
    assert!(small.promised() > 32 * MIB && small.promised() <= 64 * MIB);
    // What another volume may still take is not free.
    small.spec.promised_bytes = free;
    let refused = small.resize(half).unwrap_err();
    assert!(matches!(refused, VolumeError::NoSpace { .. }), "{refused}");
    small.spec.promised_bytes = 0;
    small.resize(half).unwrap();
    leaves_no_device(s);
}
