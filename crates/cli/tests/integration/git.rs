//! Git through the gateway: what is denied, how it is told, and that nothing of it stays.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::house::{Done, House, Plan, committing, wait_until};

/// Objects and packs below the repositories, and whatever stands in quarantine: what a push could
/// leave behind. A run's view holds none; it only says where to look for them.
fn objects(house: &House) -> BTreeSet<PathBuf> {
    let part = |path: &Path, name: &str| path.components().any(|part| part.as_os_str() == name);
    let files = house.files_below("repositories").into_keys();
    files
        .filter(|path| part(path, "quarantine") || part(path, "objects"))
        .filter(|path| !path.ends_with("objects/info/alternates"))
        .collect()
}

/// Waits until the objects are those of before.
#[track_caller]
fn await_objects(house: &House, before: &BTreeSet<PathBuf>) {
    let since = std::time::Instant::now();
    while objects(house) != *before {
        let left: Vec<_> = objects(house).difference(before).cloned().collect();
        assert!(
            since.elapsed() < std::time::Duration::from_secs(10),
            "left behind: {left:?}"
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// A push that the git client shows as denied by `rule`, with the missing fact and the next step.
#[track_caller]
fn denied(house: &House, options: &[&str], script: &str, rule: &str, fact: &str) -> Done {
    let changes = house.get("/v1/changes")["items"].as_array().unwrap().len();
    let task = house.task("ada", options);
    let before = objects(house);
    let script = format!("{script}\necho NOT-DENIED");
    let done = house.run(&task, &script);
    assert!(!done.out.contains("NOT-DENIED"), "{done:?}");
    let seen: String = done
        .err
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect();
    for expected in [rule, fact, "next: "] {
        assert!(
            seen.contains(expected),
            "{expected:?} is not told:\n{done:?}"
        );
    }
    await_objects(house, &before);
    assert_eq!(
        house.get("/v1/changes")["items"].as_array().unwrap().len(),
        changes
    );
    let last = house
        .entries("request.denied")
        .pop()
        .expect("the denial is recorded");
    assert_eq!(last.body["action"], "git.push", "{last:?}");
    done
}

#[test]
fn branches_tags_history_and_deletion_are_not_an_agents() {
    let house = House::solo();
    let commit = committing("src/a.txt", "a");
    let cases = [
        (
            "git push origin HEAD:refs/heads/main",
            "base-protected-ref",
            "refs/for/",
        ),
        (
            "git push --force origin HEAD:refs/heads/main",
            "base-protected-ref",
            "main",
        ),
        ("git push origin :refs/heads/main", "base-delete", "main"),
        ("git push origin HEAD:refs/tags/v1", "base-tag", "v1"),
        (
            "git push origin HEAD:refs/for/nowhere",
            "branch-unknown",
            "nowhere",
        ),
        (
            "git push origin HEAD:refs/for/main HEAD:refs/for/other",
            "one",
            "ref",
        ),
    ];
    let tip = house.tip("main");
    for (push, rule, fact) in cases {
        denied(&house, &[], &format!("{commit}\n{push}"), rule, fact);
    }
    assert_eq!(house.tip("main"), tip);
    assert_eq!(
        house.git_line(&house.shop(), &["for-each-ref", "--format=%(refname)"]),
        "refs/heads/main"
    );
}

#[test]
fn an_unprotected_branch_is_no_way_round_either() {
    let house = House::solo();
    house.change_repository("protected = [\"main\"]");
    let script = format!(
        "{}\nif git push origin HEAD:refs/heads/topic; then echo MOVED; fi\n\
         git fetch -q --unshallow || true\ngit commit -q --amend -m again\n\
         if git push --force origin HEAD:refs/heads/main; then echo MOVED; fi",
        committing("src/a.txt", "a")
    );
    let done = house.run(&house.task("ada", &[]), &script);
    assert!(!done.out.contains("MOVED"), "{done:?}");
    assert_eq!(
        house.git_line(&house.shop(), &["for-each-ref", "--format=%(refname)"]),
        "refs/heads/main"
    );
    assert_eq!(house.entries("request.denied").len(), 2);
}

#[test]
fn paths_outside_the_scope_and_too_much_inside_are_denied() {
    let house = House::solo();
    let push = |file: &str| format!("{}\ngit push", committing(file, "x"));
    denied(
        &house,
        &["--paths", "src/**"],
        &push("README.md"),
        "base-scope",
        "README.md",
    );
    denied(
        &house,
        &["--paths", "src/**", "--deny", "src/key/**"],
        &push("src/key/a"),
        "base-scope",
        "src/key/a",
    );
    let many =
        "for n in 1 2 3; do echo $n > src/$n; done; git add -A; git commit -qm many; git push";
    denied(
        &house,
        &["--paths", "src/**", "--max-files", "2"],
        many,
        "base-scope-size",
        "3 files of 2",
    );
    let link = "ln -s /etc/passwd src/link; git add -A; git commit -qm link; git push";
    denied(
        &house,
        &["--paths", "src/**"],
        link,
        "base-scope-size",
        "symlink src/link",
    );
    let moved = "git mv README.md src/README.md; git commit -qm move; git push";
    denied(
        &house,
        &["--paths", "src/**"],
        moved,
        "base-scope",
        "README.md",
    );
}

#[test]
fn an_agent_does_not_write_in_a_persons_name() {
    let house = House::solo();
    let commit = committing("src/a.txt", "a");
    let author = format!(
        "{commit}\ngit commit -q --amend --author='Ada <ada@example.com>' --no-edit\ngit push"
    );
    denied(&house, &[], &author, "base-names", "ada@example.com");
    let committer = format!(
        "export GIT_COMMITTER_NAME=Ada GIT_COMMITTER_EMAIL=ada@example.com\n{commit}\ngit push"
    );
    denied(&house, &[], &committer, "base-names", "ada@example.com");
    let hidden = format!(
        "{commit}\ngit commit -q --amend --author='Ada <ada@example.com>' --no-edit\n{}\ngit push",
        committing("src/b.txt", "b")
    );
    denied(&house, &[], &hidden, "base-names", "ada@example.com");
}

#[test]
fn a_repository_that_the_task_does_not_name_is_out_of_reach() {
    let house = House::furnished(Plan::default());
    house.make_repository("attic", &[("secret.txt", "old letters\n".to_owned())], true);
    let mut house = house;
    house.serve();
    house.add_repository("attic");
    let script = "git clone -q http://127.0.0.1:3128/git/attic.git 2>&1 && echo CLONED\n\
        git push http://127.0.0.1:3128/git/attic.git HEAD:refs/for/main 2>&1 && echo PUSHED\n\
        git ls-remote http://127.0.0.1:3128/git/../attic.git 2>&1 && echo LISTED\n\
        true";
    let done = house
        .run(&house.task("ada", &["--repository", "shop"]), script)
        .ok();
    for bad in ["CLONED", "PUSHED", "LISTED", "letters"] {
        assert!(!done.out.contains(bad), "{bad}: {done:?}");
    }
    assert!(
        done.out.contains("the task does not name repository attic"),
        "{done:?}"
    );
    let denied = house.entries("request.denied");
    assert!(
        denied
            .iter()
            .any(|entry| entry.body["code"] == "repository-not-in-task"),
        "{denied:?}"
    );
}

#[test]
fn packs_past_the_limit_are_denied() {
    let house = House::solo();
    house.change_repository("max_pack_bytes = 20000");
    let big = "head -c 200000 /dev/urandom > src/big; git add -A; git commit -qm big; git push";
    denied(&house, &[], big, "pack", "20000");
    house
        .run(
            &house.task("ada", &[]),
            &format!("{}\ngit push", committing("src/a.txt", "a")),
        )
        .ok();
}

#[test]
fn broken_packs_and_objects_are_denied_and_leave_nothing() {
    let house = House::solo();
    let task = house.task("ada", &[]);
    let runner = house.runner(&task);
    let tip = house.tip("main");
    let zero = "0".repeat(40);
    let new = "1".repeat(40);
    let command = |old: &str, new: &str| {
        let line = format!("{old} {new} refs/for/main\0 report-status-v2 side-band-64k\n");
        format!("{:04x}{line}0000", line.len() + 4).into_bytes()
    };
    let mut packs: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("garbage", b"PACKgarbage".repeat(20)),
        ("no trailer", b"PACK\0\0\0\x02\0\0\0\x00".to_vec()),
        (
            "a count that lies",
            [b"PACK\0\0\0\x02\xff\xff\xff\xff".to_vec(), vec![0; 40]].concat(),
        ),
    ];
    packs.push(("a broken commit", broken_commit(&house)));
    let before = objects(&house);
    for (what, pack) in packs {
        let body = [command(&zero, &new), pack].concat();
        let answer = runner.push("shop", &body);
        assert!(answer.status < 500, "{what}: {answer:?}");
        let told = answer.text();
        assert!(!told.contains("ok refs/for/main"), "{what}: {answer:?}");
        await_objects(&house, &before);
    }
    for body in [&b"zzzz"[..], b"0003", b"", b"00040000", &[0xff; 300]] {
        let answer = runner.push("shop", body);
        assert!(
            answer.status < 500 && !answer.text().contains("ok refs"),
            "{answer:?}"
        );
    }
    assert_eq!((house.tip("main"), objects(&house)), (tip, before));
    assert!(house.entries("change.pushed").is_empty());
    house.check_secrets();
}

/// A pack with one commit whose author line is none, made by git itself.
fn broken_commit(house: &House) -> Vec<u8> {
    let scratch = house.path("work").join("scratch");
    fs::create_dir(&scratch).unwrap();
    house.git(&scratch, &["init", "-q", "."]).ok();
    fs::write(
        scratch.join("commit"),
        "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nauthor nobody\n\nx\n",
    )
    .unwrap();
    let literal = ["hash-object", "-t", "commit", "-w", "--literally", "commit"];
    let oid = house.git_line(&scratch, &literal);
    fs::write(scratch.join("list"), format!("{oid}\n")).unwrap();
    let list = fs::File::open(scratch.join("list")).unwrap();
    let out = house
        .git_command(&scratch)
        .args(["pack-objects", "--stdout"])
        .stdin(list)
        .stderr(std::process::Stdio::null())
        .output()
        .unwrap();
    out.stdout
}

/// A clone of a person, whose pushes go to the gateway.
fn persons_clone(house: &House) -> PathBuf {
    let clone = house.path("work").join("clone");
    let (from, to) = (house.shop(), clone.to_str().unwrap().to_owned());
    house
        .git(
            &house.path("work"),
            &["clone", "-q", from.to_str().unwrap(), &to],
        )
        .ok();
    let push = format!("{}/git/shop.git", house.url());
    house
        .git(&clone, &["remote", "set-url", "--push", "origin", &push])
        .ok();
    house.git(&clone, &["config", "gpg.format", "ssh"]).ok();
    let key = format!("{}.pub", house.key("ada").display());
    house.git(&clone, &["config", "user.signingkey", &key]).ok();
    fs::write(clone.join("src/greeting.txt"), "Good evening\n").unwrap();
    house
        .git(&clone, &["commit", "-qam", "Greet in the evening"])
        .ok();
    clone
}

fn push(house: &House, clone: &Path, arguments: &[&str]) -> Done {
    house.git(
        clone,
        &[&["push"], arguments, &["origin", "HEAD:refs/for/main"]].concat(),
    )
}

#[test]
fn a_persons_signed_push_becomes_a_change_and_lands() {
    let house = House::solo();
    let clone = persons_clone(&house);
    // The first look makes the mirror; what it brings in is not the push's.
    assert_ne!(push(&house, &clone, &[]).code, 0);
    let before = objects(&house);
    assert!(!before.is_empty());
    let unsigned = push(&house, &clone, &[]);
    assert_ne!(unsigned.code, 0, "{unsigned:?}");
    for told in ["people's pushes are signed", "git push --signed"] {
        assert!(unsigned.err.contains(told), "{unsigned:?}");
    }
    house.make_key("eve");
    let eve = format!("{}.pub", house.key("eve").display());
    house.git(&clone, &["config", "user.signingkey", &eve]).ok();
    let stranger = push(&house, &clone, &["--signed"]);
    assert_ne!(stranger.code, 0, "{stranger:?}");
    assert!(
        stranger.err.contains("no active person holds"),
        "{stranger:?}"
    );
    assert_eq!(objects(&house), before);
    assert!(house.entries("change.pushed").is_empty());

    let ada = format!("{}.pub", house.key("ada").display());
    house.git(&clone, &["config", "user.signingkey", &ada]).ok();
    push(&house, &clone, &["--signed"]).ok();
    let pushed = house.entries("change.pushed").pop().unwrap();
    assert_eq!(pushed.actor, "human:ada");
    assert_eq!(
        pushed.body["envelope"]["payloadType"],
        "application/vnd.git.push-certificate"
    );
    let change = format!("change-{}", pushed.index);
    if let Some(request) = wait_until("it is decided", || {
        let seen = house.change(&change);
        (seen["status"] == "landed")
            .then_some(None)
            .or(seen["request"].as_str().map(|id| Some(id.to_owned())))
    }) {
        house.approve("ada", &request).ok();
    }
    assert_eq!(
        house.await_landed(&change),
        house.git_line(&clone, &["rev-parse", "HEAD"])
    );
    assert_eq!(
        house.tip("main"),
        house.git_line(&clone, &["rev-parse", "HEAD"])
    );
}

#[test]
fn a_commit_that_reached_upstream_past_us_is_noticed_and_needs_a_person() {
    let house = House::solo();
    house.task("ada", &[]);
    let past = house.commit_upstream("past.txt", "nobody looked\n");
    let noticed = house.await_entry("commits.unproven", |entry| entry.body["from"].is_string());
    assert_eq!(
        (&noticed.body["to"], &noticed.body["commits"]),
        (&past.as_str().into(), &1.into())
    );
    let request = house.await_request("shop");
    let shown = house.cli("ada", &["request", "show", &request]).ok().both();
    assert!(shown.contains("past Portcullis"), "{shown}");
    house.approve("ada", &request).ok();
    house.await_entry("approval.given", |entry| {
        entry.body["statement"]["subject"]["kind"] == "unproven"
    });
    // It is noticed once.
    let count = || {
        house
            .entries("commits.unproven")
            .iter()
            .filter(|entry| entry.body["to"] == past)
            .count()
    };
    house.get("/v1/branches/shop/main");
    assert_eq!(count(), 1);
}

/// The launcher's connections are kept: what was refused for its path must not spoil what follows.
#[test]
fn the_dumb_protocol_is_refused_in_words_and_the_next_request_is_served() {
    let house = House::solo();
    let script = "for n in 1 2 3 4; do\n\
        if GIT_SMART_HTTP=0 git ls-remote origin; then echo SERVED; fi\n\
        git ls-remote origin refs/heads/main\ndone";
    let done = house.run(&house.task("ada", &[]), script).ok();
    assert!(!done.out.contains("SERVED"), "{done:?}");
    assert_eq!(done.out.matches("refs/heads/main").count(), 4, "{done:?}");
    assert_eq!(done.err.matches("dumb protocol").count(), 4, "{done:?}");
    assert!(!done.err.contains("session-number"), "{done:?}");
    let runner = house.runner(&house.task("ada", &[]));
    for path in ["HEAD", "objects/info/packs", "info/refs"] {
        let path = format!("/gateway/v1/git/shop.git/{path}");
        let answer = runner.call("GET", &path, &[], b"");
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (403, "dumb-protocol")
        );
    }
}

#[test]
fn a_run_sees_upstreams_tags_and_what_upstream_holds_now() {
    let mut house = House::furnished(Plan::default());
    house
        .git(&house.shop(), &["tag", "-a", "v1", "-m", "the first"])
        .ok();
    house.commit_upstream("later.txt", "later\n");
    // The look of every few seconds stays away: what a fetch sees it has looked up itself.
    let file = house.home().join("portcullis.toml");
    let config = fs::read_to_string(&file).unwrap();
    fs::write(
        &file,
        config.replace("sync_every_s = 1", "sync_every_s = 3600"),
    )
    .unwrap();
    house.serve();
    let task = house.task("ada", &[]);
    let described = house
        .run(&task, "git fetch -q --unshallow --tags\ngit describe")
        .ok();
    assert!(described.out.starts_with("v1-1-g"), "{described:?}");
    let runner = house.runner(&house.task("ada", &[]));
    let shows = |tip: &str| {
        let path = "/gateway/v1/git/shop.git/info/refs?service=git-upload-pack";
        let answer = runner.call("GET", path, &[], b"");
        let text = answer.text();
        assert!(text.contains(" refs/heads/main"), "{answer:?}");
        text.contains(&format!("{tip} refs/heads/main"))
    };
    // What was seen within the last second is not looked at again.
    let listed = |tip: &str| wait_until("the branch", || shows(tip).then_some(()));
    listed(&house.tip("main"));
    let past = house.commit_upstream("past.txt", "past\n");
    listed(&past);
    // Upstream away: the branch where it was seen last.
    let (shop, away) = (house.shop(), house.path("away"));
    fs::rename(&shop, &away).unwrap();
    listed(&past);
    fs::rename(&away, &shop).unwrap();
}

#[test]
fn a_mirror_that_may_take_no_more_is_swept_and_moves_to_what_it_holds_are_noticed() {
    let mut house = House::furnished(Plan::default());
    let file = house.home().join("portcullis.toml");
    let config = fs::read_to_string(&file).unwrap();
    let lines = config.lines();
    let mut config: Vec<&str> = lines
        .filter(|line| !line.starts_with("mirror_max_mib"))
        .collect();
    config.insert(0, "mirror_max_mib = 1");
    fs::write(&file, config.join("\n")).unwrap();
    house.serve();
    let task = house.task("ada", &[]);
    let first = house.tip("main");
    let second = house.commit_upstream("second.txt", "second\n");
    house.await_entry("commits.unproven", |entry| entry.body["to"] == second);
    let mut state = 1_u64;
    let noise: String = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        format!("{state:016x}\n")
    })
    .take(250_000)
    .collect();
    house.commit_upstream("large.txt", &noise);
    // It is cut off, or was so quick that nothing may come after it.
    let _either = house.try_get("/v1/branches/shop/main");
    house.run(&task, "git ls-remote origin").ok();
    let views = house.home().join("repositories/shop/views");
    wait_until("no view", || {
        fs::read_dir(&views).unwrap().next().is_none().then_some(())
    });
    house
        .git(&house.shop(), &["update-ref", "refs/heads/main", &first])
        .ok();
    house.await_entry("commits.unproven", |entry| entry.body["to"] == first);
}

/// The refusal as git's client shows it, by label.
fn told(done: &Done) -> std::collections::BTreeMap<String, String> {
    let mut told = std::collections::BTreeMap::new();
    for line in done.err.lines() {
        let Some(line) = line.strip_prefix("remote: ") else {
            continue;
        };
        for label in ["portcullis", "expected", "received", "rule", "next", "code"] {
            if let Some(text) = line.trim().strip_prefix(&format!("{label}:")) {
                told.insert(label.to_owned(), text.trim().to_owned());
            }
        }
    }
    told
}

#[test]
fn an_agent_that_asks_first_is_told_the_same_words_everywhere_and_it_is_counted() {
    let house = House::solo();
    let options = ["--paths", "src/**", "--max-files", "2"];
    // The push itself, in one run; asking for it in the three ways, in others.
    let commit = committing("docs/a.txt", "a");
    let pushed = house.run(&house.task("ada", &options), &format!("{commit}\ngit push"));
    assert_ne!(pushed.code, 0, "{pushed:?}");
    let before = objects(&house);
    let denials = house.entries("request.denied").len();
    let words = told(&pushed);
    assert_eq!(words["code"], "base-scope", "{words:?}");
    assert!(words.len() >= 5, "{words:?}");
    for ask in [
        "git ask",
        "git push -o dry-run",
        "git push -o dry-run origin HEAD:refs/for/main",
    ] {
        let asked = house.run(&house.task("ada", &options), &format!("{commit}\n{ask}"));
        assert_ne!(asked.code, 0, "{asked:?}");
        assert_eq!(told(&asked), words, "{ask}");
        await_objects(&house, &before);
    }
    // By HTTP, without a commit: for a program that will try again.
    let post = |body: &str| format!("curl -sS \"$PORTCULLIS_CHANNEL\"ask/push -d '{body}'; echo");
    let question = |paths: &str, reference: &str| {
        post(&format!(
            r#"{{"repository": "shop", "ref": "{reference}", "paths": [{paths}]}}"#
        ))
    };
    let script = [
        question(r#""docs/a.txt""#, "refs/for/main"),
        question(r#""src/a.txt""#, "refs/heads/main"),
        question(r#""src/a", "src/b", "src/c""#, "refs/for/main"),
        question(r#""src/../.git/config""#, "refs/for/main"),
        post("no question"),
        committing("src/a.txt", "a"),
        "if git ask; then echo PUSHED; fi".to_owned(),
        question(r#""src/a.txt""#, "refs/for/main"),
        "git push".to_owned(),
    ];
    let done = house
        .run(&house.task("ada", &options), &script.join("\n"))
        .ok();
    let answers: Vec<serde_json::Value> = done
        .out
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    assert_eq!(answers.len(), 6, "{done:?}");
    for (label, field) in [
        ("portcullis", "message"),
        ("expected", "expected"),
        ("received", "received"),
        ("rule", "rule"),
        ("next", "next"),
        ("code", "code"),
    ] {
        let said = answers[0][field].as_str();
        let shown = words.get(label).map(String::as_str);
        assert_eq!(said, shown, "{field}: {}", answers[0]);
    }
    let code = |at: usize| answers[at]["code"].as_str().unwrap_or_default().to_owned();
    assert!(code(1).contains("protected"), "{}", answers[1]);
    assert!(answers[2].to_string().contains("3 files of 2"), "{done:?}");
    assert_eq!(code(3), "hostile-path", "{}", answers[3]);
    assert!(answers[4].to_string().contains("refs/for/main"), "{done:?}");
    assert_eq!(answers[5]["accepted"], true);
    assert!(
        done.err.contains("without it the push would be accepted"),
        "{done:?}"
    );
    assert!(!done.out.contains("PUSHED"));
    // Nothing that was asked is a denial; how often it was asked stands before the reviewer.
    assert_eq!(house.entries("request.denied").len(), denials);
    let pushed = house.entries("change.pushed");
    assert_eq!(pushed.len(), 1);
    assert_eq!(pushed[0].body["questions"], 6, "five answers and git ask");
    let change = format!("change-{}", pushed[0].index);
    let request = house.await_request(&change);
    let shown = house.text("ada", &["request", "show", &request]).ok().out;
    assert!(
        shown.contains("the agent asked 6 times what would be refused"),
        "{shown}"
    );
}

#[test]
fn content_of_lfs_is_refused_and_its_pointers_are_shown_to_a_person() {
    let house = House::solo();
    let pointer = format!(
        "version https://git-lfs.github.com/spec/v1\\noid sha256:{}\\nsize 7",
        "ab".repeat(32)
    );
    let batch = r#"{"operation": "upload", "objects": []}"#;
    let script = format!(
        "for path in objects/batch locks/verify; do curl -sS -w ' %{{http_code}} %{{content_type}}\\n' \
         -H 'content-type: application/vnd.git-lfs+json' -d '{batch}' \
         \"$PORTCULLIS_CHANNEL\"git/shop.git/info/lfs/$path; done\n\
         mkdir -p src; printf '{pointer}\\n' > src/big.bin\n\
         git add -A; git commit -qm big; git push"
    );
    let done = house.run(&house.task("ada", &[]), &script).ok();
    let told: Vec<&str> = done.out.lines().collect();
    assert_eq!(told.len(), 2, "{done:?}");
    for line in told {
        assert!(line.contains("neither taken nor given here"), "{line}");
        assert!(line.ends_with("403 application/vnd.git-lfs+json"), "{line}");
    }
    let denied = house.entries("request.denied");
    assert_eq!(denied.len(), 2);
    assert_eq!(denied[0].body["code"], "lfs-not-served");
    let checked = house.await_entry("checks.completed", |_| true);
    let escalations = checked.body["escalations"].to_string();
    assert!(escalations.contains("lfs-pointer"), "{escalations}");
}

#[test]
fn an_upstream_that_was_force_pushed_is_noticed_and_nothing_is_overwritten() {
    let house = House::solo();
    let change = house.propose("ada", "src/a.txt", "a");
    let request = house.await_request(&change);
    // Somebody rewrites what the change stands on.
    let clone = house.path("work").join("rewrite");
    let (from, to) = (house.shop(), clone.to_str().unwrap().to_owned());
    let work = house.path("work");
    house
        .git(&work, &["clone", "-q", from.to_str().unwrap(), &to])
        .ok();
    house
        .git(&clone, &["commit", "-q", "--amend", "-m", "Begin again"])
        .ok();
    house
        .git(&clone, &["push", "-q", "--force", "origin", "HEAD:main"])
        .ok();
    let rewritten = house.tip("main");
    let noticed = house.await_entry("commits.unproven", |entry| {
        entry.body["to"] == rewritten.as_str()
    });
    // No count tells how many commits came in: history is another.
    assert_eq!(noticed.body["commits"], 0);
    house.approve("ada", &request);
    let told = wait_until("the change is told", || {
        let told = house.change(&change)["explain"]
            .as_str()
            .unwrap()
            .to_owned();
        told.contains("main moved").then_some(told)
    });
    assert!(told.contains("rebase"), "{told}");
    assert_eq!(house.tip("main"), rewritten);
    assert_eq!(house.change(&change)["status"], "open");
    // People accept the move, and work goes on from there.
    let asked = format!("request-{}", noticed.index);
    house.approve("ada", &asked).ok();
    let next = house.propose("ada", "src/b.txt", "b");
    house.approve("ada", &house.await_request(&next)).ok();
    house.await_landed(&next);
    let line = house.git_line(&house.shop(), &["rev-parse", "main~1"]);
    assert_eq!(line, rewritten);
    house.cli("ada", &["ledger", "verify"]).ok();
}
