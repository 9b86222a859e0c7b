//! Registries that a job logs in to, beside those that it pushes to: a registry without a login
//! refuses the push.

use super::Step;
use crate::acts::Op;

const ELSEWHERE: &str = "the job logs in to another registry than the one that it pushes to";
/// The registry of images whose names hold none.
const DOCKER_HUB: &str = "docker.io";

/// Whether a runner is the forge's own, where nobody logged in before.
pub(super) fn is_hosted(runs_on: &str) -> bool {
    let name = runs_on.trim();
    ["ubuntu-", "windows-", "macos-"]
        .iter()
        .any(|start| name.starts_with(start))
}

/// Marks pushes of images to registries that the job does not log in to. A job without any login,
/// or with one that can't be read, is left alone.
pub(super) fn judge(steps: &mut [Step]) {
    let mut known: Vec<String> = Vec::new();
    for step in steps.iter() {
        match login(step) {
            Login::None => {}
            Login::To(registry) => known.push(registry),
            Login::Unclear => return,
        }
    }
    if known.is_empty() {
        return;
    }
    for step in steps {
        let by_input = step.uses.as_deref().is_some_and(|uses| {
            let name = uses.split('@').next().unwrap_or_default();
            matches!(
                name.to_ascii_lowercase().as_str(),
                "docker/build-push-action"
                    | "depot/build-push-action"
                    | "useblacksmith/build-push-action"
            )
        });
        let tags = step
            .with
            .iter()
            .find(|(key, _)| by_input && key.eq_ignore_ascii_case("tags"))
            .map(|(_, tags)| tags.clone());
        for act in step
            .acts
            .iter_mut()
            .filter(|act| act.op == Op::Publish && act.benign.is_none())
        {
            let images = match &tags {
                Some(tags) => images_of(tags),
                None => pushed(&act.what),
            };
            let foreign = !images.is_empty()
                && images.iter().all(|image| {
                    registry_of(image).is_some_and(|registry| !known.contains(&registry))
                });
            if foreign {
                act.benign = Some(ELSEWHERE);
            }
        }
    }
}

enum Login {
    None,
    To(String),
    Unclear,
}

/// The registry that a step logs in to.
fn login(step: &Step) -> Login {
    if step.inner.is_some() {
        return Login::Unclear;
    }
    if let Some((script, _)) = &step.run {
        let marks = [
            "login",
            "log-in",
            "configure-docker",
            "config.json",
            "DOCKER_CONFIG",
            "DOCKER_AUTH",
            "credential",
        ];
        return if marks.iter().any(|mark| script.contains(mark)) || script.contains(".sh") {
            Login::Unclear
        } else {
            Login::None
        };
    }
    let Some(uses) = step.uses.as_deref() else {
        return Login::None;
    };
    let name = uses
        .split('@')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    if name == "docker/login-action" {
        let registry = step
            .with
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case("registry"))
            .map_or("", |(_, value)| value.trim());
        // A file of its own, or several registries at once.
        if step.with.iter().any(|(key, _)| key == "registry-auth") {
            return Login::Unclear;
        }
        return host(registry).map_or(Login::Unclear, Login::To);
    }
    let (owner, _) = name.split_once('/').unwrap_or_default();
    // What is known to log in nowhere; any other action may.
    if matches!(owner, "actions" | "github" | "gradle" | "softprops")
        || name.starts_with("docker/setup-")
        || name.contains("/setup-")
        || matches!(
            name.as_str(),
            "docker/metadata-action"
                | "docker/build-push-action"
                | "docker/bake-action"
                | "depot/build-push-action"
                | "useblacksmith/build-push-action"
                | "sigstore/cosign-installer"
                | "aquasecurity/trivy-action"
                | "anchore/sbom-action"
        )
    {
        Login::None
    } else {
        Login::Unclear
    }
}

/// A registry's name as images have it; `None` where it can't be told.
fn host(text: &str) -> Option<String> {
    if text.contains("${{") || text.contains('$') {
        return None;
    }
    let bare = text
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let name = bare
        .split('/')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    Some(match name.as_str() {
        ""
        | "docker.io"
        | "index.docker.io"
        | "registry-1.docker.io"
        | "hub.docker.com"
        | "registry.hub.docker.com" => DOCKER_HUB.to_owned(),
        _ => name,
    })
}

/// The registry of an image; `None` where its name is made at run time.
fn registry_of(image: &str) -> Option<String> {
    let Some((first, _)) = image.split_once('/') else {
        let plain = !image.starts_with(['$', '{']);
        return plain.then(|| DOCKER_HUB.to_owned());
    };
    if first.contains(['$', '{', '}']) {
        return None;
    }
    if first.contains(['.', ':']) || first == "localhost" {
        return host(first);
    }
    Some(DOCKER_HUB.to_owned())
}

fn images_of(tags: &str) -> Vec<String> {
    tags.split(['\n', ','])
        .map(str::trim)
        .filter(|tag| !tag.is_empty())
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
