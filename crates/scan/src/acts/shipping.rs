//! Published actions that put something into a registry or make something run.

use super::catalog::With;
use super::{Act, Op, Target, Token, is_rehearsal};

/// What such an action does; `None` for one that is not known here.
pub(super) fn acts_of(what: &str, with: &With<'_>) -> Option<Vec<Act>> {
    let forge = |op: Op| vec![Act::new(op, what, with.token())];
    let one = |act: Act| vec![act];
    let acts = match what {
        // ---- publishing
        "pypa/gh-action-pypi-publish" => {
            let url = with
                .first(&["repository-url", "repository_url"])
                .unwrap_or_default();
            one(Act::publish("pypa/gh-action-pypi-publish to PyPI")
                .benign_if(url.contains("test"), "a test index is not production"))
        }
        "js-devtools/npm-publish"
        | "primer/publish"
        | "rlespinasse/npm-publish"
        | "pascalgn/npm-publish-action"
        | "actions-hub/npm" => one(Act::publish(what).unless(with.first(&["dry-run", "dry_run"]))),
        "katyo/publish-crates" => one(Act::publish(what).unless(with.get("dry-run"))),
        "docker/build-push-action"
        | "docker/bake-action"
        | "mr-smithers-excellent/docker-build-push"
        | "redhat-actions/push-to-registry"
        | "elgohr/publish-docker-github-action"
        | "int128/kaniko-action"
        | "macbre/push-to-ghcr"
        | "whoan/docker-build-with-cache-action"
        | "depot/build-push-action"
        | "depot/bake-action"
        | "useblacksmith/build-push-action"
        | "aevea/action-kaniko"
        | "jkroepke/helm-registry-push"
        | "namespacelabs/nscloud-build-action"
        | "devcontainers/ci"
        | "akhilerm/tag-push-action"
        | "homebrew-bump/push" => {
            let push = with.get("push").map(str::to_owned);
            let outputs = with.get("outputs").unwrap_or_default();
            let by_output = outputs.contains("type=registry") || outputs.contains("push=true");
            let needs_input = matches!(
                what,
                "docker/build-push-action"
                    | "docker/bake-action"
                    | "depot/build-push-action"
                    | "depot/bake-action"
                    | "useblacksmith/build-push-action"
                    | "devcontainers/ci"
            );
            if needs_input && push.is_none() && !by_output {
                return Some(Vec::new());
            }
            let tags = with
                .first(&["tags", "image", "imageName", "imagename"])
                .unwrap_or_default();
            let local = tags.contains("localhost") || tags.contains("ttl.sh");
            let mut act = Act::publish(format!("{what} (push)"))
                .benign_if(local, "the registry is local to the job");
            if what == "devcontainers/ci" {
                act = act.benign_if(push.as_deref() == Some("never"), "nothing is pushed");
            } else if !by_output {
                act = act.only_if(push.as_deref());
            }
            if with.get("build-args").is_none()
                && tags.trim().is_empty()
                && !by_output
                && with.get("tags").is_some()
            {
                return Some(Vec::new());
            }
            one(act)
        }
        "redhat-actions/buildah-build" | "docker/metadata-action" => Vec::new(),
        "helm/chart-releaser-action" => vec![
            Act::publish(what),
            Act::new(
                Op::Release {
                    draft: None,
                    tag: None,
                },
                what,
                Token::Env(super::API_ENV),
            ),
        ],
        "appany/helm-oci-chart-releaser"
        | "stefanprodan/helm-gh-pages"
        | "j12934/helm-gh-pages-action" => one(Act::publish(what)),
        "haaLeo/publish-vscode-extension"
        | "haaleo/publish-vscode-extension"
        | "lannonbr/vsce-action"
        | "mnao305/chrome-extension-upload"
        | "plasmohq/bpp"
        | "browser-actions/release-chrome-extension"
        | "wdzeng/edge-addon"
        | "wdzeng/firefox-addon"
        | "kewisch/action-web-ext"
        | "trmcnvn/firefox-addon"
        | "10up/action-wordpress-plugin-deploy"
        | "10up/action-wordpress-plugin-asset-update"
        | "nikeee/action-publish"
        | "rubygems/release-gem"
        | "dawidd6/action-publish-gem"
        | "cadwallion/publish-rubygems-action"
        | "erlangpack/github-action"
        | "hexpm/hex-action"
        | "k-paxian/dart-package-publisher"
        | "sakebook/actions-flutter-pub-publisher"
        | "snapcore/action-publish"
        | "apple-actions/upload-testflight-build"
        | "r0adkll/upload-google-play"
        | "rtcamp/action-slack-notify-none"
        | "mislav/bump-homebrew-formula-action"
        | "vedantmgoyal9/winget-releaser"
        | "vedantmgoyal2009/winget-releaser"
        | "michidk/run-komac"
        | "ksxgithub/github-actions-deploy-aur"
        | "kirs/push-to-aur"
        | "kira-96/nuget-push"
        | "brandedoutcast/publish-nuget"
        | "alirezanet/publish-nuget"
        | "rohith/publish-nuget"
        | "huggingface/huggingface_hub_action"
        | "conda-incubator/upload"
        | "uibcdf/action-build-and-upload-conda-packages"
        | "actions/publish-immutable-action"
        | "actions/publish-immutable-action-package"
        | "modrinth-publish/action"
        | "kir-antipov/mc-publish"
        | "bluwy/release-for-reddit-users"
        | "pyo3/maturin-action"
        | "burrunan/gradle-publish"
        | "ncipollo/publish"
        | "deno/publish"
        | "akashrajpurohit/publish"
        | "lerna-lite/publish"
        | "tauri-apps/tauri-action" => {
            if what == "pyo3/maturin-action"
                && !with.get("command").is_some_and(|command| {
                    command.contains("publish") || command.contains("upload")
                })
            {
                return Some(Vec::new());
            }
            if what == "tauri-apps/tauri-action" {
                let Some(tag) = with.first(&["tagName", "releaseId"]) else {
                    return Some(Vec::new());
                };
                return Some(forge(Op::Release {
                    draft: with.get("releaseDraft").map(str::to_owned),
                    tag: Some(tag.to_owned()),
                }));
            }
            one(Act::publish(what).unless(with.first(&["dry-run", "dry_run", "dryRun"])))
        }
        // ---- sites and clouds
        "peaceiris/actions-gh-pages"
        | "jamesives/github-pages-deploy-action"
        | "crazy-max/ghaction-github-pages"
        | "s0/git-publish-subdir-action"
        | "enriikke/gatsby-gh-pages-action"
        | "shalzz/zola-deploy-action"
        | "helaili/jekyll-action"
        | "mhausenblas/mkdocs-deploy-gh-pages"
        | "tsunematsu21/actions-publish-gist"
        | "cpina/push-to-another-repository"
        | "maxheld83/ghpages"
        | "nwtgck/actions-ghpages"
        | "benchmark-action/github-action-benchmark" => {
            if what == "benchmark-action/github-action-benchmark" && !with.says("auto-push", "true")
            {
                return Some(Vec::new());
            }
            let external = with
                .first(&["external_repository", "repository-name", "repo"])
                .filter(|name| !name.contains("github.repository"));
            if let Some(other) = external {
                return Some(forge(Op::Push(Target::Elsewhere(other.to_owned()))));
            }
            let branch = with
                .first(&[
                    "publish_branch",
                    "branch",
                    "target_branch",
                    "gh-pages-branch",
                ])
                .unwrap_or("gh-pages")
                .to_owned();
            let token = with
                .first(&[
                    "personal_token",
                    "deploy_key",
                    "ssh-key",
                    "token",
                    "github_token",
                    "github-token",
                ])
                .map_or(Token::Env(super::API_ENV), |value| {
                    Token::Value(value.to_owned())
                });
            let preview = with
                .first(&["destination_dir", "target-folder"])
                .is_some_and(is_rehearsal);
            one(Act::new(Op::Push(Target::Branch(branch)), what, token)
                .benign_if(preview, "a preview is not production"))
        }
        "rossjrw/pr-preview-action"
        | "bnb-chain/preview"
        | "hosting/preview"
        | "devcontainers/preview" => Vec::new(),
        "actions/deploy-pages" => {
            one(Act::deploy("GitHub Pages (actions/deploy-pages)").unless(with.get("preview")))
        }
        "amondnet/vercel-action" | "bettercallseller/vercel-action" => {
            let production = with
                .get("vercel-args")
                .is_some_and(|text| text.contains("--prod"));
            let unknown = with
                .get("vercel-args")
                .is_some_and(|text| text.contains("${{"));
            one(Act::deploy(what).benign_if(!production && !unknown, "a preview is not production"))
        }
        "nwtgck/actions-netlify"
        | "netlify/actions/cli"
        | "jsmrcaga/action-netlify-deploy"
        | "south-paw/action-netlify-deploy"
        | "netlify/actions/build"
        | "nwtgck/netlify" => {
            if what == "nwtgck/actions-netlify" {
                if let Some(branch) = with.get("production-branch") {
                    let when = format!(
                        "${{{{ github.ref_name == '{branch}' && github.event_name != 'pull_request' }}}}"
                    );
                    return Some(one(Act::deploy(what).only_if(Some(&when))));
                }
                let deploy = with.get("production-deploy").unwrap_or("false").to_owned();
                return Some(one(Act::deploy(what).only_if(Some(&deploy))));
            }
            let args = with.get("args").unwrap_or_default();
            one(Act::deploy(what).benign_if(
                what == "netlify/actions/cli" && !args.contains("--prod"),
                "a preview is not production",
            ))
        }
        "cloudflare/wrangler-action" => {
            let command = with.first(&["command"]).unwrap_or("deploy");
            let environment = with.get("environment").unwrap_or_default();
            let read_only = ["whoami", "secret", "versions upload", "types", "tail"]
                .iter()
                .any(|word| command.contains(word));
            if command.contains("--dry-run") {
                return Some(Vec::new());
            }
            if read_only && !command.contains("deploy ") {
                return Some(Vec::new());
            }
            let branch = command.split("--branch").nth(1).and_then(|rest| {
                rest.trim_start_matches(['=', ' ', '"', '\''])
                    .split([' ', '"', '\''])
                    .next()
            });
            let preview = branch.is_some_and(|branch| {
                !matches!(branch, "main" | "master" | "production") && !branch.contains("${{")
            }) || branch
                .is_some_and(|branch| branch.contains("head_ref") || branch.contains("preview"));
            one(Act::deploy(what)
                .benign_if(preview, "a preview is not production")
                .benign_if(
                    is_rehearsal(environment)
                        || command.contains("--env staging")
                        || command.contains("--env preview")
                        || command.contains("--env dev"),
                    "the target's name says that it is not production",
                ))
        }
        "cloudflare/pages-action" => one(Act::deploy(what)),
        "firebaseextended/action-hosting-deploy" => {
            let live = with.get("channelId").unwrap_or_default().to_owned();
            one(Act::deploy(what).benign_if(
                live != "live" && !live.contains("${{"),
                "a preview is not production",
            ))
        }
        "w9jds/firebase-action" => one(Act::deploy(what).benign_if(
            !with.get("args").is_some_and(|args| args.contains("deploy")),
            "it deploys nothing",
        )),
        "superfly/flyctl-actions" | "superfly/flyctl-actions/flyctl" => {
            if with.get("args").is_some_and(|args| args.contains("deploy")) {
                one(Act::deploy(what))
            } else {
                Vec::new()
            }
        }
        "azure/static-web-apps-deploy" => {
            if with.says("action", "close") {
                return Some(Vec::new());
            }
            one(Act::deploy(what).unless(Some("${{ github.event_name == 'pull_request' }}")))
        }
        "azure/webapps-deploy"
        | "azure/functions-action"
        | "azure/k8s-deploy"
        | "azure/container-apps-deploy-action"
        | "azure/arm-deploy"
        | "azure/aci-deploy"
        | "azure/aks-deploy"
        | "azure/spring-apps-deploy" => {
            let slot = with
                .first(&["slot-name", "namespace", "app-name", "name"])
                .unwrap_or_default();
            one(Act::deploy(what).benign_if(
                is_rehearsal(slot),
                "the target's name says that it is not production",
            ))
        }
        "aws-actions/amazon-ecs-deploy-task-definition"
        | "aws-actions/aws-cloudformation-github-deploy"
        | "aws-actions/aws-lambda-deploy"
        | "einaregilsson/beanstalk-deploy"
        | "appleboy/lambda-action"
        | "jakejarvis/s3-sync-action"
        | "reggionick/s3-deploy"
        | "webfactory/create-aws-codedeploy-deployment"
        | "awslabs/aws-lambda-deploy"
        | "serverless/github-action"
        | "aws-actions/application-deploy"
        | "google-github-actions/deploy-cloudrun"
        | "google-github-actions/deploy-appengine"
        | "google-github-actions/deploy-cloud-functions"
        | "google-github-actions/upload-cloud-storage"
        | "google-github-actions/create-cloud-deploy-release"
        | "akhileshns/heroku-deploy"
        | "gonuit/heroku-docker-deploy"
        | "johnbeynon/render-deploy-action"
        | "jorgelnjunior/render-deploy"
        | "digitalocean/app_action"
        | "digitalocean/app_action/deploy"
        | "burnett01/rsync-deployments"
        | "easingthemes/ssh-deploy"
        | "appleboy/ssh-action"
        | "appleboy/scp-action"
        | "samkirkland/ftp-deploy-action"
        | "wangyucode/sftp-upload-action"
        | "garygrossgarten/github-action-ssh"
        | "garygrossgarten/github-action-scp"
        | "fifsky/ssh-action"
        | "up9cloud/action-rsync"
        | "contention/rsync-deployments"
        | "denoland/deployctl"
        | "bitovi/github-actions-deploy-docker-to-ec2"
        | "pulumi/actions"
        | "steebchen/kubectl"
        | "koslib/helm-eks-action"
        | "kodermax/kubectl-aws-eks"
        | "deliverybot/helm"
        | "bitovi/github-actions-deploy-eks-helm"
        | "stefanprodan/kube-tools"
        | "actions-hub/kubectl"
        | "stackhpc/ansible"
        | "dawidd6/action-ansible-playbook"
        | "dflook/terraform-apply"
        | "supabase/setup-cli-deploy"
        | "railwayapp/railway-deploy"
        | "bervprojects/railway-deploy"
        | "convex-dev/deploy"
        | "dorny/ssh-deploy"
        | "cross-the-world/ssh-pipeline"
        | "cross-the-world/ssh-scp-ssh-pipelines"
        | "distributhor/workflow-webhook-deploy"
        | "redhat-actions/oc-deploy"
        | "shimataro/ssh-deploy"
        | "expo/expo-github-action-deploy"
        | "apptension/deploy"
        | "hashicorp/tfc-workflows-github/actions/apply-run"
        | "akuity/argocd-sync"
        | "clowdhaus/argo-cd-action"
        | "swarmica/docker-stack-deploy"
        | "kitconcept/docker-stack-deploy"
        | "shopify/lighthouse-deploy"
        | "shopify/deploy" => {
            let target = with
                .first(&[
                    "environment_name",
                    "stack-name",
                    "namespace",
                    "service",
                    "app_name",
                    "heroku_app_name",
                    "environment",
                    "host",
                    "stage",
                ])
                .unwrap_or_default();
            let mut act = Act::deploy(what).benign_if(
                is_rehearsal(target),
                "the target's name says that it is not production",
            );
            match what {
                "pulumi/actions" => {
                    let command = with.get("command").unwrap_or_default();
                    let preview = matches!(command, "preview" | "refresh" | "output" | "");
                    act = act.benign_if(
                        preview || with.get("stack-name").is_some_and(is_rehearsal),
                        "a preview is not production",
                    );
                }
                "serverless/github-action" => {
                    act = act.benign_if(
                        !with.get("args").is_some_and(|args| args.contains("deploy")),
                        "it deploys nothing",
                    )
                }
                "google-github-actions/deploy-cloudrun"
                | "google-github-actions/deploy-appengine" => {
                    act = act.benign_if(
                        with.says("no_traffic", "true") || with.says("promote", "false"),
                        "no traffic reaches it",
                    );
                }
                _ => {}
            }
            one(act)
        }
        _ => return None,
    };
    Some(acts)
}
