//! Which credential a name stands for in a run.

use super::Credential;
use super::run::Secrets;
use super::scope::{DEPTH_MAX, Names};
use crate::acts::Token;
use crate::workflow::{Job, System};

impl Names<'_> {
    /// The credential that a template stands for.
    pub(super) fn credential_of(&self, template: &str, depth: u8) -> Credential {
        if depth > DEPTH_MAX {
            return Credential::Default;
        }
        let lower = template.to_lowercase();
        let mut found: Option<(usize, Credential)> = None;
        let mut offer = |at: usize, credential: Credential| {
            if found.as_ref().is_none_or(|(first, _)| at < *first) {
                found = Some((at, credential));
            }
        };
        if let Some(at) = lower.find("secrets.") {
            let name: String = template
                .get(at + 8..)
                .unwrap_or_default()
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            if name.eq_ignore_ascii_case("github_token") {
                offer(at, Credential::Default);
            } else {
                match &self.run.secrets {
                    Secrets::None => {}
                    Secrets::All | Secrets::Dependabot => offer(at, Credential::Secret(name)),
                    Secrets::Passed(list) => {
                        if let Some((_, credential)) = list
                            .iter()
                            .find(|(known, _)| known.eq_ignore_ascii_case(&name))
                        {
                            offer(at, credential.clone());
                        }
                    }
                }
            }
        }
        if let Some(at) = lower.find("github.token") {
            offer(at, Credential::Default);
        }
        if let Some(at) = lower.find("inputs.") {
            let name: String = lower
                .get(at + 7..)
                .unwrap_or_default()
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
                .collect();
            let inputs = self.inputs.or(self.run.inputs.as_deref());
            if let Some((_, _, credential)) = inputs.and_then(|list| {
                list.iter()
                    .find(|(key, _, _)| key.eq_ignore_ascii_case(&name))
            }) && *credential != Credential::None
            {
                offer(at, credential.clone());
            }
        }
        if (lower.contains("steps.") || lower.contains("needs.")) && lower.contains("token") {
            let at = lower.find("steps.").or(lower.find("needs.")).unwrap_or(0);
            offer(at, self.made_token(&lower));
        }
        if let Some((_, credential)) = found {
            return credential;
        }
        for name in variables(template) {
            for layer in self.env.iter().rev() {
                if let Some((_, value)) = layer.iter().find(|(key, _)| *key == name) {
                    return self.credential_of(value, depth + 1);
                }
            }
            let lower = name.to_ascii_lowercase();
            if lower == "ci_job_token" {
                return Credential::Default;
            }
            // A variable of the project, or one that the step was given a credential in.
            if self.run.workflow.system != System::GitHub {
                return Credential::Secret(name);
            }
        }
        if lower.contains("secrets.") {
            // It names a secret that this run does not get.
            return Credential::None;
        }
        Credential::Default
    }

    /// Where a token has the job's own for its fallback (`secrets.A || github.token`): the fact
    /// on which it is the first.
    pub(super) fn spare(&self, token: &Token) -> Option<String> {
        match token {
            Token::Value(template) => self.spare_of(template, 0),
            Token::Env(names) => names.iter().find_map(|name| {
                self.env.iter().rev().find_map(|layer| {
                    let (_, value) = layer.iter().find(|(key, _)| key == name)?;
                    Some(self.spare_of(value, 0))
                })
            })?,
            Token::Git | Token::Outside => None,
        }
    }

    pub(super) fn spare_of(&self, template: &str, depth: u8) -> Option<String> {
        let lower = template.to_lowercase();
        if let Some((first, rest)) = lower.split_once("||") {
            let own = rest.contains("secrets.github_token") || rest.contains("github.token");
            let named = ["secrets.", "steps.", "needs.", "inputs."]
                .iter()
                .any(|mark| first.contains(mark));
            // A step that always runs leaves its token.
            let made = first.split_once("steps.").is_some_and(|(_, rest)| {
                let id = rest.split('.').next().unwrap_or_default();
                self.job.is_some_and(|job| {
                    job.steps.iter().any(|step| {
                        step.condition.is_none()
                            && step
                                .id
                                .as_deref()
                                .is_some_and(|known| known.eq_ignore_ascii_case(id))
                    })
                })
            });
            if made {
                return None;
            }
            let first = template
                .get(..first.len())
                .unwrap_or_default()
                .trim_start_matches(['$', '{', ' ', '(']);
            // `secrets.A != '' && secrets.A || github.token` says the same at length.
            let first = match first.split_once("&&") {
                Some((asked, given)) => {
                    let given = given.trim();
                    let asked = asked
                        .trim()
                        .trim_end_matches("!= ''")
                        .trim_end_matches("!= \"\"")
                        .trim();
                    if asked.trim_matches(['(', ')', ' ']) == given {
                        given
                    } else {
                        first
                    }
                }
                None => first,
            };
            return (own && named && !first.contains("&&"))
                .then(|| format!("whether {} is set here", first.trim()));
        }
        if depth > DEPTH_MAX {
            return None;
        }
        let mut names = variables(template).into_iter();
        let name = names.next()?;
        // `${BOT_TOKEN:-$GITHUB_TOKEN}`: the same in a shell.
        if template.contains(&format!("${{{name}:-")) {
            let second = names.next()?;
            let value_of = |name: &str| {
                self.env.iter().rev().find_map(|layer| {
                    layer
                        .iter()
                        .find(|(key, _)| key == name)
                        .map(|(_, value)| value.to_lowercase())
                })
            };
            let own = second == "GITHUB_TOKEN"
                || value_of(&second).is_some_and(|value| {
                    value.contains("secrets.github_token") || value.contains("github.token")
                });
            let given = value_of(&name)?;
            let first = given.trim_matches(['$', '{', '}', ' ']).to_owned();
            return (own && first.contains("secrets."))
                .then(|| format!("whether {first} is set here"));
        }
        self.env.iter().rev().find_map(|layer| {
            let (_, value) = layer.iter().find(|(key, _)| *key == name)?;
            Some(self.spare_of(value, depth + 1))
        })?
    }

    /// The token that an earlier step made: an app's, with the rights that the step asks for.
    fn made_token(&self, lower: &str) -> Credential {
        let whole = || Credential::App(String::new());
        let step_of = |job: &'_ Job, id: &str| -> Option<Credential> {
            let step = job.steps.iter().find(|step| {
                step.id
                    .as_deref()
                    .is_some_and(|known| known.eq_ignore_ascii_case(id))
            })?;
            Some(match &step.token_rights {
                Some(writes) => Credential::Limited(writes.clone()),
                None => whole(),
            })
        };
        let word = |text: &str| -> String {
            text.chars()
                .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
                .collect()
        };
        if let Some(at) = lower.find("steps.") {
            let id = word(lower.get(at + 6..).unwrap_or_default());
            return self
                .job
                .and_then(|job| step_of(job, &id))
                .unwrap_or_else(whole);
        }
        let Some(at) = lower.find("needs.") else {
            return whole();
        };
        let rest = lower.get(at + 6..).unwrap_or_default();
        let id = word(rest);
        let output = rest
            .strip_prefix(id.as_str())
            .and_then(|rest| rest.strip_prefix(".outputs."))
            .map(word)
            .unwrap_or_default();
        self.run
            .workflow
            .jobs
            .iter()
            .find(|job| job.id.eq_ignore_ascii_case(&id))
            .and_then(|job| {
                let (_, template) = job
                    .outputs
                    .iter()
                    .find(|(key, _)| key.eq_ignore_ascii_case(&output))?;
                let template = template.to_lowercase();
                let at = template.find("steps.")?;
                step_of(job, &word(template.get(at + 6..).unwrap_or_default()))
            })
            .unwrap_or_else(whole)
    }

    /// The credential that an act uses.
    pub(super) fn credential(&self, token: &Token, git: &Credential) -> Credential {
        match token {
            Token::Outside => Credential::Outside,
            Token::Git => git.clone(),
            Token::Value(template) => self.credential_of(template, 0),
            Token::Env(names) => {
                for name in *names {
                    for layer in self.env.iter().rev() {
                        if let Some((_, value)) = layer.iter().find(|(key, _)| key == name) {
                            return self.credential_of(value, 0);
                        }
                    }
                }
                if self.run.workflow.system == System::GitHub {
                    Credential::Default
                } else {
                    Credential::Secret("of the project".to_owned())
                }
            }
        }
    }
}

/// Names of shell variables in a text, and of `env.X`.
pub(super) fn variables(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let word = |rest: &str| -> String {
        rest.chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect()
    };
    for (at, _) in text.match_indices('$') {
        let rest = text.get(at + 1..).unwrap_or_default();
        let name = word(rest.strip_prefix('{').unwrap_or(rest));
        if !name.is_empty() {
            out.push(name);
        }
    }
    for (at, _) in text.match_indices("env.") {
        let name = word(text.get(at + 4..).unwrap_or_default());
        if !name.is_empty() {
            out.push(name);
        }
    }
    out
}
