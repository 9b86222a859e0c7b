//! What can be erased, and blobs, in PostgreSQL: every server of a team has the same.
//!
//! Erasing deletes the rows and has the table vacuumed. PostgreSQL does not overwrite bytes in its
//! files at once, and its write-ahead log and its backups keep what they have, as backups always
//! do.

use portcullis_model::{Digest, HumanId, Refusal, Secret, Timestamp};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::lead::signed;
use super::link::Pool;
use super::read::{digest, unreadable, unsigned};
use crate::private::{BlobKey, Person, PrivateStore};

impl Pool {
    /// Copies what can be erased to a data directory's private database.
    pub(crate) fn copy_private_to(&self, copy: &PrivateStore) -> Result<(), Refusal> {
        let doing = "copy the private tables";
        for row in self.rows(
            doing,
            "SELECT id, name, mail FROM portcullis.people",
            Vec::new(),
        )? {
            let id: String = row.try_get(0).map_err(unreadable)?;
            let person = Person {
                name: row.try_get(1).map_err(unreadable)?,
                mail: row.try_get(2).map_err(unreadable)?,
            };
            copy.set_person(&id.parse()?, &person)?;
        }
        for name in self.sealed_blobs()? {
            if let Some(key) = self.blob_key(&name)? {
                copy.set_blob_key(&name, &key)?;
            }
        }
        for row in self.rows(
            doing,
            "SELECT digest, at_ms FROM portcullis.erasures",
            Vec::new(),
        )? {
            copy.erase_blob(&digest(&row, 0)?, Timestamp::from_ms(unsigned(&row, 1)?))?;
        }
        for row in self.rows(
            doing,
            "SELECT key, value FROM portcullis.local_values",
            Vec::new(),
        )? {
            let (key, value): (String, Vec<u8>) = (
                row.try_get(0).map_err(unreadable)?,
                row.try_get(1).map_err(unreadable)?,
            );
            copy.set_local(&key, Some(&value))?;
        }
        Ok(())
    }
}

/// An argument of a statement that goes to the driver's thread.
type Argument = Box<dyn ToSql + Sync + Send>;

fn text(value: &str) -> Argument {
    Box::new(value.to_owned())
}

fn bytes(value: &[u8]) -> Argument {
    Box::new(value.to_vec())
}

impl Pool {
    /// Has one statement done; `doing` completes "could not …".
    fn change(
        &self,
        doing: &str,
        statement: &'static str,
        arguments: Vec<Argument>,
    ) -> Result<u64, Refusal> {
        self.with(doing, |link| {
            link.run(
                move |client| async move { client.execute(statement, &borrowed(&arguments)).await },
            )
            .map_err(|failure| failure.refusal(doing))
        })
    }

    fn rows(
        &self,
        doing: &str,
        statement: &'static str,
        arguments: Vec<Argument>,
    ) -> Result<Vec<Row>, Refusal> {
        self.with(doing, |link| {
            link.run(
                move |client| async move { client.query(statement, &borrowed(&arguments)).await },
            )
            .map_err(|failure| failure.refusal(doing))
        })
    }

    fn row(
        &self,
        doing: &str,
        statement: &'static str,
        arguments: Vec<Argument>,
    ) -> Result<Option<Row>, Refusal> {
        Ok(self.rows(doing, statement, arguments)?.pop())
    }

    pub(crate) fn set_person(&self, id: &HumanId, person: &Person) -> Result<(), Refusal> {
        self.change(
            "store a person",
            "INSERT INTO portcullis.people (id, name, mail) VALUES ($1, $2, $3)
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, mail = excluded.mail",
            vec![
                text(id.as_str()),
                text(&person.name),
                Box::new(person.mail.clone()),
            ],
        )?;
        Ok(())
    }

    pub(crate) fn person(&self, id: &HumanId) -> Result<Option<Person>, Refusal> {
        self.row(
            "read a person",
            "SELECT name, mail FROM portcullis.people WHERE id = $1",
            vec![text(id.as_str())],
        )?
        .map(|row| {
            Ok(Person {
                name: row.try_get(0).map_err(unreadable)?,
                mail: row.try_get(1).map_err(unreadable)?,
            })
        })
        .transpose()
    }

    pub(crate) fn forget_person(&self, id: &HumanId) -> Result<bool, Refusal> {
        let forgotten = self.change(
            "forget a person",
            "DELETE FROM portcullis.people WHERE id = $1",
            vec![text(id.as_str())],
        )?;
        self.change("erase the traces", "VACUUM portcullis.people", Vec::new())?;
        Ok(forgotten > 0)
    }

    pub(crate) fn local(&self, key: &str) -> Result<Option<Vec<u8>>, Refusal> {
        self.row(
            "read a local value",
            "SELECT value FROM portcullis.local_values WHERE key = $1",
            vec![text(key)],
        )?
        .map(|row| row.try_get(0).map_err(unreadable))
        .transpose()
    }

    pub(crate) fn set_local(&self, key: &str, value: Option<&[u8]>) -> Result<(), Refusal> {
        match value {
            Some(value) => self.change(
                "store a local value",
                "INSERT INTO portcullis.local_values (key, value) VALUES ($1, $2)
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                vec![text(key), bytes(value)],
            ),
            None => self.change(
                "store a local value",
                "DELETE FROM portcullis.local_values WHERE key = $1",
                vec![text(key)],
            ),
        }?;
        Ok(())
    }

    pub(crate) fn set_blob_key(&self, digest: &Digest, key: &BlobKey) -> Result<(), Refusal> {
        self.change(
            "store a blob's key",
            "INSERT INTO portcullis.blob_keys (digest, key, salt) VALUES ($1, $2, $3)",
            vec![
                bytes(digest.as_bytes()),
                bytes(key.key.expose()),
                bytes(key.salt.expose()),
            ],
        )?;
        Ok(())
    }

    pub(crate) fn blob_key(&self, name: &Digest) -> Result<Option<BlobKey>, Refusal> {
        self.row(
            "read a blob's key",
            "SELECT key, salt FROM portcullis.blob_keys WHERE digest = $1",
            vec![bytes(name.as_bytes())],
        )?
        .map(|row| {
            Ok(BlobKey {
                key: Secret::new(*digest(&row, 0)?.as_bytes()),
                salt: Secret::new(*digest(&row, 1)?.as_bytes()),
            })
        })
        .transpose()
    }

    pub(crate) fn sealed_blobs(&self) -> Result<Vec<Digest>, Refusal> {
        self.rows(
            "list the sealed blobs",
            "SELECT digest FROM portcullis.blob_keys ORDER BY digest",
            Vec::new(),
        )?
        .iter()
        .map(|row| digest(row, 0))
        .collect()
    }

    /// Destroys a blob's key, notes the erasure and removes the blob, in one statement.
    pub(crate) fn erase_blob(&self, digest: &Digest, at: Timestamp) -> Result<(), Refusal> {
        self.change(
            "erase a blob",
            "WITH k AS (DELETE FROM portcullis.blob_keys WHERE digest = $1),
                  b AS (DELETE FROM portcullis.blobs WHERE digest = $1)
             INSERT INTO portcullis.erasures (digest, at_ms) VALUES ($1, $2)
             ON CONFLICT (digest) DO UPDATE SET at_ms = excluded.at_ms",
            vec![bytes(digest.as_bytes()), Box::new(signed(at.as_ms()))],
        )?;
        self.change(
            "erase the traces",
            "VACUUM portcullis.blob_keys",
            Vec::new(),
        )?;
        self.change("erase the traces", "VACUUM portcullis.blobs", Vec::new())?;
        Ok(())
    }

    pub(crate) fn erased_at(&self, digest: &Digest) -> Result<Option<Timestamp>, Refusal> {
        self.row(
            "look for an erasure",
            "SELECT at_ms FROM portcullis.erasures WHERE digest = $1",
            vec![bytes(digest.as_bytes())],
        )?
        .map(|row| unsigned(&row, 0).map(Timestamp::from_ms))
        .transpose()
    }

    pub(crate) fn clear_erasure(&self, digest: &Digest) -> Result<(), Refusal> {
        self.change(
            "store a blob",
            "DELETE FROM portcullis.erasures WHERE digest = $1",
            vec![bytes(digest.as_bytes())],
        )?;
        Ok(())
    }

    /// Stores a blob's bytes, replacing what may be there under the name.
    pub(crate) fn put_blob(
        &self,
        digest: &Digest,
        sealed: bool,
        content: &[u8],
    ) -> Result<(), Refusal> {
        self.change(
            "store a blob",
            "INSERT INTO portcullis.blobs (digest, sealed, bytes) VALUES ($1, $2, $3)
             ON CONFLICT (digest) DO UPDATE
                SET sealed = excluded.sealed, bytes = excluded.bytes",
            vec![bytes(digest.as_bytes()), Box::new(sealed), bytes(content)],
        )?;
        Ok(())
    }

    /// A blob's bytes as they are stored.
    pub(crate) fn blob(&self, digest: &Digest, sealed: bool) -> Result<Option<Vec<u8>>, Refusal> {
        self.row(
            "read a blob",
            "SELECT bytes FROM portcullis.blobs WHERE digest = $1 AND sealed = $2",
            vec![bytes(digest.as_bytes()), Box::new(sealed)],
        )?
        .map(|row| row.try_get(0).map_err(unreadable))
        .transpose()
    }

    /// The digests of all plain blobs.
    pub(crate) fn plain_blobs(&self) -> Result<Vec<Digest>, Refusal> {
        self.rows(
            "list the blobs",
            "SELECT digest FROM portcullis.blobs WHERE NOT sealed ORDER BY digest",
            Vec::new(),
        )?
        .iter()
        .map(|row| digest(row, 0))
        .collect()
    }
}

fn borrowed(arguments: &[Argument]) -> Vec<&(dyn ToSql + Sync)> {
    arguments
        .iter()
        .map(|argument| {
            let argument: &(dyn ToSql + Sync) = &**argument;
            argument
        })
        .collect()
}
