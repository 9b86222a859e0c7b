use super::*;

#[test]
fn a_note_is_read_as_it_was_written_and_in_no_other_spelling() {
    let claim = Claim {
        size: 12,
        root: Digest::of(b"root"),
        state: Digest::of(b"state"),
    };
    let text = claim.text("portcullis.example/test", "toy 1");
    let origin = "portcullis.example/test";
    assert_eq!(read_claim(&text, origin, "toy 1").unwrap(), claim);
    let others = [
        text.replace("\n12\n", "\n012\n"),
        text.replace("\n12\n", "\n+12\n"),
        text.replace("v1", "v2"),
        text.replace(origin, "portcullis.example/other"),
        format!("{text}\n"),
        text.trim_end().to_owned(),
    ];
    for other in others {
        assert!(read_claim(&other, origin, "toy 1").is_err(), "{other}");
    }
    for end in 0..text.len() {
        assert!(read_claim(&text[..end], origin, "toy 1").is_err());
    }
    let refusal = read_claim(&text, origin, "toy 2").unwrap_err();
    assert!(refusal.message.contains("another version"), "{refusal}");
    // It never passes for a checkpoint, whoever signed it.
    let checkpoint = portcullis_evidence::checkpoint::UnverifiedCheckpoint::parse(
        format!(
            "{text}\n\u{2014} portcullis.example/test {}\n",
            "A".repeat(92)
        )
        .as_bytes(),
    );
    assert!(checkpoint.is_err());
}

#[test]
fn a_file_cut_off_anywhere_has_no_note_or_no_state() {
    let mut file = MAGIC.to_vec();
    file.extend_from_slice(&4_u32.to_be_bytes());
    file.extend_from_slice(b"notestate");
    assert_eq!(split(&file), Some((&b"note"[..], &b"state"[..])));
    for end in 0..MAGIC.len() + 8 {
        assert_eq!(split(&file[..end]), None);
    }
    file[8] = 0xff;
    assert_eq!(split(&file), None);
}
