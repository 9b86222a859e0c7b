//! What carries past what.

use super::*;

fn files(files: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
    files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()))
        .collect()
}

fn paths(paths: &[&str]) -> BTreeSet<String> {
    paths.iter().map(|path| (*path).to_owned()).collect()
}

fn cargo() -> BTreeMap<String, Vec<u8>> {
    files(&[
        (
            "Cargo.toml",
            "[workspace]\nmembers = [\"crates/*\"]\n[workspace.dependencies]\nbase = { path = \"crates/base\" }\n",
        ),
        ("crates/base/Cargo.toml", "[package]\nname = \"base\"\n"),
        (
            "crates/app/Cargo.toml",
            "[package]\nname = \"app\"\n[dependencies]\nmiddle = { path = \"../middle\" }\n",
        ),
        (
            "crates/middle/Cargo.toml",
            "[package]\nname = \"middle\"\n[target.'cfg(unix)'.dependencies]\nbase = { workspace = true }\n",
        ),
        ("crates/other/Cargo.toml", "[package]\nname = \"other\"\n"),
    ])
}

#[test]
fn a_crate_moves_past_what_it_does_not_depend_on() {
    let app = paths(&["crates/app/src/main.rs"]);
    independent(&cargo(), &app, &paths(&["crates/other/src/lib.rs"])).unwrap();
    // What depends on it may move: the tests run again on both.
    let base = paths(&["crates/base/src/lib.rs"]);
    independent(&cargo(), &base, &app).unwrap();
    for moved in [
        "crates/app/src/other.rs",
        "crates/middle/src/lib.rs",
        "crates/base/tests/data/a.txt",
        "build.rs",
    ] {
        let no = independent(&cargo(), &app, &paths(&[moved])).unwrap_err();
        assert!(matches!(no, Obstacle::Depends { .. }), "{moved}: {no}");
    }
}

#[test]
fn npm_go_and_python_name_each_other_by_path_and_by_name() {
    let tree = files(&[
        (
            "web/package.json",
            r#"{"name": "web", "dependencies": {"ui": "workspace:*", "x": "file:../local"}}"#,
        ),
        ("ui/package.json", r#"{"name": "ui"}"#),
        ("local/package.json", r#"{"name": "local"}"#),
        (
            "srv/go.mod",
            "module example.com/srv\n\nrequire (\n\texample.com/lib v1.0.0 // indirect\n)\nreplace example.com/z => ../z\n",
        ),
        ("lib/go.mod", "module example.com/lib\n"),
        ("z/go.mod", "module example.com/z\n"),
        (
            "py/pyproject.toml",
            "[project]\nname = \"py\"\ndependencies = [\"My_Lib >=1\"]\n[tool.uv.sources]\ntool = { path = \"../tool\" }\n",
        ),
        ("mylib/pyproject.toml", "[project]\nname = \"my-lib\"\n"),
        ("tool/pyproject.toml", "[project]\nname = \"tool\"\n"),
    ]);
    for (touched, moved) in [
        ("web/a.js", "ui/b.js"),
        ("web/a.js", "local/b.js"),
        ("srv/a.go", "lib/b.go"),
        ("srv/a.go", "z/b.go"),
        ("py/a.py", "mylib/b.py"),
        ("py/a.py", "tool/b.py"),
    ] {
        let no = independent(&tree, &paths(&[touched]), &paths(&[moved])).unwrap_err();
        assert!(matches!(no, Obstacle::Depends { .. }), "{touched} {moved}");
        independent(&tree, &paths(&[moved]), &paths(&[touched])).unwrap();
    }
    independent(
        &tree,
        &paths(&["web/a.js"]),
        &paths(&["srv/a.go", "py/a.py"]),
    )
    .unwrap();
}

#[test]
fn unknown_means_no() {
    let tree = cargo();
    let app = paths(&["crates/app/src/main.rs"]);
    let other = paths(&["crates/other/src/lib.rs"]);
    let unknown =
        |tree: &BTreeMap<String, Vec<u8>>, touched: &BTreeSet<String>, moved: &BTreeSet<String>| {
            let no = independent(tree, touched, moved).unwrap_err();
            assert!(matches!(no, Obstacle::Unknown { .. }), "{no}");
        };
    // No build file at all; a lock file; rules; a build file of the change's own.
    unknown(&BTreeMap::new(), &app, &other);
    unknown(&tree, &app, &paths(&["Cargo.lock"]));
    unknown(&tree, &app, &paths(&[".portcullis/jobs.toml"]));
    unknown(&tree, &paths(&["crates/app/Cargo.toml"]), &other);
    // A build file that is not read, beside or above; one that is broken; a path that leads out.
    let with = |path: &str, text: &str| {
        let mut tree = cargo();
        tree.insert(path.to_owned(), text.as_bytes().to_vec());
        tree
    };
    unknown(&with("Makefile", ""), &app, &other);
    unknown(&with("crates/other/setup.py", ""), &app, &other);
    unknown(&with("crates/other/Cargo.toml", "[["), &app, &other);
    let out = "[dependencies]\nx = { path = \"../../../x\" }\n";
    unknown(&with("crates/other/Cargo.toml", out), &app, &other);
}
