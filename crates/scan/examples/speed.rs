//! Files per second, and the growth of memory, over generated workflows.
//!
//! `cargo run --release -p portcullis-scan --example speed -- [FILES]` prints both with the number
//! of cores.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "it prints its measurement")]

use std::fmt::Write;
use std::time::Instant;

fn main() -> std::io::Result<()> {
    let files: usize = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(2_000);
    let directory = std::env::temp_dir().join(format!("portcullis-speed-{}", std::process::id()));
    let workflows = directory.join(".github/workflows");
    std::fs::create_dir_all(&workflows)?;
    let mut bytes = 0;
    for index in 0..files {
        let text = workflow(index);
        bytes += text.len();
        std::fs::write(workflows.join(format!("w{index}.yml")), text)?;
    }
    let options = portcullis_scan::Options {
        path: directory.clone(),
        ..portcullis_scan::Options::default()
    };
    let start = Instant::now();
    let report = portcullis_scan::scan(&options);
    let took = start.elapsed();
    std::fs::remove_dir_all(&directory)?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let verdicts = report.map_or(0, |report| report.verdicts().count());
    println!(
        "{files} workflow files ({} KiB), {verdicts} verdicts, {cores} cores: {:.2} s, {:.0} files/s; resident at most {}",
        bytes / 1024,
        took.as_secs_f64(),
        files as f64 / took.as_secs_f64(),
        resident()
    );
    Ok(())
}

/// A workflow of the usual size, about 3 KiB with 40 steps.
fn workflow(index: usize) -> String {
    let mut text = format!(
        "name: w{index}\non:\n  push:\n    branches: [main]\n  pull_request:\n  schedule:\n    - cron: '{} 3 * * *'\npermissions:\n  contents: read\njobs:\n",
        index % 60
    );
    for job in 0..4 {
        let _ = writeln!(
            text,
            "  job{job}:\n    runs-on: ubuntu-latest\n    if: github.event_name != 'pull_request' || github.actor != 'dependabot[bot]'\n    strategy:\n      matrix:\n        os: [ubuntu-latest, windows-latest]\n    steps:\n      - uses: actions/checkout@v4\n      - uses: actions/setup-node@v4\n        with:\n          node-version: 22"
        );
        for step in 0..8 {
            let _ = writeln!(
                text,
                "      - name: Step {step}\n        run: |\n          npm ci\n          npm run build --workspace \"packages/p{step}\" && echo done > out.txt"
            );
        }
    }
    if index.is_multiple_of(10) {
        text.push_str("      - run: npm publish\n        if: github.ref == 'refs/heads/main'\n");
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
