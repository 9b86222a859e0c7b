//! An edit shown as a patch.

/// A unified diff of two texts as one hunk.
pub(super) fn diff(file: &str, before: &str, after: &str) -> String {
    /// Lines of context.
    const CONTEXT: usize = 3;
    let old: Vec<&str> = before.lines().collect();
    let new: Vec<&str> = after.lines().collect();
    let same_start = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let longest = old.len().min(new.len()) - same_start;
    let same_end = old
        .iter()
        .rev()
        .zip(new.iter().rev())
        .take(longest)
        .take_while(|(a, b)| a == b)
        .count();
    let from = same_start.saturating_sub(CONTEXT);
    let old_to = (old.len() - same_end + CONTEXT).min(old.len());
    let new_to = (new.len() - same_end + CONTEXT).min(new.len());
    let mut out = format!(
        "--- a/{file}\n+++ b/{file}\n@@ -{},{} +{},{} @@\n",
        from + 1,
        old_to - from,
        from + 1,
        new_to - from
    );
    let mut push = |mark: char, lines: &[&str]| {
        for line in lines {
            out.push(mark);
            out.push_str(line);
            out.push('\n');
        }
    };
    push(' ', old.get(from..same_start).unwrap_or_default());
    push(
        '-',
        old.get(same_start..old.len() - same_end)
            .unwrap_or_default(),
    );
    push(
        '+',
        new.get(same_start..new.len() - same_end)
            .unwrap_or_default(),
    );
    push(
        ' ',
        old.get(old.len() - same_end..old_to).unwrap_or_default(),
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_applies_by_its_numbers() {
        let before = "a\nb\nc\nd\ne\nf\ng\n";
        let after = "a\nb\nc\nD\ne\nf\ng\n";
        assert_eq!(
            diff("x", before, after),
            "--- a/x\n+++ b/x\n@@ -1,7 +1,7 @@\n a\n b\n c\n-d\n+D\n e\n f\n g\n"
        );
    }
}
