//! A mirror that would take more of the disk than it may, or than there is.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use portcullis_model::Refusal;

use super::server::run;
use crate::git::{Access, Git, Remembered, Repository, Upstream};

/// An upstream with a file of so many bytes that do not compress.
fn upstream(root: &Path, bytes: usize) -> PathBuf {
    let upstream = root.join("upstream");
    run(root, &["init", "-q", "-b", "main", "upstream"]);
    grow(&upstream, "first", bytes);
    upstream
}

fn grow(upstream: &Path, name: &str, bytes: usize) {
    let mut state = u64::try_from(bytes).unwrap() | 1;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    })
    .take(bytes)
    .collect();
    std::fs::write(upstream.join(name), noise).unwrap();
    run(upstream, &["add", "."]);
    run(upstream, &["commit", "-qm", name]);
}

async fn mirror(git: &Git, root: &Path) -> Result<Repository, Refusal> {
    let upstream = Upstream::Path(root.join("upstream"));
    Repository::open_or_create(git, &root.join("repository"), upstream, &Access::None).await
}

/// Files below its objects, by folder: those in packs and all others.
fn stored(mirror: &Repository) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let objects = mirror.mirror_dir().join("objects");
    let files = |folder: PathBuf| {
        let entries = std::fs::read_dir(folder).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.is_file()).collect::<Vec<_>>()
    };
    let folders = std::fs::read_dir(&objects).unwrap();
    let (packs, others): (Vec<_>, Vec<_>) = folders
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir() && !path.ends_with("info"))
        .partition(|path| path.ends_with("pack"));
    let of = |folders: Vec<PathBuf>| folders.into_iter().flat_map(files).collect();
    (of(packs), of(others))
}

fn half_written(mirror: &Repository) -> usize {
    let (packs, others) = stored(mirror);
    let half = |path: &&PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("tmp_") || name.ends_with(".keep")
    };
    packs.iter().chain(&others).filter(half).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_past_its_bound_is_refused_with_the_bound_and_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let upstream = upstream(root.path(), 300_000);
    let git = Git::open(&root.path().join("home")).await.unwrap();
    let small = git.clone().with_mirror_max_bytes(200_000);
    let refusal = mirror(&small, root.path()).await.unwrap_err();
    assert_eq!(refusal.code, "mirror-too-large", "{refusal}");
    assert!(refusal.expected.unwrap().contains("200000 bytes"));
    assert!(refusal.next.unwrap().contains("mirror_max_mib"));
    assert!(!root.path().join("repository/mirror.git").exists());
    // Without it, it is mirrored. Past it again nothing more is fetched, and what is known stays.
    mirror(&git, root.path()).await.unwrap();
    let mirrored = mirror(&small, root.path()).await.unwrap();
    let tip = mirrored.tip("main").await.unwrap();
    grow(&upstream, "second", 200_000);
    for _ in 0..2 {
        let refusal = mirrored.sync(&Access::None).await.unwrap_err();
        assert_eq!(refusal.code, "mirror-too-large", "{refusal}");
        assert_eq!(mirrored.tip("main").await.unwrap(), tip);
        assert_eq!(half_written(&mirrored), 0);
    }
    let again = mirror(&git, root.path()).await.unwrap();
    again.sync(&Access::None).await.unwrap();
    assert_eq!(
        again.tip("main").await.unwrap().unwrap().as_str(),
        run(&upstream, &["rev-parse", "HEAD"])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_that_grows_by_small_fetches_is_held_to_its_bound() {
    let root = tempfile::tempdir().unwrap();
    let upstream = upstream(root.path(), 100_000);
    let git = Git::open(&root.path().join("home")).await.unwrap();
    let git = git.with_mirror_max_bytes(400_000);
    let mirrored = mirror(&git, root.path()).await.unwrap();
    let mut synced = 0;
    let refusal = loop {
        assert!(synced < 6, "nobody counts what came over");
        grow(&upstream, &format!("more-{synced}"), 100_000 + synced);
        match mirrored.sync(&Access::None).await {
            Ok(_) => synced += 1,
            Err(refusal) => break refusal,
        }
        let (_, loose) = stored(&mirrored);
        assert_eq!(loose, Vec::<PathBuf>::new());
    };
    assert_eq!(refusal.code, "mirror-too-large", "{refusal}");
    assert!(synced >= 2, "{synced}");
    assert_eq!(half_written(&mirrored), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_that_was_cut_off_is_not_repeated_for_an_hour() {
    let root = tempfile::tempdir().unwrap();
    let upstream = upstream(root.path(), 100_000);
    let git = Git::open(&root.path().join("home")).await.unwrap();
    let git = git.with_mirror_max_bytes(4_000_000);
    let mirrored = mirror(&git, root.path()).await.unwrap();
    let tip = mirrored.tip("main").await.unwrap();
    let tagged = mirrored.tags().await.unwrap();
    assert!(tagged.is_empty());
    grow(&upstream, "large", 60_000_000);
    run(&upstream, &["tag", "v1"]);
    let refusal = mirrored.sync(&Access::None).await.unwrap_err();
    assert_eq!(refusal.code, "mirror-too-large", "{refusal}");
    assert_eq!(half_written(&mirrored), 0);
    assert_eq!(mirrored.tip("main").await.unwrap(), tip);
    // Upstream is not asked again.
    std::fs::rename(&upstream, root.path().join("away")).unwrap();
    assert_eq!(mirrored.sync(&Access::None).await.unwrap_err(), refusal);
    std::fs::rename(root.path().join("away"), &upstream).unwrap();
    // A restart begins anew, with more room.
    let git = git.with_mirror_max_bytes(u64::MAX);
    let mirrored = mirror(&git, root.path()).await.unwrap();
    mirrored.sync(&Access::None).await.unwrap();
    assert_eq!(mirrored.tags().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_that_a_fetch_brought_before_it_failed_are_seen() {
    let root = tempfile::tempdir().unwrap();
    let upstream = upstream(root.path(), 1_000);
    // One that moves refs one by one.
    let git = Git::older(&root.path().join("home"), (2, 30)).await;
    let mirrored = mirror(&git, root.path()).await.unwrap();
    assert!(mirrored.tags().await.unwrap().is_empty());
    grow(&upstream, "second", 1_000);
    run(&upstream, &["tag", "v1"]);
    let lock = mirrored.mirror_dir().join("refs/heads/main.lock");
    std::fs::write(&lock, "").unwrap();
    mirrored.sync(&Access::None).await.unwrap_err();
    assert_eq!(mirrored.refs().await.unwrap().len(), 2);
    assert_eq!(mirrored.tags().await.unwrap().len(), 1);
}

#[test]
fn a_size_is_remembered_for_an_hour_and_nothing_else_is() {
    let hour = std::time::Duration::from_secs(60 * 60);
    let known = Remembered::default();
    known.note(&Refusal::unavailable("disk-full", "full"));
    assert_eq!(known.told(), None);
    let refusal = Refusal::limit("mirror-too-large", "large");
    known.note(&refusal);
    let now = std::time::Instant::now();
    assert_eq!(known.told(), Some(refusal.clone()));
    assert_eq!(known.told_at(now + hour / 2), Some(refusal));
    assert_eq!(known.told_at(now + hour), None);
}

/// A tmpfs, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where this process may not mount.
    fn mount() -> Option<Self> {
        let at = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs"]);
        let mounted = mount.arg(at.path()).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(at));
        }
        eprintln!("skipped: this needs root, to mount a small disk");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_said_leaves_nothing_half_done_and_is_got_over() {
    let root = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let upstream = upstream(root.path(), 1_500_000);
    std::os::unix::fs::symlink(&upstream, disk.path().join("upstream")).unwrap();
    let git = Git::open(&root.path().join("home")).await.unwrap();
    let ballast = disk.path().join("ballast");
    let fill = |bytes: usize| {
        let mut file = std::fs::File::create(&ballast).unwrap();
        file.write_all(&vec![1; bytes]).unwrap();
    };
    // The first time.
    fill(3_000_000);
    let refusal = mirror(&git, disk.path()).await.unwrap_err();
    assert_eq!(refusal.code, "disk-full", "{refusal}");
    assert!(refusal.received.unwrap().contains("No space left"));
    assert!(refusal.next.unwrap().contains("free space"));
    assert!(!disk.path().join("repository/mirror.git").exists());
    std::fs::remove_file(&ballast).unwrap();
    let mirrored = mirror(&git, disk.path()).await.unwrap();
    let tip = mirrored.tip("main").await.unwrap();
    // And later on, in a pack as well.
    let before = stored(&mirrored);
    assert!(before.1.is_empty(), "{before:?}");
    fill(1_800_000);
    grow(&upstream, "second", 1_000_000);
    for _ in 0..2 {
        let refusal = mirrored.sync(&Access::None).await.unwrap_err();
        assert_eq!(refusal.code, "disk-full", "{refusal}");
        assert_eq!(mirrored.tip("main").await.unwrap(), tip);
        assert_eq!(half_written(&mirrored), 0);
        assert_eq!(stored(&mirrored), before);
    }
    std::fs::remove_file(&ballast).unwrap();
    mirrored.sync(&Access::None).await.unwrap();
    assert_eq!(
        mirrored.tip("main").await.unwrap().unwrap().as_str(),
        run(&upstream, &["rev-parse", "HEAD"])
    );
}
