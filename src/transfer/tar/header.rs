//! The fields of one tar header, as every implementation reads them.

use ::tar::{Header, OldHeader};

use super::number;
use super::pax::Records;
use crate::types::{MODE_MASK, Time};

/// Owner, mode and time of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Time,
}

impl Meta {
    /// The values of the PAX records, or else those of the header.
    pub(super) fn new(header: &OldHeader, records: &Records) -> Result<Self, &'static str> {
        let owner = |given: Option<u32>, raw| given.map_or_else(|| unsigned(raw), Ok);
        let mtime = match records.mtime {
            Some(mtime) => mtime,
            None => Time { secs: number::field(&header.mtime)?, nanos: 0 },
        };
        Ok(Self {
            // Some writers include the format bits of st_mode.
            mode: unsigned(&header.mode)? & MODE_MASK,
            uid: owner(records.uid, &header.uid)?,
            gid: owner(records.gid, &header.gid)?,
            mtime,
        })
    }
}

fn unsigned(raw: &[u8]) -> Result<u32, &'static str> {
    u32::try_from(number::field(raw)?).map_err(|_| "a number of the header exceeds 32 bits")
}

/// The type flag.
pub(super) fn flag(header: &Header) -> u8 {
    header.as_old().linkflag[0]
}

/// The name in the header itself.
pub(super) fn name(header: &Header) -> Vec<u8> {
    let short = until_nul(&header.as_old().name);
    match header.as_ustar().map(|ustar| until_nul(&ustar.prefix)) {
        Some(mut prefix) if !prefix.is_empty() => {
            prefix.push(b'/');
            prefix.extend_from_slice(&short);
            prefix
        }
        _ => short,
    }
}

/// The bytes before the first NUL.
pub(super) fn until_nul(raw: &[u8]) -> Vec<u8> {
    raw.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

/// The size in the header.
pub(super) fn size(header: &Header) -> Result<u64, &'static str> {
    let size = number::field(&header.as_old().size)?;
    u64::try_from(size).map_err(|_| "its size is negative")
}

/// The type of a member: `0` for a file, `5` for a directory. Writers older than ustar mark a
/// directory only by a `/` at the end of its name.
pub(super) fn kind(flag: u8, name: &[u8]) -> u8 {
    match flag {
        0 | b'0' | b'7' if name.ends_with(b"/") => b'5',
        0 | b'0' | b'7' => b'0',
        other => other,
    }
}

/// The number of bytes of data after the header.
pub(super) fn stored_size(kind: u8, own: u64, pax: Option<u64>) -> Result<u64, &'static str> {
    match kind {
        // Old writers state the size of the target; GNU tar and Go expect no data.
        b'1' if pax.unwrap_or(0) == 0 => Ok(0),
        // GNU tar skips such data, Go reads it as headers.
        b'1'..=b'6' if pax.unwrap_or(own) != 0 => Err("it has data, but is not a file"),
        _ => Ok(pax.unwrap_or(own)),
    }
}

/// The numbers of a device; 0:0 for other members.
pub(super) fn device(header: &Header, kind: u8) -> Result<(u32, u32), &'static str> {
    if !matches!(kind, b'3' | b'4') {
        return Ok((0, 0));
    }
    let (major, minor) = match (header.as_ustar(), header.as_gnu()) {
        (Some(ustar), _) => (&ustar.dev_major, &ustar.dev_minor),
        (_, Some(gnu)) => (&gnu.dev_major, &gnu.dev_minor),
        _ => return Err("it is a device, but its header has no device numbers"),
    };
    Ok((unsigned(major)?, unsigned(minor)?))
}

/// Whether the checksum is right; some old writers summed signed bytes.
pub(super) fn has_checksum(header: &Header) -> bool {
    const FIELD: std::ops::Range<usize> = 148..156;
    let Ok(stated) = number::field(&header.as_old().cksum) else { return false };
    let (mut unsigned, mut signed) = (0i64, 0i64);
    for (at, byte) in header.as_bytes().iter().enumerate() {
        let byte = if FIELD.contains(&at) { b' ' } else { *byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    stated == unsigned || stated == signed
}
