//! GitHub's agentic workflows (gh-aw): what a compiled `*.lock.yml` does with its agent's output.
//!
//! The agent itself runs with a token that reads. It asks for "safe outputs", and a later job with
//! rights of its own carries them out: one `actions/github-script` step whose configuration is
//! JSON in its environment. The Markdown sources run nothing until they are compiled, so only the
//! compiled files are read.

use serde_json::Value;

use crate::acts::{Act, Check, NewPr, Op, Target, Token};

/// Environment variables that hold the configuration, newest name first.
const CONFIG: &[&str] = &[
    "GH_AW_SAFE_OUTPUTS_HANDLER_CONFIG",
    "GH_AW_SAFE_OUTPUTS_CONFIG",
];

/// What a script of a compiled agentic workflow does; `None` for any other script.
pub(crate) fn acts(
    script: &str,
    env: &[(String, String)],
    token: Option<&str>,
) -> Option<Vec<Act>> {
    let runs = |name: &str| script.contains(&format!("{name}.cjs"));
    if runs("check_membership") {
        return Some(vec![Act::new(
            Op::Check(Check::Actor(
                "the agentic workflow takes tasks only from accounts with a role here",
            )),
            "check_membership",
            default_token(None),
        )]);
    }
    let env_of = |name: &str| {
        env.iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    if runs("safe_output_handler_manager") || runs("safe_output_unified_handler_manager") {
        let config = CONFIG
            .iter()
            .find_map(|name| env_of(name))
            .and_then(|text| serde_json::from_str::<Value>(text).ok())?;
        let mut out = Vec::new();
        for (kind, options) in config.as_object()? {
            output(kind, options, token, &mut out);
        }
        return Some(out);
    }
    // Older compilers make one job for each kind of output.
    let kind = [
        "create_pull_request",
        "push_to_pull_request_branch",
        "merge_pull_request",
        "add_labels",
        "create_issue",
        "add_comment",
        "dispatch_workflow",
    ]
    .into_iter()
    .find(|kind| runs(kind))?;
    let labels = env_of("GH_AW_PR_LABELS")
        .or(env_of("GH_AW_LABELS_ALLOWED"))
        .unwrap_or_default();
    let options = serde_json::json!({
        "labels": labels.split(',').map(str::trim).filter(|label| !label.is_empty()).collect::<Vec<_>>(),
        "draft": env_of("GH_AW_PR_DRAFT").is_none_or(|draft| draft != "false"),
    });
    let mut out = Vec::new();
    output(kind, &options, token, &mut out);
    Some(out)
}

/// One kind of safe output.
fn output(kind: &str, options: &Value, token: Option<&str>, out: &mut Vec<Act>) {
    let text = |name: &str| {
        options
            .get(name)
            .or_else(|| options.get(name.replace('_', "-")))
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let list = |names: &[&str]| -> Vec<String> {
        names
            .iter()
            .find_map(|name| options.get(name).and_then(Value::as_array))
            .map(|list| {
                list.iter()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect()
            })
            .unwrap_or_default()
    };
    let is = |name: &str| match options
        .get(name)
        .or_else(|| options.get(name.replace('_', "-")))
    {
        Some(Value::Bool(yes)) => Some(*yes),
        Some(Value::String(text)) => Some(text != "false"),
        _ => None,
    };
    if text("target-repo").is_some() || options.get("target_repo").is_some() {
        return;
    }
    let own = text("github-token");
    let token = default_token(own.as_deref().or(token));
    let mut add = |op: Op| {
        out.push(Act::new(
            op,
            format!("safe output {}", kind.replace('_', "-")),
            token.clone(),
        ));
    };
    match kind.replace('-', "_").as_str() {
        "create_pull_request" => {
            add(Op::CreatePr(NewPr {
                labels: list(&["labels"]),
                head: None,
                base: text("base_branch"),
                release: false,
            }));
            // A draft waits for a person whatever else is asked for.
            if is("auto_merge") == Some(true) && is("draft") == Some(false) {
                add(crate::acts::merge(true));
            }
        }
        "push_to_pull_request_branch" => {
            add(Op::Push(Target::Branch("$PULL_REQUEST_BRANCH".to_owned())));
        }
        "merge_pull_request" => add(Op::Merge {
            auto: false,
            admin: false,
            label: list(&["required_labels", "required-labels"])
                .into_iter()
                .next(),
            any: true,
        }),
        "add_labels" => add(Op::Label(list(&["allowed", "labels"]))),
        "add_comment" => add(Op::Comment(None)),
        "create_issue" => add(Op::Issue),
        "submit_pull_request_review" => {
            let events = list(&["allowed-events", "allowed_events"]);
            if events.iter().any(|event| event == "APPROVE") {
                add(Op::Approve);
            }
        }
        "dispatch_workflow" => {
            for name in list(&["workflows"]) {
                add(Op::Dispatch {
                    workflow: Some(name),
                    repository: None,
                });
            }
        }
        _ => {}
    }
}

/// The token of a safe output. The compiler writes `secrets.GH_AW_… || secrets.GITHUB_TOKEN`
/// everywhere; few set those secrets, so the token that is always there counts.
fn default_token(template: Option<&str>) -> Token {
    match template {
        Some(text) if text.contains("secrets.GITHUB_TOKEN") && text.contains("secrets.GH_AW_") => {
            Token::Value("${{ secrets.GITHUB_TOKEN }}".to_owned())
        }
        Some(text) => Token::Value(text.to_owned()),
        None => Token::Value("${{ github.token }}".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ops(config: &str) -> Vec<Op> {
        let env = vec![(
            "GH_AW_SAFE_OUTPUTS_HANDLER_CONFIG".to_owned(),
            config.to_owned(),
        )];
        acts(
            "require('/gh-aw/actions/safe_output_handler_manager.cjs')",
            &env,
            None,
        )
        .unwrap()
        .into_iter()
        .map(|act| act.op)
        .collect()
    }

    #[test]
    fn configuration_becomes_acts() {
        assert!(matches!(
            ops(r#"{"create_pull_request":{"labels":["a"]}}"#).as_slice(),
            [Op::CreatePr(_)]
        ));
        assert!(matches!(
            ops(r#"{"create_pull_request":{"draft":false,"auto_merge":true}}"#).as_slice(),
            [Op::CreatePr(_), Op::Merge { auto: true, .. }]
        ));
        assert!(matches!(
            ops(r#"{"create_pull_request":{"auto_merge":true}}"#).as_slice(),
            [Op::CreatePr(_)]
        ));
        assert!(ops(r#"{"noop":{"max":1},"missing_tool":{}}"#).is_empty());
    }

    #[test]
    fn other_scripts_are_not_its_business() {
        assert_eq!(acts("github.rest.pulls.merge({})", &[], None), None);
        assert_eq!(acts("safe_output_handler_manager.cjs", &[], None), None);
    }
}
