//! What Azure's tasks do.

use super::Draft;
use crate::acts::{Act, is_rehearsal};
use crate::yaml::Node;

pub(super) fn task_step(draft: &mut Draft<'_>, task: &str, step: &Node) {
    let name = task.split('@').next().unwrap_or(task).to_ascii_lowercase();
    let input = |key: &str| {
        step.at(&["inputs", key])
            .and_then(Node::text)
            .unwrap_or_default()
    };
    let command = input("command").to_ascii_lowercase();
    let line = step.line;
    let target = format!(
        "{} {} {}",
        input("appName"),
        input("slotName"),
        input("namespace")
    );
    let rehearsal = is_rehearsal(&target);
    let act = match name.as_str() {
        "azurewebapp"
        | "azurermwebappdeployment"
        | "azurefunctionapp"
        | "azurefunctionappcontainer"
        | "azurewebappcontainer"
        | "azurecontainerapps"
        | "azurestaticwebapp"
        | "azureresourcemanagertemplatedeployment"
        | "azureresourcegroupdeployment"
        | "iiswebappdeploymentonmachinegroup"
        | "servicefabricdeploy"
        | "azurefilecopy"
        | "copyfilesoverssh"
        | "ssh"
        | "ftpupload"
        | "ecsdeploy"
        | "s3upload"
        | "lambdadeployfunction"
        | "cloudformationcreateorupdatestack"
        | "sqlazuredacpacdeployment"
        | "azuremysqldeployment"
        | "azurevmssdeployment"
        | "azurecloudpowershelldeployment"
        | "azurefunctiononkubernetes"
        | "powerplatformimportsolution"
        | "powerplatformdeploypackage"
        | "powerplatformpublishcustomizations"
        | "beanstalkdeployapplication"
        | "codedeploydeployapplication"
        | "systemsmanagerruncommand"
        | "octopusdeployrelease"
        | "octopusdeployreleasetenanted"
        | "octopusdeploytenantedrelease"
        | "azurespringcloud" => Act::deploy(task)
            .benign_if(input("deploymentMode") == "Validation", "it only validates"),
        "vsbuild" | "msbuild"
            if input("msbuildArgs").contains("DeployOnBuild=true")
                && input("msbuildArgs").contains("PublishProfile=") =>
        {
            Act::deploy(task)
        }
        "awscli" | "awsshellscript" if !input("awsCommand").is_empty() => {
            let words = ["awsCommand", "awsSubCommand", "awsArguments"].map(input);
            draft.script(&format!("aws {}", words.join(" ")), line);
            return;
        }
        "kubernetes" if matches!(command.as_str(), "apply" | "create" | "set" | "replace") => {
            Act::deploy(task)
        }
        "kubernetesmanifest" if matches!(input("action"), "deploy" | "promote" | "patch") => {
            Act::deploy(task)
        }
        "helmdeploy" if matches!(command.as_str(), "upgrade" | "install") => Act::deploy(task),
        "terraformtaskv4" | "terraformtaskv3" | "terraformtask" | "terraformcli"
            if command == "apply" =>
        {
            Act::deploy(task)
        }
        "docker" if command == "push" || command == "buildandpush" || command.is_empty() => {
            Act::publish(task)
        }
        "dockercompose" if input("action").to_ascii_lowercase().starts_with("push") => {
            Act::publish(task)
        }
        "nugetcommand" | "dotnetcorecli" if command == "push" => Act::publish(task),
        "npm" if command == "publish" => Act::publish(task),
        "universalpackages" if command == "publish" => Act::publish(task),
        // The command of a tool in words of its own.
        "npm" | "dotnetcorecli" | "nugetcommand" | "maven" | "gradle"
            if !given(&name, &input).is_empty() =>
        {
            draft.script(&given(&name, &input), line);
            return;
        }
        "azureappservicemanage"
            if input("Action").is_empty() || input("Action").starts_with("Swap") =>
        {
            Act::deploy(task)
        }
        "googleplayrelease"
        | "appstorerelease"
        | "publishvsextension"
        | "appcenterdistribute"
        | "ecrpushimage"
        | "octopuspush"
        | "octopuscreaterelease"
        | "publishazuredevopsextension" => Act::publish(task),
        "githubrelease" if input("action").eq_ignore_ascii_case("delete") => return,
        "githubrelease" => Act::new(
            crate::acts::Op::Release {
                draft: Some(input("isDraft").to_owned()),
                tag: None,
            },
            task,
            crate::acts::Token::Value("secrets.connection".to_owned()),
        ),
        "azurecli" | "bash" | "powershell" | "azurepowershell" | "cmdline" | "shellscript"
        | "pythonscript" | "batchscript" => {
            for key in ["inlineScript", "script", "Inline"] {
                if let Some(script) = step.at(&["inputs", key])
                    && let Some(text) = script.text()
                {
                    let text = &with_variables(text, &draft.job.env);
                    draft.script(text, script.line);
                }
            }
            for key in ["filePath", "scriptPath", "ScriptPath", "filename"] {
                if let Some(script) = step.at(&["inputs", key])
                    && let Some(path) = script.text()
                {
                    let runner = match name.as_str() {
                        "pythonscript" => "python",
                        "powershell" | "azurepowershell" => "pwsh",
                        _ if path.ends_with(".ps1") => "pwsh",
                        _ => "bash",
                    };
                    let path = in_checkout(path);
                    draft.script(
                        &format!("{runner} {path} {}", input("arguments")),
                        script.line,
                    );
                }
            }
            return;
        }
        // What no list knows, by its name, where it is handed a connection to something.
        _ => {
            let connected = step
                .get("inputs")
                .map(Node::entries)
                .unwrap_or_default()
                .iter()
                .any(|entry| {
                    let key = entry.key.to_ascii_lowercase();
                    [
                        "subscription",
                        "connect",
                        "endpoint",
                        "credential",
                        "apikey",
                        "token",
                    ]
                    .iter()
                    .any(|word| key.contains(word))
                });
            if !connected
                || !matches!(
                    command.as_str(),
                    "" | "deploy" | "publish" | "push" | "apply" | "upload"
                )
            {
                return;
            }
            match crate::acts::words::said(&spaced(task)) {
                Some(said) if said.plain => match said.claim {
                    crate::acts::words::Claim::Deploy => Act::deploy(task),
                    crate::acts::words::Claim::Publish => Act::publish(task),
                    _ => return,
                },
                _ => return,
            }
        }
    };
    draft.act(
        act.benign_if(
            rehearsal,
            "the target's name says that it is not production",
        ),
        line,
    );
}

/// A path without the variables that stand for the checkout.
fn in_checkout(path: &str) -> &str {
    [
        "$(System.DefaultWorkingDirectory)",
        "$(Build.SourcesDirectory)",
        "$(Build.Repository.LocalPath)",
        "$(Pipeline.Workspace)/s",
    ]
    .iter()
    .find_map(|root| path.strip_prefix(root))
    .map_or(path, |rest| rest.trim_start_matches(['/', '\\']))
}

/// The command line of a task that starts a tool with words of its own.
fn given<'a>(name: &str, input: &dyn Fn(&str) -> &'a str) -> String {
    let (tool, words) = match name {
        "npm" => ("npm", [input("customCommand"), ""]),
        "dotnetcorecli" if !input("custom").is_empty() => {
            ("dotnet", [input("custom"), input("arguments")])
        }
        "nugetcommand" => ("nuget", [input("arguments"), ""]),
        "maven" => ("mvn", [input("goals"), input("options")]),
        "gradle" => ("gradle", [input("tasks"), input("options")]),
        _ => return String::new(),
    };
    let words = words.join(" ");
    if words.trim().is_empty() {
        return String::new();
    }
    format!("{tool} {}", words.trim())
}

/// A script with the pipeline's variables put in: `$(name)`.
pub(super) fn with_variables(text: &str, variables: &[(String, String)]) -> String {
    let mut out = text.to_owned();
    for (name, value) in variables {
        let mark = format!("$({name})");
        if out.contains(&mark) && !value.contains(['\n', '$']) && out.len() < 64 * 1024 {
            out = out.replace(&mark, value);
        }
    }
    out
}

/// A task's name with its words apart: `WebsiteDeploy@1` is `Website-Deploy`.
fn spaced(task: &str) -> String {
    let mut out = String::new();
    for c in task.split('@').next().unwrap_or(task).chars() {
        if c.is_ascii_uppercase() && out.ends_with(|last: char| last.is_ascii_lowercase()) {
            out.push('-');
        }
        out.push(c);
    }
    out
}
