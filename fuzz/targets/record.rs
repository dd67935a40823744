//! A record of any payload is a value or an error, and a value that is written again comes back.
#![no_main]

use laminafs::catalog::image::Image;
use laminafs::format::codec;
use libfuzzer_sys::fuzz_target;

/// Of the head of a record: what it is and its version.
const BEGIN: &[u8] = b"LMNREC1\0\x01\0";
const HEAD_LEN: usize = 46;

fuzz_target!(|data: &[u8]| {
    // As it is, and with a head that is right for what stands behind one.
    let _ = codec::decode::<Image>(1, data);
    let payload = data.get(HEAD_LEN..).unwrap_or(data);
    let mut bytes = BEGIN.to_vec();
    bytes.extend((payload.len() as u32).to_le_bytes());
    bytes.extend(blake3::hash(payload).as_bytes());
    bytes.extend(payload);
    if let Ok(image) = codec::decode::<Image>(1, &bytes) {
        let again = codec::encode(1, &image).expect("what was read can be written");
        assert_eq!(codec::decode::<Image>(1, &again).expect("and read again"), image);
    }
});
