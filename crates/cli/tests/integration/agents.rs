//! Real agents and real package managers, doing real work inside, against servers on loopback.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::egress::{allow, house_with};
use crate::house::{House, Outside, Plan, Reply, run};

/// Where `cargo xtask` puts npm packages that tests drive.
pub(crate) fn npm_packages() -> PathBuf {
    let target = Path::new(super::house::PROGRAM)
        .ancestors()
        .find(|folder| folder.file_name().is_some_and(|name| name == "target"))
        .expect("the program stands below target");
    target.join("tools/npm/node_modules")
}

/// Whether a program is here; a test that needs it says so and ends otherwise. `cargo xtask test`
/// brings it.
pub(crate) fn have(what: &str, path: &Path) -> bool {
    let there = path.exists();
    if !there {
        eprintln!("{what} is not here ({}): skipped", path.display());
    }
    there
}

/// A toolchain's directory, as a program of it tells: where it lies outside of what the sandbox
/// shows anyway.
fn toolchain_of(program: &str, arguments: &[&str]) -> Option<PathBuf> {
    let told = Command::new(program).args(arguments).output().ok()?;
    let path = PathBuf::from(String::from_utf8(told.stdout).ok()?.trim());
    path.is_dir().then_some(path)
}

/// Runs a script as the agent, with these directories visible.
pub(crate) fn run_with(
    house: &House,
    task: &Path,
    shown: &[&Path],
    script: &str,
) -> crate::house::Done {
    let mut command = house.portcullis("nobody");
    command.arg("run").arg("--task").arg(task);
    for path in shown {
        command.arg("--toolchain").arg(path);
    }
    command.args(["--", "sh", "-ec", script]);
    run(command.stdin(std::process::Stdio::null()))
}

/// One step of the scripted model.
enum Step {
    /// Have the agent run a command.
    Shell(&'static str),
    /// Say something; the agent ends.
    Say(&'static str),
}

/// A model endpoint that speaks the Responses API and follows a script, whatever it is asked.
fn scripted(steps: Vec<Step>) -> Outside {
    let at = AtomicUsize::new(0);
    Outside::new(move |asked| {
        if !asked.path().ends_with("/responses") {
            return Reply::ok("application/json", "{\"data\":[],\"models\":[]}");
        }
        let number = at.fetch_add(1, Ordering::SeqCst);
        let item = match steps.get(number) {
            Some(Step::Shell(command)) => json!({
                "type": "function_call", "id": format!("fc{number}"),
                "call_id": format!("call{number}"), "name": "exec_command",
                "arguments": json!({ "cmd": command, "yield_time_ms": 20_000 }).to_string(),
            }),
            Some(Step::Say(_)) | None => {
                let text = match steps.get(number) {
                    Some(Step::Say(text)) => text,
                    Some(Step::Shell(_)) | None => "nothing more",
                };
                json!({
                    "type": "message", "role": "assistant", "id": format!("m{number}"),
                    "content": [{ "type": "output_text", "text": text }],
                })
            }
        };
        let response = json!({ "id": format!("r{number}"), "model": "scripted-2" });
        let usage = json!({
            "input_tokens": 1, "input_tokens_details": null,
            "output_tokens": 1, "output_tokens_details": null, "total_tokens": 2,
        });
        let mut completed = response.clone();
        completed["usage"] = usage;
        let events = [
            json!({ "type": "response.created", "response": response }),
            json!({ "type": "response.output_item.done", "item": item }),
            json!({ "type": "response.completed", "response": completed }),
        ];
        let text: String = events
            .iter()
            .map(|event| {
                let name = event["type"].as_str().unwrap();
                format!("event: {name}\ndata: {event}\n\n")
            })
            .collect();
        Reply::ok("text/event-stream", text)
    })
}

#[test]
fn codex_does_a_whole_task_inside() {
    let packages = npm_packages();
    if !have("Codex", &packages.join("@openai/codex")) {
        return;
    }
    let model = scripted(vec![
        Step::Shell("cat README.md && ls"),
        Step::Shell("printf 'good day\\n' > src/greeting.txt && git diff --stat"),
        Step::Shell("grep -q 'good day' src/greeting.txt && echo tests pass"),
        Step::Shell("git add --all && git commit --quiet -m 'Greet politely' && git push"),
        Step::Say("It is done."),
    ]);
    let mut house = house_with(
        Plan {
            loopback: true,
            ..Plan::default()
        },
        &[],
        "",
    );
    let key = "mk-4b1d7e9a2c5f4863";
    house.guard_secret("the endpoint's key", key);
    house.write_secret("model-key", key);
    let record = format!(
        "id = \"openai\"\nbase_url = \"http://127.0.0.1:{}/v1\"\nprefix = \"Bearer \"\nsecret = \"model-key\"\n",
        model.port
    );
    house.add("ada", "endpoint", &record).ok();
    allow(&house, &[], "endpoints = [\"openai\"]");
    let task = house.task("ada", &["--endpoint", "openai", "--paths", "src/**"]);
    let codex = packages.join("@openai/codex/bin/codex.js");
    let script = format!(
        "mkdir -p ~/.codex\n\
         cat > ~/.codex/config.toml <<EOF\n\
         model = \"scripted-1\"\nmodel_provider = \"gateway\"\n\
         [model_providers.gateway]\nname = \"gateway\"\nbase_url = \"$OPENAI_BASE_URL\"\n\
         wire_api = \"responses\"\nenv_key = \"OPENAI_API_KEY\"\n\
         EOF\n\
         node {} exec --dangerously-bypass-approvals-and-sandbox 'Greet politely' < /dev/null",
        codex.display()
    );
    let done = run_with(&house, &task, &[&packages], &script).ok();
    assert!(done.both().contains("It is done."), "{done:?}");
    house.check_text("what Codex printed", &done.both());
    let pushed = house.entries("change.pushed");
    assert_eq!(pushed.len(), 1, "{done:?}");
    // What it was asked came with our key, and with nothing else of the run's.
    let asked: Vec<_> = model
        .seen()
        .into_iter()
        .filter(|asked| asked.path() == "/v1/responses")
        .collect();
    assert_eq!(asked.len(), 5, "{done:?}");
    for asked in &asked {
        assert!(asked.head.contains(&format!("authorization: bearer {key}")));
        assert!(!asked.head.contains("the-gateway-adds-the-key"));
    }
    let last: Value = serde_json::from_slice(&asked.last().unwrap().body).unwrap();
    assert!(last.to_string().contains("tests pass"), "{last}");
    let served = house.await_entry("call.observed", |entry| {
        entry.body["model_served"] == "scripted-2"
    });
    assert_eq!(served.body["model_asked"], "scripted-1");
}

/// Packs a directory as `tar` and `gzip` do.
fn packed(parent: &Path, name: &str) -> Vec<u8> {
    let done = Command::new("tar")
        .args(["--owner=0", "--group=0", "-czf", "-", name])
        .current_dir(parent)
        .output()
        .unwrap();
    assert!(done.status.success());
    done.stdout
}

fn write(path: PathBuf, text: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn cargo_builds_with_a_crate_from_a_mirror() {
    let Some(sysroot) = toolchain_of("rustc", &["--print", "sysroot"]) else {
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let outside = Outside::files(root.path().to_owned());
    let host = format!("crates.test:{}", outside.port);
    write(
        root.path().join("polite-1.0.0/Cargo.toml"),
        "[package]\nname = \"polite\"\nversion = \"1.0.0\"\nedition = \"2021\"\n",
    );
    write(
        root.path().join("polite-1.0.0/src/lib.rs"),
        "pub fn greet() -> &'static str { \"good day\" }\n",
    );
    let package = packed(root.path(), "polite-1.0.0");
    let digest = portcullis_model::Digest::of(&package).to_string();
    write(root.path().join("dl/polite-1.0.0.crate"), package);
    write(
        root.path().join("index/config.json"),
        json!({ "dl": format!("http://{host}/dl/{{crate}}-{{version}}.crate") }).to_string(),
    );
    let entry = json!({
        "name": "polite", "vers": "1.0.0", "deps": [], "features": {}, "yanked": false,
        "cksum": digest.trim_start_matches("sha256:"),
    });
    write(root.path().join("index/po/li/polite"), format!("{entry}\n"));
    let hosts = [host.clone()];
    let house = house_with(Plan::default(), &hosts, "");
    allow(&house, &hosts, "");
    let script = format!(
        "mkdir -p /tmp/p/src /tmp/p/.cargo; cd /tmp/p\n\
         printf '[package]\\nname = \"shop\"\\nversion = \"0.1.0\"\\nedition = \"2021\"\\n[dependencies]\\npolite = \"1\"\\n' > Cargo.toml\n\
         printf 'fn main() {{ println!(\"{{}}\", polite::greet()); }}\\n' > src/main.rs\n\
         printf '[source.crates-io]\\nreplace-with = \"mirror\"\\n[source.mirror]\\nregistry = \"sparse+http://{host}/index/\"\\n' > .cargo/config.toml\n\
         export CARGO_HOME=/tmp/cargo\n\
         cargo build --quiet && ./target/debug/shop"
    );
    let task = house.task("ada", &["--trust", &host]);
    let done = run_with(&house, &task, &[&sysroot], &script).ok();
    assert_eq!(done.out.trim(), "good day", "{done:?}");
    assert!(house.entries("taint.added").is_empty());
}

#[test]
fn pip_and_npm_install_from_mirrors_and_git_clones_another_repository() {
    let root = tempfile::tempdir().unwrap();
    let files = root.path().to_owned();
    let outside = Outside::new(move |asked| {
        let path = files.join(asked.path().trim_start_matches('/'));
        let (path, kind) = if path.is_dir() {
            (path.join("index.html"), "text/html")
        } else if asked.path() == "/npm/polite" {
            (path.with_extension("json"), "application/json")
        } else {
            (path, "application/octet-stream")
        };
        fs::read(path).map_or_else(|_| Reply::none(), |bytes| Reply::ok(kind, bytes))
    });
    let host = format!("mirror.test:{}", outside.port);
    let at = |path: &str| root.path().join(path);

    // A wheel is a zip file with three lists.
    write(
        at("wheel/polite.py"),
        "def greet():\n    return 'good day'\n",
    );
    write(
        at("wheel/polite-1.0.dist-info/METADATA"),
        "Metadata-Version: 2.1\nName: polite\nVersion: 1.0\n",
    );
    write(
        at("wheel/polite-1.0.dist-info/WHEEL"),
        "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    );
    write(
        at("wheel/polite-1.0.dist-info/RECORD"),
        "polite.py,,\npolite-1.0.dist-info/METADATA,,\npolite-1.0.dist-info/WHEEL,,\npolite-1.0.dist-info/RECORD,,\n",
    );
    let wheel = "polite-1.0-py3-none-any.whl";
    fs::create_dir_all(at("files")).unwrap();
    let zipped = Command::new("python3")
        .args(["-m", "zipfile", "-c"])
        .arg(at("files").join(wheel))
        .args(["polite.py", "polite-1.0.dist-info"])
        .current_dir(at("wheel"))
        .status()
        .unwrap();
    assert!(zipped.success());
    write(
        at("simple/polite/index.html"),
        format!("<!DOCTYPE html><a href=\"/files/{wheel}\">{wheel}</a>"),
    );

    write(
        at("package/package.json"),
        json!({ "name": "polite", "version": "1.0.0", "main": "index.js" }).to_string(),
    );
    write(
        at("package/index.js"),
        "module.exports = () => 'good day';\n",
    );
    write(at("npm/polite-1.0.0.tgz"), packed(root.path(), "package"));
    let tarball = format!("http://{host}/npm/polite-1.0.0.tgz");
    write(
        at("npm/polite.json"),
        json!({ "name": "polite", "dist-tags": { "latest": "1.0.0" }, "versions": {
            "1.0.0": { "name": "polite", "version": "1.0.0", "dist": { "tarball": tarball } },
        } })
        .to_string(),
    );
    let wants =
        json!({ "name": "shop", "version": "0.1.0", "dependencies": { "polite": "1.0.0" } });
    let lock = json!({
        "name": "shop", "version": "0.1.0", "lockfileVersion": 3, "requires": true,
        "packages": {
            "": wants,
            "node_modules/polite": { "version": "1.0.0", "resolved": tarball },
        },
    });

    let hosts = [host.clone()];
    let house = house_with(
        Plan {
            files: vec![
                ("README.md", "# Shop\n".to_owned()),
                ("package.json", wants.to_string()),
                ("package-lock.json", lock.to_string()),
            ],
            ..Plan::default()
        },
        &hosts,
        "",
    );
    allow(&house, &hosts, "");
    house.make_repository("library", &[("lib.txt", "good day\n".to_owned())], true);
    let bare = house.path("library");
    house.git(&bare, &["update-server-info"]).ok();
    run(Command::new("cp")
        .arg("-r")
        .arg(&bare)
        .arg(at("library.git")))
    .ok();

    let task = house.task("ada", &["--trust", &host, "--runs", "3"]);
    let cloned =
        format!("git clone --quiet http://{host}/library.git /tmp/l && cat /tmp/l/lib.txt");
    let done = house.run(&task, &cloned).ok();
    assert_eq!(done.out.trim(), "good day", "{done:?}");

    if let Some(prefix) = toolchain_of("python3", &["-c", "import pip, sys; print(sys.prefix)"]) {
        let script = format!(
            "python3 -m pip install --quiet --disable-pip-version-check --no-cache-dir --target /tmp/t --trusted-host mirror.test --index-url http://{host}/simple polite\n\
             PYTHONPATH=/tmp/t python3 -c 'import polite; print(polite.greet())'"
        );
        let done = run_with(&house, &task, &[&prefix], &script).ok();
        assert_eq!(done.out.trim(), "good day", "{done:?}");
    }
    if let Some(prefix) = toolchain_of("npm", &["prefix", "--global"]) {
        let script = format!(
            "npm ci --silent --no-audit --no-fund --registry http://{host}/npm\n\
             node -e 'console.log(require(\"polite\")())'"
        );
        let done = run_with(&house, &task, &[&prefix], &script).ok();
        assert_eq!(done.out.trim(), "good day", "{done:?}");
    }
}
