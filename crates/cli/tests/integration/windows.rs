//! Windows: a run is looked at, stands still, and goes on, narrower or wound back, by a person.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::egress::{allow, house_with};
use crate::house::{Background, House, Outside, Plan, Reply, nanos, wait_until};
use crate::runs::runs_anywhere;

/// A run that stands still at the end of its first window, with its id.
fn stopped(house: &House, options: &[&str], script: &str) -> (Background, String) {
    let options = [&["--window", "2s"], options].concat();
    let run = house.start_run(&house.task("ada", &options), script);
    let entry = house.await_entry("run.reviewed", |entry| !entry.body["stop"].is_null());
    let id = entry.body["run"].as_str().unwrap().to_owned();
    wait_until("it says so", || {
        run.both().contains("stands still").then_some(())
    });
    (run, id)
}

#[test]
fn a_run_stands_still_for_a_person_and_its_processes_go_on() {
    let mut house = House::solo();
    let script = "echo good > kept; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do true | cat; done
        i=0; while [ ! -e done ]; do i=$((i+1)); echo $i; sleep 0.05; [ $i = 200 ] && rm -f kept && touch spoilt; done
        exit 5";
    let (run, id) = stopped(&house, &["--ask-each-window"], script);
    let reviewed = house.entries("run.reviewed");
    assert_eq!(reviewed[0].body["causes"], json!(["window"]));
    let because = reviewed[0].body["stop"]["because"].to_string();
    assert!(because.contains("base-task-asks"), "{because}");
    let counted = || run.out().lines().count();
    wait_until("nothing moves", || {
        let before = counted();
        std::thread::sleep(Duration::from_millis(200));
        (counted() == before).then_some(())
    });
    let stands = counted();
    let asked = house.await_request(&id);
    // The state survives the server; the run stays as it is meanwhile.
    house.kill_server();
    house.serve();
    assert_eq!(counted(), stands);
    assert_eq!(run.ended(), None);
    house.approve("ada", &asked).ok();
    house.await_entry("run.resumed", |_| true);
    wait_until("it goes on where it was", || {
        (counted() > stands + 2).then_some(())
    });
    let again = house.await_entry("run.reviewed", |entry| entry.body["window"] == 2);
    assert!(!again.body["stop"].is_null());
    house
        .cli("ada", &["runs", "end", &id, "--why", "seen enough"])
        .ok();
    assert_eq!(run.wait(Duration::from_secs(20)).code, 137);
    wait_until("the question is withdrawn", || {
        let list = house.get("/v1/requests?open=true");
        list["items"].as_array().unwrap().is_empty().then_some(())
    });
}

/// Asks again and again for what it may not have.
const KNOCKING: &str =
    "for i in 1 2 3 4 5 6; do curl --silent http://not-in-the-task.example/ >/dev/null; done";

#[test]
fn repeated_denials_bring_a_person_in_and_a_quiet_run_none() {
    let house = House::solo();
    let quiet = house.run(&house.task("ada", &["--window", "1s"]), "sleep 3; exit 4");
    quiet.exits(4);
    let looked = house.entries("run.reviewed");
    assert!(looked.len() >= 2, "{looked:?}");
    assert!(looked.iter().all(|entry| entry.body["stop"].is_null()));
    assert!(house.open_request("go").is_none());
    let script = format!("{KNOCKING}; sleep 60");
    let run = house.start_run(&house.task("ada", &[]), &script);
    let stopped = house.await_entry("run.reviewed", |entry| !entry.body["stop"].is_null());
    assert_eq!(stopped.body["causes"], json!(["denials"]));
    let id = stopped.body["run"].as_str().unwrap().to_owned();
    house.await_request(&id);
    house
        .cli("ada", &["runs", "end", &id, "--why", "it does not stop"])
        .ok();
    run.wait(Duration::from_secs(20)).exits(137);
}

/// Whether the host outside has hung up on everybody.
static HUNG_UP: AtomicBool = AtomicBool::new(false);

/// Says a line every so often, until the test says that it is enough.
fn drip(mut stream: TcpStream) {
    while !HUNG_UP.load(Ordering::Relaxed) && stream.write_all(b"7\r\ndata: x\r\n").is_ok() {
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_run_is_wound_back_and_goes_on_narrower_and_is_told_what_died_meanwhile() {
    let outside = Outside::new(|asked| match asked.path() {
        "/stream" => Reply::Raw(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
            drip,
        ),
        _ => Reply::ok("text/plain", "fine"),
    });
    let web = format!("web.test:{}", outside.port);
    let hosts = [web.clone()];
    let house = house_with(Plan::default(), &hosts, "");
    allow(&house, &hosts, "");
    // Something changes all the time, so each stop has a checkpoint of its own. The command is one
    // process from its start to its end, and says so.
    let script = format!(
        "(i=0; while :; do i=$((i+1)); echo $i > tick; sleep 0.05; done) &
        curl -sSN http://{web}/stream > /tmp/stream 2>/dev/null &
        until [ -s /tmp/stream ]; do sleep 0.05; done
        mkdir -p 'odd name/deep'; printf good > kept; printf odd > \"odd name/line
feed\"; printf x > \"$(printf 'bytes-\\377')\"
        ln -s /etc/passwd link; truncate -s 4M sparse; chmod 750 'odd name'
        me=$$; {KNOCKING}
        echo second; curl -sS --max-time 20 http://{web}/page; echo
        rm -r 'odd name' link; printf bad > kept; ln -s / deeper; touch spoilt; rm sparse bytes-*
        {KNOCKING}
        echo third; cat kept \"odd name/line
feed\"; echo; readlink link; stat -c %a 'odd name'; stat -c %s sparse; ls bytes-* | wc -l
        ls -d spoilt deeper 2>/dev/null || echo nothing spoilt
        curl -sS -o /dev/null -w '%{{http_code}}\n' --max-time 20 http://{web}/page || true
        test $me = $$ && echo same process; exit 5"
    );
    let options = ["--trust", &web, "--budget-wall", "1h"];
    let run = house.start_run(&house.task("ada", &options), &script);
    let stopped = house.await_entry("run.reviewed", |entry| !entry.body["stop"].is_null());
    let id = stopped.body["run"].as_str().unwrap().to_owned();
    let kept = house.await_entry("run.checkpointed", |entry| entry.index > stopped.index);
    let kept_as = &kept.body["number"];
    // While it stands still its one connection dies.
    HUNG_UP.store(true, Ordering::Relaxed);
    house.await_entry("calls.observed", |entry| {
        let ended = entry.body["ended"].as_array();
        ended.into_iter().flatten().any(|calls| {
            calls["lease"]["id"] == web.as_str() && calls["bytes"][0][1].as_u64() > Some(0)
        })
    });
    let asked = house.await_request(&id);
    house.approve("ada", &asked).ok();
    wait_until("it is told what died", || {
        run.both().contains("died meanwhile").then_some(())
    });
    let again = house.await_entry("run.reviewed", |entry| {
        entry.index > stopped.index && !entry.body["stop"].is_null()
    });
    assert_eq!(again.body["causes"], json!(["denials"]));
    assert!(run.out().contains("second\nfine\n"), "{}", run.both());
    wait_until("it is kept as spoilt", || {
        let told = house.entries("run.checkpointed");
        told.last()
            .filter(|entry| entry.index > again.index)
            .map(|_| ())
    });

    // What there is not can't be chosen, and says what there is.
    let number = kept_as.to_string();
    let resume = |more: &[&str]| {
        let words = ["runs", "resume", &id, "--why", "it went astray"];
        house.cli("ada", &[&words[..], more].concat())
    };
    let refused = resume(&["--rewind-to", "999"]).refused("checkpoint-not-found");
    assert!(refused.to_string().contains(&number), "{refused}");
    let narrower = ["--without", &format!("host:{web}"), "--at-most", "30m"];
    let answer = resume(&[&["--rewind-to", &number][..], &narrower].concat()).exits(4);
    let request = answer.json()["request"].as_str().unwrap().to_owned();
    house.approve("ada", &request).ok();
    let done = run.wait(Duration::from_secs(60)).exits(5);
    let expected =
        "third\ngoododd\n/etc/passwd\n750\n4194304\n1\nnothing spoilt\n403\nsame process\n";
    assert!(done.out.ends_with(expected), "{done:?}");
    let said = format!("the workspace is wound back to checkpoint {number}: ");
    assert!(done.err.contains(&said), "{done:?}");

    // The ledger tells who asked for what, and that it was done so.
    let resumed = house.entries("run.resumed");
    assert_eq!(resumed.len(), 2);
    assert_eq!(resumed[1].body["request"], request.as_str());
    let opened = house.await_entry("request.opened", |entry| {
        entry.body["subject"]["way"]["checkpoint"]["number"] == *kept_as
    });
    let way = &opened.body["subject"]["way"];
    assert!(way["without"].to_string().contains(&web), "{way}");
    assert!(
        way["deadline"].is_string() || way["deadline"].is_number(),
        "{way}"
    );
    house.await_entry("run.ended", |entry| entry.body["end"]["status"] == 5);
}

#[test]
fn a_server_that_is_away_holds_a_run_and_its_deadline_ends_it_all_the_same() {
    let mut house = House::solo();
    let task = house.task("ada", &["--window", "1h"]);
    let counting = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; [ -e /tmp/x ] && exit; done";
    let run = house.start_run(&task, counting);
    let counted = || run.out().lines().count();
    let stands_still = || {
        wait_until("nothing moves", || {
            let before = counted();
            std::thread::sleep(Duration::from_millis(300));
            (counted() == before).then_some(())
        });
        counted()
    };
    let goes_on = |from: usize| {
        wait_until("it goes on where it was", || {
            (counted() > from + 2).then_some(())
        });
    };
    goes_on(0);
    house.kill_server();
    wait_until("it is told why", || {
        run.both().contains("the server is away").then_some(())
    });
    let stood = stands_still();
    assert_eq!(run.ended(), None);
    // Nothing starts either, and nothing is left of the try.
    let refused = house.run(&task, "echo begun");
    assert_eq!((refused.code, refused.out.as_str()), (1, ""), "{refused:?}");
    assert!(refused.err.contains(&house.url()), "{refused:?}");
    let folders = std::fs::read_dir(house.path("work")).unwrap().flatten();
    let folders = folders.filter(|entry| {
        let name = entry.file_name().into_string().unwrap();
        name.starts_with("portcullis-run-")
    });
    assert_eq!(folders.count(), 1, "the one that runs");
    assert_eq!((counted(), run.ended()), (stood, None));
    house.serve();
    goes_on(stood);
    assert!(run.both().contains("the run goes on"), "{}", run.both());
    run.signal(rustix::process::Signal::TERM);
    run.wait(Duration::from_secs(20));

    let mark = format!("62{:09}", nanos());
    let task = house.task("ada", &["--budget-wall", "6s"]);
    let run = house.start_run(&task, &format!("echo begun; sleep {mark}"));
    wait_until("the command runs", || {
        run.both().contains("begun").then_some(())
    });
    house.kill_server();
    let done = run.wait(Duration::from_secs(30)).exits(137);
    assert!(done.err.contains("the server is away"), "{done:?}");
    assert!(done.err.contains("the deadline ended it"), "{done:?}");
    assert!(!runs_anywhere(&mark));
    // The server ends what it was not told of by itself, once it is back.
    assert!(done.err.contains("was not told that"), "{done:?}");
}

/// Children of a process.
fn children(pid: u32) -> Vec<u32> {
    std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// The process that looks after a run's sandbox.
fn supervisor_of(run: &Background) -> u32 {
    let supervisors: Vec<u32> = children(run.id())
        .into_iter()
        .filter(|pid| !children(*pid).is_empty())
        .collect();
    assert_eq!(supervisors.len(), 1, "{supervisors:?}");
    supervisors[0]
}

#[test]
fn a_run_whose_supervisor_stalled_is_told_as_killed_and_not_as_never_begun() {
    let house = House::solo();
    let task = house.task("ada", &[]);
    let run = house.start_run(&task, "echo begun; sleep 1000");
    wait_until("it began", || run.out().contains("begun").then_some(()));
    signal(supervisor_of(&run), rustix::process::Signal::STOP);
    let done = run.wait(Duration::from_secs(60));
    assert!(
        done.err.contains("how the command ended is not known"),
        "{done:?}"
    );
    assert!(done.err.contains("supervisor does not answer"), "{done:?}");
    let ended = house.await_entry("run.ended", |_| true);
    assert_eq!(
        ended.body["end"],
        json!({ "reason": "exited", "status": 137 })
    );
}

/// As on a host that swaps: those whom a run needs are there, and do nothing.
#[test]
fn a_server_that_stalls_holds_a_run_and_a_supervisor_that_stalls_ends_it() {
    use rustix::process::Signal;
    let house = House::solo();
    let task = house.task("ada", &["--window", "1h"]);
    let script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done";
    let run = house.start_run(&task, script);
    let counted = || run.out().lines().count();
    let goes_on = |from: usize| {
        wait_until("it goes on where it was", || {
            (counted() > from + 2).then_some(())
        });
    };
    let stands_still = || {
        wait_until("nothing moves", || {
            let before = counted();
            std::thread::sleep(Duration::from_millis(300));
            (counted() == before).then_some(())
        });
        counted()
    };
    goes_on(0);
    let server = house.server().id();
    signal(server, Signal::STOP);
    wait_until("it is told why", || {
        run.both().contains("the server is away").then_some(())
    });
    let stood = stands_still();
    signal(server, Signal::CONT);
    goes_on(stood);
    // Now nobody is there who could freeze it: it must not go on all the same.
    let supervisor = supervisor_of(&run);
    let inside = children(supervisor);
    signal(supervisor, Signal::STOP);
    signal(server, Signal::STOP);
    wait_until("it is told its end and why", || {
        run.both()
            .contains("can't be frozen, so it ends")
            .then_some(())
    });
    wait_until("nothing is left of it", || {
        let gone = |pid: &u32| !std::path::Path::new(&format!("/proc/{pid}/root")).exists();
        inside.iter().all(gone).then_some(())
    });
    signal(server, Signal::CONT);
    assert_ne!(run.wait(Duration::from_secs(30)).code, 0);
    house.await_entry("run.ended", |_| true);
}
