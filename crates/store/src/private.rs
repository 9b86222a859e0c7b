//! What is not in the ledger and not a fold of it: the named exceptions.
//!
//! A second database, apart from the ledger so that things can be erased from it for good:
//! - `people`: the name and mail address behind a human id. Entries hold the id alone, so that a
//!   person can be forgotten and the tree stays whole;
//! - `blob_keys`: the keys of sealed blobs; without its key a sealed blob is noise;
//! - `erasures`: which blobs were erased, so that they are not reported as lost;
//! - `local`: small values of this machine that nothing follows from, such as caches.
//!
//! Erasing overwrites the bytes (`secure_delete`) and cuts the write-ahead log back, so that no
//! copy stays in the data directory. Backups made before keep theirs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_model::{Digest, HumanId, Refusal, Secret, Timestamp};
use rusqlite::{Connection, OptionalExtension};

use crate::database::{open_writer, sql_integer, unsigned};
use crate::disk::sqlite_refusal;
use crate::limits::{LOCAL_KEY_MAX_BYTES, LOCAL_VALUE_MAX_BYTES, PERSON_FIELD_MAX_BYTES};
use crate::postgres::{Pool, Postgres};
use crate::storage::StoreOptions;

/// The erasable database of a data directory. Calls go to the disk: make them from a blocking
/// task.
pub struct PrivateStore(Place);

/// Where it is.
enum Place {
    /// `private.db` in the data directory.
    Sqlite(Mutex<Connection>),
    /// The ledger's database, shared by every server of a team.
    Postgres(Arc<Pool>),
}

/// Who a human id stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The name to show, at most [`PERSON_FIELD_MAX_BYTES`].
    pub name: String,
    /// The mail address, if it is known, at most [`PERSON_FIELD_MAX_BYTES`].
    pub mail: Option<String>,
}

/// The key and salt of a sealed blob.
#[derive(Clone, Debug)]
pub(crate) struct BlobKey {
    pub(crate) key: Secret<[u8; 32]>,
    pub(crate) salt: Secret<[u8; 32]>,
}

/// "PtcP".
const APPLICATION_ID: i64 = 0x5074_6350;
const SCHEMA_VERSION: i64 = 1;
const SCHEMA: &str = "
    CREATE TABLE people (id TEXT PRIMARY KEY, name TEXT NOT NULL, mail TEXT) STRICT;
    CREATE TABLE blob_keys (digest BLOB PRIMARY KEY, key BLOB NOT NULL, salt BLOB NOT NULL) STRICT;
    CREATE TABLE erasures (digest BLOB PRIMARY KEY, at_ms INTEGER NOT NULL) STRICT;
    CREATE TABLE local (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
";

pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join("private.db")
}

impl PrivateStore {
    pub(crate) fn open(dir: &Path) -> Result<Self, Refusal> {
        let connection = open_writer(&path(dir), APPLICATION_ID, SCHEMA_VERSION, SCHEMA)?;
        Ok(Self(Place::Sqlite(Mutex::new(connection))))
    }

    /// Opens what is there, for reading alone.
    pub(crate) fn open_reader(dir: &Path) -> Result<Self, Refusal> {
        let connection = crate::database::open_reader(&path(dir))?;
        Ok(Self(Place::Sqlite(Mutex::new(connection))))
    }

    /// What a ledger's directory has beside its log, to read only, wherever that is kept.
    ///
    /// # Errors
    /// It can't be read, or PostgreSQL can't be reached.
    pub fn open_reader_in(dir: &Path, store: &StoreOptions) -> Result<Self, Refusal> {
        match store {
            StoreOptions::Sqlite => Self::open_reader(dir),
            StoreOptions::Postgres(place) => Ok(Self::in_postgres(Arc::clone(
                Postgres::open_reader(place)?.pool(),
            ))),
        }
    }

    /// What a team's servers share.
    pub(crate) const fn in_postgres(pool: Arc<Pool>) -> Self {
        Self(Place::Postgres(pool))
    }

    /// The database that every server of a team has, if there is one.
    pub(crate) const fn shared(&self) -> Option<&Arc<Pool>> {
        match &self.0 {
            Place::Sqlite(_) => None,
            Place::Postgres(pool) => Some(pool),
        }
    }

    /// Says who `id` stands for; durable before the entry that first names the id.
    ///
    /// # Errors
    /// A field is too long, or the disk can't be written.
    pub fn set_person(&self, id: &HumanId, person: &Person) -> Result<(), Refusal> {
        let mail = person.mail.as_deref().unwrap_or_default();
        for (field, text) in [("name", person.name.as_str()), ("mail address", mail)] {
            if text.len() > PERSON_FIELD_MAX_BYTES || text.chars().any(char::is_control) {
                return Err(Refusal::malformed(field)
                    .expected(&format!(
                        "one line of at most {PERSON_FIELD_MAX_BYTES} bytes"
                    ))
                    .received(text));
            }
        }
        if let Some(pool) = self.shared() {
            return pool.set_person(id, person);
        }
        self.write("store a person", |connection| {
            connection.execute(
                "INSERT OR REPLACE INTO people (id, name, mail) VALUES (?1, ?2, ?3)",
                (id.as_str(), &person.name, &person.mail),
            )
        })?;
        Ok(())
    }

    /// Who `id` stands for; `None` if it was never said, or was forgotten.
    ///
    /// # Errors
    /// The disk can't be read.
    pub fn person(&self, id: &HumanId) -> Result<Option<Person>, Refusal> {
        if let Some(pool) = self.shared() {
            return pool.person(id);
        }
        self.read("read a person", |connection| {
            connection
                .query_row(
                    "SELECT name, mail FROM people WHERE id = ?1",
                    [id.as_str()],
                    |row| {
                        Ok(Person {
                            name: row.get(0)?,
                            mail: row.get(1)?,
                        })
                    },
                )
                .optional()
        })
    }

    /// Forgets who `id` stands for; `false` if nothing was known. Record the erasure as an event
    /// too.
    ///
    /// # Errors
    /// The disk can't be written.
    pub fn forget_person(&self, id: &HumanId) -> Result<bool, Refusal> {
        if let Some(pool) = self.shared() {
            return pool.forget_person(id);
        }
        let forgotten = self.write("forget a person", |connection| {
            connection.execute("DELETE FROM people WHERE id = ?1", [id.as_str()])
        })?;
        self.scrub()?;
        Ok(forgotten > 0)
    }

    /// A local value.
    ///
    /// # Errors
    /// The disk can't be read.
    pub fn local(&self, key: &str) -> Result<Option<Vec<u8>>, Refusal> {
        if let Some(pool) = self.shared() {
            return pool.local(key);
        }
        self.read("read a local value", |connection| {
            connection
                .query_row("SELECT value FROM local WHERE key = ?1", [key], |row| {
                    row.get(0)
                })
                .optional()
        })
    }

    /// Sets a local value, or removes it with `None`. Never a secret, and nothing that authority
    /// follows from.
    ///
    /// # Errors
    /// Key or value is too long, or the disk can't be written.
    pub fn set_local(&self, key: &str, value: Option<&[u8]>) -> Result<(), Refusal> {
        let length = value.map_or(0, <[u8]>::len);
        if key.len() > LOCAL_KEY_MAX_BYTES || length > LOCAL_VALUE_MAX_BYTES {
            return Err(Refusal::limit(
                "local-value-too-large",
                format!("a local value of {} and {length} bytes", key.len()),
            )
            .expected(&format!(
                "a key of at most {LOCAL_KEY_MAX_BYTES} and a value of at most {LOCAL_VALUE_MAX_BYTES} bytes"
            )));
        }
        if let Some(pool) = self.shared() {
            return pool.set_local(key, value);
        }
        self.write("store a local value", |connection| match value {
            Some(value) => connection.execute(
                "INSERT OR REPLACE INTO local (key, value) VALUES (?1, ?2)",
                (key, value),
            ),
            None => connection.execute("DELETE FROM local WHERE key = ?1", [key]),
        })?;
        Ok(())
    }

    pub(crate) fn set_blob_key(&self, digest: &Digest, key: &BlobKey) -> Result<(), Refusal> {
        if let Some(pool) = self.shared() {
            return pool.set_blob_key(digest, key);
        }
        self.write("store a blob's key", |connection| {
            connection.execute(
                "INSERT INTO blob_keys (digest, key, salt) VALUES (?1, ?2, ?3)",
                (digest.as_bytes(), key.key.expose(), key.salt.expose()),
            )
        })?;
        Ok(())
    }

    pub(crate) fn blob_key(&self, digest: &Digest) -> Result<Option<BlobKey>, Refusal> {
        if let Some(pool) = self.shared() {
            return pool.blob_key(digest);
        }
        self.read("read a blob's key", |connection| {
            connection
                .query_row(
                    "SELECT key, salt FROM blob_keys WHERE digest = ?1",
                    [digest.as_bytes()],
                    |row| {
                        Ok(BlobKey {
                            key: Secret::new(row.get(0)?),
                            salt: Secret::new(row.get(1)?),
                        })
                    },
                )
                .optional()
        })
    }

    /// The digests of all sealed blobs that can be read.
    pub(crate) fn sealed_blobs(&self) -> Result<Vec<Digest>, Refusal> {
        if let Some(pool) = self.shared() {
            return pool.sealed_blobs();
        }
        self.read("list the sealed blobs", |connection| {
            connection
                .prepare("SELECT digest FROM blob_keys ORDER BY digest")?
                .query_map((), |row| crate::database::digest_from_sql(row, 0))?
                .collect()
        })
    }

    /// Destroys a blob's key, if it has one, and notes the erasure.
    pub(crate) fn erase_blob(&self, digest: &Digest, at: Timestamp) -> Result<(), Refusal> {
        if let Some(pool) = self.shared() {
            return pool.erase_blob(digest, at);
        }
        self.write("erase a blob", |connection| {
            let transaction = connection.unchecked_transaction()?;
            transaction.execute(
                "DELETE FROM blob_keys WHERE digest = ?1",
                [digest.as_bytes()],
            )?;
            transaction.execute(
                "INSERT OR REPLACE INTO erasures (digest, at_ms) VALUES (?1, ?2)",
                (digest.as_bytes(), sql_integer(at.as_ms())?),
            )?;
            transaction.commit()
        })?;
        self.scrub()
    }

    /// When a blob was erased.
    pub(crate) fn erased_at(&self, digest: &Digest) -> Result<Option<Timestamp>, Refusal> {
        if let Some(pool) = self.shared() {
            return pool.erased_at(digest);
        }
        self.read("look for an erasure", |connection| {
            connection
                .query_row(
                    "SELECT at_ms FROM erasures WHERE digest = ?1",
                    [digest.as_bytes()],
                    |row| unsigned(row, 0).map(Timestamp::from_ms),
                )
                .optional()
        })
    }

    /// A blob that is put again is not erased any more.
    pub(crate) fn clear_erasure(&self, digest: &Digest) -> Result<(), Refusal> {
        if let Some(pool) = self.shared() {
            return pool.clear_erasure(digest);
        }
        self.write("store a blob", |connection| {
            connection.execute(
                "DELETE FROM erasures WHERE digest = ?1",
                [digest.as_bytes()],
            )
        })?;
        Ok(())
    }

    /// Writes a compact copy to `to`, without what was erased.
    pub(crate) fn copy_to(&self, to: &Path) -> Result<(), Refusal> {
        if let Some(pool) = self.shared() {
            return pool.copy_private_to(&Self::open(to)?);
        }
        let to = path(to);
        self.read("copy the private database", |connection| {
            connection.execute("VACUUM INTO ?1", [to.to_string_lossy()])
        })?;
        Ok(())
    }

    /// Cuts the write-ahead log back, which still has what was erased.
    fn scrub(&self) -> Result<(), Refusal> {
        self.write("erase the traces", |connection| {
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))
        })
    }

    fn read<T>(
        &self,
        doing: &str,
        call: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Refusal> {
        match &self.0 {
            Place::Sqlite(connection) => {
                let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
                call(&connection).map_err(|error| sqlite_refusal(doing, &error))
            }
            Place::Postgres(_) => Err(Refusal::internal("the private store is in PostgreSQL")),
        }
    }

    fn write<T>(
        &self,
        doing: &str,
        call: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Refusal> {
        self.read(doing, call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forgotten_person_leaves_no_bytes_behind() {
        let dir = tempfile::tempdir().unwrap();
        let store = PrivateStore::open(dir.path()).unwrap();
        let ada: HumanId = "ada".parse().unwrap();
        let person = Person {
            name: "Ada Augusta Lovelace".to_owned(),
            mail: Some("ada@analytical.example".to_owned()),
        };
        store.set_person(&ada, &person).unwrap();
        assert_eq!(store.person(&ada).unwrap(), Some(person));
        assert!(
            holds(dir.path(), b"analytical.example"),
            "the test sees bytes"
        );
        assert!(store.forget_person(&ada).unwrap());
        assert!(!store.forget_person(&ada).unwrap());
        assert_eq!(store.person(&ada).unwrap(), None);
        assert!(!holds(dir.path(), b"analytical.example"));
        assert!(!holds(dir.path(), b"Ada Augusta"));
    }

    fn holds(dir: &Path, bytes: &[u8]) -> bool {
        std::fs::read_dir(dir).unwrap().any(|file| {
            let content = std::fs::read(file.unwrap().path()).unwrap();
            content.windows(bytes.len()).any(|window| window == bytes)
        })
    }

    #[test]
    fn local_values_and_names_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let store = PrivateStore::open(dir.path()).unwrap();
        store.set_local("cache.etag", Some(b"abc")).unwrap();
        assert_eq!(store.local("cache.etag").unwrap().unwrap(), b"abc");
        store.set_local("cache.etag", None).unwrap();
        assert_eq!(store.local("cache.etag").unwrap(), None);
        let large = vec![0; LOCAL_VALUE_MAX_BYTES + 1];
        assert!(store.set_local("x", Some(&large)).is_err());
        assert!(
            store
                .set_local(&"k".repeat(LOCAL_KEY_MAX_BYTES + 1), None)
                .is_err()
        );
        for name in [
            "two\nlines".to_owned(),
            "x".repeat(PERSON_FIELD_MAX_BYTES + 1),
        ] {
            let person = Person { name, mail: None };
            assert!(store.set_person(&"ada".parse().unwrap(), &person).is_err());
        }
    }
}
