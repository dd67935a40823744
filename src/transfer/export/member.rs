//! Members of a tar in PAX format, as every export writes them.
//!
//! Values that do not fit into a header are in a PAX header before it: long names, fractions of
//! seconds, large ids, extended attributes. Files with holes are sparse in GNU's format 1.0, which
//! GNU tar, libarchive and Go read.

use std::collections::BTreeMap;
use std::io::Write;

use ::tar::{EntryType, Header};

use crate::store::recipe::written;
use crate::transfer::error::{Result, TransferError};
use crate::types::{MODE_MASK, Time};

/// The unit of a tar.
pub(in crate::transfer) const BLOCK: u64 = 512;
/// The largest number in a field of 12 octal digits.
const OCTAL_MAX: u64 = (1 << 33) - 1;
/// The largest number in a field of 8 octal digits.
const ID_MAX: u32 = (1 << 21) - 1;
const NAME_FIELD: usize = 100;

/// Records of a PAX header.
type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// A header that is not written yet, with the records of the PAX header before it.
pub(in crate::transfer) struct Head {
    header: Header,
    records: Records,
}

/// Mode, owner and time of a member.
#[derive(Debug, Clone, Copy)]
pub(in crate::transfer) struct Attributes {
    pub(in crate::transfer) mode: u32,
    pub(in crate::transfer) uid: u32,
    pub(in crate::transfer) gid: u32,
    pub(in crate::transfer) mtime: Time,
}

/// Writes members.
pub(in crate::transfer) struct MemberWriter<'a> {
    pub(in crate::transfer) out: &'a mut dyn Write,
}

pub(in crate::transfer) fn refuse(path: &[u8], what: &str) -> TransferError {
    TransferError::Entry { name: String::from_utf8_lossy(path).into_owned(), what: what.to_owned() }
}

impl Head {
    /// The header of a member with attributes.
    pub(in crate::transfer) fn new(kind: EntryType, attributes: Attributes) -> Self {
        let mut header = Header::new_ustar();
        let mut records = Records::new();
        header.set_entry_type(kind);
        header.set_mode(attributes.mode & MODE_MASK);
        let ids = [("uid", attributes.uid), ("gid", attributes.gid)];
        for (key, id) in ids {
            if id > ID_MAX {
                records.insert(key.as_bytes().to_vec(), id.to_string().into_bytes());
            }
        }
        header.set_uid(ids[0].1.min(ID_MAX).into());
        header.set_gid(ids[1].1.min(ID_MAX).into());
        let (secs, nanos) = (attributes.mtime.secs, attributes.mtime.nanos);
        let plain = u64::try_from(secs).ok().filter(|secs| *secs <= OCTAL_MAX);
        header.set_mtime(plain.unwrap_or(0));
        if nanos > 0 || plain.is_none() {
            records.insert(b"mtime".to_vec(), decimal(secs, nanos).into_bytes());
        }
        Self { header, records }
    }

    /// The header of an empty file without attributes.
    pub(in crate::transfer) fn bare() -> Self {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0);
        Self { header, records: Records::new() }
    }

    /// Adds an extended attribute.
    pub(in crate::transfer) fn xattr(
        &mut self,
        path: &[u8],
        key: &[u8],
        value: &[u8],
    ) -> Result<()> {
        if key.contains(&b'=') {
            return Err(refuse(path, "a tar cannot hold an attribute with `=` in its name"));
        }
        self.records.insert([b"SCHILY.xattr.", key].concat(), value.to_vec());
        Ok(())
    }

    /// Sets the target of a link.
    pub(in crate::transfer) fn link_name(&mut self, to: &[u8]) {
        if to.len() > NAME_FIELD {
            self.records.insert(b"linkpath".to_vec(), to.to_vec());
        }
        fill(&mut self.header.as_old_mut().linkname, to);
    }

    /// Sets the numbers of a device.
    pub(in crate::transfer) fn device(
        &mut self,
        path: &[u8],
        major: u32,
        minor: u32,
    ) -> Result<()> {
        let large = || refuse(path, "a tar has no room for its device number");
        let Some(fields) = self.header.as_ustar_mut() else { return Ok(()) };
        octal(&mut fields.dev_major, major).ok_or_else(large)?;
        octal(&mut fields.dev_minor, minor).ok_or_else(large)
    }
}

impl MemberWriter<'_> {
    pub(in crate::transfer) fn put(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.out.write_all(bytes).map_err(written)?)
    }

    /// Pads the last block after `len` bytes, then writes the following bytes.
    pub(in crate::transfer) fn pad(&mut self, len: u64, then: &[u8]) -> Result<()> {
        let rest = (BLOCK - len % BLOCK) % BLOCK;
        let zeroes = [0; BLOCK as usize];
        self.put(zeroes.get(..rest as usize).unwrap_or_default())?;
        self.put(then)
    }

    /// Writes the end of an archive.
    pub(in crate::transfer) fn end(&mut self) -> Result<()> {
        self.pad(0, &[0; 2 * BLOCK as usize])
    }

    /// Writes the head of a sparse file with its map, and returns the number of bytes of data that
    /// must follow, part by part. The caller pads them.
    pub(in crate::transfer) fn sparse(
        &mut self,
        mut head: Head,
        path: &[u8],
        parts: &mut Vec<(u64, u64)>,
        size: u64,
    ) -> Result<u64> {
        // An empty part marks a hole at the end.
        if parts.last().is_none_or(|(start, len)| start + len < size) {
            parts.push((size, 0));
        }
        let mut map = format!("{}\n", parts.len());
        for (start, len) in &*parts {
            map.push_str(&format!("{start}\n{len}\n"));
        }
        let mut map = map.into_bytes();
        map.resize(map.len().next_multiple_of(BLOCK as usize), 0);
        let data: u64 = parts.iter().map(|(_, len)| len).sum();
        for (key, value) in [("major", b"1".to_vec()), ("minor", b"0".to_vec())] {
            head.records.insert(format!("GNU.sparse.{key}").into_bytes(), value);
        }
        head.records.insert(b"GNU.sparse.name".to_vec(), path.to_vec());
        head.records.insert(b"GNU.sparse.realsize".to_vec(), size.to_string().into_bytes());
        // The name that readers without support for the format show.
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        let shown = [b"GNUSparseFile.0/", name].concat();
        let shown = shown.get(..shown.len().min(NAME_FIELD)).unwrap_or(&shown);
        self.head(head, shown, map.len() as u64 + data)?;
        self.put(&map)?;
        Ok(data)
    }

    /// Writes a header, after a PAX header if one is needed. `size` bytes of data must follow.
    pub(in crate::transfer) fn head(&mut self, head: Head, path: &[u8], size: u64) -> Result<()> {
        let Head { mut header, mut records } = head;
        if size > OCTAL_MAX {
            records.insert(b"size".to_vec(), size.to_string().into_bytes());
        }
        if path.len() > NAME_FIELD {
            records.insert(b"path".to_vec(), path.to_vec());
        }
        header.set_size(size.min(OCTAL_MAX));
        fill(&mut header.as_old_mut().name, path);
        if !records.is_empty() {
            let mut body = Vec::new();
            for (key, value) in &records {
                record(&mut body, key, value);
            }
            let mut pax = Header::new_ustar();
            pax.set_entry_type(EntryType::XHeader);
            pax.set_mode(0o644);
            pax.set_size(body.len() as u64);
            fill(&mut pax.as_old_mut().name, b"PaxHeaders.0");
            pax.set_cksum();
            self.put(pax.as_bytes())?;
            self.put(&body)?;
            self.pad(body.len() as u64, &[])?;
        }
        header.set_cksum();
        self.put(header.as_bytes())
    }
}

fn fill(field: &mut [u8], bytes: &[u8]) {
    field.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
}

fn octal(field: &mut [u8; 8], number: u32) -> Option<()> {
    let text = format!("{number:07o}\0");
    (text.len() == field.len()).then(|| fill(field, text.as_bytes()))
}

/// Seconds with their fraction, which counts upwards for times before 1970 too.
fn decimal(secs: i64, nanos: u32) -> String {
    let total = i128::from(secs) * 1_000_000_000 + i128::from(nanos);
    let (sign, total) = if total < 0 { ("-", -total) } else { ("", total) };
    let text = format!("{sign}{}.{:09}", total / 1_000_000_000, total % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `LENGTH KEY=VALUE\n`, where the length includes its own digits.
fn record(body: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while rest + len.to_string().len() != len {
        len = rest + len.to_string().len();
    }
    body.extend_from_slice(format!("{len} ").as_bytes());
    for part in [key, b"=", value, b"\n"] {
        body.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_lengths_are_those_of_pax() {
        assert_eq!(decimal(5, 0), "5");
        assert_eq!(decimal(5, 250_000_000), "5.25");
        assert_eq!(decimal(-1, 750_000_000), "-0.25");
        assert_eq!(decimal(-2, 0), "-2");
        for len in [1, 80, 90, 91, 92, 93, 985, 990, 991, 992, 993, 994, 9990] {
            let mut body = Vec::new();
            record(&mut body, b"k", &vec![b'v'; len]);
            let said: usize =
                String::from_utf8_lossy(&body).split(' ').next().unwrap().parse().unwrap();
            assert_eq!(said, body.len());
        }
    }
}
