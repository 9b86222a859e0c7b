//! What a step runs that can't be read: an action that the catalogue does not know, a local action
//! that is not there, a script whose name is decided elsewhere.
//!
//! Three things tell what it does: its name, the credential that it is given, and the rights that
//! the job asks for and nothing else in it needs. A name that leaves no doubt together with what it
//! takes is believed. One of them alone leaves a fact open, and that fact is told. Names that only
//! look (`setup-…`, `…-check`) are believed too.

use super::held::Held;
use super::titled::{self, Titles};
use super::values::TEXT_MAX;
use super::{Job, Pairs, Permissions, Step};
use crate::acts::catalog::With;
use crate::acts::inputs;
use crate::acts::unlisted;
use crate::acts::words::{self, Claim, Said};
use crate::acts::{Act, NewPr, Op, Target, Token};

/// Something that a step runs and that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unread {
    /// `someone/deploy@v2`, or the command.
    pub(crate) what: String,
    /// What of it may say what it does: the action's name, the script's.
    pub(crate) name: String,
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) kind: Kind,
    /// The repository that the workspace is, where it is another one.
    pub(crate) foreign: Option<String>,
    /// The branch that was checked out by name.
    pub(crate) branch: Option<String>,
    /// Templates that hold where it is run at all.
    pub(crate) only_if: Vec<String>,
    /// It may do more than its name tells, so that a reader should hear of it.
    pub(crate) told: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An action of another repository.
    Action,
    /// An action or a script of this one that is not there, or that only runs elsewhere.
    Missing,
    /// A script whose name no file of the repository gives.
    Script,
    /// What a step names beyond the bound on files.
    Bound,
    /// A program that no list knows.
    Command,
    /// The same, where its own words say nothing.
    Program,
}

impl Unread {
    /// The fact that decides.
    pub(crate) fn fact(&self) -> String {
        match self.kind {
            Kind::Action => format!("what {} does with what it is given", self.what),
            Kind::Missing => format!("what {} does, which can't be read here", self.what),
            Kind::Script => format!("what `{}` runs", self.what),
            Kind::Command | Kind::Program => format!("what `{}` does", self.what),
            Kind::Bound => "what the step's further scripts do".to_owned(),
        }
    }
}

/// Judges what the jobs of a workflow run unread.
pub(super) fn judge(jobs: &mut [Job], permissions: Option<&Permissions>, env: &Pairs) {
    let any = jobs.iter().any(|job| job.steps.iter().any(has_unread));
    if !any {
        return;
    }
    let needed: Vec<(bool, usize)> = jobs
        .iter()
        .map(|job| {
            let mut needs = (job.call.is_some(), 0);
            for step in &job.steps {
                count(step, &mut needs);
            }
            needs
        })
        .collect();
    let all = needed
        .iter()
        .fold((false, 0), |sum, one| (sum.0 | one.0, sum.1 + one.1));
    for (job, own) in jobs.iter_mut().zip(needed) {
        // Rights that the workflow declares are for all its jobs.
        let (declared, (spent, unread)) = match &job.permissions {
            Some(permissions) => (Some(permissions.clone()), own),
            None => (permissions.cloned(), all),
        };
        let mut wide = Held::default();
        for (name, value) in env.iter().chain(&job.env) {
            wide.take(name, value);
        }
        let rights = Rights {
            contents: declared
                .as_ref()
                .is_some_and(|declared| declared.writes("contents")),
            declared: declared.is_some(),
            free: !spent && unread == 1,
            pull_requests: declared
                .as_ref()
                .is_some_and(|declared| declared.writes("pull-requests")),
            packages: declared
                .as_ref()
                .is_some_and(|declared| declared.writes("packages")),
            identity: declared
                .as_ref()
                .is_some_and(|declared| declared.writes("id-token")),
            pages: declared
                .as_ref()
                .is_some_and(|declared| declared.writes("pages")),
        };
        let mut login = false;
        let titles = Titles::of(job);
        for step in &mut job.steps {
            one_step(step, &rights, wide, &mut login, &titles, &[], 0);
        }
    }
}

/// The rights of a job's token, as far as the file declares them.
pub(super) struct Rights {
    pub(super) contents: bool,
    /// The file says which rights there are.
    declared: bool,
    /// Nothing else in sight needs the right to write contents.
    pub(super) free: bool,
    pull_requests: bool,
    pub(super) packages: bool,
    pub(super) identity: bool,
    pages: bool,
}

fn has_unread(step: &Step) -> bool {
    !step.unread.is_empty()
        || step
            .inner
            .as_ref()
            .is_some_and(|inner| inner.steps.iter().any(has_unread))
}

/// Whether a step is known to write contents, and how many that can't be read might.
fn count(step: &Step, needs: &mut (bool, usize)) {
    needs.0 |= !step.agents.is_empty()
        || step.acts.iter().any(|act| {
            matches!(
                act.op,
                Op::Push(_) | Op::Tag(_) | Op::Release { .. } | Op::Merge { .. } | Op::CreatePr(_)
            )
        });
    needs.1 += step
        .unread
        .iter()
        .filter(|unread| unread.kind != Kind::Program && !words::is_quiet(&unread.name))
        .count();
    for step in step.inner.iter().flat_map(|inner| &inner.steps) {
        count(step, needs);
    }
}

fn logs_in(step: &Step) -> bool {
    step.uses.as_deref().is_some_and(|uses| {
        let name = uses.to_ascii_lowercase();
        [
            "login",
            "credentials",
            "google-github-actions/auth",
            "setup-gcloud",
            "ssh-agent",
            "ssh-key",
            "kubeconfig",
            "k8s-set-context",
            "aks-set-context",
            "vault",
        ]
        .iter()
        .any(|mark| name.contains(mark))
    }) || step.run.as_ref().is_some_and(|(text, _)| {
        [
            "docker login",
            "podman login",
            "helm registry login",
            "aws configure",
            "aws eks update-kubeconfig",
            "gcloud auth",
            "az login",
            "npm config set",
            ".npmrc",
            "ssh-add",
            ".ssh/id_",
            "KUBECONFIG",
            ".kube/config",
        ]
        .iter()
        .any(|mark| text.contains(mark))
    })
}

/// A value with the inputs of the composite action that holds it put in.
fn given(value: &str, inputs: &[(String, String)]) -> String {
    let lower = value.to_ascii_lowercase();
    let mut out = value.to_owned();
    for (name, given) in inputs {
        if out.len() + given.len() <= TEXT_MAX && lower.contains(&format!("inputs.{name}")) {
            out.push(' ');
            out.push_str(given);
        }
    }
    out
}

/// The templates of a script.
fn templates(text: &str) -> impl Iterator<Item = &str> {
    text.split("${{")
        .skip(1)
        .filter_map(|rest| rest.split("}}").next())
}

fn one_step(
    step: &mut Step,
    rights: &Rights,
    wide: Held,
    login: &mut bool,
    titles: &Titles,
    inputs: &[(String, String)],
    depth: usize,
) {
    /// Deepest chain of composite actions that is judged.
    const DEPTH_MAX: usize = 8;
    *login |= logs_in(step);
    let with: Vec<(String, String)> = step
        .with
        .iter()
        .map(|(name, value)| (name.clone(), given(value, inputs)))
        .collect();
    let mut held = Held::default();
    for (name, value) in with.iter().chain(
        step.env
            .iter()
            .map(|(name, value)| (name.clone(), given(value, inputs)))
            .collect::<Vec<_>>()
            .iter(),
    ) {
        held.take(name, value);
    }
    if let Some((text, _)) = &step.run {
        for template in templates(text) {
            held.take("", &given(template, inputs));
        }
    }
    let silent = titles.is_silent(step);
    if silent {
        step.unread.retain(|unread| unread.kind != Kind::Program);
    }
    let mut unread_of_step = std::mem::take(&mut step.unread);
    for unread in &mut unread_of_step {
        let mut acts = what_it_does(unread, &With(&step.with), held, wide, *login, rights);
        let open = acts.iter().all(|act| act.unsure.is_some());
        let speaks = !silent && matches!(unread.kind, Kind::Action | Kind::Command | Kind::Program);
        let quiet = words::is_quiet(&unread.name)
            && !(unread.kind == Kind::Program && unlisted::says_so(&unread.what));
        if speaks && open && !quiet && !titled::ships(step) {
            let named = titled::acts(step, unread, titles, (held, wide, *login), rights);
            if acts.is_empty() || named.iter().any(|act| act.unsure.is_none()) {
                acts = named;
            }
        }
        let believed = !acts.is_empty() && acts.iter().all(|act| act.unsure.is_none());
        unread.told = !matches!(unread.kind, Kind::Command | Kind::Program)
            && !words::is_quiet(&unread.name)
            && !believed
            && (unread.kind != Kind::Action || held.own || held.outside() || !acts.is_empty());
        // What updates the repository and may open pull requests opens one.
        let opens = rights.declared
            && rights.pull_requests
            && words::said(&unread.name).is_some_and(|said| said.claim == Claim::Update);
        for act in &mut acts {
            // A sink keeps its name when the action is pinned anew.
            if unread.kind == Kind::Action
                && let Some((name, _)) = act.what.split_once('@')
            {
                act.what = name.to_owned();
            }
            if opens && matches!(act.op, Op::Push(_)) {
                act.op = Op::CreatePr(NewPr::default());
            }
            unread.file.clone_into(&mut act.file);
            act.line = unread.line;
            act.only_if.extend(unread.only_if.iter().cloned());
            if let Op::Push(target) = &mut act.op {
                match (&unread.foreign, &unread.branch) {
                    (Some(other), _) if act.token == Token::Git => {
                        *target = Target::Elsewhere(other.clone());
                    }
                    (None, Some(branch)) if *target == Target::Current => {
                        *target = Target::Branch(branch.clone());
                    }
                    _ => {}
                }
            }
        }
        step.acts.append(&mut acts);
    }
    step.unread = unread_of_step;
    if depth >= DEPTH_MAX {
        return;
    }
    let outer = with;
    if let Some(inner) = &mut step.inner {
        let mut inputs: Vec<(String, String)> = inner.defaults.clone();
        for (name, value) in outer {
            inputs.retain(|(known, _)| !known.eq_ignore_ascii_case(&name));
            inputs.push((name.to_ascii_lowercase(), value));
        }
        for step in &mut inner.steps {
            one_step(step, rights, wide, login, titles, &inputs, depth + 1);
        }
    }
}

fn what_it_does(
    unread: &Unread,
    with: &With<'_>,
    held: Held,
    wide: Held,
    login: bool,
    rights: &Rights,
) -> Vec<Act> {
    if words::is_quiet(&unread.name) {
        return Vec::new();
    }
    let unsure = |mut acts: Vec<Act>| {
        for act in &mut acts {
            act.unsure = Some(unread.fact());
        }
        acts
    };
    if unread.kind == Kind::Program {
        return Vec::new();
    }
    if unread.kind == Kind::Command {
        let identity = rights.identity && !login;
        return by_command(unread, held, wide, login, identity, with);
    }
    let said = words::said(&unread.name);
    let Some(Said { claim, plain }) = said else {
        return unsure(by_credential(unread, with, held, rights));
    };
    let forge_token = held.own || wide.own || rights.contents && (held.token || rights.free);
    let outside = held.outside() || wide.outside() || login || rights.identity;
    let mut claim = claim;
    let mut sure = match claim {
        Claim::Publish => {
            outside || rights.packages && (held.token || plain) || held.own && !rights.contents
        }
        Claim::Deploy if plain && !outside && (held.token || held.own) && rights.contents => {
            claim = Claim::Pages;
            true
        }
        Claim::Deploy => outside || rights.pages,
        // The forge's own token is in reach of every action.
        Claim::Merge { .. }
        | Claim::Approve
        | Claim::CreatePr
        | Claim::Release
        | Claim::Tag
        | Claim::Pages
        | Claim::Commit
        | Claim::Dispatch
        | Claim::RepositoryDispatch => plain || forge_token,
        // Many only write the new version into a file.
        Claim::Bump => forge_token || plain && held.token,
        Claim::Update => rights.contents && rights.free || plain && !rights.declared,
    };
    // A hint and a credential somewhere in reach leave it open; a registry's own, or a login, does not.
    sure &= match claim {
        Claim::Publish => plain || login || held.registry || wide.registry || held.other,
        Claim::Deploy => {
            // A way to a machine is not yet something that is done there.
            let opens = ["tunnel", "proxy", "vpn", "forward", "mount"]
                .iter()
                .any(|word| unread.name.to_ascii_lowercase().contains(word));
            plain || !opens && (held.place || held.other)
        }
        _ => true,
    };
    // What is not there can't be believed on its name.
    sure &= unread.kind == Kind::Action;
    let mut acts = inputs::acts(claim, &unread.what, with);
    let follows = ["upstream", "fork"]
        .iter()
        .any(|word| unread.name.to_ascii_lowercase().contains(word));
    if claim == Claim::Update && rights.pull_requests && !follows {
        for act in &mut acts {
            act.op = Op::CreatePr(NewPr::default());
        }
    }
    // A wish to make files anew needs some right to do it with.
    let idle = match claim {
        Claim::Update => !(rights.contents || held.own || plain && !rights.declared),
        Claim::Publish | Claim::Deploy if !plain => !(outside || held.token || held.own),
        _ => false,
    };
    if idle {
        return Vec::new();
    }
    if sure { acts } else { unsure(acts) }
}

/// What a program that no list knows ships, by its words: believed with a credential for it in the
/// step, open with a login or a credential elsewhere in the job.
fn by_command(
    unread: &Unread,
    held: Held,
    wide: Held,
    login: bool,
    identity: bool,
    with: &With<'_>,
) -> Vec<Act> {
    let weak = unread.name.ends_with("-maybe");
    let claim = if unread.name.contains("deploy") {
        Claim::Deploy
    } else {
        Claim::Publish
    };
    let known = held.registry || held.place;
    // Trusted publishing takes the run's identity.
    let trusted = !weak && identity && claim == Claim::Publish;
    let sure = known || trusted || !weak && held.other;
    let open = !weak && (wide.registry || wide.place || login || held.own);
    if !sure && !open {
        return Vec::new();
    }
    let mut acts = inputs::acts(claim, &unread.what, with);
    if !sure {
        for act in &mut acts {
            act.unsure = Some(unread.fact());
        }
    }
    acts
}

/// What a credential alone hints at.
fn by_credential(unread: &Unread, with: &With<'_>, held: Held, rights: &Rights) -> Vec<Act> {
    let mut acts = Vec::new();
    if rights.contents && rights.free {
        acts.extend(inputs::acts(Claim::Update, &unread.what, with));
    }
    if held.registry {
        acts.extend(inputs::acts(Claim::Publish, &unread.what, with));
    }
    if held.place {
        acts.extend(inputs::acts(Claim::Deploy, &unread.what, with));
    }
    acts
}
