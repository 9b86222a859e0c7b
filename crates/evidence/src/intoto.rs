//! in-toto Statement v1: "this predicate is true of these subjects".
//!
//! What others add to a statement beyond the specification is refused, since we act on statements
//! of our own services only and there an unknown field is a defect.
//!
//! Source: in-toto attestation framework, `spec/v1/statement.md` and `resource_descriptor.md`.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use portcullis_model::digest::decode_hex;
use portcullis_model::{Digest, GitOid, Refusal, canonical};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `_type` of every statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// Most subjects of one statement: the outputs of one build.
pub const SUBJECTS_MAX: usize = 1_024;
/// Most digests of one resource.
pub const DIGESTS_MAX: usize = 8;

/// The body of a statement, with the type that names it.
pub trait Predicate: Serialize + DeserializeOwned {
    /// `predicateType`.
    const TYPE: &'static str;

    /// What the specification demands beyond the shape.
    ///
    /// # Errors
    /// A rule of the predicate's specification is broken.
    fn check(&self) -> Result<(), Refusal>;
}

/// A statement. Made by [`Statement::new`] or [`Statement::parse`], so its type fits its predicate
/// and every subject has a digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement<P> {
    #[serde(rename = "_type")]
    statement_type: String,
    subject: Vec<ResourceDescriptor>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: P,
}

/// Algorithm to lowercase hex, such as `sha256` or `gitCommit`.
pub type DigestSet = BTreeMap<String, String>;

/// Any artifact or resource. At least one of `uri`, `digest` and `content` is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ResourceDescriptor {
    /// What it is called within the statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which it is, in the world.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Digests of its content.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digest: DigestSet,
    /// The content itself in base64, if small.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Where to fetch it, if not at `uri`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download_location: Option<String>,
    /// Its media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// More about it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub annotations: Map<String, Value>,
}

impl<P: Predicate> Statement<P> {
    /// A statement about `subject`.
    ///
    /// # Errors
    /// No subject, more than [`SUBJECTS_MAX`], one without digest, or a predicate that breaks its
    /// specification.
    pub fn new(subject: Vec<ResourceDescriptor>, predicate: P) -> Result<Self, Refusal> {
        let statement = Self {
            statement_type: STATEMENT_TYPE.to_owned(),
            subject,
            predicate_type: P::TYPE.to_owned(),
            predicate,
        };
        statement.check()?;
        Ok(statement)
    }

    /// Reads canonical bytes, those of a checked envelope's payload.
    ///
    /// # Errors
    /// Not canonical, unknown fields, another predicate, or as [`new`](Self::new).
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let statement: Self = canonical::from_slice("in-toto statement", bytes)?;
        statement.check()?;
        Ok(statement)
    }

    /// What the statement is about.
    pub fn subject(&self) -> &[ResourceDescriptor] {
        &self.subject
    }

    /// What it says.
    pub const fn predicate(&self) -> &P {
        &self.predicate
    }

    /// The statement's canonical bytes.
    ///
    /// # Errors
    /// A value within has a float.
    pub fn to_json(&self) -> Result<Vec<u8>, Refusal> {
        canonical::to_vec(self)
    }

    fn check(&self) -> Result<(), Refusal> {
        if self.statement_type != STATEMENT_TYPE {
            return Err(malformed(STATEMENT_TYPE, &self.statement_type));
        }
        if self.predicate_type != P::TYPE {
            return Err(malformed(P::TYPE, &self.predicate_type));
        }
        if self.subject.is_empty() || self.subject.len() > SUBJECTS_MAX {
            return Err(malformed(
                &format!("1 to {SUBJECTS_MAX} subjects"),
                &format!("{} subjects", self.subject.len()),
            ));
        }
        for subject in &self.subject {
            subject.check()?;
            if subject.digest.is_empty() {
                return Err(malformed(
                    "a digest for every subject",
                    subject.name.as_deref().unwrap_or("a subject without name"),
                ));
            }
        }
        let mut names: Vec<&str> = self
            .subject
            .iter()
            .filter_map(|subject| subject.name.as_deref())
            .collect();
        names.sort_unstable();
        if let Some([name, _]) = names.array_windows::<2>().find(|[one, other]| one == other) {
            return Err(malformed("each subject's name once", name));
        }
        self.predicate.check()
    }
}

impl ResourceDescriptor {
    /// A named thing with our digest of its bytes.
    pub fn file(name: &str, digest: &Digest) -> Self {
        Self {
            name: Some(name.to_owned()),
            ..Self::of_digest(digest)
        }
    }

    /// A thing known by our digest alone.
    pub fn of_digest(digest: &Digest) -> Self {
        Self {
            digest: BTreeMap::from([("sha256".to_owned(), digest.hex())]),
            ..Self::default()
        }
    }

    /// A commit of a repository.
    pub fn git_commit(uri: &str, commit: &GitOid) -> Self {
        Self {
            uri: Some(uri.to_owned()),
            digest: BTreeMap::from([("gitCommit".to_owned(), commit.to_string())]),
            ..Self::default()
        }
    }

    /// A tree of a repository.
    pub fn git_tree(uri: &str, tree: &GitOid) -> Self {
        Self {
            uri: Some(uri.to_owned()),
            digest: BTreeMap::from([("gitTree".to_owned(), tree.to_string())]),
            ..Self::default()
        }
    }

    /// The `sha256` digest, if there is one.
    pub fn sha256(&self) -> Option<Digest> {
        format!("sha256:{}", self.digest.get("sha256")?)
            .parse()
            .ok()
    }

    /// Checks what the specification demands of any descriptor.
    ///
    /// # Errors
    /// None of `uri`, `digest`, `content`; a digest that is not lowercase hex; content that is not
    /// base64.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.uri.is_none() && self.digest.is_empty() && self.content.is_none() {
            return Err(malformed(
                "`uri`, `digest` or `content` in every resource",
                self.name.as_deref().unwrap_or("a resource with none"),
            ));
        }
        if self.digest.len() > DIGESTS_MAX {
            return Err(malformed("a few digests of one resource", "too many"));
        }
        for (algorithm, hex) in &self.digest {
            let digest = decode_hex(hex).filter(|bytes| !bytes.is_empty());
            let fits = match algorithm.as_str() {
                "sha256" => digest.is_some_and(|bytes| bytes.len() == 32),
                "gitCommit" | "gitTree" | "gitBlob" | "gitTag" => {
                    digest.is_some_and(|bytes| matches!(bytes.len(), 20 | 32))
                }
                _ => digest.is_some(),
            };
            if algorithm.is_empty() || !fits {
                return Err(malformed(
                    "digests as lowercase hex of the algorithm's length",
                    &format!("{algorithm}: {hex}"),
                ));
            }
        }
        if let Some(content) = &self.content
            && STANDARD.decode(content).is_err()
        {
            return Err(malformed("`content` in base64", content));
        }
        Ok(())
    }
}

fn malformed(expected: &str, received: &str) -> Refusal {
    Refusal::malformed("in-toto statement")
        .expected(expected)
        .received(received)
}

/// Checks every descriptor of a list and that there are not more than `max`.
pub(crate) fn check_all(descriptors: &[ResourceDescriptor], max: usize) -> Result<(), Refusal> {
    if descriptors.len() > max {
        return Err(malformed(
            &format!("at most {max} resources in one list"),
            &format!("{}", descriptors.len()),
        ));
    }
    descriptors.iter().try_for_each(ResourceDescriptor::check)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_result::{TestOutcome, TestResult};
    use proptest::prelude::*;

    fn subject() -> ResourceDescriptor {
        ResourceDescriptor::git_commit("git+file:///repo", &"d20a".repeat(10).parse().unwrap())
    }

    fn sample() -> Statement<TestResult> {
        let predicate = TestResult {
            result: TestOutcome::Passed,
            configuration: vec![ResourceDescriptor::file("ci.toml", &Digest::of(b"x"))],
            url: None,
            passed_tests: vec!["a".to_owned()],
            warned_tests: Vec::new(),
            failed_tests: Vec::new(),
        };
        Statement::new(vec![subject()], predicate).unwrap()
    }

    #[test]
    fn a_statement_is_written_as_the_specification_says() {
        let json = String::from_utf8(sample().to_json().unwrap()).unwrap();
        assert_eq!(
            json,
            format!(
                r#"{{"_type":"https://in-toto.io/Statement/v1","predicate":{{"configuration":[{{"digest":{{"sha256":"{}"}},"name":"ci.toml"}}],"passedTests":["a"],"result":"PASSED"}},"predicateType":"https://in-toto.io/attestation/test-result/v0.1","subject":[{{"digest":{{"gitCommit":"{}"}},"uri":"git+file:///repo"}}]}}"#,
                Digest::of(b"x").hex(),
                "d20a".repeat(10)
            )
        );
        assert_eq!(Statement::parse(json.as_bytes()).unwrap(), sample());
    }

    #[test]
    fn other_statements_are_refused() {
        let json = String::from_utf8(sample().to_json().unwrap()).unwrap();
        for (from, to) in [
            ("Statement/v1", "Statement/v0.1"),
            ("test-result/v0.1", "test-result/v0.2"),
            ("\"subject\"", "\"more\":1,\"subject\""),
            ("\"result\"", "\"resalt\""),
            ("PASSED", "passed"),
            ("d20a", "D20A"),
            ("gitCommit\":\"d20a", "gitCommit\":\""),
            ("\"sha256\":\"", "\"sha256\":\"00"),
            ("\"passedTests\":[\"a\"],", "\"passedTests\":[],"),
        ] {
            let changed = json.replacen(from, to, 1);
            assert_ne!(changed, json, "{from}");
            let read = Statement::<TestResult>::parse(changed.as_bytes());
            assert!(read.is_err(), "{changed}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(at in any::<prop::sample::Index>(), byte: u8) {
            let mut bytes = sample().to_json().unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(read) = Statement::<TestResult>::parse(&bytes) {
                prop_assert_eq!(read.to_json().unwrap(), bytes);
            }
        }
    }

    #[test]
    fn subjects_must_be_there_once_and_have_digests() {
        let with = |subject| Statement::new(subject, sample().predicate);
        assert!(with(Vec::new()).is_err());
        let uri_only = ResourceDescriptor {
            uri: Some("x".to_owned()),
            ..ResourceDescriptor::default()
        };
        assert!(with(vec![uri_only]).is_err());
        let file = ResourceDescriptor::file("a", &Digest::of(b"a"));
        assert!(with(vec![file.clone()]).is_ok());
        assert!(with(vec![file.clone(), file.clone()]).is_err());
        assert!(with(vec![file; SUBJECTS_MAX + 1]).is_err());
        assert!(ResourceDescriptor::default().check().is_err());
    }
}
