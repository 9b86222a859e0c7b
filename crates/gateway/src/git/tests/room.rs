//! A mirror that would take more of the disk than it may, or than there is.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use portcullis_model::Refusal;

use super::server::run;
use crate::git::{Access, Git, Repository, Upstream};

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

fn half_written(mirror: &Repository) -> usize {
    std::fs::read_dir(mirror.mirror_dir().join("objects/pack"))
        .unwrap()
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_str().unwrap().starts_with("tmp_")
        })
        .count()
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
    // And later on.
    fill(1_800_000);
    grow(&upstream, "second", 1_000_000);
    for _ in 0..2 {
        let refusal = mirrored.sync(&Access::None).await.unwrap_err();
        assert_eq!(refusal.code, "disk-full", "{refusal}");
        assert_eq!(mirrored.tip("main").await.unwrap(), tip);
        assert_eq!(half_written(&mirrored), 0);
    }
    std::fs::remove_file(&ballast).unwrap();
    mirrored.sync(&Access::None).await.unwrap();
    assert_eq!(
        mirrored.tip("main").await.unwrap().unwrap().as_str(),
        run(&upstream, &["rev-parse", "HEAD"])
    );
}
