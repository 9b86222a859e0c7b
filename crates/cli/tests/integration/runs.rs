//! Runs: what is inside, what is not, and how they end.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::house::{House, Plan, Terminal, committing, mode, nanos, wait_until};

fn both_kinds_of_user(test: impl Fn(&House)) {
    test(&House::solo());
    if rustix::process::geteuid().is_root() {
        test(&House::new(Plan {
            ordinary: true,
            ..Plan::default()
        }));
    }
}

#[test]
fn stock_git_works_inside_and_the_exit_status_is_passed_on() {
    both_kinds_of_user(|house| {
        let script = format!(
            "{}\ngit log --oneline | wc -l\ngit push\nexit 7",
            committing("src/a.txt", "a")
        );
        let done = house.run(&house.task("ada", &[]), &script).exits(7);
        assert!(done.err.contains("opened (revision 1)"), "{done:?}");
        let ended = house.entries("run.ended");
        assert_eq!(
            ended[0].body["end"],
            serde_json::json!({ "reason": "exited", "status": 7 })
        );
        let done = house.run(&house.task("ada", &[]), "kill -9 $$");
        done.exits(137);
    });
}

#[test]
fn nothing_of_the_caller_is_inside() {
    both_kinds_of_user(|house| {
        let mut command = house.run_command(
            &house.task("ada", &[]),
            "env; ls -a / /home /tmp /root 2>&1 || true; cat /etc/shadow 2>&1 || true; find / -name '*.key' -o -name id_ed25519 2>/dev/null | grep -v ^/usr || true",
        );
        command
            .env("CALLERS_SECRET", "swordfish")
            .env("SSH_AUTH_SOCK", "/nowhere/agent");
        let done = crate::house::run(&mut command).ok();
        for hidden in [
            "swordfish",
            "CALLERS_SECRET",
            "SSH_AUTH_SOCK",
            "root:",
            ".key",
        ] {
            assert!(!done.both().contains(hidden), "{hidden}: {done:?}");
        }
        let folder = house.path("").display().to_string();
        assert!(
            !done.both().contains(folder.trim_end_matches('/')),
            "{done:?}"
        );
        let outside = house.run(
            &house.task("ada", &[]),
            &format!("test ! -e {folder}; test ! -w /usr; ! touch /usr/x 2>/dev/null; id -u"),
        );
        assert_eq!(outside.ok().out.trim(), "1000");
    });
}

#[test]
fn there_is_no_way_out_but_the_gateway() {
    both_kinds_of_user(|house| {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        let server = house.port();
        let script = format!(
            "for port in {port} {server}; do\n\
             if curl --noproxy '*' --silent --max-time 3 http://127.0.0.1:$port/; then echo OUT; fi\n\
             done\n\
             curl --silent --max-time 10 http://example.com/ || true\n\
             if curl --silent --fail --max-time 10 http://127.0.0.1:{port}/; then echo OUT; fi\n\
             curl --silent --fail --max-time 10 https://example.com:443/ && echo OUT || true\n\
             curl --silent --max-time 10 \"$PORTCULLIS_CHANNEL\"v1/status || true\n\
             ip addr 2>/dev/null | grep -c 'state UP' || true"
        );
        let done = house.run(&house.task("ada", &[]), &script).ok();
        assert!(!done.out.contains("OUT"), "{done:?}");
        assert!(
            done.out.contains("hosts-named-in-task"),
            "the refusal is told: {done:?}"
        );
        assert!(
            !done.out.contains("\"root\""),
            "the API is not the channel's: {done:?}"
        );
        let error = listener.accept().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        let denied = house.entries("request.denied");
        assert!(
            denied
                .iter()
                .any(|entry| entry.body["action"] == "net.connect"),
            "{denied:?}"
        );
    });
}

#[test]
fn the_deadline_ends_a_run_with_everything_that_it_started() {
    both_kinds_of_user(|house| {
        let mark = format!("60{:09}", nanos());
        let task = house.task("ada", &["--budget-wall", "2s"]);
        let since = Instant::now();
        let script = format!("trap '' TERM INT; sleep {mark} & setsid sleep {mark} & sleep {mark}");
        let done = house.run(&task, &script).exits(137);
        assert!(since.elapsed() < Duration::from_secs(20), "{done:?}");
        wait_until("all of it is gone", || {
            (!runs_anywhere(&mark)).then_some(())
        });
        let ended = house.await_entry("run.ended", |_| true);
        assert_eq!(ended.body["end"]["reason"], "deadline");
    });
}

pub(crate) fn runs_anywhere(mark: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(mark)
    })
}

#[test]
fn a_terminal_its_size_and_its_interrupt_pass_through() {
    let house = House::solo();
    let script = "trap 'echo caught; exit 9' INT\nstty size\nread word\nstty size\necho got $word\nwhile :; do sleep 0.05; done";
    let mut terminal = Terminal::start(&house.run_command(&house.task("ada", &[]), script));
    let at = terminal.expect("24 80", 0);
    terminal.resize(100, 40);
    // The size goes through on its own; what is typed later is read later.
    std::thread::sleep(Duration::from_millis(300));
    terminal.type_text("hello\n");
    let at = terminal.expect("40 100", at);
    let at = terminal.expect("got hello", at);
    terminal.type_text("\u{3}");
    terminal.expect("caught", at);
    assert_eq!(terminal.wait(), 9);
}

#[test]
fn a_launcher_that_is_told_to_end_ends_its_run() {
    let house = House::solo();
    let mark = format!("61{:09}", nanos());
    let run = house.start_run(
        &house.task("ada", &[]),
        &format!("echo begun; sleep {mark}"),
    );
    wait_until("the command runs", || {
        run.out().contains("begun").then_some(())
    });
    run.signal(Signal::TERM);
    assert_eq!(run.wait(Duration::from_secs(20)).code, 143);
    assert!(!runs_anywhere(&mark));
    house.await_entry("run.ended", |entry| entry.body["end"]["status"] == 143);

    let run = house.start_run(
        &house.task("ada", &[]),
        &format!("echo begun; sleep {mark}"),
    );
    wait_until("the command runs", || {
        run.out().contains("begun").then_some(())
    });
    run.kill();
    wait_until("nothing of it is left", || {
        (!runs_anywhere(&mark)).then_some(())
    });
}

/// Everything below a folder that is no run's: what it is, when it changed, what it holds.
fn below(folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
    use std::os::unix::fs::MetadataExt as _;
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let data = std::fs::symlink_metadata(&path).unwrap();
        let content = if data.is_file() {
            format!("{:?}", std::fs::read(&path).unwrap())
        } else if data.is_symlink() {
            format!("{:?}", std::fs::read_link(&path).unwrap())
        } else {
            below(&path, found);
            String::new()
        };
        let facts = format!(
            "{:o} {} {} {content}",
            data.mode(),
            data.uid(),
            data.ctime()
        );
        found.insert(path, facts);
    }
}

/// Places where a machine executes, or takes settings for what it executes, later on.
const EXECUTED_LATER: &[&str] = &[
    // Shells and sessions.
    ".bashrc",
    ".bash_profile",
    ".bash_login",
    ".bash_logout",
    ".bash_aliases",
    ".profile",
    ".zshenv",
    ".zshrc",
    ".zprofile",
    ".zlogin",
    ".kshrc",
    ".cshrc",
    ".login",
    ".inputrc",
    ".config/fish/config.fish",
    ".config/environment.d/x.conf",
    ".pam_environment",
    ".xprofile",
    ".xinitrc",
    ".config/autostart/x.desktop",
    ".config/systemd/user/x.service",
    ".local/bin/ls",
    "bin/ls",
    ".ssh/rc",
    ".ssh/config",
    ".ssh/environment",
    ".ssh/authorized_keys",
    ".tmux.conf",
    // What tools read at their start.
    ".gitconfig",
    ".config/git/config",
    ".config/git/hooks/pre-commit",
    ".netrc",
    ".curlrc",
    ".wgetrc",
    ".cargo/config.toml",
    ".cargo/bin/cargo",
    ".npmrc",
    ".yarnrc",
    ".pypirc",
    ".config/pip/pip.conf",
    ".pythonrc",
    ".local/lib/python3/site-packages/x.pth",
    ".gemrc",
    ".m2/settings.xml",
    ".gradle/init.gradle",
    ".gdbinit",
    ".lldbinit",
    ".psqlrc",
    ".sqliterc",
    ".docker/config.json",
    ".kube/config",
    ".direnvrc",
    ".envrc",
    ".editorconfig",
    ".vimrc",
    ".exrc",
    ".config/nvim/init.vim",
    ".emacs",
    ".emacs.d/init.el",
    ".nanorc",
    ".vscode/settings.json",
    ".vscode/tasks.json",
    ".config/Code/User/settings.json",
    ".idea/x.xml",
    ".claude/settings.json",
    ".codex/config.toml",
    ".mcp.json",
];

/// As [`EXECUTED_LATER`], in a checkout.
const EXECUTED_IN_CHECKOUT: &[&str] = &[
    ".git/hooks/pre-commit",
    ".git/hooks/post-checkout",
    ".git/hooks/post-merge",
    ".git/hooks/pre-push",
    ".git/hooks/fsmonitor-watchman",
    ".git/config",
    ".git/config.worktree",
    ".git/info/attributes",
    ".git/info/exclude",
    ".git/objects/info/alternates",
    ".git/modules/x/config",
    ".gitattributes",
    ".gitmodules",
    ".githooks/pre-commit",
    ".husky/pre-commit",
    ".pre-commit-config.yaml",
    ".vscode/tasks.json",
    ".vscode/settings.json",
    ".idea/workspace.xml",
    ".devcontainer/devcontainer.json",
    ".envrc",
    ".mise.toml",
    ".github/workflows/x.yml",
    ".gitlab-ci.yml",
    ".circleci/config.yml",
    "Jenkinsfile",
    ".portcullis/policy.cedar",
    ".cargo/config.toml",
    "build.rs",
    "conftest.py",
    "package.json",
    "Makefile",
    ".npmrc",
];

#[test]
fn nothing_is_written_where_the_host_executes_later_and_a_run_leaves_the_host_as_it_was() {
    both_kinds_of_user(|house| {
        let (home, checkout) = (house.path("callers-home"), house.path("callers-home/shop"));
        std::fs::create_dir_all(&home).unwrap();
        house.give_away(&home);
        let shop = house.shop();
        house
            .git(&home, &["clone", "--quiet", shop.to_str().unwrap(), "shop"])
            .ok();
        // Some are there before, for what only changes existing files.
        for (name, folder) in [
            (".bashrc", &home),
            (".gitconfig", &home),
            ("Makefile", &checkout),
        ] {
            std::fs::write(folder.join(name), "# as it was\n").unwrap();
        }
        house.give_away(&home);
        let spots: Vec<String> = EXECUTED_LATER
            .iter()
            .map(|name| home.join(name))
            .chain(EXECUTED_IN_CHECKOUT.iter().map(|name| checkout.join(name)))
            .map(|path| path.display().to_string())
            .chain(
                [
                    "/etc/profile.d/x.sh",
                    "/etc/cron.d/x",
                    "/etc/ld.so.preload",
                    "/etc/gitconfig",
                    "/etc/environment",
                    "/etc/systemd/system/x.service",
                    "/var/spool/cron/crontabs/root",
                    "/usr/local/bin/ls",
                    "/usr/lib/git-core/git-status",
                    "/root/.bashrc",
                    "/etc/sudoers.d/x",
                    "/etc/udev/rules.d/x.rules",
                    "/lib/systemd/system/x.service",
                ]
                .map(str::to_owned),
            )
            .collect();
        let before = || {
            let mut found = BTreeMap::new();
            below(&home, &mut found);
            below(&house.shop().join("hooks"), &mut found);
            for path in &spots {
                found.insert(path.into(), format!("{:?}", std::fs::read(path).ok()));
            }
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
            let ours = |line: &&str| line.contains(home.parent().unwrap().to_str().unwrap());
            let mounts: Vec<_> = mounts.lines().filter(ours).collect();
            found.insert("mounts".into(), format!("{mounts:?}"));
            found
        };
        let mark = format!("63{:09}", nanos());
        let was = before();
        // By its own name, through the roots of processes, and through links; then by name inside,
        // where all of it may be written as far as it is the run's own.
        let script = format!(
            "ln -s / up 2>/dev/null
            while IFS= read -r spot; do
                for way in \"$spot\" \"/proc/1/root$spot\" \"/proc/self/cwd/../../../..$spot\" \"up$spot\"; do
                    [ -d \"${{way%/*}}\" ] || mkdir -p \"${{way%/*}}\" 2>/dev/null || true
                    {{ echo 'touch {mark}' > \"$way\"; }} 2>/dev/null || true
                    ln -sf /workspace/evil \"$way\" 2>/dev/null || true
                done
            done <<'EOF'\n{}\nEOF
            git config core.hooksPath /workspace/hooks; git config --global core.fsmonitor 'touch {mark}'
            mkdir -p .git/hooks && printf '#!/bin/sh\ntouch {mark}\n' > .git/hooks/post-update
            chmod +x .git/hooks/*; (setsid sh -c 'sleep 1000; : {mark}' &) ; exit 6",
            spots.join("\n"),
        );
        let mut command = house.run_command(&house.task("ada", &[]), &script);
        command.env("HOME", &home).current_dir(&checkout);
        crate::house::run(&mut command).exits(6);
        // A command that is not there, and a launcher that is killed.
        let task = house.task("ada", &[]);
        let mut command = house.run_command(&task, "no-such-command-anywhere");
        crate::house::run(command.env("HOME", &home).current_dir(&checkout)).exits(127);
        let run = house.start_run(
            &house.task("ada", &[]),
            &format!("echo begun; sleep {mark}"),
        );
        wait_until("the command runs", || {
            run.out().contains("begun").then_some(())
        });
        run.kill();
        wait_until("nothing of it is left", || {
            (!runs_anywhere(&mark)).then_some(())
        });
        let now = before();
        let changed: Vec<_> = now
            .iter()
            .filter(|(path, facts)| was.get(*path) != Some(facts))
            .map(|(path, _)| path)
            .chain(was.keys().filter(|path| !now.contains_key(*path)))
            .collect();
        assert!(changed.is_empty(), "{changed:#?}");
        let ours = |group: &str| group.starts_with("portcullis-run-");
        wait_until("no cgroup of a process that is gone is left", || {
            let mut groups = vec![PathBuf::from("/sys/fs/cgroup")];
            let mut left = 0;
            while let Some(folder) = groups.pop() {
                for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                    if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                        continue;
                    }
                    let name = entry.file_name().to_string_lossy().into_owned();
                    let pid = name.trim_start_matches("portcullis-run-");
                    if ours(&name) && !Path::new("/proc").join(pid).exists() {
                        left += 1;
                    }
                    groups.push(entry.path());
                }
            }
            (left == 0).then_some(())
        });
    });
}

/// The command that runs a script as the agent, started by another program's words, with these
/// options besides.
fn through(
    house: &House,
    words: &[&str],
    task: &Path,
    options: &[&str],
    script: &str,
) -> crate::house::Done {
    let inner = house.run_command(task, script);
    let mut ours: Vec<_> = inner.get_args().map(ToOwned::to_owned).collect();
    ours.splice(1..1, options.iter().map(Into::into));
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .arg(inner.get_program())
        .args(ours)
        .env_clear()
        .envs(
            inner
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .current_dir(house.path("work"));
    crate::house::run(&mut command)
}

#[test]
fn a_missing_protection_needs_leave_for_this_very_one_which_the_ledger_states() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let house = House::solo();
    // Root without these can give a run no user of its own.
    let less = [
        "setpriv",
        "--bounding-set",
        "-sys_admin,-setuid",
        "--inh-caps",
        "-sys_admin,-setuid",
    ];
    for options in [&[][..], &["--allow-gap", "landlock"][..]] {
        let done = through(
            &house,
            &less,
            &house.task("ada", options),
            &[],
            "echo begun",
        );
        assert!(done.code != 0 && !done.out.contains("begun"), "{done:?}");
        for word in ["own-user", "base-sandbox-gap", "signature"] {
            assert!(done.err.contains(word), "{done:?}");
        }
    }
    assert!(house.entries("run.started").is_empty());
    let task = house.task("ada", &["--allow-gap", "own-user", "--runs", "2"]);
    let done = through(&house, &less, &task, &[], "id -u; echo x > made; exit 4").exits(4);
    assert_eq!(done.out, "1000\n");
    // The leave is for a machine that lacks it; one that has it states none.
    house.run(&task, "exit 5").exits(5);
    let gaps: Vec<_> = house
        .entries("run.started")
        .iter()
        .map(|entry| entry.body["gaps"].clone())
        .collect();
    assert_eq!(gaps[0], serde_json::json!(["own-user"]));
    assert!(gaps[1].as_array().is_none_or(Vec::is_empty), "{gaps:?}");
}

/// Becomes a program to which the kernel has no netfilter sockets, as one without nf_tables.
const WITHOUT_FILTER: &str = "import ctypes, os, platform, struct, sys
number = {'x86_64': 41, 'aarch64': 198}[platform.machine()]
steps = [(0x20, 0, 0, 0), (0x15, 0, 3, number), (0x20, 0, 0, 32), (0x15, 0, 1, 12),
         (0x06, 0, 0, 0x00050000 | 93), (0x06, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *step) for step in steps))
rules = struct.pack('HP', len(steps), ctypes.addressof(code))
assert ctypes.CDLL(None, use_errno=True).prctl(22, 2, rules, 0, 0) == 0
os.execvp(sys.argv[1], sys.argv[1:])";

#[test]
fn a_kernel_that_can_not_capture_every_port_needs_leave_and_the_ledger_says_so() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let house = House::solo();
    let less = ["python3", "-c", WITHOUT_FILTER];
    let done = through(&house, &less, &house.task("ada", &[]), &[], "echo begun");
    assert!(done.code != 0 && !done.out.contains("begun"), "{done:?}");
    for word in ["every-port", "base-sandbox-gap"] {
        assert!(done.err.contains(word), "{done:?}");
    }
    assert!(house.entries("run.started").is_empty());
    let task = house.task("ada", &["--allow-gap", "every-port", "--runs", "2"]);
    // A port that nobody listens at is refused unseen there, and answered where all are captured.
    let look = "exec 3<>/dev/tcp/192.0.2.7/8124 && echo answered || echo refused";
    let look = format!("bash -c '{look}' 2>/dev/null");
    assert_eq!(
        through(&house, &less, &task, &[], &look).ok().out,
        "refused\n"
    );
    assert_eq!(house.run(&task, &look).ok().out, "answered\n");
    let started = house.entries("run.started");
    let gaps: Vec<_> = started.iter().map(|entry| &entry.body["gaps"]).collect();
    assert_eq!(*gaps[0], serde_json::json!(["every-port"]));
    assert!(gaps[1].as_array().is_none_or(Vec::is_empty), "{gaps:?}");
    let denied = house.entries("request.denied");
    let seen: Vec<_> = denied
        .iter()
        .filter(|entry| entry.body["resource"] == "host 192.0.2.7:8124")
        .map(|entry| entry.body["run"].clone())
        .collect();
    assert_eq!(seen.len(), 1, "{denied:?}");
}

#[test]
fn a_full_disk_is_the_runs_own_trouble() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let house = House::solo();
    let disk = house.path("disk");
    std::fs::create_dir(&disk).unwrap();
    // A file system of so many bytes, which is gone with the launcher.
    let on_disk = |size: &str, script: &str| {
        let place = disk.to_str().unwrap();
        let mounting = "mount -t tmpfs -o size=$1 none \"$2\" && shift 2 && exec \"$@\"";
        let words = [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            mounting,
            "sh",
            size,
            place,
        ];
        let options = ["--workspaces", place];
        through(&house, &words, &house.task("ada", &[]), &options, script)
    };
    let script =
        "if dd if=/dev/zero of=big bs=64k 2>/tmp/error; then echo no end; fi; cat /tmp/error
        rm big; echo after > small; cat small; git status --short; echo x > /tmp/still; exit 3";
    let done = on_disk("16m", script).exits(3);
    assert!(done.out.contains("No space left on device"), "{done:?}");
    assert!(done.out.contains("after\n"), "{done:?}");
    house.await_entry("run.ended", |entry| entry.body["end"]["status"] == 3);

    // No room for the run's own directory: it does not start, and the server is told so.
    let done = on_disk("8k", "echo begun").exits(1);
    assert!(!done.out.contains("begun"), "{done:?}");
    assert!(done.err.contains("No space left on device"), "{done:?}");
    assert!(done.err.contains(disk.to_str().unwrap()), "{done:?}");
    house.await_entry("run.ended", |entry| entry.body["end"]["status"] == 125);
    assert_eq!(std::fs::read_dir(&disk).unwrap().count(), 0);
}

/// A model's endpoint: answers any request, and tells what it was sent.
fn endpoint() -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            stream
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            while !String::from_utf8_lossy(&request).contains("\"messages\"") {
                match stream.read(&mut buffer) {
                    Ok(count @ 1..) => request.extend_from_slice(&buffer[..count]),
                    Ok(0) | Err(_) => break,
                }
            }
            let body = "{\"model\":\"m-1-2026\",\"choices\":[]}";
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
            let _ = write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len());
            if tell
                .send(String::from_utf8_lossy(&request).into_owned())
                .is_err()
            {
                return;
            }
        }
    });
    (port, told)
}

#[test]
fn a_model_endpoint_is_lent_without_its_key() {
    let key = "mk-4f9d2c7b81e64a03";
    let mut house = House::new(Plan {
        loopback: true,
        ..Plan::default()
    });
    house.guard_secret("the endpoint's key", key);
    let (port, told) = endpoint();
    house.write_secret("model-key", key);
    let record = format!(
        "id = \"model\"\nbase_url = \"http://127.0.0.1:{port}/v1\"\nprefix = \"Bearer \"\n\
         secret = \"model-key\"\nmodels = [\"m-1\"]\n"
    );
    house.add("ada", "endpoint", &record).ok();
    house
        .add(
            "ada",
            "agent",
            &House::agent_record("helper", "endpoints = [\"model\"]"),
        )
        .ok();
    assert_eq!(mode(&house.home().join("secrets/model-key")), 0o600);
    let ask = |model: &str| {
        format!(
            "curl --silent --show-error -H 'authorization: Bearer mine' -H 'content-type: application/json' \
             -d '{{\"model\":\"{model}\",\"messages\":[]}}' \"$PORTCULLIS_ENDPOINT_MODEL/chat/completions\"\n"
        )
    };
    let script = format!("{}env; {}", ask("m-1"), ask("m-2"));
    let done = house
        .run(&house.task("ada", &["--endpoint", "model"]), &script)
        .ok();
    assert!(done.out.contains("m-1-2026"), "{done:?}");
    assert!(!done.both().contains(key), "the key came in: {done:?}");
    assert!(
        done.out.contains("base-undeclared-endpoint"),
        "another model is refused: {done:?}"
    );
    let received = told.recv_timeout(Duration::from_secs(10)).unwrap();
    let lower = received.to_lowercase();
    assert!(
        lower.contains(&format!("authorization: bearer {key}")),
        "{received}"
    );
    assert!(
        received.starts_with("POST /v1/chat/completions "),
        "{received}"
    );
    for ours in ["bearer mine", "dpop", "portcullis"] {
        assert!(!lower.contains(ours), "{ours} went out: {received}");
    }
    assert!(told.try_recv().is_err(), "the refused model was not asked");
    let calls = |entry: &crate::house::Entry| entry.body["model_served"] == "m-1-2026";
    let call = house.await_entry("call.observed", calls);
    assert_eq!(
        (&call.body["model_asked"], &call.body["status"]),
        (&"m-1".into(), &200.into())
    );

    // Another task's run was not lent it.
    let runner_task = house.task("ada", &[]);
    let runner = house.runner(&runner_task);
    let body = br#"{"model":"m-1","messages":[]}"#;
    let answer = runner.call(
        "POST",
        "/gateway/v1/model/model/chat/completions",
        &[],
        body,
    );
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(answer.text().contains("in_task is false"), "{answer:?}");
}

#[test]
fn the_end_of_a_run_voids_what_it_was_lent() {
    let mut house = House::new(Plan {
        loopback: true,
        ..Plan::default()
    });
    let (port, _told) = endpoint();
    let record = format!("id = \"model\"\nbase_url = \"http://127.0.0.1:{port}/v1\"\n");
    house.add("ada", "endpoint", &record).ok();
    house
        .add(
            "ada",
            "agent",
            &House::agent_record(
                "helper",
                "endpoints = [\"model\"]\nhosts = [\"example.com:80\"]",
            ),
        )
        .ok();
    let task = house.task("ada", &["--endpoint", "model", "--host", "example.com:80"]);
    let token = {
        let runner = house.runner(&task);
        assert_eq!(runner.call("GET", "/gateway/v1/ask", &[], b"").status, 200);
        house
            .cli("ada", &["runs", "end", &runner.id(), "--why", "enough"])
            .ok();
        for _ in 0..3 {
            runner
                .call("GET", "/gateway/v1/ask", &[], b"")
                .refused(403, "run-ended");
            runner.begin_push("shop").refused(403, "run-ended");
            runner
                .call(
                    "POST",
                    "/gateway/v1/model/model/x",
                    &[],
                    br#"{"model":"m"}"#,
                )
                .refused(403, "run-ended");
            let target = [("portcullis-target", "http://example.com/")];
            runner
                .call("GET", "/gateway/v1/egress", &target, b"")
                .refused(403, "run-ended");
        }
        runner.token().to_owned()
    };
    let refused = house.entries("lease.refused");
    let mut kinds: Vec<_> = refused
        .iter()
        .map(|entry| entry.body["lease"]["kind"].as_str().unwrap())
        .collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["endpoint", "git", "host", "identity"]);
    house.guard_secret("a run's token", &token);
}

#[test]
fn a_token_is_renewed_for_its_own_key_while_its_run_lives() {
    let mut house = House::solo();
    let task = house.task("ada", &["--runs", "2"]);
    let (one, other) = (house.runner(&task), house.runner(&task));
    let (renewal, path) = ("/gateway/v1/identity", "/gateway/v1/ask");
    let answer = one.call("POST", renewal, &[], b"");
    assert_eq!(answer.status, 200, "{answer:?}");
    let renewed = answer.json();
    let token = renewed["token"].as_str().unwrap().to_owned();
    assert_ne!(token, one.token());
    let life = renewed["life_ms"].as_u64().unwrap();
    assert!((1_000..=3_600_000).contains(&life), "{life}");
    // The old one is good until it ends; the new one is good with this run's key alone.
    assert_eq!(one.call("GET", path, &[], b"").status, 200);
    one.take_token(&token);
    assert_eq!(one.call("GET", path, &[], b"").status, 200);
    other.take_token(&token);
    other.call("GET", path, &[], b"").refused(403, "dpop-key");
    other
        .call("POST", renewal, &[], b"")
        .refused(403, "dpop-key");
    let id = one.id();
    house
        .cli("ada", &["runs", "end", &id, "--why", "enough"])
        .ok();
    one.call("POST", renewal, &[], b"")
        .refused(403, "run-ended");
    drop((one, other));
    house.guard_secret("a renewed token", &token);
}

#[test]
fn a_run_is_only_whoever_holds_its_key() {
    let house = House::solo();
    let task = house.task("ada", &["--runs", "2"]);
    let (one, other) = (house.runner(&task), house.runner(&task));
    let path = "/gateway/v1/ask";
    assert_eq!(one.call("GET", path, &[], b"").status, 200);
    house
        .request("GET", path, &[], b"")
        .refused(403, "dpop-missing");
    let bearer = format!("Bearer {}", one.token());
    let answer = house.request("GET", path, &[("authorization", &bearer)], b"");
    assert!((400..500).contains(&answer.status), "{answer:?}");
    // Another run's token beside one's own proof.
    let stolen = other.call_with_token(one.token(), "GET", path);
    assert!((400..500).contains(&stolen.status), "{stolen:?}");
    stolen.code();
    // A proof counts once, for one method and one URL.
    let headers = one.proof("GET", path);
    assert_eq!(
        house.request("GET", path, &as_refs(&headers), b"").status,
        200
    );
    let replayed = house.request("GET", path, &as_refs(&headers), b"");
    assert_eq!(replayed.status, 403, "{replayed:?}");
    let elsewhere = one.proof("GET", "/gateway/v1/control");
    assert_eq!(
        house.request("GET", path, &as_refs(&elsewhere), b"").status,
        403
    );
}

fn as_refs(headers: &[(String, String)]) -> Vec<(&str, &str)> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}
