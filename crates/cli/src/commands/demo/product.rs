//! The product: a small web service in C with its tests, in a real git repository.

use portcullis_model::Refusal;

use super::stage::{PERSON, Stage};

/// Its files, as they stand in the first commit.
const FILES: &[(&str, &str)] = &[
    ("README.md", include_str!("product/README.md")),
    ("build.sh", include_str!("product/build.sh")),
    ("src/shop.h", include_str!("product/src/shop.h")),
    ("src/shop.c", include_str!("product/src/shop.c")),
    ("src/prices.c", include_str!("product/src/prices.c")),
    ("tests/run.sh", include_str!("product/tests/run.sh")),
    ("tests/cases.txt", include_str!("product/tests/cases.txt")),
    (".portcullis/jobs.toml", include_str!("product/jobs.toml")),
    (".github/workflows/ci.yml", include_str!("product/ci.yml")),
    (".github/CODEOWNERS", include_str!("product/CODEOWNERS")),
];

/// The agents: each a real process, here a script. A line of the rogue's is its tool's source.
pub(super) const COFFEE: &str = include_str!("agents/coffee.sh");
/// The honest agent's second order.
pub(super) const MEMBERS: &str = include_str!("agents/members.sh");
/// An order done badly.
pub(super) const CURRENCY: &str = include_str!("agents/currency.sh");
/// Everything that is forbidden.
pub(super) const ROGUE: &str = include_str!("agents/rogue.sh");
/// A secret in the code.
pub(super) const SECRET: &str = include_str!("agents/secret.sh");
/// A test deleted.
pub(super) const UNTEST: &str = include_str!("agents/untest.sh");
/// An agent that never ends by itself.
pub(super) const BUSY: &str = include_str!("agents/busy.sh");
/// The rogue's tool.
pub(super) const KNOCK: &str = include_str!("agents/knock.c");

/// The place in the rogue's script where its tool's source goes.
pub(super) const KNOCK_HERE: &str = "@KNOCK@";

/// Makes the repository `shop.git` with one commit, and `payroll.git`, which is nobody's business.
///
/// # Errors
/// git refuses.
pub(super) fn make(stage: &Stage) -> Result<(), Refusal> {
    for name in ["shop", "payroll"] {
        let bare = format!("{name}.git");
        stage.git(&["init", "-q", "--bare", "-b", "main", &bare])?;
        stage.git(&["init", "-q", "-b", "main", name])?;
        stage.git(&["-C", name, "config", "user.name", "Ada"])?;
        stage.git(&[
            "-C",
            name,
            "config",
            "user.email",
            &format!("{PERSON}@example.org"),
        ])?;
        let readme = [("README.md", "# payroll\n\nWho earns what.\n")];
        for (path, text) in if name == "shop" { FILES } else { &readme } {
            stage.write(&format!("{name}/{path}"), text)?;
        }
        stage.git(&["-C", name, "add", "-A"])?;
        stage.git(&["-C", name, "commit", "-q", "-m", "Begin"])?;
        stage.git(&["-C", name, "push", "-q", &format!("../{bare}"), "main"])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_stands_in_an_agents_script_and_the_rogue_gets_its_tool() {
        for script in [COFFEE, MEMBERS, CURRENCY, ROGUE, SECRET, UNTEST, BUSY] {
            let found = portcullis_checks::secrets::scan_text("agent.sh", script);
            assert!(found.is_empty(), "{found:?}");
        }
        assert_eq!(ROGUE.matches(KNOCK_HERE).count(), 1);
        assert!(!KNOCK.lines().any(|line| line == "END"));
    }
}
