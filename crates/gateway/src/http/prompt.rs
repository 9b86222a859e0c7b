//! What a model is told before it is asked anything: digests of the system prompt, of the tools, and
//! of the instruction files that stand in the conversation. The texts themselves are not kept.
//!
//! Read are the bodies of Anthropic's messages, of OpenAI's chat completions and responses, and of
//! Gemini's `generateContent`; what a body of another form says is not known, and said to be so.

use portcullis_model::{Digest, canonical};
use serde_json::Value;

/// Names by which agents put instruction files of a repository into the conversation.
const INSTRUCTION_FILES: [&str; 8] = [
    "AGENTS.md",
    "CLAUDE.md",
    "GEMINI.md",
    ".cursorrules",
    ".windsurfrules",
    "copilot-instructions",
    "CONVENTIONS.md",
    "<INSTRUCTIONS>",
];
/// Messages of the beginning of a conversation that are searched for instruction files.
const SEARCHED_MESSAGES: usize = 16;

/// What a request tells the model, as digests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// The system prompt: what the vendor's form has for it, and messages of system and developer.
    pub system: Option<Digest>,
    /// The tools that the model may call, in their order.
    pub tools: Option<Digest>,
    /// Messages that hold instruction files.
    pub instructions: Option<Digest>,
}

impl Prompt {
    /// Reads a request's body; nothing is known of what is no JSON object.
    pub fn read(body: &[u8]) -> Self {
        let Ok(Value::Object(body)) = serde_json::from_slice::<Value>(body) else {
            return Self::default();
        };
        let list = |name: &str| match body.get(name) {
            Some(Value::Array(items)) => items.as_slice(),
            Some(_) | None => &[],
        };
        let messages: Vec<&Value> = ["messages", "input", "contents"]
            .into_iter()
            .flat_map(list)
            .collect();
        let role = |message: &Value| {
            message
                .get("role")
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let mut system: Vec<&Value> = [
            "system",
            "instructions",
            "systemInstruction",
            "system_instruction",
        ]
        .into_iter()
        .filter_map(|name| body.get(name))
        .filter(|value| !value.is_null())
        .collect();
        let told = messages
            .iter()
            .filter(|message| matches!(role(message).as_deref(), Some("system" | "developer")))
            .filter_map(|message| message.get("content"));
        system.extend(told);
        let tools: Vec<&Value> = ["tools", "functions", "mcp_servers", "toolConfig"]
            .into_iter()
            .filter_map(|name| body.get(name))
            .filter(|value| !value.is_null())
            .collect();
        let instructions: Vec<&Value> = messages
            .iter()
            .take(SEARCHED_MESSAGES)
            .take_while(|message| !matches!(role(message).as_deref(), Some("assistant" | "model")))
            .filter_map(|message| message.get("content").or_else(|| message.get("parts")))
            .filter(|content| {
                let text = content.to_string();
                INSTRUCTION_FILES.iter().any(|name| text.contains(name))
            })
            .collect();
        Self {
            system: digest(&system),
            tools: digest(&tools),
            instructions: digest(&instructions),
        }
    }
}

fn digest(values: &[&Value]) -> Option<Digest> {
    if values.is_empty() {
        return None;
    }
    canonical::to_vec(&values)
        .ok()
        .map(|bytes| Digest::of(&bytes))
}

/// Whether the model that answered is the one that was asked for. Vendors answer with the dated name
/// of what was asked by its short one (`m-4` by `m-4-2026-01-31`).
pub fn is_same_model(asked: &str, served: &str) -> bool {
    let bare = |name: &str| {
        let name = name.strip_prefix("models/").unwrap_or(name);
        name.strip_suffix("-latest").unwrap_or(name).to_owned()
    };
    let (asked, served) = (bare(asked), bare(served));
    asked == served
        || served
            .strip_prefix(&asked)
            .and_then(|rest| rest.strip_prefix(['-', '@']))
            .is_some_and(|rest| {
                rest.bytes()
                    .all(|byte| byte.is_ascii_digit() || byte == b'-')
            })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(body: &Value) -> Prompt {
        Prompt::read(body.to_string().as_bytes())
    }

    #[test]
    fn each_vendors_form_says_what_the_model_is_told() {
        let tools = json!([{ "name": "shell" }]);
        let file = "# AGENTS.md instructions\nUse tabs.";
        for body in [
            json!({ "system": "be good", "tools": tools, "messages": [{ "role": "user", "content": file }] }),
            json!({ "tools": tools, "messages": [
                { "role": "system", "content": "be good" }, { "role": "user", "content": file },
            ] }),
            json!({ "instructions": "be good", "tools": tools, "input": [
                { "role": "user", "content": [{ "type": "input_text", "text": file }] },
            ] }),
            json!({ "tools": tools, "input": [
                { "role": "developer", "content": "be good" }, { "role": "user", "content": file },
            ] }),
            json!({ "systemInstruction": { "parts": [{ "text": "be good" }] }, "tools": tools,
                "contents": [{ "role": "user", "parts": [{ "text": file }] }] }),
        ] {
            let seen = read(&body);
            assert!(seen.system.is_some() && seen.tools.is_some(), "{body}");
            assert!(seen.instructions.is_some(), "{body}");
            let mut other = body.to_string().replace("be good", "be bad");
            let changed = Prompt::read(other.as_bytes());
            assert_ne!(changed.system, seen.system, "{body}");
            assert_eq!(
                (changed.tools, changed.instructions),
                (seen.tools, seen.instructions)
            );
            other = body.to_string().replace("shell", "browser");
            assert_ne!(Prompt::read(other.as_bytes()).tools, seen.tools, "{body}");
            other = body.to_string().replace("tabs", "spaces");
            assert_ne!(
                Prompt::read(other.as_bytes()).instructions,
                seen.instructions
            );
        }
        // The conversation going on changes nothing.
        let begun = json!({ "messages": [{ "role": "system", "content": "a" }, { "role": "user", "content": "b" }] });
        let mut gone_on = begun.clone();
        let more = json!({ "role": "user", "content": "look at CLAUDE.md" });
        let list = gone_on["messages"].as_array_mut().unwrap();
        list.extend([json!({ "role": "assistant", "content": "c" }), more]);
        assert_eq!(read(&begun), read(&gone_on));
        assert_eq!(read(&json!([])), Prompt::default());
        assert_eq!(Prompt::read(b"{"), Prompt::default());
    }

    #[test]
    fn a_dated_name_is_the_same_model_and_another_is_not() {
        for (asked, served) in [
            ("m-4", "m-4"),
            ("m-4", "m-4-2026-01-31"),
            ("m-4-latest", "m-4-20260131"),
            ("models/g-1", "g-1"),
            ("m-4", "m-4@20260131"),
        ] {
            assert!(is_same_model(asked, served), "{asked} {served}");
        }
        for (asked, served) in [
            ("m-4", "m-4-mini"),
            ("m-4", "m-40"),
            ("m-4", "x"),
            ("m-4-mini", "m-4"),
        ] {
            assert!(!is_same_model(asked, served), "{asked} {served}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Prompt::read(&bytes);
        }
    }
}
