//! Pushes and clones through the gateway beside `git http-backend` behind nginx, in one run.
//!
//! `cargo build --release -p portcullis-cli`, then
//! `cargo run --release -p portcullis-cli --example git_bench -- [--case NAME]... [--pushes 30]
//! [--clone-mib 1024] [--runs 50] [--files 500000]`.
//!
//! | case | what is timed, by the shell that does it |
//! |---|---|
//! | `one` | pushes of one commit each, the median |
//! | `thousand` | one push of 1,000 commits |
//! | `clone` | bare clones of `--clone-mib` MiB that do not compress, the median of three |
//! | `files` | a push of one commit to a repository of `--files` files, the median of three, and a shallow fetch of it |
//! | `at-once` | `--runs` clients that fetch, commit and push at the same time |
//!
//! Without `--case` all of them. The gateway's side is the whole way: a run in its sandbox, the
//! launcher's channel, proof of possession, policy, quarantine, the durable entry. It takes `nginx`
//! and `fcgiwrap`, as root; without them it says so and measures the gateway alone.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[path = "common/mod.rs"]
mod common;

use std::fs;
use std::io::{BufWriter, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Outcome, done, free_port, git, identity, machine};

const ONE: &str = r#"
for n in $(seq "$PUSHES"); do
  printf '%s\n' "$n" > "file-$n"; git add "file-$n"; git commit -qm "one $n"
  a=$(date +%s%N); git push -q origin "HEAD:$TARGET"; b=$(date +%s%N)
  echo "push $(( (b - a) / 1000 ))"
done
"#;

const THOUSAND: &str = r#"
for n in $(seq 1000); do
  printf 'commit refs/heads/many\ncommitter %s <%s> 1700000000 +0000\ndata 5\nmany\n' \
    "$GIT_COMMITTER_NAME" "$GIT_COMMITTER_EMAIL"
  if [ "$n" = 1 ]; then printf 'from %s\n' "$(git rev-parse HEAD)"; fi
  printf 'M 100644 inline many\ndata 4\n%04d\n' "$n"
done | git fast-import --quiet
a=$(date +%s%N); git push -q origin "many:$TARGET"; b=$(date +%s%N)
echo "push $(( (b - a) / 1000 ))"
"#;

const CLONE: &str = r#"
for n in 1 2 3; do
  a=$(date +%s%N); git clone -q --bare "$URL" "copy-$n"; b=$(date +%s%N)
  rm -rf "copy-$n"; echo "clone $(( (b - a) / 1000 ))"
done
"#;

const FETCH: &str = r#"
git init -q --bare again
a=$(date +%s%N); git -C again fetch -q --depth=1 "$URL" HEAD; b=$(date +%s%N)
rm -rf again; echo "clone $(( (b - a) / 1000 ))"
"#;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    One,
    Thousand,
    Clone,
    Files,
    AtOnce,
}

impl Case {
    const ALL: [Self; 5] = [
        Self::One,
        Self::Thousand,
        Self::Clone,
        Self::Files,
        Self::AtOnce,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Thousand => "thousand",
            Self::Clone => "clone",
            Self::Files => "files",
            Self::AtOnce => "at-once",
        }
    }

    /// The repository that it works on.
    const fn repository(self) -> &'static str {
        match self {
            Self::One | Self::Thousand | Self::AtOnce => "small",
            Self::Clone => "big",
            Self::Files => "wide",
        }
    }

    fn script(self) -> String {
        match self {
            Self::One => ONE.to_owned(),
            Self::Thousand => THOUSAND.to_owned(),
            Self::Clone => CLONE.to_owned(),
            Self::Files => format!("{ONE}{FETCH}"),
            Self::AtOnce => String::new(),
        }
    }
}

struct Wanted {
    cases: Vec<Case>,
    pushes: u64,
    clone_mib: u64,
    runs: u64,
    files: u64,
}

impl Wanted {
    fn read() -> Outcome<Self> {
        let mut wanted = Self {
            cases: Vec::new(),
            pushes: 30,
            clone_mib: 1_024,
            runs: 50,
            files: 500_000,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or(format!("{name} takes a value"))?;
            match name.as_str() {
                "--case" => wanted.cases.push(
                    Case::ALL
                        .into_iter()
                        .find(|case| case.name() == value)
                        .ok_or("a case is one, thousand, clone, files or at-once")?,
                ),
                "--pushes" => wanted.pushes = value.parse()?,
                "--clone-mib" => wanted.clone_mib = value.parse()?,
                "--runs" => wanted.runs = value.parse()?,
                "--files" => wanted.files = value.parse()?,
                other => return Err(format!("unknown option {other}").into()),
            }
        }
        if wanted.cases.is_empty() {
            wanted.cases = Case::ALL.to_vec();
        }
        Ok(wanted)
    }
}

fn main() -> Outcome<()> {
    let wanted = Wanted::read()?;
    println!("{}", machine());
    let place = tempfile::Builder::new().prefix("git-bench").tempdir()?;
    let bench = Bench::prepare(place.path(), &wanted)?;
    println!("the server at rest: {} KiB", bench.server_memory("VmRSS:")?);
    for case in &wanted.cases {
        if *case == Case::AtOnce {
            bench.at_once(wanted.runs)?;
        } else {
            bench.compare(*case, wanted.pushes)?;
        }
        println!(
            "{:<9} the server's peak so far: {} KiB",
            case.name(),
            bench.server_memory("VmHWM:")?
        );
    }
    Ok(())
}

struct Bench {
    root: PathBuf,
    program: PathBuf,
    port: u16,
    server: Killed,
    /// nginx and fcgiwrap, and nginx's port.
    web: Option<(Vec<Killed>, u16)>,
}

/// A process that ends with us, and all that it started.
struct Killed(Child);

impl Killed {
    fn start(command: &mut Command) -> Outcome<Self> {
        command.stdin(Stdio::null()).process_group(0);
        Ok(Self(command.spawn()?))
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        // nginx cleans up on TERM; what does not go is killed.
        let group = format!("-{}", self.0.id());
        let _ = Command::new("kill").args(["-TERM", "--", &group]).status();
        std::thread::sleep(Duration::from_millis(200));
        let kill = Command::new("kill")
            .args(["-KILL", "--", &group])
            .stderr(Stdio::null())
            .status();
        let _ = (kill, self.0.wait());
    }
}

impl Bench {
    fn prepare(root: &Path, wanted: &Wanted) -> Outcome<Self> {
        let program = std::env::current_exe()?
            .parent()
            .and_then(Path::parent)
            .map(|folder| folder.join("portcullis"))
            .filter(|file| file.exists())
            .ok_or("build the program first: cargo build --release -p portcullis-cli")?;
        fs::create_dir(root.join("work"))?;
        fs::create_dir(root.join("far"))?;
        let mut repositories: Vec<&str> = Vec::new();
        for case in &wanted.cases {
            let name = case.repository();
            if repositories.contains(&name) {
                continue;
            }
            repositories.push(name);
            let begin = Instant::now();
            make(root, name, wanted)?;
            println!("made {name} in {:.1} s", begin.elapsed().as_secs_f64());
        }
        let port = free_port()?;
        let key = root.join("key");
        done(
            Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(&key),
        )?;
        let home = root.join("home");
        let mut init = Command::new(&program);
        init.arg("init").arg(&home);
        init.env("PORTCULLIS_KEY", root.join("key.pub"));
        for name in &repositories {
            let path = root.join(format!("{name}.git"));
            init.arg("--repository")
                .arg(format!("{name}={}", path.display()));
        }
        for (name, value) in [
            ("human", "ada".to_owned()),
            ("quorum", "1".to_owned()),
            ("agent", "helper".to_owned()),
            ("listen", format!("127.0.0.1:{port}")),
            ("origin", "example.com/bench".to_owned()),
            ("trust-domain", "example.com".to_owned()),
        ] {
            init.arg(format!("--{name}")).arg(value);
        }
        done(init.arg("--solo"))?;
        let log = fs::File::create(root.join("server.log"))?;
        let mut serve = Command::new(&program);
        serve
            .arg("serve")
            .env("PORTCULLIS_HOME", &home)
            .env("PORTCULLIS_LOG", "warn");
        let server = Killed::start(serve.stdout(log).stderr(Stdio::null()))?;
        await_text(&root.join("server.log"), "ready at")?;
        let bench = Self {
            root: root.to_owned(),
            program,
            port,
            server,
            web: beside(root)?,
        };
        // The first look makes a mirror; what is measured is what comes after.
        for name in repositories {
            let begin = Instant::now();
            let task = bench.task(name, 1, 1)?;
            // A run of many files is a checkout of them, and warms nothing that is timed.
            let also = if name == Case::Files.repository() {
                ""
            } else {
                bench.run(&task, "true")?;
                ", and one run"
            };
            println!(
                "mirrored {name}{also}: {:.1} s",
                begin.elapsed().as_secs_f64()
            );
        }
        Ok(bench)
    }

    fn portcullis(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env(
                "PORTCULLIS_SERVER",
                format!("http://127.0.0.1:{}", self.port),
            )
            .env("PORTCULLIS_HOME", self.root.join("home"))
            .env("PORTCULLIS_KEY", self.root.join("key"))
            .current_dir(self.root.join("work"));
        command
    }

    fn task(&self, repository: &str, runs: u64, pushes: u64) -> Outcome<PathBuf> {
        let file = self.root.join("work/task.json");
        let _ = fs::remove_file(&file);
        let mut task = self.portcullis();
        task.args([
            "task", "new", "Measure", "--sign", "--agent", "helper", "--paths", "**",
        ]);
        task.args(["--repository", repository]);
        task.args(["--max-files", "100000", "--max-lines", "1000000"]);
        task.args([
            "--runs",
            &runs.to_string(),
            "--budget-pushes",
            &pushes.to_string(),
        ]);
        // No look at the run falls into what is timed.
        task.args(["--window", "1h"]);
        done(task.arg("--file").arg(&file))?;
        Ok(file)
    }

    fn run(&self, task: &Path, script: &str) -> Outcome<String> {
        let mut run = self.portcullis();
        run.arg("run")
            .arg("--task")
            .arg(task)
            .args(["--", "sh", "-ec", script]);
        done(&mut run)
    }

    fn compare(&self, case: Case, pushes: u64) -> Outcome<()> {
        let name = case.repository();
        let pushes = if case == Case::Files { 3 } else { pushes };
        let task = self.task(name, 1, pushes + 10)?;
        let script = format!(
            "export PUSHES={pushes} TARGET=refs/for/main \
             URL=http://127.0.0.1:3128/git/{name}.git\n{}",
            case.script()
        );
        let begin = Instant::now();
        let ours = self.run(&task, &script)?;
        println!(
            "{:<9} the gateway's side took {:.1} s",
            case.name(),
            begin.elapsed().as_secs_f64()
        );
        // At once, so that a run cut short has said what it knew.
        for what in ["push", "clone"] {
            let one = median(&ours, what);
            if !one.is_nan() {
                println!(
                    "{:<9} {what:<5} gateway {:>10.1} ms",
                    case.name(),
                    one / 1e3
                );
            }
        }
        let Some((_, port)) = &self.web else {
            return Ok(());
        };
        let begin = Instant::now();
        let theirs = self.theirs(case, pushes, *port)?;
        println!(
            "{:<9} http-backend's side took {:.1} s",
            case.name(),
            begin.elapsed().as_secs_f64()
        );
        for what in ["push", "clone"] {
            let (one, other) = (median(&ours, what), median(&theirs, what));
            if one.is_nan() {
                continue;
            }
            println!(
                "{:<9} {what:<5} gateway {:>10.1} ms   http-backend {:>10.1} ms   \
                 difference {:>9.1} ms   ratio {:.2}",
                case.name(),
                one / 1e3,
                other / 1e3,
                (one - other) / 1e3,
                one / other
            );
        }
        Ok(())
    }

    /// The same to nginx.
    fn theirs(&self, case: Case, pushes: u64, port: u16) -> Outcome<String> {
        let name = case.repository();
        let url = format!("http://127.0.0.1:{port}/{name}.git");
        let clone = self.root.join("work").join(case.name());
        let to = clone.display().to_string();
        // Commits are made from the index; files would be written for nothing.
        git(
            &self.root,
            &["clone", "-q", "--depth=1", "--no-checkout", &url, &to],
        )?;
        git(&clone, &["read-tree", "HEAD"])?;
        let script = format!(
            "export PUSHES={pushes} TARGET=refs/heads/{} URL={url}\n{}",
            case.name(),
            case.script()
        );
        let said = done(identity(
            Command::new("sh")
                .args(["-ec", &script])
                .current_dir(&clone),
        ))?;
        fs::remove_dir_all(clone)?;
        Ok(said)
    }

    /// So many runs, each with one push; and as many clients of nginx.
    fn at_once(&self, runs: u64) -> Outcome<()> {
        let task = self.task("small", runs, 5)?;
        let script = "echo \"$PORTCULLIS_RUN\" > run; git add -A; git commit -qm one; git push -q";
        let begin = Instant::now();
        let mut children = Vec::new();
        for _ in 0..runs {
            let mut run = self.portcullis();
            run.arg("run")
                .arg("--task")
                .arg(&task)
                .args(["--", "sh", "-ec", script]);
            children.push(run.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        }
        let failed = ended(children)?;
        println!(
            "at-once   {runs} runs in sandboxes, each fetches one commit and pushes one: {:.1} s, {failed} failed",
            begin.elapsed().as_secs_f64()
        );
        let Some((_, port)) = &self.web else {
            return Ok(());
        };
        let url = format!("http://127.0.0.1:{port}/small.git");
        let begin = Instant::now();
        let mut children = Vec::new();
        for n in 0..runs {
            let script = format!(
                "git init -q at-{n}; cd at-{n}; git remote add origin {url}; \
                 git fetch -q --depth=1 origin main; git checkout -q FETCH_HEAD; echo {n} > run; \
                 git add -A; git commit -qm one; git push -q origin HEAD:refs/heads/at-{n}; \
                 cd ..; rm -rf at-{n}"
            );
            let mut command = Command::new("sh");
            command
                .args(["-ec", &script])
                .current_dir(self.root.join("work"));
            children.push(identity(&mut command).stderr(Stdio::null()).spawn()?);
        }
        let failed = ended(children)?;
        println!(
            "at-once   {runs} clients of http-backend, the same without sandboxes: {:.1} s, {failed} failed",
            begin.elapsed().as_secs_f64()
        );
        Ok(())
    }

    /// A figure of the server's process, in KiB.
    fn server_memory(&self, what: &str) -> Outcome<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.server.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(what));
        Ok(line.unwrap_or("0").trim().trim_end_matches(" kB").parse()?)
    }
}

/// How many of these failed.
fn ended(children: Vec<Child>) -> Outcome<u64> {
    let mut failed = 0;
    for mut child in children {
        failed += u64::from(!child.wait()?.success());
    }
    Ok(failed)
}

/// A bare repository for each side.
fn make(root: &Path, name: &str, wanted: &Wanted) -> Outcome<()> {
    let ours = root.join(format!("{name}.git"));
    git(
        root,
        &[
            "init",
            "-q",
            "--bare",
            "-b",
            "main",
            &ours.display().to_string(),
        ],
    )?;
    let mut import = Command::new("git");
    import
        .args(["-c", "core.compression=0", "-c", "fastimport.unpackLimit=0"])
        .args(["fast-import", "--quiet"])
        .current_dir(&ours)
        .stdin(Stdio::piped());
    let mut child = import.spawn()?;
    let mut input = BufWriter::with_capacity(1 << 20, child.stdin.take().ok_or("no input")?);
    let commit =
        "commit refs/heads/main\ncommitter Ada <ada@example.com> 1700000000 +0000\ndata 5\nBegin\n";
    input.write_all(commit.as_bytes())?;
    match name {
        "big" => {
            // It is in the history alone, so that a run's checkout is small.
            let mut random = fs::File::open("/dev/urandom")?;
            let mut bytes = vec![0_u8; 1024 * 1024];
            for n in 0..wanted.clone_mib {
                random.read_exact(&mut bytes)?;
                writeln!(input, "M 100644 inline blob-{n}\ndata {}", bytes.len())?;
                input.write_all(&bytes)?;
                input.write_all(b"\n")?;
            }
            input.write_all(commit.as_bytes())?;
            input.write_all(b"deleteall\nM 100644 inline readme\ndata 3\nbig\n")?;
        }
        "wide" => {
            for n in 0..wanted.files {
                let (folder, file) = (n / 500, n % 500);
                writeln!(
                    input,
                    "M 100644 inline f{}/d{}/file-{file}\ndata 8\n{n:08}",
                    folder / 40,
                    folder % 40
                )?;
            }
        }
        _ => input.write_all(b"M 100644 inline readme\ndata 6\nsmall\n\n")?,
    }
    input.flush()?;
    drop(input);
    if !child.wait()?.success() {
        return Err(format!("{name} was not made").into());
    }
    let theirs = root.join("far").join(format!("{name}.git"));
    let (from, to) = (ours.display().to_string(), theirs.display().to_string());
    git(root, &["clone", "-q", "--bare", &from, &to])?;
    git(&theirs, &["config", "http.receivepack", "true"])
}

/// The peer, if it is installed.
fn beside(root: &Path) -> Outcome<Option<(Vec<Killed>, u16)>> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = |name: &str| {
        std::env::split_paths(&path)
            .chain([PathBuf::from("/usr/sbin")])
            .map(|folder| folder.join(name))
            .find(|file| file.is_file())
    };
    let (Some(nginx), Some(wrap)) = (installed("nginx"), installed("fcgiwrap")) else {
        println!(
            "nginx and fcgiwrap are not installed, so the gateway is measured alone: \
             apt-get install nginx-light fcgiwrap"
        );
        return Ok(None);
    };
    let port = free_port()?;
    Ok(Some((start_nginx(root, port, &nginx, &wrap)?, port)))
}

/// nginx before fcgiwrap before `git http-backend`.
fn start_nginx(root: &Path, port: u16, nginx: &Path, wrap: &Path) -> Outcome<Vec<Killed>> {
    let socket = root.join("fcgi.sock");
    let backend = done(Command::new("git").arg("--exec-path"))?;
    let backend = Path::new(backend.trim()).join("git-http-backend");
    let config = format!(
        "daemon off; pid {0}/nginx.pid; error_log {0}/nginx.err; user root; worker_processes 2;\n\
         events {{ worker_connections 512; }}\n\
         http {{ access_log off; client_max_body_size 0; client_body_temp_path {0}/b;\n\
         proxy_temp_path {0}/p; fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u; scgi_temp_path {0}/s;\n\
         server {{ listen 127.0.0.1:{port}; location / {{\n\
         fastcgi_pass unix:{1}; fastcgi_param SCRIPT_FILENAME {2}; fastcgi_param GIT_PROJECT_ROOT {0}/far;\n\
         fastcgi_param GIT_HTTP_EXPORT_ALL 1; fastcgi_param PATH_INFO $uri; fastcgi_param REMOTE_USER x;\n\
         fastcgi_param QUERY_STRING $query_string; fastcgi_param REQUEST_METHOD $request_method;\n\
         fastcgi_param CONTENT_TYPE $content_type; fastcgi_param CONTENT_LENGTH $content_length;\n\
         fastcgi_param HTTP_CONTENT_ENCODING $http_content_encoding;\n\
         fastcgi_param GIT_PROTOCOL $http_git_protocol; fastcgi_buffering off;\n\
         fastcgi_param GIT_CONFIG_COUNT 1; fastcgi_param GIT_CONFIG_KEY_0 safe.directory;\n\
         fastcgi_param GIT_CONFIG_VALUE_0 *; }} }} }}\n",
        root.display(),
        socket.display(),
        backend.display()
    );
    let file = root.join("nginx.conf");
    fs::write(&file, config)?;
    let mut wrap = Command::new(wrap);
    wrap.args(["-c", "8", "-s"])
        .arg(format!("unix:{}", socket.display()));
    let wrap = Killed::start(wrap.stdout(Stdio::null()).stderr(Stdio::null()))?;
    let mut nginx = Command::new(nginx);
    nginx.arg("-c").arg(&file);
    let nginx = Killed::start(nginx.stdout(Stdio::null()).stderr(Stdio::null()))?;
    for _ in 0..200 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() && socket.exists() {
            return Ok(vec![nginx, wrap]);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err("nginx does not answer".into())
}

fn await_text(file: &Path, text: &str) -> Outcome<()> {
    for _ in 0..600 {
        if fs::read_to_string(file)?.contains(text) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(format!("{} never says {text}", file.display()).into())
}

/// The median of the lines of this name, in microseconds.
fn median(text: &str, what: &str) -> f64 {
    let mut all: Vec<f64> = text
        .lines()
        .filter_map(|line| line.strip_prefix(what)?.trim().parse().ok())
        .collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}
