//! What each agent leaves in commits when nobody switches it off.
//!
//! Whole addresses, whole names and whole keys are compared, not pieces of them: a colleague called
//! Claude or a person who writes about Cursor is no agent. Everything here is lower-case.

/// One agent's marks.
pub(super) struct Marks {
    pub(super) name: &'static str,
    /// Addresses of authors, committers and co-authors: whole, or the part after `+` in the
    /// forge's `NUMBER+LOGIN@users.noreply.github.com`.
    pub(super) addresses: &'static [&'static str],
    /// Whole names of authors and committers.
    pub(super) names: &'static [&'static str],
    /// How such a name ends.
    pub(super) endings: &'static [&'static str],
    /// How a co-author's name begins, whatever the address: products, no first names.
    pub(super) coauthors: &'static [&'static str],
    /// Keys of trailers that only this agent writes.
    pub(super) keys: &'static [&'static str],
    /// First words of `Assisted-by:`, `Generated-by:`, `Made-with:` and their like.
    pub(super) helpers: &'static [&'static str],
    /// Pieces of a message's lines.
    pub(super) bodies: &'static [&'static str],
    /// How a merged branch's name begins.
    pub(super) branches: &'static [&'static str],
}

const NOTHING: Marks = Marks {
    name: "",
    addresses: &[],
    names: &[],
    endings: &[],
    coauthors: &[],
    keys: &[],
    helpers: &[],
    bodies: &[],
    branches: &[],
};

/// Trailers that name what helped.
pub(super) const HELPER_KEYS: &[&str] = &[
    "assisted-by",
    "generated-by",
    "made-with",
    "created-by",
    "written-by",
    "agent",
    "ai-assisted-by",
];

pub(super) const MARKS: &[Marks] = &[
    Marks {
        name: "Claude Code",
        addresses: &[
            "noreply@anthropic.com",
            "claude@anthropic.com",
            "claude[bot]@users.noreply.github.com",
        ],
        names: &["claude[bot]"],
        keys: &["claude-session"],
        helpers: &["claude"],
        bodies: &[
            "generated with [claude code]",
            "generated with claude code",
            "claude.ai/code/session",
        ],
        coauthors: &[
            "claude code",
            "claude opus",
            "claude sonnet",
            "claude haiku",
        ],
        branches: &["claude/"],
        ..NOTHING
    },
    Marks {
        name: "Codex",
        addresses: &[
            "codex@openai.com",
            "noreply@openai.com",
            "chatgpt-codex-connector[bot]@users.noreply.github.com",
        ],
        names: &["chatgpt-codex-connector[bot]", "codex[bot]"],
        helpers: &["codex", "openai codex"],
        bodies: &["chatgpt.com/codex/", "generated with [codex]"],
        coauthors: &["openai codex", "codex cli", "chatgpt-codex"],
        branches: &["codex/"],
        ..NOTHING
    },
    Marks {
        name: "Copilot",
        addresses: &[
            "198982749+copilot@users.noreply.github.com",
            "223556219+copilot@users.noreply.github.com",
            "copilot@github.com",
            "copilot-swe-agent[bot]@users.noreply.github.com",
            "copilot[bot]@users.noreply.github.com",
        ],
        names: &[
            "copilot-swe-agent[bot]",
            "copilot-swe-agent",
            "copilot[bot]",
        ],
        keys: &["agent-logs-url"],
        helpers: &["copilot", "github copilot"],
        bodies: &["generated with [github copilot]"],
        coauthors: &[
            "github copilot",
            "copilot-swe-agent",
            "copilot coding agent",
        ],
        branches: &["copilot/"],
        ..NOTHING
    },
    Marks {
        name: "Cursor",
        addresses: &[
            "cursoragent@cursor.com",
            "noreply@cursor.com",
            "agent@cursor.com",
            "cursor[bot]@users.noreply.github.com",
        ],
        names: &["cursor agent", "cursoragent", "cursor[bot]"],
        helpers: &["cursor"],
        bodies: &["made with [cursor]", "cursor.com/agents/"],
        coauthors: &["cursor agent", "cursoragent"],
        branches: &["cursor/"],
        ..NOTHING
    },
    Marks {
        name: "Devin",
        addresses: &[
            "devin-ai-integration[bot]@users.noreply.github.com",
            "devin@cognition.ai",
        ],
        names: &["devin ai", "devin-ai-integration[bot]"],
        helpers: &["devin"],
        bodies: &["app.devin.ai/sessions", "generated with [devin]"],
        coauthors: &["devin ai", "devin-ai-integration"],
        branches: &["devin/"],
        ..NOTHING
    },
    Marks {
        name: "Gemini CLI",
        addresses: &[
            "gemini-code-assist[bot]@users.noreply.github.com",
            "gemini-cli[bot]@users.noreply.github.com",
            "gemini@google.com",
            "gemini-cli@google.com",
        ],
        names: &["gemini-cli[bot]", "gemini-code-assist[bot]", "gemini cli"],
        helpers: &["gemini"],
        bodies: &["generated with [gemini", "generated with gemini cli"],
        coauthors: &[
            "gemini cli",
            "gemini-cli",
            "gemini-code-assist",
            "gemini code assist",
        ],
        branches: &["gemini/", "gemini-cli/"],
        ..NOTHING
    },
    Marks {
        name: "Jules",
        addresses: &[
            "google-labs-jules[bot]@users.noreply.github.com",
            "jules@google.com",
            "noreply@jules.google",
        ],
        names: &["google-labs-jules[bot]"],
        helpers: &["jules", "google jules"],
        bodies: &["jules.google.com/task", "created automatically by jules"],
        coauthors: &["google jules", "google-labs-jules"],
        branches: &["jules/", "jules-"],
        ..NOTHING
    },
    Marks {
        name: "OpenHands",
        addresses: &[
            "openhands@all-hands.dev",
            "openhands@openhands.dev",
            "openhands-agent[bot]@users.noreply.github.com",
        ],
        names: &["openhands", "openhands-agent", "openhands bot"],
        helpers: &["openhands"],
        coauthors: &["openhands"],
        branches: &["openhands/", "openhands-fix", "openhands-workspace"],
        ..NOTHING
    },
    Marks {
        name: "Aider",
        addresses: &["noreply@aider.chat", "aider@aider.chat"],
        names: &["aider"],
        endings: &["(aider)"],
        helpers: &["aider"],
        coauthors: &["aider ("],
        branches: &["aider/"],
        ..NOTHING
    },
    Marks {
        name: "Amp",
        addresses: &["amp@ampcode.com"],
        names: &["amp[bot]"],
        keys: &["amp-thread-id", "amp-thread"],
        helpers: &["amp"],
        bodies: &["ampcode.com/threads/"],
        coauthors: &["amp (", "sourcegraph amp"],
        branches: &["amp/"],
        ..NOTHING
    },
    Marks {
        name: "Sweep",
        addresses: &[
            "sweep-ai[bot]@users.noreply.github.com",
            "sweep-nightly[bot]@users.noreply.github.com",
        ],
        names: &["sweep-ai[bot]", "sweep-nightly[bot]"],
        helpers: &["sweep ai"],
        coauthors: &["sweep ai", "sweep-ai"],
        branches: &["sweep/"],
        ..NOTHING
    },
    Marks {
        name: "opencode",
        addresses: &[
            "noreply@opencode.ai",
            "opencode-agent[bot]@users.noreply.github.com",
        ],
        names: &["opencode-agent[bot]"],
        helpers: &["opencode"],
        bodies: &["generated with [opencode]"],
        coauthors: &["opencode"],
        branches: &["opencode/"],
        ..NOTHING
    },
    Marks {
        name: "Factory Droid",
        addresses: &["factory-droid[bot]@users.noreply.github.com"],
        names: &["factory-droid[bot]"],
        helpers: &["factory droid", "droid"],
        coauthors: &["factory-droid", "factory droid"],
        branches: &["droid/"],
        ..NOTHING
    },
    Marks {
        name: "Dependabot",
        addresses: &[
            "dependabot[bot]@users.noreply.github.com",
            "dependabot-preview[bot]@users.noreply.github.com",
        ],
        names: &["dependabot[bot]", "dependabot-preview[bot]"],
        branches: &["dependabot/"],
        ..NOTHING
    },
    Marks {
        name: "Renovate",
        addresses: &[
            "renovate[bot]@users.noreply.github.com",
            "bot@renovateapp.com",
        ],
        names: &["renovate[bot]", "renovate-bot", "renovate bot"],
        branches: &["renovate/"],
        ..NOTHING
    },
];
