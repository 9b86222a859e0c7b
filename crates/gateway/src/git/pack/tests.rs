use std::io::Write as _;

use proptest::prelude::*;

use super::*;

fn zlib(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn entry(kind: u8, size: usize, middle: &[u8], content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut left = size >> 4;
    let first = (kind << 4) | (size & 15) as u8;
    out.push(if left > 0 { first | 0x80 } else { first });
    while left > 0 {
        let byte = (left & 127) as u8;
        left >>= 7;
        out.push(if left > 0 { byte | 0x80 } else { byte });
    }
    out.extend_from_slice(middle);
    out.extend(zlib(content));
    out
}

fn pack(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut out = b"PACK\0\0\0\x02".to_vec();
    out.extend((entries.len() as u32).to_be_bytes());
    out.extend(entries.concat());
    out.extend([7; 20]);
    out
}

fn scan(bytes: &[u8], step: usize, limits: PackLimits) -> Result<PackSummary, Refusal> {
    let mut scanner = PackScanner::new(ObjectFormat::Sha1, limits);
    for piece in bytes.chunks(step) {
        scanner.feed(piece)?;
    }
    scanner.finish()
}

fn limits() -> PackLimits {
    PackLimits {
        blob_bytes: 100_000,
        inflated_bytes: 150_000,
        objects: 10,
        pack_bytes: 50_000,
        ..PackLimits::default()
    }
}

#[test]
fn a_pack_is_read_whatever_the_pieces() {
    let big = vec![7; 70_000];
    let mut delta = vec![1, 0x90, 0x4e];
    delta.extend([0; 5]);
    let bytes = pack(&[
        entry(3, 5, b"", b"hello"),
        entry(3, big.len(), b"", &big),
        entry(6, delta.len(), &[0x81, 5], &delta),
        entry(7, delta.len(), &[9; 20], &delta),
    ]);
    for step in [1, 2, 7, 1_000, 1 << 20] {
        let summary = scan(&bytes, step, limits()).unwrap();
        assert_eq!(summary.objects, 4);
        assert_eq!(summary.largest_bytes, 70_000);
        assert_eq!(summary.inflated_bytes, 5 + 70_000 + 2 * 10_000);
    }
}

#[test]
fn each_limit_is_named() {
    let code = |bytes: &[u8], limits| scan(bytes, 4_096, limits).unwrap_err().code;
    let bomb = vec![0; 5_000_000];
    // What announces its size honestly, and what lies about it.
    assert_eq!(
        code(&pack(&[entry(3, bomb.len(), b"", &bomb)]), limits()),
        "object-too-large"
    );
    assert_eq!(
        code(&pack(&[entry(3, 100, b"", &bomb)]), limits()),
        "malformed-pack"
    );
    let half = vec![0; 90_000];
    let two = pack(&[
        entry(3, half.len(), b"", &half),
        entry(3, half.len(), b"", &half),
    ]);
    assert_eq!(code(&two, limits()), "pack-inflates-too-large");
    // A delta of a few bytes that makes an object of gigabytes.
    let delta = [1, 0xff, 0xff, 0xff, 0xff, 0x0f];
    assert_eq!(
        code(&pack(&[entry(7, delta.len(), &[9; 20], &delta)]), limits()),
        "object-too-large"
    );
    assert_eq!(
        code(&pack(&vec![entry(3, 1, b"", b"a"); 11]), limits()),
        "pack-too-many-objects"
    );
    let small = PackLimits {
        pack_bytes: 20,
        ..limits()
    };
    assert_eq!(
        code(&pack(&[entry(3, 1, b"", b"a")]), small),
        "pack-too-large"
    );
}

#[test]
fn a_pack_that_is_cut_or_goes_on_is_refused() {
    let bytes = pack(&[entry(3, 5, b"", b"hello"), entry(1, 3, b"", b"abc")]);
    for cut in 0..bytes.len() {
        assert!(scan(&bytes[..cut], 16, limits()).is_err(), "{cut}");
    }
    let longer = [&bytes[..], b"x"].concat();
    assert!(scan(&longer, 16, limits()).is_err());
    assert!(scan(b"PACK\0\0\0\x04\0\0\0\0", 16, limits()).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_the_scanner_panic(
        tail in proptest::collection::vec(any::<u8>(), 0..200),
        step in 1_usize..50,
    ) {
        let mut bytes = b"PACK\0\0\0\x02\0\0\0\x03".to_vec();
        bytes.extend(&tail);
        let _ = scan(&bytes, step, limits());
        let _ = scan(&tail, step, limits());
    }
}
