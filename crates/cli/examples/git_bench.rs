//! Pushes and clones through the gateway beside `git http-backend` behind nginx, in one run.
//!
//! `cargo build --release -p portcullis-cli`, then
//! `cargo run --release -p portcullis-cli --example git_bench -- [PUSHES] [CLONE_MIB] [RUNS]`.
//! The gateway's side is the whole way: a run in its sandbox, the launcher's channel, proof of
//! possession, policy, quarantine, the durable entry. It takes `nginx` and `fcgiwrap`, as root.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::error::Error;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What both sides run in a clone: commits and pushes, each push timed by the shell itself.
const PUSHES: &str = r#"
for n in $(seq "$PUSHES"); do
  printf '%s\n' "$n" > "file-$TAG-$n"; git add -A; git commit -qm "one $n"
  a=$(date +%s%N); git push -q origin "HEAD:$TARGET"; b=$(date +%s%N)
  echo "one $(( (b - a) / 1000 ))"
done
for n in $(seq 1000); do
  printf 'commit refs/heads/many\ncommitter %s <%s> 1700000000 +0000\ndata 5\nmany\n' \
    "$GIT_COMMITTER_NAME" "$GIT_COMMITTER_EMAIL"
  if [ "$n" = 1 ]; then printf 'from %s\n' "$(git rev-parse HEAD)"; fi
  printf 'M 100644 inline many-%s\ndata 3\n%03d\n' "$TAG" "$n"
done | git fast-import --quiet
a=$(date +%s%N); git push -q origin "many:$TARGET"; b=$(date +%s%N)
echo "thousand $(( (b - a) / 1000 ))"
"#;

const CLONE: &str = r#"
for n in 1 2 3; do
  a=$(date +%s%N); git clone -q --bare "$URL" "copy-$n"; b=$(date +%s%N); rm -rf "copy-$n"
  echo "clone $(( (b - a) / 1000 ))"
done
"#;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |usual: u64| -> Outcome<u64> {
        Ok(arguments.next().map_or(Ok(usual), |text| text.parse())?)
    };
    let (pushes, clone_mib, runs) = (number(30)?, number(256)?, number(50)?);
    let place = tempfile::Builder::new().prefix("git-bench").tempdir()?;
    let bench = Bench::prepare(place.path(), clone_mib)?;
    println!("{}", machine());
    let ours = bench.ours(pushes)?;
    let theirs = bench.theirs(pushes)?;
    for what in ["one", "thousand", "clone"] {
        let (one, other) = (median(&ours, what), median(&theirs, what));
        println!(
            "{what:<9} gateway {:>10.1} ms   http-backend {:>10.1} ms   difference {:>9.1} ms   ratio {:.2}",
            one / 1e3,
            other / 1e3,
            (one - other) / 1e3,
            one / other
        );
    }
    println!("the server's peak: {} KiB", bench.server_peak()?);
    bench.at_once(runs)?;
    println!(
        "the server's peak after {runs} runs at once: {} KiB",
        bench.server_peak()?
    );
    Ok(())
}

struct Bench {
    root: PathBuf,
    program: PathBuf,
    port: u16,
    server: Killed,
    web: Vec<Killed>,
    web_port: u16,
}

/// A process that ends with us.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // nginx and fcgiwrap clean up on TERM; what does not go is killed.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        std::thread::sleep(Duration::from_millis(200));
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Bench {
    fn prepare(root: &Path, clone_mib: u64) -> Outcome<Self> {
        let program = std::env::current_exe()?
            .parent()
            .and_then(Path::parent)
            .map(|folder| folder.join("portcullis"))
            .filter(|file| file.exists())
            .ok_or("build the program first: cargo build --release -p portcullis-cli")?;
        let work = root.join("work");
        fs::create_dir(&work)?;
        git(&work, &["init", "-q", "-b", "main", "."])?;
        for n in 0..clone_mib.max(1) {
            let mut bytes = vec![0_u8; 1024 * 1024];
            fs::File::open("/dev/urandom")
                .and_then(|mut random| std::io::Read::read_exact(&mut random, &mut bytes))?;
            fs::write(work.join(format!("blob-{n}")), bytes)?;
        }
        git(&work, &["add", "-A"])?;
        git(
            &work,
            &["-c", "core.compression=0", "commit", "-qm", "Begin"],
        )?;
        for name in ["ours.git", "far/theirs.git"] {
            let to = root.join(name);
            git(
                root,
                &["clone", "-q", "--bare", "work", &to.display().to_string()],
            )?;
        }
        git(
            &root.join("far/theirs.git"),
            &["config", "http.receivepack", "true"],
        )?;
        fs::remove_dir_all(&work)?;
        fs::create_dir(&work)?;
        let (port, web_port) = (free_port()?, free_port()?);
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
        for (name, value) in [
            ("human", "ada".to_owned()),
            ("quorum", "1".to_owned()),
            (
                "repository",
                format!("shop={}", root.join("ours.git").display()),
            ),
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
        let server = Killed(serve.stdout(log).stderr(Stdio::null()).spawn()?);
        await_text(&root.join("server.log"), "ready at")?;
        let web = nginx(root, web_port)?;
        Ok(Self {
            root: root.to_owned(),
            program,
            port,
            server,
            web,
            web_port,
        })
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

    fn task(&self, runs: u64, pushes: u64) -> Outcome<PathBuf> {
        let file = self.root.join("work/task.json");
        let _ = fs::remove_file(&file);
        let mut task = self.portcullis();
        task.args([
            "task", "new", "Measure", "--sign", "--agent", "helper", "--paths", "**",
        ]);
        task.args(["--max-files", "100000", "--max-lines", "1000000"]);
        task.args([
            "--runs",
            &runs.to_string(),
            "--budget-pushes",
            &pushes.to_string(),
        ]);
        done(task.arg("--file").arg(&file))?;
        Ok(file)
    }

    /// Pushes and clones by a run.
    fn ours(&self, pushes: u64) -> Outcome<String> {
        let task = self.task(1, pushes + 10)?;
        let script = format!(
            "export PUSHES={pushes} TAG=x TARGET=refs/for/main \
             URL=http://127.0.0.1:3128/git/shop.git\n{PUSHES}\n{CLONE}"
        );
        let mut run = self.portcullis();
        run.arg("run")
            .arg("--task")
            .arg(task)
            .args(["--", "sh", "-ec", &script]);
        done(&mut run)
    }

    /// The same to nginx.
    fn theirs(&self, pushes: u64) -> Outcome<String> {
        let url = format!("http://127.0.0.1:{}/theirs.git", self.web_port);
        let clone = self.root.join("work/theirs");
        git(
            &self.root,
            &[
                "clone",
                "-q",
                "--depth=1",
                &url,
                &clone.display().to_string(),
            ],
        )?;
        let script = format!(
            "export PUSHES={pushes} TAG=x TARGET=refs/heads/topic URL={url}\n{PUSHES}\n{CLONE}"
        );
        done(identity(
            Command::new("sh").args(["-ec", &script]).current_dir(clone),
        ))
    }

    /// So many runs, each with one push; and as many clients of nginx.
    fn at_once(&self, runs: u64) -> Outcome<()> {
        let task = self.task(runs, 5)?;
        let script = "echo \"$PORTCULLIS_RUN\" > run; git add -A; git commit -qm one; git push -q";
        let begin = Instant::now();
        let mut children = Vec::new();
        for _ in 0..runs {
            let mut run = self.portcullis();
            run.arg("run")
                .arg("--task")
                .arg(&task)
                .args(["--", "sh", "-ec", script]);
            children.push(run.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?);
        }
        let mut failed = 0;
        for child in children {
            failed += u64::from(!child.wait_with_output()?.status.success());
        }
        let ours = begin.elapsed();
        let url = format!("http://127.0.0.1:{}/theirs.git", self.web_port);
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
        let mut others_failed = 0;
        for mut child in children {
            others_failed += u64::from(!child.wait()?.success());
        }
        println!(
            "{runs} at once: clone of one commit and push, {:.1} s as runs in sandboxes ({failed} failed), \
             {:.1} s to http-backend without ({others_failed} failed)",
            ours.as_secs_f64(),
            begin.elapsed().as_secs_f64()
        );
        Ok(())
    }

    fn server_peak(&self) -> Outcome<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.server.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let digits = line.unwrap_or("0").trim().trim_end_matches(" kB");
        debug_assert!(!self.web.is_empty());
        Ok(digits.parse()?)
    }
}

/// nginx before fcgiwrap before `git http-backend`.
fn nginx(root: &Path, port: u16) -> Outcome<Vec<Killed>> {
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
    let mut wrap = Command::new("fcgiwrap");
    wrap.args(["-c", "8", "-s"])
        .arg(format!("unix:{}", socket.display()));
    let wrap = Killed(wrap.spawn()?);
    let mut nginx = Command::new("nginx");
    nginx.arg("-c").arg(&file).stderr(Stdio::null());
    let nginx = Killed(nginx.spawn()?);
    for _ in 0..200 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() && socket.exists() {
            return Ok(vec![nginx, wrap]);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err("nginx does not answer".into())
}

fn identity(command: &mut Command) -> &mut Command {
    for (name, value) in [("NAME", "Ada"), ("EMAIL", "ada@example.com")] {
        command.env(format!("GIT_AUTHOR_{name}"), value);
        command.env(format!("GIT_COMMITTER_{name}"), value);
    }
    command
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
}

fn git(folder: &Path, arguments: &[&str]) -> Outcome<()> {
    done(identity(
        Command::new("git").args(arguments).current_dir(folder),
    ))
    .map(|_| ())
}

/// Runs a command to its end; what it printed.
fn done(command: &mut Command) -> Outcome<String> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}\n{error}").into())
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

fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
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

fn machine() -> String {
    let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1))
        .unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!("{model}, {cores} cores, load before: {}", load.trim())
}
