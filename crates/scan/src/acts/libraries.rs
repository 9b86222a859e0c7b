//! What programs do through libraries that push, upload or deploy, by the library that they take in
//! and the call that they make.

use super::git::shorten;
use super::{API_ENV, Act, Op, Target, Token};

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// Pushes what is checked out.
    Push,
    /// Pushes a site to its branch.
    Pages,
    Publish,
    /// Releases and publishes, from the branches that releases are made from.
    Release,
    Deploy,
    /// Writes to a store, from which things may be served.
    Store,
}

/// The fact that decides on what is written to a store.
const SERVED: &str = "whether what the program uploads is what is served";

/// Marks of a library in a program, calls of it, and what they do.
const LIBRARIES: &[(&[&str], &[&str], Does)] = &[
    (
        &["import git", "from git import"],
        &[
            ".git.push(",
            "origin.push(",
            "remote.push(",
            ").push(",
            "remotes.origin.push(",
        ],
        Does::Push,
    ),
    (&["dulwich"], &["porcelain.push("], Does::Push),
    (&["pygit2"], &["remote.push(", "origin.push("], Does::Push),
    (
        &["simple-git"],
        &["git.push(", "Git().push(", "git().push("],
        Does::Push,
    ),
    (
        &["isomorphic-git"],
        &["git.push({", "git.push("],
        Does::Push,
    ),
    (
        &["go-git", "git.PushOptions"],
        &[".Push(&git.PushOptions"],
        Does::Push,
    ),
    (
        &["Git.open("],
        &["g.push", "git.push", "repo.push"],
        Does::Push,
    ),
    (&["LibGit2Sharp"], &["Network.Push("], Does::Push),
    (&["org.eclipse.jgit"], &["git.push()"], Does::Push),
    (
        &["gh-pages"],
        &["ghpages.publish(", "ghPages.publish("],
        Does::Pages,
    ),
    (
        &["huggingface_hub", "huggingface/hub"],
        &[
            "upload_folder(",
            "upload_file(",
            "upload_large_folder(",
            "create_commit(",
            "uploadFiles(",
            "uploadFile(",
        ],
        Does::Publish,
    ),
    (&[".push_to_hub("], &[".push_to_hub("], Does::Publish),
    (
        &["kaggle"],
        &[
            "dataset_create_version(",
            "dataset_create_new(",
            "kernels_push(",
            "dataset_upload(",
        ],
        Does::Publish,
    ),
    (
        &["twine.commands"],
        &["upload.upload(", "upload.main(", "main(["],
        Does::Publish,
    ),
    (&["npm-publish"], &["npmPublish("], Does::Publish),
    (&["libnpmpublish"], &["publish("], Does::Publish),
    (
        &["@vscode/vsce", "'vsce'", "\"vsce\""],
        &["publishVSIX(", "vsce.publish(", "createVSIXAndPublish("],
        Does::Publish,
    ),
    (
        &["\"ovsx\"", "'ovsx'"],
        &["ovsx.publish(", "publish({"],
        Does::Publish,
    ),
    (
        &["chrome-webstore-upload"],
        &["store.publish(", "webStore.publish(", "client.publish("],
        Does::Publish,
    ),
    (&["semantic-release"], &["semanticRelease("], Does::Release),
    (
        &["client-lambda", "boto3", "aws-sdk"],
        &[
            "UpdateFunctionCodeCommand(",
            "update_function_code(",
            "updateFunctionCode(",
        ],
        Does::Deploy,
    ),
    (
        &["boto3"],
        &[
            "update_service(",
            "create_deployment(",
            "start_pipeline_execution(",
            "start_instance_refresh(",
        ],
        Does::Deploy,
    ),
    (
        &["client-ecs", "aws-sdk"],
        &["UpdateServiceCommand(", "updateService("],
        Does::Deploy,
    ),
    (
        &["boto3"],
        &["upload_file(", "upload_fileobj(", "put_object("],
        Does::Store,
    ),
    (
        &["client-s3", "aws-sdk", "lib-storage"],
        &["PutObjectCommand(", "putObject(", "new Upload("],
        Does::Store,
    ),
    (
        &["google.cloud", "google-cloud/storage"],
        &[
            "upload_from_filename(",
            "upload_from_string(",
            "bucket.upload(",
        ],
        Does::Store,
    ),
    (&["azure.storage"], &["upload_blob("], Does::Store),
    (
        &["pysftp", "paramiko"],
        &["sftp.put(", "s.put(", ".put_r(", ".put_d(", "exec_command("],
        Does::Deploy,
    ),
    (&["ftplib"], &["storbinary(", "storlines("], Does::Deploy),
    (
        &["from fabric"],
        &[
            ").run(",
            ").sudo(",
            "c.run(",
            "conn.run(",
            "connection.run(",
        ],
        Does::Deploy,
    ),
    (
        &["basic-ftp"],
        &["uploadFromDir(", "uploadFrom("],
        Does::Deploy,
    ),
    (&["ftp-deploy"], &[".deploy("], Does::Deploy),
    (
        &["ssh2-sftp-client"],
        &["uploadDir(", "fastPut(", "sftp.put("],
        Does::Deploy,
    ),
    (
        &["node-ssh"],
        &["putDirectory(", "putFile(", "putFiles(", "execCommand("],
        Does::Deploy,
    ),
];

/// The libraries that a program takes in, as places in the list.
pub(super) fn taken(text: &str) -> Vec<usize> {
    LIBRARIES
        .iter()
        .enumerate()
        .filter(|(_, (marks, _, _))| marks.iter().any(|mark| text.contains(mark)))
        .map(|(index, _)| index)
        .collect()
}

/// What a line does through one of them.
pub(super) fn read(raw: &str, text: &str, taken: &[usize]) -> Vec<Act> {
    let plain = raw.trim_start();
    let names = [
        "import ",
        "from ",
        "def ",
        "function ",
        "async function ",
        "func ",
    ];
    if names.iter().any(|word| plain.starts_with(word)) && !plain.contains([';', '{']) {
        return Vec::new();
    }
    let found = taken.iter().find_map(|index| {
        let (_, calls, does) = LIBRARIES.get(*index)?;
        let call = calls.iter().find(|call| calls_it(raw, call))?;
        Some((*call, *does))
    });
    let Some((call, does)) = found else {
        return Vec::new();
    };
    let what = shorten(plain);
    match does {
        Does::Push => {
            // What was cloned from elsewhere is pushed there.
            if ["clone_from(", ".clone(", "Git.clone("]
                .iter()
                .any(|mark| text.contains(mark))
            {
                return Vec::new();
            }
            let after = raw.split_once(call).map_or("", |(_, after)| after);
            vec![Act::new(Op::Push(target(after)), what, Token::Git)]
        }
        Does::Pages => vec![Act::new(
            Op::Push(Target::Branch("gh-pages".to_owned())),
            what,
            Token::Git,
        )],
        Does::Publish => vec![Act::publish(what)],
        Does::Release => {
            let release = Op::Release {
                draft: None,
                tag: None,
            };
            let acts = vec![
                Act::new(release, what.clone(), Token::Env(API_ENV)),
                Act::publish(what),
            ];
            super::publishes::with_registry(super::publishes::on_release_branches(acts))
        }
        Does::Deploy => vec![Act::deploy(what)],
        Does::Store => {
            let mut act = Act::deploy(what);
            act.unsure = Some(SERVED.to_owned());
            vec![act]
        }
    }
}

/// Whether a line has the call, not as the end of a longer name.
fn calls_it(raw: &str, call: &str) -> bool {
    raw.match_indices(call).any(|(at, _)| {
        let before = raw.get(..at).unwrap_or_default();
        let after = raw.get(at + call.len()..).unwrap_or_default();
        let begins = call.starts_with(['.', ')'])
            || !before.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        // `g.push`, without brackets, is no `g.pushed`.
        let ends = call.ends_with(['(', '{', ')'])
            || call.contains('&')
            || !after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        begins && ends
    })
}

/// Where a call pushes, by the texts that it is given: `"origin", "HEAD:main"`.
fn target(after: &str) -> Target {
    let given: Vec<&str> = after
        .split(['"', '\'', '`'])
        .skip(1)
        .step_by(2)
        .filter(|word| !matches!(*word, "origin" | "upstream" | "--force" | "-f" | "-u"))
        .collect();
    if given.contains(&"--tags") {
        return Target::Tags(None);
    }
    match given.first() {
        Some(reference) if !reference.is_empty() && !reference.starts_with('-') => {
            let to = reference.rsplit(':').next().unwrap_or(reference);
            match to.strip_prefix("refs/tags/") {
                Some(tag) => Target::Tags(Some(tag.to_owned())),
                None => Target::Branch(to.strip_prefix("refs/heads/").unwrap_or(to).to_owned()),
            }
        }
        _ => Target::Current,
    }
}
