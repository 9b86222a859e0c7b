//! Task files: what `task new` writes, `task sign` signs and `run` takes.

use std::io::Write as _;
use std::path::Path;

use portcullis_evidence::dsse::{PAYLOAD_TASK, UnverifiedEnvelope};
use portcullis_model::limits::DOCUMENT_MAX_BYTES;
use portcullis_model::statement::Envelope;
use portcullis_model::{Refusal, Task, TaskText, canonical, document};
use serde::{Deserialize, Serialize};

/// A task file: title, text, and the task unsigned or signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TaskFile {
    /// One line.
    pub(crate) title: String,
    /// The order itself.
    #[serde(default)]
    pub(crate) text: String,
    /// The task, not signed yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) task: Option<Task>,
    /// The signed task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) envelope: Option<Envelope>,
}

impl TaskFile {
    /// Reads a task file and checks that its text is the one that its task binds.
    ///
    /// # Errors
    /// It can't be read, is neither signed nor unsigned or both, its task is malformed, or title
    /// or text were altered.
    pub(crate) fn read(path: &Path) -> Result<Self, Refusal> {
        let bytes = read_bounded(path, "task file")?;
        let file: Self = document::from_json("task file", &bytes)?;
        let task = file.task()?;
        task.validate()?;
        file.task_text().validate()?;
        let digest = file.task_text().digest()?;
        if task.text != digest {
            return Err(Refusal::denied(
                "task-text-altered",
                "title or text of this task are not those that it was made with",
            )
            .expected(&task.text.to_string())
            .received(&digest.to_string())
            .next("make the task again with `portcullis task new`"));
        }
        Ok(file)
    }

    /// The task, whether it is signed or not. Nothing is said about the signature.
    ///
    /// # Errors
    /// There is none, there are two, or its bytes are no task.
    pub(crate) fn task(&self) -> Result<Task, Refusal> {
        match (&self.task, &self.envelope) {
            (Some(task), None) => Ok(task.clone()),
            (None, Some(envelope)) => {
                let envelope = UnverifiedEnvelope::try_from(envelope.clone())?;
                if envelope.payload_type() != PAYLOAD_TASK {
                    return Err(Refusal::malformed("task envelope")
                        .expected(PAYLOAD_TASK)
                        .received(envelope.payload_type()));
                }
                canonical::from_slice("task", envelope.unverified_payload())
            }
            (None, None) | (Some(_), Some(_)) => Err(Refusal::malformed("task file")
                .expected("either `task` (not signed) or `envelope` (signed)")
                .received(if self.task.is_some() {
                    "both"
                } else {
                    "neither"
                })),
        }
    }

    /// The signed task.
    ///
    /// # Errors
    /// It isn't signed.
    pub(crate) fn envelope(&self, path: &Path) -> Result<&Envelope, Refusal> {
        self.envelope.as_ref().ok_or_else(|| {
            Refusal::denied("task-not-signed", "this task is not signed")
                .expected("a task signed by a human who may task the agent")
                .received(&path.display().to_string())
                .next(format!("portcullis task sign {}", path.display()))
        })
    }

    /// Title and text, as the task binds them.
    pub(crate) fn task_text(&self) -> TaskText {
        TaskText {
            title: self.title.clone(),
            text: self.text.clone(),
        }
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// It does not serialise.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, Refusal> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| Refusal::internal(format!("a task does not serialise: {error}")))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Writes the file: a new one, or in one step over an old one.
    ///
    /// # Errors
    /// It can't be written, or stands already and may not be replaced.
    pub(crate) fn write(&self, path: &Path, replace: bool) -> Result<(), Refusal> {
        write_file(path, &self.to_bytes()?, replace)
    }
}

/// Writes a file: a new one, or in one step over an old one.
///
/// # Errors
/// It can't be written, or stands already and may not be replaced.
pub(crate) fn write_file(path: &Path, bytes: &[u8], replace: bool) -> Result<(), Refusal> {
    let unwritable = |error: std::io::Error| {
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            return Refusal::conflict("file-exists", format!("{} stands already", path.display()))
                .next("name another file, or allow replacing it with --force");
        }
        Refusal::unavailable(
            "file-unwritable",
            format!("{} can't be written", path.display()),
        )
        .received(&error.to_string())
    };
    if !replace {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(unwritable)?;
        return file
            .write_all(bytes)
            .and_then(|()| file.sync_all())
            .map_err(unwritable);
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = std::path::PathBuf::from(beside);
    std::fs::write(&beside, bytes)
        .and_then(|()| std::fs::rename(&beside, path))
        .map_err(|error| {
            let _ = std::fs::remove_file(&beside);
            unwritable(error)
        })
}

/// Reads a document that a person wrote, at most [`DOCUMENT_MAX_BYTES`].
///
/// # Errors
/// It can't be read, or is larger.
pub(crate) fn read_bounded(path: &Path, what: &str) -> Result<Vec<u8>, Refusal> {
    use std::io::Read as _;
    let unreadable = |error: std::io::Error| {
        Refusal::new(
            portcullis_model::RefusalKind::NotFound,
            "file-unreadable",
            format!("{} can't be read", path.display()),
        )
        .received(&error.to_string())
        .next(format!("name a {what} that is there"))
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .map_err(unreadable)?
        .take(DOCUMENT_MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() > DOCUMENT_MAX_BYTES {
        return Err(
            Refusal::limit("document-too-large", format!("this {what} is too large"))
                .expected(&format!("at most {DOCUMENT_MAX_BYTES} bytes")),
        );
    }
    Ok(bytes)
}

/// As [`read_bounded`], as text.
///
/// # Errors
/// As [`read_bounded`], or it isn't UTF-8.
pub(crate) fn read_text(path: &Path, what: &str) -> Result<String, Refusal> {
    String::from_utf8(read_bounded(path, what)?).map_err(|_| {
        Refusal::malformed(what)
            .expected("UTF-8 text")
            .received(&path.display().to_string())
    })
}
