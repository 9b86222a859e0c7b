//! JavaScript, TypeScript, Python and Ruby, read for calls of the forges' client libraries.
//!
//! This looks for the names of calls outside comments; it does not follow values. Commands given
//! to a subprocess as text are read as commands.

use super::command::{AgentCall, Shell};
use super::git::shorten;
use super::started::{Ran, subprocess};
use super::{API_ENV, Act, Check, NewPr, Op, Target, Token, http};

/// Most lines of one program.
const LINES_MAX: usize = 20_000;

/// Reads a program that begins at `line` of `file`.
pub(crate) fn read(text: &str, file: &str, line: usize, slug: Option<&str>) -> Vec<Act> {
    let mut seen = Seen::new(slug);
    read_with(text, file, line, &[], &mut seen);
    seen.acts
}

/// Conditions that a program's first stops are for what stands behind them.
fn guarded(text: &str, file: &str, line: usize, acts: &mut Vec<Act>, before: usize) {
    /// Most conditions of one act.
    const ONLY_IF_MAX: usize = 16;
    if acts.len() == before {
        return;
    }
    let found = super::guards::of_program(text);
    for (condition, lines) in found.conditions {
        for act in acts.iter_mut().skip(before) {
            let behind =
                act.line > line + lines.start && act.line <= line.saturating_add(lines.end);
            if act.file == file && behind && act.only_if.len() < ONLY_IF_MAX {
                act.only_if.push(condition.clone());
            }
        }
    }
    for (wanted, lines) in found.labels {
        for act in acts.iter_mut().skip(before) {
            let behind =
                act.line > line + lines.start && act.line <= line.saturating_add(lines.end);
            if let Op::Merge { label, .. } = &mut act.op
                && act.file == file
                && behind
            {
                label.get_or_insert_with(|| wanted.clone());
            }
        }
    }
    let stops_any = |lines: &std::ops::Range<usize>| {
        acts.iter()
            .skip(before)
            .any(|act| act.line > line + lines.start && act.line <= line.saturating_add(lines.end))
    };
    if let Some(lines) = found.by_list.filter(stops_any) {
        let from = lines.start;
        let why = "the script stops unless the account is on its list";
        let mut check = Act::new(Op::Check(Check::Actor(why)), why, Token::Outside);
        check.line = line + from;
        file.clone_into(&mut check.file);
        let at = acts
            .iter()
            .skip(before)
            .position(|act| act.line > check.line)
            .map_or(acts.len(), |at| before + at);
        acts.insert(at, check);
    }
}

/// What a program was seen to do.
pub(super) struct Seen {
    pub(super) acts: Vec<Act>,
    /// Agents that it starts.
    pub(super) agents: Vec<AgentCall>,
    /// Commands that start something of the repository, with their lines.
    pub(super) runs: Vec<(String, usize)>,
    /// Knows which repository this is.
    shell: Shell,
}

impl Seen {
    pub(super) fn new(slug: Option<&str>) -> Self {
        Self {
            acts: Vec::new(),
            agents: Vec::new(),
            runs: Vec::new(),
            shell: Shell {
                slug: slug.map(str::to_owned),
                ..Shell::default()
            },
        }
    }
}

/// Kits by which a program runs an agent with every permission, and the agent.
const KITS: &[(&[&str], &[&str], &str)] = &[
    (
        &[
            "@anthropic-ai/claude-agent-sdk",
            "@anthropic-ai/claude-code",
            "claude_agent_sdk",
            "claude_code_sdk",
        ],
        &["bypassPermissions", "dangerously", "\"Bash\"", "'Bash'"],
        "Claude Code",
    ),
    (
        &["@openai/codex-sdk"],
        &["danger-full-access", "networkAccessEnabled: true"],
        "Codex",
    ),
    (
        &["@github/copilot-sdk"],
        &["approveAll", "allowAll"],
        "Copilot",
    ),
    // Without `cloud`, where Cursor opens pull requests of its own, the agent works in the checkout.
    (&["@cursor/sdk"], &["local: {", "local:{"], "Cursor"),
    (
        &["openhands.sdk"],
        &["TerminalTool", "BashTool"],
        "OpenHands",
    ),
];

/// The agent that a program runs by a kit, with the line that names the kit.
fn by_kit(text: &str, file: &str, line: usize) -> Option<AgentCall> {
    let (kits, _, name) = KITS.iter().find(|(kits, permissions, _)| {
        kits.iter().any(|kit| text.contains(kit))
            && permissions.iter().any(|mark| text.contains(mark))
    })?;
    let at = text
        .lines()
        .position(|line| kits.iter().any(|kit| line.contains(kit)))?;
    Some(AgentCall {
        name,
        file: file.to_owned(),
        line: line + at,
        tools: None,
        command: "a program of the agent's kit".to_owned(),
    })
}

/// The same for a program that has functions of other modules run its commands.
pub(super) fn read_with(text: &str, file: &str, line: usize, helpers: &[String], seen: &mut Seen) {
    seen.agents.extend(by_kit(text, file, line));
    let Seen {
        acts,
        agents,
        runs,
        shell,
    } = seen;
    let first = acts.len();
    let mut wrappers = super::functions::wrappers(text, helpers);
    wrappers.extend(helpers.iter().cloned());
    let mut permission_lookup = None;
    let lines: Vec<&str> = text.lines().take(LINES_MAX).collect();
    let libraries = super::libraries::taken(text);
    let mut block_comment = false;
    for (index, raw) in lines.iter().enumerate() {
        let trimmed = raw.trim_start();
        if block_comment {
            block_comment = !trimmed.contains("*/");
            continue;
        }
        if trimmed.starts_with("/*") {
            block_comment = !trimmed.contains("*/");
            continue;
        }
        if trimmed.starts_with("//") || trimmed.starts_with('#') || trimmed.starts_with('*') {
            continue;
        }
        let at = line + index;
        let before = acts.len();
        call(raw, &lines, index, shell, acts);
        if acts.len() == before {
            acts.extend(http::forge(raw, &lines, index, shell));
        }
        if acts.len() == before && !libraries.is_empty() {
            acts.extend(super::libraries::read(raw, text, &libraries));
        }
        acts.extend(http::hook(raw, &lines, index));
        if raw.contains("getCollaboratorPermissionLevel")
            || raw.contains("get_collaborator_permission")
            || raw.contains("/collaborators/")
        {
            permission_lookup = Some(acts.len());
        }
        if let Some(position) = permission_lookup
            && (raw.contains("setFailed")
                || raw.contains("process.exit(1)")
                || raw.contains("sys.exit(1)")
                || raw.contains("throw ")
                || trimmed.starts_with("return"))
        {
            let check = Act::new(
                Op::Check(Check::Actor(
                    "the script stops unless the actor has the permission it asks for",
                )),
                shorten(trimmed),
                Token::Env(API_ENV),
            );
            acts.insert(position.min(acts.len()), check);
            permission_lookup = None;
        }
        for act in acts.iter_mut().skip(before.saturating_sub(1)) {
            if act.line == 0 {
                act.line = at;
                file.clone_into(&mut act.file);
            }
        }
        let mut ran = Ran {
            acts,
            agents,
            runs,
            shell,
        };
        subprocess(raw, &lines, index, file, at, &wrappers, &mut ran);
    }
    guarded(text, file, line, acts, first);
}

/// Programs in Julia and R that deploy documentation to the branch of the site.
pub(super) fn documenter(text: &str, file: &str) -> Vec<Act> {
    let found = text.lines().enumerate().find_map(|(index, line)| {
        let plain = line.split('#').next().unwrap_or_default();
        ["deploydocs(", "deploy_to_branch(", "deploy_site_github("]
            .iter()
            .find(|call| plain.contains(**call))
            .map(|call| (index + 1, call.trim_end_matches('(')))
    });
    found
        .map(|(line, call)| {
            let push = Op::Push(Target::Branch("gh-pages".to_owned()));
            let mut act = Act::new(push, call, Token::Env(API_ENV));
            act.line = line;
            file.clone_into(&mut act.file);
            act
        })
        .into_iter()
        .collect()
}

/// Modules of the repository that a JavaScript program takes in under one name and calls by it,
/// as paths relative to the program. What only offers functions is not among them: which of these
/// run is not known.
pub(super) fn called_modules(text: &str) -> Vec<String> {
    /// Most modules of one program.
    const MODULES_MAX: usize = 50;
    let mut out = Vec::new();
    for line in text.lines().take(LINES_MAX) {
        let line = line.trim();
        let (name, rest) = if let Some(rest) = line.strip_prefix("import ") {
            rest.split_once(" from ").unwrap_or(("", rest))
        } else if let Some((left, right)) = line.split_once("require(") {
            let name = left.trim().trim_end_matches('=').trim();
            let name = ["const ", "let ", "var "]
                .iter()
                .find_map(|word| name.strip_prefix(word))
                .unwrap_or(name);
            (name, right)
        } else {
            continue;
        };
        let rest = rest.trim_start();
        let Some(quote) = rest.chars().next().filter(|c| matches!(c, '\'' | '"')) else {
            continue;
        };
        let path = rest
            .get(1..)
            .and_then(|inner| inner.split(quote).next())
            .unwrap_or_default();
        let name = name.trim();
        let plain = name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$'));
        if !(path.starts_with("./") || path.starts_with("../")) || !plain {
            continue;
        }
        let called = name.is_empty()
            || line.contains(&format!("{path}{quote})("))
            || text.contains(&format!("{name}("));
        if called && out.len() < MODULES_MAX {
            out.push(path.to_owned());
        }
    }
    out
}

/// A GraphQL request as text.
pub(super) fn graphql(text: &str, what: &str, token: Token) -> Vec<Act> {
    let op = if text.contains("enablePullRequestAutoMerge") {
        super::forge::merge(true)
    } else if text.contains("mergePullRequest") || text.contains("enqueuePullRequest") {
        super::forge::merge(false)
    } else if text.contains("addPullRequestReview") && text.contains("APPROVE") {
        Op::Approve
    } else if text.contains("createCommitOnBranch") {
        Op::Push(Target::Current)
    } else if text.contains("addLabelsToLabelable") {
        Op::Label(Vec::new())
    } else {
        return Vec::new();
    };
    vec![Act::new(op, what, token)]
}

fn call(raw: &str, lines: &[&str], index: usize, shell: &Shell, acts: &mut Vec<Act>) {
    /// Lines of a call that are looked at for its arguments.
    const WINDOW: usize = 14;
    let has = |names: &[&str]| names.iter().any(|name| raw.contains(name));
    let window = || {
        lines
            .iter()
            .skip(index)
            .take(WINDOW)
            .copied()
            .collect::<Vec<_>>()
            .join("\n")
    };
    let token = Token::Env(API_ENV);
    let what = shorten(raw.trim());
    // Julia's registries merge what their bots ask for by one call, which has a variable of its own.
    if has(&["RegistryCI.AutoMerge.run("]) {
        let token = Token::Env(&["AUTOMERGE_GITHUB_TOKEN"]);
        acts.push(Act::new(super::forge::merge(false), what, token));
        return;
    }
    let mut add = |op: Op| acts.push(Act::new(op, what.clone(), token.clone()));
    if has(&[
        "pulls.merge(",
        ".merge_pull_request(",
        "pull.merge(",
        "pr.merge(",
        "pull_request.merge(",
        "mr.merge(",
        "merge_request.merge(",
        "mergerequest.merge(",
        "MergeRequests.merge(",
        "MergeRequests.accept(",
        "PullRequests.Merge(",
        "PullRequest.Merge(",
        "AcceptMergeRequest(",
        ".merge_pull(",
        "PUT /repos/{owner}/{repo}/pulls/{pull_number}/merge",
    ]) {
        add(super::forge::merge(false));
    } else if has(&["enablePullRequestAutoMerge", "enable_automerge("]) {
        add(super::forge::merge(true));
    } else if has(&["mergePullRequest(", "mergePullRequest ("]) && !raw.contains("function") {
        add(super::forge::merge(false));
    } else if has(&[
        "pulls.createReview(",
        "create_review(",
        "pulls.submitReview(",
        "addPullRequestReview",
    ]) && window().contains("APPROVE")
    {
        add(Op::Approve);
    } else if has(&[
        "repos.createRelease(",
        "create_git_release(",
        "create_git_tag_and_release(",
        "create_release(",
        "Repositories.CreateRelease(",
        ".releases.create(",
        "ProjectReleases.create(",
        "repos.uploadReleaseAsset(",
        "Repositories.UploadReleaseAsset(",
        "Repository.Release.Create(",
        "Repository.Release.UploadAsset(",
        ".create_release_asset(",
        "upload_release_asset(",
        "Releases.CreateRelease(",
        "git_repo.create_git_tag_and_release(",
        ".create_git_tag_and_release(",
    ]) {
        let draft = window();
        add(Op::Release {
            draft: (draft.contains("draft: true") || draft.contains("draft=True"))
                .then(|| "true".to_owned()),
            tag: None,
        });
    } else if has(&["repos.updateRelease(", ".update_release("]) {
        // A draft that is published is a release; other changes of a release are none.
        let text = window();
        if text.contains("draft: false") || text.contains("draft=False") {
            add(Op::Release {
                draft: None,
                tag: None,
            });
        }
    } else if has(&[".request('", ".request(\"", ".request(`"]) {
        let text = window();
        let route = raw
            .split(".request(")
            .nth(1)
            .and_then(|rest| rest.split(['\'', '"', '`']).nth(1))
            .unwrap_or_default();
        let (method, path) = route.split_once(' ').unwrap_or(("", route));
        let path = path
            .replace("{owner}/{repo}", "$REPO")
            .replace(":owner/:repo", "$REPO");
        let path = path.trim().to_owned();
        acts.extend(super::forge::request(
            method,
            &path,
            &text,
            token.clone(),
            shell,
        ));
    } else if has(&["git.createRef(", "create_git_ref("]) {
        if window().contains("refs/tags") {
            add(Op::Tag(None));
        }
    } else if has(&["git.updateRef(", "updateRef("]) {
        if window().contains("tags/") && !window().contains("heads/") {
            add(Op::Tag(None));
        } else if window().contains("heads/") {
            let text = window();
            let branch = text
                .split("heads/")
                .nth(1)
                .and_then(|rest| rest.split(['\'', '"', '`', ',', '\n']).next())
                .unwrap_or_default()
                .to_owned();
            add(Op::Push(Target::Branch(branch)));
        }
    } else if has(&[
        "repos.createOrUpdateFileContents(",
        ".update_file(",
        ".create_file(",
        ".update_contents(",
        ".create_contents(",
        "Repositories.UpdateFile(",
        "Repositories.CreateFile(",
    ]) {
        let text = window();
        let branch = quoted_after(&text, "branch")
            .or_else(|| text.contains("branch").then(|| "$branch".to_owned()));
        add(Op::Push(Target::Branch(
            branch.unwrap_or_else(|| "{default}".to_owned()),
        )));
    } else if has(&["repos.mergeUpstream(", "merge_upstream("]) {
        let branch = quoted_after(&window(), "branch");
        add(Op::Push(Target::Branch(
            branch.unwrap_or_else(|| "{default}".to_owned()),
        )));
    } else if has(&["repos.merge(", "repo.merge(", "Repositories.Merge("]) {
        // A branch into another one.
        let named = quoted_after(&window(), "base").or_else(|| {
            lines.iter().find_map(|line| {
                let name = super::reviewed::assigned(line.trim())?;
                let (_, value) = line.split_once('=')?;
                let value = value.trim().trim_end_matches(';');
                (name == "base" && value.starts_with(['\'', '"']))
                    .then(|| value.trim_matches(['\'', '"']).to_owned())
            })
        });
        add(Op::Push(Target::Branch(
            named.unwrap_or_else(|| "{default}".to_owned()),
        )));
    } else if has(&["repos.createDispatchEvent(", "create_repository_dispatch("]) {
        let text = window();
        add(Op::RepositoryDispatch {
            event_type: quoted_after(&text, "event_type"),
            repository: None,
        });
    } else if has(&["actions.createWorkflowDispatch(", "create_dispatch("]) {
        let text = window();
        add(Op::Dispatch {
            workflow: quoted_after(&text, "workflow_id"),
            repository: None,
        });
    } else if has(&["pulls.create(", "create_pull("]) {
        add(Op::CreatePr(NewPr::default()));
    } else if has(&["issues.addLabels(", "add_to_labels("]) {
        let text = window();
        add(Op::Label(
            quoted_after(&text, "labels").into_iter().collect(),
        ));
    } else if has(&[
        "issues.createComment(",
        "create_issue_comment(",
        ".create_comment(",
    ]) {
        let text = window();
        add(Op::Comment(quoted_after(&text, "body")));
    } else if has(&["issues.create(", ".create_issue("]) {
        add(Op::Issue);
    }
}

/// `name: 'text'`, `name="text"`, `name: ['text'`.
fn quoted_after(text: &str, name: &str) -> Option<String> {
    let rest = text.get(text.find(name)? + name.len()..)?;
    let rest = rest.trim_start_matches(['"', '\'']).trim_start();
    let rest = rest.strip_prefix([':', '='])?.trim_start();
    let rest = rest.trim_start_matches('[').trim_start();
    let quote = rest
        .chars()
        .next()
        .filter(|c| matches!(c, '\'' | '"' | '`'))?;
    let inner = rest.get(1..)?;
    inner.get(..inner.find(quote)?).map(str::to_owned)
}
