use super::*;
use crate::checkpoint::Checkpoint;
use crate::merkle::{MemoryTree, consistency_proof, leaf_hash};
use crate::note::VerifierKey;
use portcullis_model::{Digest, Secret};

fn signer(seed: u8) -> Signer {
    Signer::from_seed(&Secret::new([seed; 32])).unwrap()
}

fn witness(seed: u8, name: &str) -> WitnessKey {
    WitnessKey::new(name.parse().unwrap(), *signer(seed).public_bytes())
}

fn log_key() -> VerifierKey {
    VerifierKey::new(
        "example.com/log".parse().unwrap(),
        *signer(1).public_bytes(),
    )
}

fn tree(size: u64) -> MemoryTree {
    let mut tree = MemoryTree::default();
    for at in 0..size {
        tree.append(leaf_hash(&at.to_be_bytes())).unwrap();
    }
    tree
}

fn checkpoint(size: u64) -> UnverifiedCheckpoint {
    let name = "example.com/log".parse().unwrap();
    Checkpoint::new(name, size, tree(size).root())
        .sign(&signer(1))
        .unwrap()
}

fn request(old: u64, new: u64) -> AddCheckpoint {
    AddCheckpoint {
        old_size: old,
        proof: consistency_proof(&tree(new), old, new).unwrap(),
        checkpoint: checkpoint(new),
    }
}

/// The specification's own example, with its key recovered from nothing: only its form is checked.
#[test]
fn the_specifications_example_is_read() {
    let text = "old 20852014\n\
        PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n\
        jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n\
        5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n\
        /6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n\
        \n\
        example.com/behind-the-sofa\n\
        20852163\n\
        CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\
        \n\
        — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";
    let read = AddCheckpoint::parse(text.as_bytes()).unwrap();
    assert_eq!((read.old_size, read.proof.len()), (20_852_014, 4));
    assert_eq!(read.checkpoint.claim().size, 20_852_163);
    assert_eq!(read.to_string(), text);
    let answer = "— witness.example/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";
    let read = parse_cosignatures(answer.as_bytes()).unwrap();
    assert_eq!(write_cosignatures(&read), answer);
    assert_eq!(read[0].bytes.len(), 72);
}

#[test]
fn a_cosignature_holds_for_one_witness_text_and_time() {
    let mut signed = checkpoint(7);
    let (name, key) = ("w.example/1".parse().unwrap(), witness(2, "w.example/1"));
    let text = signed.note().claimed_text().to_owned();
    let line = cosign(&name, &signer(2), &text, 1_700_000_000).unwrap();
    assert_eq!(key.verify(&text, &line).unwrap().time_s, 1_700_000_000);
    assert!(witness(3, "w.example/1").verify(&text, &line).is_err());
    assert!(witness(2, "w.example/2").verify(&text, &line).is_err());
    assert!(
        key.verify(checkpoint(8).note().claimed_text(), &line)
            .is_err()
    );
    for at in 0..line.bytes.len() {
        let mut bad = line.clone();
        bad.bytes[at] ^= 1;
        assert!(key.verify(&text, &bad).is_err(), "{at}");
    }
    let mut short = line.clone();
    short.bytes.pop();
    assert!(key.verify(&text, &short).is_err());
    // A plain signature of the note, by the same key, is no cosignature.
    let mut plain = signed.clone();
    let note = VerifierKey::new(name.clone(), *signer(2).public_bytes());
    assert_ne!(note.to_string(), key.to_string());
    plain
        .add_signature(NoteSignature {
            name,
            key_id: note.id(),
            bytes: signer(2).sign(text.as_bytes()).unwrap().to_vec(),
        })
        .unwrap();
    assert!(
        cosigners(&plain, std::slice::from_ref(&key))
            .unwrap()
            .is_empty()
    );
    signed.add_signature(line.clone()).unwrap();
    assert_eq!(
        cosigners(&signed, std::slice::from_ref(&key))
            .unwrap()
            .len(),
        1
    );
    signed.verify(&log_key()).unwrap();
    signed.add_signature(line).unwrap();
    assert!(cosigners(&signed, &[key]).is_err(), "twice");
}

#[test]
fn a_quorum_counts_keys_and_not_names() {
    let mut signed = checkpoint(7);
    let text = signed.note().claimed_text().to_owned();
    for (seed, name) in [(2, "w.example/1"), (2, "w.example/2"), (3, "w.example/3")] {
        let line = cosign(&name.parse().unwrap(), &signer(seed), &text, 5).unwrap();
        signed.add_signature(line).unwrap();
    }
    let known = [
        witness(2, "w.example/1"),
        witness(2, "w.example/2"),
        witness(3, "w.example/3"),
        witness(4, "w.example/4"),
    ];
    assert_eq!(require_quorum(&signed, &known, 2).unwrap().len(), 2);
    assert_eq!(
        require_quorum(&signed, &known, 3).unwrap_err().code,
        "witness-quorum"
    );
    assert!(require_quorum(&signed, &[], 1).is_err());
    assert!(require_quorum(&signed, &[], 0).unwrap().is_empty());
    // A known witness's line that was tampered with spoils all.
    let spoilt = signed
        .to_string()
        .replace("— w.example/3 ", "— w.example/4 ");
    let spoilt = UnverifiedCheckpoint::parse(spoilt.as_bytes()).unwrap();
    assert_eq!(cosigners(&spoilt, &known).unwrap().len(), 1, "another id");
}

#[test]
fn a_witness_key_survives_its_text() {
    let key = witness(2, "w.example/1");
    assert_eq!(key.to_string().parse::<WitnessKey>().unwrap(), key);
    let log = log_key().to_string();
    for bad in [
        "",
        "w.example",
        &log,
        &key.to_string().replace("w.example/1", "w.example/2"),
    ] {
        assert!(bad.parse::<WitnessKey>().is_err(), "{bad}");
    }
}

#[test]
fn a_witness_cosigns_what_contains_what_it_saw_and_nothing_else() {
    let key = log_key();
    let known = |size: u64| Some((size, tree(size).root()));
    for (old, new) in [(0, 0), (0, 5), (5, 5), (5, 8), (5, 300)] {
        let seen = known(old).filter(|_| old > 0);
        judge(&request(old, new), Some(&key), seen).unwrap();
    }
    let no = |request: &AddCheckpoint, log: Option<&VerifierKey>, seen: Option<(u64, Digest)>| {
        judge(request, log, seen).unwrap_err()
    };
    let good = request(5, 8);
    assert!(matches!(
        no(&good, None, known(5)),
        WitnessNo::UnknownLog(_)
    ));
    let other = VerifierKey::new("example.com/log".parse().unwrap(), [9; 32]);
    assert_eq!(no(&good, Some(&other), known(5)), WitnessNo::NotSigned);
    let conflict = |known| WitnessNo::Conflict { known };
    assert_eq!(no(&good, Some(&key), known(6)), conflict(6));
    assert_eq!(no(&good, Some(&key), None), conflict(0));
    // A smaller tree than the one that was seen: the log went back.
    assert_eq!(no(&request(5, 8), Some(&key), known(9)), conflict(9));
    let mut larger = request(5, 8);
    larger.old_size = 9;
    assert!(matches!(
        no(&larger, Some(&key), known(9)),
        WitnessNo::Malformed(_)
    ));
    // Another history of the same length, and of a greater one.
    let forked = Some((8, leaf_hash(b"another root")));
    assert_eq!(no(&request(8, 8), Some(&key), forked), conflict(8));
    let mut longer = request(8, 9);
    assert_eq!(no(&longer, Some(&key), forked), WitnessNo::Inconsistent);
    longer.proof.pop();
    assert_eq!(no(&longer, Some(&key), known(8)), WitnessNo::Inconsistent);
    let mut more = request(0, 8);
    more.proof.push(leaf_hash(b"x"));
    assert_eq!(no(&more, Some(&key), None), WitnessNo::Inconsistent);
}

#[test]
fn other_forms_are_refused() {
    let text = request(5, 8).to_string();
    for bad in [
        text.replacen("old 5", "old 05", 1),
        text.replacen("old 5", "old -5", 1),
        text.replacen("old 5", "old  5", 1),
        text.replacen("old 5\n", "", 1),
        text.replacen("\n\n", "\n", 1),
        text.replacen(
            "old 5\n",
            &format!("old 5\n{}", format!("{}=\n", "A".repeat(43)).repeat(64)),
            1,
        ),
        text.replace('\n', "\r\n"),
        text.trim_end().to_owned(),
        String::new(),
    ] {
        assert!(AddCheckpoint::parse(bad.as_bytes()).is_err(), "{bad}");
    }
    for bad in [
        "",
        "\n",
        "x\n",
        "— w AAAA\n",
        "— w AAAAAAAA",
        "— w AAAAAAAA\n\n",
    ] {
        assert!(parse_cosignatures(bad.as_bytes()).is_err(), "{bad:?}");
    }
    assert_eq!(parse_known_size(b"12\n").unwrap(), 12);
    for bad in ["", "12", "012\n", "-1\n", "12\n\n", "1 2\n"] {
        assert!(parse_known_size(bad.as_bytes()).is_err(), "{bad:?}");
    }
}
