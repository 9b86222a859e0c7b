use proptest::prelude::*;

use super::*;

const A: &str = "1111111111111111111111111111111111111111";
const Z: &str = "0000000000000000000000000000000000000000";

fn feed(packets: &[Packet]) -> Result<Option<PushHeader>, Refusal> {
    let mut parser = PushParser::new(ObjectFormat::Sha1);
    let mut last = None;
    for packet in packets {
        last = parser.feed(packet)?;
    }
    Ok(last)
}

fn data(text: impl AsRef<str>) -> Packet {
    Packet::Data(text.as_ref().as_bytes().to_vec())
}

#[test]
fn commands_capabilities_and_options_are_read() {
    let header = feed(&[
        data(format!("shallow {A}")),
        data(format!("{Z} {A} refs/for/main\0 report-status-v2 side-band-64k atomic push-options object-format=sha1 agent=git/2.47\n")),
        data(format!("{A} {Z} refs/heads/old")),
        Packet::Flush,
        data("dry-run"),
        data("topic=a=b\n"),
        Packet::Flush,
    ])
    .unwrap()
    .unwrap();
    assert_eq!(header.commands.len(), 2);
    assert_eq!(header.commands[0].name, "refs/for/main");
    assert!(header.commands[0].old.is_zero() && header.commands[1].new.is_zero());
    assert!(header.capabilities.atomic && header.capabilities.side_band);
    assert_eq!(header.capabilities.report, ReportFormat::V2);
    assert!(header.is_question() && header.has_pack());
    assert_eq!(header.option("topic"), Some("a=b"));
    assert_eq!(header.shallow.len(), 1);
}

#[test]
fn the_probe_of_a_big_push_is_told_apart() {
    assert!(feed(&[Packet::Flush]).unwrap().unwrap().is_probe());
}

fn certificate(body: &str) -> Vec<Packet> {
    let mut packets = vec![data("push-cert\0report-status push-options\n")];
    packets.extend(body.split_inclusive('\n').map(data));
    packets.push(data("push-cert-end\n"));
    packets.push(Packet::Flush);
    packets
}

#[test]
fn a_certificate_gives_the_commands_and_its_exact_payload() {
    let payload = format!(
        "certificate version 0.1\npusher SHA256:abc <a@b> 1700000000 +0000\npushee http://h/r\nnonce n-1\npush-option o\n\n{Z} {A} refs/for/main\n"
    );
    let body =
        format!("{payload}-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n");
    let mut packets = certificate(&body);
    packets.extend([data("o"), Packet::Flush]);
    let header = feed(&packets).unwrap().unwrap();
    let found = header.certificate.unwrap();
    assert_eq!(found.payload, payload.as_bytes());
    assert!(
        found
            .signature
            .starts_with("-----BEGIN SSH SIGNATURE-----\n")
    );
    assert_eq!(found.nonce.as_deref(), Some("n-1"));
    assert_eq!(found.commands, header.commands);
    // Options beside the signature must be those within it.
    let mut other = certificate(&body);
    other.extend([data("p"), Packet::Flush]);
    assert!(feed(&other).is_err());
}

#[test]
fn commands_outside_a_certificate_are_not_smuggled_in() {
    let body = format!(
        "certificate version 0.1\npusher a <a@b> 1 +0000\n\n{Z} {A} refs/for/main\n-----BEGIN X-----\n"
    );
    let mut packets = certificate(&body);
    packets.insert(packets.len() - 1, data(format!("{Z} {A} refs/heads/main")));
    // It is read as a further command; the certificate then no longer covers the push.
    let mut parser = PushParser::new(ObjectFormat::Sha1);
    let result: Result<Vec<_>, _> = packets.iter().map(|p| parser.feed(p)).collect();
    assert!(
        result.is_err(),
        "a command after the certificate must be refused"
    );
}

#[test]
fn what_is_no_push_is_refused() {
    let caps = "\0report-status";
    for packets in [
        vec![data("")],
        vec![data(format!("{A} {A}{caps}"))],
        vec![data(format!("{Z} {Z} refs/heads/a{caps}"))],
        vec![data(format!("{Z} {A} {caps}"))],
        vec![data(format!("{Z} {A} refs/heads/\u{1b}[2J{caps}"))],
        vec![data(format!("{Z} {} refs/heads/a{caps}", "A".repeat(40)))],
        vec![data(format!(
            "{} {} refs/heads/a{caps}",
            "0".repeat(64),
            "1".repeat(64)
        ))],
        vec![data(format!("{Z} {A} refs/heads/a\0object-format=sha256"))],
        vec![
            data(format!("{Z} {A} refs/heads/a{caps}")),
            data(format!("{Z} {A} refs/heads/a")),
        ],
        vec![Packet::Delimiter],
        vec![data("push-cert\0"), Packet::Flush],
        vec![Packet::Flush, Packet::Flush],
        vec![Packet::Data(vec![0xff, 0xfe])],
    ] {
        assert!(feed(&packets).is_err(), "{packets:?}");
    }
    let many: Vec<_> = (0..=COMMANDS_MAX)
        .map(|n| data(format!("{Z} {A} refs/heads/b{n}{caps}")))
        .collect();
    assert_eq!(feed(&many).unwrap_err().code, "push-too-large");
}

proptest! {
    #[test]
    fn no_packets_make_the_parser_panic(
        pieces in proptest::collection::vec(
            prop_oneof![
                Just(Packet::Flush),
                Just(Packet::Delimiter),
                Just(data(format!("{Z} {A} refs/heads/a\0 push-options"))),
                Just(data("push-cert\0push-options")),
                Just(data("push-cert-end")),
                Just(data("certificate version 0.1\n")),
                proptest::collection::vec(any::<u8>(), 0..120).prop_map(Packet::Data),
            ],
            0..12,
        )
    ) {
        let _ = feed(&pieces);
    }
}
