//! What a job's shell has come to: its variables, its directory, what it cloned and which agents it
//! started.

use crate::workflow::Pairs;

/// Longest value of a variable that is put in, and longest text that values are put into.
const VALUE_MAX: usize = 4 * 1024;
/// Most variables that are kept.
const VARIABLES_MAX: usize = 256;

/// What a job's shell has come to, from command to command.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shell {
    /// `owner/name` of the repository, where it is known.
    pub(crate) slug: Option<String>,
    /// Branch that was checked out by a command; may hold templates.
    pub(crate) branch: Option<String>,
    /// Name of the last tag made.
    pub(crate) tagged: Option<String>,
    /// Directory that `cd` went to.
    pub(crate) directory: Option<String>,
    /// The other repository we are in.
    pub(crate) foreign: Option<String>,
    /// Clones and checkouts of other repositories by directory.
    pub(crate) clones: Vec<(String, String)>,
    /// Directories that hold another branch of this repository.
    pub(crate) worktrees: Vec<(String, String)>,
    pub(crate) remotes: Vec<(String, String)>,
    pub(crate) fresh: bool,
    /// Variables set to plain text.
    pub(crate) variables: Vec<(String, String)>,
    /// Variables that were once set to the word that approves.
    pub(crate) approving: Vec<String>,
    /// Agents started by command.
    pub(crate) agents: Vec<AgentCall>,
    /// The label by which the pull requests were selected that the script goes through.
    pub(crate) selected: Option<String>,
    /// A commit was made that no condition leaves out.
    pub(crate) committed: bool,
}

/// An agent's program that a script starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgentCall {
    pub(crate) name: &'static str,
    pub(crate) file: String,
    pub(crate) line: usize,
    /// Tools it may use, where the command restricts them.
    pub(crate) tools: Option<Vec<String>>,
    pub(crate) command: String,
}

impl Shell {
    /// Notes a variable. What is too long to be a name, a branch or a path is not kept, so that
    /// values made of values can't grow without end.
    pub(super) fn set(&mut self, name: &str, value: String) {
        let lower = value.to_ascii_lowercase();
        if matches!(lower.trim_start_matches('-'), "approve")
            && self.approving.len() < VARIABLES_MAX
            && !self.approving.iter().any(|known| known == name)
        {
            self.approving.push(name.to_owned());
        }
        self.variables.retain(|(known, _)| known != name);
        if value.len() <= VALUE_MAX && self.variables.len() < VARIABLES_MAX {
            self.variables.push((name.to_owned(), value));
        }
    }

    /// Replaces variables that were set to text that we know, as long as the text stays short.
    pub(crate) fn expand(&self, text: &str) -> String {
        if !text.contains('$') {
            return text.to_owned();
        }
        let longest = text.len() + VALUE_MAX;
        let mut out = text.to_owned();
        for (name, value) in self.variables.iter().rev() {
            if value.contains(&format!("${name}")) || value.contains(&format!("${{{name}")) {
                continue;
            }
            for (mark, bare) in [(format!("${{{name}}}"), false), (format!("${name}"), true)] {
                let mut from = 0;
                while let Some(at) = out.get(from..).and_then(|rest| rest.find(&mark)) {
                    let start = from + at;
                    let end = start + mark.len();
                    let continues = bare
                        && out
                            .get(end..)
                            .and_then(|rest| rest.chars().next())
                            .is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
                    if continues {
                        from = end;
                        continue;
                    }
                    if out.len() + value.len() > longest {
                        return out;
                    }
                    out.replace_range(start..end, value);
                    from = start + value.len();
                }
            }
        }
        out
    }

    /// The plain text that a word which is nothing but a variable stands for.
    pub(super) fn stands_for(&self, word: &str, env: Option<&Pairs>) -> Option<String> {
        let name = word.strip_prefix('$')?;
        let name = match name.strip_prefix('{') {
            Some(inner) => inner.strip_suffix('}')?,
            None => name,
        };
        let name = name
            .strip_suffix("[@]")
            .or_else(|| name.strip_suffix("[*]"))
            .unwrap_or(name);
        let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !plain {
            return None;
        }
        self.variables
            .iter()
            .rev()
            .find(|(known, _)| known == name)
            .or_else(|| env?.iter().find(|(known, _)| known == name))
            .map(|(_, value)| value.clone())
            .filter(|value| {
                !value.contains('$')
                    || value.starts_with(|c: char| c.is_ascii_lowercase() || c == '-')
            })
            .filter(|value| !value.contains("${{") && !value.contains("$("))
    }

    /// The other repository that a directory belongs to.
    pub(crate) fn foreign_of(&self, place: &str) -> Option<String> {
        let place = place.trim_start_matches("./").trim_end_matches('/');
        self.clones
            .iter()
            .find(|(known, _)| place == known || place.starts_with(&format!("{known}/")))
            .map(|(_, repository)| repository.clone())
    }

    /// Whether `owner/name` is this repository. A slug `?/name` knows only the name.
    pub(crate) fn is_self(&self, path: &str) -> bool {
        self.slug.as_deref().is_some_and(|slug| {
            slug.eq_ignore_ascii_case(path)
                || slug.strip_prefix("?/").is_some_and(|name| {
                    path.rsplit('/')
                        .next()
                        .is_some_and(|last| last.eq_ignore_ascii_case(name))
                })
        })
    }
}
