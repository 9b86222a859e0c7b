//! What GoReleaser does, by its configuration.

use super::{Act, Op};
use crate::tree::Tree;
use crate::yaml::{self, Node};

/// Parts of the configuration that put something into a registry or another repository.
const PUBLISHERS: &[&str] = &[
    "dockers",
    "dockers_v2",
    "docker_manifests",
    "kos",
    "brews",
    "homebrew_casks",
    "scoops",
    "scoop",
    "aurs",
    "aur_sources",
    "krews",
    "nix",
    "winget",
    "chocolateys",
    "snapcrafts",
    "npms",
    "publishers",
    "uploads",
    "artifactories",
    "blobs",
    "cloudsmiths",
    "furies",
    "gemfury",
    "mcp",
    "includes",
];

/// Leaves out what the configuration does not ask for, where the repository has one.
pub(crate) fn by_configuration(tree: &Tree, acts: &mut Vec<Act>) {
    let names = [
        ".goreleaser.yml",
        ".goreleaser.yaml",
        "goreleaser.yml",
        "goreleaser.yaml",
        ".config/goreleaser.yml",
        ".config/goreleaser.yaml",
    ];
    let Some(root) = names
        .iter()
        .find_map(|name| tree.read(name).ok())
        .and_then(|text| yaml::parse_one(&text).ok())
        .filter(Node::is_map)
    else {
        // Without one it makes a release of the forge and nothing else; a registry's credential
        // tells that there is one, made in the run.
        for act in acts {
            act.needs_registry = act.op == Op::Publish;
        }
        return;
    };
    let publishes = PUBLISHERS.iter().any(|part| {
        root.get(part)
            .is_some_and(|node| !node.items().is_empty() || !node.entries().is_empty())
    });
    let releases = root.at(&["release", "disable"]).and_then(Node::text) != Some("true");
    let draft = root.at(&["release", "draft"]).and_then(Node::text) == Some("true");
    acts.retain(|act| match act.op {
        Op::Publish => publishes,
        Op::Release { .. } => releases,
        _ => true,
    });
    for act in acts {
        if let Op::Release { draft: asked, .. } = &mut act.op
            && draft
        {
            *asked = Some("true".to_owned());
        }
    }
}
