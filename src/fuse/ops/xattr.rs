//! SETXATTR, GETXATTR, LISTXATTR.

use super::call::Call;
use crate::error::{Errno, Error};
use crate::fuse::wire::abi::GetXattrOut;
use crate::sys::process::{self, Capability};
use crate::types::XattrFlags;

/// `XATTR_CREATE` and `XATTR_REPLACE` of setxattr(2).
const CREATE: u32 = 1;
const REPLACE: u32 = 2;

/// ACLs as extended attributes. The kernel requests them to check permissions and treats any error
/// but `ENODATA` as a refusal.
const ACL_PREFIX: &[u8] = b"system.posix_acl_";

pub(super) fn set(call: &Call<'_>, key: &[u8], value: &[u8], flags: u32, kill_sgid: bool) {
    if flags & !(CREATE | REPLACE) != 0 {
        return call.done(Err(Errno::INVAL.into()));
    }
    let flags = XattrFlags { create: flags & CREATE != 0, replace: flags & REPLACE != 0 };
    call.done(call.union.setxattr(call.node(), key, value, flags, kill_sgid));
}

pub(super) fn value(call: &Call<'_>, key: &[u8], size: u32) {
    let value = call.union.getxattr(call.node(), key);
    let absent_acl = matches!(&value, Err(error)
        if error.is(Errno::OPNOTSUPP) && key.starts_with(ACL_PREFIX));
    if absent_acl {
        return call.done(Err(Errno::NODATA.into()));
    }
    answer(call, value, size);
}

pub(super) fn list(call: &Call<'_>, size: u32) {
    let names = call.union.listxattr(call.node());
    // Only callers that may read these see their names (`simple_xattr_list()` in the kernel's
    // fs/xattr.c).
    let names = names.map(|names| {
        let all = || names.split_inclusive(|byte| *byte == 0);
        let is_trusted = |name: &&[u8]| name.starts_with(b"trusted.");
        if call.header.uid == 0 || !all().any(|name| is_trusted(&name)) || is_admin(call) {
            return names;
        }
        all().filter(|name| !is_trusted(name)).collect::<Vec<_>>().concat()
    });
    answer(call, names, size);
}

/// Replies with bytes to a caller with room for `size` of them; with size 0, with their length.
fn answer(call: &Call<'_>, result: Result<Vec<u8>, Error>, size: u32) {
    let bytes = match result {
        Ok(bytes) => bytes,
        Err(error) => return call.done(Err(error)),
    };
    match u32::try_from(bytes.len()) {
        Ok(len) if size == 0 => call.reply.body(&GetXattrOut { size: len, padding: 0 }),
        Ok(len) if len <= size => call.reply.bytes(&bytes),
        _ => call.reply.errno(Errno::RANGE),
    };
}

// The kernel sends no ids where the mount may be id-mapped.
fn is_admin(call: &Call<'_>) -> bool {
    process::is_in_own_user_namespace(call.header.pid)
        && process::has_capability(call.header.pid, Capability::SysAdmin)
}
