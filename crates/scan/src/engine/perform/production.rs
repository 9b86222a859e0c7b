//! Whether what a run ships is production: its branch, and the credentials that its job holds.

use super::super::Reference;
use super::super::run::Run;
use super::super::scope::Names;
use crate::acts::SinkKind;
use crate::workflow::{Job, System};

/// Whether a job holds a credential that a registry may take: a secret that is not the forge's or
/// a service's for reports, or the identity that trusted publishing asks for.
pub(super) fn holds_registry(run: &Run<'_>, job: &Job, names: &Names<'_>) -> bool {
    if run.workflow.system != System::GitHub {
        return true;
    }
    let permissions = job
        .permissions
        .as_ref()
        .or(run.workflow.permissions.as_ref());
    if permissions.is_some_and(|permissions| permissions.writes("id-token")) {
        return true;
    }
    let counts = |value: &str| {
        value.match_indices("secrets.").any(|(at, _)| {
            let name: String = value
                .get(at + 8..)
                .unwrap_or_default()
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect::<String>()
                .to_ascii_uppercase();
            ![
                "GITHUB",
                "GH_",
                "_PAT",
                "PAT_",
                "CODECOV",
                "SONAR",
                "SLACK",
                "DISCORD",
                "_APP_",
                "APP_",
                "PRIVATE_KEY",
                "BOT",
            ]
            .iter()
            .any(|mark| name.contains(mark))
                && name != "PAT"
        })
    };
    let given = |test: &dyn Fn(&str) -> bool| {
        names
            .env
            .iter()
            .any(|layer| layer.iter().any(|(_, value)| test(value)))
            || job.steps.iter().any(|step| {
                step.env
                    .iter()
                    .chain(&step.with)
                    .any(|(_, value)| test(value))
                    || step.run.as_ref().is_some_and(|(text, _)| test(text))
            })
    };
    // Where the files show no credential at all, it comes from elsewhere, whatever it is.
    given(&counts) || !given(&|value| value.contains("secrets.") || value.contains("github.token"))
}

/// Whether a tool that releases from certain branches only would do so in this run.
pub(super) fn on_release_branch(run: &Run<'_>) -> bool {
    if run.is_pull_request() {
        return false;
    }
    match &run.event.reference {
        Reference::Default => true,
        Reference::Branch(name) => {
            is_production_branch(name)
                || matches!(
                    name.as_str(),
                    "next" | "next-major" | "beta" | "alpha" | "rc"
                )
                || name.ends_with(".x")
        }
        Reference::Other | Reference::Tag(_) => false,
    }
}

/// A build of a branch that is not the default one may or may not be production.
pub(super) fn branch_fact(run: &Run<'_>, kind: SinkKind) -> Option<String> {
    if run.event_name == "pull_request" && !run.event.merged {
        return Some(format!(
            "whether what a pull request's run {}es is production",
            kind.word().trim_end_matches("es")
        ));
    }
    match (&run.event.reference, run.event.name) {
        (Reference::Branch(name), "push") if !is_production_branch(name) => Some(format!(
            "whether what is made from the branch {name} is production"
        )),
        (Reference::Other, "push") => {
            Some("whether what is made from any branch is production".to_owned())
        }
        _ => None,
    }
}

fn is_production_branch(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    matches!(
        lower.as_str(),
        "main"
            | "master"
            | "production"
            | "prod"
            | "live"
            | "release"
            | "releases"
            | "deploy"
            | "stable"
            | "trunk"
            | "latest"
    ) || lower.starts_with("release/")
        || lower.starts_with("release-")
}
