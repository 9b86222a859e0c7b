//! Bodies by digest: what is too large, too private or too erasable for an entry.
//!
//! A *plain* blob is a file named by the SHA-256 of its bytes. A *sealed* blob is encrypted with
//! AES-256-GCM under a key of its own, and named by a commitment, SHA-256 over a random salt and
//! the bytes: whoever has only the entry learns nothing from the name, not even by guessing the
//! bytes. Key and salt stand in the private database; without them the file is noise, and that
//! is how a sealed blob is erased.
//!
//! A put, step by step: the bytes go to a file without the final name and are synced (a restart
//! finds a stray file and removes it); the file gets its name and the directory is synced (a
//! restart finds the blob); for a sealed one the key is stored (before that a restart finds noise
//! under a name that no entry has). Only then the caller has the digest to put into an entry.
//!
//! With PostgreSQL blobs are rows beside their keys, so that every server of a team has them; what
//! follows about names, keys and order is the same.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use portcullis_model::digest::decode_hex;
use portcullis_model::{Digest, Refusal, Secret, Timestamp};

use crate::disk::{create_private_directory, io_refusal, private_file, sync_directory};
use crate::limits::BLOB_MAX_BYTES;
use crate::postgres::Postgres;
use crate::private::{BlobKey, PrivateStore};
use crate::storage::StoreOptions;

/// The blobs of a data directory. Calls go to the disk: make them from a blocking task.
pub struct Blobs {
    plain: PathBuf,
    sealed: PathBuf,
    strays: PathBuf,
    counter: AtomicU64,
    /// Directories of blobs whose own names are durable; at most 256 of each kind.
    durable: Mutex<HashSet<PathBuf>>,
    private: Arc<PrivateStore>,
}

/// First byte of a sealed blob's file: the version of its form, which goes on with the nonce and
/// the ciphertext with its tag.
const SEALED_VERSION: u8 = 1;
const TAG_BYTES: usize = 16;

impl Blobs {
    /// The blobs of a ledger's directory, to read only, whether a server has it open or not.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn open_reader(dir: &Path) -> Result<Self, Refusal> {
        Ok(Self::at(dir, Arc::new(PrivateStore::open_reader(dir)?)))
    }

    /// As [`open_reader`](Self::open_reader), wherever the ledger of `dir` is kept.
    ///
    /// # Errors
    /// As [`open_reader`](Self::open_reader), or PostgreSQL can't be reached.
    pub fn open_reader_in(dir: &Path, store: &StoreOptions) -> Result<Self, Refusal> {
        match store {
            StoreOptions::Sqlite => Self::open_reader(dir),
            StoreOptions::Postgres(place) => {
                let pool = Arc::clone(Postgres::open_reader(place)?.pool());
                Ok(Self::at(dir, Arc::new(PrivateStore::in_postgres(pool))))
            }
        }
    }

    /// Opens the blobs of `dir` for writing, and removes what unfinished puts left behind.
    pub(crate) fn open(dir: &Path, private: Arc<PrivateStore>) -> Result<Self, Refusal> {
        let blobs = Self::at(dir, private);
        if blobs.private.shared().is_some() {
            return Ok(blobs);
        }
        blobs
            .prepare()
            .map_err(|error| io_refusal("prepare the directory of blobs", &error))?;
        Ok(blobs)
    }

    /// The blobs of `dir`, for reading alone.
    pub(crate) fn at(dir: &Path, private: Arc<PrivateStore>) -> Self {
        Self {
            plain: dir.join("blobs").join("plain"),
            sealed: dir.join("blobs").join("sealed"),
            strays: dir.join("blobs").join("unfinished"),
            counter: AtomicU64::new(0),
            durable: Mutex::default(),
            private,
        }
    }

    /// Stores `bytes` under their digest, durably. A second put of the same bytes does nothing.
    ///
    /// # Errors
    /// Larger than [`BLOB_MAX_BYTES`], or the disk can't be written (`disk-full`,
    /// `disk-read-only`, `storage-failed`); then there is no such blob.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, Refusal> {
        check_length(bytes.len())?;
        let digest = Digest::of(bytes);
        let erased = self.private.erased_at(&digest)?.is_some();
        if !erased
            && self
                .file(&self.plain, &digest)
                .is_ok_and(|found| found == bytes)
        {
            if self.private.shared().is_none() {
                // Another put may have given it its name a moment ago, and not have synced that
                // yet.
                self.sync_name(&self.plain, &place(&self.plain, &digest))
                    .map_err(|error| io_refusal("store a blob", &error))?;
            }
            return Ok(digest);
        }
        self.write(&self.plain, &digest, bytes)?;
        if erased {
            self.private.clear_erasure(&digest)?;
        }
        Ok(digest)
    }

    /// Stores `bytes` encrypted, durably, and gives the commitment that names them. Putting the
    /// same bytes again makes another blob.
    ///
    /// # Errors
    /// As [`put`](Self::put), or the system has no randomness.
    pub fn put_sealed(&self, bytes: &[u8]) -> Result<Digest, Refusal> {
        check_length(bytes.len())?;
        let key = BlobKey {
            key: Secret::new(random()?),
            salt: Secret::new(random()?),
        };
        let digest = commitment(&key, bytes);
        let file = seal(&key, &digest, bytes)?;
        self.write(&self.sealed, &digest, &file)?;
        self.private.set_blob_key(&digest, &key)?;
        Ok(digest)
    }

    /// The bytes of a blob, plain or sealed, checked against `digest`.
    ///
    /// # Errors
    /// `blob-erased`, `blob-missing`, `blob-altered`, or the disk can't be read.
    pub fn get(&self, digest: &Digest) -> Result<Vec<u8>, Refusal> {
        if let Some(at) = self.private.erased_at(digest)? {
            return Err(Refusal::new(
                portcullis_model::RefusalKind::NotFound,
                "blob-erased",
                format!("the blob {digest} was erased at {at}"),
            ));
        }
        match self.private.blob_key(digest)? {
            Some(key) => unseal(&key, digest, self.file(&self.sealed, digest)?),
            None => {
                let bytes = self.file(&self.plain, digest)?;
                if Digest::of(&bytes) == *digest {
                    Ok(bytes)
                } else {
                    Err(altered(digest))
                }
            }
        }
    }

    /// Erases a blob: its key first, then its file. Record the erasure as an event too.
    ///
    /// # Errors
    /// The disk can't be written. If only the file could not be removed, a sealed blob is
    /// unreadable all the same, and the next call removes it.
    pub fn erase(&self, digest: &Digest, at: Timestamp) -> Result<(), Refusal> {
        self.private.erase_blob(digest, at)?;
        if self.private.shared().is_some() {
            return Ok(());
        }
        for root in [&self.plain, &self.sealed] {
            match std::fs::remove_file(place(root, digest)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io_refusal("remove an erased blob", &error)),
            }
        }
        Ok(())
    }

    /// Calls `found` for every blob that is altered or missing, and gives the number of blobs
    /// read.
    pub(crate) fn verify(&self, mut found: impl FnMut(Refusal)) -> Result<u64, Refusal> {
        let mut count = 0;
        let plain = self.plain_digests()?;
        let sealed = self.private.sealed_blobs()?;
        for digest in plain.iter().chain(&sealed) {
            count += 1;
            match self.get(digest) {
                Ok(_) => {}
                Err(refusal) if refusal.code == "blob-erased" => {}
                Err(refusal) => found(refusal),
            }
        }
        Ok(count)
    }

    fn plain_digests(&self) -> Result<Vec<Digest>, Refusal> {
        match self.private.shared() {
            Some(pool) => pool.plain_blobs(),
            None => digests(&self.plain)
                .map_err(|error| io_refusal("list the directory of blobs", &error)),
        }
    }

    /// Copies every blob to a file below `to`; `private` is that of the copy.
    pub(crate) fn copy_to(&self, to: &Path, private: Arc<PrivateStore>) -> Result<(), Refusal> {
        let copy = Self::open(to, private)?;
        if self.private.shared().is_none() {
            return self
                .copy_files(&copy)
                .map_err(|error| io_refusal("copy the blobs", &error));
        }
        for (from, to, names) in [
            (&self.plain, &copy.plain, self.plain_digests()?),
            (&self.sealed, &copy.sealed, self.private.sealed_blobs()?),
        ] {
            for digest in names {
                match self.file(from, &digest) {
                    Ok(bytes) => copy.write(to, &digest, &bytes)?,
                    // Erased while the copy was made.
                    Err(refusal) if refusal.code == "blob-missing" => {}
                    Err(refusal) => return Err(refusal),
                }
            }
        }
        Ok(())
    }

    fn copy_files(&self, copy: &Self) -> io::Result<()> {
        for (from, to) in [(&self.plain, &copy.plain), (&self.sealed, &copy.sealed)] {
            for digest in digests(from)? {
                let target = place(to, &digest);
                if let Some(parent) = target.parent() {
                    create_private_directory(parent)?;
                }
                match std::fs::copy(place(from, &digest), &target) {
                    Ok(_) => std::fs::File::open(&target)?.sync_all()?,
                    // Erased while the copy was made.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn prepare(&self) -> io::Result<()> {
        for dir in [&self.plain, &self.sealed, &self.strays] {
            create_private_directory(dir)?;
        }
        // From the names of these up to that of `blobs`.
        for parent in self.plain.ancestors().skip(1).take(2) {
            sync_directory(parent)?;
        }
        for stray in std::fs::read_dir(&self.strays)? {
            std::fs::remove_file(stray?.path())?;
        }
        Ok(())
    }

    fn write(&self, root: &Path, digest: &Digest, bytes: &[u8]) -> Result<(), Refusal> {
        if let Some(pool) = self.private.shared() {
            return pool.put_blob(digest, root == self.sealed, bytes);
        }
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let stray = self.strays.join(number.to_string());
        let target = place(root, digest);
        let write = || -> io::Result<()> {
            let mut file = private_file().create_new(true).open(&stray)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            create_private_directory(target.parent().unwrap_or(root))?;
            std::fs::rename(&stray, &target)?;
            self.sync_name(root, &target)
        };
        write().map_err(|error| {
            if let Err(error) = std::fs::remove_file(&stray) {
                tracing::debug!(%error, "an unfinished blob stays until the next start");
            }
            io_refusal("store a blob", &error)
        })
    }

    /// Makes the name of a blob durable, and that of the directory it stands in. Who made that
    /// directory says nothing: it may have been another put, which has not synced it yet.
    fn sync_name(&self, root: &Path, target: &Path) -> io::Result<()> {
        let parent = target.parent().unwrap_or(root);
        sync_directory(parent)?;
        let known = |durable: &HashSet<PathBuf>| durable.contains(parent);
        if known(&self.durable.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(());
        }
        sync_directory(root)?;
        self.durable
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(parent.to_owned());
        Ok(())
    }

    fn file(&self, root: &Path, digest: &Digest) -> Result<Vec<u8>, Refusal> {
        if let Some(pool) = self.private.shared() {
            return pool
                .blob(digest, root == self.sealed)?
                .ok_or_else(|| missing(digest));
        }
        read_bounded(&place(root, digest)).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                missing(digest)
            } else {
                io_refusal("read a blob", &error)
            }
        })
    }
}

fn missing(digest: &Digest) -> Refusal {
    Refusal::new(
        portcullis_model::RefusalKind::NotFound,
        "blob-missing",
        format!("there is no blob {digest}"),
    )
}

fn check_length(length: usize) -> Result<(), Refusal> {
    if length <= BLOB_MAX_BYTES {
        return Ok(());
    }
    Err(
        Refusal::limit("blob-too-large", format!("a blob of {length} bytes"))
            .expected(&format!("at most {BLOB_MAX_BYTES} bytes")),
    )
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let most = (BLOB_MAX_BYTES + 1 + NONCE_LEN + TAG_BYTES) as u64;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(most.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other("the file is larger than any blob"));
    }
    Ok(bytes)
}

/// The file of a blob: two hex digits as a directory, so that no directory gets too many files.
fn place(root: &Path, digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    let prefix = hex.get(..2).unwrap_or_default();
    root.join(prefix).join(&hex)
}

/// The digests of all files below `root`, in order.
fn digests(root: &Path) -> io::Result<Vec<Digest>> {
    let mut found = Vec::new();
    let prefixes = match std::fs::read_dir(root) {
        Ok(prefixes) => prefixes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    for prefix in prefixes {
        for file in std::fs::read_dir(prefix?.path())? {
            let name = file?.file_name();
            let digest = decode_hex(&name.to_string_lossy())
                .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
                .map(Digest::from_bytes);
            found.extend(digest);
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn commitment(key: &BlobKey, bytes: &[u8]) -> Digest {
    Digest::of_parts(&[b"portcullis sealed blob v1\0", key.salt.expose(), bytes])
}

fn seal(key: &BlobKey, digest: &Digest, bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
    let rejected = |_| Refusal::internal("a blob could not be encrypted");
    let nonce: [u8; NONCE_LEN] = random()?;
    let mut body = Vec::with_capacity(bytes.len() + TAG_BYTES);
    body.extend_from_slice(bytes);
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.key.expose()).map_err(rejected)?)
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(digest.as_bytes()),
            &mut body,
        )
        .map_err(rejected)?;
    let mut file = Vec::with_capacity(1 + NONCE_LEN + body.len());
    file.push(SEALED_VERSION);
    file.extend_from_slice(&nonce);
    file.append(&mut body);
    Ok(file)
}

fn unseal(key: &BlobKey, digest: &Digest, file: Vec<u8>) -> Result<Vec<u8>, Refusal> {
    let open = || -> Option<Vec<u8>> {
        let (version, rest) = file.split_first()?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>()?;
        if *version != SEALED_VERSION {
            return None;
        }
        let mut body = body.to_vec();
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.key.expose()).ok()?);
        let length = cipher
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(digest.as_bytes()),
                &mut body,
            )
            .ok()?
            .len();
        body.truncate(length);
        (commitment(key, &body) == *digest).then_some(body)
    };
    open().ok_or_else(|| altered(digest))
}

fn altered(digest: &Digest) -> Refusal {
    Refusal::conflict(
        "blob-altered",
        format!("the stored bytes of the blob {digest} are not what it names"),
    )
    .next("restore the file from a backup")
}

fn random<const N: usize>() -> Result<[u8; N], Refusal> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Refusal::unavailable("no-randomness", "the system gives no random numbers"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
