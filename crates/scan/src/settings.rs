//! Exported forge settings, as far as a scan uses them.

use portcullis_model::Refusal;
use serde::Deserialize;

use crate::glob;

/// Largest settings file, in bytes.
pub(crate) const SETTINGS_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Settings of one repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `owner/name`; without it the settings are those of the first path.
    #[serde(default)]
    pub repository: Option<String>,
    /// Name of the default branch.
    #[serde(default)]
    pub default_branch: Option<String>,
    /// Whether pull requests may be set to merge by themselves.
    #[serde(default)]
    pub allow_auto_merge: Option<bool>,
    /// Branch and tag rules, from branch protection or rulesets.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Environments; `None` means not exported.
    #[serde(default)]
    pub environments: Option<Vec<Environment>>,
    /// Installed apps; `None` means not exported.
    #[serde(default)]
    pub apps: Option<Vec<App>>,
    /// Actions permissions.
    #[serde(default)]
    pub actions: ActionsSettings,
}

/// One rule for branches or tags.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// `branch` or `tag`.
    pub target: RuleTarget,
    /// Names or globs; `~DEFAULT_BRANCH` and `~ALL` as in rulesets.
    pub patterns: Vec<String>,
    /// Approving reviews that a pull request needs; 0 with `require_pull_request` needs none.
    #[serde(default)]
    pub required_approvals: u32,
    /// Whether commits land by pull request only.
    #[serde(default)]
    pub require_pull_request: bool,
    /// Whether code owners must approve.
    #[serde(default)]
    pub require_code_owners: bool,
    /// Whether the last pusher's own approval does not count.
    #[serde(default)]
    pub require_last_push_approval: bool,
    /// Whether creating or pushing is restricted to the bypass list.
    #[serde(default)]
    pub restrict: bool,
    /// Logins, app slugs or secret names that may step over the rule.
    #[serde(default)]
    pub bypass: Vec<String>,
}

/// What a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleTarget {
    /// Branches.
    Branch,
    /// Tags.
    Tag,
}

/// An environment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// Its name.
    pub name: String,
    /// How many people or teams are asked.
    #[serde(default)]
    pub required_reviewers: u32,
    /// Whether only some branches may deploy.
    #[serde(default)]
    pub branches: Vec<String>,
}

/// An installed app.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// Its slug.
    pub slug: String,
    /// Permissions by name: `read` or `write`.
    #[serde(default)]
    pub permissions: std::collections::BTreeMap<String, String>,
}

/// Actions settings of the repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionsSettings {
    /// `read` or `write`.
    #[serde(default)]
    pub default_workflow_permissions: Option<String>,
    /// Whether workflows may create and approve pull requests.
    #[serde(default)]
    pub can_approve_pull_requests: Option<bool>,
}

impl Settings {
    /// Reads one settings object or a list of them.
    ///
    /// # Errors
    /// `malformed-settings-file` with what serde says.
    pub fn parse(text: &str) -> Result<Vec<Self>, Refusal> {
        if text.len() > SETTINGS_BYTES_MAX {
            return Err(
                Refusal::limit("settings-too-large", "the settings file is too large")
                    .expected(&format!("at most {SETTINGS_BYTES_MAX} bytes")),
            );
        }
        let trimmed = text.trim_start();
        let parsed = if trimmed.starts_with('[') {
            serde_json::from_str(text)
        } else {
            serde_json::from_str(text).map(|one| vec![one])
        };
        parsed.map_err(|error| {
            Refusal::malformed("settings file")
                .expected("the JSON that docs/scan/settings.md describes")
                .received(&error.to_string())
                .next("compare with the example in docs/scan/settings.md")
        })
    }

    pub(crate) fn environment(&self, name: &str) -> Option<&Environment> {
        self.environments
            .as_ref()?
            .iter()
            .find(|environment| environment.name.eq_ignore_ascii_case(name))
    }

    /// Whether an app may write the repository's contents: `None` where apps were not exported.
    /// An app that is not in the list is not installed; one without permissions may.
    pub(crate) fn app_writes(&self, slug: &str) -> Option<bool> {
        let apps = self.apps.as_ref()?;
        let slug = slug.trim_end_matches("[bot]");
        Some(
            apps.iter()
                .find(|app| {
                    app.slug
                        .trim_end_matches("[bot]")
                        .eq_ignore_ascii_case(slug)
                })
                .is_some_and(|app| {
                    app.permissions.is_empty()
                        || app
                            .permissions
                            .get("contents")
                            .is_some_and(|level| level == "write")
                }),
        )
    }

    /// The rules for a branch.
    pub(crate) fn branch_rules<'a>(
        &'a self,
        branch: &'a str,
        is_default: bool,
    ) -> impl Iterator<Item = &'a Rule> {
        self.rules.iter().filter(move |rule| {
            rule.target == RuleTarget::Branch
                && rule.patterns.iter().any(|pattern| {
                    pattern == "~ALL"
                        || (pattern == "~DEFAULT_BRANCH" && is_default)
                        || glob::matches(pattern, branch)
                })
        })
    }

    /// Whether creating tags is restricted.
    pub(crate) fn restricts_tags(&self) -> bool {
        self.rules
            .iter()
            .any(|rule| rule.target == RuleTarget::Tag && rule.restrict)
    }
}
