//! Jenkinsfiles, as far as they can be read without running Groovy: stages, `when { branch … }`,
//! `input`, `sh` steps and `triggers`.

use super::{Draft, branch_is, is_tag, trigger, workflow};
use crate::acts::Act;
use crate::expr::Expr;
use crate::tree::Tree;
use crate::workflow::{Job, System, Workflow};

/// Most stages of one file.
const STAGES_MAX: usize = 500;

pub(super) fn read(file: &str, text: &str, tree: &Tree) -> Option<Workflow> {
    let mut jobs: Vec<Job> = Vec::new();
    let mut draft = Draft::new("pipeline", 1, file, tree);
    let mut triggers = vec![
        trigger("push", 1),
        trigger("pull_request", 1),
        trigger("workflow_dispatch", 1),
    ];
    let mut asked: Option<usize> = None;
    let images = text.contains("docker.build(")
        || text.contains("docker.image(")
        || text.contains("docker.withRegistry(");
    let mut lines = text.lines().enumerate().peekable();
    let mut comment = false;
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
            let before = std::mem::replace(&mut draft, Draft::new(&id, at, file, tree));
            let previous = before.job.id.clone();
            jobs.push(before.done());
            // Stages follow each other; what a person confirms, the rest waits for.
            if jobs.last().is_some_and(|job| job.condition.is_none()) {
                draft.job.needs.push(previous);
            }
            if let Some(place) = asked {
                draft.job.manual = Some(("a person answers the input step", place));
            }
        }
        if line.starts_with("cron(")
            || line.starts_with("cron ")
            || line.contains("triggers { cron")
            || line.contains("TimerTrigger")
            || line.contains("cron('") && line.contains("pipelineTriggers")
        {
            triggers.push(trigger("schedule", at));
        }
        if line.starts_with("input ")
            || line.starts_with("input{")
            || line.starts_with("input(")
            || line.contains(" input message")
            || line.contains("input(message")
        {
            asked = Some(at);
            draft.job.manual = Some(("a person answers the input step", at));
        }
        if draft.job.condition.is_none()
            && let Some(expr) = condition(line)
        {
            draft.only_if(Some(expr), line, at);
        }
        if let Some(act) = plugin(line, images) {
            draft.act(act, at);
        }
        if let Some(start) = ["sh ", "sh(", "bat ", "bat(", "powershell ", "pwsh "]
            .iter()
            .find_map(|mark| word_at(line, mark))
        {
            let rest = line.get(start..).unwrap_or_default();
            if let Some(mark) = ["\"\"\"", "'''"]
                .into_iter()
                .find(|mark| rest.contains(mark))
            {
                let mut body = rest.split(mark).nth(1).unwrap_or_default().to_owned();
                if rest.matches(mark).count() < 2 {
                    for (_, next) in lines.by_ref() {
                        body.push('\n');
                        if let Some((last, _)) = next.split_once(mark) {
                            body.push_str(last);
                            break;
                        }
                        body.push_str(next);
                    }
                }
                draft.script(&body, at);
            } else if let Some(body) = quoted(rest) {
                draft.script(body, at);
            }
        }
    }
    jobs.push(draft.done());
    Some(workflow(System::Jenkins, file, file, triggers, jobs))
}

/// What a step of a plugin does.
fn plugin(line: &str, images: bool) -> Option<Act> {
    let what = || line.chars().take(80).collect::<String>();
    if images && line.contains(".push(") {
        return Some(Act::publish(what()));
    }
    let starts = |names: &[&str]| {
        names.iter().any(|name| {
            line.split_once(name).is_some_and(|(before, _)| {
                before.trim_end().is_empty() || before.ends_with([' ', '{', ';'])
            })
        })
    };
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
    ]) {
        return Some(Act::deploy(what()));
    }
    starts(&[
        "nexusArtifactUploader",
        "nexusPublisher",
        "rtUpload",
        "rtPublishBuildInfo",
        "rtDockerPush",
        "publishNuget",
    ])
    .then(|| Act::publish(what()))
}

fn word_at(line: &str, mark: &str) -> Option<usize> {
    line.match_indices(mark)
        .find(|(at, _)| {
            *at == 0
                || line
                    .get(..*at)
                    .is_some_and(|before| before.ends_with([' ', '{', '(', '=', ';']))
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
