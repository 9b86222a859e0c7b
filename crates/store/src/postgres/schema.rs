//! The tables in PostgreSQL, and whether what stands there is ours.

use portcullis_model::Refusal;

use super::link::{Failure, Link};

/// Version of these tables. A higher one in the database is refused: downgrades lose data.
const VERSION: i32 = 1;

/// Everything of ours stands in a schema of its own, whose name is fixed, so that a database may
/// be shared with others and a dump of one schema is a backup.
const SCHEMA: &str = "
    CREATE SCHEMA portcullis;
    CREATE TABLE portcullis.store (
        single boolean PRIMARY KEY DEFAULT true CHECK (single),
        application text NOT NULL,
        version integer NOT NULL
    );
    -- One row: who leads, and how long the log is. Every write of the log changes it, under the
    -- condition that the writer still leads and knows the size.
    CREATE TABLE portcullis.log (
        single boolean PRIMARY KEY DEFAULT true CHECK (single),
        epoch bigint NOT NULL,
        beat bigint NOT NULL,
        token text NOT NULL,
        address text NOT NULL,
        size bigint NOT NULL
    );
    INSERT INTO portcullis.log (epoch, beat, token, address, size) VALUES (0, 0, '', '', 0);
    CREATE TABLE portcullis.entries (
        idx bigint PRIMARY KEY,
        time_ms bigint NOT NULL,
        leaf bytea NOT NULL,
        bytes bytea NOT NULL
    );
    CREATE TABLE portcullis.tiles (
        level smallint NOT NULL,
        idx bigint NOT NULL,
        root bytea NOT NULL,
        hashes bytea NOT NULL,
        PRIMARY KEY (level, idx)
    );
    ALTER TABLE portcullis.tiles ALTER COLUMN hashes SET STORAGE EXTERNAL;
    CREATE TABLE portcullis.checkpoints (
        size bigint PRIMARY KEY,
        root bytea NOT NULL,
        note text NOT NULL
    );
    -- Acts that took authority away at a process that no longer leads, for the one that does.
    CREATE TABLE portcullis.handover (
        digest bytea PRIMARY KEY,
        place bigint GENERATED ALWAYS AS IDENTITY,
        bytes bytea NOT NULL
    );
    CREATE TABLE portcullis.blobs (
        digest bytea PRIMARY KEY,
        sealed boolean NOT NULL,
        bytes bytea NOT NULL
    );
    ALTER TABLE portcullis.blobs ALTER COLUMN bytes SET STORAGE EXTERNAL;
    CREATE TABLE portcullis.people (id text PRIMARY KEY, name text NOT NULL, mail text);
    CREATE TABLE portcullis.blob_keys (
        digest bytea PRIMARY KEY,
        key bytea NOT NULL,
        salt bytea NOT NULL
    );
    CREATE TABLE portcullis.erasures (digest bytea PRIMARY KEY, at_ms bigint NOT NULL);
    CREATE TABLE portcullis.local_values (key text PRIMARY KEY, value bytea NOT NULL);
    INSERT INTO portcullis.store (application, version) VALUES ('portcullis ledger', 1);
";

/// Makes sure that the tables are there and are ours; makes them if `make` says so and there is
/// no schema of that name.
pub(crate) fn prepare(link: &Link, make: bool) -> Result<(), Refusal> {
    if exists(link).map_err(failed)? {
        return check(link);
    }
    if !make {
        return Err(Refusal::not_found("ledger", "in this database")
            .next("make one with `portcullis init --store URL`"));
    }
    let made = link.run(|client| async move {
        // Two processes may start at once on an empty database; the lock ends with the
        // transaction, and the second one finds the schema.
        client
            .batch_execute(&format!(
                "BEGIN; SELECT pg_advisory_xact_lock(5779437321); {SCHEMA} COMMIT"
            ))
            .await
    });
    match made {
        Ok(()) => Ok(()),
        Err(Failure::Refused(error))
            if *error.code() == tokio_postgres::error::SqlState::DUPLICATE_SCHEMA
                || *error.code() == tokio_postgres::error::SqlState::UNIQUE_VIOLATION =>
        {
            link.run(|client| async move { client.batch_execute("ROLLBACK").await })
                .map_err(failed)?;
            check(link)
        }
        Err(failure) => Err(failed(failure)),
    }
}

fn exists(link: &Link) -> Result<bool, Failure> {
    link.run(|client| async move {
        client
            .query_one("SELECT to_regnamespace('portcullis') IS NOT NULL", &[])
            .await
    })
    .map(|row| row.get(0))
}

fn check(link: &Link) -> Result<(), Refusal> {
    let foreign = || {
        Refusal::conflict(
            "store-foreign",
            "the schema `portcullis` of this database is not ours",
        )
        .expected("no schema of that name, or a ledger's")
        .next("use another database")
    };
    let marked = link
        .run(|client| async move {
            client
                .query_one("SELECT to_regclass('portcullis.store') IS NOT NULL", &[])
                .await
        })
        .map_err(failed)?;
    if !marked.get::<_, bool>(0) {
        return Err(foreign().received("a schema without our mark"));
    }
    let row = link
        .run(|client| async move {
            client
                .query_opt("SELECT application, version FROM portcullis.store", &[])
                .await
        })
        .map_err(|failure| match failure {
            // Columns of another's table.
            Failure::Refused(error) if error.code().code().starts_with("42") => {
                foreign().received(error.message())
            }
            other => failed(other),
        })?
        .ok_or_else(|| foreign().received("an empty mark"))?;
    let (Ok(application), Ok(version)) = (row.try_get::<_, String>(0), row.try_get::<_, i32>(1))
    else {
        return Err(foreign().received("a mark of other types"));
    };
    if application != "portcullis ledger" {
        return Err(foreign().received(&application));
    }
    if version != VERSION {
        return Err(Refusal::conflict(
            "store-version",
            "the tables in this database were written by another version",
        )
        .expected(&format!("tables of version {VERSION}"))
        .received(&format!("version {version}"))
        .next("use the version of portcullis that wrote them, or a later one"));
    }
    Ok(())
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "used where an error is mapped"
)]
fn failed(failure: Failure) -> Refusal {
    failure.refusal("prepare the tables of the ledger")
}
