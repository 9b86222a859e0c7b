//! A server of its own, runs under it, and the proxies beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::NAME;
use super::common::{Outcome, done, free_port, git};
use super::load::{Figures, now_ms};

/// Agents whose breaker is tripped, one after the other: a reset would take a hardware key.
pub(crate) const PROBES: usize = 5;

pub(crate) struct House {
    root: PathBuf,
    program: PathBuf,
    port: u16,
    server: Killed,
}

/// A process that ends with us.
pub(crate) struct Killed(Child);

impl Killed {
    pub(crate) fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        // What does not go on TERM is killed.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.end();
    }
}

impl House {
    pub(crate) fn prepare(root: &Path, host: u16) -> Outcome<Self> {
        let own = std::env::current_exe()?;
        let program = own
            .parent()
            .and_then(Path::parent)
            .map(|folder| folder.join("portcullis"))
            .filter(|file| file.exists())
            .ok_or("build the program first: cargo build --release -p portcullis-cli")?;
        let work = root.join("work");
        fs::create_dir(&work)?;
        git(&work, &["init", "-q", "-b", "main", "."])?;
        fs::copy(&own, work.join("load"))?;
        git(&work, &["add", "-A"])?;
        git(&work, &["commit", "-qm", "Begin"])?;
        git(root, &["clone", "-q", "--bare", "work", "shop.git"])?;
        let (key, home, port) = (root.join("key"), root.join("home"), free_port()?);
        done(
            Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(&key),
        )?;
        let mut init = Command::new(&program);
        init.arg("init").arg(&home).arg("--solo");
        init.env("PORTCULLIS_KEY", root.join("key.pub"));
        for (name, value) in [
            ("human", "ada".to_owned()),
            ("quorum", "1".to_owned()),
            (
                "repository",
                format!("shop={}", root.join("shop.git").display()),
            ),
            ("agent", "helper".to_owned()),
            ("listen", format!("127.0.0.1:{port}")),
            ("origin", "example.com/bench".to_owned()),
            ("trust-domain", "example.com".to_owned()),
        ] {
            init.arg(format!("--{name}")).arg(value);
        }
        done(&mut init)?;
        let config = home.join("portcullis.toml");
        let text = fs::read_to_string(&config)?;
        fs::write(
            &config,
            format!("{text}\n[addresses]\n\"{NAME}\" = [\"127.0.0.1\"]\n"),
        )?;
        let log = fs::File::create(root.join("server.log"))?;
        let mut serve = Command::new(&program);
        serve
            .arg("serve")
            .env("PORTCULLIS_HOME", &home)
            .env("PORTCULLIS_LOG", "warn");
        let house = Self {
            server: Killed(serve.stdout(log).stderr(Stdio::null()).spawn()?),
            root: root.to_owned(),
            program,
            port,
        };
        super::load::wait("the server", || {
            fs::read_to_string(root.join("server.log")).is_ok_and(|text| text.contains("ready at"))
        })?;
        let probes = (0..PROBES).map(|number| format!("probe-{number}"));
        for agent in std::iter::once("helper".to_owned()).chain(probes) {
            house.admit(&agent, host)?;
        }
        Ok(house)
    }

    /// Lets an agent reach the host.
    fn admit(&self, agent: &str, host: u16) -> Outcome<()> {
        let file = self.root.join("agent.toml");
        fs::write(
            &file,
            format!(
                "id = \"{agent}\"\nhosts = [\"{NAME}:{host}\"]\nowner = \"ada\"\n\
                 purpose = \"measures\"\nmodel = \"any\"\nruntime = \"any\"\n\
                 repositories = [\"shop\"]\nphases = [\"write\"]\n\
                 environment_ceiling = \"staging\"\n\
                 review_by = \"2100-01-01T00:00:00Z\"\nexpires = \"2100-01-01T00:00:00Z\"\n"
            ),
        )?;
        done(self.portcullis().args(["agent", "add"]).arg(&file)).map(|_| ())
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    fn portcullis(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("PORTCULLIS_SERVER", self.url())
            .env("PORTCULLIS_HOME", self.home())
            .env("PORTCULLIS_KEY", self.root.join("key"))
            .current_dir(self.root.join("work"));
        command
    }

    /// A signed task that names the host and trusts it.
    pub(crate) fn task(&self, agent: &str, host: u16) -> Outcome<PathBuf> {
        let file = self.root.join("task.json");
        let _ = fs::remove_file(&file);
        let mut task = self.portcullis();
        task.args(["task", "new", "Measure", "--sign", "--paths", "**"]);
        task.args(["--agent", agent, "--budget-calls", "1000000000"]);
        task.args(["--trust", &format!("{NAME}:{host}"), "--file"]);
        done(task.arg(&file))?;
        Ok(file)
    }

    fn run_command(
        &self,
        agent: &str,
        host: u16,
        connections: usize,
        time_s: u64,
    ) -> Outcome<Command> {
        let task = self.task(agent, host)?;
        let mut run = self.portcullis();
        run.arg("run").arg("--task").arg(task).arg("--");
        run.args(["./load", "inside", &format!("{NAME}:{host}")]);
        run.args([connections.to_string(), time_s.to_string()]);
        Ok(run)
    }

    /// The load inside a sandbox: its figures, and how many requests it made.
    pub(crate) fn inside(
        &self,
        host: u16,
        connections: usize,
        time_s: u64,
    ) -> Outcome<(Figures, u64)> {
        let told = done(&mut self.run_command("helper", host, connections, time_s)?)?;
        let line = told.lines().find_map(|line| line.strip_prefix("figures "));
        let figures = Figures::of_line(line.ok_or("the load in the sandbox told no figures")?)?;
        let requests = figures.requests;
        Ok((figures, requests))
    }

    /// As [`Self::inside`], by a probe's agent and not waiting for the end.
    pub(crate) fn start_inside(
        &self,
        probe: usize,
        host: u16,
        connections: usize,
    ) -> Outcome<Killed> {
        let log = fs::File::create(self.root.join(format!("probe-{probe}.log")))?;
        let mut run = self.run_command(&format!("probe-{probe}"), host, connections, 60)?;
        Ok(Killed(run.stdout(Stdio::null()).stderr(log).spawn()?))
    }

    /// Trips a probe's breaker: when it was asked for, and when the ledger says that it was.
    pub(crate) fn trip(&self, probe: usize) -> Outcome<(i64, i64)> {
        let agent = format!("probe-{probe}");
        let asked_ms = now_ms();
        let answer: Value = serde_json::from_str(&done(self.portcullis().args([
            "--output", "json", "breaker", "trip", "--agent", &agent, "--why", "measured",
        ]))?)?;
        let index = answer.get("index").and_then(Value::as_u64).unwrap_or(0);
        let told = done(self.portcullis().args([
            "--output",
            "json",
            "ledger",
            "tail",
            "--from",
            &index.to_string(),
        ]))?;
        let recorded = told
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|entry| entry.to_string().contains("breaker.tripped"))
            .filter_map(|entry| time_of(&entry))
            .next_back()
            .ok_or("the ledger does not tell of the trip")?;
        Ok((asked_ms, recorded))
    }

    /// Processor time of the server so far, in microseconds.
    pub(crate) fn server_time_us(&self) -> Outcome<f64> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.server.0.id()))?;
        let after = text.rsplit(')').next().unwrap_or_default();
        let ticks: u64 = after
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|word| word.parse::<u64>().ok())
            .sum();
        // Linux tells them in hundredths of a second.
        Ok(ticks as f64 * 1e4)
    }
}

/// The time of an entry in milliseconds since 1970, wherever it stands in what was printed.
fn time_of(entry: &Value) -> Option<i64> {
    let time = ["/entry/time", "/event/time", "/time"]
        .iter()
        .find_map(|place| entry.pointer(place))?;
    let time: portcullis_model::Timestamp = time.as_str()?.parse().ok()?;
    i64::try_from(time.as_ms()).ok()
}

/// A plain proxy of the distribution, with logs and caches off.
pub(crate) fn proxy(name: &str, root: &Path) -> Outcome<(u16, Killed)> {
    let known = ["/usr/bin", "/usr/sbin", "/usr/local/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|file| file.exists())
        .ok_or_else(|| format!("is not installed: apt-get install {name}"))?;
    let port = free_port()?;
    let file = root.join(format!("{name}.conf"));
    let place = root.join(name);
    fs::create_dir_all(&place)?;
    let mut command = Command::new(known);
    if name == "tinyproxy" {
        fs::write(
            &file,
            format!(
                "Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 1000\nAllow 127.0.0.1\n\
                 LogLevel Critical\nLogFile \"{}/log\"\nDisableViaHeader Yes\n",
                place.display()
            ),
        )?;
        command.arg("-d").arg("-c").arg(&file);
    } else {
        fs::write(
            &file,
            format!(
                "http_port 127.0.0.1:{port}\nhttp_access allow localhost\nhttp_access deny all\n\
                 cache deny all\naccess_log none\ncache_log /dev/null\ncache_store_log none\n\
                 pid_filename {0}/pid\nshutdown_lifetime 0 seconds\nnetdb_filename none\n\
                 cache_mem 0\npinger_enable off\n",
                place.display()
            ),
        )?;
        // It refuses to run as root and takes its package's user. The name is that of its shared
        // memory too, which one that was killed leaves behind, in the way of the next.
        command
            .arg("-N")
            .arg("-n")
            .arg(service())
            .arg("-f")
            .arg(&file);
    }
    let said = place.join("said");
    let running = Killed(
        command
            .stdout(fs::File::create(&said)?)
            .stderr(fs::File::options().append(true).open(&said)?)
            .spawn()?,
    );
    let listens = super::load::wait(name, || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    if let Err(error) = listens {
        drop(running);
        forget_memory()?;
        return Err(format!("{error}; it said: {}", fs::read_to_string(&said)?).into());
    }
    Ok((port, running))
}

/// Squid's name for itself, which nobody else has.
fn service() -> String {
    format!("egressbench{}", std::process::id())
}

/// What a squid that did not end well leaves in shared memory.
fn forget_memory() -> Outcome<()> {
    for entry in fs::read_dir("/dev/shm")?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&service()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The median time of writing 512 bytes and syncing them, in milliseconds.
pub(crate) fn sync_ms(root: &Path) -> Outcome<f64> {
    use std::io::Write as _;
    let mut file = fs::File::create(root.join("sync"))?;
    let mut times = Vec::new();
    for _ in 0..200 {
        let begin = Instant::now();
        file.write_all(&[7; 512])?;
        file.sync_data()?;
        times.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(super::load::at(&times, 50))
}
