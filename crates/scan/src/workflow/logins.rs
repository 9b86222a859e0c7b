//! Registries of images that a job logs in to, beside those that it pushes to: a registry without
//! a login refuses the push, the forge's own refuses the job's token without the right to write
//! packages, and others know that token not at all.

use super::{Pairs, Step};
use crate::acts::{Act, Op, Token};

const ELSEWHERE: &str = "the job logs in to another registry than the one that it pushes to";
const FORGE_ONLY: &str = "the job's own token opens no registry but the forge's";
/// The registry of images whose names hold none.
const DOCKER_HUB: &str = "docker.io";
/// Registries of the forge, which the job's token opens.
const FORGE: &[&str] = &[
    "ghcr.io",
    "docker.pkg.github.com",
    "containers.pkg.github.com",
];
const BUILDS: &[&str] = &[
    "docker/build-push-action",
    "depot/build-push-action",
    "useblacksmith/build-push-action",
];

/// Whether a runner is the forge's own, where nobody logged in before.
pub(super) fn is_hosted(runs_on: &str) -> bool {
    let name = runs_on.trim();
    ["ubuntu-", "windows-", "macos-"]
        .iter()
        .any(|start| name.starts_with(start))
}

/// A registry, and whether the job's own token opens it.
struct Login {
    registry: String,
    own: bool,
}

/// Judges the pushes of images of a job by its logins. A job without any login, or with one that
/// can't be read, is left alone. `env` is the job's and its workflow's.
pub(super) fn judge(steps: &mut [Step], env: &[&Pairs], hosted: bool) {
    let mut logins: Vec<Login> = Vec::new();
    let mut made: Vec<(String, Vec<String>)> = Vec::new();
    for step in steps.iter() {
        let Some(found) = logins_of(step, env) else {
            return;
        };
        logins.extend(found);
        if let (Some(id), "docker/metadata-action") = (&step.id, name_of(step).as_str()) {
            let images = input(step, "images").map(|images| images_of(&resolve(images, step, env)));
            made.push((id.clone(), images.unwrap_or_default()));
        }
    }
    if logins.is_empty() {
        return;
    }
    for step in steps {
        let tags = BUILDS
            .contains(&name_of(step).as_str())
            .then(|| input(step, "tags").map(|tags| resolve(tags, step, env)))
            .flatten();
        let tags: Option<Vec<String>> = tags.map(|tags| {
            images_of(&tags)
                .into_iter()
                .flat_map(|tag| {
                    let from = made
                        .iter()
                        .find(|(id, _)| tag.contains(&format!("steps.{id}.outputs.tags")));
                    from.map_or_else(|| vec![tag.clone()], |(_, images)| images.clone())
                })
                .collect()
        });
        let pushes = |act: &&mut Act| act.op == Op::Publish && act.benign.is_none();
        for act in step.acts.iter_mut().filter(pushes) {
            let images = tags.clone().unwrap_or_else(|| pushed(&act.what));
            let registries: Option<Vec<String>> =
                images.iter().map(|image| registry_of(image)).collect();
            if let Some(registries) = registries.filter(|all| !all.is_empty()) {
                weigh(act, &registries, &logins, hosted);
            }
        }
    }
}

fn weigh(act: &mut Act, registries: &[String], logins: &[Login], hosted: bool) {
    let forge = |registry: &String| FORGE.contains(&registry.as_str());
    let known = |registry: &String| logins.iter().any(|login| login.registry == *registry);
    if !registries.iter().any(known) {
        if hosted {
            act.benign = Some(ELSEWHERE);
        }
        return;
    }
    let own = logins
        .iter()
        .filter(|login| registries.contains(&login.registry))
        .all(|login| login.own);
    if !own {
        return;
    }
    if registries.iter().all(forge) {
        act.needs_right = Some("packages");
        act.token = Token::Value("${{ github.token }}".to_owned());
    } else if !registries.iter().any(forge) {
        act.benign = Some(FORGE_ONLY);
    }
}

fn name_of(step: &Step) -> String {
    let uses = step.uses.as_deref().unwrap_or_default();
    let name = uses.split('@').next().unwrap_or_default();
    name.to_ascii_lowercase()
}

fn input<'a>(step: &'a Step, name: &str) -> Option<&'a str> {
    step.with
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

/// The registries that a step logs in to; `None` where that can't be told.
fn logins_of(step: &Step, env: &[&Pairs]) -> Option<Vec<Login>> {
    if step.inner.is_some() {
        return None;
    }
    if let Some((script, _)) = &step.run {
        return script_logins(script, step, env);
    }
    if step.uses.is_none() {
        return Some(Vec::new());
    }
    let name = name_of(step);
    if name == "docker/login-action" {
        // Several registries at once.
        if input(step, "registry-auth").is_some() {
            return None;
        }
        let registry = resolve(input(step, "registry").unwrap_or_default(), step, env);
        let password = resolve(input(step, "password").unwrap_or_default(), step, env);
        return Some(vec![Login {
            registry: host(&registry)?,
            own: is_own(&password),
        }]);
    }
    let (owner, _) = name.split_once('/').unwrap_or_default();
    // What is known to log in nowhere; any other action may.
    let none = matches!(owner, "actions" | "github" | "gradle" | "softprops")
        || name.contains("/setup-")
        || BUILDS.contains(&name.as_str())
        || matches!(
            name.as_str(),
            "docker/metadata-action"
                | "docker/bake-action"
                | "sigstore/cosign-installer"
                | "aquasecurity/trivy-action"
                | "anchore/sbom-action"
        );
    none.then(Vec::new)
}

/// `echo "$TOKEN" | docker login ghcr.io -u name --password-stdin`.
fn script_logins(script: &str, step: &Step, env: &[&Pairs]) -> Option<Vec<Login>> {
    let mut out = Vec::new();
    let script = script
        .replace("\\\n", " ")
        .replace("${{ ", "${{")
        .replace(" }}", "}}");
    for line in script.lines() {
        let line = line.trim();
        if let Some((before, after)) = line.split_once("docker login") {
            let mut words = after.split_whitespace();
            let mut registry = String::new();
            while let Some(word) = words.next() {
                match word {
                    "-u" | "-p" | "--username" | "--password" => {
                        words.next();
                    }
                    word if word.starts_with(['&', '|', ';', '<', '>']) => break,
                    word if word.starts_with('-') => {}
                    word => registry = resolve(word.trim_matches(['"', '\'']), step, env),
                }
            }
            let told = format!("{before} {after}");
            let told = told
                .split_whitespace()
                .map(|word| variable(word, step, env).unwrap_or_else(|| word.to_owned()))
                .collect::<Vec<String>>()
                .join(" ");
            let secret = ["secrets.", "github.token"]
                .iter()
                .flat_map(|mark| told.match_indices(mark))
                .filter(|(at, _)| {
                    let rest = told.get(*at..).unwrap_or_default().to_ascii_lowercase();
                    !rest.starts_with("secrets.github_token") && !rest.starts_with("github.token")
                })
                .count();
            let lower = told.to_ascii_lowercase();
            let own = secret == 0
                && (lower.contains("secrets.github_token") || lower.contains("github.token"));
            out.push(Login {
                registry: host(&registry)?,
                own,
            });
            continue;
        }
        let unclear = [
            "login",
            "log-in",
            "configure-docker",
            "config.json",
            "DOCKER_CONFIG",
            "DOCKER_AUTH",
            "credential",
            ".sh",
            "make ",
            "just ",
        ];
        if unclear.iter().any(|mark| line.contains(mark)) {
            return None;
        }
    }
    Some(out)
}

/// What the environment says of `$NAME`, `"${NAME}"`.
fn variable(word: &str, step: &Step, env: &[&Pairs]) -> Option<String> {
    let name = word
        .trim_matches(['"', '\''])
        .strip_prefix('$')?
        .trim_start_matches('{')
        .trim_end_matches('}');
    lookup(name, step, env).map(str::to_owned)
}

fn lookup<'a>(name: &str, step: &'a Step, env: &[&'a Pairs]) -> Option<&'a str> {
    std::iter::once(&step.env)
        .chain(env.iter().copied())
        .find_map(|pairs| pairs.iter().find(|(key, _)| key == name))
        .map(|(_, value)| value.trim())
}

/// A text with the names of the environment put in.
fn resolve(text: &str, step: &Step, env: &[&Pairs]) -> String {
    if let Some(value) = variable(text, step, env) {
        return value;
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${{") {
        out.push_str(before);
        let Some((inner, tail)) = after.split_once("}}") else {
            break;
        };
        let value = inner
            .trim()
            .strip_prefix("env.")
            .and_then(|name| lookup(name, step, env));
        match value {
            Some(value) => out.push_str(value),
            None => {
                out.push_str("${{");
                out.push_str(inner);
                out.push_str("}}");
            }
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// Whether a password is the job's own token and nothing else.
fn is_own(password: &str) -> bool {
    let inner = password
        .trim()
        .strip_prefix("${{")
        .and_then(|rest| rest.strip_suffix("}}"))
        .map(|inner| inner.trim().to_ascii_lowercase());
    matches!(
        inner.as_deref(),
        Some("secrets.github_token" | "github.token")
    )
}

/// A registry's name as images have it; `None` where it can't be told.
fn host(text: &str) -> Option<String> {
    if text.contains('$') {
        return None;
    }
    let bare = text
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let name = bare.split('/').next().unwrap_or_default();
    let name = name.to_ascii_lowercase();
    let hub = matches!(
        name.as_str(),
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com"
    );
    Some(if hub { DOCKER_HUB.to_owned() } else { name })
}

/// The registry of an image; `None` where its name is made at run time.
fn registry_of(image: &str) -> Option<String> {
    let first = image.split('/').next().unwrap_or_default();
    if first.contains(['$', '{', '}']) {
        // `name:${{ … }}` without an owner.
        let plain = first.split_once(':').map_or("", |(name, _)| name);
        let named = !image.contains('/') && !plain.is_empty() && !plain.contains('$');
        return named.then(|| DOCKER_HUB.to_owned());
    }
    if image.contains('/') && (first.contains(['.', ':']) || first == "localhost") {
        return host(first);
    }
    Some(DOCKER_HUB.to_owned())
}

/// The images of an input, whose lines may say `name=…,enable=…`.
fn images_of(text: &str) -> Vec<String> {
    text.lines()
        .flat_map(|line| {
            let line = line.trim();
            let named: Vec<&str> = match line.strip_prefix("name=") {
                Some(named) => named.split(',').take(1).collect(),
                None => line.split(',').collect(),
            };
            named
        })
        .map(|image| image.trim().trim_matches(['"', '\'']))
        .filter(|image| !image.is_empty() && !image.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

/// The image of a `docker push`.
fn pushed(what: &str) -> Vec<String> {
    let mut words = what.split_whitespace();
    if words.next() != Some("docker") || words.next() != Some("push") {
        return Vec::new();
    }
    words
        .find(|word| !word.starts_with('-'))
        .map(|word| vec![word.trim_matches(['"', '\'']).to_owned()])
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::*;

    fn script(text: &str) -> Option<Vec<(String, bool)>> {
        let step = Step {
            env: vec![("OWN".to_owned(), "${{ github.token }}".to_owned())],
            ..Step::default()
        };
        let found = script_logins(text, &step, &[])?;
        Some(
            found
                .into_iter()
                .map(|login| (login.registry, login.own))
                .collect(),
        )
    }

    #[test]
    fn logins_of_scripts_name_their_registry_and_their_token() {
        for (text, registry, own) in [
            (
                "echo \"$OWN\" | docker login ghcr.io -u x --password-stdin",
                "ghcr.io",
                true,
            ),
            (
                "docker login -u x -p ${{ secrets.GITHUB_TOKEN }} https://ghcr.io/v2/",
                "ghcr.io",
                true,
            ),
            (
                "docker login --username ${{ secrets.HUB_USER }} \\\n  --password ${{ secrets.GITHUB_TOKEN }}",
                DOCKER_HUB,
                false,
            ),
            (
                "echo $OTHER | docker login quay.io -u x --password-stdin && docker push quay.io/a/b",
                "quay.io",
                false,
            ),
        ] {
            assert_eq!(
                script(text),
                Some(vec![(registry.to_owned(), own)]),
                "{text}"
            );
        }
        assert_eq!(script("docker build ."), Some(Vec::new()));
        for unclear in [
            "aws ecr get-login-password | docker login $REGISTRY --password-stdin",
            "az acr login -n x",
            "gcloud auth configure-docker",
            "./ci/registry.sh",
        ] {
            assert_eq!(script(unclear), None, "{unclear}");
        }
    }

    #[test]
    fn images_name_their_registries() {
        for (image, registry) in [
            ("acme/widget:1", Some(DOCKER_HUB)),
            ("widget:${{ github.sha }}", Some(DOCKER_HUB)),
            ("docker.io/acme/widget", Some(DOCKER_HUB)),
            ("ghcr.io/${{ github.repository }}:x", Some("ghcr.io")),
            ("localhost:5000/widget", Some("localhost:5000")),
            ("${{ env.X }}/widget", None),
            ("$X:latest", None),
            ("", Some(DOCKER_HUB)),
        ] {
            assert_eq!(registry_of(image).as_deref(), registry, "{image}");
        }
        let list = "name=ghcr.io/a/b,enable=true\n# none\n a/c , a/d\n";
        assert_eq!(images_of(list), ["ghcr.io/a/b", "a/c", "a/d"]);
        assert!(pushed("docker push").is_empty());
        assert_eq!(pushed("docker push -q 'a/b:1'"), ["a/b:1"]);
    }
}
