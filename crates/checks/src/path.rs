//! What a file system may make of a path.
//!
//! Git names files by bytes; the machines that check them out may not. macOS folds case, composes
//! Unicode and ignores some invisible characters; Windows folds case, drops trailing dots and
//! spaces, reads `\` as a separator, cuts alternate streams at `:` and answers to 8.3 short names.
//! A file is judged by what any of them would open.

use unicode_normalization::UnicodeNormalization;

/// The path as the least strict file system sees it: `/` between the parts, compatibility
/// composed, lower case, without invisible characters, trailing dots or spaces, and alternate
/// streams. Two paths with the same fold may be the same file somewhere.
pub fn fold(path: &str) -> String {
    // The whole path first: composition turns some characters (`／`, `﹨`) into separators.
    let text = if path.is_ascii() {
        path.to_ascii_lowercase()
    } else {
        fold_unicode(path)
    };
    let mut folded = String::with_capacity(text.len());
    for part in text.split(['/', '\\']) {
        let part = fold_part(part);
        if part.is_empty() || part == "." {
            continue;
        }
        if !folded.is_empty() {
            folded.push('/');
        }
        folded.push_str(part);
    }
    folded
}

/// One part of a path in lower case, without what Windows drops from its end.
fn fold_part(part: &str) -> &str {
    if part == ".." {
        return part;
    }
    let text = part.split(':').next().unwrap_or_default();
    let text = text.trim_end_matches([' ', '.']);
    short_name(text).unwrap_or(text)
}

fn fold_unicode(path: &str) -> String {
    path.chars()
        .filter(|c| !is_ignorable(*c))
        .collect::<String>()
        .nfkc()
        // Upper before lower: `ſ` has no lower case of its own, yet opens `s`.
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .nfkc()
        .filter(|c| !is_ignorable(*c))
        .collect()
}

/// Characters that take no room on the screen and that some file systems skip when they compare
/// names: Unicode's default ignorable code points, and control characters.
pub fn is_ignorable(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// The long names behind the 8.3 names that Windows would generate for what we guard.
fn short_name(part: &str) -> Option<&'static str> {
    let (stem, number) = part.split_once('~')?;
    let number = number.split('.').next().unwrap_or_default();
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    match (stem, part.rsplit_once('.').map(|(_, extension)| extension)) {
        ("git", None) => Some(".git"),
        ("github", None) => Some(".github"),
        ("gitlab", None) => Some(".gitlab"),
        ("gitlab", Some("yml")) => Some(".gitlab-ci.yml"),
        ("gitmod", None) | ("gi7eba", None) => Some(".gitmodules"),
        ("gitatt", None) | ("gi7d29", None) => Some(".gitattributes"),
        ("portcu", None) => Some(".portcullis"),
        ("claude", None) => Some(".claude"),
        ("cursor", None) => Some(".cursor"),
        ("circle" | "circleci", None) => Some(".circleci"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twins_fold_to_one_name() {
        for twin in [
            ".GitHub/Workflows/ci.yml",
            ".github./workflows /ci.yml",
            ".github\\workflows\\ci.yml",
            "./.github//workflows/./ci.yml",
            ".g\u{200c}ithub/work\u{feff}flows/ci.yml",
            ".github/workflow\u{17f}/ci.yml",
            ".github/wor\u{212a}flows/ci.yml",
            ".\u{ff47}ithub/workflows/ci.yml",
            ".github/workflows/ci.yml::$DATA",
            "GITHUB~1/workflows/ci.yml",
            ".github\u{ff0f}workflows\u{fe68}ci.yml",
        ] {
            assert_eq!(fold(twin), ".github/workflows/ci.yml", "{twin:?}");
        }
    }

    #[test]
    fn different_files_stay_different() {
        assert_ne!(fold("src/a.rs"), fold("src/b.rs"));
        assert_ne!(fold("github/x"), fold(".github/x"));
        assert_eq!(fold("a/../b"), "a/../b");
        assert_eq!(fold("notes~1.txt"), "notes~1.txt");
    }

    proptest::proptest! {
        #[test]
        fn folding_twice_changes_nothing(path in "\\PC{0,40}") {
            let once = fold(&path);
            proptest::prop_assert_eq!(fold(&once), once.clone());
        }
    }
}
