//! The forges' own commands and HTTP interfaces: `gh`, `hub`, `glab`, `curl`.

use super::command::Shell;
use super::git::shorten;
use super::{API_ENV, Act, Check, GH_ENV, NewPr, Op, Target, Token};
use crate::shell::Command;

/// Mark of a permission look-up that has not been seen to stop the script.
pub(super) const PERMISSION_LOOKUP: &str = "the script looks up the actor's permission";

/// Reads a `gh` command.
pub(super) fn gh(command: &Command, shell: &mut Shell) -> Vec<Act> {
    // `gh -R owner/name release create`: the same as behind the words.
    if let Some(option) = command
        .words
        .get(1)
        .filter(|word| matches!(word.as_str(), "-R" | "--repo") || word.starts_with("--repo="))
    {
        let mut moved = command.clone();
        let taken = if option.contains('=') { 1 } else { 2 };
        let end = moved.words.len().min(1 + taken);
        let options: Vec<String> = moved.words.drain(1..end).collect();
        moved.words.extend(options);
        if moved.words.get(1) != command.words.get(1) {
            return gh(&moved, shell);
        }
    }
    if matches!(command.words.get(1..3), Some([pr, list]) if pr == "pr" && list == "list") {
        shell.selected = command
            .option(&["--label", "-l"])
            .map(|label| shell.expand(label))
            // Counting them selects none.
            .filter(|_| {
                command
                    .option(&["--jq", "-q"])
                    .is_none_or(|query| !query.contains("length"))
            });
        return Vec::new();
    }
    let shell = &*shell;
    let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
    let what = shorten(&command.text());
    let token = Token::Env(GH_ENV);
    let repository = command
        .option(&["--repo", "-R"])
        .map(|text| shell.expand(text))
        .filter(|text| !text.contains('$') && text.contains('/') && !shell.is_self(text));
    let rest: Vec<&str> = words.iter().skip(1).copied().collect();
    let op = match rest.as_slice() {
        ["pr", "merge", ..] => {
            if command.has("--disable-auto") {
                return Vec::new();
            }
            Op::Merge {
                auto: command.has("--auto"),
                admin: command.has("--admin"),
                label: shell.selected.clone(),
                any: true,
            }
        }
        // `--"$VERDICT"`: what a script makes of it is its own decision.
        ["pr", "review", ..]
            if command.has("--approve")
                || command.has("-a")
                || command.words.iter().any(|word| word.starts_with("--$"))
                || may_approve(command, shell) =>
        {
            Op::Approve
        }
        ["pr", "create" | "new", ..] => Op::CreatePr(NewPr {
            labels: labels_of(command, &["--label", "-l"], shell),
            head: command
                .option(&["--head", "-H"])
                .map(|text| shell.expand(text))
                .or_else(|| shell.branch.clone()),
            base: command
                .option(&["--base", "-B"])
                .map(|text| shell.expand(text)),
            release: false,
        }),
        ["pr", "edit", ..] if command.option(&["--base", "-B"]).is_some() => Op::Retarget(
            command
                .option(&["--base", "-B"])
                .map(|base| shell.expand(base))
                .unwrap_or_default(),
        ),
        ["pr" | "issue", "edit", ..] if command.option(&["--add-label"]).is_some() => {
            Op::Label(labels_of(command, &["--add-label"], shell))
        }
        ["pr" | "issue", "comment", ..] => {
            Op::Comment(command.option(&["--body", "-b"]).map(str::to_owned))
        }
        ["issue", "create", ..] => Op::Issue,
        ["release", "create", tag @ ..] => Op::Release {
            draft: (command.has("--draft") || command.has("-d")).then(|| "true".to_owned()),
            tag: tag
                .iter()
                .find(|word| !word.starts_with('-'))
                .map(|word| (*word).to_owned()),
        },
        ["release", "edit", ..] if command.words.iter().any(|word| word == "--draft=false") => {
            Op::Release {
                draft: None,
                tag: None,
            }
        }
        ["release", "upload", ..] => return Vec::new(),
        ["workflow", "run", arguments @ ..] => Op::Dispatch {
            workflow: arguments
                .iter()
                .find(|word| !word.starts_with('-'))
                .map(|word| shell.expand(word)),
            repository: repository.clone(),
        },
        ["repo", "sync", ..] => Op::Push(Target::Current),
        ["api", ..] => return api(command, shell),
        _ => return Vec::new(),
    };
    if let Some(other) = repository
        && !matches!(op, Op::Dispatch { .. })
    {
        // What happens in another repository is no sink of this one.
        return vec![Act::new(Op::Push(Target::Elsewhere(other)), what, token)];
    }
    // A merge that the forge refuses ends its job, unless the script forgives it.
    let must = !command.guarded && matches!(op, Op::Merge { auto: false, .. });
    let mut act = Act::new(op, what, token);
    act.must = must;
    vec![act]
}

/// Whether a command uses a variable that was once set to the word that approves.
fn may_approve(command: &Command, shell: &Shell) -> bool {
    command.words.iter().any(|word| {
        word.contains('$')
            && super::reviewed::words_of(word)
                .iter()
                .any(|name| shell.approving.iter().any(|known| known == name))
    })
}

/// Every label that an option gives, which may be given more than once.
fn labels_of(command: &Command, names: &[&str], shell: &Shell) -> Vec<String> {
    let mut out = Vec::new();
    let mut words = command.words.iter();
    while let Some(word) = words.next() {
        let value = if names.contains(&word.as_str()) {
            words.next().map(String::as_str)
        } else {
            names
                .iter()
                .find_map(|name| word.strip_prefix(name)?.strip_prefix('='))
        };
        let text = value.map(|value| shell.expand(value)).unwrap_or_default();
        out.extend(
            text.split(',')
                .map(|label| label.trim().to_owned())
                .filter(|label| !label.is_empty()),
        );
    }
    out
}

fn api(command: &Command, shell: &Shell) -> Vec<Act> {
    let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
    let has_fields = words
        .iter()
        .any(|word| matches!(*word, "-f" | "-F" | "--field" | "--raw-field" | "--input"));
    let method = command
        .option(&["-X", "--method"])
        .unwrap_or(if has_fields { "POST" } else { "GET" })
        .to_uppercase();
    let Some(path) = words
        .iter()
        .skip(2)
        .find(|word| word.contains('/') || **word == "graphql")
    else {
        return Vec::new();
    };
    let text = command.text();
    request(&method, path, &text, Token::Env(GH_ENV), shell)
}

/// Reads `curl`, `wget` and `http`.
pub(super) fn curl(command: &Command, shell: &Shell) -> Vec<Act> {
    let text = by_event(&shell.expand(&command.text()));
    let lower = text.to_ascii_lowercase();
    let has_body = command.words.iter().any(|word| {
        matches!(
            word.as_str(),
            "-d" | "--data"
                | "--data-raw"
                | "--json"
                | "--data-binary"
                | "-F"
                | "--form"
                | "--post-file"
        ) || word.starts_with("--data=")
            || word.starts_with("--post-data")
    });
    let method = command
        .option(&["-X", "--request", "-Method", "-method", "--method"])
        .map(str::to_uppercase)
        .or_else(|| {
            command.words.iter().find_map(|word| {
                word.strip_prefix("-X")
                    .filter(|rest| !rest.is_empty())
                    .map(str::to_uppercase)
            })
        })
        .unwrap_or_else(|| if has_body { "POST" } else { "GET" }.to_owned());
    let Some(url) = command
        .words
        .iter()
        .skip(1)
        .map(|word| by_event(&shell.expand(word)))
        .find(|word| {
            word.contains("://")
                || word.contains("_URL")
                || word.contains("HOOK")
                || word.contains("/repos/")
        })
    else {
        return Vec::new();
    };
    let token = command
        .words
        .iter()
        .find(|word| {
            word.to_ascii_lowercase().contains("authorization")
                || word.to_ascii_lowercase().contains("private-token")
        })
        .map_or(Token::Env(API_ENV), |header| Token::Value(header.clone()));
    if url.contains("api.github.com")
        || url.contains("GITHUB_API_URL")
        || url.contains("github.api_url")
        || url.contains("/repos/")
    {
        return request(&method, &url, &text, token, shell);
    }
    let gitlab = ["/api/v4/", "CI_API_V4_URL", "/merge_requests/"]
        .iter()
        .any(|mark| url.contains(mark));
    if gitlab {
        return request(&method, &url, &text, token, shell);
    }
    let what = shorten(&text);
    let hook = [
        "build-hook",
        "deploy_hook",
        "deployhook",
        "deploy-hook",
        "build_hook",
        "build_hooks",
        "api.render.com/deploy",
        "api.vercel.com/v1/integrations/deploy",
        "deploy_webhook",
        "webhook_deploy",
        "coolify",
        "/deploy?",
        "deploy_url",
        "portainer",
        "/api/webhooks/",
        "dokploy",
        "/api/deploy/",
        "triggerbuild",
        "redeploy",
        "deploy-webhook",
        "deploywebhook",
        "webhook-deploy",
        "deployment_webhook",
        "deployment_hook",
        "action=deploy",
        "\"action\":\"deploy\"",
    ];
    let started = method == "POST"
        && ["/deploys", "/deployments", "/builds"]
            .iter()
            .any(|end| url.trim_end_matches(['"', '\'']).ends_with(end));
    if started || hook.iter().any(|mark| lower.contains(mark)) {
        let name = crate::acts::is_rehearsal(&url);
        return vec![
            Act::deploy(shorten(&text)).benign_if(name, "the hook names a rehearsal environment"),
        ];
    }
    if (lower.contains("upload.pypi.org")
        || lower.contains("registry.npmjs.org")
        || lower.contains("nexus")
        || lower.contains("artifactory"))
        && (lower.contains("--upload-file")
            || lower.contains(" -t ")
            || method == "PUT"
            || lower.contains(" -f "))
    {
        return vec![Act::publish(what)];
    }
    Vec::new()
}

/// A text with the addresses that an event gives as addresses of the interface.
fn by_event(text: &str) -> String {
    /// What the event calls it, and what it is.
    const GIVEN: &[(&str, &str)] = &[
        ("github.event.pull_request.url", "repos/$REPO/pulls/$NUMBER"),
        (
            "github.event.pull_request._links.self.href",
            "repos/$REPO/pulls/$NUMBER",
        ),
        ("github.event.repository.url", "repos/$REPO"),
    ];
    if !text.contains("github.event.") {
        return text.to_owned();
    }
    let mut out = text.to_owned();
    for (name, path) in GIVEN {
        for template in [format!("${{{{ {name} }}}}"), format!("${{{{{name}}}}}")] {
            out = out.replace(&template, &format!("https://api.github.com/{path}"));
        }
    }
    out
}

/// Whether `curl` posts to a secret address without a body or a header.
pub(super) fn is_bare_post(command: &Command) -> bool {
    /// Flags of one letter whose value follows, those apart that are asked for below.
    const VALUED: &str = "AbcCDeEKmoPQrtuUwxyYz";
    let mut words = command.words.iter().map(String::as_str);
    if words.next() != Some("curl")
        || !command
            .words
            .iter()
            .any(|word| word.contains("${{ secrets."))
    {
        return false;
    }
    let mut posts = false;
    while let Some(word) = words.next() {
        if let Some(long) = word.strip_prefix("--") {
            let (name, value) = long
                .split_once('=')
                .map_or((long, None), |(name, value)| (name, Some(value)));
            if name.starts_with("data")
                || name.starts_with("form")
                || matches!(name, "json" | "header" | "upload-file" | "help")
            {
                return false;
            }
            if name == "request" {
                posts = value
                    .or_else(|| words.next())
                    .is_some_and(|method| method.eq_ignore_ascii_case("post"));
            }
        } else if let Some(letters) = word.strip_prefix('-') {
            for (at, letter) in letters.char_indices() {
                let rest = letters.get(at + letter.len_utf8()..).unwrap_or_default();
                if matches!(letter, 'd' | 'F' | 'H' | 'T' | 'h') {
                    return false;
                }
                if letter == 'X' || VALUED.contains(letter) {
                    let value = if rest.is_empty() {
                        words.next().unwrap_or_default()
                    } else {
                        rest
                    };
                    if letter == 'X' {
                        posts = value.eq_ignore_ascii_case("post");
                    }
                    break;
                }
            }
        }
    }
    posts
}

/// A request to the interface of GitHub or GitLab.
pub(super) fn request(
    method: &str,
    path: &str,
    text: &str,
    token: Token,
    shell: &Shell,
) -> Vec<Act> {
    let path = shell.expand(path);
    let path = path.split_once('?').map_or(path.as_str(), |(path, _)| path);
    let lower = text.to_ascii_lowercase();
    let what = shorten(text);
    let writes = matches!(method, "POST" | "PUT" | "PATCH");
    let named = path
        .split_once("repos/")
        .map(|(_, rest)| rest.split('/').take(2).collect::<Vec<_>>().join("/"))
        .filter(|name| {
            !name.contains('$') && !name.contains('{') && name.contains('/') && !shell.is_self(name)
        });
    if path == "graphql" || path.ends_with("/graphql") {
        return super::code::graphql(text, &what, token);
    }
    if path.contains("/collaborators/") && path.contains("/permission") {
        return vec![Act::new(
            Op::Check(Check::Actor(PERMISSION_LOOKUP)),
            what,
            token,
        )];
    }
    if !writes {
        return Vec::new();
    }
    let moved = (method == "PATCH" && path.contains("/pulls/"))
        .then(|| field(text, "base"))
        .flatten();
    let op = if let Some(base) = moved {
        Op::Retarget(base)
    } else if (path.contains("/pulls/") && path.ends_with("/merge"))
        || path.contains("/merge_requests/") && path.ends_with("/merge")
    {
        merge(lower.contains("merge_when_pipeline_succeeds") || lower.contains("auto_merge"))
    } else if path.contains("/merge_requests/") && path.ends_with("/approve") {
        Op::Approve
    } else if path.contains("/pulls/") && path.contains("/reviews") {
        let by_name = shell
            .approving
            .iter()
            .any(|name| super::reviewed::words_of(text).contains(name));
        if !lower.contains("approve") && !by_name {
            return Vec::new();
        }
        Op::Approve
    } else if path.ends_with("/dispatches") && path.contains("/actions/workflows/") {
        let workflow = path
            .split_once("/workflows/")
            .map(|(_, rest)| rest.trim_end_matches("/dispatches").to_owned());
        Op::Dispatch {
            workflow,
            repository: named.clone(),
        }
    } else if path.ends_with("/dispatches") {
        Op::RepositoryDispatch {
            event_type: field(text, "event_type"),
            repository: named.clone(),
        }
    } else if path.ends_with("/releases") || path.ends_with("/releases/generate") {
        Op::Release {
            draft: (lower.contains("draft=true")
                || lower.contains("\"draft\": true")
                || lower.contains("\"draft\":true"))
            .then(|| "true".to_owned()),
            tag: None,
        }
    } else if path.contains("/git/refs") {
        if lower.contains("refs/tags") || path.contains("/tags/") {
            Op::Tag(None)
        } else if let Some((_, branch)) = path.split_once("/git/refs/heads/") {
            Op::Push(Target::Branch(branch.to_owned()))
        } else {
            return Vec::new();
        }
    } else if path.ends_with("/merge-upstream") {
        Op::Push(Target::Branch(
            field(text, "branch").unwrap_or_else(|| "{default}".to_owned()),
        ))
    } else if path.ends_with("/merges") {
        Op::Push(Target::Branch(
            field(text, "base").unwrap_or_else(|| "main".to_owned()),
        ))
    } else if path.contains("/contents/") && method == "PUT" {
        match field(text, "branch") {
            Some(branch) => Op::Push(Target::Branch(branch)),
            None => Op::Push(Target::Branch("{default}".to_owned())),
        }
    } else if path.contains("/repository/tags") {
        Op::Tag(None)
    } else if path.ends_with("/repository/commits") || path.contains("/repository/files/") {
        let branch = field(text, "branch").filter(|name| !name.contains('$'));
        Op::Push(Target::Branch(
            branch.unwrap_or_else(|| "{default}".to_owned()),
        ))
    } else if path.ends_with("/trigger/pipeline") || path.ends_with("/pipeline") {
        Op::Dispatch {
            workflow: None,
            repository: None,
        }
    } else if path.ends_with("/merge_requests") {
        Op::CreatePr(NewPr::default())
    } else if path.ends_with("/labels") {
        Op::Label(Vec::new())
    } else if path.ends_with("/comments") {
        Op::Comment(None)
    } else if path.ends_with("/pulls") {
        Op::CreatePr(NewPr::default())
    } else if path.ends_with("/issues") {
        Op::Issue
    } else if path.ends_with("/pages/builds") || path.ends_with("/pages/deployments") {
        // The job's own token needs the right; another's is not asked for it.
        let own = matches!(&token, Token::Value(text) if {
            let text = text.to_ascii_lowercase();
            text.contains("secrets.github_token") || text.contains("github.token")
        });
        let mut act = Act::deploy(what);
        act.needs_right = own.then_some("pages");
        return vec![act];
    } else {
        return Vec::new();
    };
    if let Some(other) = named
        && !matches!(op, Op::Dispatch { .. } | Op::RepositoryDispatch { .. })
    {
        return vec![Act::new(Op::Push(Target::Elsewhere(other)), what, token)];
    }
    vec![Act::new(op, what, token)]
}

/// The value of `name` in `name=value` or JSON.
fn field(text: &str, name: &str) -> Option<String> {
    let at = text.find(name)?;
    let rest = text.get(at + name.len()..)?;
    let rest = rest.trim_start_matches(['"', '\'', '\\', ':', '=', ' ']);
    let end = rest
        .find(['"', '\'', ',', ' ', '}', '\\'])
        .unwrap_or(rest.len());
    rest.get(..end)
        .filter(|value| !value.is_empty())
        .map(str::to_owned)
}

pub(super) fn merge(auto: bool) -> Op {
    Op::Merge {
        auto,
        admin: false,
        label: None,
        any: true,
    }
}

pub(super) fn hub(words: &[&str]) -> Vec<Act> {
    let what = shorten(&words.join(" "));
    let token = Token::Env(API_ENV);
    match words.get(1..) {
        Some(["release", "create", ..]) => vec![Act::new(
            Op::Release {
                draft: None,
                tag: None,
            },
            what,
            token,
        )],
        Some(["pull-request", ..]) => vec![Act::new(Op::CreatePr(NewPr::default()), what, token)],
        _ => Vec::new(),
    }
}

pub(super) fn glab(command: &Command) -> Vec<Act> {
    let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
    let what = shorten(&command.text());
    let token = Token::Env(&["GITLAB_TOKEN", "GITLAB_ACCESS_TOKEN"]);
    let op = match words.get(1..) {
        Some(["mr", "merge" | "accept", ..]) => {
            merge(command.has("--when-pipeline-succeeds") || command.has("--auto-merge"))
        }
        Some(["mr", "approve", ..]) => Op::Approve,
        Some(["mr", "create", ..]) => Op::CreatePr(NewPr::default()),
        Some(["release", "create", ..]) => Op::Release {
            draft: None,
            tag: None,
        },
        Some(["ci" | "pipeline", "run" | "trigger", ..]) => Op::Dispatch {
            workflow: None,
            repository: None,
        },
        _ => return Vec::new(),
    };
    vec![Act::new(op, what, token)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_post_has_no_body_and_no_header() {
        let bare = |text: &str| {
            crate::shell::commands(text)
                .first()
                .is_some_and(is_bare_post)
        };
        for text in [
            "curl -X POST ${{ secrets.URL }}",
            "curl -f -XPOST ${{ secrets.URL }}",
            "curl -fsSX POST -o /dev/null ${{ secrets.URL }}",
            "curl --fail --request=post '${{ secrets.URL }}'",
        ] {
            assert!(bare(text), "{text}");
        }
        for text in [
            "curl ${{ secrets.URL }}",
            "curl -X POST https://example.com",
            "curl -X POST -F file=@x ${{ secrets.URL }}",
            "curl -sXPOST -dx=1 ${{ secrets.URL }}",
            "curl --request POST --data-raw x ${{ secrets.URL }}",
            "curl -X POST -H 'A: b' ${{ secrets.URL }}",
            "curl -o POST -X GET ${{ secrets.URL }}",
        ] {
            assert!(!bare(text), "{text}");
        }
    }
}
