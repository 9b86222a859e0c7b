//! Requests that programs make: to a forge's interface, and to addresses that start a build.

use super::command::Shell;
use super::git::shorten;
use super::{API_ENV, Act, Token};

/// Lines around an address that are looked at for how it is asked.
const AHEAD: usize = 10;

/// A request to a forge's interface by its address, whichever library makes it.
pub(super) fn forge(raw: &str, lines: &[&str], index: usize, shell: &Shell) -> Vec<Act> {
    let Some(address) = address(raw) else {
        return Vec::new();
    };
    let Some(method) = method(raw, lines, index) else {
        return Vec::new();
    };
    let path = without_names(&address);
    let path = path.split('?').next().unwrap_or(&path).to_owned();
    let sure = [
        "repos/",
        "api.github.com",
        "/api/v4/",
        "/pulls/",
        "/merge_requests/",
        "/git/refs",
    ]
    .iter()
    .any(|mark| path.contains(mark));
    if !sure {
        return Vec::new();
    }
    let until = (index + AHEAD).min(lines.len());
    let text = lines.get(index..until).unwrap_or_default().join("\n");
    let mut acts = super::forge::request(method, &path, &text, Token::Env(API_ENV), shell);
    for act in &mut acts {
        act.what = shorten(raw.trim());
    }
    acts
}

/// The first text of a line that is an address of a forge's interface.
fn address(raw: &str) -> Option<String> {
    /// Parts of addresses that write to a repository.
    const PLACES: &[&str] = &[
        "/pulls/",
        "/merge_requests/",
        "/repository/",
        "/releases",
        "/git/refs",
        "/dispatches",
        "/merges",
        "/contents/",
        "/pulls",
    ];
    let mut rest = raw;
    while let Some(at) = rest.find(['\'', '"', '`']) {
        let quote = rest.get(at..)?.chars().next()?;
        let inner = rest.get(at + 1..)?;
        let end = inner.find(quote).unwrap_or(inner.len());
        let text = inner.get(..end)?;
        if text.contains('/')
            && !text.contains(' ')
            && PLACES.iter().any(|place| text.contains(place))
        {
            return Some(text.to_owned());
        }
        rest = inner.get(end + 1..).unwrap_or_default();
    }
    None
}

/// What stands for something else in an address, as one variable each: `${…}`, `{…}`, `%s`.
fn without_names(address: &str) -> String {
    let mut out = String::new();
    let mut depth = 0_usize;
    for c in address.replace("%s", "{}").replace("%d", "{}").chars() {
        match c {
            '{' => {
                if depth == 0 && !out.ends_with('$') {
                    out.push('$');
                }
                depth += 1;
            }
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    out.push_str("NAME");
                }
            }
            _ if depth == 0 => out.push(c),
            _ => {}
        }
    }
    out
}

/// Lines behind an address that has a name through which the name is looked for.
const FAR: usize = 60;

/// How the address on a line is asked: there, or where its name is used a little later.
fn method(raw: &str, lines: &[&str], index: usize) -> Option<&'static str> {
    let said = |text: &str| -> Option<&'static str> {
        let lower = text.to_ascii_lowercase();
        [("PUT", "put"), ("POST", "post"), ("PATCH", "patch")]
            .into_iter()
            .find(|(upper, lower_name)| {
                lower.contains(&format!(".{lower_name}("))
                    || lower.contains(&format!("-method {lower_name}"))
                    || text.contains(&format!("'{upper}'"))
                    || text.contains(&format!("\"{upper}\""))
                    || lower.contains(&format!("http.method{lower_name}"))
                    || lower.contains(&format!("method: '{lower_name}'"))
                    || lower.contains(&format!("net::http::{lower_name}"))
            })
            .map(|(upper, _)| upper)
    };
    if let Some(found) = said(raw) {
        return Some(found);
    }
    // `.get(` asks for nothing to change, whatever follows.
    if raw.contains(".get(") || raw.contains(".delete(") {
        return None;
    }
    // The call began on a line before: `await fetch(`, `requests.put(`.
    let before = index
        .checked_sub(1)
        .and_then(|at| lines.get(at))
        .filter(|line| line.trim_end().ends_with('('));
    if let Some(found) = before.and_then(|line| said(line)) {
        return Some(found);
    }
    let ahead = lines.get(index + 1..(index + AHEAD).min(lines.len()))?;
    let assigned = super::reviewed::assigned(raw.trim());
    match assigned.filter(|_| !raw.contains("fetch(") && !raw.contains("request(")) {
        Some(name) => ahead
            .iter()
            .position(|line| line.contains(&format!("({name}")))
            .and_then(|at| ahead.get(at..)?.iter().take(6).find_map(|line| said(line)))
            .or_else(|| {
                // `request("PUT", url.split("?")[0], …)`: a function of the program's own.
                let rest = lines.get(index + 1..(index + FAR).min(lines.len()))?;
                rest.iter()
                    .take_while(|line| {
                        super::reviewed::assigned(line.trim()).as_deref() != Some(&name)
                    })
                    .find_map(|line| {
                        let method = said(line)?;
                        let after = line
                            .split_once(&format!("{method}\""))
                            .or_else(|| line.split_once(&format!("{method}'")))?
                            .1;
                        let words = after.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
                        words.into_iter().any(|word| word == name).then_some(method)
                    })
            }),
        None => {
            // The options of this call, up to its end.
            for line in ahead {
                if let Some(found) = said(line) {
                    return Some(found);
                }
                let line = line.trim();
                if line.starts_with("})") || line.starts_with(");") || line == ")" {
                    return None;
                }
            }
            None
        }
    }
}

/// A request without a body to an address that is named for what it starts.
pub(super) fn hook(raw: &str, lines: &[&str], index: usize) -> Option<Act> {
    let call = [
        "fetch(",
        "axios.post(",
        "axios(",
        "got.post(",
        "got(",
        "ky.post(",
        "requests.post(",
        "httpx.post(",
        "session.post(",
        "urlopen(",
        "http.Post(",
        "HTTParty.post(",
        "Faraday.post(",
    ]
    .iter()
    .find_map(|call| raw.split_once(call).map(|(_, rest)| (*call, rest)))?;
    let given = call.1.split([',', ')']).next()?.trim();
    let address = named_address(given, lines, index).to_ascii_uppercase();
    let named = address.contains("HOOK")
        && ["BUILD", "DEPLOY", "NETLIFY", "VERCEL", "RENDER", "PAGES"]
            .iter()
            .any(|word| address.contains(word))
        && ![
            "WEBHOOK_SECRET",
            "SLACK",
            "DISCORD",
            "TEAMS",
            "NOTIFY",
            "TELEGRAM",
        ]
        .iter()
        .any(|word| address.contains(word));
    let window = lines
        .get(index..(index + 6).min(lines.len()))
        .unwrap_or_default()
        .join(" ");
    let posts = !matches!(call.0, "fetch(" | "axios(" | "got(" | "urlopen(")
        || window.to_ascii_uppercase().contains("POST");
    let api = [
        ("API.NETLIFY.COM", "/DEPLOYS"),
        ("API.RENDER.COM", "/DEPLOYS"),
        ("API.CLOUDFLARE.COM", "/DEPLOYMENTS"),
        ("API.VERCEL.COM", "/DEPLOYMENTS"),
    ]
    .iter()
    .any(|(host, path)| address.contains(host) && address.contains(path))
        // A deployment of Vercel's is a preview unless it says so.
        && (!address.contains("VERCEL") || window.contains("production"));
    if api && posts {
        return Some(Act::deploy("a request that deploys"));
    }
    // Who is told something is told it in a body.
    let body = match call.0 {
        "fetch(" | "got(" => window.contains("body:") || window.contains("json:"),
        "axios(" => window.contains("data:"),
        "requests.post(" | "httpx.post(" | "session.post(" => {
            ["json=", "data="].iter().any(|word| window.contains(word))
        }
        "urlopen(" => false,
        _ => call
            .1
            .split_once(',')
            .map(|(_, second)| second.trim_start())
            .is_some_and(|second| {
                !second.starts_with("{}")
                    && !second.starts_with("null")
                    && !second.starts_with("undefined")
            }),
    };
    (named && posts && !body).then(|| Act::deploy("a request to a build hook"))
}

/// What a name was set to before, so that an address is read by the variable that it comes from.
fn named_address(given: &str, lines: &[&str], index: usize) -> String {
    /// Lines that are looked back through.
    const BACK: usize = 60;
    let plain = !given.is_empty() && given.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !plain {
        return given.to_owned();
    }
    lines
        .get(index.saturating_sub(BACK)..index)
        .unwrap_or_default()
        .iter()
        .rev()
        .find(|line| super::reviewed::assigned(line.trim()).as_deref() == Some(given))
        .and_then(|line| line.split_once('='))
        .map_or_else(|| given.to_owned(), |(_, value)| format!("{given} {value}"))
}
