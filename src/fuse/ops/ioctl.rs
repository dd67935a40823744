//! IOCTL: the attributes of chattr(1) and of project quotas; everything else is `ENOTTY`.

use zerocopy::{FromBytes, IntoBytes};

use super::call::Call;
use crate::error::{Errno, Error};
use crate::fuse::convert;
use crate::fuse::wire::abi::{FsXattrData, IoctlIn, IoctlOut};
use crate::sys::fuse::{
    FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR, FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IOC32_GETFLAGS,
    FS_IOC32_SETFLAGS,
};

pub(super) fn ioctl(call: &Call<'_>, arg: &IoctlIn, data: &[u8]) {
    let node = call.node();
    match arg.cmd {
        FS_IOC_GETFLAGS | FS_IOC32_GETFLAGS => answer(call, arg, call.union.flags(node)),
        FS_IOC_SETFLAGS | FS_IOC32_SETFLAGS => match u32::read_from_prefix(data) {
            Ok((flags, _)) => done(call, call.union.set_flags(node, flags)),
            Err(_) => call.done(Err(Errno::INVAL.into())),
        },
        FS_IOC_FSGETXATTR => {
            let value = call.union.fsxattr(node);
            answer(call, arg, value.map(|value| convert::fsxattr_out(&value)));
        }
        FS_IOC_FSSETXATTR => match FsXattrData::read_from_prefix(data) {
            Ok((value, _)) => {
                done(call, call.union.set_fsxattr(node, &convert::fsxattr_in(&value)));
            }
            Err(_) => call.done(Err(Errno::INVAL.into())),
        },
        _ => call.done(Err(Errno::NOTTY.into())),
    }
}

fn done(call: &Call<'_>, result: Result<(), Error>) {
    match result {
        Ok(()) => {
            // The change time changed too.
            call.reply.forget_attributes(call.node());
            call.reply.body(&IoctlOut::default())
        }
        Err(error) => call.reply.error(&error),
    };
}

/// Replies with data, if the caller has room for all of it.
fn answer<T: IntoBytes + zerocopy::Immutable>(
    call: &Call<'_>,
    arg: &IoctlIn,
    result: Result<T, Error>,
) {
    match result {
        Ok(value) if usize::try_from(arg.out_size).is_ok_and(|size| size >= size_of::<T>()) => {
            call.reply.body_and_bytes(&IoctlOut::default(), value.as_bytes())
        }
        Ok(_) => call.reply.errno(Errno::INVAL),
        Err(error) => call.reply.error(&error),
    };
}
