//! The credentials that a step or a job holds, by the names of its secrets.

/// Words of secrets' names that registries take.
const REGISTRY_SECRETS: &[&str] = &[
    "NPM",
    "NODE_AUTH",
    "PYPI",
    "TESTPYPI",
    "TWINE",
    "CARGO",
    "CRATES",
    "RUBYGEMS",
    "GEM_",
    "NUGET",
    "DOCKER",
    "REGISTRY",
    "MAVEN",
    "OSSRH",
    "SONATYPE",
    "VSCE",
    "OVSX",
    "MARKETPLACE",
    "CHROME",
    "PLAY_STORE",
    "APP_STORE",
    "APPSTORE",
    "SNAP_",
    "SNAPCRAFT",
    "HEX_API",
    "CURSEFORGE",
    "MODRINTH",
    "JRELEASER",
    "PUBLISH",
    "AUR_",
    "WINGET",
    "HOMEBREW",
    "CHOCO",
    "SVN_",
    "STEAM",
    "ITCH",
    "BUTLER",
    "ZENODO",
    "HF_",
    "HUGGING",
    "KAGGLE",
    "GALAXY",
    "PACKAGIST",
    "THUNDERSTORE",
    "WEBSTORE",
    "ANACONDA",
    "CLOJARS",
    "HACKAGE",
    "LUAROCKS",
    "GHCR",
    "QUAY",
    "ARTIFACTORY",
    "NEXUS",
    "JFROG",
    "CLOUDSMITH",
    "GEMFURY",
];

/// Words of secrets' names that places where things run take.
const PLACE_SECRETS: &[&str] = &[
    "AWS_",
    "AZURE_",
    "GCP",
    "GCLOUD",
    "GOOGLE_CREDENTIALS",
    "GOOGLE_APPLICATION",
    "KUBE",
    "SSH",
    "FTP",
    "HEROKU",
    "VERCEL",
    "NETLIFY",
    "CLOUDFLARE",
    "CF_API",
    "FLY_",
    "RENDER_",
    "RAILWAY",
    "FIREBASE",
    "SUPABASE",
    "DIGITALOCEAN",
    "DEPLOY",
    "SERVER",
    "HOST_",
    "ANSIBLE",
    "TF_API",
    "PULUMI",
];

/// Secrets of services that reach no production.
const OTHER_SECRETS: &[&str] = &[
    "CODECOV",
    "COVERALLS",
    "SONAR_",
    "SLACK",
    "DISCORD",
    "TELEGRAM",
    "WEBHOOK",
    "SNYK",
    "SENTRY",
    "DATADOG",
    "OPENAI",
    "ANTHROPIC",
    "GEMINI",
    "CLAUDE",
    "PERCY",
    "CHROMATIC",
    "CACHIX",
    "GRADLE_ENCRYPTION",
    "JIRA",
    "LINEAR",
    "NX_CLOUD",
    "TURBO",
    "CYPRESS",
    "BROWSERSTACK",
    "GPG",
    "PASSPHRASE",
    "LICENSE",
];

/// Whether a name, in `_` on both sides, has a word that begins so; a mark that ends in `_` is a
/// whole word, so that `PATREON` is no `PAT` and `GHOST` no `HOST`.
fn is_marked(words: &str, mark: &str) -> bool {
    words
        .match_indices(mark)
        .any(|(at, _)| words.get(..at).is_some_and(|before| before.ends_with('_')))
}

/// What a step holds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    /// The forge's token, given by name.
    pub(super) token: bool,
    /// A personal token or an app's.
    pub(super) own: bool,
    pub(super) registry: bool,
    pub(super) place: bool,
    /// Another secret.
    pub(super) other: bool,
}

impl Held {
    pub(super) fn outside(self) -> bool {
        self.registry || self.place || self.other
    }

    pub(super) fn take(&mut self, name: &str, value: &str) {
        let upper = value.to_ascii_uppercase();
        let key = name.to_ascii_uppercase();
        if upper.contains("SECRETS.GITHUB_TOKEN") || upper.contains("GITHUB.TOKEN") {
            self.token = true;
        }
        if upper.contains("STEPS.") && upper.contains("TOKEN") {
            self.own = true;
        }
        let key_words = format!("_{}_", key.replace(['-', '.'], "_"));
        for (at, _) in upper.match_indices("SECRETS.") {
            let secret: String = upper
                .get(at + 8..)
                .unwrap_or_default()
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            let words = format!("_{secret}_");
            let has = |list: &[&str]| list.iter().any(|mark| is_marked(&words, mark));
            let asked = |list: &[&str]| list.iter().any(|mark| is_marked(&key_words, mark));
            if secret == "GITHUB_TOKEN" || has(OTHER_SECRETS) {
            } else if has(REGISTRY_SECRETS) || asked(REGISTRY_SECRETS) {
                self.registry = true;
            } else if has(PLACE_SECRETS) || asked(PLACE_SECRETS) {
                self.place = true;
            } else if has(&["GITHUB", "GH_", "PAT_", "GHPAT", "BOT_", "GIT_"])
                || matches!(
                    key.as_str(),
                    "TOKEN"
                        | "GITHUB_TOKEN"
                        | "GITHUB-TOKEN"
                        | "GH_TOKEN"
                        | "GH-TOKEN"
                        | "REPO-TOKEN"
                        | "REPO_TOKEN"
                        | "PAT"
                )
            {
                self.own = true;
            } else {
                self.other = true;
            }
        }
    }
}
