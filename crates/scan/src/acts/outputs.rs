//! What a step's script leaves for later steps in `GITHUB_OUTPUT`.

use super::guards;
use crate::shell::{self, Command};

/// One value of one output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) name: String,
    /// A template; `None` where the script does not tell.
    pub(crate) value: Option<String>,
    /// Whether it is written whatever happens.
    pub(crate) sure: bool,
    /// Templates that must be true for it.
    pub(crate) only_if: Vec<String>,
}

/// Most values of one script.
const WRITES_MAX: usize = 64;

/// What a script writes, in order; nothing where some of it can't be told.
pub(crate) fn written(text: &str) -> Vec<Write> {
    if !text.contains("GITHUB_OUTPUT") {
        return Vec::new();
    }
    let commands = shell::commands(text);
    let conditions = guards::of_script(text);
    let under = |command: &Command| -> Vec<String> {
        let about = conditions
            .iter()
            .filter(|(_, lines)| lines.contains(&command.line));
        about.map(|(condition, _)| condition.clone()).collect()
    };
    if commands.iter().any(hands_over) {
        return Vec::new();
    }
    let mut out: Vec<Write> = Vec::new();
    let mut may_end = false;
    for command in &commands {
        let first = command.words.first().map(String::as_str);
        may_end |= command.guarded && matches!(first, Some("exit" | "return"));
        if !command
            .words
            .iter()
            .any(|word| word.contains("GITHUB_OUTPUT"))
        {
            continue;
        }
        let Some((name, value)) = echoed(command) else {
            return Vec::new();
        };
        if out.len() >= WRITES_MAX {
            return Vec::new();
        }
        let write = |value: Option<String>, sure: bool, only_if: Vec<String>| Write {
            name: name.to_owned(),
            value,
            sure: sure && !may_end,
            only_if,
        };
        match variable(value) {
            // `echo "deploy=$DEPLOY"` says what was set before.
            Some(variable) if !command.guarded => {
                let Some(set) = assignments(&commands, variable, command.line) else {
                    out.push(write(None, true, Vec::new()));
                    continue;
                };
                out.extend(
                    set.into_iter().map(|(value, command)| {
                        write(Some(value), !command.guarded, under(command))
                    }),
                );
            }
            _ => {
                let value = is_template(value).then(|| value.to_owned());
                out.push(write(value, !command.guarded, under(command)));
            }
        }
    }
    out
}

/// Whether a command starts something of the repository's own, or takes its text for a script: that
/// may write outputs and, in the same shell, set variables.
fn hands_over(command: &Command) -> bool {
    const PROGRAMS: &[&str] = &[
        "source", ".", "eval", "bash", "sh", "zsh", "python", "python3", "node", "deno", "bun",
        "npx", "npm", "pnpm", "yarn", "ruby", "perl", "php", "go", "cargo", "make", "just", "task",
        "mise", "gradle", "mvn", "dotnet", "uv", "poetry", "pipx", "uvx", "tsx", "ts-node",
    ];
    let Some(first) = command.words.first() else {
        return false;
    };
    PROGRAMS.contains(&first.as_str())
        || first.contains(['/', '$'])
        || command
            .stdin
            .as_ref()
            .is_some_and(|text| text.contains("GITHUB_OUTPUT"))
}

/// `echo "name=value" >> "$GITHUB_OUTPUT"`.
fn echoed(command: &Command) -> Option<(&str, &str)> {
    let [program, payload, redirection, target] = command.words.as_slice() else {
        return None;
    };
    let (name, value) = payload.split_once('=')?;
    let plain = !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    let whole = program == "echo"
        && redirection == ">>"
        && matches!(target.as_str(), "$GITHUB_OUTPUT" | "${GITHUB_OUTPUT}");
    (plain && whole).then_some((name, value))
}

/// Whether a text says nothing but what the forge puts in before the script runs.
fn is_template(text: &str) -> bool {
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${{") {
        let Some((_, after)) = after.split_once("}}") else {
            return false;
        };
        if before.contains(['$', '`']) {
            return false;
        }
        rest = after;
    }
    !rest.contains(['$', '`'])
}

/// The variable that a text is.
fn variable(value: &str) -> Option<&str> {
    let name = value.strip_prefix('$')?;
    let name = name
        .strip_prefix('{')
        .and_then(|name| name.strip_suffix('}'))
        .unwrap_or(name);
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    plain.then_some(name)
}

/// What a script sets a variable to before a line; `None` where that can't be told.
fn assignments<'a>(
    commands: &'a [Command],
    name: &str,
    before: usize,
) -> Option<Vec<(String, &'a Command)>> {
    let mut out = Vec::new();
    for command in commands {
        let first = command.words.first().map(String::as_str);
        // In any other way it may become anything.
        if matches!(
            first,
            Some(
                "read"
                    | "for"
                    | "local"
                    | "export"
                    | "declare"
                    | "typeset"
                    | "readonly"
                    | "unset"
                    | "mapfile"
                    | "readarray"
                    | "let"
                    | "printf"
                    | "getopts"
            )
        ) && command.words.iter().any(|word| {
            word == name
                || word
                    .strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['=', '+', '-']))
        }) {
            return None;
        }
        // `((N++))`.
        let counted = first
            .and_then(|word| word.strip_prefix(name))
            .is_some_and(|rest| {
                ["++", "--", "+=", "-=", "="]
                    .iter()
                    .any(|end| rest.starts_with(end))
            });
        if counted || first.and_then(|word| word.strip_prefix("++")) == Some(name) {
            return None;
        }
        for (known, value) in &command.env {
            if known.strip_suffix('+') == Some(name) {
                return None;
            }
            if known != name || !command.words.is_empty() {
                continue;
            }
            if !is_template(value) || command.line > before || out.len() >= WRITES_MAX {
                return None;
            }
            out.push((value.clone(), command));
        }
    }
    (!out.is_empty()).then_some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "a test may fail")]

    use super::*;

    fn brief(text: &str) -> Vec<(String, Option<String>, bool, usize)> {
        written(text)
            .into_iter()
            .map(|write| (write.name, write.value, write.sure, write.only_if.len()))
            .collect()
    }

    fn one(
        name: &str,
        value: &str,
        sure: bool,
        conditions: usize,
    ) -> (String, Option<String>, bool, usize) {
        (name.to_owned(), Some(value.to_owned()), sure, conditions)
    }

    #[test]
    fn outputs_are_told_with_their_conditions() {
        let text = "if [ \"$GITHUB_EVENT_NAME\" = push ]; then\n  echo \"go=true\" >> \"$GITHUB_OUTPUT\"\nelse\n  echo go=false >> $GITHUB_OUTPUT\nfi\n";
        assert_eq!(
            brief(text),
            [one("go", "true", false, 1), one("go", "false", false, 1)]
        );
        let text = "GO=false\nif [ \"$GITHUB_EVENT_NAME\" = push ]; then\n  GO=true\nfi\necho \"go=$GO\" >> ${GITHUB_OUTPUT}\n";
        assert_eq!(
            brief(text),
            [one("go", "false", true, 0), one("go", "true", false, 1)]
        );
        let text = "if x; then\n  echo go=true >> $GITHUB_OUTPUT\n  exit 0\nfi\necho go=false >> $GITHUB_OUTPUT\n";
        assert_eq!(
            brief(text),
            [one("go", "true", false, 0), one("go", "false", false, 0)]
        );
        assert_eq!(
            brief("echo \"go=$(x)\" >> $GITHUB_OUTPUT\n"),
            [("go".to_owned(), None, true, 0)]
        );
    }

    #[test]
    fn what_is_written_in_other_ways_is_unknown() {
        for text in [
            "{ echo a=b; echo c=d; } >> $GITHUB_OUTPUT\n",
            "echo a=b >> $GITHUB_OUTPUT\necho \"$X\" >> $GITHUB_OUTPUT\n",
            "echo 'a<<EOF' >> $GITHUB_OUTPUT\n",
            "./x.py > $GITHUB_OUTPUT\n",
            "echo a=b >> $GITHUB_OUTPUT\n./decide.sh\n",
            "source ./decide.sh\necho a=b >> $GITHUB_OUTPUT\n",
            "echo a=b | tee -a $GITHUB_OUTPUT\n",
        ] {
            assert_eq!(brief(text), [], "{text}");
        }
        let counted = "X=0\n((X++))\necho \"a=$X\" >> $GITHUB_OUTPUT\n";
        assert_eq!(brief(counted), [("a".to_owned(), None, true, 0)]);
        let more = "X=a\nX+=b\necho \"a=$X\" >> $GITHUB_OUTPUT\n";
        assert_eq!(brief(more), [("a".to_owned(), None, true, 0)]);
        let read = "read X\necho \"a=$X\" >> $GITHUB_OUTPUT\n";
        assert_eq!(brief(read), [("a".to_owned(), None, true, 0)]);
    }
}
