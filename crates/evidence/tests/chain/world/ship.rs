//! The way of an artifact: its build, its release and the rollout.

use super::*;

impl World {
    pub(crate) fn provenance(&self, commit: &GitOid, digest: &Digest) -> Statement<Provenance> {
        let changes: Vec<_> =
            portcullis_flow::release::changes_since_admitted(&self.state, &repository(), commit)
                .into_iter()
                .map(|change| serde_json::json!({ "change": change }))
                .collect();
        let predicate = Provenance {
            build_definition: BuildDefinition {
                build_type: "urn:portcullis:build:sandbox:v1".to_owned(),
                external_parameters: Default::default(),
                internal_parameters: [("changes".to_owned(), changes.into())]
                    .into_iter()
                    .collect(),
                resolved_dependencies: vec![ResourceDescriptor::git_commit(
                    "portcullis:repository:shop",
                    commit,
                )],
            },
            run_details: RunDetails {
                builder: Builder {
                    id: "spiffe://example.com/service/builder".to_owned(),
                    builder_dependencies: Vec::new(),
                    version: BTreeMap::new(),
                },
                metadata: None,
                byproducts: Vec::new(),
            },
        };
        Statement::new(vec![ResourceDescriptor::file("app", digest)], predicate).unwrap()
    }

    pub(crate) fn build(&mut self, commit: &GitOid) -> ArtifactId {
        let digest = Digest::of(format!("app of {commit}").as_bytes());
        let statement = self.provenance(commit, &digest);
        let provenance = self.attest(statement);
        let output = Output {
            name: "app".to_owned(),
            digest,
            size: 3,
        };
        let configuration = self.blob(b"[build]");
        let job = self.job(
            JobRequested {
                kind: JobKind::Build,
                repository: repository(),
                commit: commit.clone(),
                configured_by: commit.clone(),
                configuration,
                change: None,
            },
            provenance,
            vec![output.clone()],
        );
        ArtifactId(self.control(ArtifactBuilt {
            job,
            repository: repository(),
            commit: commit.clone(),
            output,
            provenance,
        }))
    }

    pub(crate) fn summary(&mut self, artifact: ArtifactId, by: &Signer) -> Digest {
        let digest = self.state.artifacts[&artifact].output.digest;
        let predicate = VerificationSummary {
            verifier: Verifier {
                id: "spiffe://example.com/service/control".to_owned(),
                version: BTreeMap::new(),
            },
            time_verified: at(self.time),
            resource_uri: "portcullis:environment:production".to_owned(),
            policy: ResourceDescriptor {
                uri: Some("portcullis:policy".to_owned()),
                ..ResourceDescriptor::of_digest(&self.policy)
            },
            input_attestations: Vec::new(),
            verification_result: VerificationResult::Passed,
            verified_levels: Vec::new(),
            dependency_levels: BTreeMap::new(),
            slsa_version: None,
        };
        let statement =
            Statement::new(vec![ResourceDescriptor::file("app", &digest)], predicate).unwrap();
        let envelope = dsse::sign(PAYLOAD_IN_TOTO, statement.to_json().unwrap(), by).unwrap();
        self.blob(&envelope.to_json().unwrap())
    }

    /// Asks for a release, has it approved, admits it.
    pub(crate) fn admit(
        &mut self,
        artifact: ArtifactId,
        environment: &str,
        approver: Option<&str>,
    ) -> ReleaseId {
        let environment: portcullis_model::EnvironmentId = environment.parse().unwrap();
        let known = self.state.artifacts[&artifact].clone();
        let covered =
            portcullis_flow::release::coverage(&self.state, artifact, &environment).unwrap();
        let control = signer(10);
        let checks = approver.map(|_| self.summary(artifact, &control));
        let request = approver.map(|approver| {
            let command = Command::Release {
                artifact,
                environment: environment.clone(),
            };
            let (actor, envelope) = self.command("human:ada", command);
            let subject = ApprovalSubject::Release {
                artifact,
                digest: known.output.digest,
                environment: environment.clone(),
                repository: repository(),
                commit: known.commit.clone(),
                provenance: known.provenance,
            };
            let body = RequestOpened {
                subject: subject.clone(),
                task: None,
                checks,
                needed: Needed {
                    humans: 1,
                    parties: 1,
                    key_class: KeyClass::Software,
                    administrators: false,
                },
                party: portcullis_flow::release::party_of(&self.state, &covered),
                because: Vec::new(),
                decision: self.decision(),
                expires: at(self.time + DAY),
                envelope: Some(envelope),
            };
            let request = RequestId(self.record(actor, body));
            self.approve(approver, request, subject, None, checks);
            request
        });
        let verification = self.summary(artifact, &control);
        let body = ReleaseAdmitted {
            artifact,
            environment,
            request,
            changes: covered.changes,
            agent_work: covered.agent_work,
            verification,
            decision: self.decision(),
        };
        ReleaseId(self.control(body))
    }

    /// Moves all traffic to a release.
    pub(crate) fn roll_out(&mut self, release: ReleaseId) {
        let known = self.state.releases[&release].clone();
        let running = self.state.environments[&known.environment].clone();
        let rollout = portcullis_model::RolloutId(self.control(RolloutStarted {
            release,
            environment: known.environment.clone(),
            stable: running.stable,
            canary: running.stable.is_some(),
            seed: 1,
            epoch: running.epoch + 1,
        }));
        self.control(RolloutEnded {
            rollout,
            outcome: RolloutOutcome::Failed,
            code: "start-failed".to_owned(),
            envelope: None,
        });
    }

    /// Moves all traffic to a release, to the end.
    pub(crate) fn complete(&mut self, release: ReleaseId) {
        let known = self.state.releases[&release].clone();
        let running = self.state.environments[&known.environment].clone();
        let epoch = running.epoch + 1;
        let rollout = portcullis_model::RolloutId(self.control(RolloutStarted {
            release,
            environment: known.environment.clone(),
            stable: running.stable,
            canary: running.stable.is_some(),
            seed: 1,
            epoch,
        }));
        let decision = None;
        let effect = Effect::StartRelease { release };
        let effect = self.control(EffectIntended { effect, decision });
        self.finish_effect(effect);
        self.control(RolloutStepped {
            rollout,
            step: Step::Advance,
            weight: 1000,
            epoch,
            code: "complete".to_owned(),
            evidence: BTreeMap::new(),
            state: serde_json::Value::Null,
            envelope: None,
        });
        let effect = Effect::SetTraffic {
            rollout,
            epoch,
            weight: 1000,
        };
        let effect = self.control(EffectIntended {
            effect,
            decision: None,
        });
        self.finish_effect(effect);
        self.control(RolloutEnded {
            rollout,
            outcome: RolloutOutcome::Completed,
            code: "complete".to_owned(),
            envelope: None,
        });
    }

    fn finish_effect(&mut self, effect: LedgerIndex) {
        self.control(EffectAttempted { effect, attempt: 1 });
        self.control(EffectConcluded {
            effect,
            outcome: EffectOutcome::Done,
            code: None,
        });
    }
}
