//! Stores over time: packs are put together beside everything that goes on, and nothing is lost;
//! upstreams that can't be mirrored are refused in words and leave nothing half done.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::server::{World, client, ok, run, write};
use crate::git::{Access, Git, Repository, Upstream};

fn objects_of(store: &Path) -> BTreeSet<String> {
    let all = ["cat-file", "--batch-all-objects", "--batch-check"];
    run(store, &all).lines().map(str::to_owned).collect()
}

fn packs_of(store: &Path) -> usize {
    std::fs::read_dir(store.join("objects/pack"))
        .unwrap()
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_str().unwrap().ends_with(".pack")
        })
        .count()
}

fn loose_of(store: &Path) -> usize {
    let counted = run(store, &["count-objects"]);
    counted.split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packs_are_put_together_beside_pushes_and_clones_and_nothing_is_lost() {
    let world = World::new().await;
    let (mirror, changes) = (
        world.repository.mirror_dir(),
        world.repository.changes_dir(),
    );
    // History that the upstream gave up, which the ledger may name: no ref holds it any more.
    let first = world.repository.tip("main").await.unwrap().unwrap();
    run(
        &world.upstream(),
        &["commit", "-q", "--amend", "-m", "again"],
    );
    world.repository.sync(&Access::None).await.unwrap();
    for n in 0..4 {
        write(&world.upstream(), "readme.md", &format!("later {n}\n"));
        run(&world.upstream(), &["commit", "-qam", "later"]);
        world.repository.sync(&Access::None).await.unwrap();
    }
    let push = async |n: usize| {
        let clone = world.clone_into(&format!("clone-{n}"), &[]).await;
        world.commit(&clone, &format!("file-{n}"), "x\n");
        ok(&client(&clone, &["push", "-q", "origin", "HEAD:refs/for/main"]).await);
    };
    for n in 0..3 {
        push(n).await;
    }
    // What is fetched stays in packs, however little it is.
    assert!(packs_of(&changes) >= 3 && packs_of(&mirror) >= 6);
    assert_eq!(loose_of(&mirror), 0);
    let held = [objects_of(&mirror), objects_of(&changes)];
    // Few are left as they are.
    assert_eq!(world.repository.tidy().await.unwrap(), 0);
    // A killed git's leftovers go after a day, and not before.
    let half = changes.join("objects/pack/tmp_pack_half");
    let fresh = changes.join("objects/pack/tmp_pack_fresh");
    for file in [&half, &fresh] {
        std::fs::write(file, "half").unwrap();
    }
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(3 * 24 * 60 * 60);
    let file = std::fs::File::options().write(true).open(&half).unwrap();
    file.set_modified(long_ago).unwrap();
    // Again and again, while others clone and push.
    let tidy = async {
        for _ in 0..6 {
            world.repository.tidy_beyond(0, 0).await.unwrap();
        }
    };
    let work = async {
        for n in 3..7 {
            push(n).await;
        }
    };
    // Another that is told to do the same, and looks upstream.
    let others = async {
        for _ in 0..6 {
            world.repository.tidy_beyond(0, 0).await.unwrap();
            world.repository.sync(&Access::None).await.unwrap();
        }
    };
    tokio::join!(tidy, others, work);
    world.repository.tidy_beyond(0, 0).await.unwrap();
    assert!(!half.exists() && fresh.exists());
    assert_eq!((packs_of(&mirror), packs_of(&changes)), (1, 1));
    assert_eq!((loose_of(&mirror), loose_of(&changes)), (0, 0));
    let after = [objects_of(&mirror), objects_of(&changes)];
    for (before, after) in held.iter().zip(&after) {
        // What changes.git held and the mirror holds is reached through the mirror.
        assert!(before.is_subset(after), "{:?}", before.difference(after));
    }
    assert!(world.repository.objects().has_commit(&first).await.unwrap());
    for n in 1..=7 {
        let id = portcullis_model::ChangeId(n);
        let head = world.repository.revision(id, 1).await.unwrap().unwrap();
        assert!(world.repository.objects().has_commit(&head).await.unwrap());
    }
    run(&changes, &["fsck", "--strict", "--no-dangling"]);
    world.clone_into("last", &[]).await;
}

async fn mirror(world: &World, upstream: &Path) -> Result<Repository, portcullis_model::Refusal> {
    Repository::open_or_create(
        &world.git,
        &world.root().join("second"),
        Upstream::Path(upstream.to_owned()),
        &Access::None,
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shallow_upstream_is_refused_until_it_is_whole() {
    let world = World::new().await;
    let upstream = format!("file://{}", world.upstream().display());
    run(
        world.root(),
        &["clone", "-q", "--depth=1", &upstream, "shallow"],
    );
    let shallow = world.root().join("shallow");
    for _ in 0..2 {
        let refusal = mirror(&world, &shallow).await.unwrap_err();
        assert_eq!(refusal.code, "upstream-shallow");
        assert!(refusal.next.unwrap().contains("--unshallow"));
    }
    run(&shallow, &["fetch", "-q", "--unshallow"]);
    let whole = mirror(&world, &shallow).await.unwrap();
    assert!(whole.tip("main").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_upstream_says_how_it_names_objects_and_which_branch_is_to_come() {
    let world = World::new().await;
    let empty = world.root().join("empty");
    run(
        world.root(),
        &[
            "init",
            "-q",
            "-b",
            "trunk",
            "--object-format=sha256",
            "empty",
        ],
    );
    let mirrored = mirror(&world, &empty).await.unwrap();
    assert_eq!(mirrored.format(), crate::git::tree::ObjectFormat::Sha256);
    assert_eq!(mirrored.default_branch().await.unwrap(), "trunk");
    // What comes first is fetched.
    write(&empty, "a", "a\n");
    run(&empty, &["add", "."]);
    run(&empty, &["commit", "-qm", "first"]);
    mirrored.sync(&Access::None).await.unwrap();
    assert_eq!(
        mirrored.tip("trunk").await.unwrap().unwrap().as_str(),
        run(&empty, &["rev-parse", "HEAD"])
    );
    let left: Vec<_> = std::fs::read_dir(world.root().join("second"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_str().unwrap().starts_with("look-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_takes_the_call_and_says_nothing_is_given_up_in_words() {
    let root = tempfile::tempdir().unwrap();
    let git = Git::impatient(&root.path().join("home"), Duration::from_secs(1)).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // It takes every connection, and holds it.
    let held = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(stream);
        }
    });
    for upstream in [
        format!("http://{address}/shop.git"),
        format!("ssh://git@{address}/shop.git"),
    ] {
        let dir = root.path().join("repository");
        let upstream: Upstream = upstream.parse().unwrap();
        let refusal = Repository::open_or_create(&git, &dir, upstream, &Access::None)
            .await
            .unwrap_err();
        assert_eq!(refusal.code, "git-timeout", "{refusal}");
        assert!(refusal.expected.unwrap().contains("within 1 s"));
        // Nothing that a later look would take for a mirror.
        assert!(!dir.join("changes.git").exists());
    }
    held.abort();
}
