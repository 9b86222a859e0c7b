//! A shell script in fewer forms: here-documents taken out, lists of commands over many lines as
//! branches, one kind of test. Lines stay where they are.

/// Most bytes of a script that is looked at so.
const BYTES_MAX: usize = 128 * 1024;

/// The lines of a script, and how many lines each of them took.
pub(super) struct Tidy {
    pub(super) lines: Vec<(String, usize)>,
}

pub(super) fn tidy(text: &str) -> Tidy {
    if text.len() > BYTES_MAX {
        let lines = text.lines().map(|line| (line.to_owned(), 1)).collect();
        return Tidy { lines };
    }
    let lines = joined(&without_documents(text));
    let stops = functions_that_exit(&lines);
    let mut out = Vec::with_capacity(lines.len());
    // What each open brace is closed with.
    let mut open: Vec<bool> = Vec::new();
    for (line, span) in lines {
        let trimmed = line.trim();
        let mut plain = tests(&called(trimmed, &stops));
        let closes = trimmed == "}" || trimmed.starts_with("} ") || trimmed.starts_with("};");
        if closes && open.pop() == Some(true) && trimmed == "}" {
            "fi".clone_into(&mut plain);
        }
        let branch = ["|| {", "&& {"]
            .iter()
            .find_map(|end| Some((plain.strip_suffix(end)?.trim().to_owned(), *end)));
        match branch {
            Some((test, end)) if !test.starts_with("if ") && !test.contains(';') => {
                let not = if end.starts_with('|') { "! " } else { "" };
                plain = format!("if {not}{test}; then");
                // `! a && b` is not `! (a && b)`.
                if not == "! " && (test.contains("&&") || test.contains("||")) {
                    plain = format!("{test} || exit");
                }
                open.push(true);
            }
            _ if plain.ends_with('{') => open.push(false),
            _ => {}
        }
        out.push((plain, span));
    }
    Tidy { lines: out }
}

/// The script with empty lines where the bodies of its here-documents are.
fn without_documents(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut ends: Option<String> = None;
    for line in text.lines() {
        match &ends {
            Some(end) => {
                if line.trim() == end {
                    ends = None;
                }
                out.push(String::new());
            }
            None => {
                ends = document(line);
                out.push(line.to_owned());
            }
        }
    }
    // One that never ends is none.
    if ends.is_some() {
        return text.lines().map(str::to_owned).collect();
    }
    out
}

/// The word that ends the here-document which a line begins.
fn document(line: &str) -> Option<String> {
    if line.trim_start().starts_with('#') {
        return None;
    }
    let at = line.find("<<")?;
    let rest = line.get(at + 2..)?;
    let before = line.get(..at).unwrap_or_default();
    if rest.starts_with('<') || before.ends_with("((") || before.contains("$((") {
        return None;
    }
    let rest = rest.trim_start_matches('-').trim_start();
    let word: String = rest
        .trim_start_matches(['"', '\'', '\\'])
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        .collect();
    (!word.is_empty() && !word.starts_with(|c: char| c.is_ascii_digit())).then_some(word)
}

/// Lines with those that they go on in.
fn joined(lines: &[String]) -> Vec<(String, usize)> {
    /// Most lines of one.
    const LINES_MAX: usize = 40;
    let mut out: Vec<(String, usize)> = Vec::new();
    let mut goes_on = false;
    for line in lines {
        match out.last_mut().filter(|last| goes_on && last.1 < LINES_MAX) {
            Some(last) => {
                let before = last.0.trim_end().trim_end_matches('\\').trim_end().len();
                last.0.truncate(before);
                last.0.push(' ');
                last.0.push_str(line.trim());
                last.1 += 1;
            }
            None => out.push((line.clone(), 1)),
        }
        let plain = line.trim_end();
        let comment = plain.trim_start().starts_with('#');
        goes_on =
            !comment && (plain.ends_with('\\') || plain.ends_with("&&") || plain.ends_with("||"));
    }
    out
}

/// Functions whose body ends the script whatever they are told: `die() { echo "$1"; exit 1; }`.
fn functions_that_exit(lines: &[(String, usize)]) -> Vec<String> {
    /// Most that are known.
    const FUNCTIONS_MAX: usize = 16;
    let mut out = Vec::new();
    let mut inside: Option<(String, usize)> = None;
    let mut returns = false;
    for (line, _) in lines {
        let line = line.trim();
        if let Some((name, depth)) = &mut inside {
            let first = line.split([' ', ';']).next().unwrap_or_default();
            returns |= returns_in(line);
            if *depth == 0 && first == "exit" && !returns && out.len() < FUNCTIONS_MAX {
                out.push(name.clone());
            }
            match first {
                "if" | "case" | "for" | "while" => *depth += 1,
                "fi" | "esac" | "done" => *depth = depth.saturating_sub(1),
                "}" if *depth == 0 => inside = None,
                _ => {}
            }
            continue;
        }
        let Some((head, body)) = line.split_once('{') else {
            continue;
        };
        let head = head.trim().trim_start_matches("function ");
        let name = head.trim_end_matches("()").trim();
        let plain = !name.is_empty()
            && (head.ends_with("()") || line.starts_with("function "))
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        if !plain {
            continue;
        }
        if body.trim().is_empty() {
            inside = Some((name.to_owned(), 0));
            returns = false;
        } else if body
            .split(';')
            .any(|part| part.split_whitespace().next() == Some("exit"))
            && !returns_in(body)
            && out.len() < FUNCTIONS_MAX
        {
            out.push(name.to_owned());
        }
    }
    out
}

/// Whether a function may go back from this line.
fn returns_in(line: &str) -> bool {
    line.split([' ', ';', '\t']).any(|word| word == "return")
}

/// A line with `exit` in the place of calls of functions that end the script.
fn called(line: &str, stops: &[String]) -> String {
    let mut out = line.to_owned();
    for name in stops {
        for operator in ["|| ", "&& "] {
            out = out.replace(&format!("{operator}{name} "), &format!("{operator}exit 1 "));
            if let Some(before) = out.strip_suffix(&format!("{operator}{name}")) {
                out = format!("{before}{operator}exit 1");
            }
        }
        if let Some(rest) = out.strip_prefix(name.as_str())
            && (rest.is_empty() || rest.starts_with(' '))
        {
            out = format!("exit 1 {rest}");
        }
    }
    out
}

/// A line with brackets in the place of `test`.
fn tests(line: &str) -> String {
    let mut out = line.to_owned();
    for before in ["if ", "elif ", "if ! ", "elif ! ", ""] {
        let Some(rest) = out
            .strip_prefix(before)
            .and_then(|rest| rest.strip_prefix("test "))
        else {
            continue;
        };
        let end = [";", "&&", "||"]
            .iter()
            .filter_map(|mark| rest.find(mark))
            .min()
            .unwrap_or(rest.len());
        let (inner, tail) = rest.split_at(end);
        let space = if tail.starts_with([';']) || tail.is_empty() {
            ""
        } else {
            " "
        };
        out = format!("{before}[ {} ]{space}{tail}", inner.trim());
        break;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{functions_that_exit, tidy};

    #[test]
    fn functions_stop_only_where_they_never_go_back() {
        for (text, stops) in [
            ("die() { echo \"$1\"; exit 1; }", true),
            ("die() {\n  echo a\n  exit 1\n}", true),
            ("run() { \"$@\"; exit_code=$?; }", false),
            ("run() {\n  exit_code=$?\n}", false),
            (
                "retry() { for i in 1 2; do \"$@\" && return 0; done; exit 1; }",
                false,
            ),
            (
                "retry() {\n  for i in 1 2; do\n    \"$@\" && return 0\n  done\n  exit 1\n}",
                false,
            ),
        ] {
            let lines: Vec<_> = text.lines().map(|line| (line.to_owned(), 1)).collect();
            assert_eq!(!functions_that_exit(&lines).is_empty(), stops, "{text}");
        }
    }

    #[test]
    fn scripts_are_said_in_fewer_forms() {
        for (text, wanted) in [
            ("a || {\n  exit 1\n}\nb", "if ! a; then\nexit 1\nfi\nb"),
            ("a && {\n  b\n}", "if a; then\nb\nfi"),
            ("cat <<EOF\nexit\nEOF\nb", "cat <<EOF\n\n\nb"),
            ("cat <<< x\nb", "cat <<< x\nb"),
            ("cat <<EOF\nb", "cat <<EOF\nb"),
            ("a &&\n  b", "a && b"),
            ("test -n x && b", "[ -n x ] && b"),
            ("if test x = y; then", "if [ x = y ]; then"),
            (
                "die() { exit 1; }\na || die no",
                "die() { exit 1; }\na || exit 1 no",
            ),
            (
                "f() {\n  echo\n  exit 2\n}\nf",
                "f() {\necho\nexit 2\n}\nexit 1 ",
            ),
            (
                "f() {\n  if a; then\n  exit 2\nfi\n}\nf",
                "f() {\nif a; then\nexit 2\nfi\n}\nf",
            ),
            ("{\n  a\n}", "{\na\n}"),
        ] {
            let lines: Vec<String> = tidy(text).lines.into_iter().map(|(line, _)| line).collect();
            assert_eq!(lines.join("\n"), wanted, "{text}");
        }
    }
}
