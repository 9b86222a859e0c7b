//! The log from outside: served as specified, read by code that is not ours, verified by ours, and
//! every lie told of by what it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use portcullis_evidence::checkpoint::Checkpoint;
use portcullis_evidence::merkle::{HashReader as _, MemoryTree, leaf_hash};
use portcullis_evidence::note::VerifierKey;
use portcullis_evidence::tiles::{Kind, Piece, parse_entries, write_entry, write_hashes};
use portcullis_server::home::Home;
use portcullis_server::init::log_signer;
use serde_json::Value;

use crate::house::{
    Background, Done, House, Mirror, Plan, Said, free_port, request, run, wait_until,
};

/// A token of a log's reader.
const TOKEN: &str = "cmVhZGVyLW9mLXRoZS1sb2cK0123";

/// A house whose log has a listener of its own, at the port that comes with it.
fn house_with_log(readers: bool) -> (House, u16) {
    let mut house = House::furnished(Plan::default());
    let port = free_port();
    let file = house.home().join("portcullis.toml");
    let mut config = fs::read_to_string(&file).unwrap();
    config.push_str(&format!("\n[log]\nlisten = \"127.0.0.1:{port}\"\n"));
    if readers {
        config.push_str("readers = \"log-readers\"\n");
        house.write_secret("log-readers", &format!("{TOKEN}\n"));
        house.guard_secret("a reader's token", TOKEN);
    }
    fs::write(&file, config).unwrap();
    house.serve();
    (house, port)
}

/// Denials, each of them an entry, until the signed tree has more than `size` entries.
pub(crate) fn grow(house: &House, size: u64) {
    let target = [("portcullis-target", "http://example.com/")];
    while house.point().0 <= size {
        let runner = house.runner(&house.task("ada", &[]));
        // One more, and the run would stand still.
        for _ in 0..4 {
            let answer = runner.call("GET", "/gateway/v1/egress", &target, b"");
            assert_eq!(answer.status, 403, "{answer:?}");
            if house.point().0 > size {
                break;
            }
        }
    }
}

/// The script's own reading of a log.
fn client(prefix: &str, key: &str, witnesses: &[&str]) -> Done {
    let script =
        Path::new(env!("CARGO_MANIFEST_PATH")).with_file_name("tests/peers/tlog_client.py");
    let mut command = Command::new("python3");
    run(command.arg(script).arg(prefix).arg(key).args(witnesses))
}

fn log_key(house: &House) -> String {
    house.get("/v1/status")["log_key"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn a_client_written_from_the_specification_reads_the_whole_log() {
    let (house, port) = house_with_log(false);
    grow(&house, 258);
    let (key, public) = (log_key(&house), format!("http://127.0.0.1:{port}"));
    let get =
        |path: &str, headers: &[(&str, &str)]| request(port, "GET", path, headers, b"").unwrap();
    let full = get("/tile/0/000", &[]);
    let bundle = get("/tile/entries/000", &[]);
    let size = house.point().0;
    let partial = format!("/tile/0/001.p/{}", size - 256);
    assert_eq!(get(&partial, &[]).status, 200);

    // What is full stays as it is, and so does what was partial.
    grow(&house, size + 3);
    for (path, before) in [("/tile/0/000", &full), ("/tile/entries/000", &bundle)] {
        let after = get(path, &[]);
        assert_eq!((after.status, &after.body), (200, &before.body));
        let control = after.header("cache-control").unwrap();
        assert!(
            control.contains("immutable") && control.contains("max-age=31536000"),
            "{control}"
        );
        assert_eq!(
            after.header("content-type"),
            Some("application/octet-stream")
        );
    }
    assert_eq!(full.body.len(), 8_192);
    let wider = get("/tile/0/001.p/3", &[]);
    assert_eq!(get("/tile/0/001.p/2", &[]).body, wider.body[..64]);
    assert_eq!(get("/tile/0/000.p/255", &[]).body, full.body[..255 * 32]);
    let packed = get("/tile/entries/000", &[("accept-encoding", "gzip")]);
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert_eq!(packed.header("vary"), Some("accept-encoding"));
    let hashes = get("/tile/0/000", &[("accept-encoding", "gzip")]);
    assert_eq!(hashes.header("content-encoding"), None);
    for absent in [
        format!("/tile/0/001.p/{}", house.point().0 - 256 + 1),
        "/tile/0/001".to_owned(),
        "/tile/0/000.p/256".to_owned(),
        "/tile/0/0".to_owned(),
        "/tile/9/000".to_owned(),
        "/tile/entries/002".to_owned(),
        "/tile".to_owned(),
        "/log/checkpoint".to_owned(),
        "/v1/status".to_owned(),
        "/".to_owned(),
    ] {
        let answer = get(&absent, &[]);
        assert_eq!(answer.status, 404, "{absent}: {answer:?}");
        assert_ne!(answer.header("cache-control"), Some("public"), "{absent}");
    }
    for method in ["POST", "PUT", "DELETE"] {
        assert_eq!(
            request(port, method, "/checkpoint", &[], b"")
                .unwrap()
                .status,
            405
        );
    }

    for prefix in [public, format!("{}/log", house.url())] {
        let read = client(&prefix, &key, &[]).ok().json();
        let ours = house.ledger();
        let theirs = read["entries"].as_array().unwrap();
        assert!(theirs.len() as u64 > 258 && theirs.len() <= ours.len());
        let other = key.replacen("example.com/house", "example.com/other", 1);
        client(&prefix, &other, &[]).exits(1);
    }
}

#[test]
fn a_log_for_readers_is_for_nobody_else() {
    let (house, port) = house_with_log(true);
    for path in [
        "/checkpoint",
        "/tile/entries/000.p/1",
        "/tile/0/000",
        "/nothing",
    ] {
        let answer = request(port, "GET", path, &[], b"").unwrap();
        assert_eq!(answer.status, 401, "{answer:?}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        let wrong = [("authorization", "Bearer cmVhZGVyLW9mLXRoZS1sb2cK0124")];
        assert_eq!(request(port, "GET", path, &wrong, b"").unwrap().status, 401);
    }
    let bearer = format!("Bearer {TOKEN}");
    let shown = [("authorization", bearer.as_str())];
    let tile = request(port, "GET", "/tile/entries/000.p/1", &shown, b"").unwrap();
    assert_eq!(tile.status, 200);
    assert!(tile.header("cache-control").unwrap().starts_with("private"));
    let url = format!("http://127.0.0.1:{port}");
    house
        .cli("ada", &["ledger", "verify", &url])
        .refused("log-reader-unknown");
    let file = house.path("work").join("token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let file = file.to_str().unwrap();
    let done = house
        .cli("ada", &["ledger", "verify", &url, "--token-file", file])
        .ok();
    house.check_text("the verifier's output", &done.both());
}

#[test]
fn one_entry_is_proved_offline_and_all_are_exported_with_proofs() {
    let house = House::solo();
    house.propose("ada", "src/a.txt", "a");
    let genesis = house.home().join("genesis.json");
    let genesis = genesis.to_str().unwrap();
    let file = house.path("work").join("five.tlog-proof");
    let file = file.to_str().unwrap();
    house
        .cli("ada", &["ledger", "proof", "5", "--to", file])
        .ok();
    let key = log_key(&house);
    let whole = house.cli("ada", &["ledger", "export"]).ok();
    let mut lines = whole.out.lines();
    let head: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!(head["format"], "portcullis-ledger-export@v1");
    let bare = house.cli("ada", &["ledger", "export", "--bare"]).ok();
    for (index, (line, bare)) in lines.zip(bare.out.lines()).enumerate() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["index"], index);
        assert!(line["proof"].is_array());
        let bytes = portcullis_model::canonical::to_vec(&line["entry"]).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), bare);
    }
    house
        .cli("ada", &["ledger", "proof", "100000"])
        .refused("entry-not-found");

    // From here on without the server.
    let shown = house
        .cli("ada", &["verify", file, "--genesis", genesis])
        .ok()
        .json();
    assert_eq!(
        (&shown["holds"], &shown["index"]),
        (&true.into(), &5.into())
    );
    house.cli("ada", &["verify", file, "--log-key", &key]).ok();
    let other = House::furnished(Plan::default());
    let theirs = other.home().join("genesis.json");
    house
        .cli(
            "ada",
            &["verify", file, "--genesis", theirs.to_str().unwrap()],
        )
        .exits(3);
    let text = fs::read_to_string(file).unwrap();
    for (from, to) in [("index 5", "index 4"), ("extra ", "extra AAAA")] {
        let changed = house.path("work").join(format!("changed-{}", to.len()));
        fs::write(&changed, text.replacen(from, to, 1)).unwrap();
        let done = house.cli(
            "ada",
            &["verify", changed.to_str().unwrap(), "--genesis", genesis],
        );
        assert_ne!(done.code, 0, "{done:?}");
    }
}

/// A log held in memory, with its key: what an operator who cheats has.
struct Forger {
    home: Home,
    entries: Vec<Vec<u8>>,
}

impl Forger {
    fn of(house: &House) -> Self {
        let size = house.point().0;
        let piece = Piece::in_tree(Kind::Entries, 0, size).unwrap();
        let answer = house.request("GET", &format!("/log/{piece}"), &[], b"");
        let entries = parse_entries(&piece, &answer.body).unwrap();
        Self {
            home: Home::new(house.home()),
            entries: entries.into_iter().map(<[u8]>::to_vec).collect(),
        }
    }

    /// Everything that a log with these entries serves.
    fn serves(entries: &[Vec<u8>], home: &Home) -> BTreeMap<String, Said> {
        let mut tree = MemoryTree::default();
        for entry in entries {
            tree.append(leaf_hash(entry)).unwrap();
        }
        let size = tree.size();
        let mut said = BTreeMap::new();
        let mut bundle = Vec::new();
        for entry in entries {
            write_entry(&mut bundle, entry).unwrap();
        }
        let piece = Piece::in_tree(Kind::Entries, 0, size).unwrap();
        said.insert(piece.to_string(), Said::Bytes(bundle));
        let piece = Piece::in_tree(Kind::Hashes(0), 0, size).unwrap();
        let hashes = tree.read(&piece.nodes()).unwrap();
        said.insert(piece.to_string(), Said::Bytes(write_hashes(&hashes)));
        let note = Checkpoint::new("example.com/house".parse().unwrap(), size, tree.root())
            .sign(&log_signer(home).unwrap())
            .unwrap();
        said.insert(
            "checkpoint".to_owned(),
            Said::Bytes(note.to_string().into_bytes()),
        );
        said
    }

    fn honest(&self) -> BTreeMap<String, Said> {
        Self::serves(&self.entries, &self.home)
    }

    /// The name of the piece of this kind.
    fn name(&self, kind: Kind) -> String {
        Piece::in_tree(kind, 0, self.entries.len() as u64)
            .unwrap()
            .to_string()
    }
}

#[test]
fn every_lie_of_a_served_log_is_told_of_by_what_it_is() {
    let house = House::solo();
    let change = house.propose("ada", "src/a.txt", "a");
    house.await_request(&change);
    let forger = Forger::of(&house);
    let mirror = Mirror::start();
    let genesis: PathBuf = house.home().join("genesis.json");
    let state = house.path("work").join("verified.json");
    let verify = |state: Option<&PathBuf>| {
        let (url, genesis) = (mirror.url(), genesis.to_str().unwrap());
        let mut arguments = vec!["ledger", "verify", &url, "--genesis", genesis];
        if let Some(state) = state {
            arguments.extend(["--state", state.to_str().unwrap()]);
        }
        house.cli("ada", &arguments)
    };

    // The truth, as the local files have it too.
    mirror.says(forger.honest());
    let remote = verify(Some(&state)).ok().json();
    let size = forger.entries.len() as u64;
    assert_eq!(
        (&remote["size"], &remote["rules_and_signatures"]),
        (&size.into(), &true.into())
    );
    let local = wait_until("the same size in the files", || {
        let local = house.cli("ada", &["ledger", "verify"]).ok().json();
        (local["size"].as_u64() >= Some(size)).then_some(local)
    });
    assert_eq!(local["sound"], true);
    let again = verify(Some(&state)).ok().json();
    assert_eq!(
        (&again["resumed_from"], &again["signatures"]),
        (&size.into(), &remote["signatures"])
    );

    // What is new is held against all that the entries before led to: signed by the log's key and
    // whole, an entry of earlier does not follow.
    let started = forger.entries.iter().find(|entry| {
        let text = String::from_utf8_lossy(entry);
        text.contains("\"server.started\"")
    });
    let mut more = forger.entries.clone();
    more.push(started.unwrap().clone());
    mirror.says(Forger::serves(&more, &forger.home));
    let refusal = verify(Some(&state)).exits(1).refused("out-of-order");
    let message = refusal["message"].as_str().unwrap();
    assert!(message.starts_with(&format!("entry {size}: ")), "{refusal}");
    // Without what they led to, all is read again.
    mirror.says(forger.honest());
    let rules = house.path("work").join("verified.json.rules");
    let kept = fs::read(&rules).unwrap();
    fs::write(&rules, &kept[1..]).unwrap();
    let anew = verify(Some(&state)).ok().json();
    assert_eq!(
        (&anew["anew"], &anew["resumed_from"], &anew["signatures"]),
        (&true.into(), &Value::Null, &remote["signatures"])
    );

    // One byte of entry 3 is another: in the bundle alone it is told of by its index.
    let mut altered = forger.entries.clone();
    let text = String::from_utf8(altered[3].clone()).unwrap();
    altered[3] = text.replacen("human:", "Human:", 1).into_bytes();
    if altered[3] == forger.entries[3] {
        altered[3].push(b' ');
    }
    let name = forger.name(Kind::Entries);
    let mut lie = forger.honest();
    let forged = Forger::serves(&altered, &forger.home);
    lie.insert(name.clone(), forged[&name].clone());
    mirror.says(lie);
    let refusal = verify(None).exits(1).refusal();
    assert!(
        refusal["message"]
            .as_str()
            .unwrap()
            .starts_with("entry 3: "),
        "{refusal}"
    );

    // Two entries of the same form swapped their places: the rules find it, or the tree does.
    let last = forger.entries.len() - 1;
    let mut swapped = forger.entries.clone();
    swapped.swap(last - 1, last);
    let mut lie = forger.honest();
    lie.insert(
        name.clone(),
        Forger::serves(&swapped, &forger.home)[&name].clone(),
    );
    mirror.says(lie);
    verify(None).exits(1);

    // Signed anew, the forged tree is consistent in itself; the state held from before knows better.
    let mut longer = altered.clone();
    longer.push(forger.entries[last].clone());
    for history in [&altered, &longer] {
        mirror.says(Forger::serves(history, &forger.home));
        verify(Some(&state)).exits(1).refused("log-equivocates");
    }

    // Shorter than it was.
    mirror.says(Forger::serves(&forger.entries[..last], &forger.home));
    verify(Some(&state)).exits(1).refused("log-shorter");
    verify(None).ok();

    // Tiles of another tree than the signed one.
    let mut more = forger.entries.clone();
    more.push(b"{}".to_vec());
    let mut lie = Forger::serves(&more, &forger.home);
    let wide = Piece::in_tree(Kind::Hashes(0), 0, more.len() as u64)
        .unwrap()
        .to_string();
    let Said::Bytes(mut hashes) = lie[&wide].clone() else {
        panic!()
    };
    hashes[5] ^= 1;
    lie.insert(wide, Said::Bytes(hashes));
    mirror.says(lie);
    verify(Some(&state)).exits(1).refused("log-wrong-tile");

    // Nothing, noise, too little, too much, and no end of it.
    for (path, said, code) in [
        ("checkpoint", Said::Status(404), "tile-not-found"),
        ("checkpoint", Said::Status(500), "log-answer"),
        ("checkpoint", Said::Bytes(b"hello".to_vec()), "log-garbage"),
        ("checkpoint", Said::Endless, "peer-answer-too-large"),
        (name.as_str(), Said::Bytes(vec![0xff; 3]), "log-garbage"),
        (name.as_str(), Said::Bytes(Vec::new()), "log-garbage"),
        (name.as_str(), Said::Endless, "peer-answer-too-large"),
        (name.as_str(), Said::Status(404), "tile-not-found"),
    ] {
        let mut lie = forger.honest();
        lie.insert(path.to_owned(), said);
        mirror.says(lie);
        verify(None).exits(1).refused(code);
    }
    // A tree without end.
    let huge = Checkpoint::new(
        "example.com/house".parse().unwrap(),
        1 << 60,
        leaf_hash(b"all of it"),
    );
    let note = huge.sign(&log_signer(&forger.home).unwrap()).unwrap();
    let mut lie = forger.honest();
    lie.insert(
        "checkpoint".to_owned(),
        Said::Bytes(note.to_string().into_bytes()),
    );
    mirror.says(lie);
    verify(None).exits(1).refused("log-too-large");
    // Another log's state.
    let other =
        fs::read_to_string(&state)
            .unwrap()
            .replacen("example.com/house+", "example.com/other+", 1);
    fs::write(&state, other).unwrap();
    mirror.says(forger.honest());
    verify(Some(&state))
        .exits(1)
        .refused("state-of-another-log");
}

/// A witness of the program's own, in the house's work folder; it watches the house's log.
pub(crate) struct Witnessing {
    process: Option<Background>,
    pub(crate) dir: PathBuf,
    port: u16,
    pub(crate) key: String,
}

impl Witnessing {
    fn start(house: &House, name: &str) -> Self {
        let dir = house.path("work").join(name);
        let folder = dir.to_str().unwrap().to_owned();
        let long = format!("witness.example/{name}");
        let made = house
            .cli("ada", &["witness", "init", &folder, "--name", &long])
            .ok();
        let key = made.json()["key"].as_str().unwrap().to_owned();
        let signer = log_signer(&Home::new(house.home())).unwrap();
        let log = VerifierKey::new("example.com/house".parse().unwrap(), *signer.public_bytes());
        fs::write(dir.join("logs"), format!("{log}\n")).unwrap();
        let mut witness = Self {
            process: None,
            dir,
            port: free_port(),
            key,
        };
        witness.serve(house);
        witness
    }

    pub(crate) fn serve(&mut self, house: &House) {
        let address = format!("127.0.0.1:{}", self.port);
        let mut command = house.portcullis("ada");
        command
            .args(["witness", "serve"])
            .arg(&self.dir)
            .args(["--listen", &address]);
        let process = Background::start(&mut command, &house.path("work"));
        wait_until("the witness serves", || {
            assert!(process.ended().is_none(), "{}", process.both());
            process.out().contains("ready at").then_some(())
        });
        self.process = Some(process);
    }

    pub(crate) fn stop(&mut self) {
        self.process.take().unwrap().kill();
    }
}

/// A house whose log has these witnesses.
pub(crate) fn house_with_witnesses(names: &[&str], quorum: usize) -> (House, Vec<Witnessing>) {
    house_with_witnesses_in(Plan::default(), names, quorum)
}

/// As [`house_with_witnesses`], furnished as planned.
pub(crate) fn house_with_witnesses_in(
    plan: Plan,
    names: &[&str],
    quorum: usize,
) -> (House, Vec<Witnessing>) {
    let mut house = House::furnished(plan);
    let witnesses: Vec<_> = names
        .iter()
        .map(|name| Witnessing::start(&house, name))
        .collect();
    let file = house.home().join("portcullis.toml");
    let mut config = fs::read_to_string(&file).unwrap();
    config.push_str(&format!("\n[log]\nquorum = {quorum}\n"));
    for witness in &witnesses {
        config.push_str(&format!(
            "[[log.witness]]\nkey = \"{}\"\nurl = \"http://127.0.0.1:{}\"\n",
            witness.key, witness.port
        ));
    }
    fs::write(&file, config).unwrap();
    house.serve();
    (house, witnesses)
}

/// Waits until readers get a checkpoint of at least `size` entries; gives it.
pub(crate) fn await_cosigned(house: &House, size: u64) -> String {
    wait_until(&format!("{size} entries are cosigned"), || {
        let status = house.get("/v1/status");
        let cosigned = status["witnesses"]["cosigned"]["size"].as_u64()?;
        (cosigned >= size).then(|| house.request("GET", "/log/checkpoint", &[], b"").text())
    })
}

#[test]
fn witnesses_cosign_what_readers_get_and_a_restart_asks_on() {
    let (mut house, mut witnesses) = house_with_witnesses(&["one", "two"], 2);
    let size = house.point().0;
    await_cosigned(&house, size);
    let keys: Vec<&str> = witnesses
        .iter()
        .map(|witness| witness.key.as_str())
        .collect();
    let url = format!("{}/log", house.url());
    // Code that is not ours checks both cosignatures.
    let read = client(&url, &log_key(&house), &keys).ok().json();
    assert_eq!(read["cosigners"].as_array().unwrap().len(), 2, "{read}");
    let mut arguments = vec!["ledger", "verify", &url];
    for key in &keys {
        arguments.extend(["--witness", key]);
    }
    let done = house.cli("ada", &arguments).ok().json();
    assert_eq!(done["cosigned_by"].as_array().unwrap().len(), 2);
    let file = house.path("work").join("zero.tlog-proof");
    let file = file.to_str().unwrap().to_owned();
    house
        .cli("ada", &["ledger", "proof", "0", "--to", &file])
        .ok();
    let genesis = house.home().join("genesis.json");
    let genesis = genesis.to_str().unwrap().to_owned();
    let check = [
        "verify",
        &file,
        "--genesis",
        &genesis,
        "--witness",
        keys[0],
        "--witness",
        keys[1],
    ];
    house.cli("ada", &check).ok();

    // One of two is gone: readers keep the last checkpoint that both saw.
    let kept = await_cosigned(&house, house.point().0);
    witnesses[1].stop();
    grow(&house, house.point().0 + 3);
    let told = wait_until("the failure is told", || {
        let shown = house.cli("ada", &["ledger", "witnesses"]).ok().json();
        shown["known"][1]["failed"].is_string().then_some(shown)
    });
    assert_eq!(told["quorum"], 2);
    assert_eq!(
        house.request("GET", "/log/checkpoint", &[], b"").text(),
        kept
    );
    house.kill_server();
    house.serve();
    let again = house.request("GET", "/log/checkpoint", &[], b"").text();
    assert_eq!(again, kept, "what was cosigned survives");
    // It comes back, and both servers forget what they held in memory.
    house.kill_server();
    witnesses[1].serve(&house);
    house.serve();
    let size = house.point().0;
    await_cosigned(&house, size);
}

#[test]
fn a_witness_that_saw_more_halts_a_ledger_that_went_back_in_time() {
    let (mut house, witnesses) = house_with_witnesses(&["one"], 1);
    let size = house.point().0;
    await_cosigned(&house, size);
    house.stop_server();
    let (home, old) = (house.home().to_owned(), house.path("work").join("old"));
    run(Command::new("cp")
        .args(["-a"])
        .arg(home.join("ledger"))
        .arg(&old))
    .ok();
    house.serve();
    grow(&house, size + 2);
    let more = house.point().0;
    await_cosigned(&house, more);
    house.kill_server();
    fs::remove_dir_all(home.join("ledger")).unwrap();
    fs::rename(&old, home.join("ledger")).unwrap();
    house.serve();
    let incident = house.await_entry("incident.opened", |_| true);
    assert_eq!(
        incident.body["code"], "ledger-behind-witness",
        "{incident:?}"
    );
    // Nothing is granted: a run is refused as it is under a tripped breaker.
    let task = house.task("ada", &[]);
    wait_until("no run starts", || {
        (house.runner_refused(&task) == "base-breaker-run").then_some(())
    });
    drop(witnesses);
}

/// The environment with `aics-tlog` and `aics-witness`, which `cargo xtask tools` makes where it can.
fn peers() -> Option<PathBuf> {
    let program = Path::new(crate::house::PROGRAM);
    let target = program.ancestors().nth(2)?;
    let folder = target.join("peers").join("tlog").join("bin");
    folder.join("aics-witness").is_file().then_some(folder)
}

#[test]
fn an_independent_witness_and_verifier_agree_with_ours() {
    let Some(peers) = peers() else {
        eprintln!("not run: `cargo xtask tools` could not install aics-tlog and aics-witness");
        return;
    };
    let mut house = House::furnished(Plan::default());
    let port = free_port();
    let dir = house.path("work").join("peer");
    fs::create_dir(&dir).unwrap();
    let peer = |arguments: &[&str]| {
        let mut command = Command::new(peers.join("aics-witness"));
        command.args(arguments).current_dir(&dir);
        command
    };
    let made = run(peer(&["init", "--name", "peer.example/w1"]).env("LANG", "C.UTF-8")).ok();
    let key = made
        .both()
        .split_whitespace()
        .find(|word| word.starts_with("peer.example/w1+"))
        .expect("the witness's key")
        .to_owned();
    let signer = log_signer(&Home::new(house.home())).unwrap();
    let log = VerifierKey::new("example.com/house".parse().unwrap(), *signer.public_bytes());
    let log = log.to_string();
    run(&mut peer(&[
        "add-log",
        "--origin",
        "example.com/house",
        "--vkey",
        &log,
    ]))
    .ok();
    let address = format!("127.0.0.1:{port}");
    let process = Background::start(&mut peer(&["serve", "--listen", &address]), &dir);
    let file = house.home().join("portcullis.toml");
    let mut config = fs::read_to_string(&file).unwrap();
    config.push_str(&format!(
        "\n[[log.witness]]\nkey = \"{key}\"\nurl = \"http://{address}\"\n"
    ));
    fs::write(&file, config).unwrap();
    house.serve();
    grow(&house, 258);
    let size = house.point().0;
    await_cosigned(&house, size);
    assert!(process.ended().is_none(), "{}", process.both());
    let script = Path::new(env!("CARGO_MANIFEST_PATH")).with_file_name("tests/peers/tlog_peer.py");
    let url = format!("{}/log", house.url());
    let mut judge = Command::new(peers.join("python"));
    let judged = run(judge.arg(script).args([&url, &log, "1", &key]))
        .ok()
        .json();
    assert!(judged["size"].as_u64().unwrap() >= size, "{judged}");
}

/// Reads a tail for as long as it takes to have every entry from `from` to `until`.
fn follow(port: u16, path: &str, headers: &str, until: u64) -> Vec<(u64, String)> {
    use std::io::{BufRead as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .set_read_timeout(Some(crate::house::PATIENCE))
        .unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n{headers}\r\n"
    )
    .unwrap();
    let mut seen = Vec::new();
    let mut id = None;
    for line in std::io::BufReader::new(stream).lines() {
        let Ok(line) = line else { break };
        if let Some(text) = line.strip_prefix("id: ") {
            id = Some(text.parse::<u64>().unwrap());
        } else if let Some(data) = line.strip_prefix("data: ") {
            let index = id.take().expect("an id before each entry");
            seen.push((index, data.to_owned()));
            if index >= until {
                break;
            }
        }
    }
    seen
}

#[test]
fn a_tail_misses_nothing_and_doubles_nothing_while_entries_come_and_servers_go() {
    let mut house = House::solo();
    let from = house.point().0;
    let until = from + 60;
    let port = house.port();
    let tails: Vec<_> = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4_u64)
            .map(|number| {
                scope.spawn(move || {
                    // Each breaks off now and then, and goes on by what it saw last.
                    let mut all: Vec<(u64, String)> = Vec::new();
                    while all.last().is_none_or(|(index, _)| *index < until) {
                        let next = all.last().map_or(0, |(index, _)| index + 1);
                        let stop = (next + 7 + number * 5).min(until);
                        let part = match all.last() {
                            Some((last, _)) => {
                                let resume = format!("last-event-id: {last}\r\n");
                                follow(port, "/v1/ledger/tail?from=0", &resume, stop)
                            }
                            None => follow(port, "/v1/ledger/tail", "", stop),
                        };
                        all.extend(part);
                    }
                    all
                })
            })
            .collect();
        grow(&house, until);
        readers.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let whole = house.cli("ada", &["ledger", "export", "--bare"]).ok();
    let entries: Vec<&str> = whole.out.lines().collect();
    for tail in &tails {
        for (place, (index, data)) in tail.iter().enumerate() {
            assert_eq!(*index, place as u64, "missed or doubled");
            assert_eq!(data, entries[place]);
        }
        assert!(tail.len() as u64 > until);
    }
    // The command goes on over a restart of the server.
    let size = house.point().0;
    let start = size.to_string();
    let mut command = house.portcullis("ada");
    command.args([
        "--output", "json", "ledger", "tail", "--follow", "--from", &start,
    ]);
    let follower = Background::start(&mut command, &house.path("work"));
    house
        .cli("ada", &["breaker", "trip", "--why", "before"])
        .ok();
    wait_until("the trip is told", || {
        follower.out().contains("breaker.tripped").then_some(())
    });
    house.kill_server();
    house.serve();
    house
        .cli(
            "ada",
            &["breaker", "trip", "--agent", "helper", "--why", "after"],
        )
        .ok();
    let told = wait_until("what came after the restart is told", || {
        let out = follower.out();
        let indexes: Vec<u64> = out
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok()?["index"].as_u64())
            .collect();
        (out.matches("breaker.tripped").count() >= 2).then_some(indexes)
    });
    let expected: Vec<u64> = (size..size + told.len() as u64).collect();
    assert_eq!(told, expected);
    follower.kill();
}

#[test]
fn lists_come_in_pages_that_miss_nothing() {
    let house = House::solo();
    for number in 0..5 {
        house
            .add(
                "ada",
                "agent",
                &House::agent_record(&format!("agent-{number}"), ""),
            )
            .ok();
    }
    let whole = house.get("/v1/inventory/agents");
    let ids = |items: &Value| -> Vec<String> {
        let items = items["items"].as_array().unwrap();
        items
            .iter()
            .map(|one| one["record"]["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let mut pages = Vec::new();
    let mut after = String::new();
    loop {
        let page = house.get(&format!("/v1/inventory/agents?limit=2{after}"));
        let these = ids(&page);
        assert!(these.len() <= 2);
        pages.extend(these);
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(pages, ids(&whole));
    let added = ["agent-0", "agent-1", "agent-2", "agent-3", "agent-4"];
    assert_eq!(pages, [&added[..], &["helper"]].concat());
    for wrong in [
        "limit=0",
        "limit=1001",
        "limit=x",
        "after=",
        "after=%20",
        "offset=3",
    ] {
        let answer = house.request("GET", &format!("/v1/inventory/agents?{wrong}"), &[], b"");
        assert_eq!(answer.status, 400, "{wrong}: {answer:?}");
    }
    for list in [
        "tasks",
        "runs",
        "changes",
        "requests",
        "jobs",
        "artifacts",
        "releases",
        "rollouts",
        "environments",
        "incidents",
    ] {
        let page = house.get(&format!("/v1/{list}?limit=1"));
        assert!(page["items"].as_array().unwrap().len() <= 1, "{list}");
        assert!(page.get("next").is_some(), "{list}");
        if list == "environments" {
            continue;
        }
        let answer = house.request("GET", &format!("/v1/{list}?after=nothing"), &[], b"");
        assert_eq!(answer.status, 400, "{list}: {answer:?}");
    }
}
