//! Scripts and programs that ask what reviews have decided before they merge.
//!
//! A merge waits for a person where it stands in a branch that asks for an approval, after a test
//! that stops without one, or among what was selected for having one. What a script leaves as an
//! output counts the same where later steps ask for it.

use super::walk::Asks;
use super::{Act, Check, Op, Token};

/// Words that ask a forge for reviews.
const LOOKUPS: &[&str] = &[
    "reviewDecision",
    "latestReviews",
    "latestOpinionatedReviews",
    "review:approved",
    "/reviews",
    "--json reviews",
    ",reviews",
    ".reviews",
    "listReviews",
    "list_reviews",
    "get_reviews",
    "getReviews",
    "ListReviews",
];

/// Commands and requests that land a pull request.
const MERGES: &[&str] = &[
    "pr merge",
    "mr merge",
    "/merge",
    "mergePullRequest",
    "enablePullRequestAutoMerge",
];

/// The check that a script or a program with such a test is.
pub(crate) fn check(file: &str, line: usize) -> Act {
    let why = "the script goes on only where a review has approved";
    let mut act = Act::new(
        Op::Check(Check::Person(why)),
        "reviewDecision",
        Token::Outside,
    );
    act.line = line;
    file.clone_into(&mut act.file);
    act
}

/// Whether a shell script merges only where the reviews that it asks for are there.
pub(crate) fn script_waits(text: &str) -> bool {
    if !looks_up(text) || approves(text) || !MERGES.iter().any(|merge| text.contains(merge)) {
        return false;
    }
    let mut merges = false;
    let mut all = true;
    walk(text, |part, asked| {
        if MERGES.iter().any(|merge| part.contains(merge)) && !part.starts_with("echo ") {
            merges = true;
            all &= asked;
        }
    });
    merges && all
}

/// Outputs that a step's script sets to say that a review approved.
pub(crate) fn outputs(text: &str) -> Vec<String> {
    if !looks_up(text) || approves(text) {
        return Vec::new();
    }
    let mut good: Vec<String> = Vec::new();
    let mut bad: Vec<String> = Vec::new();
    let variables = variables(text);
    walk(text, |part, asked| {
        let Some((name, value)) = output(part) else {
            return;
        };
        let by_name = variables
            .iter()
            .any(|variable| mentions(&value, &variable.name));
        if by_name || asked {
            good.push(name);
        } else if !matches!(value.as_str(), "false" | "0" | "no" | "") {
            bad.push(name);
        }
    });
    good.extend(program_outputs(text));
    good.retain(|name| !bad.contains(name));
    good
}

/// Whether a program merges only where the reviews that it asks for are there.
pub(crate) fn program_waits(text: &str) -> bool {
    looks_up(text)
        && !approves(text)
        && approval_names(text).iter().any(|name| {
            name.is_empty()
                || text.lines().any(|line| {
                    has_word(line, name)
                        && !line.contains("APPROVED")
                        && ["if ", "if(", "for ", "for(", "unless ", "while "]
                            .iter()
                            .any(|word| line.contains(word))
                })
        })
}

fn looks_up(text: &str) -> bool {
    LOOKUPS.iter().any(|word| text.contains(word))
        && (text.contains("APPROVED") || text.contains("review:approved"))
}

/// Whether it gives the approval itself.
fn approves(text: &str) -> bool {
    [
        "--approve",
        "event=APPROVE",
        "'APPROVE'",
        "\"APPROVE\"",
        "\"APPROVE\\\"",
    ]
    .iter()
    .any(|mark| text.contains(mark))
}

/// A shell variable that holds what was asked.
struct Variable {
    name: String,
    /// How many approvals there are, or whether there is one; otherwise the word of the decision.
    counts: bool,
}

/// The names that stand in a text.
pub(super) fn words_of(text: &str) -> Vec<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

fn has_word(text: &str, word: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text
            .get(..at)
            .is_some_and(|before| before.ends_with(inside))
            && !text
                .get(at + word.len()..)
                .is_some_and(|after| after.starts_with(inside))
    })
}

/// Whether a text uses a shell variable.
pub(super) fn mentions(text: &str, name: &str) -> bool {
    text.contains('$') && has_word(text, name)
}

/// Lines with those that they go on in: open substitutions and escaped ends.
fn statements(text: &str) -> Vec<String> {
    /// Most lines of one statement.
    const LINES_MAX: usize = 40;
    let mut out: Vec<String> = Vec::new();
    let mut open = 0_usize;
    for line in text.lines().map(str::trim) {
        if line.starts_with('#') {
            continue;
        }
        match out.last_mut().filter(|_| open > 0) {
            Some(last) => {
                last.push(' ');
                last.push_str(line);
            }
            None => out.push(line.to_owned()),
        }
        let last = out.last().map(String::as_str).unwrap_or_default();
        let unclosed = last.matches("$(").count()
            > last
                .matches(')')
                .count()
                .saturating_sub(last.matches('(').count() - last.matches("$(").count());
        open = if (unclosed || last.ends_with('\\')) && open < LINES_MAX {
            open + 1
        } else {
            0
        };
    }
    out
}

fn variables(text: &str) -> Vec<Variable> {
    /// Most variables that are followed.
    const VARIABLES_MAX: usize = 32;
    let mut out: Vec<Variable> = Vec::new();
    for statement in statements(text) {
        for part in statement.split(';').map(str::trim) {
            let part = ["local ", "export ", "readonly ", "declare ", "then ", "do "]
                .iter()
                .find_map(|word| part.strip_prefix(word))
                .unwrap_or(part);
            if out.len() >= VARIABLES_MAX {
                return out;
            }
            if let Some((_, names)) = part.split_once("read ")
                && !part.contains('=')
            {
                for name in names.split_whitespace().take(VARIABLES_MAX) {
                    let lower = name.to_ascii_lowercase();
                    if ["decision", "review", "approv"]
                        .iter()
                        .any(|word| lower.contains(word))
                    {
                        out.push(Variable {
                            name: name.to_owned(),
                            counts: false,
                        });
                    }
                }
                continue;
            }
            let Some((name, value)) = part.split_once('=') else {
                continue;
            };
            let plain =
                !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            let asks = LOOKUPS.iter().any(|word| value.contains(word))
                || out.iter().any(|known| mentions(value, &known.name));
            if plain && asks {
                out.push(Variable {
                    name: name.to_owned(),
                    counts: value.contains("APPROVED"),
                });
            }
        }
    }
    out
}

/// Hands every command to `see` with whether it runs only where a review approved.
fn walk(text: &str, mut see: impl FnMut(&str, bool)) {
    let variables = variables(text);
    let selects = text.contains("select(");
    let asks = Asks {
        test: &|part| test_of_review(part, &variables),
        selected: &|line| {
            let tight = line.replace(' ', "");
            selects
                && (tight.contains(".reviewDecision==\"APPROVED\"")
                    || tight.contains(".reviewDecision==\\\"APPROVED"))
                && !line.contains(" or ")
                || line.contains("review:approved") && !line.contains("-review:approved")
        },
        chooses: &|part| variables.iter().any(|known| mentions(part, &known.name)),
        arm: "APPROVED",
    };
    super::walk::walk(text, &asks, |part, asked, _| see(part, asked));
}

/// Whether a test holds only where a review approved (`true`), or wherever none did (`false`).
fn test_of_review(part: &str, variables: &[Variable]) -> Option<bool> {
    if let Some(at) = part.find("grep -") {
        let searched = part.get(at..).unwrap_or_default();
        let negated = part.get(..at).is_some_and(|before| before.contains("! "));
        let known = LOOKUPS.iter().any(|word| part.contains(word))
            || variables.iter().any(|known| mentions(part, &known.name));
        return (known && searched.contains("APPROVED")).then_some(!negated);
    }
    let start = part
        .find('[')
        .or_else(|| part.find("test "))
        .or_else(|| part.find("(("))?;
    let negated = part.get(..start)?.contains('!');
    let test = part.get(start..)?;
    let test = test
        .find("]]")
        .or_else(|| test.rfind(" ]"))
        .or_else(|| test.find("))"))
        .and_then(|end| test.get(..end))
        .unwrap_or(test);
    let counted = variables.iter().any(|known| {
        known.counts && mentions(test, &known.name) || test.contains(&format!("(({}", known.name))
    });
    let approved = if test.contains("APPROVED") && !counted {
        let differs = test.contains("!=");
        if !differs && !test.contains("==") && !test.contains(" = ") {
            return None;
        }
        !differs
    } else if counted
        || variables
            .iter()
            .any(|known| known.counts && has_word(test, &known.name))
    {
        counted_test(test)?
    } else {
        return None;
    };
    let approved = approved != negated;
    // What may hold for another reason asks for nothing.
    let loose = if approved { "||" } else { "&&" };
    (!test.contains(loose)).then_some(approved)
}

/// Whether a comparison of a number of approvals, or of the word for one, asks for some.
fn counted_test(test: &str) -> Option<bool> {
    let plain = test.replace(['"', '\''], "");
    let tight = format!("{} ", plain.trim());
    let has = |list: &[&str]| list.iter().any(|text| tight.contains(text));
    if has(&[
        " -gt ",
        " -ge ",
        " -ne 0",
        "!= 0",
        " > 0",
        ">= 1",
        "= true ",
        "!= false ",
        "-n ",
        "= yes ",
    ]) && !has(&["!= true "])
    {
        Some(true)
    } else if has(&[
        " -eq 0", " -lt ", " -le ", "= 0 ", " < ", "!= true ", "= false ", "-z ", "!= yes ", "<= 0",
    ]) {
        Some(false)
    } else {
        None
    }
}

/// `echo "name=value" >> "$GITHUB_OUTPUT"`.
pub(super) fn output(part: &str) -> Option<(String, String)> {
    let text = part.trim();
    if let Some((_, rest)) = text.split_once("set-output name=") {
        let (name, value) = rest.split_once("::")?;
        return Some((name.to_owned(), value.trim_matches('"').to_owned()));
    }
    if !text.contains("GITHUB_OUTPUT") {
        return None;
    }
    let rest = text.strip_prefix("echo ")?;
    let (name, value) = rest.split_once('=')?;
    let value = value.split(">>").next().unwrap_or(value).trim();
    Some((
        name.trim().trim_start_matches(['"', '\'']).to_owned(),
        value.trim_end_matches(['"', '\'']).to_owned(),
    ))
}

/// Names that a program gives to what it finds approved; an empty one where it asks on the spot.
fn approval_names(text: &str) -> Vec<String> {
    /// Lines that a statement may have begun before.
    const BACK: usize = 10;
    /// Most names that are followed.
    const NAMES_MAX: usize = 32;
    let lines: Vec<&str> = text.lines().collect();
    let mut out = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        if out.len() >= NAMES_MAX {
            break;
        }
        let plain = line.trim();
        if !plain.contains("APPROVED") || plain.starts_with("//") || plain.starts_with('#') {
            continue;
        }
        if ["if ", "if(", "} else if", "elif ", "unless ", "while "]
            .iter()
            .any(|word| plain.starts_with(word))
        {
            out.push(String::new());
            continue;
        }
        for back in 0..=BACK.min(index) {
            let Some(before) = lines.get(index - back).map(|line| line.trim()) else {
                break;
            };
            if let Some(name) = assigned(before).or_else(|| defined(before)) {
                out.push(name);
                break;
            }
        }
    }
    // What is made of them is the same.
    for line in &lines {
        if let Some(name) = assigned(line.trim())
            && out.len() < NAMES_MAX
            && !out.contains(&name)
            && let Some((_, value)) = line.split_once('=')
            && out
                .iter()
                .any(|known| !known.is_empty() && has_word(value, known))
        {
            out.push(name);
        }
    }
    out
}

pub(super) fn assigned(line: &str) -> Option<String> {
    let line = ["const ", "let ", "var "]
        .iter()
        .find_map(|word| line.strip_prefix(word))
        .unwrap_or(line);
    let (name, value) = line.split_once('=')?;
    let name = name.trim().trim_end_matches(':');
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (plain && !value.starts_with(['=', '>'])).then(|| name.to_owned())
}

fn defined(line: &str) -> Option<String> {
    let rest = line
        .split_once("function ")
        .or_else(|| line.split_once("def "))
        .map(|(_, rest)| rest)?;
    let name: String = rest
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
        .collect();
    (!name.is_empty()).then_some(name)
}

/// `core.setOutput('approved', approved)`.
fn program_outputs(text: &str) -> Vec<String> {
    let names = approval_names(text);
    text.split("setOutput(")
        .skip(1)
        .filter_map(|rest| {
            let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
            let (name, rest) = rest.get(1..)?.split_once(quote)?;
            let value = rest.split(')').next().unwrap_or_default();
            names
                .iter()
                .any(|known| !known.is_empty() && has_word(value, known))
                .then(|| name.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_of_approvals_is_a_test_where_it_stops() {
        let stops = |test: &str| {
            script_waits(&format!(
                "N=$(gh pr view 1 --json latestReviews \\\n  --jq '[.latestReviews[] | select(.state == \"APPROVED\")] | length')\n{test}\ngh pr merge 1"
            ))
        };
        assert!(stops("[ \"$N\" -ge 1 ] || exit 0"));
        assert!(stops("if (( N < 1 )); then exit 0; fi"));
        assert!(stops("if [[ $N -eq 0 ]]; then\n  exit 1\nfi"));
        assert!(!stops("if [[ $N -eq 0 ]]; then\n  echo none\nfi"));
        assert!(!stops("echo $N"));
    }

    #[test]
    fn what_ends_a_function_ends_nothing_else() {
        let script = |stop: &str, after: &str| {
            script_waits(&format!(
                "check() {{\n  D=$(gh pr view 1 --json reviewDecision -q .reviewDecision)\n  [ \"$D\" = APPROVED ] || {stop}\n{after}"
            ))
        };
        assert!(!script("return", "}\ngh pr merge 1"));
        assert!(!script("{ echo no; return; }", "}\ngh pr merge 1"));
        assert!(script("return", "  gh pr merge 1\n}\ncheck"));
        assert!(script("{ echo no; return; }", "  gh pr merge 1\n}\ncheck"));
        assert!(script("exit 0", "}\ncheck\ngh pr merge 1"));
    }

    #[test]
    fn a_choice_of_decisions_asks_in_its_arm() {
        let script = |arm: &str| {
            format!(
                "D=$(gh pr view 1 --json reviewDecision -q .reviewDecision)\ncase \"$D\" in\n  APPROVED) {arm} ;;\n  *) echo no ;;\nesac\n"
            )
        };
        assert!(script_waits(&script("gh pr merge 1")));
        assert!(!script_waits(&format!(
            "{}gh pr merge 1",
            script("echo yes")
        )));
    }

    #[test]
    fn outputs_say_what_reviews_decided() {
        let text = "A=$(gh api repos/a/b/pulls/1/reviews --jq '[.[] | select(.state==\"APPROVED\")] | length')\necho \"n=$A\" >> $GITHUB_OUTPUT\necho \"title=x\" >> $GITHUB_OUTPUT";
        assert_eq!(outputs(text), ["n"]);
    }
}
