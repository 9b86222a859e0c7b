use super::*;

fn open(dir: &Path) -> Blobs {
    Blobs::open(dir, Arc::new(PrivateStore::open(dir).unwrap())).unwrap()
}

fn problems(blobs: &Blobs) -> Vec<String> {
    let mut codes = Vec::new();
    blobs.verify(|refusal| codes.push(refusal.code)).unwrap();
    codes
}

#[test]
fn both_kinds_come_back_and_a_sealed_one_is_not_readable_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let body = b"a body that is long enough to be found".as_slice();
    let plain = blobs.put(body).unwrap();
    assert_eq!(plain, Digest::of(body));
    assert_eq!(blobs.put(body).unwrap(), plain);
    let sealed = blobs.put_sealed(body).unwrap();
    let again = blobs.put_sealed(body).unwrap();
    assert!(sealed != plain && sealed != again);
    drop(blobs);
    let blobs = open(dir.path());
    for digest in [plain, sealed, again] {
        assert_eq!(blobs.get(&digest).unwrap(), body);
    }
    let file = std::fs::read(place(&blobs.sealed, &sealed)).unwrap();
    assert!(!file.windows(6).any(|window| window == &body[..6]));
    assert_eq!(blobs.verify(|refusal| panic!("{refusal}")).unwrap(), 3);
}

#[test]
fn one_bit_anywhere_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let plain = blobs.put(b"plain").unwrap();
    let sealed = blobs.put_sealed(b"sealed").unwrap();
    for path in [place(&blobs.plain, &plain), place(&blobs.sealed, &sealed)] {
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut altered = whole.clone();
            altered[at] ^= 1;
            std::fs::write(&path, altered).unwrap();
            assert_eq!(
                problems(&blobs),
                ["blob-altered"],
                "byte {at} of {}",
                path.display()
            );
        }
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(problems(&blobs), ["blob-altered"]);
        std::fs::write(&path, whole).unwrap();
        assert!(problems(&blobs).is_empty());
    }
    std::fs::remove_file(place(&blobs.sealed, &sealed)).unwrap();
    assert_eq!(problems(&blobs), ["blob-missing"]);
}

#[test]
fn a_sealed_file_under_another_name_does_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let one = blobs.put_sealed(b"one").unwrap();
    let two = blobs.put_sealed(b"two").unwrap();
    std::fs::copy(place(&blobs.sealed, &one), place(&blobs.sealed, &two)).unwrap();
    assert_eq!(blobs.get(&two).unwrap_err().code, "blob-altered");
}

#[test]
fn an_erased_blob_is_gone_and_not_reported_as_lost() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let sealed = blobs.put_sealed(b"sealed").unwrap();
    let plain = blobs.put(b"plain").unwrap();
    let file = place(&blobs.sealed, &sealed);
    let copy = std::fs::read(&file).unwrap();
    for digest in [sealed, plain] {
        blobs.erase(&digest, Timestamp::from_ms(5)).unwrap();
        assert_eq!(blobs.get(&digest).unwrap_err().code, "blob-erased");
    }
    // Whoever kept the file has noise: the key is gone.
    std::fs::write(&file, copy).unwrap();
    assert!(blobs.private.blob_key(&sealed).unwrap().is_none());
    assert_eq!(blobs.get(&sealed).unwrap_err().code, "blob-erased");
    assert!(problems(&blobs).is_empty());
    // A plain body that is needed again may come again.
    blobs.put(b"plain").unwrap();
    assert_eq!(blobs.get(&plain).unwrap(), b"plain");
}

#[test]
fn what_an_unfinished_put_left_is_removed_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let stray = blobs.strays.join("0");
    std::fs::write(&stray, b"half").unwrap();
    drop(blobs);
    let blobs = open(dir.path());
    assert!(!stray.exists());
    blobs.put(b"x").unwrap();
    assert_eq!(
        blobs.get(&Digest::of(b"y")).unwrap_err().code,
        "blob-missing"
    );
}
