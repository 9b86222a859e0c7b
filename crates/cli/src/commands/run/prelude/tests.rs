use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::{Value, json};

use super::*;

fn answer(repositories: Value) -> Lent {
    Lent::read(json!({
        "index": 12, "run": "run-12", "spiffe_id": "spiffe://example.org/agent/helper/run/run-12",
        "token": "secret-token", "svid": "", "authority": "", "trust_domain": "example.org",
        "deadline": "2026-11-21T09:00:00Z", "agent": "helper",
        "git": { "name": "helper (run-12)", "mail": "helper+run-12@agents.example.org" },
        "repositories": repositories,
        "endpoints": ["openai", "anthropic", "my-own.model"], "hosts": [], "budgets": {},
        "feedback": ["Too long.", "Still too long."],
    }))
    .unwrap()
}

fn one(base: &str, branch: &str) -> Value {
    json!([{ "id": "shop", "branch": branch, "base": base, "clone": "/git/shop.git" }])
}

fn git(folder: &std::path::Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(["-c", "user.name=A", "-c", "user.email=a@example.org"])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The prelude against a repository on disk in place of the channel.
fn run(
    upstream: &std::path::Path,
    base: &str,
    own: Option<&str>,
    command: &[&str],
) -> (String, std::path::PathBuf, tempfile::TempDir) {
    let place = tempfile::tempdir().unwrap();
    let (home, workspace) = (place.path().join("home"), place.path().join("workspace"));
    let given = home.join(".portcullis");
    std::fs::create_dir_all(given.join("command")).unwrap();
    std::fs::create_dir(&workspace).unwrap();
    let own_script = given.join("command/my-script");
    std::fs::write(&own_script, "#!/bin/sh\necho own script: \"$1\"\n").unwrap();
    std::fs::set_permissions(&own_script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let lent = answer(one(base, "feature/it's"));
    let script = script(&lent, own)
        .replace(
            "http://127.0.0.1:3128/git/shop.git",
            &format!("file://{}", upstream.display()),
        )
        .replace(GIVEN, given.to_str().unwrap())
        .replace(WORKSPACE, workspace.to_str().unwrap());
    let file = place.path().join("prelude.sh");
    std::fs::write(&file, script).unwrap();
    let output = Command::new("/bin/sh")
        .arg(&file)
        .args(command)
        .env("HOME", &home)
        .env_remove("GIT_CONFIG_GLOBAL")
        .envs(environment(&lent))
        .output()
        .unwrap();
    let said = format!(
        "{}{}{}",
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (said, workspace, place)
}

fn upstream() -> (tempfile::TempDir, String) {
    let upstream = tempfile::tempdir().unwrap();
    git(
        upstream.path(),
        &["init", "--quiet", "--initial-branch=feature/it's"],
    );
    for text in ["one", "two", "three"] {
        std::fs::write(upstream.path().join("file"), text).unwrap();
        git(upstream.path(), &["add", "."]);
        git(upstream.path(), &["commit", "--quiet", "-m", text]);
    }
    git(upstream.path(), &["tag", "v1"]);
    let base = git(upstream.path(), &["rev-parse", "HEAD~1"]);
    // As the gateway's protocol v2 does; here it makes no difference for files.
    git(
        upstream.path(),
        &["config", "uploadpack.allowAnySHA1InWant", "true"],
    );
    (upstream, base)
}

#[test]
fn the_clone_stands_at_the_base_and_pushes_for_review() {
    let (upstream, base) = upstream();
    let (said, workspace, _place) = run(
        upstream.path(),
        &base,
        None,
        &["sh", "-c", "cat file; exit 7"],
    );
    assert_eq!(said, "7two");
    assert_eq!(git(&workspace, &["rev-parse", "HEAD"]), base);
    assert_eq!(
        git(&workspace, &["symbolic-ref", "--short", "HEAD"]),
        "work"
    );
    assert_eq!(
        git(&workspace, &["rev-list", "--count", "HEAD"]),
        "1",
        "shallow"
    );
    assert_eq!(git(&workspace, &["tag"]), "");
    assert_eq!(git(&workspace, &["rev-parse", "@{upstream}"]), base);
    git(&workspace, &["fetch", "--quiet", "--deepen=1", "origin"]);
    assert!(
        git(&workspace, &["rev-list", "--count", "HEAD"])
            .parse::<u64>()
            .unwrap()
            > 1,
        "deepened"
    );
    std::fs::write(workspace.join("file"), "four").unwrap();
    git(&workspace, &["commit", "--quiet", "-am", "four"]);
    git(&workspace, &["push", "--quiet"]);
    let head = git(&workspace, &["rev-parse", "HEAD"]);
    assert_eq!(
        git(upstream.path(), &["rev-parse", "refs/for/feature/it's"]),
        head
    );
    assert_ne!(
        git(upstream.path(), &["rev-parse", "refs/heads/feature/it's"]),
        head
    );
}

#[test]
fn a_base_that_is_not_there_stops_the_run_with_words() {
    let (upstream, _) = upstream();
    let missing = "0123456789".repeat(4);
    let (said, ..) = run(upstream.path(), &missing, None, &["echo", "started"]);
    assert!(
        said.starts_with("125") && said.contains("can't be fetched"),
        "{said}"
    );
    assert!(!said.contains("started"), "{said}");
}

#[test]
fn the_callers_own_script_is_run_where_the_repository_has_none() {
    let (upstream, base) = upstream();
    let own = Some("my-script");
    let (said, ..) = run(upstream.path(), &base, own, &["./my-script", "a b"]);
    assert_eq!(said, "0own script: a b\n");
    let (said, ..) = run(upstream.path(), &base, own, &["./file"]);
    assert!(
        said.starts_with("126") && !said.contains("own script"),
        "{said}"
    );
}

#[test]
fn names_of_branches_and_people_are_never_read_as_shell() {
    let mut lent = answer(one(&"a".repeat(40), "x'; touch /tmp/pwned; '"));
    lent.git.name = "$(reboot) `reboot` \"x\" '".to_owned();
    let script = script(&lent, Some("it's"));
    assert!(
        script.contains(r"'x'\''; touch /tmp/pwned; '\'''"),
        "{script}"
    );
    assert!(
        script.contains(r#"user.name '$(reboot) `reboot` "x" '\'''"#),
        "{script}"
    );
    assert!(script.contains(r"/command/it'\''s'"), "{script}");
    assert!(!script.contains("secret-token"));
}

#[test]
fn several_repositories_lie_in_folders() {
    let mut list = one(&"a".repeat(40), "main");
    list.as_array_mut().unwrap().push(json!({
        "id": "docs", "branch": "main", "base": "b".repeat(64), "clone": "/git/docs.git",
    }));
    let script = script(&answer(list), None);
    assert!(
        script.contains("clone '/workspace/shop' 'http://127.0.0.1:3128/git/shop.git'"),
        "{script}"
    );
    assert!(
        script.contains("clone '/workspace/docs'") && script.contains("'sha256'"),
        "{script}"
    );
}

#[test]
fn the_environment_tells_what_is_lent_and_holds_no_credential() {
    let variables = environment(&answer(one(&"a".repeat(40), "main")));
    let of = |name: &str| variables.get(name).map(String::as_str);
    assert_eq!(
        of("PORTCULLIS_ENDPOINT_MY_OWN_MODEL"),
        Some("http://127.0.0.1:3128/model/my-own.model")
    );
    assert_eq!(
        of("OPENAI_BASE_URL"),
        Some("http://127.0.0.1:3128/model/openai")
    );
    assert_eq!(
        of("ANTHROPIC_BASE_URL"),
        Some("http://127.0.0.1:3128/model/anthropic")
    );
    assert_eq!(of("OPENAI_API_KEY"), Some(PLACEHOLDER));
    assert_eq!(of("GIT_AUTHOR_NAME"), Some("helper (run-12)"));
    assert_eq!(
        of("GIT_COMMITTER_EMAIL"),
        Some("helper+run-12@agents.example.org")
    );
    assert_eq!(of("GIT_TERMINAL_PROMPT"), Some("0"));
    assert_eq!(
        of("PORTCULLIS_FEEDBACK"),
        Some("/home/agent/.portcullis/feedback.md")
    );
    assert!(
        !variables
            .values()
            .any(|value| value.contains("secret-token"))
    );
    let mut quiet = answer(one(&"a".repeat(40), "main"));
    quiet.feedback.clear();
    quiet.endpoints.clear();
    let variables = environment(&quiet);
    assert!(!variables.contains_key("PORTCULLIS_FEEDBACK"));
    assert!(
        !variables
            .keys()
            .any(|name| name.starts_with("OPENAI") || name.contains("ENDPOINT"))
    );
}

#[test]
fn the_agent_reads_the_order_and_what_people_said() {
    let text = TaskText {
        title: "Greet".to_owned(),
        text: "Politely.".to_owned(),
    };
    assert_eq!(task_file(&text), "# Greet\n\nPolitely.\n");
    let feedback = feedback_file(&["Too long.".to_owned(), "Still.".to_owned()]);
    assert!(feedback.find("Too long.") < feedback.find("Still."));
}
