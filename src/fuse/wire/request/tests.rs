//! Tests of the decoder.

use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::*;

fn request(opcode: u32, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    let header = InHeader {
        len: u32::try_from(40 + body.len()).unwrap(),
        opcode,
        unique: 77,
        nodeid: 5,
        ..Default::default()
    };
    [header.as_bytes(), &body].concat()
}

fn refusal(bytes: &[u8]) -> Errno {
    match decode(bytes, true) {
        Err(Malformed::Arguments { unique: 77, errno, .. }) => errno,
        other => panic!("{other:?}"),
    }
}

#[test]
fn lookup_gives_name_and_header() {
    let bytes = request(abi::LOOKUP, &[b"passwd\0"]);
    let request = decode(&bytes, true).unwrap();
    assert_eq!((request.header.unique, request.header.nodeid), (77, 5));
    assert!(matches!(request.op, Operation::Lookup { name: b"passwd" }));
}

#[test]
fn rename_gives_both_names_and_flags() {
    let arg = abi::Rename2In { newdir: 9, flags: 2, padding: 0 };
    let bytes = request(abi::RENAME2, &[arg.as_bytes(), b"a\0", b"bc\0"]);
    let op = decode(&bytes, true).unwrap().op;
    let Operation::Rename { new_parent, flags, name, new_name } = op else { panic!("{op:?}") };
    assert_eq!((new_parent, flags, name, new_name), (9, 2, &b"a"[..], &b"bc"[..]));
}

#[test]
fn setxattr_is_read_in_both_forms() {
    let ext = abi::SetXattrIn { size: 3, flags: 1, setxattr_flags: 1, padding: 0 };
    let bytes = request(abi::SETXATTR, &[ext.as_bytes(), b"user.k\0", b"v\0w"]);
    let op = decode(&bytes, true).unwrap().op;
    let Operation::SetXattr { key, value, flags, kill_sgid } = op else { panic!("{op:?}") };
    assert_eq!((key, value, flags, kill_sgid), (&b"user.k"[..], &b"v\0w"[..], 1, true));

    let old = abi::SetXattrCompatIn { size: 1, flags: 0 };
    let bytes = request(abi::SETXATTR, &[old.as_bytes(), b"user.k\0", b"v"]);
    let op = decode(&bytes, false).unwrap().op;
    assert!(matches!(op, Operation::SetXattr { value: b"v", kill_sgid: false, .. }));
}

#[test]
fn extension_headers_are_no_part_of_the_arguments() {
    let mut header = InHeader { opcode: abi::UNLINK, unique: 77, ..Default::default() };
    header.total_extlen = 1;
    header.len = 40 + 4 + 8;
    let bytes = [header.as_bytes(), b"abc\0", &[1; 8]].concat();
    assert!(matches!(decode(&bytes, true).unwrap().op, Operation::Unlink { name: b"abc" }));

    header.total_extlen = 2;
    let bytes = [header.as_bytes(), b"abc\0", &[1; 8]].concat();
    assert_eq!(refusal(&bytes), Errno::INVAL);
}

#[test]
fn batch_forget_gives_each_item_and_checks_the_count() {
    let items =
        [abi::ForgetOne { nodeid: 2, nlookup: 1 }, abi::ForgetOne { nodeid: 3, nlookup: 7 }];
    let head = abi::BatchForgetIn { count: 2, dummy: 0 };
    let bytes = request(abi::BATCH_FORGET, &[head.as_bytes(), items.as_bytes()]);
    let op = decode(&bytes, true).unwrap().op;
    let Operation::BatchForget { items: found } = op else { panic!("{op:?}") };
    assert_eq!(forgets(found).collect::<Vec<_>>(), items);

    let head = abi::BatchForgetIn { count: u32::MAX, dummy: 0 };
    let bytes = request(abi::BATCH_FORGET, &[head.as_bytes(), items.as_bytes()]);
    assert_eq!(refusal(&bytes), Errno::INVAL);
}

#[test]
fn names_are_checked() {
    let long = [&[b'x'; 256][..], b"\0"].concat();
    assert_eq!(refusal(&request(abi::LOOKUP, &[&long])), Errno::NAMETOOLONG);
    assert_eq!(refusal(&request(abi::LOOKUP, &[b"no end"])), Errno::INVAL);
    assert_eq!(refusal(&request(abi::LOOKUP, &[b"\0"])), Errno::INVAL);
    assert_eq!(refusal(&request(abi::LOOKUP, &[b"a/b\0"])), Errno::INVAL);
    assert_eq!(refusal(&request(abi::SYMLINK, &[b"a\0", b"\0"])), Errno::NOENT);
    let longest = [&[b'x'; 255][..], b"\0"].concat();
    assert!(decode(&request(abi::LOOKUP, &[&longest]), true).is_ok());
}

#[test]
fn write_must_hold_its_data() {
    let arg = abi::WriteIn { size: 5, offset: 3, ..Default::default() };
    let bytes = request(abi::WRITE, &[arg.as_bytes(), b"hello"]);
    assert!(matches!(decode(&bytes, true).unwrap().op, Operation::Write { data: b"hello", .. }));
    assert_eq!(refusal(&request(abi::WRITE, &[arg.as_bytes(), b"hell"])), Errno::INVAL);
    let arg = abi::WriteIn { size: u32::MAX, ..Default::default() };
    assert_eq!(refusal(&request(abi::WRITE, &[arg.as_bytes(), b"hello"])), Errno::INVAL);
}

#[test]
fn every_truncation_is_refused_or_whole() {
    let arg = abi::CreateIn { mode: 0o644, ..Default::default() };
    let whole = request(abi::CREATE, &[arg.as_bytes(), b"file\0"]);
    for len in 0..whole.len() {
        let mut cut = whole[..len].to_vec();
        assert!(matches!(decode(&cut, true), Err(Malformed::Header { got }) if got == len));
        if len >= 40 {
            cut[..4].copy_from_slice(&u32::try_from(len).unwrap().to_ne_bytes());
            assert_eq!(refusal(&cut), Errno::INVAL);
        }
    }
}

proptest! {
    #[test]
    fn random_arguments_never_panic(
        opcode in 0_u32..64, ext in any::<bool>(), extlen in 0_u16..40,
        body in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut bytes = request(opcode, &[&body]);
        bytes[36..38].copy_from_slice(&extlen.to_ne_bytes());
        match decode(&bytes, ext) {
            Ok(request) => prop_assert_eq!(request.header.opcode, opcode),
            Err(Malformed::Arguments { unique, .. }) => prop_assert_eq!(unique, 77),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(request) = decode(&bytes, true) {
            prop_assert_eq!(request.header.len as usize, bytes.len());
        }
    }
}
