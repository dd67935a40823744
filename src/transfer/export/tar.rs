//! A layer as a tar in PAX format: entries sorted by name, a directory before what is in it.
//!
//! Values that do not fit into a header are in a PAX header before it: long names, fractions of
//! seconds, large ids, extended attributes. Files with holes are sparse in GNU's format 1.0, which
//! GNU tar, libarchive and Go read. Whiteouts and opaque directories are files `.wh.*`, as in OCI.
//! A tar cannot hold sockets, so they are left out, as in other engines.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;

use ::tar::{EntryType, Header};

use crate::format::index::{Content, ROOT};
use crate::format::layout::{Extent, Inode};
use crate::store::Layer;
use crate::store::recipe::{copy_content, copy_range, written};
use crate::transfer::error::{Result, TransferError};
use crate::types::{Kind, MODE_MASK, NAME_MAX};

const BLOCK: u64 = 512;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// The largest number in a field of 12 octal digits.
const OCTAL_MAX: u64 = (1 << 33) - 1;
/// The largest number in a field of 8 octal digits.
const ID_MAX: u32 = (1 << 21) - 1;
const NAME_FIELD: usize = 100;
/// The deepest directory, as in an import.
const DEPTH_MAX: usize = 1024;

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// Writes a whole layer.
pub(super) fn write(layer: &Layer, out: &mut dyn Write) -> Result<()> {
    let mut writer = Writer { layer, out, links: HashMap::new() };
    let index = layer.index();
    if let Some(root) = index.inode(ROOT) {
        if !root.is_implied() {
            writer.entry(b"./", root, EntryType::Directory)?;
        }
        writer.dir(b"", ROOT, root)?;
    }
    writer.pad(0, &[0; 2 * BLOCK as usize])
}

struct Writer<'a> {
    layer: &'a Layer,
    out: &'a mut dyn Write,
    /// The first name of each object with several names.
    links: HashMap<u32, Vec<u8>>,
}

fn refuse(path: &[u8], what: &str) -> TransferError {
    TransferError::Entry { name: String::from_utf8_lossy(path).into_owned(), what: what.to_owned() }
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.out.write_all(bytes).map_err(written)?)
    }

    /// Pads the last block after `len` bytes, then writes the following bytes.
    fn pad(&mut self, len: u64, then: &[u8]) -> Result<()> {
        let rest = (BLOCK - len % BLOCK) % BLOCK;
        let zeroes = [0; BLOCK as usize];
        self.put(zeroes.get(..rest as usize).unwrap_or_default())?;
        self.put(then)
    }

    fn dir(&mut self, path: &[u8], number: u32, inode: &Inode) -> Result<()> {
        if path.iter().filter(|byte| **byte == b'/').count() > DEPTH_MAX {
            return Err(refuse(path, "more than 1024 directories in each other"));
        }
        let index = self.layer.index();
        let below = |name: &[u8]| [path, name].concat();
        if inode.is_opaque() {
            self.mark(&below(OPAQUE))?;
        }
        for dirent in index.entries(number) {
            let name = index.name(dirent);
            let path = below(name);
            if name.starts_with(WHITEOUT) {
                return Err(refuse(&path, "a tar cannot hold it: its name means a whiteout there"));
            }
            let Some(object) = dirent.object() else {
                if name.len() + WHITEOUT.len() > NAME_MAX {
                    return Err(refuse(&path, "a tar cannot hide a name of this length"));
                }
                self.mark(&below(&[WHITEOUT, name].concat()))?;
                continue;
            };
            let damaged = || refuse(&path, "an object that is not there");
            let inode = index.inode(object).ok_or_else(damaged)?;
            if inode.kind() == Kind::Socket {
                let path = String::from_utf8_lossy(&path);
                tracing::warn!(%path, "a tar has no form for a socket: left out");
                continue;
            }
            if let Some(first) = self.links.get(&object).cloned() {
                self.link(&path, inode, &first)?;
                continue;
            }
            if inode.kind() != Kind::Dir && inode.nlink.get() > 1 {
                self.links.insert(object, path.clone());
            }
            self.object(path, object, inode)?;
        }
        Ok(())
    }

    fn object(&mut self, path: Vec<u8>, number: u32, inode: &Inode) -> Result<()> {
        let index = self.layer.index();
        match inode.kind() {
            Kind::Dir => {
                let path = [&path[..], b"/"].concat();
                // An implied directory is left out where its content implies it again.
                let is_told = inode.is_opaque() || inode.b.get() > 0;
                if !(index.has_implied() && inode.is_implied() && is_told) {
                    self.entry(&path, inode, EntryType::Directory)?;
                }
                self.dir(&path, number, inode)
            }
            Kind::File => self.file(&path, inode),
            Kind::Symlink => self.entry(&path, inode, EntryType::Symlink),
            Kind::Char => self.entry(&path, inode, EntryType::Char),
            Kind::Block => self.entry(&path, inode, EntryType::Block),
            Kind::Fifo => self.entry(&path, inode, EntryType::Fifo),
            _ => Err(refuse(&path, "a tar has no form for it")),
        }
    }

    /// Writes an empty file that marks its directory.
    fn mark(&mut self, path: &[u8]) -> Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0);
        self.head(header, path, Records::new(), 0)
    }

    fn link(&mut self, path: &[u8], inode: &Inode, to: &[u8]) -> Result<()> {
        let (mut header, mut records) = self.attributes(path, inode, EntryType::Link)?;
        link_name(&mut header, &mut records, to);
        self.head(header, path, records, 0)
    }

    /// Writes an object without content.
    fn entry(&mut self, path: &[u8], inode: &Inode, kind: EntryType) -> Result<()> {
        let (mut header, mut records) = self.attributes(path, inode, kind)?;
        if kind == EntryType::Symlink {
            link_name(&mut header, &mut records, self.layer.index().target(inode));
        }
        if let (EntryType::Char | EntryType::Block, Some(fields)) = (kind, header.as_ustar_mut()) {
            let large = || refuse(path, "a tar has no room for its device number");
            octal(&mut fields.dev_major, inode.a.get().into()).ok_or_else(large)?;
            octal(&mut fields.dev_minor, inode.b.get().into()).ok_or_else(large)?;
        }
        self.head(header, path, records, 0)
    }

    fn file(&mut self, path: &[u8], inode: &Inode) -> Result<()> {
        let (header, mut records) = self.attributes(path, inode, EntryType::Regular)?;
        let size = inode.size.get();
        let layer = self.layer;
        if let Content::Extents(extents) = layer.index().content(inode)
            && layer.allocated(inode) < size
        {
            return self.sparse(path, inode, extents, (header, records));
        }
        if size > OCTAL_MAX {
            records.insert(b"size".to_vec(), size.to_string().into_bytes());
        }
        self.head(header, path, records, size)?;
        copy_content(layer, inode, self.out)?;
        self.pad(size, &[])
    }

    fn sparse(
        &mut self,
        path: &[u8],
        inode: &Inode,
        extents: &[Extent],
        (header, mut records): (Header, Records),
    ) -> Result<()> {
        let size = inode.size.get();
        let mut parts: Vec<(u64, u64)> =
            extents.iter().map(|extent| (extent.start.get(), extent.len.get())).collect();
        // An empty part marks a hole at the end.
        if parts.last().is_none_or(|(start, len)| start + len < size) {
            parts.push((size, 0));
        }
        let mut map = format!("{}\n", parts.len());
        for (start, len) in &parts {
            map.push_str(&format!("{start}\n{len}\n"));
        }
        let mut map = map.into_bytes();
        map.resize(map.len().next_multiple_of(BLOCK as usize), 0);
        let data: u64 = parts.iter().map(|(_, len)| len).sum();
        for (key, value) in [("major", b"1".to_vec()), ("minor", b"0".to_vec())] {
            records.insert(format!("GNU.sparse.{key}").into_bytes(), value);
        }
        records.insert(b"GNU.sparse.name".to_vec(), path.to_vec());
        records.insert(b"GNU.sparse.realsize".to_vec(), size.to_string().into_bytes());
        let stored = map.len() as u64 + data;
        if stored > OCTAL_MAX {
            records.insert(b"size".to_vec(), stored.to_string().into_bytes());
        }
        // The name that readers without support for the format show.
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        let shown = [b"GNUSparseFile.0/", name].concat();
        self.head(
            header,
            shown.get(..shown.len().min(NAME_FIELD)).unwrap_or(&shown),
            records,
            stored,
        )?;
        self.put(&map)?;
        for (start, len) in parts {
            copy_range(self.layer, inode, start..start + len, self.out)?;
        }
        self.pad(data, &[])
    }

    fn attributes(&self, path: &[u8], inode: &Inode, kind: EntryType) -> Result<(Header, Records)> {
        let mut header = Header::new_ustar();
        let mut records = Records::new();
        header.set_entry_type(kind);
        header.set_mode(inode.mode.get() & MODE_MASK);
        let ids = [("uid", inode.uid.get()), ("gid", inode.gid.get())];
        for (key, id) in ids {
            if id > ID_MAX {
                records.insert(key.as_bytes().to_vec(), id.to_string().into_bytes());
            }
        }
        header.set_uid(ids[0].1.min(ID_MAX).into());
        header.set_gid(ids[1].1.min(ID_MAX).into());
        let (secs, nanos) = (inode.mtime.get(), inode.mtime_nanos.get());
        let plain = u64::try_from(secs).ok().filter(|secs| *secs <= OCTAL_MAX);
        header.set_mtime(plain.unwrap_or(0));
        if nanos > 0 || plain.is_none() {
            records.insert(b"mtime".to_vec(), decimal(secs, nanos).into_bytes());
        }
        if kind != EntryType::Link {
            for (key, value) in self.layer.index().xattrs(inode) {
                if key.contains(&b'=') {
                    return Err(refuse(
                        path,
                        "a tar cannot hold an attribute with `=` in its name",
                    ));
                }
                records.insert([b"SCHILY.xattr.", key].concat(), value.to_vec());
            }
        }
        Ok((header, records))
    }

    /// Writes a header, after a PAX header if one is needed.
    fn head(
        &mut self,
        mut header: Header,
        path: &[u8],
        mut records: Records,
        size: u64,
    ) -> Result<()> {
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

fn link_name(header: &mut Header, records: &mut Records, to: &[u8]) {
    if to.len() > NAME_FIELD {
        records.insert(b"linkpath".to_vec(), to.to_vec());
    }
    fill(&mut header.as_old_mut().linkname, to);
}

fn fill(field: &mut [u8], bytes: &[u8]) {
    field.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
}

fn octal(field: &mut [u8; 8], number: u64) -> Option<()> {
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
