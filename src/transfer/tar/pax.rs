//! PAX extension records (POSIX.1-2017, `pax`, "pax Extended Header").

use std::collections::BTreeMap;

use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine, alphabet};

use super::number;
use super::sparse::Segment;
use crate::transfer::path::XATTR_NAME_MAX;
use crate::types::Time;

/// Longest value of an extended attribute, `XATTR_SIZE_MAX` of Linux.
pub(super) const XATTR_VALUE_MAX: usize = 64 * 1024;

/// The values that the records before a member state.
#[derive(Debug, Default, Clone)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) linkpath: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Time>,
    /// `None` removes an attribute of a global header.
    pub(super) xattrs: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    pub(super) sparse: Sparse,
}

/// The records of the three sparse formats of GNU tar.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Sparse {
    pub(super) version: (u64, u64),
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    /// The map in the formats 0.0 and 0.1; format 1.0 has it in the data.
    pub(super) map: Option<Vec<Segment>>,
    offset: Option<u64>,
}

impl Records {
    /// Parses the records of one `x` or `g` header.
    pub(super) fn parse(mut rest: &[u8]) -> Result<Self, &'static str> {
        let mut records = Self::default();
        while !rest.is_empty() {
            let (key, value, next) = record(rest).ok_or("a PAX record is malformed")?;
            records.take(key, value)?;
            rest = next;
        }
        if records.sparse.offset.is_some() {
            return Err("a PAX sparse map ends in the middle");
        }
        Ok(records)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        match key {
            b"path" => self.path = text(value)?,
            b"linkpath" => self.linkpath = text(value)?,
            b"size" => self.size = given(value, number::decimal)?,
            b"uid" => self.uid = given(value, number::owner)?,
            b"gid" => self.gid = given(value, number::owner)?,
            b"mtime" => self.mtime = given(value, number::time)?,
            _ if key.starts_with(b"GNU.sparse.") => self.sparse.take(key, value)?,
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.take_xattr(name, value.to_vec())?;
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    // libarchive writes both forms; SCHILY.xattr is exact and takes precedence.
                    let name = percent_decoded(name).ok_or("an xattr name is malformed")?;
                    let value = BASE64.decode(value).ok().ok_or("an xattr value is malformed")?;
                    if !self.xattrs.contains_key(&name) {
                        self.take_xattr(&name, value)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn take_xattr(&mut self, name: &[u8], value: Vec<u8>) -> Result<(), &'static str> {
        if name.is_empty() || name.len() > XATTR_NAME_MAX || name.contains(&0) {
            return Err("an xattr has a name that Linux does not accept");
        }
        if value.len() > XATTR_VALUE_MAX {
            return Err("an xattr is longer than 64 KiB");
        }
        self.xattrs.insert(name.to_vec(), Some(value));
        Ok(())
    }

    /// Refuses records in a global header that only make sense for one member.
    pub(super) fn check_global(&self) -> Result<(), &'static str> {
        let own = self.path.is_some() || self.linkpath.is_some() || self.size.is_some();
        if own || self.sparse != Sparse::default() {
            return Err("a global PAX header has a name, a size or a sparse map");
        }
        Ok(())
    }

    /// The number of bytes of names and values of extended attributes.
    pub(super) fn xattrs_bytes(&self) -> usize {
        let len = |(name, value): (&Vec<u8>, &Option<Vec<u8>>)| {
            name.len() + value.as_ref().map_or(0, Vec::len)
        };
        self.xattrs.iter().map(len).sum()
    }

    /// Replaces the values that `newer` also states.
    pub(super) fn update(&mut self, newer: Self) {
        self.uid = newer.uid.or(self.uid);
        self.gid = newer.gid.or(self.gid);
        self.mtime = newer.mtime.or(self.mtime);
        self.xattrs.extend(newer.xattrs);
    }
}

impl Sparse {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        match key {
            b"GNU.sparse.major" => self.version.0 = number::decimal(value)?,
            b"GNU.sparse.minor" => self.version.1 = number::decimal(value)?,
            b"GNU.sparse.name" => self.name = text(value)?,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                self.real_size = Some(number::decimal(value)?);
            }
            b"GNU.sparse.offset" if self.offset.replace(number::decimal(value)?).is_some() => {
                return Err("a PAX sparse map has two offsets in a row");
            }
            b"GNU.sparse.numbytes" => {
                let start =
                    self.offset.take().ok_or("a PAX sparse map has a size without an offset")?;
                let segment = Segment { start, len: number::decimal(value)? };
                self.map.get_or_insert_default().push(segment);
            }
            b"GNU.sparse.map" => self.map = Some(listed(value)?),
            // `numblocks` only repeats the number of segments.
            _ => {}
        }
        Ok(())
    }
}

// Parses the map of format 0.1: numbers separated by commas, in pairs.
fn listed(value: &[u8]) -> Result<Vec<Segment>, &'static str> {
    if value.is_empty() {
        return Ok(Vec::new());
    }
    let mut numbers = value.split(|byte| *byte == b',').map(number::decimal);
    let mut map = Vec::new();
    while let Some(start) = numbers.next() {
        let len = numbers.next().ok_or("a PAX sparse map ends in the middle")?;
        map.push(Segment { start: start?, len: len? });
    }
    Ok(map)
}

// An empty value removes the value of a global header.
fn given<T>(
    value: &[u8],
    parse: fn(&[u8]) -> Result<T, &'static str>,
) -> Result<Option<T>, &'static str> {
    if value.is_empty() { Ok(None) } else { parse(value).map(Some) }
}

fn text(value: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    if value.contains(&0) {
        return Err("a PAX record has a NUL in a name");
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

// "LEN KEY=VALUE\n", where LEN counts the whole record: a value may contain line feeds.
fn record(rest: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = rest.iter().position(|byte| *byte == b' ')?;
    let len = usize::try_from(number::decimal(rest.get(..blank)?).ok()?).ok()?;
    let (whole, next) = rest.split_at_checked(len)?;
    let body = whole.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (body.get(..equals)?, body.get(equals + 1..)?);
    (!key.is_empty()).then_some((key, value, next))
}

fn percent_decoded(raw: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter();
    while let Some(byte) = bytes.next() {
        if *byte != b'%' {
            plain.push(*byte);
            continue;
        }
        let mut digit = || char::from(*bytes.next()?).to_digit(16);
        plain.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
    }
    Some(plain)
}

// RFC 4648 without line breaks; libarchive omits the padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_binary() {
        let raw = b"36 SCHILY.xattr.user.a=x\n9 path=f\n\0\n8 uid=7\n";
        let records = Records::parse(raw).unwrap();
        let value = records.xattrs.get(b"user.a".as_slice()).unwrap();
        assert_eq!(value.as_deref(), Some(b"x\n9 path=f\n\0".as_slice()));
        assert_eq!((records.uid, records.path), (Some(7), None));
    }

    #[test]
    fn malformed_records_are_refused() {
        for raw in [
            b"9 path=ab\n".as_slice(),
            b"12 path=ab\n",
            b"99999999999999999999999 path=a\n",
            b"path=a\n",
            b"0 \n",
            b"4 =\n",
            b"10 path=ab",
            b"13 path=a\0bc\n",
            b"9 uid=-1\n",
            b"-1 a=b\n",
        ] {
            assert!(Records::parse(raw).is_err(), "{:?}", raw.escape_ascii().to_string());
        }
        let records = Records::parse(b"11 path=ab\n").unwrap();
        assert_eq!(records.path.as_deref(), Some(b"ab".as_slice()));
    }

    #[test]
    fn sparse_maps_of_both_old_formats_are_read() {
        let zero = b"23 GNU.sparse.offset=0\n25 GNU.sparse.numbytes=5\n";
        let map = Records::parse(zero).unwrap().sparse.map;
        assert_eq!(map, Some(vec![Segment { start: 0, len: 5 }]));
        let one = b"27 GNU.sparse.map=0,5,10,2\n";
        let map = Records::parse(one).unwrap().sparse.map.unwrap();
        assert_eq!(map.last(), Some(&Segment { start: 10, len: 2 }));
        assert!(Records::parse(b"25 GNU.sparse.map=0,5,10\n").is_err());
        assert!(Records::parse(b"25 GNU.sparse.numbytes=5\n").is_err());
    }

    #[test]
    fn libarchive_values_are_decoded() {
        let records = Records::parse(b"36 LIBARCHIVE.xattr.user.%41=AAH/aA\n").unwrap();
        let value = records.xattrs.get(b"user.A".as_slice()).unwrap();
        assert_eq!(value.as_deref(), Some([0, 1, 0xff, b'h'].as_slice()));
    }
}
