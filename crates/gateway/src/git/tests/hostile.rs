//! Pushes that no honest client makes.

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use super::server::{World, client, ok, run, said, write};
use crate::git::quarantine::PackLimits;

/// Writes an object whatever it holds, and gives its id.
pub(super) fn raw_object(clone: &Path, kind: &str, content: &[u8]) -> String {
    let mut child = std::process::Command::new("git")
        .current_dir(clone)
        .args(["hash-object", "-t", kind, "--literally", "-w", "--stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(content).unwrap();
    let output = child.wait_with_output().unwrap();
    ok(&output);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

pub(super) fn tree_entry(mode: &str, name: &[u8], oid: &str) -> Vec<u8> {
    let mut out = format!("{mode} ").into_bytes();
    out.extend_from_slice(name);
    out.push(0);
    out.extend(portcullis_model::digest::decode_hex(oid).unwrap());
    out
}

/// A commit on top of HEAD with this tree.
pub(super) fn commit_of(clone: &Path, tree: &str) -> String {
    let head = run(clone, &["rev-parse", "origin/main"]);
    let text = format!(
        "tree {tree}\nparent {head}\nauthor Agent <agent@example> 1700000000 +0000\ncommitter Agent <agent@example> 1700000000 +0000\n\nx\n"
    );
    raw_object(clone, "commit", text.as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_trees_do_not_get_in() {
    let world = World::new().await;
    let clone = world.clone_into("clone", &[]).await;
    let blob = raw_object(&clone, "blob", b"x\n");
    let before = world.object_files();
    for (name, code) in [
        (&b".git"[..], "objects-broken"),
        (b".GIT", "objects-broken"),
        (b"..", "objects-broken"),
        (b"a/b", "objects-broken"),
        (b"git~1", "objects-broken"),
        (".g\u{200c}it".as_bytes(), "objects-broken"),
        (b"a\\b", "hostile-path"),
        (b"a\x1b[2J", "hostile-path"),
        ("a\u{202e}b".as_bytes(), "hostile-path"),
        (b"a\xff", "hostile-path"),
    ] {
        let tree = raw_object(&clone, "tree", &tree_entry("100644", name, &blob));
        let commit = commit_of(&clone, &tree);
        let refspec = format!("{commit}:refs/for/main");
        let text = said(&client(&clone, &["push", "origin", &refspec]).await);
        assert!(text.contains(code), "{name:?}: {text}");
        assert_eq!(world.object_files(), before, "{name:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_path_can_not_hide_behind_a_later_commit() {
    let world = World::new().await;
    let clone = world.clone_into("clone", &[]).await;
    world.commit(&clone, "a\\b", "x\n");
    run(&clone, &["rm", "-q", "--", "a\\\\b"]);
    run(&clone, &["commit", "-qm", "gone again"]);
    let text = said(&client(&clone, &["push", "origin", "HEAD:refs/for/main"]).await);
    assert!(text.contains("hostile-path"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_twin_of_what_stands_in_the_tree_does_not_get_in() {
    let world = World::new().await;
    for (n, path) in ["README.md", "DIR/x", "dir/FILE1.txt", "dir/ﬁle1.txt"]
        .into_iter()
        .enumerate()
    {
        let clone = world.clone_into(&format!("clone-{n}"), &[]).await;
        world.commit(&clone, path, "x\n");
        let text = said(&client(&clone, &["push", "origin", "HEAD:refs/for/main"]).await);
        assert!(text.contains("hostile-path"), "{path}: {text}");
        assert!(text.contains("beside"), "{path}: {text}");
    }
    // A file that changes its case is one file.
    let clone = world.clone_into("clone", &[]).await;
    run(&clone, &["mv", "readme.md", "README.md"]);
    run(&clone, &["commit", "-qm", "louder"]);
    ok(&client(&clone, &["push", "origin", "HEAD:refs/for/main"]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_named_in_the_client() {
    let world = World::new().await;
    let clone = world.clone_into("clone", &[]).await;
    let zeros = "0".repeat(3_000_000);
    world.commit(&clone, "bomb.txt", &zeros);
    let before = world.object_files();
    let limits = PackLimits::default();
    for (limits, code) in [
        (
            PackLimits {
                blob_bytes: 1_000_000,
                ..limits
            },
            "object-too-large",
        ),
        (
            PackLimits {
                inflated_bytes: 1_000_000,
                ..limits
            },
            "pack-inflates-too-large",
        ),
        (
            PackLimits {
                objects: 2,
                ..limits
            },
            "pack-too-many-objects",
        ),
        (
            PackLimits {
                pack_bytes: 500,
                ..limits
            },
            "pack-too-large",
        ),
        (
            PackLimits {
                commits: 0,
                ..limits
            },
            "too-many-commits",
        ),
        (
            PackLimits {
                path_depth: 0,
                ..limits
            },
            "path-too-deep",
        ),
        (
            PackLimits {
                time: std::time::Duration::ZERO,
                ..limits
            },
            "push-timeout",
        ),
    ] {
        world.knobs.lock().unwrap().limits = limits;
        let text = said(&client(&clone, &["push", "origin", "HEAD:refs/for/main"]).await);
        assert!(text.contains(code), "{code}: {text}");
        assert!(text.contains("remote:   expected:"), "{text}");
        assert_eq!(world.object_files(), before, "{code}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_that_are_nowhere_are_missed() {
    let world = World::new().await;
    let clone = world.clone_into("clone", &[]).await;
    // A commit whose tree names a blob that only another run has.
    let other = world.clone_into("other", &[]).await;
    world.commit(&other, "secret.txt", "another run's work\n");
    let secret = run(&other, &["rev-parse", "HEAD:secret.txt"]);
    let tree = raw_object(
        &clone,
        "tree",
        &tree_entry("100644", b"stolen.txt", &secret),
    );
    let commit = commit_of(&clone, &tree);
    let base = run(&clone, &["rev-parse", "origin/main"]);
    let list = format!("{commit}\n{tree}\n");
    let pack = pack_objects(&clone, &list);
    let before = world.object_files();
    let answer = post(
        &world,
        &format!("{} {commit} refs/for/main", "0".repeat(40)),
        &pack,
    )
    .await;
    assert!(
        answer.contains("objects-missing") || answer.contains("objects-broken"),
        "{answer}"
    );
    // A new commit that is not in the pack at all.
    let answer = post(
        &world,
        &format!("{base} {} refs/for/main", "7".repeat(40)),
        &pack,
    )
    .await;
    assert!(
        answer.contains("objects-missing") || answer.contains("objects-broken"),
        "{answer}"
    );
    // A pack with a byte turned, and one cut short.
    world.commit(&clone, "y.txt", "y\n");
    let head = run(&clone, &["rev-parse", "HEAD"]);
    let list = run(
        &clone,
        &[
            "rev-list",
            "--objects-edge",
            "HEAD",
            "^origin/main",
            "--no-object-names",
        ],
    );
    let list: String = list
        .lines()
        .filter(|l| !l.starts_with('-'))
        .map(|l| format!("{l}\n"))
        .collect();
    let pack = pack_objects(&clone, &list);
    let command = format!("{} {head} refs/for/main", "0".repeat(40));
    for at in [20, pack.len() / 2, pack.len() - 1] {
        let mut turned = pack.clone();
        turned[at] ^= 0x55;
        let answer = post(&world, &command, &turned).await;
        assert!(answer.contains("ng refs/for/main"), "{at}: {answer}");
    }
    for cut in [1, 11, pack.len() / 2, pack.len() - 1] {
        let answer = post(&world, &command, &pack[..cut]).await;
        assert!(answer.contains("ng refs/for/main"), "{cut}: {answer}");
    }
    assert_eq!(world.object_files(), before);
    // The same pack, whole, is fine: the refusals above were about what they say.
    let answer = post(&world, &command, &pack).await;
    assert!(answer.contains("ok refs/for/main"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_commits_are_proposed() {
    let world = World::new().await;
    let clone = world.clone_into("clone", &[]).await;
    world.commit(&clone, "x.txt", "x\n");
    run(&clone, &["tag", "-a", "-m", "a tag", "annotated"]);
    let before = world.object_files();
    for (source, code) in [
        ("annotated", "not-a-commit"),
        ("HEAD^{tree}", "not-a-commit"),
    ] {
        let refspec = format!("{}:refs/for/main", run(&clone, &["rev-parse", source]));
        let text = said(&client(&clone, &["push", "origin", &refspec]).await);
        assert!(text.contains(code), "{source}: {text}");
        assert_eq!(world.object_files(), before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_no_push() {
    let world = World::new().await;
    let before = world.object_files();
    for body in [
        &b""[..],
        b"0000",
        b"zzzz",
        b"0003",
        b"0009hello",
        b"fff0",
        b"001e# service=git-receive-pack\n0000",
    ] {
        let answer = send(&world, body.to_vec()).await;
        assert!(!answer.contains("ok "), "{answer}");
        assert_eq!(world.object_files(), before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_others_are_seen_exactly() {
    use crate::git::commit::Ident;
    use crate::git::rules::{Role, names_outside};
    let world = World::new().await;
    let clone = world.clone_into("clone", &[]).await;
    world.commit(&clone, "mine.txt", "x\n");
    write(&clone, "theirs.txt", "x\n");
    run(&clone, &["add", "."]);
    run(
        &clone,
        &[
            "commit",
            "-qm",
            "theirs",
            "--author=Jane Doe <jane@example>",
        ],
    );
    ok(&client(&clone, &["push", "-q", "origin", "HEAD:refs/for/main"]).await);
    let objects = world.repository.objects();
    let base = world.repository.tip("main").await.unwrap().unwrap();
    let head = run(&clone, &["rev-parse", "HEAD"]).parse().unwrap();
    let commits = objects.commits_between(&base, &head, 10).await.unwrap();
    assert_eq!(commits.len(), 2);
    assert_eq!(
        objects
            .commits_between(&base, &head, 1)
            .await
            .unwrap_err()
            .code,
        "too-many-commits"
    );
    let infos = objects.commit_infos(&commits).await.unwrap();
    let me = Ident {
        name: "Agent".into(),
        email: "agent@example".into(),
    };
    let foreign = names_outside(&me, &infos);
    assert_eq!(foreign.len(), 1);
    assert_eq!(
        (foreign[0].role, foreign[0].named.name.as_str()),
        (Role::Author, "Jane Doe")
    );
    assert_eq!(foreign[0].commit, head);
}

fn pack_objects(clone: &Path, list: &str) -> Vec<u8> {
    let mut child = std::process::Command::new("git")
        .current_dir(clone)
        .args(["pack-objects", "--stdout", "-q"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(list.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    ok(&output);
    output.stdout
}

async fn post(world: &World, command: &str, pack: &[u8]) -> String {
    let mut body = Vec::new();
    crate::git::pkt::encode(
        format!("{command}\0report-status side-band-64k").as_bytes(),
        &mut body,
    );
    crate::git::pkt::flush(&mut body);
    body.extend_from_slice(pack);
    send(world, body).await
}

async fn send(world: &World, body: Vec<u8>) -> String {
    send_to(&world.url, body).await
}

async fn send_to(url: &str, body: Vec<u8>) -> String {
    use http_body_util::{BodyExt as _, Full};
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http::<Full<bytes::Bytes>>();
    let request = hyper::Request::post(format!("{url}/git-receive-pack"))
        .body(Full::new(bytes::Bytes::from(body)))
        .unwrap();
    let response = client.request(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8_lossy(&body).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_pushes_at_one_branch_at_once_all_arrive() {
    const PUSHES: usize = 100;
    let world = World::new().await;
    let clone = world.clone_into("clone", &[]).await;
    let parent = run(&clone, &["rev-parse", "HEAD"]);
    let tree = run(&clone, &["rev-parse", "HEAD^{tree}"]);
    let zero = "0".repeat(40);
    let mut pushes = tokio::task::JoinSet::new();
    for n in 0..PUSHES {
        let message = format!("change {n}");
        let commit = run(
            &clone,
            &["commit-tree", &tree, "-p", &parent, "-m", &message],
        );
        let pack = pack_objects(&clone, &format!("{commit}\n"));
        let mut body = Vec::new();
        let command = format!("{zero} {commit} refs/for/main\0report-status");
        crate::git::pkt::encode(command.as_bytes(), &mut body);
        crate::git::pkt::flush(&mut body);
        body.extend_from_slice(&pack);
        let url = world.url.clone();
        pushes.spawn(async move { send_to(&url, body).await });
    }
    while let Some(answer) = pushes.join_next().await {
        let answer = answer.unwrap();
        assert!(answer.contains("ok refs/for/main"), "{answer}");
    }
    let mut heads = std::collections::BTreeSet::new();
    for n in 1..=PUSHES {
        let id = portcullis_model::ChangeId(u64::try_from(n).unwrap());
        heads.insert(world.repository.revision(id, 1).await.unwrap().unwrap());
    }
    assert_eq!(heads.len(), PUSHES);
    let quarantine = world.repository.dir().join("quarantine");
    assert_eq!(std::fs::read_dir(quarantine).unwrap().count(), 0);
}
