//! Admission: the whole chain is recomputed from evidence before anything is let in.

use std::sync::Arc;

use portcullis_evidence::chain::{self, Bundle, Report, Subject};
use portcullis_evidence::dsse::{self, PAYLOAD_IN_TOTO, UnverifiedEnvelope};
use portcullis_evidence::intoto::{ResourceDescriptor, Statement};
use portcullis_evidence::vsa::{VerificationResult, VerificationSummary, Verifier};
use portcullis_flow::job::Artifact;
use portcullis_flow::release::{Coverage, coverage};
use portcullis_flow::{Command as Recording, State};
use portcullis_model::event::ReleaseAdmitted;
use portcullis_model::statement::ApprovalSubject;
use portcullis_model::{
    Digest, EnvironmentId, KeyClass, Principal, Recorder as _, Refusal, RequestId,
};
use portcullis_policy::Request;
use portcullis_policy::action::Action;

use crate::app::{App, control, now};
use crate::bundle;
use crate::facts;
use crate::home::Home;
use crate::init::log_signer;
use crate::intake::release::admission_facts;

/// The version of SLSA whose levels a summary names.
const SLSA_VERSION: &str = "1.2";
/// What our evidence shows of the build track without a look at the machine: provenance exists and
/// is signed by its builder. That a platform is hosted, as level 2 demands, no evidence shows.
const BUILD_LEVEL: &str = "SLSA_BUILD_LEVEL_1";

/// Verifies everything up to the artifact from its evidence, as somebody outside would, and keeps
/// the signed summary. Returns the summary's digest.
///
/// # Errors
/// `chain-broken` with the broken link's words, something is missing, or the state moved on.
pub async fn verify(
    app: &Arc<App>,
    state: &State,
    artifact: &Artifact,
    environment: &EnvironmentId,
    covered: &Coverage,
) -> Result<Digest, Refusal> {
    let again = coverage(state, artifact.id, environment)?;
    if again != *covered {
        return Err(
            Refusal::conflict("coverage-changed", "what the release covers changed")
                .next("ask for the release again"),
        );
    }
    let policy = state
        .policy()
        .ok_or_else(|| Refusal::denied("no-policy", "no policy is in force"))?;
    let trust_domain = state.genesis()?.trust_domain.clone();
    let (app, artifact, environment) = (Arc::clone(app), artifact.clone(), environment.clone());
    let verified = tokio::task::spawn_blocking(move || {
        let bundle = bundle::before_release(&app, artifact.id, &environment)?;
        let report = check(&app, &bundle, &artifact)?;
        let signer = log_signer(&app.home)?;
        let who = format!("spiffe://{trust_domain}/service/control");
        let statement = summary(&bundle, &report, &artifact, &environment, policy, who)?;
        let envelope = dsse::sign(PAYLOAD_IN_TOTO, statement.to_json()?, &signer)?;
        app.ledger.blobs().put(&envelope.to_json()?)
    });
    verified
        .await
        .map_err(|_| Refusal::internal("a verification was cut off"))?
}

/// Admits what humans approved: coverage, chain and policy are looked at once more.
///
/// # Errors
/// Something no longer holds, policy says no, or the ledger can't be written.
pub async fn admit(app: &Arc<App>, id: RequestId) -> Result<(), Refusal> {
    let state = app.state();
    let request = state
        .requests
        .get(&id)
        .cloned()
        .ok_or_else(|| Refusal::not_found("request", id))?;
    let ApprovalSubject::Release {
        artifact,
        environment,
        ..
    } = &request.subject
    else {
        return Err(Refusal::internal("not a release"));
    };
    let known = state
        .artifacts
        .get(artifact)
        .cloned()
        .ok_or_else(|| Refusal::not_found("artifact", artifact))?;
    let covered = coverage(&state, *artifact, environment)?;
    let evidence = verify(app, &state, &known, environment, &covered).await?;
    let asked = {
        let app = Arc::clone(app);
        tokio::task::spawn_blocking(move || app.ledger.event(id.0))
            .await
            .map_err(|_| Refusal::internal("a read of the ledger was cut off"))??
    };
    let approvals = facts::approvals(&state, &request, now());
    let mut circumstances = facts::circumstances(&state, now())?;
    circumstances.key_class = asked.actor.key_class.unwrap_or(KeyClass::Software);
    circumstances.breaker = covered.agent_work
        && app
            .halted_for(&state, None, &[&known.repository], Some(environment))
            .is_some();
    let actor = match &asked.actor.principal {
        Principal::Human(human) => facts::human(&state, human),
        Principal::Service(service) => facts::service(&state, service, now()),
        Principal::Agent(..) | Principal::Host(_) | Principal::Unknown => {
            portcullis_policy::Actor::Unknown
        }
    };
    let action = Action::ReleaseAdmit(admission_facts(
        &state,
        environment,
        &known,
        &covered,
        approvals,
    ));
    let question = Request {
        actor,
        circumstances,
        action,
    };
    let (permit, decision) = app.decide(&state, &question, &[]).into_permit()?;
    let body = ReleaseAdmitted {
        artifact: *artifact,
        environment: environment.clone(),
        request: Some(id),
        changes: covered.changes,
        agent_work: covered.agent_work,
        verification: evidence,
        decision,
    };
    let recorded = app
        .ledger
        .record(permit, Recording::one(control(), body))
        .await?;
    // The worker finds the release in the state and starts its rollout, now or after a restart.
    drop(recorded);
    Ok(())
}

/// Verifies as somebody would who has the genesis file and the bundle's bytes.
fn check(app: &App, bundle: &Bundle, artifact: &Artifact) -> Result<Report, Refusal> {
    let genesis = Home::read(
        &app.home.genesis(),
        portcullis_model::limits::ENTRY_MAX_BYTES as u64,
    )?;
    let subject = Subject::Artifact {
        digest: artifact.output.digest,
    };
    let report = chain::verify(&bundle.to_bytes()?, &genesis, &subject)?;
    report.require()?;
    Ok(report)
}

/// "I verified this artifact for this environment", in SLSA's form.
fn summary(
    bundle: &Bundle,
    report: &Report,
    artifact: &Artifact,
    environment: &EnvironmentId,
    policy: Digest,
    who: String,
) -> Result<Statement<VerificationSummary>, Refusal> {
    let input_attestations = bundle
        .blobs
        .iter()
        .filter(|(_, bytes)| UnverifiedEnvelope::parse(&bytes.0).is_ok())
        .map(|(digest, _)| ResourceDescriptor::of_digest(digest))
        .collect();
    let mut verified_levels = vec![BUILD_LEVEL.to_owned()];
    if report.source_level.level > 0 {
        verified_levels.push(format!("SLSA_SOURCE_LEVEL_{}", report.source_level.level));
    }
    let predicate = VerificationSummary {
        verifier: Verifier {
            id: who,
            version: [(
                "portcullis".to_owned(),
                env!("CARGO_PKG_VERSION").to_owned(),
            )]
            .into(),
        },
        time_verified: now(),
        resource_uri: format!(
            "portcullis:environment:{environment}:{}",
            artifact.output.name
        ),
        policy: ResourceDescriptor {
            uri: Some("portcullis:policy".to_owned()),
            ..ResourceDescriptor::of_digest(&policy)
        },
        input_attestations,
        verification_result: VerificationResult::Passed,
        verified_levels,
        dependency_levels: Default::default(),
        slsa_version: Some(SLSA_VERSION.to_owned()),
    };
    let subject = ResourceDescriptor::file(&artifact.output.name, &artifact.output.digest);
    Statement::new(vec![subject], predicate)
}
