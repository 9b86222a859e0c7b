//! Commands that programs start, by the calls of their languages that run one.

use super::Act;
use super::command::{AgentCall, Shell};

/// Calls that run a command.
pub(super) const CALLS: &[&str] = &[
    "execSync(",
    "exec(",
    "spawnSync(",
    "spawn(",
    "spawnAsync(",
    "execa(",
    "execaSync(",
    "execaCommand(",
    "execaCommandSync(",
    "getExecOutput(",
    "os.system(",
    "subprocess.",
    "check_call(",
    "check_output(",
    "sh(",
    "$`",
    "run(",
    "system(",
    "system \"",
    "system '",
    "sh \"",
    "sh '",
    "execFile(",
    "execFileSync(",
    "Popen(",
    "Bun.$",
    "exec.Command(",
    "exec.CommandContext(",
];

/// Where what commands do is gathered.
pub(super) struct Ran<'a> {
    pub(super) acts: &'a mut Vec<Act>,
    pub(super) agents: &'a mut Vec<AgentCall>,
    pub(super) runs: &'a mut Vec<(String, usize)>,
    pub(super) shell: &'a Shell,
}

/// `execSync('git push')`, `subprocess.run(["npm", "publish"])`, `` await $`npm publish` ``.
pub(super) fn subprocess(
    raw: &str,
    lines: &[&str],
    index: usize,
    file: &str,
    line: usize,
    wrappers: &[String],
    ran: &mut Ran<'_>,
) {
    /// Lines after a call that are looked at for its command.
    const AHEAD: usize = 6;
    let wrapped = wrappers.iter().filter_map(|name| call_of(raw, name)).min();
    let Some(at) = CALLS
        .iter()
        .filter_map(|name| raw.find(name))
        .chain(wrapped)
        .min()
    else {
        return;
    };
    let rest = raw.get(at..).unwrap_or_default();
    if let Some((text, offset)) = named_before(rest, lines, index) {
        commands(&text, file, line.saturating_sub(offset), ran);
        return;
    }
    let Some(open) = rest.find(['\'', '"', '`']) else {
        // The command stands on the lines that follow, one or several to choose from.
        if rest.trim_end().ends_with('(') {
            for (offset, next) in lines.iter().skip(index + 1).take(AHEAD).enumerate() {
                let next = next.trim().trim_start_matches(['?', ':', ' ']);
                if next.starts_with(')') || next.starts_with('{') {
                    break;
                }
                let quote = next.chars().next().unwrap_or(' ');
                if matches!(quote, '\'' | '"' | '`')
                    && let Some(text) = next.get(1..).and_then(|inner| inner.split(quote).next())
                {
                    let listed = lines
                        .get(index + offset + 2)
                        .filter(|after| next.ends_with(',') && after.trim().starts_with('['))
                        .map(|_| words(lines, index + offset + 1, next));
                    let text = listed.as_deref().unwrap_or(text);
                    commands(text, file, line + offset + 1, ran);
                    if listed.is_some() {
                        break;
                    }
                }
            }
        }
        return;
    };
    let rest = rest.get(open..).unwrap_or_default();
    let text = if rest.trim_end().ends_with('[') {
        words(lines, index, rest)
    } else if raw.contains("['")
        || raw.contains("[\"")
        || raw.contains(", [")
        || raw.contains(",[")
        || rest.contains("\", \"")
        || rest.contains("', '")
    {
        // A list of words, or a program and its list of arguments.
        rest.split(['\'', '"', '`'])
            .enumerate()
            .filter(|(index, _)| index % 2 == 1)
            .map(|(_, word)| word)
            .collect::<Vec<_>>()
            .join(" ")
    } else {
        let quote = rest.chars().next().unwrap_or('"');
        rest.get(1..)
            .and_then(|inner| inner.split(quote).next())
            .unwrap_or_default()
            .to_owned()
    };
    commands(&text, file, line, ran);
}

/// Where a line calls a function, unless it defines it.
fn call_of(raw: &str, name: &str) -> Option<usize> {
    let call = format!("{name}(");
    raw.match_indices(&call).map(|(at, _)| at).find(|at| {
        let before = raw.get(..*at).unwrap_or_default();
        let defines = ["function ", "def ", "async "]
            .iter()
            .any(|word| before.ends_with(word) && !before.contains("await"));
        let inside = before
            .chars()
            .next_back()
            .is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$'));
        !defines && !inside
    })
}

/// The text that a call's argument was set to some lines before: `const cmd = 'npm publish'`.
/// With it, how many lines before.
fn named_before(call: &str, lines: &[&str], index: usize) -> Option<(String, usize)> {
    /// Lines that are looked back through.
    const BACK: usize = 30;
    let argument = call.split_once('(')?.1.trim_start();
    let name: String = argument
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$'))
        .collect();
    let ends = argument
        .get(name.len()..)?
        .trim_start()
        .starts_with([',', ')']);
    if name.is_empty() || !ends {
        return None;
    }
    for back in 1..=BACK.min(index) {
        let line = lines.get(index - back)?.trim();
        let line = ["const ", "let ", "var "]
            .iter()
            .find_map(|word| line.strip_prefix(word))
            .unwrap_or(line);
        let Some(value) = line
            .strip_prefix(name.as_str())
            .and_then(|rest| rest.trim_start().strip_prefix('='))
            .map(str::trim_start)
            .map(|rest| rest.trim_start_matches('f'))
        else {
            continue;
        };
        let quote = value
            .chars()
            .next()
            .filter(|c| matches!(c, '\'' | '"' | '`'))?;
        let text = value.get(1..)?.split(quote).next()?;
        return Some((text.to_owned(), back));
    }
    None
}

/// The words of a program and its list of arguments over several lines: what stands in quotation
/// marks from `first` (the text of line `index`) to the end of the list, but for what is spread
/// into it on a condition (`...(tag ? ['--tag', tag] : [])`).
fn words(lines: &[&str], index: usize, first: &str) -> String {
    /// Lines that a list may take.
    const LONGEST: usize = 24;
    let rest = lines.iter().skip(index + 1).take(LONGEST);
    let mut found = Vec::new();
    let (mut lists, mut spreads) = (0_usize, 0_usize);
    let mut quoted: Option<(char, String)> = None;
    for text in std::iter::once(&first).chain(rest) {
        for c in text.chars() {
            quoted = match (quoted.take(), c) {
                (Some((quote, word)), c) if c == quote => {
                    if spreads == 0 {
                        found.push(word);
                    }
                    None
                }
                (Some((quote, word)), c) => Some((quote, word + c.encode_utf8(&mut [0; 4]))),
                (None, '\'' | '"' | '`') => Some((c, String::new())),
                (None, c) => {
                    match c {
                        '[' => lists += 1,
                        ']' if lists <= 1 => return found.join(" "),
                        ']' => lists -= 1,
                        '(' => spreads += 1,
                        ')' => spreads = spreads.saturating_sub(1),
                        _ => {}
                    }
                    None
                }
            };
        }
        quoted = None;
    }
    found.join(" ")
}

/// A template with every `${…}` that is no plain name as a variable: a shell would take its
/// brackets for its own.
fn without_expressions(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, tail)) = rest.split_once("${") {
        out.push_str(before);
        let mut depth = 1_usize;
        let end = tail.find(|c: char| {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        let Some(end) = end else {
            out.push_str("${");
            out.push_str(tail);
            return out;
        };
        let inner = tail.get(..end).unwrap_or_default();
        if tail.starts_with('{') || inner.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            out.push_str("${");
            out.push_str(inner);
            out.push('}');
        } else {
            out.push_str("$value");
        }
        rest = tail.get(end + 1..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// Whether a command starts a script, a program or a task of the repository.
fn starts_something(text: &str) -> bool {
    const STARTERS: &[&str] = &[
        "bash", "sh", "python", "python3", "node", "npm", "yarn", "pnpm", "bun", "make", "just",
        "task", "tsx", "ts-node", "ruby", "uv", "poetry", "rake", "pwsh", "deno", "julia",
        "Rscript",
    ];
    let first = text.split_whitespace().next().unwrap_or_default();
    STARTERS.contains(&first) || first.contains('/') && !first.contains(['$', '{'])
}

fn commands(text: &str, file: &str, line: usize, ran: &mut Ran<'_>) {
    /// Most of them in one program.
    const RUNS_MAX: usize = 50;
    if starts_something(text) && ran.runs.len() < RUNS_MAX {
        ran.runs.push((text.to_owned(), line));
    }
    let tree = crate::tree::Tree::memory(std::collections::BTreeMap::new());
    let mut reader = super::command::Reader::new(&tree, ran.shell.clone());
    reader.script(&without_expressions(text), file, line);
    ran.acts.append(&mut reader.acts);
    ran.agents.append(&mut reader.shell.agents);
}
