//! Paths that are something else on another machine.
//!
//! `fsck` refuses the classic ones already; this list is ours, applies to every path that any new
//! commit adds, and says why in words.

use portcullis_model::Refusal;

/// Most parts of a path, unless the limits say less: what people and tools still handle.
pub const PATH_DEPTH_MAX: usize = 64;
/// Longest path in bytes: what Linux allows.
pub const PATH_MAX_BYTES: usize = 4_096;
/// Longest part of a path in bytes: what file systems allow.
pub const PART_MAX_BYTES: usize = 255;

/// Whether a new path means the same on every machine that may check it out.
///
/// # Errors
/// `hostile-path`, with the reason; `path-too-deep` beyond `depth_max` parts.
pub fn check(path: &[u8], depth_max: usize) -> Result<(), Refusal> {
    let shown = String::from_utf8_lossy(path).into_owned();
    let hostile = |why: &str| {
        Err(Refusal::denied("hostile-path", why)
            .received(&shown)
            .next("rename the file in the commit that adds it, then push again"))
    };
    let Ok(text) = std::str::from_utf8(path) else {
        return hostile("a file's name is not UTF-8");
    };
    if path.len() > PATH_MAX_BYTES {
        return hostile("a path is longer than 4096 bytes");
    }
    if text.chars().any(char::is_control) {
        return hostile("a file's name holds a control character");
    }
    if text.contains('\\') {
        return hostile("a file's name holds a backslash, which separates directories on Windows");
    }
    let depth = text.split('/').count();
    if depth > depth_max {
        return Err(
            Refusal::limit("path-too-deep", "a path has too many directories")
                .expected(&format!("at most {depth_max} parts"))
                .received(&shown)
                .next("move the file up, then push again"),
        );
    }
    for part in text.split('/') {
        if part.is_empty() || part == "." || part == ".." {
            return hostile("a path has an empty part, `.` or `..`");
        }
        if part.len() > PART_MAX_BYTES {
            return hostile("a file's name is longer than 255 bytes");
        }
        if is_git_directory(part) {
            return hostile("a file's name is `.git` on some file system");
        }
        if part.chars().any(is_bidirectional_control) {
            return hostile(
                "a file's name holds a character that changes the direction of writing",
            );
        }
    }
    Ok(())
}

/// Whether some file system opens `.git` under this name: any case, HFS+'s ignored characters,
/// NTFS's short name, trailing dots and spaces, and alternate streams.
pub fn is_git_directory(part: &str) -> bool {
    let visible: String = part.chars().filter(|c| !is_ignored_by_hfs(*c)).collect();
    let folded = visible.to_lowercase();
    let stem = folded.split(':').next().unwrap_or_default();
    let stem = stem.trim_end_matches([' ', '.']);
    matches!(stem, ".git" | "git~1")
}

/// The characters that HFS+ ignores in names.
fn is_ignored_by_hfs(c: char) -> bool {
    matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}')
}

fn is_bidirectional_control(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_git_somewhere_is_refused_everywhere() {
        for path in [
            ".git",
            ".GIT/config",
            "a/.git/hooks/x",
            ".Git ",
            ".git.",
            ".git. .",
            "git~1",
            "GIT~1/x",
            ".g\u{200c}it",
            ".git\u{feff}",
            ".git::$INDEX_ALLOCATION",
            ".git:x",
            "a//b",
            "../a",
            "a/..",
            "./a",
            "a\\b",
            "a\nb",
            "a\u{1b}[2J",
            "a\u{202e}b",
            "",
        ] {
            let refusal = check(path.as_bytes(), PATH_DEPTH_MAX).unwrap_err();
            assert_eq!(refusal.code, "hostile-path", "{path:?}");
            assert!(refusal.next.is_some());
        }
        assert!(check(b"a\xff", PATH_DEPTH_MAX).is_err());
        assert!(check(&[b'a'; 300], PATH_DEPTH_MAX).is_err());
    }

    #[test]
    fn ordinary_names_pass() {
        for path in [
            "src/main.rs",
            ".github/workflows/ci.yml",
            ".gitignore",
            ".gitattributes",
            "git",
            "aux.c",
            "ä/ö ü.txt",
            "日本",
            "a.git/b",
            "git~2",
            "x:y",
            "...a",
        ] {
            assert!(check(path.as_bytes(), PATH_DEPTH_MAX).is_ok(), "{path:?}");
        }
    }

    #[test]
    fn depth_is_bounded_by_name() {
        let deep = ["a"; 9].join("/");
        assert_eq!(check(deep.as_bytes(), 8).unwrap_err().code, "path-too-deep");
        assert!(check(deep.as_bytes(), 9).is_ok());
    }
}
