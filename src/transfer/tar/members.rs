//! The members of a tar: headers, extensions, data.
//!
//! An archive that GNU tar and Go's `archive/tar` read differently is refused: a tool that checked
//! it and the store would see two different trees. So a size applies to the member after it and to
//! no extension in between, only files have data, and a name is given once.

use std::io::{self, ErrorKind, Read};

use ::tar::Header;

use super::pax::{self, Records};
use super::sparse::{self, HOLE_BYTES_MAX, MapReader, Next, Sparse};
use super::{header, number};
use crate::store::sink::TarRecorder;
use crate::transfer::error::TransferError;
use crate::transfer::path::refused;
use crate::transfer::{marks, stream};

const BLOCK: usize = 512;
const BLOCK_BYTES: u64 = BLOCK as u64;

/// The longest extension header, as in Go's `archive/tar`.
const EXTENSION_MAX: u64 = 1 << 20;

/// The number of pairs in an extension of an old GNU map: 21 of two fields of 12 bytes.
const PAIRS_BYTES: usize = 504;

/// The source of an archive.
pub(in crate::transfer) trait Source: Read {
    /// Skips bytes.
    fn skip(&mut self, len: u64) -> io::Result<()>;

    /// Reads content of a file that is stored as it is.
    fn read_content(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read(buf)
    }

    /// Ends the content of a file.
    fn end_content(&mut self) {}
}

/// A source that can only be read in order, with an optional recorder.
pub(in crate::transfer) struct Streamed<'r, R> {
    reader: R,
    recorder: Option<&'r mut dyn TarRecorder>,
}

impl<R> Streamed<'_, R> {
    pub(in crate::transfer) const fn new(reader: R) -> Self {
        Self { reader, recorder: None }
    }
}

impl<'r, R> Streamed<'r, R> {
    pub(in crate::transfer) const fn heard(
        reader: R,
        recorder: Option<&'r mut dyn TarRecorder>,
    ) -> Self {
        Self { reader, recorder }
    }
}

impl<R: Read> Read for Streamed<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.reader.read(buf)?;
        if let Some(recorder) = &mut self.recorder {
            recorder.literal(buf.get(..len).unwrap_or_default());
        }
        Ok(len)
    }
}

impl<R: Read> Source for Streamed<'_, R> {
    fn skip(&mut self, len: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.by_ref().take(len), &mut io::sink())?;
        if skipped == len { Ok(()) } else { Err(ends("data of a member")) }
    }

    fn read_content(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.reader.read(buf)?;
        if let Some(recorder) = &mut self.recorder {
            recorder.content(buf.get(..len).unwrap_or_default());
        }
        Ok(len)
    }

    fn end_content(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            recorder.end_content();
        }
    }
}

fn ends(within: &str) -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, format!("it ends within the {within}"))
}

fn failed(error: io::Error) -> TransferError {
    stream::failed("archive", error)
}

/// A member, with its extensions applied.
#[derive(Debug)]
pub(in crate::transfer) struct Member {
    /// The name in the archive.
    pub(in crate::transfer) name: Vec<u8>,
    /// The target of a link.
    pub(in crate::transfer) link: Vec<u8>,
    /// Type flag: `0` for every form of file, `5` for every form of directory.
    pub(in crate::transfer) kind: u8,
    pub(super) meta: header::Meta,
    /// The size of the file, including holes.
    pub(in crate::transfer) size: u64,
    /// The major and minor number.
    pub(in crate::transfer) device: (u32, u32),
    pub(in crate::transfer) xattrs: marks::Xattrs,
    /// The position of its data in the archive.
    pub(in crate::transfer) offset: u64,
    /// Whether the data omits holes.
    pub(in crate::transfer) is_sparse: bool,
}

/// Extensions that apply to the next member.
#[derive(Default)]
struct Pending {
    records: Option<Records>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Pending {
    const fn is_empty(&self) -> bool {
        self.records.is_none() && self.name.is_none() && self.link.is_none()
    }

    fn take_records(&mut self, raw: &[u8]) -> Result<(), &'static str> {
        match self.records.replace(Records::parse(raw)?) {
            None => Ok(()),
            Some(_) => Err("it has two PAX headers"),
        }
    }
}

// GNU tar prefers the name of the PAX header, Go prefers the long name, in any order.
fn once(pax: Option<&Vec<u8>>, long: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, &'static str> {
    match (pax, long) {
        (Some(pax), Some(long)) if *pax != long => Err("it has a PAX and a GNU name that differ"),
        (pax, long) => Ok(pax.cloned().or(long)),
    }
}

/// Reads the members of an archive in order.
pub(in crate::transfer) struct Members<S> {
    source: S,
    /// Bytes read or skipped.
    at: u64,
    /// Bytes of data of the current member that were not read.
    left: u64,
    /// Bytes of padding after the data.
    padding: u64,
    sparse: Option<Sparse>,
    holes: u64,
    holes_max: u64,
    global: Records,
    end_marked: bool,
}

impl<S: Source> Members<S> {
    pub(in crate::transfer) fn new(source: S) -> Self {
        Self {
            source,
            at: 0,
            left: 0,
            padding: 0,
            sparse: None,
            holes: 0,
            holes_max: HOLE_BYTES_MAX,
            global: Records::default(),
            end_marked: false,
        }
    }

    /// Accepts any number of bytes in holes, for a caller that skips them.
    pub(in crate::transfer) fn with_any_holes(self) -> Self {
        Self { holes_max: u64::MAX, ..self }
    }

    /// Reads the bytes after the last member.
    pub(in crate::transfer) fn drain(&mut self) -> io::Result<u64> {
        io::copy(&mut self.source, &mut io::sink())
    }

    /// Whether a block of zeros marked the end of the archive.
    pub(in crate::transfer) const fn end_marked(&self) -> bool {
        self.end_marked
    }

    /// Returns the next member, or `None` after the last. Skips the rest of the one before.
    pub(in crate::transfer) fn next(&mut self) -> Result<Option<Member>, TransferError> {
        let mut pending = Pending::default();
        loop {
            self.pass_data()?;
            let Some(header) = self.header()? else {
                if pending.is_empty() {
                    return Ok(None);
                }
                return Err(failed(io::Error::new(
                    ErrorKind::UnexpectedEof,
                    "it ends behind an extension",
                )));
            };
            let name = header::name(&header);
            let refused = refused(&name);
            let size = header::size(&header).map_err(&refused)?;
            match header::flag(&header) {
                b'x' | b'X' => pending.take_records(&self.extension(size)?).map_err(&refused)?,
                b'g' => {
                    if !pending.is_empty() {
                        return Err(refused("a global header divides another from its member"));
                    }
                    let records = Records::parse(&self.extension(size)?).map_err(&refused)?;
                    records.check_global().map_err(&refused)?;
                    self.global.update(records);
                    // They stay in memory until the end, and are copied for each member.
                    if self.global.xattrs_bytes() as u64 > EXTENSION_MAX {
                        return Err(refused("global headers state more than 1 MiB of attributes"));
                    }
                }
                b'L' => pending.name = Some(header::until_nul(&self.extension(size)?)),
                b'K' => pending.link = Some(header::until_nul(&self.extension(size)?)),
                _ => return self.member(&header, size, pending).map(Some),
            }
        }
    }

    /// The data of the member that [`Members::next`] returned last.
    pub(in crate::transfer) fn data(&mut self) -> Data<'_, S> {
        Data { members: self, failure: None }
    }

    fn pass_data(&mut self) -> Result<(), TransferError> {
        let rest = self.left.saturating_add(self.padding);
        if rest > 0 {
            self.source.skip(rest).map_err(failed)?;
        }
        self.at = self.at.saturating_add(rest);
        (self.left, self.padding, self.sparse) = (0, 0, None);
        Ok(())
    }

    fn header(&mut self) -> Result<Option<Header>, TransferError> {
        let Some(block) = self.block()? else { return Ok(None) };
        if block.iter().all(|byte| *byte == 0) {
            // GNU tar ends at one block of zeros, Go at two.
            if self.block()?.is_some_and(|next| next.iter().any(|byte| *byte != 0)) {
                return Err(TransferError::malformed("archive has a single block of zeros inside"));
            }
            self.end_marked = true;
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        if header::has_checksum(&header) {
            return Ok(Some(header));
        }
        let at = self.at - BLOCK_BYTES;
        if at == 0 {
            let what = "this is not a tar archive, plain or compressed with gzip or zstd";
            return Err(TransferError::malformed(what));
        }
        let (what, found) = ("archive".to_owned(), format!("no header at byte {at}"));
        Err(TransferError::Damaged { what, found })
    }

    // `None` at the end of the source.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TransferError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.source.read(rest) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) if self.at == 0 => {
                    let end = "it ends within its first header, and may be no archive".to_owned();
                    return Err(TransferError::Truncated { what: "archive".to_owned(), end });
                }
                Ok(0) => return Err(failed(ends("header of a member"))),
                Ok(len) => filled += len,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        self.at += BLOCK_BYTES;
        Ok(Some(block))
    }

    fn hold(&mut self, size: u64) -> Result<(), &'static str> {
        let room =
            self.at.checked_add(size).and_then(|end| end.checked_next_multiple_of(BLOCK_BYTES));
        // No file system has offsets beyond i64.
        let end = room.filter(|end| *end <= i64::MAX as u64).ok_or("its size is too large")?;
        (self.left, self.padding) = (size, end - self.at - size);
        Ok(())
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, TransferError> {
        if size > EXTENSION_MAX {
            let what =
                format!("archive has an extension header of {size} bytes; 1 MiB is the limit");
            return Err(TransferError::TooLarge { what });
        }
        self.hold(size).map_err(TransferError::malformed)?;
        let mut content = Vec::new();
        (&mut self.source).take(size).read_to_end(&mut content).map_err(failed)?;
        if content.len() as u64 != size {
            return Err(failed(ends("extension of a member")));
        }
        self.at += size;
        self.left = 0;
        Ok(content)
    }

    fn member(
        &mut self,
        header: &Header,
        size: u64,
        pending: Pending,
    ) -> Result<Member, TransferError> {
        let own = pending.records.unwrap_or_default();
        let short = header::name(header);
        let name = once(own.path.as_ref(), pending.name).map_err(refused(&short))?;
        let name = own.sparse.name.clone().or(name).unwrap_or(short);
        let refuse = refused(&name);
        let link = once(own.linkpath.as_ref(), pending.link).map_err(&refuse)?;
        let flag = header::kind(header::flag(header), &name);
        let stored = header::stored_size(flag, size, own.size).map_err(&refuse)?;
        let old_map = self.old_map(header, flag, &refuse)?;
        self.hold(stored).map_err(&refuse)?;
        self.sparse = match old_map {
            Some(_) if own.sparse != pax::Sparse::default() => {
                return Err(refuse("it is sparse in two formats"));
            }
            Some((map, size)) => Some(Sparse::new(map, size, stored).map_err(&refuse)?),
            None => self.pax_sparse(&own.sparse, flag, &refuse)?,
        };
        self.holes = self.holes.saturating_add(self.sparse.as_ref().map_or(0, Sparse::holes));
        if self.holes > self.holes_max {
            return Err(refuse("the holes of sparse files up to here exceed 64 GiB"));
        }
        let mut stated = self.global.clone();
        stated.update(own);
        let fields = header.as_old();
        let meta = header::Meta::new(fields, &stated).map_err(&refuse)?;
        Ok(Member {
            meta,
            kind: if flag == b'S' { b'0' } else { flag },
            size: self.sparse.as_ref().map_or(stored, Sparse::size),
            device: header::device(header, flag).map_err(&refuse)?,
            xattrs: stated
                .xattrs
                .into_iter()
                .filter_map(|(key, value)| Some((key, value?)))
                .collect(),
            offset: self.at,
            is_sparse: self.sparse.is_some(),
            link: link.unwrap_or_else(|| header::until_nul(&fields.linkname)),
            name: name.clone(),
        })
    }

    // Reads the map of an old GNU sparse member, which is before its data, and the size of the
    // file.
    fn old_map(
        &mut self,
        header: &Header,
        flag: u8,
        refuse: &dyn Fn(&'static str) -> TransferError,
    ) -> Result<Option<(Vec<sparse::Segment>, u64)>, TransferError> {
        if flag != b'S' {
            return Ok(None);
        }
        let gnu = header.as_gnu().ok_or_else(|| refuse("it is sparse, but has no GNU header"))?;
        let size = number::field(&gnu.realsize).map_err(refuse)?;
        let size = u64::try_from(size).map_err(|_| refuse("its size is negative"))?;
        let mut map = Vec::new();
        let pairs = gnu.sparse.iter().map(|pair| (&pair.offset[..], &pair.numbytes[..]));
        sparse::add_pairs(&mut map, pairs).map_err(refuse)?;
        let mut more = gnu.isextended[0] == 1;
        while more {
            let block = self.block()?.ok_or_else(|| failed(ends("map of a sparse member")))?;
            let (pairs, state) = block.split_at(PAIRS_BYTES);
            let pairs = pairs.chunks_exact(24).map(|pair| pair.split_at(12));
            sparse::add_pairs(&mut map, pairs).map_err(refuse)?;
            more = state.first() == Some(&1);
        }
        Ok(Some((map, size)))
    }

    fn pax_sparse(
        &mut self,
        pax: &pax::Sparse,
        flag: u8,
        refuse: &dyn Fn(&'static str) -> TransferError,
    ) -> Result<Option<Sparse>, TransferError> {
        if *pax == pax::Sparse::default() {
            return Ok(None);
        }
        if flag != b'0' {
            return Err(refuse("it is sparse, but not a file"));
        }
        let size = pax.real_size.ok_or_else(|| refuse("it is sparse, but has no size"))?;
        let map = match (pax.version, &pax.map) {
            ((1, 0), None) => self.map_in_data(refuse)?,
            ((0, 0 | 1), Some(map)) => map.clone(),
            _ => return Err(refuse("its sparse format is unknown: 0.0, 0.1 and 1.0 are read")),
        };
        Sparse::new(map, size, self.left).map(Some).map_err(refuse)
    }

    // Format 1.0 stores the map as lines in the first blocks of the data.
    fn map_in_data(
        &mut self,
        refuse: &dyn Fn(&'static str) -> TransferError,
    ) -> Result<Vec<sparse::Segment>, TransferError> {
        let mut map = MapReader::default();
        loop {
            self.left = self
                .left
                .checked_sub(BLOCK_BYTES)
                .ok_or_else(|| refuse("the map of a sparse file leaves its data"))?;
            let block = self.block()?.ok_or_else(|| failed(ends("map of a sparse member")))?;
            if map.take(&block).map_err(refuse)? {
                return Ok(map.finish());
            }
        }
    }
}

/// The data of one member, with holes filled.
pub(in crate::transfer) struct Data<'a, S> {
    members: &'a mut Members<S>,
    failure: Option<TransferError>,
}

impl<S> Data<'_, S> {
    /// Ends the reading of the data.
    pub(in crate::transfer) fn end(&mut self)
    where
        S: Source,
    {
        if self.members.sparse.is_none() {
            self.members.source.end_content();
        }
    }

    /// Skips a hole at the current position, and returns its length.
    pub(in crate::transfer) fn skip_hole(&mut self) -> u64 {
        let Some(sparse) = &mut self.members.sparse else { return 0 };
        let Next::Hole(len) = sparse.next() else { return 0 };
        sparse.advance(len);
        len
    }

    /// The error of the archive, if reading it failed, whatever the reader of the data returned.
    pub(in crate::transfer) fn failure(self) -> Option<TransferError> {
        self.failure
    }
}

impl<S: Source> Data<'_, S> {
    fn stored(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = match self.members.sparse {
            Some(_) => self.members.source.read(buf),
            None => self.members.source.read_content(buf),
        };
        let read = match read {
            Ok(0) => Err(ends("data of a member")),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
            read => read,
        };
        read.map_err(|error| {
            let copy = stream::copied(&error);
            self.failure = Some(failed(error));
            copy
        })
    }
}

impl<S: Source> Read for Data<'_, S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let next = match &mut self.members.sparse {
            None => Next::Data(self.members.left),
            Some(sparse) => sparse.next(),
        };
        let (Next::Hole(len) | Next::Data(len)) = next else { return Ok(0) };
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(buf.len());
        let Some(part) = buf.get_mut(..len).filter(|part| !part.is_empty()) else {
            return Ok(0);
        };
        let len = match next {
            Next::Hole(_) => {
                part.fill(0);
                len
            }
            _ => {
                let len = self.stored(part)?;
                self.members.left = self.members.left.saturating_sub(len as u64);
                self.members.at = self.members.at.saturating_add(len as u64);
                len
            }
        };
        if let Some(sparse) = &mut self.members.sparse {
            sparse.advance(len as u64);
        }
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use crate::transfer::testing::*;

    fn error(tar: Tar) -> String {
        tar.import().map(|seen| seen.lines).unwrap_err().to_string()
    }

    fn sparse_tar(records: &[(&str, &[u8])], data: &[u8]) -> Tar {
        Tar::default().pax(records).file("GNUSparseFile.1/f", data).file("after", b"x")
    }

    #[test]
    fn a_size_of_pax_is_of_the_member_and_of_no_extension() {
        let mut long = header(b'L', b"././@LongLink", 4);
        long.set_cksum();
        let tar = Tar::default()
            .pax(&[("size", b"3")])
            .raw(long, b"abc\0")
            .raw(header(b'0', b"short", 0), b"xyz")
            .file("after", b"");
        let seen = tar.import().unwrap();
        assert_eq!(seen.lines, ["file /abc 3", "file /after 0"]);
        assert_eq!(seen.contents.get("/abc").unwrap(), b"xyz");
    }

    #[test]
    fn long_names_and_links_of_gnu_are_taken() {
        let name = "d/".repeat(120) + "f";
        let tar = Tar::default()
            .member(b'L', "././@LongLink", name.as_bytes())
            .member(b'K', "././@LongLink", b"target\0")
            .link(b'2', "cut", "cut");
        assert_eq!(tar.import().unwrap().lines, [format!("symlink /{name} target")]);
    }

    #[test]
    fn names_given_twice_must_agree() {
        let tar = |long: &[u8]| {
            Tar::default().pax(&[("path", b"a")]).member(b'L', "l", long).file("b", b"")
        };
        assert_eq!(tar(b"a\0").import().unwrap().lines, ["file /a 0"]);
        assert!(error(tar(b"c\0")).contains("differ"));
        let two = Tar::default().pax(&[("uid", b"1")]).pax(&[("gid", b"1")]).file("b", b"");
        assert!(error(two).contains("two PAX headers"));
    }

    #[test]
    fn an_extension_that_claims_gigabytes_is_not_allocated() {
        for kind in [b'x', b'g', b'L', b'K'] {
            let tar = Tar::default().raw(header(kind, b"bomb", 8 << 30), b"");
            assert!(error(tar).contains("1 MiB is the limit"));
        }
        let tar = Tar::default().pax(&[("size", b"18446744073709551615")]).file("f", b"");
        assert!(error(tar).contains("too large"));
    }

    #[test]
    fn an_extension_without_a_member_is_a_cut_archive() {
        let error = error(Tar::default().pax(&[("path", b"a")]));
        assert!(error.contains("truncated"), "{error}");
    }

    #[test]
    fn global_headers_state_owners_but_no_names() {
        let global = pax(&[("uid", b"7"), ("mtime", b"-1.5"), ("comment", b"c")]);
        let tar = Tar::default()
            .member(b'g', "g", &global)
            .file("a", b"")
            .pax(&[("uid", b"8")])
            .file("b", b"");
        let seen = tar.import().unwrap();
        let uid = |name: &str| seen.metas.get(name).unwrap().uid;
        assert_eq!((uid("/a"), uid("/b")), (7, 8));
        let mtime = seen.metas.get("/b").unwrap().mtime;
        assert_eq!((mtime.secs, mtime.nanos), (-2, 500_000_000));
        let path = Tar::default().member(b'g', "g", &pax(&[("path", b"all")])).file("a", b"");
        assert!(error(path).contains("global"));
    }

    #[test]
    fn numbers_may_be_base_256() {
        let mut big = header(b'0', b"f", 0);
        big.as_old_mut().uid = *b"\x80\0\0\0\xff\xff\xff\xfe";
        big.as_old_mut().mtime = *b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xf6";
        let seen = Tar::default().raw(big.clone(), b"").import().unwrap();
        let meta = seen.metas.get("/f").unwrap();
        assert_eq!((meta.uid, meta.mtime.secs), (0xffff_fffe, -10));
        big.as_old_mut().uid = *b"\x80\0\0\x01\0\0\0\0";
        assert!(error(Tar::default().raw(big, b"")).contains("32 bits"));
        let mut negative = header(b'0', b"f", 0);
        negative.as_old_mut().size = [0xff; 12];
        assert!(error(Tar::default().raw(negative, b"")).contains("negative"));
    }

    #[test]
    fn only_files_have_data() {
        for kind in *b"23456" {
            let tar = Tar::default().raw(header(kind, b"n", 512), &[b'a'; 512]);
            assert!(error(tar).contains("has data"), "{}", char::from(kind));
        }
        let mut link = header(b'1', b"n", 512);
        link.as_old_mut().linkname[..1].copy_from_slice(b"t");
        let seen = Tar::default().raw(link, b"").file("t", b"").import().unwrap();
        assert_eq!(seen.lines, ["link /n /t", "file /t 0"]);
    }

    #[test]
    fn a_lone_block_of_zeros_hides_nothing() {
        let mut tar = Tar::default().file("a", b"");
        tar.0.resize(tar.0.len() + 512, 0);
        assert!(error(tar.clone().file("b", b"")).contains("single block of zeros"));
        assert_eq!(import(&tar.0).unwrap().lines, ["file /a 0"]);
    }

    #[test]
    fn damaged_headers_are_found_by_their_checksum() {
        let mut tar = Tar::default().file("a", b"").file("b", b"").end();
        tar[512] ^= 1;
        let error = import(&tar).map(|seen| seen.lines).unwrap_err().to_string();
        assert!(error.contains("no header at byte 512"), "{error}");
        tar[0] ^= 1;
        let error = import(&tar).map(|seen| seen.lines).unwrap_err().to_string();
        assert!(error.contains("not a tar archive"), "{error}");
    }

    #[test]
    fn pax_sparse_files_of_all_formats_are_expanded() {
        let name: (&str, &[u8]) = ("GNU.sparse.name", b"s");
        let in_data = [b"1\n2\n3\n".as_slice(), &[0; 506], b"abc"].concat();
        let tars = [
            sparse_tar(
                &[
                    ("GNU.sparse.major", b"1"),
                    ("GNU.sparse.minor", b"0"),
                    name,
                    ("GNU.sparse.realsize", b"7"),
                ],
                &in_data,
            ),
            sparse_tar(&[("GNU.sparse.size", b"7"), ("GNU.sparse.map", b"2,3"), name], b"abc"),
            sparse_tar(
                &[
                    ("GNU.sparse.size", b"7"),
                    ("GNU.sparse.offset", b"2"),
                    ("GNU.sparse.numbytes", b"3"),
                    name,
                ],
                b"abc",
            ),
        ];
        for tar in tars {
            let seen = tar.import().unwrap();
            assert_eq!(seen.lines, ["file /s 7", "file /after 1"]);
            assert_eq!(seen.contents.get("/s").unwrap(), b"\0\0abc\0\0");
        }
    }

    #[test]
    fn sparse_files_that_lie_are_refused() {
        let size = ("GNU.sparse.size", b"7".as_slice());
        let other = sparse_tar(&[size, ("GNU.sparse.major", b"2")], b"abc");
        assert!(error(other).contains("0.0, 0.1 and 1.0"));
        let short = sparse_tar(&[size, ("GNU.sparse.map", b"0,2")], b"abc");
        assert!(error(short).contains("contradicts"));
        let huge = ("GNU.sparse.size", b"9223372036854775807".as_slice());
        let bomb = sparse_tar(&[huge, ("GNU.sparse.map", b"0,3")], b"abc");
        assert!(error(bomb).contains("64 GiB"));
        let version = ("GNU.sparse.major", b"1".as_slice());
        let endless = sparse_tar(&[version, ("GNU.sparse.realsize", b"7")], b"9\n1\n");
        assert!(error(endless).contains("leaves its data"));
    }

    #[test]
    fn old_gnu_sparse_files_are_expanded_with_their_further_maps() {
        let mut header = ::tar::Header::new_gnu();
        header.as_old_mut().name[..1].copy_from_slice(b"s");
        header.as_old_mut().linkflag = *b"S";
        header.set_size(5);
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let gnu = header.as_gnu_mut().unwrap();
        for (at, pair) in gnu.sparse.iter_mut().enumerate() {
            pair.offset = *format!("{:011o}\0", at * 2).as_bytes().first_chunk().unwrap();
            pair.numbytes = *b"00000000001\0";
        }
        gnu.isextended = [1];
        gnu.realsize = *b"00000000014\0";
        let mut more = [0; 512];
        more[..24].copy_from_slice(b"00000000011\x0000000000001\0".get(..24).unwrap());
        let mut tar = Tar::default().raw(header, &more);
        tar.0.extend_from_slice(b"abcde");
        tar.0.resize(tar.0.len().next_multiple_of(512), 0);
        let seen = tar.file("after", b"").import().unwrap();
        assert_eq!(seen.lines, ["file /s 12", "file /after 0"]);
        assert_eq!(seen.contents.get("/s").unwrap(), b"a\0b\0c\0d\0\0e\0\0");
    }
}
