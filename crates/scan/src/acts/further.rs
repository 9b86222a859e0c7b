//! Published actions that start a program with their inputs, and those of rarer places and stores.

use super::catalog::With;
use super::{Act, Check, NewPr, Op, Token, is_rehearsal};
use crate::shell;

/// What such an action does; `None` for one that is not known here.
pub(super) fn acts_of(what: &str, with: &With<'_>) -> Option<Vec<Act>> {
    let forge = |op: Op| vec![Act::new(op, what, with.token())];
    let release = |draft: Option<&str>| {
        forge(Op::Release {
            draft: draft.map(str::to_owned),
            tag: with.first(&["tag_name", "tag"]).map(str::to_owned),
        })
    };
    let line = |program: &str, inputs: &[&str]| {
        let words = with.first(inputs).unwrap_or_default();
        by_line(&format!("{program} {words}"), what)
    };
    let says = |inputs: &[&str], marks: &[&str]| {
        with.first(inputs).is_some_and(|text| {
            text.contains("${{") || marks.iter().any(|mark| text.contains(mark))
        })
    };
    let acts = match what {
        // ---- programs with their arguments
        "actions-hub/kubectl" | "kodermax/kubectl-aws-eks" | "ianbelcher/eks-kubectl-action" => {
            line("kubectl", &["args"])
        }
        "steebchen/kubectl" => line("kubectl", &["command", "args"]),
        "helmfile/helmfile-action" | "bitdeps/helmfile-action" => {
            line("helmfile", &["helmfile-args"])
        }
        "wyrihaximus/github-action-helm3" => line("", &["exec"]),
        "koslib/helm-eks-action" => line("", &["command"]),
        "clowdhaus/argo-cd-action" => line("argocd", &["command"]),
        "upliftci/action" => line("uplift", &["args"]),
        "messense/maturin-action" => line("maturin", &["command"]),
        "porter-dev/porter-cli-action" => line("porter", &["command"]),
        "lannonbr/vsce-action" => line("vsce", &["args"]),
        "slackapi/slack-github-action/cli" => line("slack", &["command"]),
        "zkqiang/tencent-cos-action" => line("coscmd", &["args"]),
        "expo/expo-github-action/command" => line("", &["command"]),
        // ---- a wanted state that is applied
        "diggerhq/digger" => {
            let manual = with.says("mode", "manual");
            let applies = says(&["command"], &["apply", "destroy"]);
            if manual && !applies {
                return Some(Vec::new());
            }
            // Otherwise it applies what a comment asks for: of any account, where its
            // configuration does not say more.
            let asked = "${{ github.event_name == 'issue_comment' || github.event_name == 'workflow_dispatch' }}";
            let deploy = Act::deploy(what).only_if((!manual).then_some(asked));
            if manual {
                return Some(vec![deploy]);
            }
            let check = Op::Check(Check::Mergeable(
                "a person reviews the pull request, which must be one that may be merged",
            ));
            vec![Act::new(check, what, Token::Outside), deploy]
        }
        "op5dev/tf-via-pr" | "devsectop/tf-via-pr" => {
            if !says(&["command"], &["apply"]) {
                return Some(Vec::new());
            }
            let applies = with.first(&["command"]).unwrap_or_default();
            let template = applies.contains("${{").then_some(applies);
            let mut act = Act::deploy(what);
            if let Some(expression) = template
                .and_then(|text| text.trim().strip_prefix("${{"))
                .and_then(|text| text.strip_suffix("}}"))
            {
                act = act.only_if(Some(&format!("${{{{ ({expression}) == 'apply' }}}}")));
            }
            vec![act]
        }
        "azure/bicep-deploy" => {
            if says(&["operation"], &["validate", "whatIf"]) && !says(&["operation"], &["create"]) {
                return Some(Vec::new());
            }
            vec![Act::deploy(what)]
        }
        "hashicorp/waypoint-action" => {
            if !says(&["operation"], &["deploy", "release", "up"]) {
                return Some(Vec::new());
            }
            vec![Act::deploy(what)]
        }
        "appleboy/ssh-action" | "fifsky/ssh-action" | "garygrossgarten/github-action-ssh"
            if only_looks(with.first(&["script", "command"]).unwrap_or_default()) =>
        {
            Vec::new()
        }
        "dflook/terraform-destroy"
        | "dflook/tofu-destroy"
        | "dflook/terraform-destroy-workspace"
        | "bitovi/github-actions-commons"
        | "werf/actions/converge"
        | "okteto/pipeline"
        | "omegion/argocd-app-actions"
        | "luminis/portainer-update"
        | "qovery/qovery-action"
        | "47ng/actions-clever-cloud"
        | "floms/action-caprover"
        | "koyeb-community/koyeb-actions"
        | "yc-actions/yc-sls-function"
        | "yc-actions/yc-coi-deploy"
        | "yc-actions/yc-sls-container-deploy"
        | "yc-actions/yc-obj-storage-upload"
        | "yandex-cloud/actions-coi"
        | "ibm/code-engine-github-action"
        | "tencentcloudbase/cloudbase-action"
        | "fangbinwei/aliyun-oss-website-action"
        | "saltbo/uptoc"
        | "andykenward/github-actions-cloudflare-pages"
        | "betahuhn/do-spaces-action"
        | "bacongobbler/azure-blob-storage-upload"
        | "lanwen/azure-storage-upload"
        | "microsoft/powerplatform-actions/import-solution"
        | "microsoft/powerplatform-actions/upload-paportal"
        | "microsoft/powerplatform-actions/deploy-package"
        | "microsoft/powerplatform-actions/publish-solution"
        | "azure/appservice-settings"
        | "azure/logicapps-deploy"
        | "azure/deployment-stacks"
        | "google-github-actions/ssh-compute"
        | "google-github-actions/deploy-workflow"
        | "porter-dev/porter-update-action"
        | "octopusdeploy/deploy-release-action"
        | "octopusdeploy/deploy-release-tenanted-action"
        | "octopusdeploy/run-runbook-action"
        | "prewk/s3-cp-action"
        | "vitr/actions-s3"
        | "keithweaver/aws-s3-github-action"
        | "shallwefootball/upload-s3-action"
        | "shallwefootball/s3-upload-action"
        | "qoqa/action-sync-s3"
        | "zdurham/s3-upload-github-action"
        | "tpaschalis/s3-sync-action"
        | "jimcronqvist/action-ssh"
        | "rtcamp/action-deploy-wordpress"
        | "rstudio/actions/connect-publish"
        | "posit-dev/actions/connect-publish"
        | "cachix/cachix-deploy-action"
        | "aws-actions/amazon-ecs-deploy-express-service"
        | "aws-actions/aws-elasticbeanstalk-deploy"
        | "awslabs/amazon-app-runner-deploy"
        | "awslabs/amazon-apprunner-deploy" => {
            let target = with
                .first(&[
                    "environment",
                    "stack-name",
                    "namespace",
                    "app-name",
                    "stage",
                    "service",
                ])
                .unwrap_or_default();
            vec![Act::deploy(what).benign_if(
                is_rehearsal(target),
                "the target's name says that it is not production",
            )]
        }
        // ---- registries and stores
        "kewisch/action-web-ext" if !says(&["cmd"], &["sign"]) => Vec::new(),
        "bufbuild/buf-action" => {
            if with.first(&["token"]).is_none() || with.says("push", "false") {
                return Some(Vec::new());
            }
            let asked = with
                .first(&["push"])
                .unwrap_or("${{ github.event_name == 'push' || github.event_name == 'delete' }}");
            vec![Act::publish(what).only_if(Some(asked))]
        }
        "bufbuild/buf-push-action"
        | "jib-actions/push"
        | "bsord/helm-push"
        | "conda/actions/canary-release"
        | "nvim-neorocks/luarocks-tag-release"
        | "mrcjkb/luarocks-tag-release"
        | "lumen-oss/luarocks-tag-release"
        | "wdzeng/chrome-extension"
        | "klemensas/chrome-extension-upload-action"
        | "browser-actions/release-firefox-addon"
        | "isaacrlevin/windows-store-action"
        | "akiojin/upload-testflight"
        | "artis3n/ansible_galaxy_collection"
        | "robertdebock/galaxy-action"
        | "ansible-actions/ansible-galaxy-action"
        | "huggingface/hub-sync"
        | "octopusdeploy/push-package-action"
        | "octopusdeploy/create-release-action"
        | "canonical/charming-actions/upload-charm"
        | "canonical/charming-actions/release-charm"
        | "greentf/upload-thunderstore-package"
        | "devcontainers/action" => {
            vec![Act::publish(what).unless(with.first(&["dry-run", "dry_run"]))]
        }
        // ---- releases
        "songmu/tagpr" => {
            let mut released = Act::new(
                Op::Release {
                    draft: None,
                    tag: None,
                },
                what,
                with.token(),
            );
            released.after_release_pr = true;
            let mut acts = forge(Op::CreatePr(NewPr {
                release: true,
                ..NewPr::default()
            }));
            acts.push(released);
            acts
        }
        "gittools/actions/gitreleasemanager/create" => release(Some("true")),
        "gittools/actions/gitreleasemanager/publish" => release(None),
        // ---- they set up, look or make files
        "platane/snk"
        | "orhun/git-cliff-action"
        | "knope-dev/action"
        | "expo/expo-github-action"
        | "fluxcd/flux2/action"
        | "tale/kubectl-action"
        | "alexellis/arkade-get"
        | "gittools/actions/gitversion/setup"
        | "gittools/actions/gitversion/execute"
        | "gittools/actions/gitreleasemanager/setup"
        | "octopusdeploy/push-build-information-action"
        | "octopusdeploy/install-octopus-cli-action"
        | "databricks/run-notebook"
        | "prefix-dev/rattler-build-action" => Vec::new(),
        _ => return None,
    };
    Some(acts)
}

/// What one command line does, under the action's name.
fn by_line(text: &str, what: &str) -> Vec<Act> {
    // What a template decides may be anything.
    if text
        .split_whitespace()
        .nth(1)
        .is_some_and(|word| word.starts_with("${{"))
    {
        return vec![Act::deploy(what)];
    }
    let mut acts = Vec::new();
    for command in shell::commands(text) {
        let command = command.unwrapped();
        let Some(word) = command.words.first() else {
            continue;
        };
        let name = super::programs::program(word);
        acts.extend(super::publishes::read(name, &command));
        acts.extend(super::deploys::read(name, &command));
    }
    for act in &mut acts {
        what.clone_into(&mut act.what);
    }
    acts
}

/// Whether a script for another machine is known to change nothing there.
fn only_looks(script: &str) -> bool {
    let commands = shell::commands(script);
    !commands.is_empty()
        && !script.contains('>')
        && commands.iter().all(|command| {
            command.words.first().is_some_and(|word| {
                matches!(
                    word.as_str(),
                    "uptime"
                        | "df"
                        | "free"
                        | "ls"
                        | "cat"
                        | "whoami"
                        | "hostname"
                        | "date"
                        | "uname"
                        | "ps"
                        | "echo"
                        | "tail"
                        | "head"
                        | "journalctl"
                        | "grep"
                        | "pwd"
                        | "du"
                        | "cd"
                        | "set"
                        | "exit"
                        | "true"
                )
            })
        })
}
