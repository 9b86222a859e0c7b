//! Programs that nothing here knows and that no word of their own gives away: what they do may be
//! told by the name of the step that runs them ([`super::headings`]).

use super::command::Reader;
use super::naming::{Unresolved, Why};
use crate::shell::Command;
use crate::tree::normal;

/// Most of them in one step.
const NOTED_MAX: usize = 20;

/// Programs of every system, and words of shells, that ship nothing.
const PLAIN: &[&str] = &[
    "alias",
    "apk",
    "apt-key",
    "arch",
    "base64",
    "basename",
    "bc",
    "begin",
    "bg",
    "break",
    "brotli",
    "bunzip2",
    "bzip2",
    "call",
    "catch",
    "chgrp",
    "chmod",
    "chown",
    "clang",
    "clear",
    "cmake",
    "cmp",
    "column",
    "comm",
    "command",
    "continue",
    "copy",
    "corepack",
    "cpio",
    "csplit",
    "ctest",
    "curl",
    "cut",
    "date",
    "dd",
    "default",
    "defaults",
    "del",
    "df",
    "diff",
    "diff3",
    "dig",
    "dir",
    "dirname",
    "dnf",
    "do",
    "done",
    "dos2unix",
    "dpkg",
    "dpkg-deb",
    "du",
    "elif",
    "else",
    "end",
    "env",
    "envsubst",
    "esac",
    "eval",
    "exec",
    "expr",
    "factor",
    "false",
    "fc",
    "fg",
    "fi",
    "file",
    "finally",
    "fold",
    "foreach",
    "fmt",
    "free",
    "from",
    "fuser",
    "g++",
    "gawk",
    "gcc",
    "getent",
    "getopts",
    "git-lfs",
    "gpg",
    "gpgconf",
    "groupadd",
    "gsed",
    "gunzip",
    "gtar",
    "gzip",
    "hash",
    "hdiutil",
    "head",
    "hexdump",
    "history",
    "host",
    "hostname",
    "hostnamectl",
    "htpasswd",
    "id",
    "if",
    "import",
    "ip",
    "java",
    "javac",
    "jar",
    "join",
    "journalctl",
    "keytool",
    "kill",
    "killall",
    "kind",
    "less",
    "let",
    "link",
    "ln",
    "locale",
    "locale-gen",
    "logger",
    "logname",
    "ls",
    "lsb_release",
    "lsof",
    "lzma",
    "man",
    "mapfile",
    "markdownlint",
    "md5",
    "md5sum",
    "minikube",
    "mkdir",
    "mkfifo",
    "mktemp",
    "mount",
    "nc",
    "netcat",
    "netstat",
    "ninja",
    "nl",
    "nm",
    "nohup",
    "npm-check-updates",
    "nproc",
    "ncu",
    "nslookup",
    "numfmt",
    "nvm",
    "od",
    "openssl",
    "otool",
    "param",
    "paste",
    "patch",
    "pathchk",
    "pax",
    "ping",
    "pgrep",
    "pkg-config",
    "pkill",
    "popd",
    "process",
    "ps",
    "pushd",
    "pwd",
    "qemu-img",
    "rbenv",
    "readarray",
    "readelf",
    "readlink",
    "readonly",
    "realpath",
    "reboot",
    "rem",
    "rename",
    "renice",
    "reset",
    "return",
    "rev",
    "rm",
    "rmdir",
    "rpm",
    "ruff",
    "rustc",
    "rustup",
    "select",
    "seq",
    "service",
    "sha1sum",
    "sha256sum",
    "sha512sum",
    "shasum",
    "shellcheck",
    "shift",
    "shopt",
    "shred",
    "shuf",
    "sleep",
    "sort",
    "split",
    "stat",
    "stop",
    "strings",
    "strip",
    "stty",
    "su",
    "sum",
    "switch",
    "sw_vers",
    "sync",
    "sysctl",
    "system_profiler",
    "systemctl",
    "tac",
    "tail",
    "then",
    "throw",
    "time",
    "timeout",
    "times",
    "top",
    "touch",
    "tput",
    "tr",
    "tree",
    "true",
    "truncate",
    "try",
    "tsc",
    "tsort",
    "tty",
    "type",
    "typeset",
    "ulimit",
    "umask",
    "umount",
    "unalias",
    "uname",
    "unexpand",
    "uniq",
    "unlink",
    "unset",
    "until",
    "unxz",
    "unzip",
    "uptime",
    "useradd",
    "usermod",
    "users",
    "uuidgen",
    "vi",
    "vim",
    "virtualenv",
    "venv",
    "wait",
    "watch",
    "wc",
    "whereis",
    "which",
    "while",
    "who",
    "whoami",
    "write",
    "xargs",
    "xcode-select",
    "xcodebuild",
    "xxd",
    "xz",
    "yes",
    "yum",
    "zcat",
    "zipinfo",
    "zstd",
    "brew",
    "security",
    "codesign",
    "lipo",
    "sips",
    "plutil",
    "jest",
    "vitest",
    "mocha",
    "pytest",
    "eslint",
    "prettier",
    "vite",
    "webpack",
    "rollup",
    "esbuild",
    "next",
    "nuxt",
    "astro",
    "hugo",
    "jekyll",
    "gatsby",
    "vuepress",
    "vitepress",
    "mkdocs",
    "sphinx-build",
    "tsup",
    "tox",
    "nox",
    "mypy",
    "black",
    "isort",
    "flake8",
    "pylint",
    "coverage",
    "gcovr",
    "lcov",
    "doxygen",
    "cloc",
    "hadolint",
    "yamllint",
    "actionlint",
    "trivy",
    "grype",
    "syft",
    "snyk",
    "semgrep",
    "gitleaks",
    "dive",
    "jsonnet",
    "kustomize",
    "kubeval",
    "kubeconform",
    "conftest",
    "opa",
    "tflint",
    "tfsec",
    "checkov",
    "prisma",
    "playwright",
    "cypress",
    "newman",
    "k6",
    "locust",
    "ab",
    "psql",
    "mysql",
    "sqlite3",
    "redis-cli",
    "mongosh",
    "pg_dump",
    "pg_isready",
    "ffmpeg",
    "convert",
    "magick",
    "pandoc",
    "latexmk",
    "pdflatex",
    "xelatex",
    "dot",
    "plantuml",
    "protoc",
    "buf",
    "swagger-cli",
    "openapi-generator-cli",
    "gomplate",
    "yj",
    "dasel",
    "semver",
    "git-cliff",
    "conventional-changelog",
    "standard-version",
    "setup.py",
    "build",
    "wheel",
    "ensurepip",
    "http.server",
    "json.tool",
    "compileall",
    "unittest",
];

/// What a program that sends something somewhere has in it.
const SENDS: &[&str] = &[
    ".post(",
    ".put(",
    ".patch(",
    "POST",
    "PUT",
    "http.NewRequest",
    "boto3",
    "upload",
    "urlopen",
    "ftplib",
    "paramiko",
    "push_to_hub",
    "putObject",
    "PutObject",
    "googleapiclient",
];

/// What a request that tells somebody something is sent to, or what has a meaning of its own.
const TELLS: &[&str] = &[
    "slack",
    "discord",
    "telegram",
    "teams",
    "office.com",
    "hc-ping",
    "healthcheck",
    "uptime",
    "sentry",
    "datadog",
    "grafana",
    "newrelic",
    "honeycomb",
    "codecov",
    "notify",
    "notif",
    "github.com",
    "github_api",
    "/repos/",
    "anthropic",
    "openai",
    "generativelanguage",
    "statuspage",
    "cronitor",
    "purge",
    "indexnow",
    "sitemap",
    "oauth",
    "/token",
    "login",
    "mailgun",
    "sendgrid",
    "twilio",
    "pushover",
    "ntfy",
    "gotify",
    "pagerduty",
    "opsgenie",
    "jira",
    "atlassian",
    "linear",
    "shields.io",
    "metrics",
    "influx",
    "loki",
    "localhost",
    "127.0.0.1",
    "warmup",
    "graphql",
];

/// What a request that nothing here knows is noted as.
pub(crate) const REQUEST: &str = "a request";

/// Whether a command sends something to an address that nothing here knows.
fn is_request(words: &[&str], name: &str) -> bool {
    if !matches!(
        name,
        "curl"
            | "wget"
            | "http"
            | "https"
            | "xh"
            | "Invoke-RestMethod"
            | "Invoke-WebRequest"
            | "irm"
            | "iwr"
    ) {
        return false;
    }
    let text = words.join(" ").to_lowercase();
    let sends = words.iter().any(|word| {
        let word = word.to_ascii_uppercase();
        matches!(word.as_str(), "POST" | "PUT" | "PATCH")
            || word.ends_with("XPOST")
            || word.ends_with("XPUT")
            || word.starts_with("--DATA")
            || word.starts_with("--FORM")
            || word.starts_with("--POST-")
            || word.starts_with("--REQUEST=P")
            || matches!(
                word.as_str(),
                "-D" | "-F" | "-T" | "--JSON" | "--UPLOAD-FILE"
            )
    });
    sends && !TELLS.iter().any(|mark| text.contains(mark))
}

impl Reader<'_> {
    /// Notes a command that nothing was found for and whose program nothing here knows.
    pub(super) fn note_strange(&mut self, command: &Command, name: &str, line: usize) {
        let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
        let idle = [
            "--dry-run",
            "--dry",
            "--dryrun",
            "--help",
            "--version",
            "--noop",
            "-h",
        ]
        .iter()
        .any(|flag| command.has(flag));
        if idle
            || self.strange.len() >= NOTED_MAX
            || !(is_request(&words, name) || self.is_strange(&words, name))
        {
            return;
        }
        let request = is_request(&words, name);
        self.strange.push(Unresolved {
            what: super::git::shorten(&command.text()),
            name: if request { REQUEST } else { name }.to_owned(),
            line,
            why: Why::Strange,
            only_if: Vec::new(),
        });
    }

    fn is_strange(&self, words: &[&str], name: &str) -> bool {
        let Some(program) = words.first() else {
            return false;
        };
        let first = words.iter().skip(1).find(|word| !word.starts_with('-'));
        let first = first.copied().unwrap_or_default();
        match name {
            "go" => first == "run",
            "cargo" => matches!(first, "run" | "xtask" | "r"),
            "dotnet" => first == "run" || first.ends_with(".dll"),
            "java" => words.contains(&"-jar"),
            "nix" => first == "run",
            "python" | "python3" | "node" | "ruby" | "php" | "tsx" | "ts-node" | "bun" | "deno" => {
                let file = words
                    .iter()
                    .skip(1)
                    .find(|word| !word.starts_with('-') && word.contains('.'));
                file.is_some_and(|file| self.may_send(file))
            }
            _ if super::unlisted::is_known(name) || PLAIN.contains(&name) => false,
            _ if program.contains(['$', '(', '{', '=', '*', '%', '~', '\\']) => false,
            _ if program.contains('/') => {
                let made = program.starts_with("./") || !program.starts_with('/');
                let wrapper = matches!(name, "gradlew" | "mvnw" | "configure");
                made && !wrapper && self.may_send(program)
            }
            _ => {
                !name.contains('/')
                    && name.starts_with(|c: char| c.is_ascii_lowercase())
                    && name.len() > 1
                    && name.chars().all(|c| {
                        c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.')
                    })
                    && !name.ends_with(".sh")
            }
        }
    }

    /// Whether a program may send something: it is not in the checkout, or its text says so.
    /// Shell scripts are read command by command.
    fn may_send(&self, path: &str) -> bool {
        if path.contains('$') || path.ends_with(".sh") || path.ends_with(".ps1") {
            return false;
        }
        let place = self.shell.directory.as_deref();
        let inside = place
            .map(|place| format!("{}/{path}", self.place(place)))
            .and_then(|path| normal(&path));
        let found = [inside, normal(path)]
            .into_iter()
            .flatten()
            .find_map(|path| self.tree.read(&path).ok());
        match found {
            Some(text) if text.starts_with("#!") && text.lines().next().is_some_and(is_shell) => {
                false
            }
            Some(text) => SENDS.iter().any(|mark| text.contains(mark)),
            None => true,
        }
    }
}

fn is_shell(first: &str) -> bool {
    first.ends_with("sh") || first.contains("sh ")
}
