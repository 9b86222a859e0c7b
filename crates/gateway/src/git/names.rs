//! Names of refs, checked before they reach a file or a command line.

use portcullis_model::Refusal;

/// Longest ref name in bytes: what file systems and consoles take.
pub const REF_NAME_MAX_BYTES: usize = 255;
/// Where a push proposes a change: `refs/for/<branch>`.
pub const PROPOSAL_PREFIX: &str = "refs/for/";
/// Branches.
pub const BRANCH_PREFIX: &str = "refs/heads/";
/// Tags.
pub const TAG_PREFIX: &str = "refs/tags/";
/// Revisions of changes: `refs/portcullis/changes/<change>/<revision>`.
pub const CHANGE_PREFIX: &str = "refs/portcullis/changes/";

/// A full ref name (`refs/…`), by the rules of git-check-ref-format(1), printable ASCII and
/// Unicode letters only as git allows them.
///
/// # Errors
/// `malformed-ref-name`.
pub fn check_ref_name(name: &str) -> Result<(), Refusal> {
    let parts_ok = name.split('/').all(|part| {
        !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock") && part != "@"
    });
    let characters_ok = !name.contains(|c: char| {
        c.is_control() || matches!(c, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\' | '\u{7f}')
    });
    if name.starts_with("refs/")
        && name.len() <= REF_NAME_MAX_BYTES
        && name.split('/').count() >= 3
        && parts_ok
        && characters_ok
        && !name.contains("..")
        && !name.contains("@{")
        && !name.ends_with('.')
    {
        Ok(())
    } else {
        Err(Refusal::malformed("ref name")
            .expected("`refs/<kind>/<name>` by the rules of git-check-ref-format(1)")
            .received(name))
    }
}

/// The full name of a branch.
///
/// # Errors
/// `malformed-ref-name`: no ref can be named so. A leading `-` is refused too.
pub fn branch_ref(branch: &str) -> Result<String, Refusal> {
    let name = format!("{BRANCH_PREFIX}{branch}");
    if branch.starts_with('-') || branch == "HEAD" {
        return Err(Refusal::malformed("ref name")
            .expected("a branch name that is no option and not HEAD")
            .received(branch));
    }
    check_ref_name(&name)?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_as_git_judges_them() {
        for name in [
            "refs/heads/main",
            "refs/for/feature/a.b",
            "refs/heads/ä",
            "refs/tags/v1",
        ] {
            assert!(check_ref_name(name).is_ok(), "{name}");
        }
        for name in [
            "HEAD",
            "main",
            "refs/heads",
            "refs/heads/",
            "refs//a",
            "refs/heads/a..b",
            "refs/heads/.a",
            "refs/heads/a.lock",
            "refs/heads/a.lock/b",
            "refs/heads/a b",
            "refs/heads/a\nb",
            "refs/heads/a:b",
            "refs/heads/a@{1}",
            "refs/heads/@",
            "refs/heads/a.",
            "refs/heads/../../x",
            "refs/heads/a\\b",
            "refs/heads/a*",
            "refs/heads/\u{7f}",
        ] {
            assert!(check_ref_name(name).is_err(), "{name}");
        }
        assert!(branch_ref("-q").is_err() && branch_ref("HEAD").is_err());
        assert!(check_ref_name(&format!("refs/heads/{}", "a".repeat(300))).is_err());
    }
}
