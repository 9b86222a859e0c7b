//! Stock git against the blocks, over real HTTP.

mod fuzz;
mod hostile;
mod landing;
mod odd;
mod room;
mod server;
mod stock;
mod upkeep;
mod upstream;

use portcullis_model::ChangeId;

use super::checkout::CheckoutLimits;
use super::*;
use server::{World, client, ok, recorded, run, said, write};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_git_clones_in_every_way() {
    let world = World::new().await;
    for (name, options) in [
        ("whole", &["-c", "protocol.version=2"][..]),
        ("old", &["-c", "protocol.version=0"]),
        ("one", &["-c", "protocol.version=1"]),
        ("shallow", &["--depth=1"]),
        ("shallow0", &["--depth=1", "-c", "protocol.version=0"]),
        ("partial", &["--filter=blob:none"]),
        (
            "partial0",
            &["--filter=blob:none", "-c", "protocol.version=0"],
        ),
        ("single", &["--single-branch", "--branch=main"]),
    ] {
        let clone = world.clone_into(name, options).await;
        let text = std::fs::read_to_string(clone.join("readme.md")).unwrap();
        assert_eq!(text, "version 3\n", "{name}");
        if !name.starts_with("shallow") {
            assert_eq!(run(&clone, &["rev-list", "--count", "HEAD"]), "3", "{name}");
        }
    }
    // What the view does not show: the tag, and any other branch.
    let clone = world.root().join("whole");
    assert_eq!(run(&clone, &["tag"]), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_becomes_a_revision_and_can_be_fetched_by_its_run_alone() {
    let world = World::new().await;
    // What filled the mirror is one pack, which clones are copied out of.
    let mirror = world.repository.mirror_dir();
    let count = run(&mirror, &["count-objects", "-v"]);
    assert!(
        count.contains("count: 0\n") && count.contains("packs: 1\n"),
        "{count}"
    );
    let clone = world.clone_into("clone", &[]).await;
    let head = world.commit(&clone, "dir/new.txt", "new\n");
    let output = client(
        &clone,
        &["push", "-o", "topic=x", "origin", "HEAD:refs/for/main"],
    )
    .await;
    ok(&output);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("remote: change 1, revision 1"), "{text}");
    assert!(text.contains("refs/portcullis/changes/1/1"), "{text}");
    assert_eq!(world.pushes.lock().unwrap()[0].option("topic"), Some("x"));
    let standing = world.repository.revision(ChangeId(1), 1).await.unwrap();
    assert_eq!(standing.unwrap().as_str(), head);

    // A second push builds on the first, as a thin pack.
    let next = world.commit(&clone, "dir/new.txt", "newer\n");
    ok(&client(&clone, &["push", "--thin", "origin", "HEAD:refs/for/main"]).await);
    let objects = world.repository.objects();
    let (base, next) = (head.parse().unwrap(), next.parse().unwrap());
    assert!(objects.is_ancestor(&base, &next).await.unwrap());
    assert_eq!(
        objects
            .read_file(&next, "dir/new.txt", 100)
            .await
            .unwrap()
            .unwrap(),
        b"newer\n"
    );

    // Another run's view does not have it, not even by its id.
    let tip = world.repository.tip("main").await.unwrap().unwrap();
    let refs = [fetch::ViewRef::branch("main", tip).unwrap()];
    let other = FetchView::create(&world.repository, "run-8", "main", &refs)
        .await
        .unwrap();
    assert!(!other.objects().has_commit(&next).await.unwrap());
    // Unless it is shown the change.
    let shown = [
        refs[0].clone(),
        fetch::ViewRef {
            name: "refs/portcullis/changes/2/1".into(),
            oid: next.clone(),
        },
    ];
    other.refresh(&shown).await.unwrap();
    assert!(other.objects().has_commit(&next).await.unwrap());
    assert_eq!(other.refs().unwrap().len(), 2);
    let dir = other.dir().to_owned();
    other.remove().unwrap();
    assert!(!dir.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_from_a_shallow_and_from_a_partial_clone_is_whole() {
    let world = World::new().await;
    for (name, option) in [("shallow", "--depth=1"), ("partial", "--filter=blob:none")] {
        let clone = world.clone_into(name, &[option]).await;
        let head = world.commit(&clone, &format!("{name}.txt"), "x\n");
        ok(&client(&clone, &["push", "-q", "origin", "HEAD:refs/for/main"]).await);
        let objects = world.repository.objects();
        let info = objects.commit_info(&head.parse().unwrap()).await.unwrap();
        assert_eq!(info.parents.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn big_requests_come_chunked_and_in_gzip() {
    let world = World::new().await;
    let clone = world
        .clone_into("clone", &["-c", "http.postBuffer=70000"])
        .await;
    // Not compressible, so that it is larger than the post buffer: git probes, then sends chunks.
    let noise: String = (0_u64..40_000)
        .map(|n| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
        .collect();
    world.commit(&clone, "noise.txt", &noise);
    run(&clone, &["config", "http.postBuffer", "70000"]);
    ok(&client(&clone, &["push", "-q", "origin", "HEAD:refs/for/main"]).await);
    // A fetch that has much to tell says it in gzip.
    for n in 0..300 {
        run(
            &clone,
            &["commit", "-q", "--allow-empty", "-m", &format!("c{n}")],
        );
    }
    write(&world.upstream(), "more.txt", "more\n");
    run(&world.upstream(), &["add", "."]);
    run(&world.upstream(), &["commit", "-qm", "more"]);
    let moves = world.repository.sync(&Access::None).await.unwrap();
    assert_eq!(moves.len(), 1);
    let tip = moves[0].new.clone().unwrap();
    world
        .view
        .refresh(&[fetch::ViewRef::branch("main", tip.clone()).unwrap()])
        .await
        .unwrap();
    run(&clone, &["config", "protocol.version", "0"]);
    ok(&client(&clone, &["fetch", "-q"]).await);
    assert_eq!(run(&clone, &["rev-parse", "origin/main"]), tip.as_str());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_denied_says_why_and_leaves_nothing() {
    let world = World::new().await;
    let clone = world.clone_into("clone", &[]).await;
    world.commit(&clone, "x.txt", "x\n");
    run(&clone, &["tag", "v2"]);
    let before = world.object_files();
    for (args, words) in [
        (
            &["push", "origin", "HEAD:refs/heads/main"][..],
            "move of `main` is denied",
        ),
        (
            &["push", "--force", "origin", "HEAD~2:refs/heads/main"],
            "move of `main` is denied",
        ),
        (
            &["push", "origin", "HEAD:refs/heads/other"],
            "create of `other` is denied",
        ),
        (
            &["push", "origin", ":refs/heads/main"],
            "delete of `main` is denied",
        ),
        (&["push", "origin", "v2"], "tag of `v2` is denied"),
        (
            &[
                "push",
                "--atomic",
                "origin",
                "HEAD:refs/for/main",
                "HEAD:refs/heads/b",
            ],
            "create of `b` is denied",
        ),
        (
            &["push", "origin", "HEAD:refs/portcullis/changes/9/9"],
            "is denied",
        ),
        (
            &["push", "-o", "dry-run", "origin", "HEAD:refs/for/main"],
            "it would be accepted",
        ),
    ] {
        let text = said(&client(&clone, args).await);
        assert!(
            text.contains(&format!("remote: portcullis: {}", words)) || text.contains(words),
            "{text}"
        );
        assert!(text.contains("[remote rejected]"), "{text}");
        assert!(text.contains("remote:   code:"), "{text}");
        assert_eq!(world.object_files(), before, "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_push_is_read_with_its_nonce() {
    let world = World::new().await;
    let clone = world.clone_into("clone", &[]).await;
    world.commit(&clone, "x.txt", "x\n");
    world.knobs.lock().unwrap().nonce = Some("nonce-17".into());
    let key = world.root().join("key");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .status();
    assert!(made.unwrap().success());
    run(&clone, &["config", "gpg.format", "ssh"]);
    run(
        &clone,
        &["config", "user.signingkey", key.to_str().unwrap()],
    );
    ok(&client(
        &clone,
        &["push", "--signed", "-q", "origin", "HEAD:refs/for/main"],
    )
    .await);
    let header = world.pushes.lock().unwrap()[0].clone();
    let certificate = header.certificate.unwrap();
    assert_eq!(certificate.nonce.as_deref(), Some("nonce-17"));
    assert_eq!(certificate.commands, header.commands);
    // The payload and the armor are exactly what ssh-keygen verifies.
    let signature = world.root().join("sig");
    std::fs::write(&signature, &certificate.signature).unwrap();
    let payload = world.root().join("payload");
    std::fs::write(&payload, &certificate.payload).unwrap();
    let status = std::process::Command::new("ssh-keygen")
        .args(["-Y", "check-novalidate", "-n", "git", "-s"])
        .arg(&signature)
        .stdin(std::fs::File::open(&payload).unwrap())
        .status();
    assert!(status.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sha256_repositories_work_alike() {
    let world = World::with_format("sha256").await;
    let clone = world.clone_into("clone", &[]).await;
    let head = world.commit(&clone, "x/y.txt", "x\n");
    assert_eq!(head.len(), 64);
    ok(&client(&clone, &["push", "-q", "origin", "HEAD:refs/for/main"]).await);
    let base = world.repository.tip("main").await.unwrap().unwrap();
    let objects = world.repository.objects();
    let head = head.parse().unwrap();
    let tree = objects.commit_info(&head).await.unwrap().tree;
    assert_eq!(objects.recompute_tree(&base, &head).await.unwrap(), tree);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trees_are_recomputed_and_manifests_follow_content() {
    let world = World::new().await;
    let clone = world.clone_into("clone", &[]).await;
    // Everything that a diff can do: a file becomes a directory and back, modes, links, deletion.
    run(&clone, &["rm", "-q", "dir/file1.txt"]);
    write(&clone, "dir/file1.txt/inner.txt", "now a directory\n");
    run(&clone, &["rm", "-q", "readme.md"]);
    write(&clone, "run.sh", "#!/bin/sh\n");
    std::os::unix::fs::symlink("/etc/passwd", clone.join("link")).unwrap();
    run(&clone, &["add", "."]);
    run(&clone, &["update-index", "--chmod=+x", "run.sh"]);
    run(&clone, &["commit", "-qm", "shapes"]);
    let first = run(&clone, &["rev-parse", "HEAD"]);
    run(&clone, &["rm", "-qr", "dir"]);
    write(&clone, "dir", "now a file\n");
    world.commit(&clone, "a0", "sorts after a/\n");
    let second = world.commit(&clone, "a/b/c", "deep\n");
    ok(&client(&clone, &["push", "-q", "origin", "HEAD:refs/for/main"]).await);
    let objects = world.repository.objects();
    let base = world.repository.tip("main").await.unwrap().unwrap();
    let (first, second) = (first.parse().unwrap(), second.parse().unwrap());
    for (from, to) in [
        (&base, &first),
        (&first, &second),
        (&base, &second),
        (&second, &base),
    ] {
        let tree = objects.commit_info(to).await.unwrap().tree;
        assert_eq!(objects.recompute_tree(from, to).await.unwrap(), tree);
    }
    // The manifest, computed here by other means.
    let mut expected = portcullis_model::digest::Hasher::default();
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let raw = run(
        &clone,
        &[
            "diff-tree",
            "-r",
            "--raw",
            "--no-renames",
            "--no-abbrev",
            base.as_str(),
            first.as_str(),
        ],
    );
    for record in raw.lines() {
        let (head, path) = record.split_once('\t').unwrap();
        let words: Vec<&str> = head.trim_start_matches(':').split(' ').collect();
        let content = if words[1] == "000000" {
            "0".repeat(64)
        } else {
            let output = client(&clone, &["cat-file", "blob", words[3]]).await;
            portcullis_model::Digest::of(&output.stdout).hex()
        };
        lines.push(
            format!("{path}\0{} {} {} {content}\n", words[0], words[2], words[1]).into_bytes(),
        );
    }
    lines.sort();
    lines.iter().for_each(|line| expected.update(line));
    assert_eq!(
        objects.manifest(&base, &first).await.unwrap(),
        expected.finish()
    );
    assert_ne!(
        objects.manifest(&base, &first).await.unwrap(),
        objects.manifest(&base, &second).await.unwrap()
    );
    // The diff is one that the checks read.
    let diff = objects.diff(&base, &first).await.unwrap();
    let diff = portcullis_checks::diff::parse(&diff).unwrap();
    assert_eq!(diff.files.len(), lines.len());

    // A checkout writes exactly the tree, and does not follow the link.
    let out = world.root().join("out");
    objects
        .checkout(&first, &out, CheckoutLimits::default())
        .await
        .unwrap();
    assert_eq!(
        std::fs::read_link(out.join("link")).unwrap().to_str(),
        Some("/etc/passwd")
    );
    assert_eq!(
        std::fs::read_to_string(out.join("dir/file1.txt/inner.txt")).unwrap(),
        "now a directory\n"
    );
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(
        std::fs::metadata(out.join("run.sh"))
            .unwrap()
            .permissions()
            .mode()
            & 0o111,
        0o111
    );
    assert!(!out.join(".git").exists() && !out.join("readme.md").exists());
    assert!(
        objects
            .checkout(&first, &out, CheckoutLimits::default())
            .await
            .is_err()
    );
    // Reading does not follow it either.
    assert_eq!(objects.read_file(&first, "link", 100).await.unwrap(), None);
    assert_eq!(objects.read_file(&first, "dir", 100).await.unwrap(), None);
    assert_eq!(objects.read_file(&first, "../x", 100).await.unwrap(), None);
    let small = CheckoutLimits {
        entries: 2,
        ..CheckoutLimits::default()
    };
    let other = world.root().join("small");
    assert_eq!(
        objects
            .checkout(&first, &other, small)
            .await
            .unwrap_err()
            .code,
        "checkout-too-large"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_finds_everything_and_no_leftovers() {
    let world = World::new().await;
    let clone = world.clone_into("clone", &[]).await;
    world.commit(&clone, "x.txt", "x\n");
    ok(&client(&clone, &["push", "-q", "origin", "HEAD:refs/for/main"]).await);
    let stale = world.repository.dir().join("quarantine/incoming-x");
    std::fs::create_dir_all(&stale).unwrap();
    let again = Repository::open_or_create(
        &world.git,
        world.repository.dir(),
        Upstream::Path(world.upstream()),
        &Access::None,
    )
    .await
    .unwrap();
    assert!(!stale.exists());
    assert!(again.revision(ChangeId(1), 1).await.unwrap().is_some());
    assert!(again.revision(ChangeId(1), 2).await.unwrap().is_none());
    assert_eq!(again.default_branch().await.unwrap(), "main");
    let _ = recorded().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_at_once_do_not_lose_each_other() {
    let world = World::new().await;
    let mut clones = Vec::new();
    for n in 0..6 {
        let clone = world.clone_into(&format!("clone{n}"), &[]).await;
        world.commit(&clone, &format!("file{n}.txt"), "x\n");
        clones.push(clone);
    }
    let mut tasks = tokio::task::JoinSet::new();
    for clone in clones {
        tasks.spawn(async move {
            client(&clone, &["push", "-q", "origin", "HEAD:refs/for/main"]).await
        });
    }
    while let Some(output) = tasks.join_next().await {
        ok(&output.unwrap());
    }
    for n in 1..=6 {
        assert!(
            world
                .repository
                .revision(ChangeId(n), 1)
                .await
                .unwrap()
                .is_some(),
            "{n}"
        );
    }
    assert_eq!(world.view.refs().unwrap().len(), 7);
    let again = FetchView::open(&world.repository, "run-7")
        .unwrap()
        .unwrap();
    assert_eq!(again.refs().unwrap(), world.view.refs().unwrap());
    assert!(
        FetchView::open(&world.repository, "run-9")
            .unwrap()
            .is_none()
    );
    assert!(FetchView::open(&world.repository, "../run-7").is_err());
    let quarantine = world.repository.dir().join("quarantine");
    assert_eq!(std::fs::read_dir(quarantine).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_is_named_once() {
    use crate::git::quarantine::{PackLimits, Quarantine, RevisionRef};
    let world = World::new().await;
    let clone = world.clone_into("clone", &[]).await;
    let head = world.commit(&clone, "x.txt", "x\n");
    ok(&client(&clone, &["push", "-q", "origin", "HEAD:refs/for/main"]).await);
    let commands = world.pushes.lock().unwrap()[0].commands.clone();
    let limits = PackLimits::default();
    let receive = || async {
        // Nothing new: the view holds the objects since the push.
        Quarantine::receive(&world.view, &commands, &mut tokio::io::empty(), limits)
            .await
            .unwrap()
    };
    let first = RevisionRef {
        change: ChangeId(1),
        revision: 1,
        head: head.parse().unwrap(),
    };
    receive()
        .await
        .migrate(recorded().await, std::slice::from_ref(&first))
        .await
        .unwrap();
    let tip = world.repository.tip("main").await.unwrap().unwrap();
    let other = RevisionRef { head: tip, ..first };
    let refusal = receive()
        .await
        .migrate(recorded().await, &[other])
        .await
        .unwrap_err();
    assert_eq!(refusal.code, "revision-exists");
    assert_eq!(
        world
            .repository
            .revision(ChangeId(1), 1)
            .await
            .unwrap()
            .unwrap()
            .as_str(),
        head
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_diff_does_not_show_is_seen_by_the_recomputed_tree() {
    let world = World::new().await;
    let clone = world.clone_into("clone", &[]).await;
    // A tree with an empty directory in it: no diff shows that.
    let empty = run(&clone, &["hash-object", "-t", "tree", "-w", "/dev/null"]);
    let list = format!(
        "{}\n040000 tree {empty}\tghost\n",
        run(&clone, &["ls-tree", "HEAD"])
    );
    let file = world.root().join("list");
    std::fs::write(&file, list).unwrap();
    let output = std::process::Command::new("git")
        .current_dir(&clone)
        .arg("mktree")
        .stdin(std::fs::File::open(&file).unwrap())
        .output()
        .unwrap();
    ok(&output);
    let tree = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let head = run(&clone, &["commit-tree", "-p", "HEAD", "-m", "ghost", &tree]);
    ok(&client(
        &clone,
        &["push", "-q", "origin", &format!("{head}:refs/for/main")],
    )
    .await);
    let objects = world.repository.objects();
    let base = world.repository.tip("main").await.unwrap().unwrap();
    let head = head.parse().unwrap();
    assert!(objects.raw_entries(&base, &head).await.unwrap().is_empty());
    assert_ne!(
        objects.recompute_tree(&base, &head).await.unwrap().as_str(),
        tree
    );
    let land = land::Land {
        branch: "main".into(),
        old: base,
        new: head,
        tree: tree.parse().unwrap(),
        diff_of: None,
    };
    let landed = world
        .repository
        .land(recorded().await, &land, &Access::None)
        .await;
    let land::Landed::Failed(refusal) = landed else {
        panic!("{landed:?}")
    };
    assert_eq!(refusal.code, "landing-mismatch");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_over_http_is_asked_with_the_password_that_we_hold() {
    let world = World::new().await;
    // `user:hunter2` in base64.
    world.knobs.lock().unwrap().authorization = Some("Basic dXNlcjpodW50ZXIy".into());
    let upstream: Upstream = world.url.parse().unwrap();
    let password = |text: &str| Access::Password {
        username: "user".into(),
        password: crate::http::Credential::new(text.into()),
    };
    let dir = world.root().join("mirror-of-http");
    for access in [Access::None, password("wrong")] {
        let refusal = Repository::open_or_create(&world.git, &dir, upstream.clone(), &access)
            .await
            .unwrap_err();
        assert_eq!(refusal.code, "upstream-refused", "{refusal}");
    }
    let right = password("hunter2");
    let mirror = Repository::open_or_create(&world.git, &dir, upstream, &right)
        .await
        .unwrap();
    assert_eq!(
        mirror.tip("main").await.unwrap(),
        world.repository.tip("main").await.unwrap()
    );
    assert_eq!(
        mirror.observe("main", &right).await.unwrap(),
        mirror.tip("main").await.unwrap()
    );
    // The secret is in no file of ours.
    let found = std::process::Command::new("grep")
        .args(["-r", "hunter2"])
        .arg(world.root())
        .output()
        .unwrap();
    assert!(found.stdout.is_empty(), "{found:?}");
    world.knobs.lock().unwrap().authorization = Some("Basic other".into());
    assert_eq!(
        mirror.sync(&right).await.unwrap_err().code,
        "upstream-refused"
    );
    assert!(mirror.tip("main").await.unwrap().is_some());
}
