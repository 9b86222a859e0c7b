//! What a shell script does only where a test holds: in its branch, or after a stop where it does
//! not.

/// Deepest nesting that is told apart; what stands deeper counts to the block that it stands in.
const BLOCKS_MAX: usize = 64;

/// A question that a script may ask.
pub(super) struct Asks<'a> {
    /// Whether a test holds only where the answer is yes (`true`), or wherever it is no (`false`).
    pub(super) test: &'a dyn Fn(&str) -> Option<bool>,
    /// Whether a line selects what the answer is yes for.
    pub(super) selected: &'a dyn Fn(&str) -> bool,
    /// Whether a `case` chooses by the answer, and the word of the arm for yes.
    pub(super) chooses: &'a dyn Fn(&str) -> bool,
    pub(super) arm: &'a str,
}

#[derive(Clone, Copy, Default)]
struct Block {
    /// Its commands run only where the answer is yes.
    asked: bool,
    /// It was entered where the answer is no, so that a stop in it is the check.
    without: bool,
    /// A choice among words, one of which is asked for.
    choice: bool,
    chosen: bool,
    /// The body of a function: what ends it ends nothing else, unless it exits.
    function: bool,
    exits: bool,
    /// Groups of commands that are open in a function.
    groups: usize,
}

/// Hands every command to `see` with whether it runs only where the answer is yes, and its line.
pub(super) fn walk(text: &str, asks: &Asks<'_>, mut take: impl FnMut(&str, bool, usize)) {
    let last = std::cell::Cell::new(false);
    let mut see = |part: &str, yes: bool, line: usize| {
        last.set(yes);
        take(part, yes, line);
    };
    let mut blocks = vec![Block::default()];
    // Blocks that are open beyond the deepest that is told apart.
    let mut deeper = 0_usize;
    let asked = |blocks: &[Block]| blocks.iter().any(|block| block.asked);
    let mut next = 0;
    for (line, span) in &super::tidy::tidy(text).lines {
        let (index, line) = (next, line.trim());
        next += span;
        if line.starts_with('#') {
            continue;
        }
        if (asks.selected)(line)
            && let Some(block) = blocks.last_mut()
        {
            block.asked = true;
        }
        let line_stops = line.contains('{') && stops(line);
        for part in line.replace(";;", ";\u{1};").split(';').map(str::trim) {
            let part = part
                .strip_prefix("then ")
                .or_else(|| part.strip_prefix("do "))
                .unwrap_or(part);
            if part == "\u{1}" {
                if let Some(block) = blocks.last_mut().filter(|block| block.choice) {
                    block.asked = false;
                    block.without = false;
                }
                continue;
            }
            let word = part.split_whitespace().next().unwrap_or_default();
            let test = (asks.test)(part);
            match word {
                "}" if deeper == 0 => {
                    if let Some(block) = blocks.last_mut().filter(|block| block.function) {
                        if block.groups > 0 {
                            block.groups -= 1;
                        } else {
                            let exits = block.exits;
                            blocks.pop();
                            if let Some(outer) = blocks.last_mut() {
                                outer.asked |= exits;
                            }
                        }
                    }
                }
                _ if part.ends_with('{') && is_function(part) && blocks.len() < BLOCKS_MAX => {
                    blocks.push(Block {
                        function: true,
                        ..Block::default()
                    });
                }
                "if" | "case" | "for" | "while" | "until" if blocks.len() >= BLOCKS_MAX => {
                    deeper += 1;
                }
                "else" | "elif" if deeper > 0 => {}
                "fi" | "done" | "esac" if deeper > 0 => deeper -= 1,
                "if" => blocks.push(Block {
                    asked: test == Some(true),
                    without: test == Some(false),
                    ..Block::default()
                }),
                "case" => blocks.push(Block {
                    choice: (asks.chooses)(part),
                    ..Block::default()
                }),
                "for" | "while" | "until" => blocks.push(Block::default()),
                "else" | "elif" => {
                    if let Some(block) = blocks.last_mut() {
                        *block = Block {
                            asked: if word == "else" {
                                block.without
                            } else {
                                test == Some(true)
                            },
                            without: if word == "else" {
                                block.asked
                            } else {
                                test == Some(false)
                            },
                            ..*block
                        };
                    }
                }
                "fi" | "done" | "esac" if blocks.len() > 1 => {
                    blocks.pop();
                }
                _ => {
                    let opens = part.ends_with('{')
                        || part.contains("|| {")
                        || part.contains("&& {")
                        || word == "{";
                    if let Some(block) = blocks.last_mut().filter(|block| block.function && opens) {
                        block.groups += 1;
                    }
                }
            }
            if let Some(block) = blocks.last_mut().filter(|block| block.choice)
                && let Some((arm, _)) = part.split_once(')')
                && word != "case"
            {
                let arm = arm.trim_matches(['"', '\'', '(', ' ']);
                block.asked = arm == asks.arm;
                block.chosen |= block.asked;
                block.without = arm == "*" && block.chosen;
            }
            let rest = part.strip_prefix("else ").unwrap_or(part);
            let rest = match blocks.last() {
                Some(block) if block.choice => rest.split_once(')').map_or(rest, |(_, rest)| rest),
                _ => rest,
            };
            let ends = after_test(rest);
            if word != "if" && word != "elif" && ends.starts_with("||") | ends.starts_with("&&") {
                // `[[ … ]] || exit 0`, `[[ … ]] && gh pr merge`.
                let wanted = ends.starts_with("||");
                let ends_it = if ends.contains('{') {
                    line_stops
                } else {
                    stops(ends)
                };
                if test == Some(wanted) && ends_it {
                    if let Some(block) = blocks.last_mut() {
                        block.asked = true;
                        block.exits |= line.contains("exit");
                    }
                } else {
                    let led = test == Some(true) && ends.starts_with("&&");
                    see(rest, led || asked(&blocks), index);
                }
                continue;
            }
            let first = rest.trim().split(' ').next().unwrap_or_default();
            if matches!(first, "exit" | "return" | "continue")
                && blocks.last().is_some_and(|block| block.without)
                && let Some(at) = blocks.len().checked_sub(2)
                && let Some(outer) = blocks.get_mut(at)
            {
                outer.asked = true;
                outer.exits |= first == "exit";
            }
            see(rest.trim(), asked(&blocks), index);
        }
        // The lines that this one goes on in.
        for more in index + 1..next {
            see("", last.get(), more);
        }
    }
}

/// Whether a text that ends with a brace begins a function: `name() {`, `function name {`.
fn is_function(part: &str) -> bool {
    part.starts_with("function ")
        || part
            .trim_end_matches(['{', ' '])
            .strip_suffix("()")
            .is_some_and(|name| !name.contains(['$', '=', '|', '"', '\'']))
}

fn stops(text: &str) -> bool {
    ["exit", "return", "continue"]
        .iter()
        .any(|stop| text.split([' ', '}', ';']).any(|word| word == *stop))
}

/// What follows the tests that stand in front of a command: `|| exit 0`.
fn after_test(part: &str) -> &str {
    let mut rest = after_first_test(part);
    while let Some(next) = rest
        .strip_prefix("||")
        .or_else(|| rest.strip_prefix("&&"))
        .map(|next| next.trim_start().trim_start_matches("! "))
        .filter(|next| next.starts_with("[ ") || next.starts_with("[[ "))
    {
        rest = after_first_test(next);
    }
    rest
}

fn after_first_test(part: &str) -> &str {
    let found = part
        .split_once("]]")
        .or_else(|| part.split_once(" ]"))
        .or_else(|| part.split_once("))"))
        .map(|(_, rest)| rest)
        .or_else(|| {
            let at = part.find("grep -")?;
            let rest = part.get(at..)?;
            rest.find(" || ")
                .or_else(|| rest.find(" && "))
                .and_then(|at| rest.get(at..))
        });
    found.unwrap_or_default().trim()
}
