//! Names of apps as `gh` tells them: `app/dependabot`, and never `dependabot[bot]`. A script that
//! asks for the second waits for ever.

use super::guards;
use super::questions::Question;
use super::reviewed;
use super::tidy::tidy;

/// What never holds, as a condition.
pub(crate) const NEVER: &str = "${{ false }}";

/// The variables of a script that hold the author of a pull request as `gh` names it.
pub(super) fn authors(text: &str) -> Vec<String> {
    if !text.contains("gh pr view") || !text.contains(".author.login") {
        return Vec::new();
    }
    let lines = tidy(text).lines;
    /// Most variables that are looked at.
    const NAMES_MAX: usize = 64;
    let asked = lines.iter().filter_map(|(line, _)| {
        let line = line.trim();
        let (name, value) = line
            .strip_prefix("export ")
            .unwrap_or(line)
            .split_once('=')?;
        let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let value = value.trim_matches('"');
        let asks = value.starts_with("$(gh pr view ")
            && ["'.author.login'", "\".author.login\"", " .author.login"]
                .iter()
                .any(|query| value.contains(query))
            && !["sed ", " tr ", "sub(", "trimstr", "||"]
                .iter()
                .any(|word| value.contains(word));
        (plain && asks).then_some(name)
    });
    asked
        .take(NAMES_MAX)
        .filter(|name| {
            // What is set in two ways, or read, may be anything.
            let set = format!("{name}=");
            let sets = |line: &str| {
                line.split([';', '&', '|'])
                    .map(str::trim)
                    .map(|part| part.strip_prefix("then ").unwrap_or(part))
                    .filter(|part| {
                        let part = part.strip_prefix("export ").unwrap_or(part);
                        part.starts_with(&set)
                    })
                    .count()
            };
            lines.iter().map(|(line, _)| sets(line)).sum::<usize>() == 1
                && !text.contains(&format!("read {name}"))
                && !text.contains(&format!("for {name} "))
        })
        .map(str::to_owned)
        .collect()
}

/// A test that compares such a variable with a name that `gh` gives to nobody.
pub(super) fn question(part: &str, authors: &[String]) -> Option<Question> {
    if authors.is_empty() {
        return None;
    }
    let part = part.trim();
    let branch = ["if ", "elif "]
        .iter()
        .find_map(|word| part.strip_prefix(word));
    let test = branch.unwrap_or(part).trim();
    let (inner, rest) = match test.strip_prefix("[[ ") {
        Some(inner) => inner.split_once(" ]]")?,
        None => test.strip_prefix("[ ")?.split_once(" ]")?,
    };
    let rest = rest.trim();
    let alone = match branch {
        Some(_) => rest.is_empty() || rest == "then",
        None => (rest.starts_with("||") || rest.starts_with("&&")) && !rest.contains("[ "),
    };
    if !alone || inner.contains("&&") || inner.contains("||") {
        return None;
    }
    let (left, right, equal) = if let Some((left, right)) = inner.split_once("!=") {
        (left, right, false)
    } else {
        let (left, right) = inner.split_once("==").or_else(|| inner.split_once(" = "))?;
        (left, right, true)
    };
    let name = left
        .trim()
        .trim_matches('"')
        .strip_prefix('$')?
        .trim_start_matches('{')
        .trim_end_matches('}');
    let right = right.trim().trim_matches(['"', '\'']);
    let asked = authors.iter().any(|author| author == name) && right.ends_with("[bot]");
    let never = Some("false".to_owned());
    let (yes, no) = if equal { (never, None) } else { (None, never) };
    asked.then_some(Question { yes, no })
}

/// Outputs of a script that get a value only where a name is told that `gh` never tells.
pub(crate) fn never_written(text: &str) -> Vec<(String, String)> {
    if authors(text).is_empty() {
        return Vec::new();
    }
    let never: Vec<usize> = guards::of_script(text)
        .into_iter()
        .filter(|(condition, _)| condition == NEVER)
        .flat_map(|(_, lines)| lines)
        .collect();
    let written: Vec<(usize, String, String)> = text
        .lines()
        .enumerate()
        .filter_map(|(at, line)| {
            let (name, value) = reviewed::output(line.trim())?;
            Some((at, name, value))
        })
        .collect();
    written
        .iter()
        .filter(|(at, name, value)| {
            never.contains(at)
                && !value.contains('$')
                && !written.iter().any(|(other, same, text)| {
                    same == name && !never.contains(other) && (text == value || text.contains('$'))
                })
        })
        .map(|(_, name, value)| (name.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test may fail"
    )]

    use super::*;

    const ASKS: &str = "A=$(gh pr view 1 --json author --jq '.author.login')\n";

    #[test]
    fn only_names_that_are_set_once_count() {
        assert_eq!(authors(ASKS), ["A"]);
        assert_eq!(authors(&format!("{ASKS}echo \"A=$A\" >> x\n")), ["A"]);
        for more in [
            "A=x\n",
            "if true; then A=x; fi\n",
            "read A\n",
            "true && A=x\n",
        ] {
            assert!(authors(&format!("{ASKS}{more}")).is_empty(), "{more}");
        }
        let stripped = "A=$(gh pr view 1 --json author --jq '.author.login' | sed 's|app/||')\n";
        assert!(authors(stripped).is_empty());
        assert!(authors("A=$(gh api user --jq .login)").is_empty());
    }

    #[test]
    fn a_name_that_gh_never_gives_is_never_met() {
        let names = ["A".to_owned()];
        for never in [
            "if [ \"$A\" = \"x[bot]\" ]",
            "[[ ${A} == x[bot] ]] || exit 0",
        ] {
            let asked = question(never, &names).unwrap();
            assert_eq!((asked.yes.as_deref(), asked.no), (Some("false"), None));
        }
        let asked = question("[ \"$A\" != 'x[bot]' ] && exit 0", &names).unwrap();
        assert_eq!((asked.yes, asked.no.as_deref()), (None, Some("false")));
        for open in [
            "if [ \"$A\" = \"app/x\" ]",
            "if [ \"$B\" = \"x[bot]\" ]",
            "if [ \"$A\" = \"x[bot]\" ] || [ \"$B\" = y ]",
            "if [ \"$A\" = \"x[bot]\" -o -n \"$B\" ] && true",
            "if [[ $A == x[bot] || $B == y ]]",
            "[ \"$A\" = \"x[bot]\" ]",
            "if [ ",
            "",
        ] {
            assert_eq!(question(open, &names), None, "{open}");
        }
    }

    #[test]
    fn outputs_that_may_be_written_elsewhere_stay_open() {
        let test = "if [ \"$A\" = \"x[bot]\" ]; then\n  echo \"b=true\" >> $GITHUB_OUTPUT\nfi\n";
        let once = format!("{ASKS}{test}");
        assert_eq!(never_written(&once), [("b".to_owned(), "true".to_owned())]);
        for more in [
            "echo \"b=true\" >> $GITHUB_OUTPUT",
            "echo \"b=$C\" >> $GITHUB_OUTPUT",
        ] {
            assert!(never_written(&format!("{once}{more}")).is_empty(), "{more}");
        }
        assert!(never_written(test).is_empty());
    }
}
