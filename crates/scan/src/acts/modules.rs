//! What a Python program takes from modules of the repository.

/// A module that a program takes in, and what of it the program calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Module {
    /// Files that it may be, in the order that Python looks for them: relative to the program
    /// where they begin with `./`, and to the repository otherwise.
    pub(super) files: Vec<String>,
    pub(super) called: Vec<String>,
}

/// Most modules of one program.
const MODULES_MAX: usize = 30;
/// Most names that one program takes in: each is looked for in its text.
const NAMES_MAX: usize = 300;

/// Modules that come with Python or are widely used: none of the repository's.
const FOREIGN: &[&str] = &[
    "__future__",
    "abc",
    "argparse",
    "asyncio",
    "base64",
    "bs4",
    "collections",
    "concurrent",
    "contextlib",
    "copy",
    "csv",
    "dataclasses",
    "datetime",
    "decimal",
    "dotenv",
    "enum",
    "functools",
    "getpass",
    "git",
    "github",
    "glob",
    "gzip",
    "hashlib",
    "html",
    "http",
    "httpx",
    "importlib",
    "inspect",
    "io",
    "itertools",
    "jinja2",
    "json",
    "logging",
    "lxml",
    "math",
    "multiprocessing",
    "numpy",
    "openai",
    "anthropic",
    "operator",
    "os",
    "packaging",
    "pandas",
    "pathlib",
    "pickle",
    "platform",
    "playwright",
    "pprint",
    "pydantic",
    "queue",
    "random",
    "re",
    "requests",
    "rich",
    "secrets",
    "selenium",
    "semver",
    "shlex",
    "shutil",
    "signal",
    "socket",
    "sqlite3",
    "ssl",
    "statistics",
    "string",
    "struct",
    "subprocess",
    "sys",
    "tempfile",
    "textwrap",
    "threading",
    "time",
    "toml",
    "tomllib",
    "tqdm",
    "traceback",
    "types",
    "typing",
    "unittest",
    "urllib",
    "uuid",
    "warnings",
    "xml",
    "yaml",
    "zipfile",
    "zoneinfo",
    "boto3",
    "click",
    "typer",
    "google",
    "gitlab",
];

/// The modules of the repository that a program takes in, as far as its text tells.
pub(super) fn imports(text: &str) -> Vec<Module> {
    let mut out: Vec<Module> = Vec::new();
    let mut names_left = NAMES_MAX;
    for line in joined(text) {
        if out.len() >= MODULES_MAX {
            break;
        }
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some((module, names)) = line
            .strip_prefix("from ")
            .and_then(|rest| rest.split_once(" import "))
        {
            let module = module.trim();
            if is_foreign(module) {
                continue;
            }
            let mut called = Vec::new();
            for name in names.trim_matches(['(', ')', ' ']).split(',') {
                if names_left == 0 {
                    break;
                }
                names_left -= 1;
                let (there, here) = name.trim().split_once(" as ").unwrap_or((name, name));
                let (there, here) = (there.trim(), here.trim());
                if here.is_empty() || !is_name(here) {
                    continue;
                }
                let methods = called_by(text, here);
                if !methods.is_empty() && out.len() < MODULES_MAX {
                    // A module of the package, or a thing of the module.
                    out.push(Module {
                        files: files(&format!("{}{there}", dotted(module))),
                        called: methods.clone(),
                    });
                    called.extend(methods);
                }
                if text.contains(&format!("{here}(")) {
                    if here.starts_with(|c: char| c.is_ascii_uppercase()) {
                        called.push("__init__".to_owned());
                        called.extend(every_method(text));
                    }
                    called.push(there.to_owned());
                }
            }
            called.sort_unstable();
            called.dedup();
            out.push(Module {
                files: files(module),
                called,
            });
        } else if let Some(list) = line.strip_prefix("import ") {
            for one in list.split(',') {
                let (module, here) = one.trim().split_once(" as ").unwrap_or((one, one));
                let (module, here) = (module.trim(), here.trim());
                if is_foreign(module) || out.len() >= MODULES_MAX || names_left == 0 {
                    continue;
                }
                names_left -= 1;
                out.push(Module {
                    files: files(module),
                    called: called_by(text, here),
                });
            }
        }
    }
    out.retain(|module| !module.called.is_empty());
    out
}

/// A module without what it does only where it is started by itself.
pub(super) fn as_module(text: &str) -> String {
    let mut own = false;
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        if line.starts_with("if __name__") {
            own = true;
        } else if own && !line.is_empty() && !line.starts_with([' ', '\t', '#', ')']) {
            own = false;
        }
        if !own {
            out.push_str(line);
        }
        out.push('\n');
    }
    out
}

fn is_foreign(module: &str) -> bool {
    let first = module.split('.').next().unwrap_or_default();
    FOREIGN.contains(&first)
}

fn is_name(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A package with the point that parts it from a module: `a` as `a.`, `.` as it stands.
fn dotted(module: &str) -> String {
    if module.ends_with('.') {
        module.to_owned()
    } else {
        format!("{module}.")
    }
}

fn files(module: &str) -> Vec<String> {
    let rest = module.trim_start_matches('.');
    let ups = module.len() - rest.len();
    if rest.is_empty()
        || !rest
            .split('.')
            .all(|part| !part.is_empty() && is_name(part))
    {
        return Vec::new();
    }
    let path = rest.replace('.', "/");
    let places: Vec<String> = if ups > 0 {
        vec![format!("./{}{path}", "../".repeat(ups - 1))]
    } else {
        vec![format!("./{path}"), path.clone(), format!("src/{path}")]
    };
    let mut out: Vec<String> = places.iter().map(|place| format!("{place}.py")).collect();
    out.extend(places.iter().map(|place| format!("{place}/__init__.py")));
    out
}

/// What is called of a name: `name.call(`.
fn called_by(text: &str, name: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mark = format!("{name}.");
    for (at, _) in text.match_indices(&mark) {
        let inside = text
            .get(..at)
            .and_then(|before| before.chars().next_back())
            .is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'));
        let rest = text.get(at + mark.len()..).unwrap_or_default();
        if let Some(word) = called_first(rest).filter(|_| !inside)
            && !out.contains(&word)
        {
            out.push(word);
        }
    }
    out
}

/// The name that a text begins with, if it is called.
fn called_first(text: &str) -> Option<String> {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|end| *end > 0)?;
    let (word, rest) = text.split_at(end);
    rest.starts_with('(').then(|| word.to_owned())
}

/// Every name behind a point that a program calls.
fn every_method(text: &str) -> Vec<String> {
    /// Most of them.
    const METHODS_MAX: usize = 300;
    let mut out: Vec<String> = Vec::new();
    for (at, _) in text.match_indices('.') {
        let rest = text.get(at + 1..).unwrap_or_default();
        if let Some(word) = called_first(rest)
            && out.len() < METHODS_MAX
            && !out.contains(&word)
        {
            out.push(word);
        }
    }
    out
}

/// Lines of a program, imports over several lines as one each.
fn joined(text: &str) -> Vec<String> {
    /// Most lines of one program.
    const LINES_MAX: usize = 5_000;
    let mut out: Vec<String> = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines().take(LINES_MAX) {
        let line = line.trim();
        if let Some(begun) = &mut open {
            begun.push(' ');
            begun.push_str(line.split('#').next().unwrap_or_default());
            if line.contains(')') {
                out.extend(open.take());
            }
        } else if line.starts_with("from ") && line.contains('(') && !line.contains(')') {
            open = Some(line.to_owned());
        } else if line.starts_with("from ") || line.starts_with("import ") {
            out.push(line.to_owned());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_name_their_files_and_what_is_called() {
        let found = imports(
            "import os\nfrom tools.forge import (\n    Client,  # one\n    land as merge,\n)\n\
             from . import notes\nimport lib.a as a\nfrom .near import unused\n\
             client = Client()\nclient.open()\nmerge(1)\nnotes.write()\na.go()\nos.getcwd()\n",
        );
        let of = |file: &str| {
            found
                .iter()
                .find(|module| module.files.iter().any(|known| known == file))
                .map(|module| module.called.clone())
                .unwrap_or_default()
        };
        assert!(of("tools/forge.py").contains(&"land".to_owned()));
        assert!(of("tools/forge.py").contains(&"open".to_owned()));
        assert_eq!(of("./notes.py"), ["write"]);
        assert_eq!(of("lib/a.py"), ["go"]);
        assert!(of("./near.py").is_empty());
        assert!(of("os.py").is_empty());
    }

    #[test]
    fn what_runs_by_itself_alone_is_left_out() {
        let text = "def a():\n    x()\nif __name__ == '__main__':\n    a()\n\n    b()\nc = 1\n";
        assert_eq!(as_module(text), "def a():\n    x()\n\n\n\n\nc = 1\n");
    }

    #[test]
    fn broken_imports_end() {
        for text in [
            "from . import",
            "from import (",
            "import ,",
            "from ... import a\na.b()",
            "from (\n",
        ] {
            let _ = imports(text);
        }
    }
}
