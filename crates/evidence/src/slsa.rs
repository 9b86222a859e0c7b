//! SLSA Provenance v1: how an artifact was made, from what, by whom.
//!
//! Source: slsa.dev/spec/v1.2, build provenance, predicate type `https://slsa.dev/provenance/v1`.

use std::collections::BTreeMap;

use portcullis_model::{Refusal, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::intoto::{Predicate, ResourceDescriptor, check_all};

/// Most dependencies or byproducts that one provenance names.
pub const RESOURCES_MAX: usize = 8_192;

/// The predicate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Provenance {
    /// What was asked for and what went in.
    pub build_definition: BuildDefinition,
    /// The one run that made it.
    pub run_details: RunDetails,
}

/// The build's inputs: enough to do it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BuildDefinition {
    /// A URI that says how to read the parameters.
    pub build_type: String,
    /// What outsiders control; all of it must be checked by whoever relies on the provenance.
    pub external_parameters: Map<String, Value>,
    /// What the builder's own configuration added.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub internal_parameters: Map<String, Value>,
    /// What was fetched, with digests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resolved_dependencies: Vec<ResourceDescriptor>,
}

/// This run of the build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RunDetails {
    /// Who is trusted to have run it as said.
    pub builder: Builder,
    /// Which run, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BuildMetadata>,
    /// What else came out: logs, for instance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub byproducts: Vec<ResourceDescriptor>,
}

/// The builder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Builder {
    /// A URI; only certain keys may sign for it.
    pub id: String,
    /// What the builder itself depends on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub builder_dependencies: Vec<ResourceDescriptor>,
    /// Component to version.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub version: BTreeMap<String, String>,
}

/// Identifier and times of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BuildMetadata {
    /// Which run, in the builder's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation_id: Option<String>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_on: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_on: Option<Timestamp>,
}

impl Predicate for Provenance {
    const TYPE: &'static str = "https://slsa.dev/provenance/v1";

    fn check(&self) -> Result<(), Refusal> {
        let definition = &self.build_definition;
        let run = &self.run_details;
        for (uri, what) in [
            (&definition.build_type, "a buildType URI"),
            (&run.builder.id, "a builder.id URI"),
        ] {
            if !uri.contains(':') {
                return Err(Refusal::malformed("provenance")
                    .expected(what)
                    .received(uri));
            }
        }
        check_all(&definition.resolved_dependencies, RESOURCES_MAX)?;
        check_all(&run.byproducts, RESOURCES_MAX)?;
        check_all(&run.builder.builder_dependencies, RESOURCES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intoto::Statement;
    use portcullis_model::Digest;

    fn sample() -> Provenance {
        Provenance {
            build_definition: BuildDefinition {
                build_type: "urn:example:build:v1".to_owned(),
                external_parameters: Map::from_iter([("command".to_owned(), "make".into())]),
                internal_parameters: Map::new(),
                resolved_dependencies: vec![ResourceDescriptor::of_digest(&Digest::of(b"in"))],
            },
            run_details: RunDetails {
                builder: Builder {
                    id: "urn:example:builder".to_owned(),
                    builder_dependencies: Vec::new(),
                    version: BTreeMap::from([("portcullis".to_owned(), "0.1.0".to_owned())]),
                },
                metadata: Some(BuildMetadata {
                    invocation_id: Some("job-7".to_owned()),
                    started_on: Some(Timestamp::from_ms(0)),
                    finished_on: Some(Timestamp::from_ms(1_500)),
                }),
                byproducts: Vec::new(),
            },
        }
    }

    #[test]
    fn fields_have_the_names_of_the_specification() {
        let subject = vec![ResourceDescriptor::file("app", &Digest::of(b"out"))];
        let statement = Statement::new(subject, sample()).unwrap();
        let json = statement.to_json().unwrap();
        let value: Value = serde_json::from_slice(&json).unwrap();
        let predicate = &value["predicate"];
        assert_eq!(value["predicateType"], "https://slsa.dev/provenance/v1");
        assert_eq!(
            predicate["buildDefinition"]["externalParameters"]["command"],
            "make"
        );
        assert!(
            predicate["buildDefinition"]["resolvedDependencies"][0]["digest"]["sha256"].is_string()
        );
        assert_eq!(
            predicate["runDetails"]["builder"]["version"]["portcullis"],
            "0.1.0"
        );
        assert_eq!(predicate["runDetails"]["metadata"]["invocationId"], "job-7");
        assert_eq!(
            predicate["runDetails"]["metadata"]["finishedOn"],
            "1970-01-01T00:00:01.500Z"
        );
        assert_eq!(Statement::<Provenance>::parse(&json).unwrap(), statement);
    }

    #[test]
    fn a_provenance_without_builder_or_type_is_refused() {
        let mut provenance = sample();
        provenance.run_details.builder.id = String::new();
        assert!(provenance.check().is_err());
        let mut provenance = sample();
        provenance.build_definition.build_type = "make".to_owned();
        assert!(provenance.check().is_err());
        let mut provenance = sample();
        provenance.build_definition.resolved_dependencies = vec![ResourceDescriptor::default()];
        assert!(provenance.check().is_err());
    }
}
