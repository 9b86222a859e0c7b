//! What one run may clone and fetch: a bare repository of its own with the refs it may see.
//!
//! A view borrows the mirror's objects (all that the repository's readers may read anyway), and
//! holds the packs of its own run. Protocol v2 answers for any object by its id, so what a view
//! must not give out must not be in it: other runs' changes are in other stores.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Frame;
use portcullis_model::{GitOid, Recorded, Refusal};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::oneshot;

use super::body::{BodySender, StreamBody};
use super::command::{LONG, QUICK, last_words, unwritable};
use super::names::{branch_ref, check_ref_name};
use super::objects::ObjectView;
use super::pkt;
use super::repository::{Repository, write_alternates, write_veto};
use super::tree::ObjectFormat;

/// Longest time for one answer: a clone of a big repository over a slow line.
pub const FETCH_TIME: Duration = Duration::from_secs(30 * 60);
/// Largest request for objects in bytes, after inflation: ids of what the client has.
pub const FETCH_REQUEST_MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Content type of the advertisement.
pub const ADVERTISEMENT_TYPE: &str = "application/x-git-upload-pack-advertisement";
/// Content type of a request.
pub const REQUEST_TYPE: &str = "application/x-git-upload-pack-request";
/// Content type of an answer.
pub const RESULT_TYPE: &str = "application/x-git-upload-pack-result";
/// What every answer says to anyone between: nothing here may be kept. The three that
/// `git http-backend` sends, for caches of any age.
pub const NOT_KEPT: [(&str, &str); 3] = [
    ("expires", "Fri, 01 Jan 1980 00:00:00 GMT"),
    ("pragma", "no-cache"),
    ("cache-control", "no-cache, max-age=0, must-revalidate"),
];

/// A bare repository that one run (or person) fetches from and pushes to.
#[derive(Clone, Debug)]
pub struct FetchView {
    repository: Repository,
    dir: PathBuf,
}

/// A ref of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewRef {
    /// Full name.
    pub name: String,
    /// Where it points.
    pub oid: GitOid,
}

impl ViewRef {
    /// A branch.
    ///
    /// # Errors
    /// `malformed-ref-name`.
    pub fn branch(branch: &str, oid: GitOid) -> Result<Self, Refusal> {
        Ok(Self {
            name: branch_ref(branch)?,
            oid,
        })
    }
}

/// How an answer went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchOutcome {
    /// Bytes sent.
    pub bytes_out: u64,
    /// Whether git ended well and the client took everything; else why not.
    pub result: Result<(), String>,
}

/// An answer under way.
pub struct Served {
    /// What the client gets.
    pub body: StreamBody,
    /// How it went, when it is over.
    pub outcome: oneshot::Receiver<FetchOutcome>,
}

impl FetchView {
    /// The view `name`, if it stands.
    ///
    /// # Errors
    /// `malformed-view-name`.
    pub fn open(repository: &Repository, name: &str) -> Result<Option<Self>, Refusal> {
        let view = Self::named(repository, name)?;
        Ok(view.dir.join("packed-refs").exists().then_some(view))
    }

    /// Makes the view `name` (a run's id, say) or takes up the one that stands, with exactly
    /// these refs. `head` is the branch that a clone checks out.
    ///
    /// # Errors
    /// A name is malformed, an object is nowhere, or the directory can't be written.
    pub async fn create(
        repository: &Repository,
        name: &str,
        head: &str,
        refs: &[ViewRef],
    ) -> Result<Self, Refusal> {
        let view = Self::named(repository, name)?;
        view.write_skeleton(&branch_ref(head)?)?;
        view.refresh(refs).await?;
        Ok(view)
    }

    fn named(repository: &Repository, name: &str) -> Result<Self, Refusal> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if name.is_empty() || name.len() > 128 || !name.chars().all(plain) {
            return Err(Refusal::malformed("view name")
                .expected("1 to 128 of a-z, A-Z, 0-9, - and _")
                .received(name));
        }
        let dir = repository.dir().join("views").join(format!("{name}.git"));
        Ok(Self {
            repository: repository.clone(),
            dir,
        })
    }

    /// Sets exactly these refs; objects of changes that it may now see are brought in.
    ///
    /// # Errors
    /// As [`FetchView::create`]; the refs stay as they were.
    pub async fn refresh(&self, refs: &[ViewRef]) -> Result<(), Refusal> {
        let _one = self.repository.views_lock().await;
        self.write_refs(refs).await
    }

    /// Sets these refs, removes those names, and leaves the others as they are.
    ///
    /// # Errors
    /// As [`FetchView::create`]; the refs stay as they were.
    pub async fn update(&self, set: &[ViewRef], remove: &[&str]) -> Result<(), Refusal> {
        let _one = self.repository.views_lock().await;
        let mut refs = self.refs()?;
        refs.retain(|entry| {
            !remove.contains(&entry.name.as_str()) && !set.iter().any(|new| new.name == entry.name)
        });
        refs.extend_from_slice(set);
        self.write_refs(&refs).await
    }

    async fn write_refs(&self, refs: &[ViewRef]) -> Result<(), Refusal> {
        for entry in refs {
            check_ref_name(&entry.name)?;
        }
        let mut sorted: Vec<&ViewRef> = refs.iter().collect();
        sorted.sort_by(|a, b| a.name.cmp(&b.name));
        let mut text = String::from("# pack-refs with: sorted \n");
        for entry in sorted {
            text.push_str(&format!("{} {}\n", entry.oid, entry.name));
        }
        let file = self.dir.join("packed-refs");
        // What was written was complete before it was written, and so is what was pushed here.
        let known = std::fs::read_to_string(&file).unwrap_or_default();
        if !refs.is_empty() && known == text {
            // Looked at, so it is in use: views that are not are swept.
            return std::fs::File::open(&self.dir)
                .and_then(|folder| folder.set_modified(std::time::SystemTime::now()))
                .map_err(|error| unwritable(&self.dir, &error));
        }
        let complete: BTreeSet<&str> = known
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(oid, _)| oid)
            .collect();
        let pushed = self.repository.pushed_here(&self.dir);
        let fresh: Vec<&ViewRef> = refs
            .iter()
            .filter(|entry| !complete.contains(entry.oid.as_str()))
            .filter(|entry| pushed.as_ref() != Some(&entry.oid))
            .collect();
        let missing = self.missing(&fresh).await?;
        if !missing.is_empty() {
            let changes = self.repository.changes_dir();
            self.repository
                .git()
                .on(&self.dir, "fetch")
                .args(["fetch", "--no-tags", "--no-write-fetch-head", "--quiet"])
                .args(["--no-auto-maintenance", "--no-recurse-submodules"])
                .args([&changes])
                .args(missing.iter().map(GitOid::as_str))
                .env("GIT_ALLOW_PROTOCOL", "file")
                .time(LONG)
                .output()
                .await?;
        }
        // One rename: a clone at the same time sees the old refs or the new ones.
        write_whole(&file, text.as_bytes())
    }

    /// The refs it has now.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn refs(&self) -> Result<Vec<ViewRef>, Refusal> {
        let file = self.dir.join("packed-refs");
        let text = std::fs::read_to_string(&file).map_err(|error| unwritable(&file, &error))?;
        text.lines()
            .filter(|line| !line.starts_with(['#', '^']))
            .filter_map(|line| line.split_once(' '))
            .map(|(oid, name)| {
                Ok(ViewRef {
                    name: name.to_owned(),
                    oid: oid.parse()?,
                })
            })
            .collect()
    }

    /// Removes it and the packs in it; what was accepted stays in the repository.
    ///
    /// # Errors
    /// The directory can't be removed.
    pub fn remove(self) -> Result<(), Refusal> {
        self.repository.note_pushed(&self.dir, None);
        std::fs::remove_dir_all(&self.dir).map_err(|error| unwritable(&self.dir, &error))
    }

    /// The answer to `GET info/refs?service=git-upload-pack`, of type [`ADVERTISEMENT_TYPE`].
    /// `protocol` is the `Git-Protocol` header.
    ///
    /// # Errors
    /// Git fails.
    pub async fn advertise(&self, protocol: Option<&str>) -> Result<Vec<u8>, Refusal> {
        let protocol = protocol_version(protocol);
        let mut out = Vec::new();
        if protocol != Some("version=2") {
            pkt::encode(b"# service=git-upload-pack\n", &mut out);
            pkt::flush(&mut out);
        }
        let refs = self
            .repository
            .git()
            .bare("upload-pack")
            .env("GIT_PROTOCOL", protocol.unwrap_or_default())
            .args(["upload-pack", "--stateless-rpc", "--advertise-refs"])
            .args([&self.dir])
            .time(LONG)
            .output()
            .await?;
        out.extend_from_slice(&refs);
        Ok(out)
    }

    /// The answer to `POST git-upload-pack`, of type [`RESULT_TYPE`], streamed. `request` is the
    /// body, inflated and bounded by [`FETCH_REQUEST_MAX_BYTES`] (see
    /// [`super::body::BodyReader`]).
    ///
    /// # Errors
    /// Git can't be started. What goes wrong later cuts the body and stands in the outcome.
    pub fn serve<P, R>(
        &self,
        permit: Recorded<P>,
        protocol: Option<&str>,
        request: R,
    ) -> Result<Served, Refusal>
    where
        R: AsyncRead + Unpin + Send + 'static,
    {
        let _used = permit.spend();
        let mut running = self
            .repository
            .git()
            .bare("upload-pack")
            .env(
                "GIT_PROTOCOL",
                protocol_version(protocol).unwrap_or_default(),
            )
            .args(["upload-pack", "--stateless-rpc"])
            .args([&self.dir])
            .start_with_input()?;
        let (sender, body) = StreamBody::channel();
        let (done, outcome) = oneshot::channel();
        tokio::spawn(async move {
            let mut bytes_out = 0;
            let work = answer(&mut running, request, &sender, &mut bytes_out);
            let result = tokio::select! {
                result = tokio::time::timeout(FETCH_TIME, work) => result
                    .unwrap_or_else(|_| Err(Stop::Cut("it took too long".to_owned()))),
                () = sender.closed() => Err(Stop::Cut("the client went away".to_owned())),
            };
            if let Err(stop) = &result {
                tracing::info!(fetch.reason = %stop, "a fetch did not end well");
            }
            // What git itself had to say of its failure is in the answer, which ends as any other;
            // a pack that is not whole does not pass for one.
            if let Err(Stop::Cut(reason)) = &result {
                let _ = sender
                    .send(Err(std::io::Error::other(reason.clone())))
                    .await;
            }
            let result = result.map_err(|stop| stop.to_string());
            let _ = done.send(FetchOutcome { bytes_out, result });
        });
        Ok(Served { body, outcome })
    }

    /// Its objects: the mirror's, and those of its own run.
    pub fn objects(&self) -> ObjectView {
        self.repository.view_of(&self.dir)
    }

    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Its directory, a bare repository.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Commits that neither the mirror nor its own packs hold.
    async fn missing(&self, refs: &[&ViewRef]) -> Result<Vec<GitOid>, Refusal> {
        let input: String = refs
            .iter()
            .map(|entry| format!("{}\n", entry.oid))
            .collect();
        if input.is_empty() {
            return Ok(Vec::new());
        }
        let output = self
            .repository
            .git()
            .on(&self.dir, "cat-file")
            .args(["cat-file", "--batch-check=%(objectname) %(objecttype)"])
            .time(QUICK)
            .finish(input.as_bytes())
            .await?
            .succeeded()?;
        String::from_utf8_lossy(&output)
            .lines()
            .filter_map(|line| line.strip_suffix(" missing"))
            .map(str::parse)
            .collect()
    }

    fn write_skeleton(&self, head: &str) -> Result<(), Refusal> {
        let failed = |error: std::io::Error| unwritable(&self.dir, &error);
        let head = format!("ref: {head}\n");
        // It is looked at with each request, and written once, its head last.
        if std::fs::read(self.dir.join("HEAD")).is_ok_and(|known| known == head.as_bytes()) {
            return Ok(());
        }
        for part in ["objects/info", "objects/pack", "refs/heads"] {
            std::fs::create_dir_all(self.dir.join(part)).map_err(failed)?;
        }
        write_alternates(&self.dir, &self.repository.mirror_dir())?;
        write_veto(&self.dir, false)?;
        let format = match self.repository.format() {
            ObjectFormat::Sha1 => "\trepositoryformatversion = 0\n",
            ObjectFormat::Sha256 => {
                "\trepositoryformatversion = 1\n[extensions]\n\tobjectformat = sha256\n[core]\n"
            }
        };
        // Any object may be asked for by id, in v0 as in v2: the store is the boundary, and a
        // partial clone needs it.
        let config = format!(
            "[core]\n{format}\tbare = true\n[uploadpack]\n\tallowFilter = true\n\
             \tallowAnySHA1InWant = true\n[transfer]\n\tadvertiseObjectInfo = false\n"
        );
        write_whole(&self.dir.join("config"), config.as_bytes())?;
        if !self.dir.join("packed-refs").exists() {
            write_whole(
                &self.dir.join("packed-refs"),
                b"# pack-refs with: sorted \n",
            )?;
        }
        write_whole(&self.dir.join("HEAD"), head.as_bytes())
    }
}

/// Why an answer did not go well.
enum Stop {
    /// It was cut off.
    Cut(String),
    /// Git ended it, and said why.
    Git(String),
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cut(reason) | Self::Git(reason) => f.write_str(reason),
        }
    }
}

/// Feeds git and streams what it says.
async fn answer<R: AsyncRead + Unpin>(
    running: &mut super::command::Running,
    mut request: R,
    sender: &BodySender,
    bytes_out: &mut u64,
) -> Result<(), Stop> {
    let stdin = running.stdin.take();
    let stdout = running.stdout.take();
    let feed = async {
        let Some(mut stdin) = stdin else {
            return Ok(());
        };
        match tokio::io::copy(&mut request, &mut stdin).await {
            Ok(_) => Ok(()),
            // Git ended first, and its status says whether that was right.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(Stop::Cut(format!("the request ended early: {error}"))),
        }
    };
    let stream = async {
        let Some(mut stdout) = stdout else {
            return Ok(());
        };
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = stdout
                .read(&mut buffer)
                .await
                .map_err(|error| Stop::Cut(error.to_string()))?;
            if count == 0 {
                return Ok(());
            }
            *bytes_out += u64::try_from(count).unwrap_or(u64::MAX);
            let piece = Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default());
            if sender.send(Ok(Frame::data(piece))).await.is_err() {
                return Err(Stop::Cut("the client went away".to_owned()));
            }
        }
    };
    tokio::try_join!(feed, stream)?;
    let ended = running.wait().await;
    let (status, stderr) = ended.map_err(|refusal| Stop::Cut(refusal.message))?;
    if status.success() {
        Ok(())
    } else {
        Err(Stop::Git(last_words(&stderr).to_owned()))
    }
}

/// The version that a `Git-Protocol` header asks for; other keys in it are not passed on.
fn protocol_version(header: Option<&str>) -> Option<&'static str> {
    let versions: Vec<&str> = header?.split(':').collect();
    if versions.contains(&"version=2") {
        Some("version=2")
    } else if versions.contains(&"version=1") {
        Some("version=1")
    } else {
        None
    }
}

/// Replaces a file in one step.
fn write_whole(file: &Path, content: &[u8]) -> Result<(), Refusal> {
    let dir = file.parent().unwrap_or(Path::new("/"));
    let write = || {
        let mut fresh = tempfile::NamedTempFile::new_in(dir)?;
        std::io::Write::write_all(&mut fresh, content)?;
        fresh.persist(file).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|error| unwritable(file, &error))
}
