//! Landing in real repositories.

use std::path::Path;

use portcullis_model::event::LandingMethod;
use portcullis_model::{ChangeId, GitOid};

use super::server::{World, client, ok, recorded, run, write};
use crate::git::commit::Ident;
use crate::git::land::{Land, Landed};
use crate::git::prepare::Preparation;
use crate::git::{Access, Git, Repository, Upstream};

/// A world with one accepted change, and what would land it.
async fn accepted() -> (World, Land) {
    let world = World::new().await;
    let clone = world.clone_into("clone", &[]).await;
    let head = world.commit(&clone, "dir/new.txt", "new\n");
    ok(&client(&clone, &["push", "-q", "origin", "HEAD:refs/for/main"]).await);
    let land = land_of(&world.repository, &head).await;
    (world, land)
}

async fn land_of(repository: &Repository, head: &str) -> Land {
    let new: GitOid = head.parse().unwrap();
    let tree = repository.objects().commit_info(&new).await.unwrap().tree;
    Land {
        branch: "main".into(),
        old: repository.tip("main").await.unwrap().unwrap(),
        new,
        tree,
        diff_of: None,
    }
}

fn failed(landed: Landed) -> String {
    match landed {
        Landed::Failed(refusal) => {
            assert!(refusal.next.is_some(), "{refusal}");
            refusal.code
        }
        Landed::Done { .. } | Landed::Unknown(_) => panic!("{landed:?}"),
    }
}

fn tip(dir: &Path) -> String {
    run(dir, &["rev-parse", "main"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_checkout_moves_with_its_branch() {
    let (world, land) = accepted().await;
    let landed = world
        .repository
        .land(recorded().await, &land, &Access::None)
        .await;
    assert_eq!(
        landed,
        Landed::Done {
            observed: land.new.clone()
        }
    );
    assert_eq!(tip(&world.upstream()), land.new.as_str());
    assert_eq!(
        std::fs::read_to_string(world.upstream().join("dir/new.txt")).unwrap(),
        "new\n"
    );
    assert_eq!(run(&world.upstream(), &["status", "--porcelain"]), "");
    assert_eq!(
        world.repository.tip("main").await.unwrap().unwrap(),
        land.new
    );
    // Landing what has landed is no error, and changes nothing.
    let again = world
        .repository
        .land(recorded().await, &land, &Access::None)
        .await;
    assert!(matches!(again, Landed::Done { .. }), "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkout_with_work_in_it_is_left_alone() {
    let (world, land) = accepted().await;
    let before = tip(&world.upstream());
    write(&world.upstream(), "readme.md", "my own words\n");
    let code = failed(
        world
            .repository
            .land(recorded().await, &land, &Access::None)
            .await,
    );
    assert_eq!(code, "work-tree-not-clean");
    assert_eq!(tip(&world.upstream()), before);
    assert_eq!(
        std::fs::read_to_string(world.upstream().join("readme.md")).unwrap(),
        "my own words\n"
    );
    // A file that is not tracked and stands in the way is not overwritten either.
    run(&world.upstream(), &["checkout", "-q", "readme.md"]);
    write(&world.upstream(), "dir/new.txt", "mine, not tracked\n");
    let code = failed(
        world
            .repository
            .land(recorded().await, &land, &Access::None)
            .await,
    );
    assert_eq!(code, "work-tree-not-clean");
    assert_eq!(
        std::fs::read_to_string(world.upstream().join("dir/new.txt")).unwrap(),
        "mine, not tracked\n"
    );
    // Another branch checked out: the branch moves, the work tree stays.
    std::fs::remove_file(world.upstream().join("dir/new.txt")).unwrap();
    run(&world.upstream(), &["checkout", "-q", "-b", "mine"]);
    write(&world.upstream(), "readme.md", "my own words\n");
    let landed = world
        .repository
        .land(recorded().await, &land, &Access::None)
        .await;
    assert!(matches!(landed, Landed::Done { .. }), "{landed:?}");
    assert_eq!(
        std::fs::read_to_string(world.upstream().join("readme.md")).unwrap(),
        "my own words\n"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_race_one_lands() {
    let (world, first) = accepted().await;
    let clone = world.clone_into("second", &[]).await;
    let head = world.commit(&clone, "dir/second.txt", "second\n");
    ok(&client(&clone, &["push", "-q", "origin", "HEAD:refs/for/main"]).await);
    let second = land_of(&world.repository, &head).await;
    let (a, b) = tokio::join!(
        world
            .repository
            .land(recorded().await, &first, &Access::None),
        world
            .repository
            .land(recorded().await, &second, &Access::None),
    );
    let done = [&a, &b]
        .iter()
        .filter(|l| matches!(l, Landed::Done { .. }))
        .count();
    assert_eq!(done, 1, "{a:?} {b:?}");
    let loser = if matches!(a, Landed::Done { .. }) {
        b
    } else {
        a
    };
    assert_eq!(failed(loser), "branch-moved");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_moved_is_not_overwritten() {
    let (world, land) = accepted().await;
    write(&world.upstream(), "other.txt", "other\n");
    run(&world.upstream(), &["add", "."]);
    run(&world.upstream(), &["commit", "-qm", "past us"]);
    let theirs = tip(&world.upstream());
    let code = failed(
        world
            .repository
            .land(recorded().await, &land, &Access::None)
            .await,
    );
    assert_eq!(code, "branch-moved");
    assert_eq!(tip(&world.upstream()), theirs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_approved_tree_lands() {
    let (world, land) = accepted().await;
    let before = tip(&world.upstream());
    let base_tree = world
        .repository
        .objects()
        .commit_info(&land.old)
        .await
        .unwrap()
        .tree;
    let other = Land {
        tree: base_tree,
        ..land.clone()
    };
    assert_eq!(
        failed(
            world
                .repository
                .land(recorded().await, &other, &Access::None)
                .await
        ),
        "landing-mismatch"
    );
    let back = Land {
        old: land.new.clone(),
        new: land.old.clone(),
        tree: world
            .repository
            .objects()
            .commit_info(&land.old)
            .await
            .unwrap()
            .tree,
        ..land
    };
    assert_eq!(
        failed(
            world
                .repository
                .land(recorded().await, &back, &Access::None)
                .await
        ),
        "not-fast-forward"
    );
    assert_eq!(tip(&world.upstream()), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_of_the_repository_do_not_run() {
    use std::os::unix::fs::PermissionsExt as _;
    let (world, land) = accepted().await;
    let mark = world.root().join("mark");
    let hooks = world.upstream().join("my-hooks");
    for name in [
        "pre-receive",
        "update",
        "post-receive",
        "push-to-checkout",
        "reference-transaction",
        "post-checkout",
    ] {
        write(
            &hooks,
            name,
            &format!("#!/bin/sh\ntouch '{}'\nexit 0\n", mark.display()),
        );
        std::fs::set_permissions(hooks.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    run(
        &world.upstream(),
        &["config", "core.hooksPath", hooks.to_str().unwrap()],
    );
    let landed = world
        .repository
        .land(recorded().await, &land, &Access::None)
        .await;
    assert!(matches!(landed, Landed::Done { .. }), "{landed:?}");
    assert!(!mark.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_is_gone_leaves_it_unknown() {
    let (world, land) = accepted().await;
    let away = world.root().join("away");
    std::fs::rename(world.upstream(), &away).unwrap();
    let landed = world
        .repository
        .land(recorded().await, &land, &Access::None)
        .await;
    let Landed::Unknown(refusal) = landed else {
        panic!("{landed:?}")
    };
    assert_eq!(refusal.code, "upstream-unreachable");
    // Once it is back, it can be seen that nothing happened.
    std::fs::rename(&away, world.upstream()).unwrap();
    let observed = world
        .repository
        .observe("main", &Access::None)
        .await
        .unwrap();
    assert_eq!(observed.unwrap(), land.old);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_repository_is_its_own_upstream() {
    let (world, land) = accepted().await;
    let dir = world.root().join("embedded");
    let embedded = Repository::open_or_create(&world.git, &dir, Upstream::Embedded, &Access::None)
        .await
        .unwrap();
    assert_eq!(embedded.tip("main").await.unwrap(), None);
    let mirror = embedded.mirror_dir();
    run(
        &world.upstream(),
        &["push", "-q", mirror.to_str().unwrap(), "main"],
    );
    // It is filled once; from then on, refs move by landing alone.
    let (upstream, place) = (world.upstream(), mirror.to_str().unwrap().to_owned());
    let again = client(&upstream, &["push", "-q", &place, "main~1:refs/heads/b"]).await;
    assert!(super::server::said(&again).contains("move by the server alone"));
    run(
        &embedded.changes_dir(),
        &[
            "-c",
            "core.hooksPath=/dev/null",
            "fetch",
            "-q",
            world.root().join("clone").to_str().unwrap(),
            "HEAD:refs/portcullis/changes/1/1",
        ],
    );
    let landed = embedded.land(recorded().await, &land, &Access::None).await;
    assert_eq!(
        landed,
        Landed::Done {
            observed: land.new.clone()
        }
    );
    assert_eq!(embedded.tip("main").await.unwrap().unwrap(), land.new);
    assert!(embedded.sync(&Access::None).await.unwrap().is_empty());
    // The landed objects are in the mirror itself: a view of another run sees them.
    let mirror_only = embedded.view_of(&mirror);
    assert!(mirror_only.has_commit(&land.new).await.unwrap());
}

/// Two commits of a change, pushed; then the upstream's `main` moves on elsewhere.
async fn pushed_and_moved(world: &World) -> Preparation {
    let clone = world.clone_into("clone", &[]).await;
    world.commit(&clone, "dir/new.txt", "new\n");
    run(&clone, &["mv", "dir/file1.txt", "dir/moved.txt"]);
    let head = world.commit(&clone, "dir/new.txt", "newer\n");
    ok(&client(&clone, &["push", "-q", "origin", "HEAD:refs/for/main"]).await);
    let base = world.repository.tip("main").await.unwrap().unwrap();
    write(&world.upstream(), "other/late.txt", "late\n");
    run(&world.upstream(), &["add", "."]);
    run(&world.upstream(), &["commit", "-qm", "meanwhile"]);
    world.repository.sync(&Access::None).await.unwrap();
    Preparation {
        change: ChangeId(7),
        revision: 1,
        method: LandingMethod::Rebase,
        base,
        head: head.parse().unwrap(),
        onto: world.repository.tip("main").await.unwrap().unwrap(),
        committer: Ident {
            name: "Portcullis".into(),
            email: "landing@example".into(),
        },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_gives_the_same_diff_on_a_later_base_and_lands() {
    let world = World::new().await;
    let order = pushed_and_moved(&world).await;
    let objects = world.repository.objects();
    let manifest = objects.manifest(&order.base, &order.head).await.unwrap();
    let mut trees = std::collections::BTreeSet::new();
    // A git that can't merge without an index makes the same.
    let older = Git::older(&world.root().join("home"), (2, 39)).await;
    let older = Repository::open_or_create(
        &older,
        world.repository.dir(),
        Upstream::Path(world.upstream()),
        &Access::None,
    );
    let older = older.await.unwrap();
    for (method, commits, parents) in [
        (LandingMethod::FastForward, 2, 1),
        (LandingMethod::Rebase, 2, 1),
        (LandingMethod::Squash, 1, 1),
        (LandingMethod::Merge, 3, 2),
    ] {
        let order = Preparation {
            method,
            ..order.clone()
        };
        let made = world.repository.prepare(&order).await.unwrap();
        assert_eq!(made.manifest, manifest, "{method:?}");
        assert_eq!(made.commits.len(), commits, "{method:?}");
        let info = objects.commit_info(&made.head).await.unwrap();
        assert_eq!(info.parents.len(), parents);
        assert!(info.message.contains("Portcullis-Change: change-7"));
        assert_eq!(info.committer.email, "landing@example");
        let author = match method {
            LandingMethod::Merge => "landing@example",
            LandingMethod::FastForward | LandingMethod::Rebase | LandingMethod::Squash => {
                "agent@example"
            }
        };
        assert_eq!(info.author.email, author);
        // Made again it is the same commit: a restart finds what it made.
        assert_eq!(world.repository.prepare(&order).await.unwrap(), made);
        assert_eq!(older.prepare(&order).await.unwrap(), made);
        trees.insert(made.tree.to_string());
        if method == LandingMethod::Merge {
            let land = Land {
                branch: "main".into(),
                old: order.onto.clone(),
                new: made.head.clone(),
                tree: made.tree,
                diff_of: Some((order.base.clone(), order.head.clone())),
            };
            let landed = world
                .repository
                .land(recorded().await, &land, &Access::None)
                .await;
            assert!(matches!(landed, Landed::Done { .. }), "{landed:?}");
        }
    }
    assert_eq!(trees.len(), 1, "{trees:?}");
    for file in ["dir/new.txt", "dir/moved.txt", "other/late.txt"] {
        assert!(world.upstream().join(file).exists(), "{file}");
    }
    assert!(!world.upstream().join("dir/file1.txt").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_branch_changed_as_well_is_not_made_ready() {
    let world = World::new().await;
    let mut order = pushed_and_moved(&world).await;
    write(&world.upstream(), "dir/file1.txt", "theirs\n");
    run(&world.upstream(), &["commit", "-qam", "in the way"]);
    world.repository.sync(&Access::None).await.unwrap();
    order.onto = world.repository.tip("main").await.unwrap().unwrap();
    let refused = world.repository.prepare(&order).await.unwrap_err();
    assert_eq!(refused.code, "change-conflicts");
    assert!(refused.received.unwrap().contains("dir/file1.txt"));
}

/// Its whole diff fits the branch, and one of its commits does not: that is its author's to mend, and
/// no reason to halt the branch's queue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_a_later_one_takes_back_conflicts_and_halts_nothing() {
    let world = World::new().await;
    let mut order = pushed_and_moved(&world).await;
    let clone = world.root().join("clone");
    let before = std::fs::read_to_string(clone.join("readme.md")).unwrap();
    world.commit(&clone, "readme.md", "ours, for a while\n");
    order.head = world.commit(&clone, "readme.md", &before).parse().unwrap();
    ok(&client(&clone, &["push", "-q", "origin", "HEAD:refs/for/main"]).await);
    for theirs in ["theirs\n", "ours, for a while\n"] {
        write(&world.upstream(), "readme.md", theirs);
        run(&world.upstream(), &["commit", "-qam", "in the way"]);
        world.repository.sync(&Access::None).await.unwrap();
        order.onto = world.repository.tip("main").await.unwrap().unwrap();
        let refused = world.repository.prepare(&order).await.unwrap_err();
        assert_eq!(refused.code, "change-conflicts", "{refused}");
        assert!(refused.received.unwrap().contains("readme.md"));
    }
    // As one commit it fits.
    order.method = LandingMethod::Squash;
    world.repository.prepare(&order).await.unwrap();
}

/// In April 2026 a forge's queue squashed changes from a stale merge base: each squash took back
/// what had landed before it, and thousands of branches got trees that nobody had approved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_squash_that_takes_back_what_landed_before_it_is_caught() {
    let world = World::new().await;
    let order = pushed_and_moved(&world).await;
    let tip = world.repository.tip("main").await.unwrap().unwrap();
    // The wrong squash: the tree of the change's own head, on the branch as it is now. Its parent,
    // author and message are right, and it is a fast-forward.
    let changes = world.repository.changes_dir();
    let tree = run(
        &changes,
        &["rev-parse", &format!("{}^{{tree}}", order.head)],
    );
    let wrong = run(
        &changes,
        &["commit-tree", &tree, "-p", tip.as_str(), "-m", "squashed"],
    );
    let land = Land {
        branch: "main".into(),
        old: tip.clone(),
        new: wrong.parse().unwrap(),
        tree: tree.parse().unwrap(),
        diff_of: Some((order.base.clone(), order.head.clone())),
    };
    let code = failed(
        world
            .repository
            .land(recorded().await, &land, &Access::None)
            .await,
    );
    assert_eq!(code, "landing-mismatch");
    assert_eq!(tip.as_str(), self::tip(&world.upstream()));
    assert!(world.upstream().join("other/late.txt").exists());
}
