//! The project speaks of itself alone: no file names a folder of somebody's machine, and every
//! dependency comes from the public registry.

use crate::workspace;

/// The one source of packages.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Folders that exist on somebody's machine and mean nothing to a reader. Written in halves, so
/// that this file does not name them.
const FOLDERS: [(&str, &str); 4] = [
    ("/wo", "rk/"),
    ("/Us", "ers/"),
    ("/tmp/is", "sues"),
    ("/home/ru", "nner/"),
];

/// Everything that names such a place, one line each.
pub(crate) fn named() -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for name in workspace::files()? {
        let Some(text) = workspace::text(&name)? else {
            continue;
        };
        if name == "Cargo.lock" {
            found.extend(foreign_sources(&text));
        }
        if name.ends_with("config.toml") && text.contains("[source") {
            found.push(format!("{name}: replaces the source of packages"));
        }
        found.extend(folders_named(&name, &text));
    }
    Ok(found)
}

fn folders_named(name: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for (first, second) in FOLDERS {
            let folder = format!("{first}{second}");
            let absolute = line.match_indices(&folder).any(|(at, _)| {
                let before = line.get(..at).and_then(|before| before.chars().next_back());
                before.is_none_or(|before| {
                    !(before.is_alphanumeric() || "._-~*]}>)".contains(before))
                })
            });
            if absolute {
                found.push(format!(
                    "{name}:{}: names {folder}, a place outside the project",
                    number + 1
                ));
            }
        }
    }
    found
}

fn foreign_sources(lock: &str) -> Vec<String> {
    lock.lines()
        .filter_map(|line| line.strip_prefix("source = "))
        .map(|source| source.trim_matches('"'))
        .filter(|source| *source != REGISTRY)
        .map(|source| format!("Cargo.lock: a package comes from {source}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_names_a_place_outside_the_project() {
        let found = named().unwrap();
        assert!(found.is_empty(), "{}", found.join("\n"));
    }

    #[test]
    fn an_absolute_folder_is_found_and_a_relative_one_is_not() {
        let folder = format!("{}{}", FOLDERS[0].0, FOLDERS[0].1);
        for text in [
            folder.clone(),
            format!("see {folder}a"),
            format!("\"{folder}a\""),
            format!("file://{folder}a"),
        ] {
            assert_eq!(folders_named("a", &text).len(), 1, "{text}");
        }
        for text in [
            format!("src{folder}a"),
            format!(".{folder}"),
            format!("${{DIR}}{folder}"),
        ] {
            assert!(folders_named("a", &text).is_empty(), "{text}");
        }
    }

    #[test]
    fn another_registry_is_found() {
        let lock = format!("source = \"{REGISTRY}\"\nsource = \"git+https://example.com/a\"\n");
        assert_eq!(foreign_sources(&lock).len(), 1);
    }
}
