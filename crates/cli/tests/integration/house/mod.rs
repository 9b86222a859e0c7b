//! A house: a person's machine with a repository, keys, a server and its directory. Dropped, every
//! process that it started is ended by its id, and what the ledger holds is searched for secrets.

mod crafted;
mod http;
mod mirror;
mod outside;
mod process;
pub(crate) mod runner;
mod shield;
mod sockets;
mod terminal;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) use crafted::{nonce, now};
pub(crate) use http::{Answer, request};
pub(crate) use mirror::{Mirror, Said};
pub(crate) use outside::{Outside, Reply};
pub(crate) use process::{Background, Done, run};
pub(crate) use shield::{Behind, Voucher, whole_seconds};
pub(crate) use sockets::Heard;
pub(crate) use terminal::Terminal;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_portcullis");
/// Longest that anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// An ordinary user without a name, for houses that are not root's.
const ORDINARY_USER: u32 = 54_321;

/// How a house is furnished.
pub(crate) struct Plan {
    /// One person works alone.
    pub(crate) solo: bool,
    /// Administrators; the first owns the agent.
    pub(crate) people: &'static [&'static str],
    /// How many administrators bring a record into force.
    pub(crate) quorum: u32,
    /// Files of the repository's first commit.
    pub(crate) files: Vec<(&'static str, String)>,
    /// Whether endpoints and hosts may stand on loopback.
    pub(crate) loopback: bool,
    /// Whether everything is done as an ordinary user, where the tests run as root.
    pub(crate) ordinary: bool,
    /// Whether the repository has no work tree.
    pub(crate) bare: bool,
    /// Where the server's directory is, if not beside everything else.
    pub(crate) home: Option<PathBuf>,
    /// The PostgreSQL that keeps the ledger, if it isn't SQLite.
    pub(crate) store: Option<String>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            solo: true,
            people: &["ada"],
            quorum: 1,
            files: vec![
                ("README.md", "# Shop\n".to_owned()),
                ("src/greeting.txt", "hi\n".to_owned()),
            ],
            loopback: false,
            ordinary: false,
            bare: true,
            home: None,
            store: None,
        }
    }
}

impl Plan {
    /// A team of three administrators.
    pub(crate) fn team() -> Self {
        Self {
            solo: false,
            people: &["ada", "bob", "cyd"],
            ..Self::default()
        }
    }
}

/// A house.
pub(crate) struct House {
    directory: TempDir,
    home: PathBuf,
    port: u16,
    ordinary: bool,
    server: Option<Background>,
    secrets: Vec<(String, String)>,
    tasks: AtomicU32,
}

impl House {
    /// A furnished house whose server runs.
    pub(crate) fn new(plan: Plan) -> Self {
        let mut house = Self::furnished(plan);
        house.serve();
        house
    }

    /// One person alone, who works with one agent.
    pub(crate) fn solo() -> Self {
        Self::new(Plan::default())
    }

    /// A house with repository, keys and `init` done.
    pub(crate) fn furnished(plan: Plan) -> Self {
        let mut house = Self::bare();
        house.ordinary = plan.ordinary && rustix::process::geteuid().is_root();
        if let Some(home) = plan.home.clone() {
            house.home = home;
        }
        for person in plan.people {
            house.make_key(person);
        }
        house.give_away(house.directory.path());
        house.make_repository("shop", &plan.files, plan.bare);
        house.init(&plan);
        house
    }

    /// Another server of the same ledger, with a home of its own and the same people, repository
    /// and mirrors. It runs when this returns.
    pub(crate) fn start_standby(&self) -> Self {
        use std::os::unix::fs::symlink;
        let mut other = Self::bare();
        fs::remove_dir(other.path("keys")).unwrap();
        symlink(self.path("keys"), other.path("keys")).unwrap();
        symlink(self.shop(), other.shop()).unwrap();
        fs::create_dir(&other.home).unwrap();
        for name in ["genesis.json", "keys", "policy", "secrets"] {
            run(Command::new("cp")
                .arg("-a")
                .args([self.home.join(name), other.home.join(name)]))
            .ok();
        }
        symlink(
            self.home.join("repositories"),
            other.home.join("repositories"),
        )
        .unwrap();
        let config = fs::read_to_string(self.home.join("portcullis.toml")).unwrap();
        let (from, to) = (self.port.to_string(), other.port.to_string());
        fs::write(
            other.home.join("portcullis.toml"),
            config.replace(&from, &to),
        )
        .unwrap();
        other.serve();
        other
    }

    /// What the API answers, if the server does.
    pub(crate) fn try_get(&self, path: &str) -> Option<Value> {
        let answer = request(self.port, "GET", path, &[], b"").ok()?;
        (answer.status == 200).then(|| answer.json())
    }

    /// A directory and a free port, nothing else.
    pub(crate) fn bare() -> Self {
        let directory = tempfile::Builder::new().prefix("house").tempdir().unwrap();
        fs::create_dir(directory.path().join("keys")).unwrap();
        fs::create_dir(directory.path().join("work")).unwrap();
        Self {
            home: directory.path().join("home"),
            directory,
            port: free_port(),
            ordinary: false,
            server: None,
            secrets: Vec::new(),
            tasks: AtomicU32::new(0),
        }
    }

    /// A path in it.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join(below)
    }

    /// The server's directory.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// The server's URL.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where the server listens.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// A person's private key file.
    pub(crate) fn key(&self, person: &str) -> PathBuf {
        self.path("keys").join(person)
    }

    /// The repository upstream.
    pub(crate) fn shop(&self) -> PathBuf {
        self.path("shop")
    }

    /// A text that nothing recorded or logged may hold.
    pub(crate) fn guard_secret(&mut self, name: &str, text: &str) {
        self.secrets.push((name.to_owned(), text.to_owned()));
    }

    /// Nothing is guarded any more.
    pub(crate) fn forget_secrets(&mut self) {
        self.secrets.clear();
    }

    /// A copy of the home's policies with one more file.
    pub(crate) fn policy_with(&self, name: &str, text: &str) -> String {
        let folder = self.path("work").join(format!("policy-{}", nanos()));
        fs::create_dir(&folder).unwrap();
        fs::copy(
            self.home.join("policy/default.cedar"),
            folder.join("default.cedar"),
        )
        .unwrap();
        fs::write(folder.join(name), text).unwrap();
        folder.to_str().unwrap().to_owned()
    }

    /// Puts a folder of policy in force.
    pub(crate) fn activate_policy(&self, folder: &str) {
        self.cli(
            "ada",
            &["policy", "activate", folder, "--why", "for a test"],
        )
        .ok();
    }

    /// Makes an SSH key with OpenSSH's own program.
    pub(crate) fn make_key(&self, person: &str) {
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", person, "-f"]);
        run(keygen.arg(self.key(person))).ok();
    }

    /// Starts an ssh-agent that holds these people's keys.
    pub(crate) fn ssh_agent(&self, people: &[&str]) -> SshAgent {
        let socket = self.path("work").join("ssh-agent");
        let mut command = Command::new("ssh-agent");
        command.arg("-D").arg("-a").arg(&socket);
        let process = Background::start(&mut command, &self.path("work"));
        wait_until("the ssh-agent listens", || socket.exists().then_some(()));
        for person in people {
            let mut add = Command::new("ssh-add");
            run(add
                .arg("-q")
                .arg(self.key(person))
                .env("SSH_AUTH_SOCK", &socket))
            .ok();
        }
        SshAgent {
            socket,
            _process: process,
        }
    }

    /// A secret in the server's directory, as an operator puts it there.
    pub(crate) fn write_secret(&self, name: &str, text: &str) {
        let file = self.home.join("secrets").join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        self.give_away(&file);
    }

    /// Makes a repository with one commit on `main`.
    pub(crate) fn make_repository(&self, name: &str, files: &[(&str, String)], bare: bool) {
        let path = self.path(name);
        let (made, tree) = if bare {
            (self.path("work"), self.path("work").join(name))
        } else {
            (path.clone(), path.clone())
        };
        fs::create_dir_all(&tree).unwrap();
        self.give_away(&made);
        self.git(&tree, &["init", "--quiet", "--initial-branch=main", "."])
            .ok();
        for (file, text) in files {
            let file = tree.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        self.give_away(&made);
        self.git(&tree, &["add", "--all"]).ok();
        self.git(&tree, &["commit", "--quiet", "--message=Begin"])
            .ok();
        if bare {
            let (from, to) = (tree.to_str().unwrap(), path.to_str().unwrap());
            self.git(&tree, &["clone", "--quiet", "--bare", from, to])
                .ok();
        }
    }

    /// Runs `git` as a person in `tree`.
    pub(crate) fn git(&self, tree: &Path, arguments: &[&str]) -> Done {
        run(self.git_command(tree).args(arguments))
    }

    /// `git` as a person in `tree`.
    pub(crate) fn git_command(&self, tree: &Path) -> Command {
        let mut git = self.as_user("git");
        self.scrub(&mut git);
        for (name, value) in [("AUTHOR", "Ada"), ("COMMITTER", "Ada")] {
            git.env(format!("GIT_{name}_NAME"), value);
            git.env(format!("GIT_{name}_EMAIL"), "ada@example.com");
        }
        git.env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .current_dir(tree);
        git
    }

    /// What `git` prints, without the newline at its end.
    pub(crate) fn git_line(&self, tree: &Path, arguments: &[&str]) -> String {
        self.git(tree, arguments).ok().out.trim().to_owned()
    }

    /// Where a branch of the repository stands.
    pub(crate) fn tip(&self, branch: &str) -> String {
        self.git_line(
            &self.shop(),
            &["rev-parse", &format!("refs/heads/{branch}")],
        )
    }

    /// A commit on top of a branch, made upstream past the server.
    pub(crate) fn commit_upstream(&self, file: &str, text: &str) -> String {
        let clone = self.path("work").join(format!("past-{}", nanos()));
        let (from, to) = (self.shop(), clone.to_str().unwrap().to_owned());
        self.git(
            &self.path("work"),
            &["clone", "--quiet", from.to_str().unwrap(), &to],
        )
        .ok();
        fs::write(clone.join(file), text).unwrap();
        self.git(&clone, &["add", "--all"]).ok();
        self.git(&clone, &["commit", "--quiet", "--message=Past everyone"])
            .ok();
        self.git(
            &clone,
            &["push", "--quiet", "origin", "HEAD:refs/heads/main"],
        )
        .ok();
        self.git_line(&clone, &["rev-parse", "HEAD"])
    }

    fn init(&mut self, plan: &Plan) {
        let mut arguments = vec!["init".to_owned(), self.home.to_str().unwrap().to_owned()];
        let mut option = |name: &str, value: String| {
            arguments.push(format!("--{name}"));
            arguments.push(value);
        };
        for (number, person) in plan.people.iter().enumerate() {
            let file = format!("{}.pub", self.key(person).display());
            if number == 0 {
                option("human", (*person).to_owned());
            } else {
                option("administrator", format!("{person}={file}"));
            }
        }
        option("quorum", plan.quorum.to_string());
        option("repository", format!("shop={}", self.shop().display()));
        option("agent", "helper".to_owned());
        option("listen", format!("127.0.0.1:{}", self.port));
        option("origin", "example.com/house".to_owned());
        option("trust-domain", "example.com".to_owned());
        if let Some(url) = &plan.store {
            arguments.extend(["--store".to_owned(), url.clone()]);
        }
        if plan.solo {
            arguments.push("--solo".to_owned());
        }
        let mut init = self.portcullis(plan.people[0]);
        init.env(
            "PORTCULLIS_KEY",
            format!("{}.pub", self.key(plan.people[0]).display()),
        );
        run(init.args(&arguments)).ok();
        let config = self.home.join("portcullis.toml");
        let mut text = fs::read_to_string(&config)
            .unwrap()
            .replace("sync_every_s = 5", "sync_every_s = 1");
        if plan.loopback {
            text = text.replace("loopback_endpoints = false", "loopback_endpoints = true");
        }
        fs::write(&config, text).unwrap();
        self.guard_keys();
    }

    /// Private keys on this machine are nothing that anybody may write down.
    fn guard_keys(&mut self) {
        let folders = [self.home.join("keys"), self.path("keys")];
        for file in folders
            .iter()
            .filter_map(|folder| fs::read_dir(folder).ok())
            .flatten()
            .flatten()
        {
            let path = file.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "pub" || extension == "pem")
            {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap_or_default();
            // The longest line is the key itself, or a telling part of it.
            let body = text.lines().filter(|line| !line.starts_with("-----"));
            if let Some(line) = body
                .max_by_key(|line| line.len())
                .filter(|line| line.len() >= 32)
            {
                self.secrets
                    .push((path.display().to_string(), line.to_owned()));
            }
        }
    }

    /// A path and all below it belong to the ordinary user, if this house is theirs. Name only what
    /// the test itself wrote: `chown` fails where a running server takes a file away under it.
    pub(crate) fn give_away(&self, path: &Path) {
        if self.ordinary {
            let owner = format!("{ORDINARY_USER}:{ORDINARY_USER}");
            run(Command::new("chown").args(["-R", &owner]).arg(path)).ok();
        }
    }

    fn as_user(&self, program: &str) -> Command {
        if !self.ordinary {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        let user = ORDINARY_USER.to_string();
        command.args([
            "--reuid",
            &user,
            "--regid",
            &user,
            "--clear-groups",
            program,
        ]);
        command
    }

    fn scrub(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", self.directory.path())
            .env("LANG", "C.UTF-8")
            .env("TMPDIR", self.path("work"));
    }

    /// The program, as a person uses it here.
    pub(crate) fn portcullis(&self, person: &str) -> Command {
        let mut command = self.as_user(PROGRAM);
        self.scrub(&mut command);
        command
            .env("PORTCULLIS_SERVER", self.url())
            .env("PORTCULLIS_HOME", &self.home)
            .env("PORTCULLIS_KEY", self.key(person))
            .env("PORTCULLIS_LOG", "info")
            .current_dir(self.path("work"));
        command
    }

    /// Runs a command of a person to its end; results are JSON.
    pub(crate) fn cli(&self, person: &str, arguments: &[&str]) -> Done {
        let mut command = self.portcullis(person);
        run(command.args(["--output", "json"]).args(arguments))
    }

    /// As [`Self::cli`], with text for people.
    pub(crate) fn text(&self, person: &str, arguments: &[&str]) -> Done {
        run(self.portcullis(person).args(arguments))
    }

    /// Starts the server and waits until it answers.
    pub(crate) fn serve(&mut self) {
        self.serve_with(&[]);
    }

    /// As [`Self::serve`], with further variables.
    pub(crate) fn serve_with(&mut self, variables: &[(&str, &str)]) {
        self.start_server(variables);
        let server = self.server.as_ref().unwrap();
        wait_until("the server answers", || {
            if let Some(code) = server.ended() {
                panic!("the server ended with {code}:\n{}", server.both());
            }
            server.out().contains("ready at").then_some(())
        });
    }

    /// Starts the server, which may never be ready.
    pub(crate) fn start_server(&mut self, variables: &[(&str, &str)]) {
        assert!(self.server.is_none(), "one server at a time");
        let mut command = self.portcullis("nobody");
        command.arg("serve").envs(variables.iter().copied());
        self.server = Some(Background::start(&mut command, &self.path("work")));
    }

    /// The server's process.
    pub(crate) fn server(&self) -> &Background {
        self.server.as_ref().unwrap()
    }

    /// `kill -9`.
    pub(crate) fn kill_server(&mut self) {
        let server = self.server.take().unwrap();
        self.check_text("the server's log", &server.both());
        server.kill();
    }

    /// Stops the server as an operator does.
    pub(crate) fn stop_server(&mut self) {
        let server = self.server.take().unwrap();
        self.check_text("the server's log", &server.both());
        server.terminate();
        let done = server.wait(PATIENCE);
        assert_eq!(done.code, 0, "{done:?}");
    }

    /// What the API answers.
    pub(crate) fn get(&self, path: &str) -> Value {
        let answer = self.request("GET", path, &[], b"");
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    /// Sends any request.
    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        request(self.port, method, path, headers, body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Posts JSON.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.request(
            "POST",
            path,
            &[("content-type", "application/json")],
            body.to_string().as_bytes(),
        )
    }

    /// The ledger, entry by entry.
    pub(crate) fn ledger(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut from = Some(0);
        while let Some(index) = from {
            let page = self.get(&format!("/v1/ledger/entries?from={index}&limit=1000"));
            for item in page["items"].as_array().unwrap() {
                entries.push(Entry {
                    index: item["index"].as_u64().unwrap(),
                    kind: item["entry"]["type"].as_str().unwrap().to_owned(),
                    actor: item["entry"]["actor"]["principal"]
                        .as_str()
                        .unwrap_or("")
                        .to_owned(),
                    body: item["entry"]["body"].clone(),
                });
            }
            from = page["next"].as_u64();
        }
        entries
    }

    /// The entries of one type.
    pub(crate) fn entries(&self, kind: &str) -> Vec<Entry> {
        self.ledger()
            .into_iter()
            .filter(|entry| entry.kind == kind)
            .collect()
    }

    /// Waits for an entry of this type that fits.
    pub(crate) fn await_entry(&self, kind: &str, fits: impl Fn(&Entry) -> bool) -> Entry {
        let what = format!("an entry {kind}");
        wait_until(&what, || self.entries(kind).into_iter().find(&fits))
    }

    /// Root and size of the ledger.
    pub(crate) fn point(&self) -> (u64, String) {
        let status = self.get("/v1/status");
        (
            status["size"].as_u64().unwrap(),
            status["root"].as_str().unwrap().to_owned(),
        )
    }

    /// A signed task for the agent, with these further options.
    pub(crate) fn task(&self, person: &str, options: &[&str]) -> PathBuf {
        let number = self.tasks.fetch_add(1, Ordering::Relaxed);
        let file = self.path("work").join(format!("task-{number}.json"));
        let name = file.to_str().unwrap().to_owned();
        let mut arguments = vec!["task", "new", "Greet politely", "--sign", "--file", &name];
        if !options.contains(&"--agent") {
            arguments.extend(["--agent", "helper"]);
        }
        arguments.extend(options);
        self.cli(person, &arguments).ok();
        file
    }

    /// Runs a shell script as the agent under a task.
    pub(crate) fn run(&self, task: &Path, script: &str) -> Done {
        run(&mut self.run_command(task, script))
    }

    /// As [`Self::run`], not waiting for its end.
    pub(crate) fn start_run(&self, task: &Path, script: &str) -> Background {
        Background::start(&mut self.run_command(task, script), &self.path("work"))
    }

    /// The command that runs a script as the agent.
    pub(crate) fn run_command(&self, task: &Path, script: &str) -> Command {
        let mut command = self.portcullis("nobody");
        command
            .arg("run")
            .arg("--task")
            .arg(task)
            .args(["--", "sh", "-ec", script]);
        command.stdin(Stdio::null());
        command
    }

    /// A change of one file, made by a run from start to end; gives the change's id.
    pub(crate) fn propose(&self, person: &str, file: &str, text: &str) -> String {
        let before: Vec<String> = self.change_ids();
        let script = format!("{}\ngit push", committing(file, text));
        self.run(&self.task(person, &["--paths", "**"]), &script)
            .ok();
        self.change_ids()
            .into_iter()
            .find(|id| !before.contains(id))
            .expect("a new change")
    }

    fn change_ids(&self) -> Vec<String> {
        let changes = self.get("/v1/changes");
        let items = changes["items"].as_array().unwrap();
        items
            .iter()
            .map(|item| item["id"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Waits for an open request whose summary names `what`.
    pub(crate) fn await_request(&self, what: &str) -> String {
        wait_until(&format!("a request about {what}"), || {
            self.open_request(what)
        })
    }

    /// An open request whose summary names `what`.
    pub(crate) fn open_request(&self, what: &str) -> Option<String> {
        let requests = self.get("/v1/requests?open=true");
        requests["items"]
            .as_array()
            .unwrap()
            .iter()
            .find_map(|item| {
                let named = item["summary"]
                    .as_str()?
                    .split(' ')
                    .any(|word| word == what);
                named.then(|| item["id"].as_str().unwrap().to_owned())
            })
    }

    /// Approves a request as a person.
    pub(crate) fn approve(&self, person: &str, request: &str) -> Done {
        self.cli(person, &["approve", request, "--yes"])
    }

    /// Waits until a change landed; gives the commit.
    pub(crate) fn await_landed(&self, change: &str) -> String {
        wait_until(&format!("{change} lands"), || {
            let seen = self.change(change);
            Some(seen["landed"].as_str()?.to_owned())
        })
    }

    /// A change as the API shows it.
    pub(crate) fn change(&self, change: &str) -> Value {
        self.get(&format!("/v1/changes/{change}"))
    }

    /// Proposes a record as a person, from TOML.
    pub(crate) fn add(&self, person: &str, kind: &str, record: &str) -> Done {
        let file = self.path("work").join(format!("record-{}.toml", nanos()));
        fs::write(&file, record).unwrap();
        self.cli(person, &[kind, "add", file.to_str().unwrap()])
    }

    /// Changes the repository's record: these lines win over what it says.
    pub(crate) fn change_repository(&self, lines: &str) {
        let known = self.get("/v1/inventory/repositories");
        let items = known["items"].as_array().unwrap();
        let shop = items
            .iter()
            .find(|item| item["record"]["id"] == "shop")
            .unwrap();
        let mut record = String::new();
        for (name, value) in shop["record"].as_object().unwrap() {
            if !lines
                .lines()
                .any(|line| line.starts_with(&format!("{name} ")))
                && !value.is_null()
            {
                record.push_str(&format!("{name} = {value}\n"));
            }
        }
        self.add("ada", "repository", &format!("{record}{lines}\n"))
            .ok();
        self.await_entry("activation.completed", |_| true);
    }

    /// Brings another repository under the server's rule.
    pub(crate) fn add_repository(&self, name: &str) {
        let upstream = self.path(name);
        let baseline = self.git_line(&upstream, &["rev-parse", "refs/heads/main"]);
        let record = format!(
            "id = \"{name}\"\nupstream = \"{}\"\nbaseline = \"{baseline}\"\n",
            upstream.display()
        );
        self.add("ada", "repository", &record).ok();
    }

    /// An agent's record as TOML, with these further lines.
    pub(crate) fn agent_record(id: &str, more: &str) -> String {
        let defaults = [
            ("owner", "\"ada\""),
            ("purpose", "\"works on signed tasks\""),
            ("model", "\"any\""),
            ("runtime", "\"any\""),
            ("repositories", "[\"shop\"]"),
            ("phases", "[\"write\"]"),
            ("environment_ceiling", "\"staging\""),
            ("review_by", "\"2100-01-01T00:00:00Z\""),
            ("expires", "\"2100-01-01T00:00:00Z\""),
        ];
        let mut record = format!("id = \"{id}\"\n{more}\n");
        for (name, value) in defaults {
            let said = more
                .lines()
                .any(|line| line.starts_with(&format!("{name} ")));
            if !said {
                record.push_str(&format!("{name} = {value}\n"));
            }
        }
        record
    }

    /// Files below a folder of the server's directory, with their sizes.
    pub(crate) fn files_below(&self, folder: &str) -> BTreeMap<PathBuf, u64> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.home.join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let meta = entry.metadata().unwrap();
                if meta.is_dir() {
                    folders.push(entry.path());
                } else {
                    found.insert(entry.path(), meta.len());
                }
            }
        }
        found
    }

    /// Nothing guarded stands in `text`, and nothing that looks like a secret of anybody.
    pub(crate) fn check_text(&self, place: &str, text: &str) {
        for (name, secret) in &self.secrets {
            assert!(
                !text.contains(secret.as_str()),
                "{place} holds the secret {name}"
            );
        }
    }

    /// Everything recorded and logged so far is free of secrets.
    pub(crate) fn check_secrets(&self) {
        let Some(server) = &self.server else { return };
        self.check_text("the server's log", &server.both());
        if server.ended().is_some() {
            return;
        }
        for entry in self.ledger() {
            let text = entry.body.to_string();
            self.check_text(&format!("entry {} ({})", entry.index, entry.kind), &text);
            let found = portcullis_checks::secrets::scan_text("entry", &text);
            assert!(
                found.is_empty(),
                "entry {} ({}): {found:?}",
                entry.index,
                entry.kind
            );
        }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if std::thread::panicking() {
            if let Some(server) = &self.server {
                eprintln!("the server's log:\n{}", server.both());
            }
        } else {
            self.check_secrets();
        }
    }
}

/// An ssh-agent; dropped, it ends.
pub(crate) struct SshAgent {
    /// Where it listens.
    pub(crate) socket: PathBuf,
    _process: Background,
}

/// An entry of the ledger.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Where it stands.
    pub(crate) index: u64,
    /// Its type.
    pub(crate) kind: String,
    /// Who acted.
    pub(crate) actor: String,
    /// What happened.
    pub(crate) body: Value,
}

/// A script that commits one file as the agent.
pub(crate) fn committing(file: &str, text: &str) -> String {
    format!(
        "mkdir -p \"$(dirname '{file}')\"\nprintf '%s\\n' '{text}' > '{file}'\ngit add --all\ngit commit --quiet --message='Change {file}'"
    )
}

/// Waits until `look` gives something; panics when it takes too long.
pub(crate) fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            since.elapsed() < PATIENCE,
            "waited {PATIENCE:?} until {what}"
        );
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// A port that nobody listens on, below those that the kernel hands out by itself.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let seed = nanos().wrapping_add(std::process::id().wrapping_mul(7_919));
    loop {
        let at = seed.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(131));
        let port = 10_000 + u16::try_from(at % 20_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Something that differs from call to call.
pub(crate) fn nanos() -> u32 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .subsec_nanos()
}

/// Copies a folder with all that is in it.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The mode bits of a file.
pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}
