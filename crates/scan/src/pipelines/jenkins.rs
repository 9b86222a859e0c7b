//! Jenkinsfiles, as far as they can be read without running Groovy: stages, `when { branch … }`,
//! `input`, `sh` steps and `triggers`.

mod blocks;
mod when;

use super::{Draft, Here, branch_is, is_tag, trigger, workflow};
use crate::acts::Act;
use crate::expr::Expr;
use crate::workflow::{Condition, Job, System, Workflow};

/// Most stages of one file.
const STAGES_MAX: usize = 500;
/// Most steps of one line.
const STEPS_MAX: usize = 50;

pub(super) fn read(file: &str, text: &str, here: Here<'_>) -> Option<Workflow> {
    let mut jobs: Vec<Job> = Vec::new();
    let mut draft = Draft::new("pipeline", 1, file, here);
    let mut triggers = vec![
        trigger("push", 1),
        trigger("pull_request", 1),
        trigger("workflow_dispatch", 1),
    ];
    // Jobs that wait for a person, before which nothing behind them runs.
    let mut asking: Vec<String> = Vec::new();
    // Branches that run side by side: how deep they stand, what they follow, who asked before.
    let mut parallel: Option<(usize, String, usize)> = None;
    let images = Images::of(text);
    let parameters = when::parameters(text);
    let variables = when::variables(text);
    draft.job.env.clone_from(&variables);
    let all: Vec<&str> = text.lines().collect();
    let mut lines = text.lines().enumerate().peekable();
    let mut comment = false;
    let mut blocks = blocks::Blocks::default();
    while let Some((index, raw)) = lines.next() {
        let line = raw.trim();
        let at = index + 1;
        if comment || line.starts_with("/*") {
            comment = !line.contains("*/");
            continue;
        }
        if line.starts_with("//") || line.starts_with('*') {
            continue;
        }
        if line.starts_with("stage(") || line.starts_with("stage (") {
            if jobs.len() >= STAGES_MAX {
                break;
            }
            let name = quoted(line).unwrap_or("stage");
            let id = format!("{name}:{at}");
            let before = std::mem::replace(&mut draft, Draft::new(&id, at, file, here));
            draft.job.env.clone_from(&variables);
            let previous = before.job.id.clone();
            jobs.push(before.done());
            let beside = parallel
                .as_ref()
                .filter(|(depth, ..)| blocks.depth >= *depth);
            // Stages follow each other; what a person confirms, the rest waits for.
            match beside {
                Some((_, before, asked)) => {
                    draft.job.needs.push(before.clone());
                    draft.job.after.extend(asking.iter().take(*asked).cloned());
                }
                None => {
                    parallel = None;
                    if jobs.last().is_some_and(|job| job.condition.is_none()) {
                        draft.job.needs.push(previous);
                    }
                    draft.job.after.clone_from(&asking);
                }
            }
        }
        let timed = ["cron(", "cron ", "parameterizedCron(", "parameterizedCron "]
            .iter()
            .filter_map(|mark| line.get(word_at(line, mark)? + mark.len()..))
            .any(|rest| rest.trim_start().starts_with(['\'', '"', 'e']) || rest.is_empty());
        if timed || line.contains("new TimerTrigger") {
            triggers.push(trigger("schedule", at));
        }
        let asked_when = word_at(line, "when {").or_else(|| word_at(line, "when{"));
        if let Some(start) = asked_when
            && draft.job.condition.is_none()
        {
            let lines = all
                .get(index..(index + when::LINES_MAX).min(all.len()))
                .unwrap_or_default()
                .join("\n");
            let rest = lines
                .trim_start()
                .get(start..)
                .unwrap_or_default()
                .to_owned();
            if let Some(expr) = when::read(&rest, &parameters) {
                draft.only_if(Some(expr), line, at);
            }
        }
        if draft.job.condition.is_none()
            && let Some(expr) = condition(line)
        {
            draft.only_if(Some(expr), line, at);
        }
        let before = draft.job.steps.len();
        if let Some(act) = plugin(line, &images) {
            draft.act(act, at);
        }
        if let (Some(step), Some(expr)) = (
            draft.job.steps.get_mut(before),
            blocks.condition_at(line.split('(').next().unwrap_or_default(), &parameters),
        ) {
            step.condition = Some(under(expr, at));
        }
        if let Some(place) = asks(line)
            && asking.len() < STAGES_MAX
        {
            let text = ("a person answers the input step", at);
            let there = line.get(..place).unwrap_or_default();
            match blocks.condition_at(there, &parameters) {
                // Only some are asked: a job of its own, which the rest waits for where it runs.
                Some(expr) => {
                    let mut asks = Draft::new(&format!("input:{at}"), at, file, here);
                    asks.job.needs.clone_from(&draft.job.needs);
                    asks.job.after.clone_from(&draft.job.after);
                    let stage = draft.job.condition.as_ref().and_then(|it| it.expr.clone());
                    let all = stage.map_or(expr.clone(), |stage| super::both(stage, expr));
                    asks.only_if(Some(all), "if", at);
                    asks.job.manual = Some(text);
                    asking.push(asks.job.id.clone());
                    draft.job.after.push(asks.job.id.clone());
                    jobs.push(asks.done());
                }
                None => {
                    draft.job.manual = Some(text);
                    asking.push(draft.job.id.clone());
                }
            }
        }
        let mut rest = line;
        for _ in 0..STEPS_MAX {
            let Some(start) = step_at(rest) else { break };
            blocks.pass(rest.get(..start).unwrap_or_default(), &parameters);
            let step = rest.get(start..).unwrap_or_default();
            let Some(Words {
                body,
                after,
                closed,
            }) = words(step)
            else {
                break;
            };
            let mut body = body.to_owned();
            rest = after;
            if let Some(mark) = closed.err() {
                for (_, next) in lines.by_ref() {
                    body.push('\n');
                    if let Some((last, _)) = next.split_once(mark) {
                        body.push_str(last);
                        break;
                    }
                    body.push_str(next);
                }
            }
            draft.script(&unescaped(&body), at);
            if let (Some(expr), Some(step)) = (blocks.condition(), draft.job.steps.last_mut()) {
                step.condition = Some(under(expr, at));
            }
        }
        blocks.pass(rest, &parameters);
        blocks.end_line();
        if parallel.is_none() && word_at(line, "parallel {").is_some() {
            parallel = Some((blocks.depth, draft.job.id.clone(), asking.len()));
        }
    }
    jobs.push(draft.done());
    Some(workflow(System::Jenkins, file, file, triggers, jobs))
}

fn under(expr: Expr, line: usize) -> Condition {
    Condition {
        text: "if".to_owned(),
        line,
        expr: Some(expr),
    }
}

/// Where a line asks a person: `input 'Deploy?'`, `input(message: …)`, `input { … }`.
fn asks(line: &str) -> Option<usize> {
    ["input ", "input(", "input{"].iter().find_map(|mark| {
        let at = word_at(line, mark)?;
        line.get(at + mark.len()..)
            .is_some_and(|rest| {
                let rest = rest.trim_start();
                rest.is_empty()
                    || rest.starts_with(['\'', '"', '(', '{'])
                    || ["message", "id", "ok", "parameters", "submitter"]
                        .iter()
                        .any(|name| {
                            rest.strip_prefix(name).is_some_and(|rest| {
                                rest.trim_start().starts_with([':', ' ', '"', '\''])
                            })
                        })
            })
            .then_some(at)
    })
}

/// Where the script of the next step that runs one is to be looked for.
fn step_at(line: &str) -> Option<usize> {
    const STEPS: &[&str] = &[
        "sh ",
        "sh(",
        "bat ",
        "bat(",
        "powershell ",
        "powershell(",
        "pwsh ",
        "pwsh(",
    ];
    // `sh(` may stand on a line of its own, before its arguments.
    if line.starts_with("script:") {
        return Some(0);
    }
    let (start, mark) = STEPS
        .iter()
        .filter_map(|mark| Some((word_at(line, mark)?, mark)))
        .min()?;
    let rest = line.get(start..)?;
    // Its script may stand behind its label.
    let script = rest.find("script:").filter(|at| {
        !rest
            .get(mark.len()..*at)
            .unwrap_or_default()
            .contains(['}', ';'])
    });
    Some(start + script.unwrap_or_default())
}

/// A text in quotes.
struct Words<'a> {
    body: &'a str,
    after: &'a str,
    /// The quotes that end it on a later line.
    closed: Result<(), &'static str>,
}

fn words(text: &str) -> Option<Words<'_>> {
    let start = text.find(['\'', '"'])?;
    let rest = text.get(start..)?;
    if let Some(mark) = ["\"\"\"", "'''"]
        .into_iter()
        .find(|mark| rest.starts_with(mark))
    {
        let inner = rest.get(mark.len()..)?;
        return Some(match inner.split_once(mark) {
            Some((body, after)) => Words {
                body,
                after,
                closed: Ok(()),
            },
            None => Words {
                body: inner,
                after: "",
                closed: Err(mark),
            },
        });
    }
    let quote = rest.chars().next()?;
    let inner = rest.get(1..)?;
    let mut escaped = false;
    let end = inner.find(|c| {
        let ends = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })?;
    Some(Words {
        body: inner.get(..end)?,
        after: inner.get(end + 1..)?,
        closed: Ok(()),
    })
}

/// A text without the backslashes that Groovy takes away.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c == '\\' {
            match rest.peek() {
                Some('$' | '"' | '\'' | '\\') => {
                    out.extend(rest.next());
                    continue;
                }
                Some('n') => {
                    let _ = rest.next();
                    out.push('\n');
                    continue;
                }
                _ => {}
            }
        }
        out.push(c);
    }
    out
}

/// What a step of a plugin does.
fn plugin(line: &str, images: &Images<'_>) -> Option<Act> {
    let what = || line.chars().take(80).collect::<String>();
    if images.pushed(line) {
        return Some(Act::publish(what()));
    }
    let starts = |names: &[&str]| names.iter().any(|name| word_at(line, name).is_some());
    if starts(&[
        "sshPublisher(",
        "sshPublisher ",
        "kubernetesDeploy(",
        "kubernetesDeploy ",
        "openshiftDeploy",
        "ansiblePlaybook(",
        "ansiblePlaybook ",
        "deploy adapters",
        "deploy(adapters",
        "azureWebAppPublish",
        "s3Upload(",
        "s3Upload ",
        "cfnUpdate(",
        "pushToCloudFoundry",
        "octopusDeployRelease",
        "sshCommand ",
        "sshCommand(",
        "sshScript ",
        "sshScript(",
        "sshPut ",
        "sshPut(",
        "ftpPublisher",
        "cifsPublisher",
        "googleStorageUpload",
        "createDeployment(",
        "ebCreateApplicationVersion",
        "ebUpdateEnvironment",
        "lambdaUpdateFunction",
        "invokeLambdaDeploy",
        "azureFunctionAppPublish",
        "acsDeploy",
        "aksDeploy",
        "salt(",
        "salt authtype",
        "openshiftTag",
    ]) || line.contains("KubernetesEngineBuilder")
        || line.contains(".rollout().latest(")
    {
        return Some(Act::deploy(what()));
    }
    starts(&[
        "nexusArtifactUploader",
        "nexusPublisher",
        "rtUpload",
        "rtPublishBuildInfo",
        "rtDockerPush",
        "publishNuget",
        "rtMavenDeployer",
        "rtGradleDeployer",
        "androidApkUpload",
        "appCenter(",
        "appCenter ",
        "octopusPushPackage",
        "octopusCreateRelease",
        "uploadProgetPackage",
    ])
    .then(|| Act::publish(what()))
    .or_else(|| {
        let release = crate::acts::Op::Release {
            draft: None,
            tag: None,
        };
        let token = crate::acts::Token::Value("secrets.of the plugin".to_owned());
        starts(&["createGitHubRelease"]).then(|| Act::new(release, what(), token))
    })
}

/// The variables of a file that hold images of the Docker plugin.
struct Images<'a> {
    names: Vec<&'a str>,
    /// Variables that hold lists, which Groovy pushes to as well.
    lists: Vec<&'a str>,
    /// Whether the file logs in to a registry, for images that come from elsewhere.
    registry: bool,
}

impl<'a> Images<'a> {
    fn of(text: &'a str) -> Self {
        let mut images = Self {
            names: Vec::new(),
            lists: Vec::new(),
            registry: text.contains("docker.withRegistry("),
        };
        for line in text.lines() {
            let Some((left, right)) = line.split_once('=') else {
                continue;
            };
            let name = last_name(left.trim_end());
            let right = right.trim_start();
            if name.is_empty() {
                continue;
            }
            if right.starts_with("docker.build") || right.starts_with("docker.image") {
                images.names.push(name);
            } else if right.starts_with('[') {
                images.lists.push(name);
            }
        }
        images
    }

    /// Whether a line pushes an image.
    fn pushed(&self, line: &str) -> bool {
        line.match_indices(".push(").any(|(at, _)| {
            let before = line.get(..at).unwrap_or_default();
            let name = last_name(before);
            before.contains("docker.build")
                || before.contains("docker.image")
                || self.names.contains(&name)
                || self.registry && !self.lists.contains(&name)
                // A call that goes on from the line above.
                || before.is_empty() && !self.names.is_empty()
        })
    }
}

/// The name at the end of a text.
fn last_name(text: &str) -> &str {
    text.rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .next()
        .unwrap_or_default()
}

fn word_at(line: &str, mark: &str) -> Option<usize> {
    line.match_indices(mark)
        .find(|(at, _)| {
            *at == 0
                || line
                    .get(..*at)
                    .is_some_and(|before| before.ends_with([' ', '{', '(', '[', '=', ';']))
        })
        .map(|(at, _)| at)
}

/// The first text in quotes.
fn quoted(text: &str) -> Option<&str> {
    let start = text.find(['\'', '"'])?;
    let quote = text.get(start..)?.chars().next()?;
    let rest = text.get(start + 1..)?;
    rest.rfind(quote)
        .and_then(|end| rest.get(..end))
        .map(|inner| {
            // `stage('a') { sh 'b' }` on one line: the first text only.
            inner.split(quote).next().unwrap_or(inner)
        })
}

fn condition(line: &str) -> Option<Expr> {
    if line.contains("buildingTag()") || line.contains("tag ") && line.contains("when") {
        return Some(is_tag());
    }
    let at = line.find("branch ").or_else(|| line.find("branch("))?;
    let before = line.get(..at).unwrap_or_default();
    if !(before.trim().is_empty() || before.contains("when") || before.trim_end().ends_with('{')) {
        return None;
    }
    let name = quoted(line.get(at..)?)?;
    Some(branch_is(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_found_behind_its_name_in_another_word() {
        let images = Images::of("");
        for line in [
            "s3Upload(file: 'x')",
            "script { s3Upload(file: 'x') }",
            "mys3Upload(1); s3Upload(file: 'x')",
        ] {
            assert!(plugin(line, &images).is_some(), "{line}");
        }
        assert!(plugin("mys3Upload(file: 'x')", &images).is_none());
    }

    #[test]
    fn only_images_are_pushed() {
        let images = Images::of("def app = docker.build(tag)\nresults = []\n");
        for line in [
            "app.push()",
            "docker.image('a').push('b')",
            "if (x) { app.push(tag) }",
        ] {
            assert!(images.pushed(line), "{line}");
        }
        for line in ["results.push(app)", "other.push(1)", "app.pushed(1)"] {
            assert!(!images.pushed(line), "{line}");
        }
        let registry = Images::of("docker.withRegistry('', 'x') {\nresults = []\n");
        assert!(registry.pushed("image.push('latest')"));
        assert!(!registry.pushed("results.push('latest')"));
    }
}
