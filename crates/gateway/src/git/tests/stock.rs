//! Every git on this machine as a client, unchanged: the ways of cloning, fetching and pushing that
//! people and agents have, by each version of the protocol.

use std::path::{Path, PathBuf};
use std::process::Output;

use super::server::{World, client_by, ok, recorded, run, said, write};
use crate::git::fetch::{FetchView, ViewRef};
use crate::git::{Access, Git, Repository, Upstream};

/// The gits that are installed, each version once.
fn gits() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut known = Vec::new();
    let mut found = Vec::new();
    let more = ["/usr/local/bin", "/usr/bin", "/bin", "/opt/git/bin"].map(PathBuf::from);
    for program in std::env::split_paths(&path)
        .chain(more)
        .map(|folder| folder.join("git"))
        .filter(|file| file.is_file())
    {
        let said = std::process::Command::new(&program).arg("version").output();
        let version = said.map(|said| said.stdout).unwrap_or_default();
        if !version.is_empty() && !known.contains(&version) {
            known.push(version);
            found.push(program);
        }
    }
    assert!(!found.is_empty());
    found
}

struct Client {
    program: PathBuf,
    protocol: String,
}

impl Client {
    /// The first git that is found, with the newest protocol.
    fn first() -> Self {
        Self::speaking(gits().remove(0), 2)
    }

    fn speaking(program: PathBuf, protocol: u8) -> Self {
        Self {
            program,
            protocol: format!("protocol.version={protocol}"),
        }
    }

    async fn call(&self, dir: &Path, args: &[&str]) -> Output {
        let mut all = vec!["-c", self.protocol.as_str()];
        all.extend(args);
        client_by(&self.program, dir, &all).await
    }

    async fn must(&self, dir: &Path, args: &[&str]) -> String {
        let output = self.call(dir, args).await;
        ok(&output);
        let both = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&both).trim().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_git_clones_fetches_and_pushes_by_every_protocol() {
    let world = World::new().await;
    let key = world.root().join("key");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .status();
    assert!(made.unwrap().success());
    let mut number = 0;
    for program in gits() {
        for protocol in 0..=2 {
            number += 1;
            let client = Client::speaking(program.clone(), protocol);
            every_way(&world, &client, number, key.to_str().unwrap()).await;
        }
    }
}

async fn every_way(world: &World, git: &Client, number: u32, key: &str) {
    let root = world.root();
    let here = format!("{} by {}", git.program.display(), git.protocol);
    let name = |what: &str| format!("{what}-{number}");
    // Whole, shallow and deepened, partial with content fetched when it is needed.
    let whole = root.join(name("whole"));
    git.must(root, &["clone", "-q", &world.url, &name("whole")])
        .await;
    let shallow = root.join(name("shallow"));
    git.must(
        root,
        &["clone", "-q", "--depth=1", &world.url, &name("shallow")],
    )
    .await;
    assert_eq!(
        run(&shallow, &["rev-list", "--count", "HEAD"]),
        "1",
        "{here}"
    );
    git.must(&shallow, &["fetch", "-q", "--unshallow"]).await;
    let commits = run(&whole, &["rev-list", "--count", "HEAD"]);
    assert_eq!(
        run(&shallow, &["rev-list", "--count", "HEAD"]),
        commits,
        "{here}"
    );
    let partial = root.join(name("partial"));
    git.must(
        root,
        &[
            "clone",
            "-q",
            "--filter=blob:none",
            "--no-checkout",
            &world.url,
            &name("partial"),
        ],
    )
    .await;
    git.must(&partial, &["checkout", "-q", "main"]).await;
    let old = git.must(&partial, &["show", "main~1:readme.md"]).await;
    assert!(old.starts_with("version"), "{here}: {old}");
    // What upstream gets is fetched, by the same clones.
    write(
        &world.upstream(),
        "readme.md",
        &format!("version {number}\n"),
    );
    run(&world.upstream(), &["commit", "-qam", "more"]);
    world.repository.sync(&Access::None).await.unwrap();
    let tip = world.repository.tip("main").await.unwrap().unwrap();
    let shown = [ViewRef::branch("main", tip.clone()).unwrap()];
    world.view.update(&shown, &[]).await.unwrap();
    for clone in [&whole, &shallow, &partial] {
        git.must(clone, &["pull", "-q", "--ff-only"]).await;
        assert_eq!(run(clone, &["rev-parse", "HEAD"]), tip.as_str(), "{here}");
    }
    // Pushes: with options, atomic, signed, for programs to read.
    let commit = |clone: &Path, file: &str| world.commit(clone, &name(file), file);
    commit(&whole, "a");
    let told = git
        .must(
            &whole,
            &["push", "-o", "topic=x", "origin", "HEAD:refs/for/main"],
        )
        .await;
    assert!(told.contains("revision 1"), "{here}: {told}");
    let header = world.pushes.lock().unwrap().last().unwrap().clone();
    assert_eq!(header.option("topic"), Some("x"), "{here}");
    commit(&shallow, "b");
    git.must(
        &shallow,
        &["push", "-q", "--atomic", "origin", "HEAD:refs/for/main"],
    )
    .await;
    assert!(
        world
            .pushes
            .lock()
            .unwrap()
            .last()
            .unwrap()
            .capabilities
            .atomic
    );
    world.knobs.lock().unwrap().nonce = Some(format!("nonce-{number}"));
    commit(&partial, "c");
    run(&partial, &["config", "gpg.format", "ssh"]);
    run(&partial, &["config", "user.signingkey", key]);
    git.must(
        &partial,
        &["push", "-q", "--signed", "origin", "HEAD:refs/for/main"],
    )
    .await;
    let header = world.pushes.lock().unwrap().last().unwrap().clone();
    let nonce = header.certificate.unwrap().nonce;
    assert_eq!(nonce, Some(format!("nonce-{number}")), "{here}");
    world.knobs.lock().unwrap().nonce = None;
    let porcelain = git
        .call(
            &whole,
            &[
                "push",
                "--porcelain",
                "origin",
                "HEAD:refs/heads/main",
                "HEAD:refs/for/x",
            ],
        )
        .await;
    let lines = String::from_utf8_lossy(&porcelain.stdout).into_owned();
    for line in [
        "!\tHEAD:refs/heads/main\t[remote rejected] (move of `main` is denied)",
        "!\tHEAD:refs/for/x\t[remote rejected] (move of `main` is denied)",
    ] {
        assert!(lines.lines().any(|one| one == line), "{here}: {lines}");
    }
    let deleted = said(
        &git.call(&whole, &["push", "origin", ":refs/heads/main"])
            .await,
    );
    assert!(deleted.contains("delete of `main` is denied"), "{here}");
    // Nothing to push is no error, and a wrong place is told in a sentence.
    let missing = format!("{}/nowhere", world.url);
    let told = said(&git.call(root, &["ls-remote", &missing]).await);
    assert!(told.contains("fatal:"), "{here}: {told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_asked_for_and_a_wrong_one_is_told() {
    let world = World::new().await;
    // "name:right" as Basic authentication writes it.
    world.knobs.lock().unwrap().authorization = Some("Basic bmFtZTpyaWdodA==".to_owned());
    let with = |secret: &str| {
        world
            .url
            .replace("http://", &format!("http://name:{secret}@"))
    };
    for program in gits() {
        let git = Client::speaking(program, 2);
        let (right, wrong) = (with("right"), with("wrong"));
        let refs = git.must(world.root(), &["ls-remote", &right]).await;
        assert!(refs.contains("refs/heads/main"), "{refs}");
        let told = said(&git.call(world.root(), &["ls-remote", &wrong]).await);
        assert!(told.contains("Authentication failed"), "{told}");
        assert!(!told.contains("wrong@"), "{told}");
        let told = said(&git.call(world.root(), &["ls-remote", &world.url]).await);
        assert!(told.contains("could not read Username"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_refs_are_listed_and_fetched_and_pushed_beside() {
    let world = World::new().await;
    let tip = world.repository.tip("main").await.unwrap().unwrap();
    let mut refs = vec![ViewRef::branch("main", tip.clone()).unwrap()];
    refs.extend(
        (0..12_000).map(|n| ViewRef::branch(&format!("topic/{n:05}"), tip.clone()).unwrap()),
    );
    world.view.refresh(&refs).await.unwrap();
    for program in gits() {
        for protocol in [0, 2] {
            let git = Client::speaking(program.clone(), protocol);
            let listed = git
                .must(world.root(), &["ls-remote", "--heads", &world.url])
                .await;
            assert_eq!(listed.lines().count(), 12_001);
            let one = git
                .must(
                    world.root(),
                    &["ls-remote", &world.url, "refs/heads/topic/00042"],
                )
                .await;
            assert_eq!(one.lines().count(), 1);
        }
    }
    let clone = world.clone_into("clone", &[]).await;
    let all = run(&clone, &["for-each-ref", "refs/remotes/origin/topic"]);
    assert_eq!(all.lines().count(), 12_000);
    world.commit(&clone, "x", "x");
    let git = Client::first();
    git.must(&clone, &["push", "-q", "origin", "HEAD:refs/for/main"])
        .await;
}

/// Most memory that this process ever had, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_big_pack_goes_in_and_out_without_being_held_in_memory() {
    const MIB: usize = 1024 * 1024;
    let world = World::new().await;
    let clone = world.clone_into("clone", &[]).await;
    // What does not compress, in pieces within the bound for one object.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for file in 0..3 {
        let mut noise = Vec::with_capacity(16 * MIB);
        while noise.len() < 16 * MIB {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            noise.extend_from_slice(&state.to_le_bytes());
        }
        std::fs::write(clone.join(format!("noise-{file}")), noise).unwrap();
    }
    run(&clone, &["config", "core.compression", "0"]);
    run(&clone, &["add", "."]);
    run(&clone, &["commit", "-qm", "noise"]);
    let before = peak_kib();
    let git = Client::first();
    git.must(&clone, &["push", "-q", "origin", "HEAD:refs/for/main"])
        .await;
    let again = world.root().join("again");
    let head = run(&clone, &["rev-parse", "HEAD"]);
    git.must(world.root(), &["init", "-q", "again"]).await;
    git.must(&again, &["fetch", "-q", &world.url, &head]).await;
    assert_eq!(run(&again, &["rev-parse", "FETCH_HEAD"]), head);
    let grown = peak_kib().saturating_sub(before);
    assert!(
        grown < 24 * 1024,
        "48 MiB went through, and {grown} KiB were held"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_ref_of_ours_moves_by_another_way_than_ours() {
    let world = World::new().await;
    let clone = world.clone_into("clone", &[]).await;
    let head = world.commit(&clone, "x", "x");
    let git = Client::first();
    git.must(&clone, &["push", "-q", "origin", "HEAD:refs/for/main"])
        .await;
    let [mirror, changes] = [
        world.repository.mirror_dir(),
        world.repository.changes_dir(),
    ];
    let view = world.view.dir().to_owned();
    let listed = |dir: &Path| run(dir, &["for-each-ref"]);
    for dir in [&mirror, &changes, &view] {
        let place = dir.to_str().unwrap();
        let before = listed(dir);
        let tip = run(&mirror, &["rev-parse", "main~1"]);
        for program in gits() {
            let git = Client::speaking(program, 2);
            for words in [
                &["-C", place, "update-ref", "refs/heads/main", &tip][..],
                &["-C", place, "update-ref", "refs/heads/other", &tip],
                &["-C", place, "branch", "-f", "other", &tip],
                &[
                    "-C",
                    place,
                    "fetch",
                    "-q",
                    clone.to_str().unwrap(),
                    "+HEAD:refs/heads/main",
                ],
                &["push", "-q", "--force", place, "HEAD:refs/heads/main"],
                &["push", "-q", place, "HEAD:refs/heads/other"],
                &["push", "-q", place, ":refs/heads/main"],
            ] {
                let output = git.call(&clone, words).await;
                assert!(!output.status.success(), "{words:?}");
                let told = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(
                    [
                        "refs here move by the server alone",
                        "not exist",
                        "is denied"
                    ]
                    .iter()
                    .any(|words| told.contains(words)),
                    "{words:?}: {told}"
                );
                assert_eq!(listed(dir), before, "{words:?}");
            }
        }
    }
    // The server's own ways go on.
    run(
        &world.upstream(),
        &["commit", "-q", "--allow-empty", "-m", "more"],
    );
    assert_eq!(world.repository.sync(&Access::None).await.unwrap().len(), 1);
    let shown = ViewRef {
        name: "refs/portcullis/x".to_owned(),
        oid: head.parse().unwrap(),
    };
    world.view.update(&[shown], &[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_are_per_run_and_none_gives_out_what_is_anothers() {
    let world = World::new().await;
    let clone = world.clone_into("clone", &[]).await;
    let head = world.commit(&clone, "x", "x");
    let git = Client::first();
    git.must(&clone, &["push", "-q", "origin", "HEAD:refs/for/main"])
        .await;
    let blob = run(&clone, &["rev-parse", "HEAD:x"]);
    let tip = world.repository.tip("main").await.unwrap().unwrap();
    let refs = [ViewRef::branch("main", tip).unwrap()];
    let other = FetchView::create(&world.repository, "run-8", "main", &refs)
        .await
        .unwrap();
    let url = super::server::serve(other, world.knobs.clone(), world.pushes.clone()).await;
    for protocol in 0..=2 {
        for program in gits() {
            let git = Client {
                program,
                protocol: format!("protocol.version={protocol}"),
            };
            for wanted in [&head, &blob] {
                let fetched = git
                    .call(&world.upstream(), &["fetch", "-q", &url, wanted])
                    .await;
                let told = said(&fetched);
                assert!(
                    told.contains("not our ref") || told.contains("remote error"),
                    "{told}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_goes_back_only_from_where_its_landing_put_it() {
    use crate::git::land::{Landed, TakeBack};
    let world = World::new().await;
    let bare = world.root().join("bare.git");
    run(
        world.root(),
        &[
            "clone",
            "-q",
            "--bare",
            world.upstream().to_str().unwrap(),
            "bare.git",
        ],
    );
    let git = Git::open(&world.root().join("home")).await.unwrap();
    let repository = Repository::open_or_create(
        &git,
        &world.root().join("second"),
        Upstream::Path(bare.clone()),
        &Access::None,
    )
    .await
    .unwrap();
    let at = |name: &str| run(&bare, &["rev-parse", name]);
    let (new, old) = (at("main"), at("main~1"));
    let back = TakeBack {
        branch: "main".to_owned(),
        from: new.parse().unwrap(),
        to: old.parse().unwrap(),
    };
    let take = async || {
        repository
            .take_back(recorded().await, &back, &Access::None)
            .await
    };
    assert!(matches!(take().await, Landed::Done { .. }));
    assert_eq!(at("main"), old);
    assert_eq!(
        repository.tip("main").await.unwrap().unwrap().as_str(),
        old,
        "the mirror shows it"
    );
    // Twice is once.
    assert!(matches!(take().await, Landed::Done { .. }));
    // Somebody built on it meanwhile: their work stays.
    run(&bare, &["update-ref", "refs/heads/main", &new]);
    let clone = world.root().join("theirs");
    run(world.root(), &["clone", "-q", "bare.git", "theirs"]);
    let theirs = world.commit(&clone, "y", "y");
    run(&clone, &["push", "-q", "origin", "HEAD:main"]);
    match take().await {
        Landed::Failed(refusal) => assert_eq!(refusal.code, "branch-moved"),
        other => panic!("{other:?}"),
    }
    assert_eq!(at("main"), theirs);
    // Nobody answers: nobody knows.
    std::fs::rename(&bare, world.root().join("away.git")).unwrap();
    assert!(matches!(take().await, Landed::Unknown(_)));
}
