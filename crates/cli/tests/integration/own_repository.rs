//! The README's second section, as it stands: five commands in a shell, beside a repository of
//! one's own, with one's own SSH key.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::house::{House, PROGRAM, Terminal, wait_until};

/// What a person keeps in `./my-script`.
const SCRIPT: &str = "#!/bin/sh\n\
    set -e\n\
    printf 'Good morning\\n' > greeting.txt\n\
    git add greeting.txt\n\
    git commit --quiet --message='Greet politely'\n\
    git push\n";

/// The shell's prompt, which nothing else prints.
const PROMPT: &str = "[your turn] ";

#[test]
fn the_five_commands_land_a_change_in_a_repository_with_a_work_tree() {
    let commands = commands();
    assert_eq!(commands.len(), 5, "{commands:?}");
    let house = House::bare();
    let person = house.path("");
    furnish(&house);
    let before = house.tip("main");

    let mut shell = Command::new("sh");
    shell
        .env_clear()
        .env("HOME", &person)
        .env("USER", "ada")
        .env("LANG", "C.UTF-8")
        .env("TERM", "xterm")
        .env("PS1", PROMPT)
        .env(
            "PATH",
            format!("{}:/usr/local/bin:/usr/bin:/bin", folder_of_program()),
        )
        .env("PORTCULLIS_LISTEN", format!("127.0.0.1:{}", house.port()))
        .env("PORTCULLIS_SERVER", house.url())
        .current_dir(house.path("work"));
    let mut terminal = Terminal::start(&shell);
    let mut at = terminal.expect(PROMPT, 0);
    for (number, command) in commands.iter().enumerate() {
        terminal.type_text(&format!("{command}\n"));
        if command.ends_with('&') {
            at = terminal.expect("ready at", at);
        } else {
            if command.contains("approve") {
                at = terminal.expect("Approve?", at);
                terminal.type_text("yes\n");
            }
            at = terminal.expect(PROMPT, at);
        }
        // The echo of what is typed holds the word in two pieces.
        terminal.type_text(&format!("echo \"do\"\"ne {number} $?\"\n"));
        at = terminal.expect(&format!("done {number} "), at);
        assert!(
            terminal.expect("0\r\n", at) <= at + 3,
            "{command}:\n{}",
            terminal.seen()
        );
        at = terminal.expect(PROMPT, at);
    }
    wait_until("the change lands", || {
        (house.tip("main") != before).then_some(())
    });
    let shop = house.shop();
    assert_eq!(
        fs::read_to_string(shop.join("greeting.txt")).unwrap(),
        "Good morning\n"
    );
    assert_eq!(house.git_line(&shop, &["status", "--porcelain"]), "");
    assert_eq!(house.git_line(&shop, &["rev-parse", "HEAD~1"]), before);
    let author = house.git_line(&shop, &["log", "-1", "--format=%an"]);
    assert!(author.starts_with("helper (run-"), "{author}");

    terminal.type_text("portcullis ledger verify; echo \"verified\"\" $?\"\n");
    terminal.expect("verified 0", at);
    terminal.type_text("kill %1; wait; exit\n");
    terminal.wait();
}

/// The block after the marker in the README, one command a line.
fn commands() -> Vec<String> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let (_, after) = readme
        .split_once("<!-- own-repository:")
        .expect("the marker");
    let (_, after) = after.split_once("```sh\n").expect("a code block");
    let (block, _) = after.split_once("```").expect("its end");
    block.lines().map(str::to_owned).collect()
}

fn folder_of_program() -> String {
    Path::new(PROGRAM)
        .parent()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned()
}

/// `~/shop`, `~/.ssh/id_ed25519` and `./my-script`.
fn furnish(house: &House) {
    house.make_repository("shop", &[("README.md", "# Shop\n".to_owned())], false);
    house.make_key("id_ed25519");
    let ssh = house.path(".ssh");
    fs::create_dir(&ssh).unwrap();
    for name in ["id_ed25519", "id_ed25519.pub"] {
        fs::rename(house.key(name), ssh.join(name)).unwrap();
    }
    let script = house.path("work").join("my-script");
    fs::write(&script, SCRIPT).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
}
