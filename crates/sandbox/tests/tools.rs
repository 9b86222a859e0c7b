//! What people build with works inside as it does outside: compilers, package tools, and databases
//! over sockets of their own.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::path::{Path, PathBuf};

use portcullis_sandbox::{Spec, rust_toolchain};
use support::{run, shell, stderr, stdout, workspace};

/// A program in one of the usual places.
fn found(name: &str) -> Option<PathBuf> {
    ["/usr/local/bin", "/usr/bin", "/bin"]
        .into_iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists())
}

fn works(spec: &Spec, expected: &str) {
    let outcome = run(spec);
    let told = format!(
        "{:?}\n{}\n{}",
        outcome.ending,
        stdout(&outcome),
        stderr(&outcome)
    );
    assert!(outcome.success(), "{told}");
    assert!(stdout(&outcome).ends_with(expected), "{told}");
}

#[test]
fn postgresql_is_made_started_asked_and_stopped() {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let newest = versions
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .max();
    let Some(programs) = newest.filter(|programs| programs.join("initdb").exists()) else {
        eprintln!("PostgreSQL is not here: `cargo xtask tools` installs it");
        return;
    };
    let workspace = workspace();
    let script = format!(
        "set -e; PATH={}:$PATH
         initdb -D data -A trust --no-sync >log 2>&1 || {{ cat log; exit 1; }}
         pg_ctl -D data -w -l log -o \"-k /tmp -c listen_addresses=127.0.0.1 -c port=5433\" start >out 2>&1 || {{ cat out log; exit 1; }}
         psql -q -h /tmp -p 5433 postgres -c 'create table t(x int); insert into t select generate_series(1, 1000)'
         psql -q -t -A -h /tmp -p 5433 postgres -c 'select sum(x) from t'
         psql -q -t -A -h 127.0.0.1 -p 5433 postgres -c 'select count(*) from t'
         pg_ctl -D data -w -m fast stop >out 2>&1; echo stopped",
        programs.display()
    );
    works(&shell(&workspace, &script), "500500\n1000\nstopped\n");
}

#[test]
fn redis_keeps_what_it_is_told() {
    if found("redis-server").is_none() {
        eprintln!("redis is not here (`apt-get install redis-server`)");
        return;
    }
    let workspace = workspace();
    let script = "set -e
        redis-server --port 0 --unixsocket /tmp/redis --dir /workspace --daemonize yes >log
        until redis-cli -s /tmp/redis ping >/dev/null 2>&1; do sleep 0.05; done
        redis-cli -s /tmp/redis set k v >/dev/null; redis-cli -s /tmp/redis save >/dev/null
        redis-cli -s /tmp/redis get k; redis-cli -s /tmp/redis shutdown nosave || true; ls dump.rdb";
    works(&shell(&workspace, script), "v\ndump.rdb\n");
}

#[test]
fn make_and_the_c_compiler_build_in_parallel() {
    let workspace = workspace();
    let script = r#"set -e
        for i in 1 2 3 4 5 6; do echo "int f$i(void) { return $i; }" > f$i.c; done
        printf 'int f1(void), f6(void);\nint main(void) { return f1() + f6(); }\n' > main.c
        printf 'a: $(patsubst %%.c,%%.o,$(wildcard *.c))\n\tcc -pthread -o $@ $^\n' > Makefile
        make -s -j4; ./a || echo $?
        printf '#include <stdio.h>\nint main() { puts("sanitized"); }\n' > s.c
        cc -g -fsanitize=undefined s.c -o s && ./s"#;
    works(&shell(&workspace, script), "7\nsanitized\n");
}

#[test]
fn cargo_builds_and_tests_without_a_network() {
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .unwrap_or_default();
    let toolchain = rust_toolchain(&home);
    if toolchain.binds.is_empty() && found("cargo").is_none() {
        eprintln!("rustup's toolchain is not in this home directory");
        return;
    }
    let workspace = workspace();
    let script = "set -e
        cargo new --quiet --vcs none --lib made && cd made
        printf '#[test]\nfn threads() { std::thread::spawn(|| 7).join().unwrap(); }\n' >> src/lib.rs
        printf 'fn main() { println!(\"cargo:rustc-env=MADE=yes\"); }\n' > build.rs
        cargo test --offline --quiet >log 2>&1 || { cat log; exit 1; }
        grep -c 'test result: ok' log";
    let mut spec = shell(&workspace, script);
    spec.add_toolchain(toolchain);
    works(&spec, "2\n");
}

#[test]
fn node_python_and_go_run_their_own_tests() {
    let workspace = workspace();
    let scripts = [
        (
            "node",
            r#"mkdir n && cd n
            printf 'const test = require("node:test"), http = require("http");\ntest("serves", (t, done) => { const s = http.createServer((q, a) => a.end("hi")).listen(0, "127.0.0.1", () => http.get({ host: "127.0.0.1", port: s.address().port, agent: false }, (r) => { r.resume(); r.on("end", () => { s.close(); done(); }); })); });\nconst { Worker } = require("worker_threads"); new Worker("1 + 1", { eval: true });\n' > a.test.js
            node --test . > log 2>&1 || { cat log; exit 1; }; grep -o 'pass 1' log"#,
            "pass 1\n",
        ),
        (
            "python3",
            r#"python3 -c 'import venv, ensurepip' 2>/dev/null && pip= || pip=--without-pip
            python3 -m venv $pip v && v/bin/python -c 'import sys, sqlite3, ssl, multiprocessing, asyncio; print(sys.prefix)'
            printf 'import unittest, multiprocessing\nclass T(unittest.TestCase):\n    def test(self):\n        with multiprocessing.Pool(2) as p: self.assertEqual(p.map(abs, [-1, 2]), [1, 2])\n' > test_a.py
            v/bin/python -m unittest -q test_a 2>&1 | grep -x OK"#,
            "/workspace/v\nOK\n",
        ),
        (
            "go",
            r#"mkdir g && cd g && export GOFLAGS=-mod=mod GOPROXY=off GOCACHE=/tmp/go
            printf 'module x\n' > go.mod; printf 'package x\n' > x.go
            printf 'package x\nimport "testing"\nfunc TestX(t *testing.T) { c := make(chan int); go func() { c <- 7 }(); if <-c != 7 { t.Fatal() } }\n' > x_test.go
            go test ./... > log 2>&1 || { cat log; exit 1; }; grep -o '^ok' log
            mkdir m && printf 'package main\nimport "net"\nfunc main() { l, e := net.Listen("tcp", "127.0.0.1:0"); if e != nil { panic(e) }; println(l.Addr().Network()) }\n' > m/main.go
            go build -o made ./m && ./made 2>&1"#,
            "ok\ntcp\n",
        ),
    ];
    for (tool, script, expected) in scripts {
        if found(tool).is_none() {
            eprintln!("{tool} is not here");
            continue;
        }
        works(&shell(&workspace, &format!("set -e\n{script}")), expected);
    }
}
