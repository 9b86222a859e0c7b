//! Objects that no git makes, sent by a stock client: each is refused in one clear paragraph, and
//! leaves nothing.

use std::path::{Path, PathBuf};

use super::hostile::{commit_of, raw_object, tree_entry};
use super::server::{World, client, ok, run, said};

/// Pushes a commit, which is refused with one of these codes.
async fn refused(world: &World, clone: &Path, what: &str, commit: &str, codes: &[&str]) {
    let before: Vec<PathBuf> = world.object_files();
    let refspec = format!("{commit}:refs/for/main");
    let output = client(clone, &["push", "--no-verify", "origin", &refspec]).await;
    let text = said(&output);
    let code = codes
        .iter()
        .find(|code| text.contains(&format!("code:     {code}")));
    assert!(code.is_some(), "{what}: {text}");
    assert!(text.contains("remote:   next:"), "{what}: {text}");
    assert!(text.contains("[remote rejected]"), "{what}: {text}");
    assert_eq!(world.object_files(), before, "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trees_that_git_does_not_write_are_refused() {
    let world = World::new().await;
    let clone = world.clone_into("clone", &[]).await;
    let blob = raw_object(&clone, "blob", b"x\n");
    let file = |name: &[u8]| tree_entry("100644", name, &blob);
    let empty = raw_object(&clone, "tree", b"");
    let zero = "0".repeat(40);
    for (what, tree) in [
        ("a name twice", [file(b"a"), file(b"a")].concat()),
        ("a file and a folder of one name", {
            [file(b"a"), tree_entry("40000", b"a", &empty)].concat()
        }),
        ("out of order", [file(b"b"), file(b"a")].concat()),
        ("an empty name", file(b"")),
        (
            "a mode with zeros before it",
            tree_entry("0100644", b"a", &blob),
        ),
        ("a mode that is none", tree_entry("123456", b"a", &blob)),
        ("an id of zeros", tree_entry("100644", b"a", &zero)),
        ("cut short", file(b"a")[..15].to_vec()),
        ("a folder `.`", tree_entry("40000", b".", &empty)),
        (
            "a folder `.git` with a dot",
            tree_entry("40000", b".git.", &empty),
        ),
    ] {
        let tree = raw_object(&clone, "tree", &tree);
        let commit = commit_of(&clone, &tree);
        // A client that can't read its own tree does not get to send it.
        let refspec = format!("{commit}:refs/for/main");
        let output = client(&clone, &["push", "origin", &refspec]).await;
        assert!(!output.status.success(), "{what} got in");
        let text = said(&output);
        if !text.contains("portcullis:") {
            assert!(text.contains("fatal:"), "{what}: {text}");
            continue;
        }
        refused(
            &world,
            &clone,
            what,
            &commit,
            &["objects-broken", "hostile-path"],
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn submodules_that_run_something_or_lead_elsewhere_are_refused() {
    let world = World::new().await;
    let clone = world.clone_into("clone", &[]).await;
    let module = |name: &str, path: &str, url: &str| {
        format!("[submodule \"{name}\"]\n\tpath = {path}\n\turl = {url}\n")
    };
    let link = run(&clone, &["rev-parse", "HEAD"]);
    let commit = |modules: &str, mode: &str| {
        let blob = raw_object(&clone, "blob", modules.as_bytes());
        let tree = [
            tree_entry(mode, b".gitmodules", &blob),
            tree_entry("160000", b"sub", &link),
        ];
        commit_of(&clone, &raw_object(&clone, "tree", &tree.concat()))
    };
    for (what, modules) in [
        (
            "an option for a URL",
            module("sub", "sub", "--upload-pack=touch x"),
        ),
        (
            "an option for a path",
            module("sub", "--help", "https://example.com/x.git"),
        ),
        (
            "a name that climbs",
            module("../../x", "sub", "https://example.com/x.git"),
        ),
        ("a command for an update", {
            module("sub", "sub", "https://example.com/x.git") + "\tupdate = !touch x\n"
        }),
        (
            "a line feed in a URL",
            module("sub", "sub", "\"https://example.com/%0ahost=x/x.git\""),
        ),
    ] {
        let commit = commit(&modules, "100644");
        refused(&world, &clone, what, &commit, &["objects-broken"]).await;
    }
    let linked = commit("/etc/passwd", "120000");
    refused(
        &world,
        &clone,
        "a link for `.gitmodules`",
        &linked,
        &["objects-broken"],
    )
    .await;
    // These are for a person to see, and for git to refuse where it is used.
    for url in ["ext::sh -c touch% x", "../elsewhere.git", "file:///etc"] {
        let commit = commit(&module("sub", "sub", url), "100644");
        let refspec = format!("{commit}:refs/for/main");
        ok(&client(&clone, &["push", "-q", "origin", &refspec]).await);
        let pushes = world.pushes.lock().unwrap().len() as u64;
        let id = portcullis_model::ChangeId(pushes);
        let head = world.repository.revision(id, 1).await.unwrap().unwrap();
        let base = world.repository.tip("main").await.unwrap().unwrap();
        let diff = world.repository.objects().diff(&base, &head).await.unwrap();
        let diff = String::from_utf8_lossy(&diff).into_owned();
        assert!(diff.contains(url), "{diff}");
        assert!(diff.contains("+Subproject commit "), "{diff}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_that_git_does_not_write_are_refused() {
    let world = World::new().await;
    let clone = world.clone_into("clone", &[]).await;
    let (head, tree) = (
        run(&clone, &["rev-parse", "HEAD"]),
        run(&clone, &["rev-parse", "HEAD^{tree}"]),
    );
    let author = "author Agent <agent@example> 1700000000 +0000\n";
    let committer = "committer Agent <agent@example> 1700000000 +0000\n";
    let start = format!("tree {tree}\nparent {head}\n");
    let huge = format!("x-note {}\n", "x".repeat(2 * 1024 * 1024));
    for (what, text, codes) in [
        (
            "no author",
            format!("{start}{committer}\nx\n"),
            &["objects-broken"][..],
        ),
        (
            "two authors",
            format!("{start}{author}{author}{committer}\nx\n"),
            &["objects-broken"],
        ),
        (
            "no mail address",
            { format!("{start}author Agent 1700000000 +0000\n{committer}\nx\n") },
            &["objects-broken"],
        ),
        (
            "a date past all time",
            { format!("{start}author A <a@b> 99999999999999999999 +0000\n{committer}\nx\n") },
            &["objects-broken"],
        ),
        (
            "a NUL in a header",
            format!("{start}author A\0B <a@b> 1 +0000\n{committer}\nx\n"),
            &["objects-broken"],
        ),
        (
            "a header as long as a book",
            format!("{start}{author}{committer}{huge}\nx\n"),
            &["object-too-large"],
        ),
        (
            "a parent that is a tree",
            { format!("tree {tree}\nparent {tree}\n{author}{committer}\nx\n") },
            &["objects-broken", "objects-missing", "not-a-commit"],
        ),
    ] {
        let commit = raw_object(&clone, "commit", text.as_bytes());
        let refspec = format!("{commit}:refs/for/main");
        let text = said(&client(&clone, &["push", "origin", &refspec]).await);
        if !text.contains("portcullis:") {
            // The client could not walk its own commits.
            assert!(
                text.contains("error:") || text.contains("fatal:"),
                "{what}: {text}"
            );
            continue;
        }
        refused(&world, &clone, what, &commit, codes).await;
    }
    // Three hundred parents are odd, and whole: they go in, all of them named.
    let mut parents = Vec::new();
    for n in 0..300 {
        let text = format!("tree {tree}\nparent {head}\n{author}{committer}\n{n}\n");
        parents.push(raw_object(&clone, "commit", text.as_bytes()));
    }
    let named: String = parents
        .iter()
        .map(|oid| format!("parent {oid}\n"))
        .collect();
    let text = format!("tree {tree}\n{named}{author}{committer}\nmany\n");
    let octopus = raw_object(&clone, "commit", text.as_bytes());
    let refspec = format!("{octopus}:refs/for/main");
    ok(&client(&clone, &["push", "-q", "origin", &refspec]).await);
    // A tag of a tag of a tag of a commit is no branch.
    let mut tagged = (head.clone(), "commit");
    for n in 0..20 {
        let text = format!(
            "object {}\ntype {}\ntag t{n}\ntagger A <a@b> 1700000000 +0000\n\nx\n",
            tagged.0, tagged.1
        );
        tagged = (raw_object(&clone, "tag", text.as_bytes()), "tag");
    }
    refused(&world, &clone, "tags of tags", &tagged.0, &["not-a-commit"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trees_without_end_and_paths_without_end_are_refused_by_name() {
    let world = World::new().await;
    let clone = world.clone_into("clone", &[]).await;
    run(&clone, &["config", "core.maxTreeDepth", "100000"]);
    let blob = raw_object(&clone, "blob", b"x\n");
    let nested = |depth: usize, name: &[u8]| {
        let mut tree = raw_object(&clone, "tree", &tree_entry("100644", b"x", &blob));
        for _ in 1..depth {
            tree = raw_object(&clone, "tree", &tree_entry("40000", name, &tree));
        }
        commit_of(&clone, &tree)
    };
    let long = [b'n'; 200];
    for (what, commit, codes) in [
        ("65 parts", nested(65, b"d"), &["path-too-deep"][..]),
        (
            "a path of 8,000 bytes",
            nested(40, &long),
            &["hostile-path"],
        ),
        // A git that has no bound of its own here lists the path, which is too long then.
        (
            "more folders than git walks",
            nested(2_200, b"d"),
            &["path-too-deep", "hostile-path"],
        ),
    ] {
        refused(&world, &clone, what, &commit, codes).await;
    }
    // A folder that holds a folder many times over: few objects, and more paths than there are
    // atoms. Nobody may walk them all.
    let mut tree = raw_object(&clone, "tree", &tree_entry("100644", b"x", &blob));
    for _ in 0..40 {
        let entries: Vec<u8> = (b'a'..=b'j')
            .flat_map(|name| tree_entry("40000", &[name], &tree))
            .collect();
        tree = raw_object(&clone, "tree", &entries);
    }
    let commit = commit_of(&clone, &tree);
    refused(
        &world,
        &clone,
        "a bomb of trees",
        &commit,
        &["too-many-paths"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_windows_cuts_are_twins_too() {
    let world = World::new().await;
    for (n, path) in [
        "readme.md.",
        "readme.md ",
        "dir./x",
        "Readme.md. .",
        "readme.md::$DATA",
    ]
    .into_iter()
    .enumerate()
    {
        let clone = world.clone_into(&format!("clone-{n}"), &[]).await;
        world.commit(&clone, path, "x\n");
        let text = said(&client(&clone, &["push", "origin", "HEAD:refs/for/main"]).await);
        assert!(text.contains("hostile-path"), "{path}: {text}");
        assert!(text.contains("beside"), "{path}: {text}");
    }
}
