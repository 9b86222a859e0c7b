//! JSON5, which Renovate's configuration may be written in.

/// JSON5 as JSON: comments, trailing commas, names without quotes, texts in single ones.
pub(super) fn plain_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, characters.peek()) {
            ('"' | '\'', _) => {
                out.push('"');
                while let Some(inner) = characters.next() {
                    match inner {
                        '\\' => match characters.next() {
                            Some('\'') => out.push('\''),
                            // A line that goes on.
                            Some('\n') | None => {}
                            Some(escaped) => {
                                out.push('\\');
                                out.push(escaped);
                            }
                        },
                        _ if inner == character => break,
                        '"' => out.push_str("\\\""),
                        _ => out.push(inner),
                    }
                }
                out.push('"');
            }
            ('/', Some('/')) => {
                for skipped in characters.by_ref() {
                    if skipped == '\n' {
                        out.push('\n');
                        break;
                    }
                }
            }
            ('/', Some('*')) => {
                let mut last = ' ';
                for skipped in characters.by_ref() {
                    if last == '*' && skipped == '/' {
                        break;
                    }
                    last = skipped;
                }
            }
            ('}' | ']', _) => {
                while out.ends_with(char::is_whitespace) {
                    out.pop();
                }
                if out.ends_with(',') {
                    out.pop();
                }
                out.push(character);
            }
            (first, _) if first.is_alphabetic() || matches!(first, '_' | '$') => {
                let mut word = first.to_string();
                while let Some(next) =
                    characters.next_if(|c| c.is_alphanumeric() || matches!(c, '_' | '$'))
                {
                    word.push(next);
                }
                if matches!(word.as_str(), "true" | "false" | "null") {
                    out.push_str(&word);
                } else {
                    out.push('"');
                    out.push_str(&word);
                    out.push('"');
                }
            }
            _ => out.push(character),
        }
    }
    out
}
