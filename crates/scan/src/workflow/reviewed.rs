//! Scripts that ask what reviews have decided before they merge.

/// Whether a script merges only where the reviews that the branch wants are there: each merge
/// stands in a branch that asks for `APPROVED`, or after a test that stops without it.
pub(super) fn waits_for_review(text: &str) -> bool {
    #[derive(Clone, Copy, Default)]
    struct Block {
        /// Its commands run only where a review approved.
        asked: bool,
        /// It was entered where no review approved, so that a stop in it is the check.
        without: bool,
    }
    if !(text.contains("reviewDecision") && text.contains("pr merge"))
        || text.contains("--approve")
        || text.contains("event=APPROVE")
    {
        return false;
    }
    let selects = text.contains("select(");
    let mut blocks = vec![Block::default()];
    let mut merges = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with('#') {
            continue;
        }
        if selects
            && line.contains(".reviewDecision == ")
            && line.contains("APPROVED")
            && !line.contains(" or ")
            && let Some(block) = blocks.last_mut()
        {
            block.asked = true;
        }
        for part in line.split(';').map(str::trim) {
            let part = part
                .strip_prefix("then ")
                .or_else(|| part.strip_prefix("do "))
                .unwrap_or(part);
            let word = part.split_whitespace().next().unwrap_or_default();
            let test = test_of_review(part);
            match word {
                "if" => blocks.push(Block {
                    asked: test == Some(true),
                    without: test == Some(false),
                }),
                "for" | "while" | "until" | "case" => blocks.push(Block::default()),
                "else" | "elif" => {
                    if let Some(block) = blocks.last_mut() {
                        *block = Block {
                            asked: word == "else" && block.without,
                            without: word == "else" && block.asked,
                        };
                    }
                }
                "fi" | "done" | "esac" if blocks.len() > 1 => {
                    blocks.pop();
                }
                _ => {}
            }
            let rest = part.strip_prefix("else ").unwrap_or(part);
            let (ends, short) = match (rest.split_once("]]"), rest.split_once(" ]")) {
                (Some((_, rest)), _) | (None, Some((_, rest))) => (rest.trim(), word != "if"),
                (None, None) => (rest, false),
            };
            let stops = |text: &str| {
                ["exit", "return", "continue"]
                    .iter()
                    .any(|stop| text.split([' ', '}']).any(|word| word == *stop))
            };
            if short {
                // `[[ … ]] || exit 0`, `[[ … ]] && gh pr merge`.
                let wanted = if ends.starts_with("||") {
                    Some(true)
                } else {
                    Some(false)
                };
                if test.is_some()
                    && test == wanted
                    && stops(if ends.contains('{') { line } else { ends })
                {
                    if let Some(block) = blocks.last_mut() {
                        block.asked = true;
                    }
                } else if ends.contains("pr merge") {
                    merges = true;
                    let led = test == Some(true) && ends.starts_with("&&");
                    if !led && !blocks.iter().any(|block| block.asked) {
                        return false;
                    }
                }
                continue;
            }
            if ["exit", "return", "continue"].contains(&rest.split(' ').next().unwrap_or_default())
                && blocks.last().is_some_and(|block| block.without)
                && let Some(at) = blocks.len().checked_sub(2)
                && let Some(outer) = blocks.get_mut(at)
            {
                outer.asked = true;
            }
            if part.contains("pr merge") {
                merges = true;
                if !blocks.iter().any(|block| block.asked) {
                    return false;
                }
            }
        }
    }
    merges
}

/// Whether a test holds only where a review approved (`true`), or wherever none did (`false`).
fn test_of_review(part: &str) -> Option<bool> {
    let start = part.find('[').or_else(|| part.find("test "))?;
    let negated = part.get(..start)?.contains('!');
    let test = part.get(start..)?;
    let test = test
        .find("]]")
        .or_else(|| test.rfind(" ]"))
        .and_then(|end| test.get(..end))
        .unwrap_or(test);
    if !test.contains("APPROVED") {
        return None;
    }
    let differs = test.contains("!=");
    if !differs && !test.contains("==") && !test.contains(" = ") {
        return None;
    }
    let approved = differs == negated;
    // What may hold for another reason asks for nothing.
    let loose = if differs { "&&" } else { "||" };
    (!test.contains(loose)).then_some(approved)
}
