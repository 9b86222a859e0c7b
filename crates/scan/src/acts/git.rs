//! `git push` and `git tag`.

use super::{Act, Op, Target, Token};
use crate::acts::command::Shell;
use crate::shell::Command;

/// Reads a `git` command.
pub(super) fn read(command: &Command, shell: &mut Shell) -> Vec<Act> {
    let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
    // `git -C dir -c key=value push`.
    let mut rest = words.get(1..).unwrap_or_default();
    let mut directory = None;
    loop {
        rest = match rest {
            ["-C", place, tail @ ..] => {
                directory = Some((*place).to_owned());
                tail
            }
            ["-c" | "--git-dir" | "--work-tree", _, tail @ ..] => tail,
            [flag, tail @ ..] if flag.starts_with('-') => tail,
            _ => break,
        };
    }
    let foreign = directory
        .as_deref()
        .map_or_else(|| shell.foreign.clone(), |place| shell.foreign_of(place));
    match rest {
        ["commit", ..] => {
            shell.committed |= !command.guarded;
            Vec::new()
        }
        // What another repository holds takes the branch's place.
        ["reset", "--hard", place] => {
            let elsewhere = place.contains('/') && !place.starts_with("origin/");
            shell.committed |= elsewhere && !place.contains('$') && !command.guarded;
            Vec::new()
        }
        ["push", arguments @ ..] => {
            let mut acts = push(command, arguments, foreign, shell);
            let must = shell.committed && !command.guarded;
            for act in &mut acts {
                act.must = must && !matches!(act.op, Op::Push(Target::Tags(_)));
            }
            acts
        }
        ["checkout" | "switch", arguments @ ..] => {
            checkout(arguments, shell);
            Vec::new()
        }
        ["subtree", "push", arguments @ ..] => {
            let mut plain = Vec::new();
            let mut words = arguments.iter();
            while let Some(word) = words.next() {
                if matches!(*word, "--prefix" | "-P") {
                    words.next();
                } else if !word.starts_with('-') {
                    plain.push(*word);
                }
            }
            push(command, &plain, foreign, shell)
        }
        ["clone", arguments @ ..] => {
            clone(arguments, shell);
            Vec::new()
        }
        ["worktree", "add", arguments @ ..] => {
            let plain: Vec<&&str> = arguments
                .iter()
                .filter(|word| !word.starts_with('-'))
                .collect();
            if let [place, branch] = plain.as_slice() {
                shell
                    .worktrees
                    .push(((**place).to_owned(), (**branch).to_owned()));
            }
            Vec::new()
        }
        ["remote", "set-url" | "add", name, url, ..] => {
            remote(name, url, shell);
            Vec::new()
        }
        ["init", ..] => {
            // A fresh repository: what is pushed from it goes where its remote says.
            shell.fresh = true;
            shell.branch = None;
            Vec::new()
        }
        ["tag", arguments @ ..] => {
            let lists = arguments.is_empty()
                || arguments.iter().any(|word| {
                    matches!(
                        *word,
                        "-l" | "--list"
                            | "-d"
                            | "--delete"
                            | "--points-at"
                            | "--sort"
                            | "--contains"
                            | "--merged"
                    )
                })
                || arguments.iter().any(|word| word.starts_with("--sort"));
            if !lists {
                let name = arguments
                    .iter()
                    .find(|word| !word.starts_with('-'))
                    .map(|word| (*word).to_owned());
                shell.tagged = name.map(|name| shell.expand(&name));
            }
            Vec::new()
        }
        _ => Vec::new(),
    }
}

fn push(command: &Command, arguments: &[&str], foreign: Option<String>, shell: &Shell) -> Vec<Act> {
    let has = |names: &[&str]| arguments.iter().any(|word| names.contains(word));
    if has(&["--dry-run", "-n"]) || has(&["--delete", "-d"]) {
        return Vec::new();
    }
    let asks = |option: &str| arguments.iter().any(|word| word.contains(option));
    if asks("merge_request.create")
        && (asks("merge_request.merge_when_pipeline_succeeds") || asks("merge_request.auto_merge"))
    {
        // GitLab opens a merge request for the push, and merges it once its pipeline passes.
        let token = Token::Value("secrets.of the remote".to_owned());
        let what = shorten(&command.text());
        return vec![
            Act::new(
                Op::CreatePr(super::NewPr::default()),
                what.clone(),
                token.clone(),
            ),
            Act::new(super::forge::merge(true), what, token),
        ];
    }
    let mut plain = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if matches!(*word, "-o" | "--push-option" | "--repo" | "--receive-pack") {
            words.next();
        } else if !word.starts_with('-')
            && !matches!(*word, ">" | "2>&1" | ">/dev/null")
            && !word.starts_with("2>")
        {
            plain.push(shell.expand(word));
        }
    }
    let remote = plain.first().cloned().unwrap_or_default();
    // A clone that was made with a token is pushed with it.
    let cloned = foreign.as_ref().and_then(|place| {
        let name = format!("clone of {place}");
        shell.remotes.iter().find(|(known, _)| *known == name)
    });
    let refs: Vec<&String> = plain.iter().skip(1).collect();
    let token = match (token_of(&remote, shell), cloned) {
        (Token::Git, Some((name, _))) => token_of(name, shell),
        (token, _) => token,
    };
    let what = shorten(&command.text());
    let act = |target: Target| vec![Act::new(Op::Push(target), what.clone(), token.clone())];
    if matches!(
        remote.as_str(),
        "heroku"
            | "dokku"
            | "scalingo"
            | "caprover"
            | "gigalixir"
            | "clever"
            | "piku"
            | "production"
            | "prod"
            | "live"
            | "azure"
            | "wpengine"
            | "pantheon"
            | "acquia"
            | "space"
            | "hf"
    ) || remote.contains("git.heroku.com")
        // A place where things run, by its name or address.
        || remote.starts_with("dokku@")
        || remote.starts_with("piku@")
        || remote.contains("git.scalingo.com")
        || remote.contains("clever-cloud.com")
        || remote.contains("//dokku@")
        || remote.contains(".scm.azurewebsites.net")
        || remote.contains("git.gigalixir.com")
        || remote.contains("git.wpengine.com")
        || remote.contains(".drush.in")
        || remote.contains("platform.sh:")
    {
        return vec![Act::deploy(what)];
    }
    let elsewhere = url_elsewhere(&remote, shell)
        .or_else(|| {
            shell
                .remotes
                .iter()
                .find(|(name, _)| *name == remote)
                .and_then(|(_, url)| url_elsewhere(url, shell))
        })
        .or(foreign);
    if let Some(place) = elsewhere {
        return match place.split_once('/') {
            // A registry of packages, and one of models whose spaces run.
            Some(("aur.archlinux.org", _)) => vec![Act::publish(what)],
            Some(("huggingface.co", path)) if path.starts_with("datasets/") => {
                vec![Act::publish(what)]
            }
            Some(("huggingface.co", _)) => vec![Act::deploy(what)],
            _ => act(Target::Elsewhere(place)),
        };
    }
    let worktree = shell
        .worktrees
        .iter()
        .find(|(place, _)| shell.directory.as_deref() == Some(place.trim_start_matches("./")))
        .map(|(_, branch)| branch.clone());
    if has(&["--mirror", "--all"]) {
        return act(Target::CurrentAndTags);
    }
    if refs.is_empty() {
        if has(&["--tags"]) {
            return act(Target::Tags(shell.tagged.clone()));
        }
        let target = match worktree.or_else(|| shell.branch.clone()) {
            Some(branch) => Target::Branch(branch),
            None => Target::Current,
        };
        let mut acts = act(target);
        if has(&["--follow-tags"]) {
            acts.extend(act(Target::Tags(shell.tagged.clone())));
        }
        return acts;
    }
    let mut acts = Vec::new();
    for reference in refs {
        let reference = reference.trim_start_matches('+');
        if reference.starts_with(':') {
            continue;
        }
        let destination = reference
            .rsplit_once(':')
            .map_or(reference, |(source, to)| {
                // `${{ a:b }}` never holds a colon that we mean; `HEAD:refs/heads/x` does.
                if source.contains("${{") && !source.contains("}}") {
                    reference
                } else {
                    to
                }
            });
        acts.extend(act(destination_of(destination, shell, worktree.as_deref())));
    }
    if has(&["--tags", "--follow-tags"]) {
        acts.extend(act(Target::Tags(shell.tagged.clone())));
    }
    acts
}

fn destination_of(reference: &str, shell: &Shell, worktree: Option<&str>) -> Target {
    if let Some(tag) = reference.strip_prefix("refs/tags/") {
        return Target::Tags(Some(tag.to_owned()));
    }
    let name = reference.strip_prefix("refs/heads/").unwrap_or(reference);
    if name == "HEAD" {
        return worktree
            .map(str::to_owned)
            .or_else(|| shell.branch.clone())
            .map_or(Target::Current, Target::Branch);
    }
    // A branch that was checked out by its name may look like a version.
    let checked_out = shell.branch.as_deref() == Some(name) && !name.contains('$');
    if !checked_out && looks_like_tag(name) || shell.tagged.as_deref() == Some(name) {
        return Target::Tags(Some(name.to_owned()));
    }
    Target::Branch(name.to_owned())
}

/// `v1.2.3`, `$TAG`, `v$VERSION`, `${{ steps.x.outputs.tag }}`.
pub(crate) fn looks_like_tag(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let version_like = lower.strip_prefix('v').is_some_and(|rest| {
        rest.starts_with(|c: char| c.is_ascii_digit()) || rest.starts_with('$')
    });
    let holds_variable = lower.contains('$');
    version_like
        || (holds_variable
            && (lower.contains("tag") || lower.contains("version"))
            && !lower.contains("branch")
            && !lower.contains('/'))
}

fn checkout(arguments: &[&str], shell: &mut Shell) {
    let mut words = arguments.iter();
    let mut last = None;
    while let Some(word) = words.next() {
        match *word {
            "-b" | "-B" | "-c" | "-C" | "--orphan" | "--create" => {
                if let Some(name) = words.next() {
                    shell.branch = Some(shell.expand(name));
                }
                return;
            }
            "--" => return,
            "-" => shell.branch = None,
            other if other.starts_with('-') => {}
            other => last = last.or(Some(other)),
        }
    }
    if let Some(name) = last
        && !name.contains('.')
        && !name.starts_with("origin/")
    {
        shell.branch = Some(shell.expand(name));
    }
}

fn clone(arguments: &[&str], shell: &mut Shell) {
    let mut plain = Vec::new();
    let mut branch = None;
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match *word {
            "-b" | "--branch" => branch = words.next().map(|name| (*name).to_owned()),
            "--depth" | "-o" | "--origin" | "--filter" | "-c" | "--config" | "--reference" => {
                words.next();
            }
            other if other.starts_with('-') => {}
            other => plain.push(shell.expand(other)),
        }
    }
    let Some(url) = plain.first() else { return };
    let place = plain.get(1).cloned().unwrap_or_else(|| {
        url.trim_end_matches('/')
            .rsplit(['/', ':'])
            .next()
            .unwrap_or_default()
            .trim_end_matches(".git")
            .to_owned()
    });
    let place = place
        .trim_start_matches("./")
        .trim_end_matches('/')
        .to_owned();
    if let Some(elsewhere) = url_elsewhere(url, shell) {
        if url.contains('@') && url.contains('$') {
            shell
                .remotes
                .push((format!("clone of {elsewhere}"), url.clone()));
        }
        shell.clones.push((place, elsewhere));
    } else if let Some(branch) = branch {
        // The same repository on another branch, as is usual for gh-pages.
        shell.worktrees.push((place, branch));
    }
}

fn remote(name: &str, url: &str, shell: &mut Shell) {
    let url = shell.expand(url);
    shell.remotes.retain(|(known, _)| known != name);
    shell.remotes.push((name.to_owned(), url));
}

/// The repository a URL names, where it is surely not this one.
pub(crate) fn url_elsewhere(url: &str, shell: &Shell) -> Option<String> {
    /// Hosts that no pipeline of a forge that is read here stands on.
    const OTHERS: &[&str] = &[
        "aur.archlinux.org",
        "huggingface.co",
        "codeberg.org",
        "salsa.debian.org",
        "git.launchpad.net",
        "git.overleaf.com",
        "gitee.com",
        "git.sr.ht",
        "git.code.sf.net",
        "invent.kde.org",
        "git.drupal.org",
        "git.savannah.gnu.org",
    ];
    for host in OTHERS {
        if let Some((_, after)) = url.split_once(host) {
            let path = after.trim_start_matches(['/', ':']).trim_end_matches('/');
            return Some(format!("{host}/{path}"));
        }
    }
    let (_, after) = url.split_once("github.com")?;
    let path = after.trim_start_matches(['/', ':']).trim_end_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    let lower = path.to_ascii_lowercase();
    if lower.is_empty()
        || lower.contains("github.repository")
        || lower.contains("github_repository")
        || lower.contains("steps.")
    {
        return None;
    }
    if !path.contains('/') {
        return None;
    }
    if shell.is_self(path) {
        return None;
    }
    // `owner/$REPO`: unknown, so it may be this one; a plain name is another one unless it is ours.
    if path.contains('$') {
        let name = path.rsplit('/').next().unwrap_or_default();
        return (!name.contains('$')).then(|| path.to_owned());
    }
    Some(path.to_owned())
}

fn token_of(remote: &str, shell: &Shell) -> Token {
    let url = if remote.contains("://") {
        Some(remote.to_owned())
    } else {
        let name = if remote.is_empty() { "origin" } else { remote };
        shell
            .remotes
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, url)| url.clone())
    };
    match url {
        Some(url) if url.contains('@') && url.contains('$') => {
            let secret = url.split('@').next().unwrap_or_default();
            let secret = secret.rsplit("//").next().unwrap_or_default();
            // `user:token@`, or `token@`; a template may hold a colon only in text.
            let secret = match secret.split_once(':') {
                Some((_, token)) if token.contains('$') => token,
                _ => secret,
            };
            Token::Value(secret.to_owned())
        }
        _ => Token::Git,
    }
}

pub(crate) fn shorten(text: &str) -> String {
    /// Longest command that a report repeats, in characters.
    const SHOWN_MAX: usize = 90;
    let flat: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if flat.chars().count() <= SHOWN_MAX {
        return flat;
    }
    let mut out: String = flat.chars().take(SHOWN_MAX).collect();
    out.push('…');
    out
}
