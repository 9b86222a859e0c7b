//! The page in a real browser: its policy lets its own style through and nothing else, it fits a
//! phone, and no line of the picture runs behind a box that is not its own.
//!
//! Without Chromium on this machine the test says so and ends; `cargo xtask test` installs it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test may fail, and says why it did nothing"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use portcullis_scan::{Report, render, scan_memory};

fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .flat_map(|folder| ["chromium", "chromium-browser"].map(|name| folder.join(name)))
        .find(|candidate| candidate.is_file())
}

/// The document as the browser leaves it, and what it logged.
fn open(browser: &Path, page: &Path, width: u32) -> (String, String) {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(browser)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu"])
        .args(["--disable-dev-shm-usage", "--no-first-run"])
        .args(["--enable-logging=stderr", "--log-level=0", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--window-size={width},900"))
        .arg(format!("file://{}", page.display()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// Sinks with short and long ways, and names that try to be markup.
fn sample() -> Report {
    let chain = |number: usize, next: usize| {
        format!(
            "name: step{number}\non:\n  repository_dispatch:\n    types: [go{number}]\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: gh api repos/acme/widget/dispatches -f event_type=go{next}\n        env:\n          GH_TOKEN: ${{{{ secrets.PAT }}}}\n      - run: npm publish\n        working-directory: packages/p{number}\n"
        )
    };
    let mut files: BTreeMap<String, String> = (0..6)
        .map(|number| {
            (
                format!(".github/workflows/chain{number}.yml"),
                chain(number, number + 1),
            )
        })
        .collect();
    for (name, text) in [
        (
            "<img src=x onerror=alert(1)>.yml",
            "on:\n  schedule:\n    - cron: '0 3 * * *'\njobs:\n  d:\n    name: \"</title><script>alert(1)</script>\"\n    runs-on: x\n    environment: \"<b>prod\"\n    steps:\n      - run: kubectl apply -f \"<script>alert(2)</script>\" # &amp; <style>*{display:none}</style>\n",
        ),
        (
            "automerge.yml",
            "on: pull_request_target\npermissions:\n  contents: write\njobs:\n  merge:\n    runs-on: ubuntu-latest\n    steps:\n      - uses: anthropics/claude-code-action@v1\n        with:\n          github_token: ${{ secrets.PAT }}\n      - run: gh pr merge --auto \"$PR\"\n        env:\n          GH_TOKEN: ${{ secrets.PAT }}\n",
        ),
        (
            "deploy.yml",
            "on:\n  push:\n    branches: [main]\njobs:\n  d:\n    runs-on: x\n    steps:\n      - run: kubectl apply -f k8s/\n      - run: cargo publish\n",
        ),
        (
            "nightly.yml",
            "on:\n  schedule:\n    - cron: '0 3 * * *'\njobs:\n  d:\n    runs-on: x\n    steps:\n      - run: gh api repos/acme/widget/dispatches -f event_type=go0\n        env:\n          GH_TOKEN: ${{ secrets.PAT }}\n      - run: twine upload dist/*\n",
        ),
    ] {
        files.insert(format!(".github/workflows/{name}"), text.to_owned());
    }
    scan_memory(vec![("acme/widget".to_owned(), files)], &[])
}

/// Looks at the page from inside. It runs in a copy of the page whose policy was taken out.
const PROBE: &str = "<script>
const wrong = [];
const root = document.documentElement;
if (root.scrollWidth > innerWidth) wrong.push('wider than the window: ' + root.scrollWidth);
if (getComputedStyle(document.querySelector('.badge')).borderRadius === '0px') wrong.push('no style');
const edges = document.querySelectorAll('svg .edge');
const boxes = [...document.querySelectorAll('svg .node rect')].map(r => r.getBBox());
if (edges.length === 0 || boxes.length === 0) wrong.push('no picture');
for (const edge of edges) {
  const length = edge.getTotalLength();
  for (let at = 6; at < length - 6; at += 3) {
    const p = edge.getPointAtLength(at);
    for (const b of boxes)
      if (p.x > b.x + 2 && p.x < b.x + b.width - 2 && p.y > b.y && p.y < b.y + b.height)
        wrong.push('a line at ' + p.x + ',' + p.y + ' runs behind a box');
  }
}
for (const text of document.querySelectorAll('svg .node text')) {
  const box = text.parentElement.querySelector('rect').getBBox();
  const own = text.getBBox();
  if (own.x + own.width > box.x + box.width) wrong.push('text leaves its box: ' + text.textContent);
}
const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
if (new Set(ids).size !== ids.length) wrong.push('an id stands twice');
for (const link of document.querySelectorAll('a'))
  if (!document.getElementById(link.getAttribute('href').slice(1))) wrong.push('a link to nowhere');
if (document.querySelectorAll('main, h1').length !== 2) wrong.push('not one main and one h1');
const result = document.createElement('pre');
result.id = 'verdict';
result.textContent = wrong.length ? 'wrong: ' + [...new Set(wrong)].slice(0, 8).join('; ') : 'all is well';
document.body.append(result);
</script>";

#[test]
fn the_page_stands_in_a_real_browser() {
    let Some(browser) = browser() else {
        eprintln!("no Chromium here: the page was not looked at; `cargo xtask test` installs it");
        return;
    };
    let page = render::html::render(&sample());
    assert!(
        page.contains("badge reachable"),
        "the sample reaches nothing"
    );
    let directory = tempfile::tempdir().unwrap();
    let real = directory.path().join("page.html");
    std::fs::write(&real, &page).unwrap();
    let (document, log) = open(&browser, &real, 1280);
    assert!(document.contains("Ways to production"), "{log}");
    assert!(
        !log.contains("Content Security Policy") && !log.contains("Refused to"),
        "the page breaks its own policy: {log}"
    );
    let start = page.find("<meta http-equiv").unwrap();
    let end = start + page[start..].find('>').unwrap() + 1;
    let probe = format!("{}{}", &page[..start], &page[end..])
        .replace("</body>", &format!("{PROBE}</body>"));
    let probed = directory.path().join("probe.html");
    std::fs::write(&probed, probe).unwrap();
    for width in [1280, 500] {
        let (document, log) = open(&browser, &probed, width);
        let verdict = document
            .split("id=\"verdict\">")
            .nth(1)
            .and_then(|rest| rest.split("</pre>").next())
            .unwrap_or_else(|| panic!("the probe did not run: {log}"));
        assert_eq!(verdict, "all is well", "at {width} pixels");
    }
}
