//! Pure crates decide; they don't act. Here is what they may not name, and which of our crates may
//! know which.

use crate::source::{Token, code};
use crate::workspace;

/// Crates whose decisions are functions of their arguments alone.
const PURE: [&str; 6] = ["model", "policy", "flow", "evidence", "checks", "canary"];

/// Words of runtimes, sockets, databases and clocks.
const WORDS: [&str; 19] = [
    "tokio",
    "async_std",
    "smol",
    "mio",
    "hyper",
    "hyper_util",
    "axum",
    "reqwest",
    "tower",
    "rusqlite",
    "sqlx",
    "postgres",
    "socket2",
    "rustix",
    "libc",
    "tempfile",
    "SystemTime",
    "Instant",
    "chrono",
];

/// Modules of the standard library that reach outside the process, or wait.
const MODULES: [&str; 6] = ["fs", "net", "process", "env", "thread", "os"];

/// Functions that read a clock, as `Type::function`.
const CLOCKS: [(&str, &str); 3] = [
    ("Timestamp", "now"),
    ("Zoned", "now"),
    ("OffsetDateTime", "now_utc"),
];

/// Which of our crates a crate may depend on; tests may know more.
const MAY_KNOW: [(&str, &[&str]); 14] = [
    ("model", &[]),
    ("policy", &["model"]),
    ("flow", &["model"]),
    ("evidence", &["model"]),
    ("checks", &["model"]),
    ("canary", &["model"]),
    ("identity", &["model"]),
    ("store", &["model", "flow", "evidence"]),
    ("gateway", &["model", "policy", "identity", "checks"]),
    ("sandbox", &["model", "identity"]),
    ("proxy", &["model", "canary"]),
    ("scan", &["model", "checks"]),
    (
        "server",
        &[
            "model", "policy", "flow", "evidence", "checks", "canary", "identity", "store",
            "gateway", "proxy", "scan",
        ],
    ),
    (
        "cli",
        &[
            "model", "policy", "flow", "evidence", "checks", "canary", "identity", "store",
            "gateway", "proxy", "scan", "server", "sandbox",
        ],
    ),
];

/// Everything that breaks the rules, one line each.
pub(crate) fn breaches() -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for name in workspace::files()? {
        let Some((package, rest)) = name
            .strip_prefix("crates/")
            .and_then(|rest| rest.split_once('/'))
        else {
            continue;
        };
        let text = || workspace::text(&name).map(Option::unwrap_or_default);
        if rest == "Cargo.toml" {
            found.extend(manifest_breaches(package, &name, &text()?));
        } else if PURE.contains(&package) && is_own_source(rest) {
            found.extend(source_breaches(&name, &text()?));
        }
    }
    Ok(found)
}

/// Source of the crate itself: no tests, examples, benches or build scripts.
fn is_own_source(path: &str) -> bool {
    path.starts_with("src/")
        && path.ends_with(".rs")
        && !path.ends_with("/tests.rs")
        && !path.contains("/tests/")
}

fn source_breaches(name: &str, text: &str) -> Vec<String> {
    let code = code(text);
    let word = |index: usize| code.get(index).map_or("", |token| token.text.as_str());
    let mut found = Vec::new();
    let mut tell = |token: &Token, what: &str| {
        found.push(format!(
            "{name}:{}: names {what}; a pure crate takes it as a value, or leaves it to the edge",
            token.line
        ));
    };
    for (index, token) in code.iter().enumerate() {
        // `a::tokio` is a name of ours; `tokio::…`, `use tokio` and `::tokio` are the crate.
        let own = index > 1 && word(index - 1) == "::" && is_name(word(index - 2));
        let clock = matches!(token.text.as_str(), "SystemTime" | "Instant");
        if WORDS.contains(&token.text.as_str()) && (clock || !own) && word(index + 1) != ":" {
            tell(token, &token.text);
        }
        if token.text == "std" && word(index + 1) == "::" {
            for module in modules_named(&code, index + 2) {
                if MODULES.contains(&module.text.as_str()) {
                    tell(module, &format!("std::{}", module.text));
                }
            }
        }
        for (kind, function) in CLOCKS {
            if token.text == kind && word(index + 1) == "::" && word(index + 2) == function {
                tell(token, &format!("{kind}::{function}"));
            }
        }
    }
    found
}

fn is_name(word: &str) -> bool {
    word.chars()
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && !matches!(word, "use" | "as" | "in" | "return")
}

/// The first names after `std::`: one, or each of a group in braces.
fn modules_named(code: &[Token], index: usize) -> Vec<&Token> {
    if code.get(index).is_none_or(|token| token.text != "{") {
        return code.get(index).into_iter().collect();
    }
    let mut names = Vec::new();
    let mut depth = 0_usize;
    let mut fresh = false;
    for token in code.iter().skip(index) {
        match token.text.as_str() {
            "{" => {
                depth += 1;
                fresh = depth == 1;
            }
            "}" => {
                depth -= 1;
                if depth == 0 {
                    break;
                }
            }
            "," => fresh = depth == 1,
            _ => {
                if fresh {
                    names.push(token);
                }
                fresh = false;
            }
        }
    }
    names
}

fn manifest_breaches(package: &str, name: &str, text: &str) -> Vec<String> {
    let Some((_, known)) = MAY_KNOW.iter().find(|(crate_, _)| *crate_ == package) else {
        return vec![format!(
            "{name}: crate {package} is new; say in xtask/src/purity.rs what it may depend on"
        )];
    };
    let mut found = Vec::new();
    for dependency in dependencies(text) {
        let own = dependency.strip_prefix("portcullis-");
        if own.is_some_and(|own| !known.contains(&own)) {
            found.push(format!(
                "{name}: {package} may not depend on {dependency}; it may know {}",
                known.join(", ")
            ));
        }
        if PURE.contains(&package) && WORDS.contains(&dependency.replace('-', "_").as_str()) {
            found.push(format!(
                "{name}: pure crate {package} may not depend on {dependency}"
            ));
        }
    }
    found
}

/// Names in `[dependencies]`, `[build-dependencies]` and their per-target forms.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut inside = false;
    let mut names = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if let Some(section) = line
            .strip_prefix('[')
            .and_then(|rest| rest.split_once(']'))
            .map(|(section, _)| section)
        {
            let table = section.rsplit('.').next().unwrap_or(section);
            inside = matches!(table, "dependencies" | "build-dependencies");
            let of = |table: &str| section.split_once(table).map(|(_, name)| name.to_owned());
            if let Some(name) = of("dependencies.").filter(|_| !section.contains("dev-")) {
                names.push(name);
            }
        } else if inside && !line.is_empty() && !line.starts_with('#') {
            let name = line.split(['.', '=', ' ']).next().unwrap_or(line);
            names.push(name.trim_matches('"').to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_pure_crates_are_pure() {
        let found = breaches().unwrap();
        assert!(found.is_empty(), "{}", found.join("\n"));
    }

    #[test]
    fn every_way_to_the_outside_is_found() {
        for text in [
            "use tokio::time::sleep;",
            "fn a() { ::tokio::spawn(b); }",
            "use std::{collections::{BTreeMap, BTreeSet}, fs};",
            "use std::net::TcpStream;",
            "let a = std::process::id();",
            "let a = std::env::var(b);",
            "let a = std::time::SystemTime::now();",
            "use std::time::{Duration, Instant};",
            "std::thread::sleep(a);",
            "let a = jiff::Timestamp::now();",
            "use rusqlite as database;",
        ] {
            assert_eq!(source_breaches("a.rs", text).len(), 1, "{text}");
        }
    }

    #[test]
    fn words_in_comments_strings_tests_and_own_names_are_no_breach() {
        for text in [
            "// tokio",
            "//! std::fs and SystemTime",
            "let a = \"std::fs::read\";",
            "#[cfg(test)] mod tests { use std::fs; }",
            "use std::{collections::BTreeMap, fmt};",
            "let a = std::time::Duration::from_secs(1);",
            "let a = Kind::libc;",
            "struct A { env: B }",
        ] {
            assert_eq!(
                source_breaches("a.rs", text),
                Vec::<String>::new(),
                "{text}"
            );
        }
    }

    #[test]
    fn only_own_source_is_read() {
        assert!(is_own_source("src/decide.rs"));
        for path in [
            "src/tests.rs",
            "src/a/tests.rs",
            "src/tests/b.rs",
            "tests/a.rs",
            "examples/a.rs",
        ] {
            assert!(!is_own_source(path), "{path}");
        }
    }

    #[test]
    fn a_dependency_that_points_the_wrong_way_is_found() {
        let manifest = "[dependencies]\nportcullis-model.workspace = true\nportcullis-store.workspace = true\ntokio = \"1\"\n[dev-dependencies]\nportcullis-server.workspace = true\n";
        let found = manifest_breaches("flow", "Cargo.toml", manifest);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(manifest_breaches("new", "Cargo.toml", "").len(), 1);
        let target = "[target.'cfg(unix)'.dependencies]\nlibc = \"0.2\"\n[dependencies.hyper]\nversion = \"1\"\n";
        assert_eq!(manifest_breaches("model", "Cargo.toml", target).len(), 2);
    }
}
