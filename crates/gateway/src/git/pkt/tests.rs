use proptest::prelude::*;

use super::*;

#[test]
fn marks_and_payloads_are_told_apart() {
    assert_eq!(decode(b"0000").unwrap().unwrap(), (Packet::Flush, 4));
    assert_eq!(decode(b"0001").unwrap().unwrap(), (Packet::Delimiter, 4));
    assert_eq!(decode(b"0002").unwrap().unwrap(), (Packet::ResponseEnd, 4));
    assert_eq!(
        decode(b"0004").unwrap().unwrap(),
        (Packet::Data(Vec::new()), 4)
    );
    let (packet, used) = decode(b"0006a\nrest").unwrap().unwrap();
    assert_eq!((packet.line().unwrap(), used), (&b"a"[..], 6));
    for short in [&b""[..], b"000", b"0006a"] {
        assert_eq!(decode(short).unwrap(), None);
    }
}

#[test]
fn lengths_that_mean_nothing_are_refused() {
    for text in ["0003", "fff1", "ffff", "+004", "0x04", "zzzz", "    "] {
        assert!(decode(text.as_bytes()).is_err(), "{text}");
    }
    // The largest that is allowed.
    assert_eq!(decode(b"fff0").unwrap(), None);
}

#[test]
fn a_stream_may_end_between_packets_only() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut whole = &b"0005a0000"[..];
        assert_eq!(
            read(&mut whole).await.unwrap(),
            Some(Packet::Data(b"a".to_vec()))
        );
        assert_eq!(read(&mut whole).await.unwrap(), Some(Packet::Flush));
        assert_eq!(read(&mut whole).await.unwrap(), None);
        for cut in [&b"00"[..], b"0009a"] {
            assert!(read(&mut &*cut).await.is_err());
        }
    });
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(payload in proptest::collection::vec(any::<u8>(), 1..200_000)) {
        let mut bytes = Vec::new();
        encode(&payload, &mut bytes);
        encode_band(Band::Progress, &payload, &mut bytes);
        flush(&mut bytes);
        let (mut plain, mut band, mut rest) = (Vec::new(), Vec::new(), &bytes[..]);
        while let Some((packet, used)) = decode(rest).unwrap() {
            rest = &rest[used..];
            match packet {
                Packet::Data(data) if plain.len() < payload.len() => plain.extend(data),
                Packet::Data(data) => {
                    prop_assert_eq!(data[0], 2);
                    band.extend_from_slice(&data[1..]);
                }
                Packet::Flush => break,
                Packet::Delimiter | Packet::ResponseEnd => prop_assert!(false),
            }
        }
        prop_assert_eq!(&plain, &payload);
        prop_assert_eq!(&band, &payload);
    }

    #[test]
    fn no_bytes_make_the_reader_panic_or_take_more_than_there_is(
        bytes in proptest::collection::vec(any::<u8>(), 0..300)
    ) {
        if let Ok(Some((_, used))) = decode(&bytes) {
            prop_assert!(used <= bytes.len() && used >= 4);
        }
    }
}
