//! The rights that a daemon gives up once it serves: capabilities, new privileges, system calls.
//!
//! [`drop_capabilities`] is for a process with one thread, since capabilities belong to a thread
//! and are inherited by the threads that it starts. [`seal`] concerns all threads at once.

use std::collections::BTreeMap;

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::error::Result;
use crate::sys::refused;

/// The capabilities that a daemon needs: to act for the users of its layers, to write marks in
/// `trusted.*`, to register files with the kernel, and to unmount its own mount.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::LINUX_IMMUTABLE)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::MAC_OVERRIDE)
    .union(CapabilitySet::MAC_ADMIN);

/// Calls that a serving daemon never makes.
const DENIED: &[i64] = &[
    // Other programs and other processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kcmp,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    // Other identities and namespaces. File system ids stay free.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    // New mounts. A clone in no mount namespace (open_tree) and the unmount stay free.
    libc::SYS_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    // The kernel itself.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_fanotify_init,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_vhangup,
    libc::SYS_personality,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    // The clock and the name of the host.
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
];

/// Calls that are denied on this processor only.
#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[i64] = &[
    libc::SYS_kexec_file_load,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
];
/// Calls that are denied on this processor only.
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[i64] = &[libc::SYS_kexec_file_load];

/// Kinds of sockets that are never used.
const SOCKETS: [i32; 5] =
    [libc::AF_PACKET, libc::AF_KEY, libc::AF_ALG, libc::AF_VSOCK, libc::AF_XDP];

/// Kinds of sockets that only layers in a registry need.
const NETWORK: [i32; 2] = [libc::AF_INET, libc::AF_INET6];

/// Gives up the capabilities that serving does not need, for ever and for all programs that this
/// process may start. The process must have one thread. Without capabilities nothing happens.
///
/// # Errors
/// As capset(2) and prctl(2).
pub fn drop_capabilities() -> Result<()> {
    let sets = capabilities(None).map_err(refused("capget"))?;
    // This bit lets a thread keep its capabilities when it takes the file system ids of others;
    // setting it needs a capability that is dropped below.
    crate::sys::cred::prepare();
    if sets.effective.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all().difference(KEPT).iter() {
            match rustix::thread::remove_capability_from_bounding_set(capability) {
                // This kernel does not support it.
                Err(rustix::io::Errno::INVAL) => {}
                done => done.map_err(refused("prctl"))?,
            }
        }
    }
    let kept = CapabilitySets {
        effective: sets.effective.intersection(KEPT),
        permitted: sets.permitted.intersection(KEPT),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, kept).map_err(refused("capset"))
}

/// Whether this process may mount and unmount in its mount namespace.
#[must_use]
pub fn may_mount() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Why the system calls of a process were not restricted.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The filter does not support this processor, or is invalid.
    #[error("no filter of system calls: {0}")]
    Filter(#[from] seccompiler::BackendError),
    /// The kernel refused the filter.
    #[error("{0}")]
    Kernel(#[from] seccompiler::Error),
}

/// Lets no thread gain privileges from programs (`PR_SET_NO_NEW_PRIVS`), and makes calls that a
/// daemon never needs fail with `EPERM`. Connections over the network are among them unless
/// `network` is set.
///
/// # Errors
/// [`SealError`]; nothing is changed where the processor is not supported.
pub fn seal(network: bool) -> std::result::Result<(), SealError> {
    seccompiler::apply_filter_all_threads(&filter(network)?)?;
    Ok(())
}

fn filter(network: bool) -> std::result::Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in DENIED.iter().chain(DENIED_HERE) {
        rules.insert(*call, Vec::new());
    }
    let kinds = SOCKETS.into_iter().chain(NETWORK.into_iter().filter(|_| !network));
    let sockets: std::result::Result<Vec<_>, seccompiler::BackendError> = kinds
        .map(|kind| {
            let (len, kind) = (SeccompCmpArgLen::Dword, u64::from(kind.cast_unsigned()));
            let is_kind = SeccompCondition::new(0, len, SeccompCmpOp::Eq, kind)?;
            SeccompRule::new(vec![is_kind])
        })
        .collect();
    rules.insert(libc::SYS_socket, sockets?);
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let denied = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    SeccompFilter::new(rules, SeccompAction::Allow, denied, arch)?.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_made_with_and_without_the_network() {
        let (open, closed) = (filter(true).unwrap(), filter(false).unwrap());
        assert!(open.len() > DENIED.len() && closed.len() > open.len());
    }

    #[test]
    fn what_rules_over_the_host_is_not_kept() {
        for gone in [
            CapabilitySet::SYS_MODULE,
            CapabilitySet::SYS_BOOT,
            CapabilitySet::SYS_PTRACE,
            CapabilitySet::SYS_RAWIO,
            CapabilitySet::SYS_TIME,
            CapabilitySet::NET_ADMIN,
            CapabilitySet::BPF,
        ] {
            assert!(!KEPT.contains(gone), "{gone:?}");
        }
    }
}
