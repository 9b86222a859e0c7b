//! Development tasks: `cargo xtask test` does everything that a change must pass.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a development tool talks to the terminal"
)]

mod links;
mod places;
mod purity;
mod source;
mod step;
mod tools;
mod workspace;

use std::process::ExitCode;

use step::{Outcome, cargo, report, run};

const USAGE: &str = "\
usage: cargo xtask TASK

  test         everything a change must pass; installs the tools that are missing
  tools        only checks and installs those tools
  format       cargo fmt --check
  lint         cargo clippy, warnings are errors
  docs         rustdoc, warnings are errors; runs doc tests where there are any
  links        relative links in Markdown files lead somewhere
  purity       pure crates name no runtime, socket, database, file or clock
  places       no file names a place outside the project
  unit         only the tests, by the runner
  demo-smoke   the built program's `demo` ends well";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["test"] => test(),
        ["tools"] => tools::ensure().map(|_| ()),
        ["format"] => format(),
        ["lint"] => lint(),
        ["docs"] => docs(),
        ["links"] => report(links::broken()),
        ["purity"] => report(purity::breaches()),
        ["places"] => report(places::named()),
        ["unit"] => unit(tools::Runner::of_this_machine()),
        ["demo-smoke"] => demo_smoke(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Everything, cheapest first. A step that fails does not hide what the others find; the tests
/// come last, so that the runner's summary is the last thing printed.
fn test() -> Outcome {
    let runner = tools::ensure()?;
    let mut failed = Vec::new();
    let mut step = |name: &'static str, work: &dyn Fn() -> Outcome| {
        println!("==> {name}");
        if let Err(message) = work() {
            eprintln!("xtask: {name}: {message}");
            failed.push(name);
        }
    };
    step("places", &|| report(places::named()));
    step("purity", &|| report(purity::breaches()));
    step("links", &|| report(links::broken()));
    step("format", &format);
    step("lint", &lint);
    step("docs", &docs);
    step("tests", &|| unit(runner));
    if failed.is_empty() {
        return Ok(());
    }
    Err(format!("failed: {}", failed.join(", ")))
}

fn format() -> Outcome {
    run(cargo().args(["fmt", "--all", "--check"]))
}

fn lint() -> Outcome {
    run(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--quiet",
        "--",
        "--deny",
        "warnings",
    ]))
}

fn docs() -> Outcome {
    run(cargo()
        .args(["doc", "--no-deps", "--workspace", "--locked", "--quiet"])
        .env("RUSTDOCFLAGS", "--deny warnings"))?;
    let tested = source::doc_tests()?;
    if tested.is_empty() {
        return Ok(());
    }
    println!("doc tests in {}", tested.join(", "));
    run(cargo().args(["test", "--doc", "--workspace", "--locked", "--quiet"]))
}

fn unit(runner: tools::Runner) -> Outcome {
    match runner {
        tools::Runner::Nextest => run(cargo().args([
            "nextest",
            "run",
            "--workspace",
            "--locked",
            "--profile",
            "ci",
        ])),
        tools::Runner::CargoTest => step::run_and_sum(cargo().args([
            "test",
            "--workspace",
            "--locked",
            "--no-fail-fast",
            "--lib",
            "--bins",
            "--tests",
        ])),
    }
}

fn demo_smoke() -> Outcome {
    run(cargo().args(["build", "--package", "portcullis-cli", "--locked"]))?;
    let program = workspace::target()?.join("debug").join("portcullis");
    run(std::process::Command::new(program).arg("demo"))
}
