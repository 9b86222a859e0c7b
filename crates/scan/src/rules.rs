//! The pages of `docs/scan/rules`, as the program carries them: for `--explain` and for SARIF.

/// Every rule's page, by id.
pub const PAGES: &[(&str, &str)] = &[
    (
        "agent-broad-token",
        include_str!("../../../docs/scan/rules/agent-broad-token.md"),
    ),
    (
        "agent-fork-instructions",
        include_str!("../../../docs/scan/rules/agent-fork-instructions.md"),
    ),
    (
        "agent-secrets-in-reach",
        include_str!("../../../docs/scan/rules/agent-secrets-in-reach.md"),
    ),
    (
        "agent-standing-credential",
        include_str!("../../../docs/scan/rules/agent-standing-credential.md"),
    ),
    (
        "agent-unpinned",
        include_str!("../../../docs/scan/rules/agent-unpinned.md"),
    ),
    (
        "agent-untrusted-prompt",
        include_str!("../../../docs/scan/rules/agent-untrusted-prompt.md"),
    ),
    (
        "bot-approval",
        include_str!("../../../docs/scan/rules/bot-approval.md"),
    ),
    (
        "secret-in-pipeline",
        include_str!("../../../docs/scan/rules/secret-in-pipeline.md"),
    ),
    (
        "self-attested-gate",
        include_str!("../../../docs/scan/rules/self-attested-gate.md"),
    ),
    (
        "spoofable-actor-check",
        include_str!("../../../docs/scan/rules/spoofable-actor-check.md"),
    ),
    (
        "unattended-path",
        include_str!("../../../docs/scan/rules/unattended-path.md"),
    ),
    (
        "undecided-path",
        include_str!("../../../docs/scan/rules/undecided-path.md"),
    ),
    (
        "unread-pipeline",
        include_str!("../../../docs/scan/rules/unread-pipeline.md"),
    ),
    (
        "unread-step",
        include_str!("../../../docs/scan/rules/unread-step.md"),
    ),
];

/// The page of one rule.
pub fn page(id: &str) -> Option<&'static str> {
    PAGES
        .iter()
        .find(|(known, _)| *known == id)
        .map(|(_, page)| *page)
}
