//! One repository, read: its pipelines, bots, owners, agents' files, and what could not be read.

use crate::acts::Op;
use crate::bots::{self, Bot, Duty};
use crate::checkout;
use crate::engine::Subject;
use crate::expr;
use crate::settings::Settings;
use crate::tree::{Tree, is_interesting};
use crate::workflow::{self, Job, Library, Step, Workflow};
use crate::{parallel, pipelines, report::Problem};

/// Most pipeline files read in one repository.
const WORKFLOWS_MAX: usize = 20_000;

/// A repository after reading.
#[derive(Debug)]
pub(crate) struct Repository {
    pub(crate) shown: String,
    pub(crate) tree: Tree,
    pub(crate) subject: Subject,
    pub(crate) problems: Vec<Problem>,
}

/// Repositories by name, with their files.
pub(crate) type Shelf = Vec<(Option<String>, Tree)>;

/// Reads every repository of a scan.
pub(crate) fn read_all(
    trees: Vec<(String, Option<String>, Tree)>,
    settings: &[Settings],
) -> (Shelf, Vec<Repository>) {
    let shelf: Shelf = trees
        .iter()
        .map(|(shown, slug, tree)| {
            let slug = slug
                .clone()
                .or_else(|| checkout::guess_slug(tree.root(), shown));
            (slug, tree.clone())
        })
        .collect();
    let repositories = trees
        .into_iter()
        .enumerate()
        .map(|(here, (shown, _, tree))| {
            let slug = shelf.get(here).and_then(|(slug, _)| slug.clone());
            let own = settings
                .iter()
                .find(|one| match (&one.repository, &slug) {
                    (Some(name), Some(slug)) => name.eq_ignore_ascii_case(slug),
                    (None, _) => here == 0,
                    (Some(_), None) => false,
                })
                .cloned();
            read(here, shown, slug, tree, &shelf, own)
        })
        .collect();
    (shelf, repositories)
}

/// Takes one file's new text into a repository that has been read.
pub(crate) fn edit(subject: &mut Subject, here: usize, shelf: &Shelf, file: &str, text: &str) {
    let mut shelf = shelf.clone();
    let Some((slug, tree)) = shelf.get_mut(here) else {
        return;
    };
    *tree = tree.with(file, text.to_owned());
    let (slug, tree) = (slug.clone(), tree.clone());
    if is_github_workflow(file) {
        let library = Library {
            repositories: &shelf,
            here,
        };
        let read = workflow::read(file, text, &library).ok().flatten();
        let place = subject
            .workflows
            .iter()
            .position(|workflow| workflow.file == file);
        match (place, read) {
            (Some(at), Some(new)) => {
                if let Some(workflow) = subject.workflows.get_mut(at) {
                    *workflow = new;
                }
            }
            (Some(at), None) => {
                subject.workflows.remove(at);
            }
            (None, Some(new)) => subject.workflows.push(new),
            (None, None) => {}
        }
    }
    let mut problems = Vec::new();
    let mut bots = bots::read(&tree, &mut problems);
    inferred_bots(&subject.workflows, &mut bots);
    bots::self_hosted(&subject.workflows, &tree, &mut bots);
    bots::manifests_elsewhere(&subject.workflows, &tree, &mut bots);
    bots.extend(pipelines::servers(&tree, slug.as_deref()));
    subject.bots = bots;
}

fn read(
    here: usize,
    shown: String,
    slug: Option<String>,
    tree: Tree,
    repositories: &[(Option<String>, Tree)],
    settings: Option<Settings>,
) -> Repository {
    let library = Library { repositories, here };
    let mut problems: Vec<Problem> = tree
        .notes()
        .iter()
        .map(|note| {
            // Only what could hold a pipeline is a file that was not read.
            let (file, message) = if is_interesting(&note.file) {
                (note.file.clone(), note.message.clone())
            } else if note.file.is_empty() {
                (String::new(), note.message.clone())
            } else {
                (String::new(), format!("{}: {}", note.file, note.message))
            };
            Problem {
                file,
                line: 0,
                message,
            }
        })
        .collect();
    let (workflows, mut unread) = read_workflows(&tree, &library);
    problems.append(&mut unread);
    let mut found = Vec::new();
    let mut bots = bots::read(&tree, &mut found);
    problems.extend(found.into_iter().map(|(file, line, message)| Problem {
        file,
        line,
        message,
    }));
    inferred_bots(&workflows, &mut bots);
    bots::self_hosted(&workflows, &tree, &mut bots);
    bots::manifests_elsewhere(&workflows, &tree, &mut bots);
    bots.extend(pipelines::servers(&tree, slug.as_deref()));
    let configured = settings
        .as_ref()
        .and_then(|settings| settings.default_branch.clone());
    let (default_branch, default_known) = match configured {
        Some(name) => (name, true),
        None => match tree.root().and_then(checkout::head_branch) {
            Some(checkout::Head::Remote(name)) => (name, true),
            Some(checkout::Head::CheckedOut(name)) => (name, false),
            None => (guess_default(&workflows), false),
        },
    };
    let codeowners = tree
        .files()
        .iter()
        .find(|file| {
            let lower = file.to_ascii_lowercase();
            matches!(
                lower.as_str(),
                "codeowners" | ".github/codeowners" | "docs/codeowners" | ".gitlab/codeowners"
            )
        })
        .filter(|file| tree.read(file).is_ok_and(|text| owns_everything(&text)))
        .cloned();
    Repository {
        shown,
        subject: Subject {
            slug,
            default_branch,
            default_known,
            workflows,
            bots,
            codeowners,
            settings,
        },
        tree,
        problems,
    }
}

/// Whether CODEOWNERS has a rule with an owner that is not only for a few files.
fn owns_everything(text: &str) -> bool {
    text.lines().any(|line| {
        let mut words = line.split_whitespace();
        let pattern = words.next().unwrap_or_default();
        matches!(pattern, "*" | "/" | "/*" | "**" | "/**")
            && words.next().is_some_and(|owner| owner.contains('@'))
    })
}

/// What one pipeline file gave.
type FileRead = (Vec<Workflow>, Vec<Problem>);

fn read_workflows(tree: &Tree, library: &Library<'_>) -> FileRead {
    /// Fewer files than this are not worth a second thread.
    const FILES_MIN: usize = 4;
    let mut files: Vec<&String> = tree
        .files()
        .iter()
        .filter(|file| pipelines::is_pipeline(file))
        .collect();
    let mut out = (Vec::new(), Vec::new());
    if files.len() > WORKFLOWS_MAX {
        out.1.push(Problem {
            file: String::new(),
            line: 0,
            message: format!(
                "{} pipeline files, more than the {WORKFLOWS_MAX} that are read: the rest was passed over",
                files.len()
            ),
        });
        files.truncate(WORKFLOWS_MAX);
    }
    let read = parallel::map(&files, FILES_MIN, |file| read_pipeline(file, tree, library));
    for (mut found, mut unread) in read {
        out.0.append(&mut found);
        out.1.append(&mut unread);
    }
    out
}

fn read_pipeline(file: &str, tree: &Tree, library: &Library<'_>) -> FileRead {
    let problem = |line: usize, message: String| {
        let file = file.to_owned();
        (
            Vec::new(),
            vec![Problem {
                file,
                line,
                message,
            }],
        )
    };
    let text = match tree.read(file) {
        Ok(text) => text,
        Err(error) => return problem(0, error.words()),
    };
    let read = || {
        if is_github_workflow(file) {
            workflow::read(file, &text, library).map(|found| found.into_iter().collect())
        } else {
            pipelines::read(file, &text, library)
        }
    };
    // A defect of a reader costs the file that shows it, not the rest of the scan.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)) {
        Ok(Ok(found)) => {
            let cut = found
                .iter()
                .map(|workflow| (workflow.jobs.len(), workflow.system.jobs_max()))
                .find(|(jobs, most)| jobs >= most);
            let problems = match cut {
                Some((_, most)) => {
                    problem(
                        0,
                        format!("only its first {most} jobs are read; any others were left out"),
                    )
                    .1
                }
                None => Vec::new(),
            };
            (found, problems)
        }
        Ok(Err(error)) => problem(
            error.line,
            if error.message.ends_with("GitHub refuses such a workflow") {
                error.message
            } else {
                format!("not readable as YAML: {}", error.message)
            },
        ),
        Err(_) => problem(
            0,
            "the scanner failed on this file, which is its own defect: please report it".to_owned(),
        ),
    }
}

pub(crate) fn is_github_workflow(file: &str) -> bool {
    let lower = file.to_ascii_lowercase();
    lower
        .strip_prefix(".github/workflows/")
        .is_some_and(|rest| {
            !rest.contains('/') && (rest.ends_with(".yml") || rest.ends_with(".yaml"))
        })
}

/// Where an event tells who opened or pushed to a pull request.
const AUTHORS: &[&str] = &[
    "github.actor",
    "github.triggering_actor",
    "github.event.sender.login",
    "github.event.pull_request.user.login",
];

/// Bots that no file configures but that a workflow waits for by name.
fn inferred_bots(workflows: &[Workflow], bots: &mut Vec<Bot>) {
    let mut seen: Vec<(&str, String, usize)> = Vec::new();
    let mut logins: Vec<(String, String, usize)> = Vec::new();
    let mut own_labels: Vec<(String, String)> = Vec::new();
    for workflow in workflows {
        for job in &workflow.jobs {
            let mut conditions = vec![job.condition.as_ref()];
            conditions.extend(job.steps.iter().map(|step| step.condition.as_ref()));
            for condition in conditions.into_iter().flatten() {
                let Some(expr) = &condition.expr else {
                    continue;
                };
                let mut texts = Vec::new();
                expr::literals(expr, &mut texts);
                // `github.actor == 'x[bot]' && github.event.label.name == 'y'`: it sets the label.
                let pairs = expr::pairs(
                    expr,
                    &[
                        "github.actor",
                        "github.triggering_actor",
                        "github.event.sender.login",
                    ],
                    &["github.event.label.name"],
                );
                own_labels.extend(
                    pairs
                        .into_iter()
                        .map(|(setter, label)| (setter.to_owned(), label.to_owned())),
                );
                // `contains(fromJSON('["a[bot]"]'), …)`.
                let listed: Vec<String> = texts
                    .iter()
                    .filter(|text| text.starts_with('[') && !negated(expr, text))
                    .filter_map(|text| serde_json::from_str::<Vec<String>>(text).ok())
                    .flatten()
                    .collect();
                for text in &listed {
                    if text.ends_with("[bot]")
                        && !matches!(
                            text.as_str(),
                            "dependabot[bot]" | "renovate[bot]" | "github-actions[bot]"
                        )
                    {
                        logins.push((text.clone(), workflow.file.clone(), condition.line));
                    }
                }
                // Accounts of machines by their names; Copilot's has no mark.
                for text in expr::compared(expr, AUTHORS) {
                    let lower = text.to_ascii_lowercase();
                    let machine = ["-bot", "_bot", "-robot", "-automation"]
                        .iter()
                        .any(|end| lower.ends_with(end));
                    let known = ["dependabot", "renovate"]
                        .iter()
                        .any(|mark| lower.contains(mark));
                    if (machine || lower == "copilot") && !known {
                        logins.push((text.to_owned(), workflow.file.clone(), condition.line));
                    }
                }
                for text in texts {
                    let app = text.ends_with("[bot]")
                        && !matches!(
                            text,
                            "dependabot[bot]" | "renovate[bot]" | "github-actions[bot]"
                        );
                    if app && !negated(expr, text) {
                        logins.push((text.to_owned(), workflow.file.clone(), condition.line));
                    }
                    let lower = text.to_ascii_lowercase();
                    for (mark, product) in [("dependabot", "Dependabot"), ("renovate", "Renovate")]
                    {
                        if lower.contains(mark)
                            && (lower.contains("[bot]") || lower.contains(mark))
                            && !negated(expr, text)
                        {
                            seen.push((product, workflow.file.clone(), condition.line));
                        }
                    }
                }
            }
            for step in &job.steps {
                let merges = step
                    .acts
                    .iter()
                    .any(|act| matches!(act.op, Op::Merge { .. } | Op::Approve));
                if merges {
                    let texts = step.run.iter().map(|(text, _)| text).chain(
                        step.with
                            .iter()
                            .filter(|(name, _)| name == "script")
                            .map(|(_, text)| text),
                    );
                    for text in texts {
                        for (mark, product) in
                            [("dependabot", "Dependabot"), ("renovate", "Renovate")]
                        {
                            if text.contains(&format!("{mark}[bot]"))
                                || text.contains(&format!("app/{mark}"))
                            {
                                seen.push((product, workflow.file.clone(), step.line));
                            }
                        }
                    }
                }
                let by_action = step.uses.as_deref().is_some_and(|uses| {
                    let lower = uses.to_ascii_lowercase();
                    lower.starts_with("dependabot/fetch-metadata")
                        || lower.contains("merge-dependabot")
                        || lower.contains("dependabot-auto-merge")
                });
                if by_action {
                    seen.push(("Dependabot", workflow.file.clone(), step.line));
                }
                if step.uses.as_deref().is_some_and(|uses| {
                    uses.to_ascii_lowercase()
                        .starts_with("renovatebot/github-action")
                }) {
                    seen.push(("Renovate", workflow.file.clone(), step.line));
                }
            }
        }
    }
    for (login, file, line) in logins {
        if !bots
            .iter()
            .any(|bot| bot.login == login && matches!(bot.duty, Duty::Opens { .. }))
        {
            // Whatever name the condition gives it, Copilot has one, and its runs wait.
            let copilot = login.to_ascii_lowercase().contains("copilot");
            if copilot
                && bots
                    .iter()
                    .any(|bot| bot.login == "Copilot" && matches!(bot.duty, Duty::Opens { .. }))
            {
                continue;
            }
            let labels = own_labels
                .iter()
                .filter(|(setter, _)| {
                    *setter == login || copilot && setter.to_ascii_lowercase().contains("copilot")
                })
                .map(|(_, label)| label.clone())
                .collect();
            let (login, runs_held) = if copilot {
                ("Copilot".to_owned(), true)
            } else {
                (login, false)
            };
            bots.push(Bot {
                product: "An app",
                login,
                file,
                line,
                duty: Duty::Opens {
                    head: "bot/x",
                    labels,
                    runs_held,
                    base: None,
                    files: None,
                },
            });
        }
    }
    bots::launched(workflows, bots);
    bots::expected(workflows, bots);
    for (product, file, line) in seen {
        let known = bots
            .iter()
            .any(|bot| bot.product == product && matches!(bot.duty, Duty::Opens { .. }));
        if !known {
            bots.push(match product {
                "Dependabot" => bots::dependabot_bot(&file, line, vec!["dependencies".to_owned()]),
                _ => bots::renovate_bot(&file, line, Vec::new()),
            });
        }
    }
}

/// Whether an expression only excludes a text (`github.actor != 'dependabot[bot]'`).
pub(crate) fn negated(expr: &expr::Expr, text: &str) -> bool {
    use expr::{Comparison, Expr};
    fn asks(expr: &Expr, text: &str, positive: bool) -> bool {
        match expr {
            Expr::Literal(_) | Expr::Path(_) => false,
            Expr::Call(_, _) => {
                let mut texts = Vec::new();
                expr::literals(expr, &mut texts);
                positive && texts.contains(&text)
            }
            Expr::Not(inner) => asks(inner, text, !positive),
            Expr::Both(left, right) | Expr::Either(left, right) => {
                asks(left, text, positive) || asks(right, text, positive)
            }
            Expr::Compare(left, comparison, right) => {
                let mut texts = Vec::new();
                expr::literals(left, &mut texts);
                expr::literals(right, &mut texts);
                texts.contains(&text) && ((*comparison == Comparison::Equal) == positive)
            }
        }
    }
    !asks(expr, text, true)
}

fn guess_default(workflows: &[Workflow]) -> String {
    let mut counts: Vec<(&str, usize)> = [
        ("main", 0),
        ("master", 0),
        ("develop", 0),
        ("trunk", 0),
        ("dev", 0),
    ]
    .to_vec();
    for workflow in workflows {
        for trigger in &workflow.triggers {
            if matches!(
                trigger.event.as_str(),
                "push" | "pull_request" | "pull_request_target"
            ) {
                for (name, count) in &mut counts {
                    *count += trigger
                        .branches
                        .iter()
                        .filter(|branch| branch == name)
                        .count();
                }
            }
        }
    }
    for workflow in workflows {
        let conditions = workflow.jobs.iter().flat_map(|job| {
            std::iter::once(job.condition.as_ref())
                .chain(job.steps.iter().map(|step| step.condition.as_ref()))
        });
        for expr in conditions
            .flatten()
            .filter_map(|condition| condition.expr.as_ref())
        {
            let mut texts = Vec::new();
            expr::literals(expr, &mut texts);
            for text in texts {
                let branch = text.strip_prefix("refs/heads/").unwrap_or(text);
                for (name, count) in &mut counts {
                    *count += usize::from(branch == *name);
                }
            }
        }
    }
    // `main` before `master` before the rest, unless the files speak of one more often.
    let (main, master) = (
        counts.first().map_or(0, |c| c.1),
        counts.get(1).map_or(0, |c| c.1),
    );
    if main == 0 && master == 0 {
        return counts
            .iter()
            .skip(2)
            .find(|(_, count)| *count > 0)
            .map_or("main", |(name, _)| name)
            .to_owned();
    }
    if master > main { "master" } else { "main" }.to_owned()
}

/// Every step of a workflow, those of composite actions included.
pub(crate) fn each_step<'a>(workflow: &'a Workflow, visit: &mut dyn FnMut(&'a Job, &'a Step)) {
    fn inner<'a>(job: &'a Job, step: &'a Step, visit: &mut dyn FnMut(&'a Job, &'a Step)) {
        visit(job, step);
        if let Some(composite) = &step.inner {
            for step in &composite.steps {
                inner(job, step, visit);
            }
        }
    }
    for job in &workflow.jobs {
        for step in &job.steps {
            inner(job, step, visit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Labels that each inferred bot sets, where one workflow has this condition.
    fn labels(condition: &str) -> Vec<(String, Vec<String>)> {
        let text = format!(
            "on: pull_request\njobs:\n  a:\n    if: {condition}\n    runs-on: x\n    steps: [{{run: make}}]\n"
        );
        let tree = Tree::memory(std::collections::BTreeMap::new());
        let library = Library {
            repositories: &[(None, tree)],
            here: 0,
        };
        let workflow = workflow::read(".github/workflows/a.yml", &text, &library);
        let workflows: Vec<Workflow> = workflow.ok().flatten().into_iter().collect();
        let mut bots = Vec::new();
        inferred_bots(&workflows, &mut bots);
        bots.into_iter()
            .filter_map(|bot| match bot.duty {
                Duty::Opens { labels, .. } => Some((bot.login, labels)),
                Duty::Merges { .. } | Duty::Serves | Duty::Syncs => None,
            })
            .collect()
    }

    #[test]
    fn a_bot_sets_the_labels_that_a_condition_asks_for_together_with_it() {
        let one = |login: &str, found: &[&str]| {
            let found = found.iter().map(|label| (*label).to_owned()).collect();
            vec![(login.to_owned(), found)]
        };
        let label = "github.event.label.name";
        assert_eq!(
            labels(&format!("github.actor == 'a[bot]' && {label} == 'y'")),
            one("a[bot]", &["y"])
        );
        assert_eq!(
            labels(&format!("github.actor == 'a[bot]' || {label} == 'y'")),
            one("a[bot]", &[])
        );
        assert_eq!(
            labels(&format!(
                "(github.actor == 'a[bot]' || github.actor == 'Ann') && {label} == 'y'"
            )),
            one("a[bot]", &["y"])
        );
        assert_eq!(
            labels(&format!(
                "github.actor == 'copilot-swe-agent[bot]' && {label} == 'y'"
            )),
            one("Copilot", &["y"])
        );
        assert_eq!(
            labels(
                "github.base_ref == 'main' && !contains(fromJSON('[\"a[bot]\"]'), github.actor)"
            ),
            Vec::new()
        );
    }
}
