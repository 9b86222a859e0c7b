//! Shell scripts as a list of the commands they may run.
//!
//! This is not a shell: it does not decide branches or loops, and it expands only variables that
//! were set to plain text. It does know what is a command and what is not: comments, quoted text,
//! here-documents and arguments of `echo` run nothing.

mod wrappers;

/// One simple command.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Command {
    /// Line within the script, counted from 0.
    pub(crate) line: usize,
    /// Name and arguments, quotes removed; `$(…)` and `${{ … }}` kept as text.
    pub(crate) words: Vec<String>,
    /// `NAME=value` in front of the command.
    pub(crate) env: Vec<(String, String)>,
    /// Body of a here-document.
    pub(crate) stdin: Option<String>,
    /// Whether it may be left out, or may fail without ending the script: in a branch, a loop, a
    /// function or a substitution, beside `&&`, `||` or a pipe.
    pub(crate) guarded: bool,
    /// The function that it stands in.
    pub(crate) function: Option<String>,
}

/// Longest script that is read, in bytes.
const SCRIPT_BYTES_MAX: usize = 512 * 1024;
/// Most commands of one script.
pub(crate) const COMMANDS_MAX: usize = 5_000;
/// Deepest nesting of `$(…)`.
const NESTING_MAX: usize = 8;

/// The commands of a script, in the order they are written.
pub(crate) fn commands(script: &str) -> Vec<Command> {
    let mut out = Vec::new();
    collect(script, 0, 0, &mut out);
    guard_after_stops(&mut out);
    guard_functions(&mut out);
    out
}

/// What stands behind a stop without a failure (`exit 0`, `return` in a branch) may be left out:
/// the script goes well without it.
fn guard_after_stops(commands: &mut [Command]) {
    let mut stopped = false;
    let mut returned: Vec<String> = Vec::new();
    for command in commands {
        let well = command
            .words
            .get(1)
            .is_none_or(|code| code == "0" || code.starts_with(['>', '#']));
        match command.words.first().map(String::as_str) {
            Some("exit") if command.guarded && well && command.function.is_none() => {
                stopped = true;
            }
            Some("return" | "exit") if command.guarded && well => {
                let within = command.function.clone();
                returned.extend(within.filter(|name| !returned.contains(name)));
            }
            _ => {}
        }
        let left = command
            .function
            .as_ref()
            .map_or(stopped, |name| returned.contains(name));
        command.guarded |= left;
    }
}

/// What stands in a function is sure to run where a sure command calls it, and may be left out
/// otherwise.
fn guard_functions(commands: &mut [Command]) {
    /// Functions that call functions.
    const ROUNDS: usize = 6;
    let mut defined: Vec<String> = commands
        .iter()
        .filter_map(|command| command.function.clone())
        .collect();
    defined.sort_unstable();
    defined.dedup();
    if defined.is_empty() {
        return;
    }
    let mut sure: Vec<String> = Vec::new();
    for _ in 0..ROUNDS {
        let mut found: Vec<String> = commands
            .iter()
            .filter(|command| {
                let within = command.function.as_ref();
                !command.guarded && within.is_none_or(|name| sure.contains(name))
            })
            .filter_map(|command| command.words.first())
            .filter(|name| defined.binary_search(name).is_ok())
            .cloned()
            .collect();
        found.sort_unstable();
        found.dedup();
        if found == sure {
            break;
        }
        sure = found;
    }
    for command in commands {
        let within = command.function.as_ref();
        command.guarded |= within.is_some_and(|name| !sure.contains(name));
    }
}

fn collect(script: &str, first_line: usize, depth: usize, out: &mut Vec<Command>) {
    if depth > NESTING_MAX || script.len() > SCRIPT_BYTES_MAX {
        return;
    }
    let mut lexer = Lexer {
        rest: script,
        line: first_line,
        depth,
        command: Command::default(),
        word: None,
        waiting: Vec::new(),
        nested: Vec::new(),
        blocks: 0,
        defines: None,
        bodies: Vec::new(),
        chained: false,
        chain: Vec::new(),
        began: 0,
        forgives: false,
        out,
    };
    lexer.run();
    lexer.end_script();
}

struct Lexer<'a, 'b> {
    rest: &'a str,
    line: usize,
    depth: usize,
    command: Command,
    word: Option<String>,
    /// Here-documents whose bodies begin after this line: end mark, and whether tabs are cut.
    waiting: Vec<(String, bool)>,
    nested: Vec<(String, usize)>,
    /// Branches, loops and bodies that are open.
    blocks: usize,
    /// The function whose body comes next.
    defines: Option<String>,
    /// Functions that are open, each with the blocks around it.
    bodies: Vec<(String, usize)>,
    /// The command that comes next stands behind `&&` or `||`.
    chained: bool,
    /// The commands of the present chain that nothing but `&&` before them lets be left out.
    chain: Vec<usize>,
    /// The first command of the present chain.
    began: usize,
    /// The present chain holds `||`.
    forgives: bool,
    out: &'b mut Vec<Command>,
}

impl Lexer<'_, '_> {
    fn run(&mut self) {
        while let Some(first) = self.rest.chars().next() {
            if self.out.len() >= COMMANDS_MAX {
                return;
            }
            match first {
                '\\' => self.escape(),
                '\n' => {
                    self.advance(1);
                    self.end_word();
                    self.line += 1;
                    if self.waiting.is_empty() {
                        self.end_command();
                    } else {
                        self.here_documents();
                        self.end_command();
                    }
                }
                ' ' | '\t' | '\r' => {
                    self.advance(1);
                    self.end_word();
                }
                '#' if self.word.is_none() => {
                    let end = self.rest.find('\n').unwrap_or(self.rest.len());
                    self.advance(end);
                }
                '\'' => self.single(),
                '"' => self.double(),
                '`' => self.backticks(),
                '$' => self.dollar(false),
                ';' | '&' | '|' => {
                    // `2>&1` and `&>` are redirections, not the end of a command.
                    let amp_redirect = first == '&'
                        && (self.rest.starts_with("&>")
                            || self.word.as_deref().is_some_and(|w| w.ends_with('>')));
                    if amp_redirect {
                        self.push('&');
                        self.advance(1);
                    } else {
                        let joins = self.rest.starts_with("&&") || self.rest.starts_with("||");
                        let or_else = self.rest.starts_with("||");
                        let forgives = first == '|' || first == '&' && !joins;
                        self.advance(if joins { 2 } else { 1 });
                        self.end_word();
                        self.command.guarded |= forgives;
                        // The body of `cat <<EOF | kubectl apply -f -` follows this line.
                        self.end_command();
                        self.chained = joins;
                        if or_else {
                            self.forgive();
                        }
                    }
                }
                '(' | ')' => {
                    self.advance(1);
                    // `name()` is a definition; `(…)` a group.
                    if first == '(' && self.rest.starts_with(')') && self.word.is_some() {
                        self.advance(1);
                        self.defines = self.word.take();
                        self.command.words.clear();
                    } else if first == '('
                        && self.command.words.is_empty()
                        && self.word.as_deref().is_some_and(|word| word.ends_with('='))
                    {
                        self.list();
                    } else {
                        self.end_word();
                        self.end_command();
                    }
                }
                '<' if self.rest.starts_with("<<<") => {
                    self.advance(3);
                    self.end_word();
                }
                '<' if self.rest.starts_with("<<") => self.here_mark(),
                other => {
                    self.push(other);
                    self.advance(other.len_utf8());
                }
            }
        }
        self.end_word();
        self.end_command();
    }

    /// `name=(…)`, `name+=(…)`: the words of a list, as one value.
    fn list(&mut self) {
        let Some(name) = self.word.take() else { return };
        let end = closing_of(self.rest);
        let inner = self.rest.get(..end).unwrap_or_default();
        let mut words = Vec::new();
        collect(inner, self.line, NESTING_MAX, &mut words);
        let value = words
            .into_iter()
            .flat_map(|command| {
                let env = command
                    .env
                    .into_iter()
                    .map(|(name, value)| format!("{name}={value}"));
                env.chain(command.words).collect::<Vec<_>>()
            })
            .collect::<Vec<_>>()
            .join(" ");
        self.line += inner.matches('\n').count();
        self.advance(end + 1);
        let name = name.trim_end_matches('=');
        self.command.line = self.line;
        self.command.env.push((name.to_owned(), value));
    }

    fn advance(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    fn push(&mut self, character: char) {
        self.word.get_or_insert_with(String::new).push(character);
    }

    fn push_text(&mut self, text: &str) {
        self.word.get_or_insert_with(String::new).push_str(text);
    }

    fn escape(&mut self) {
        if self.rest.starts_with("\\\r\n") {
            self.advance(3);
            self.line += 1;
            self.end_word();
        } else if self.rest.starts_with("\\\n") {
            self.advance(2);
            self.line += 1;
            self.end_word();
        } else {
            self.advance(1);
            if let Some(next) = self.rest.chars().next() {
                self.push(next);
                self.advance(next.len_utf8());
            }
        }
    }

    fn single(&mut self) {
        self.advance(1);
        let end = self.rest.find('\'').unwrap_or(self.rest.len());
        let text = self.rest.get(..end).unwrap_or_default();
        self.line += text.matches('\n').count();
        self.push_text(text);
        self.advance(end + 1);
    }

    fn double(&mut self) {
        self.advance(1);
        self.push_text("");
        while let Some(next) = self.rest.chars().next() {
            match next {
                '"' => {
                    self.advance(1);
                    return;
                }
                '\\' => {
                    self.advance(1);
                    if let Some(escaped) = self.rest.chars().next() {
                        if escaped == '\n' {
                            self.line += 1;
                        } else {
                            if !matches!(escaped, '"' | '\\' | '$' | '`') {
                                self.push('\\');
                            }
                            self.push(escaped);
                        }
                        self.advance(escaped.len_utf8());
                    }
                }
                '$' => self.dollar(true),
                '`' => self.backticks(),
                other => {
                    self.line += usize::from(other == '\n');
                    self.push(other);
                    self.advance(other.len_utf8());
                }
            }
        }
    }

    fn backticks(&mut self) {
        self.advance(1);
        let end = self.rest.find('`').unwrap_or(self.rest.len());
        let inner = self.rest.get(..end).unwrap_or_default().to_owned();
        self.nested.push((inner.clone(), self.line));
        self.line += inner.matches('\n').count();
        self.push_text(&format!("$({inner})"));
        self.advance(end + 1);
    }

    fn dollar(&mut self, _quoted: bool) {
        if self.rest.starts_with("${{") {
            let end = self.rest.find("}}").map_or(self.rest.len(), |at| at + 2);
            let text = self.rest.get(..end).unwrap_or_default();
            self.line += text.matches('\n').count();
            self.push_text(text);
            self.advance(end);
        } else if self.rest.starts_with("$((") {
            self.push_text("$((");
            self.advance(3);
        } else if self.rest.starts_with("$(") {
            let end = closing(self.rest);
            let inner = self.rest.get(2..end).unwrap_or_default().to_owned();
            self.nested.push((inner.clone(), self.line));
            self.line += inner.matches('\n').count();
            self.push_text(&format!("$({inner})"));
            self.advance(end + 1);
        } else {
            self.push('$');
            self.advance(1);
        }
    }

    fn here_mark(&mut self) {
        self.advance(2);
        self.end_word();
        let dash = self.rest.starts_with('-');
        if dash {
            self.advance(1);
        }
        let trimmed = self.rest.trim_start_matches([' ', '\t']);
        self.rest = trimmed;
        let end = self
            .rest
            .find(|c: char| c.is_whitespace() || matches!(c, ';' | '|' | '&' | '>' | ')'))
            .unwrap_or(self.rest.len());
        let mark: String = self
            .rest
            .get(..end)
            .unwrap_or_default()
            .chars()
            .filter(|c| !matches!(c, '\'' | '"' | '\\'))
            .collect();
        self.advance(end);
        if !mark.is_empty() {
            self.waiting.push((mark, dash));
        }
    }

    fn here_documents(&mut self) {
        for (mark, dash) in std::mem::take(&mut self.waiting) {
            let mut body = String::new();
            while !self.rest.is_empty() {
                let end = self.rest.find('\n').unwrap_or(self.rest.len());
                let line = self.rest.get(..end).unwrap_or_default();
                let shown = if dash {
                    line.trim_start_matches('\t')
                } else {
                    line
                };
                let done = shown.trim_end_matches('\r') == mark || line.trim() == mark;
                if !done {
                    body.push_str(line);
                    body.push('\n');
                }
                self.advance(end + 1);
                self.line += 1;
                if done {
                    break;
                }
            }
            if self.command.words.is_empty() {
                // The command ended before the body (`cat <<EOF | sh`); give it to the last one.
                if let Some(last) = self.out.last_mut() {
                    last.stdin = Some(body);
                }
            } else {
                self.command.stdin = Some(body);
            }
        }
    }

    fn end_word(&mut self) {
        let Some(word) = self.word.take() else { return };
        if self.command.words.is_empty() {
            self.command.line = if self.command.env.is_empty() {
                self.line
            } else {
                self.command.line
            };
            // A group behind `name()` is that function's body.
            if let Some(name) = self.defines.take()
                && word == "{"
            {
                self.bodies.push((name, self.blocks));
                return;
            }
            if word == "}" && self.bodies.last().is_some_and(|(_, at)| *at == self.blocks) {
                self.bodies.pop();
                return;
            }
            match word.as_str() {
                "if" | "while" | "until" | "for" | "case" | "{" => self.blocks += 1,
                "fi" | "done" | "esac" | "}" => self.blocks = self.blocks.saturating_sub(1),
                _ => {}
            }
            if matches!(
                word.as_str(),
                "then"
                    | "do"
                    | "else"
                    | "elif"
                    | "if"
                    | "while"
                    | "until"
                    | "!"
                    | "{"
                    | "}"
                    | "time"
            ) {
                return;
            }
            if let Some((name, value)) = word.split_once('=')
                && !name.is_empty()
                && name
                    .strip_suffix('+')
                    .unwrap_or(name)
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || c == '_')
                && !name.starts_with(|c: char| c.is_ascii_digit())
            {
                self.command.env.push((name.to_owned(), value.to_owned()));
                return;
            }
        }
        self.command.words.push(word);
    }

    fn end_command(&mut self) {
        let command = std::mem::take(&mut self.command);
        for (inner, line) in std::mem::take(&mut self.nested) {
            collect(&inner, line, self.depth + 1, self.out);
        }
        if command.words.is_empty() && command.env.is_empty() {
            return;
        }
        let otherwise = command.guarded || self.blocks > 0 || self.depth > 0;
        if !self.chained {
            self.chain.clear();
            self.began = self.out.len();
            self.forgives = false;
        } else if !otherwise {
            self.chain.push(self.out.len());
        }
        let guarded = otherwise || self.chained;
        self.chained = false;
        let function = self.bodies.last().map(|(name, _)| name.clone());
        self.out.push(Command {
            guarded,
            function,
            ..command
        });
    }

    /// What stands before `||` may fail.
    fn forgive(&mut self) {
        self.forgives = true;
        for command in self.out.iter_mut().skip(self.began) {
            command.guarded = true;
        }
    }

    /// A script ends as its last chain does: where that is one of `&&` alone, nothing of it may fail
    /// or be left out without failing the script.
    fn end_script(&mut self) {
        if self.forgives || self.blocks > 0 {
            return;
        }
        for index in std::mem::take(&mut self.chain) {
            if let Some(command) = self.out.get_mut(index) {
                command.guarded = false;
            }
        }
    }
}

/// Index of the bracket that closes a list, the opening one of which was read.
fn closing_of(text: &str) -> usize {
    let opened = format!("({text}");
    closing(&opened).saturating_sub(1).min(text.len())
}

/// Index of the bracket that closes the `$(` a text starts with.
fn closing(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut quote: Option<char> = None;
    for (index, character) in text.char_indices() {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (Some('\''), _) => {}
            (None, '\'' | '"') => quote = Some(character),
            (_, '(') => depth += 1,
            (_, ')') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return index;
                }
            }
            _ => {}
        }
    }
    text.len()
}

impl Command {
    pub(crate) fn has(&self, flag: &str) -> bool {
        self.words.iter().any(|word| {
            word == flag
                || word
                    .strip_prefix(flag)
                    .is_some_and(|rest| rest.starts_with('='))
        })
    }

    /// The value of `--flag value` or `--flag=value`.
    pub(crate) fn option(&self, names: &[&str]) -> Option<&str> {
        self.words.iter().enumerate().find_map(|(index, word)| {
            names.iter().find_map(|name| {
                if word == name {
                    self.words.get(index + 1).map(String::as_str)
                } else {
                    word.strip_prefix(name)?.strip_prefix('=')
                }
            })
        })
    }

    pub(crate) fn text(&self) -> String {
        self.words.join(" ")
    }
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(script: &str) -> Vec<String> {
        commands(script)
            .iter()
            .map(|command| command.unwrapped().text())
            .collect()
    }

    #[test]
    fn the_last_chain_decides_how_a_script_ends() {
        let guarded = |script: &str| -> Vec<bool> {
            commands(script).iter().map(|one| one.guarded).collect()
        };
        assert_eq!(guarded("a && b && c\n"), [false, false, false]);
        assert_eq!(guarded("a && b\nc\n"), [false, true, false]);
        assert_eq!(guarded("a || b && c\n"), [true, true, true]);
        assert_eq!(guarded("a && b || c\nd\n"), [true, true, true, false]);
        assert_eq!(guarded("a && b | c\n"), [false, true, false]);
        assert_eq!(
            guarded("if a; then b && c; fi\n"),
            [true, true, true, false]
        );
    }

    #[test]
    fn only_commands_are_commands() {
        let script = "# npm publish\necho \"npm publish\"\ncat <<EOF > notes\nnpm publish\nEOF\nif [ -n \"$X\" ]; then\n  npm publish --access public\nfi\n";
        assert_eq!(
            words(script),
            vec![
                "echo npm publish",
                "cat > notes",
                "[ -n $X ]",
                "npm publish --access public",
                "fi"
            ]
        );
    }

    #[test]
    fn lines_substitutions_and_continuations() {
        let script =
            "A=$(gh pr create \\\n  --fill)\nnpm test && \\\n  git push origin HEAD:main # done\n";
        let list = commands(script);
        assert_eq!(list[0].words.join(" "), "gh pr create --fill");
        assert_eq!(list[1].env[0].0, "A");
        let push = list
            .iter()
            .find(|c| c.words.first().is_some_and(|w| w == "git"))
            .unwrap();
        assert_eq!((push.words.len(), push.line), (4, 3));
    }

    #[test]
    fn wrappers_are_taken_off() {
        assert_eq!(
            words("sudo -E npx --yes semantic-release"),
            vec!["semantic-release"]
        );
        assert_eq!(
            words("env A=b poetry run twine upload x"),
            vec!["twine upload x"]
        );
        assert_eq!(
            words("timeout 60 python -m twine upload"),
            vec!["twine upload"]
        );
        assert_eq!(words("X=${{ secrets.A }} git push"), vec!["git push"]);
    }

    #[test]
    fn broken_scripts_end() {
        for script in [
            "'",
            "\"",
            "$(",
            "`",
            "<<EOF",
            "a <<EOF\nb",
            "\\",
            "${{",
            "(((",
            "x()",
        ] {
            let _ = commands(script);
        }
        let _ = commands(&"$(".repeat(10_000));
    }
}
