//! The way of a change: its run, its pushes, checks, tests and landing.

use super::*;

impl World {
    /// A task signed by ada, and a run under it.
    pub(crate) fn run(&mut self, base: &GitOid) -> (TaskId, RunId) {
        let text = TaskText {
            title: "Fix the till".to_owned(),
            text: String::new(),
        };
        let text = self.blob(&canonical::to_vec(&text).unwrap());
        let payload = Task {
            version: 1,
            origin: "example.com/log".to_owned(),
            text,
            source: None,
            agent: "fixer".parse().unwrap(),
            targets: self
                .targets
                .iter()
                .map(|repository| portcullis_model::task::Target {
                    repository: repository.clone(),
                    branch: "main".to_owned(),
                    base: base.clone(),
                    scope: Scope::over(&["src/**".to_owned()]),
                })
                .collect(),
            capabilities: Default::default(),
            budgets: Default::default(),
            windows: Default::default(),
            together: self.targets.len() > 1,
            containment: Containment::ContainedClaimed,
            allowed_gaps: BTreeSet::new(),
            change: None,
            not_before: at(NOW),
            expires: at(NOW + 20 * DAY),
            nonce: self.fresh(),
            signer: "ada".parse().unwrap(),
        };
        let envelope: Envelope = UnsignedStatement::new(StatementType::Task, &payload)
            .unwrap()
            .sign_with(&self.people["ada"])
            .unwrap()
            .into();
        let task = payload.id().unwrap();
        let body = TaskAccepted {
            task,
            payload,
            envelope: envelope.clone(),
            decision: self.decision(),
        };
        let actor = self.person("ada");
        self.record(actor, body);
        let start = Command::StartRun {
            task: envelope,
            run_key: "thumb".to_owned(),
            run_public_key: "04".to_owned(),
            source: None,
            gaps: BTreeSet::new(),
        };
        let (actor, envelope) = self.command("host:local", start);
        let body = RunStarted {
            task,
            agent: "fixer".parse().unwrap(),
            host: "local".parse().unwrap(),
            run_key: "thumb".to_owned(),
            gaps: BTreeSet::new(),
            deadline: at(NOW + DAY),
            leases: std::iter::once(LeaseKind::Identity)
                .chain(self.targets.iter().cloned().map(LeaseKind::Git))
                .collect(),
            envelope,
            decision: self.decision(),
        };
        (task, RunId(self.record(actor, body)))
    }

    /// An agent's change on `base`, checked and tested: its id, its head, its task.
    pub(crate) fn change(&mut self, base: &GitOid, name: &str) -> (ChangeId, GitOid, TaskId) {
        let (task, run) = self.run(base);
        let (change, head) = self.change_in(run, base, name);
        (change, head, task)
    }

    /// A run's change on `base` where changes are made now, checked and tested.
    pub(crate) fn change_in(
        &mut self,
        run: RunId,
        base: &GitOid,
        name: &str,
    ) -> (ChangeId, GitOid) {
        let first = commit(&mut self.objects, &[base], &format!("{name} 1"));
        let head = commit(&mut self.objects, &[&first], name);
        let agent = Principal::Agent("fixer".parse().unwrap(), Some(run));
        let body = ChangePushed {
            change: None,
            repository: self.place.clone(),
            branch: "main".to_owned(),
            base: base.clone(),
            head: head.clone(),
            tree: tree(name),
            manifest: Digest::of(name.as_bytes()),
            diff: Digest::of(b"diff"),
            files: 1,
            lines: 2,
            commits: vec![head.clone(), first],
            run: Some(run),
            party: Party([agent.clone(), principal("human:ada")].into()),
            questions: 0,
            envelope: None,
            decision: self.decision(),
        };
        let change = ChangeId(self.record(Actor::unsigned(agent), body));
        self.examine(change, base, &head);
        (change, head)
    }

    /// A person's change, by git's own signed push.
    pub(crate) fn own_change(
        &mut self,
        who: &str,
        base: &GitOid,
        name: &str,
    ) -> (ChangeId, GitOid) {
        let head = commit(&mut self.objects, &[base], name);
        let certificate = format!(
            "certificate version 0.1\npusher key {NOW} +0000\nnonce {}\n\n{} {head} refs/for/main\n",
            self.fresh(),
            GitOid::zero()
        );
        let signature = self.people[who]
            .sign("git", certificate.as_bytes())
            .unwrap();
        use base64::Engine as _;
        let base64 = base64::engine::general_purpose::STANDARD;
        let envelope = Envelope {
            payload_type: "application/vnd.git.push-certificate".to_owned(),
            payload: base64.encode(&certificate),
            signatures: vec![EnvelopeSignature {
                keyid: self.people[who].public_key().fingerprint().to_owned(),
                sig: base64.encode(signature.to_binary()),
            }],
        };
        let body = ChangePushed {
            change: None,
            repository: repository(),
            branch: "main".to_owned(),
            base: base.clone(),
            head: head.clone(),
            tree: tree(name),
            manifest: Digest::of(name.as_bytes()),
            diff: Digest::of(b"diff"),
            files: 1,
            lines: 2,
            commits: vec![head.clone()],
            run: None,
            party: Party([principal(&format!("human:{who}"))].into()),
            questions: 0,
            envelope: Some(envelope),
            decision: self.decision(),
        };
        let actor = self.person(who);
        let change = ChangeId(self.record(actor, body));
        self.examine(change, base, &head);
        (change, head)
    }

    fn examine(&mut self, change: ChangeId, base: &GitOid, head: &GitOid) {
        let report = self.blob(format!("[\"no findings\",\"{head}\"]").as_bytes());
        self.control(ChecksCompleted {
            change,
            revision: 1,
            verdict: CheckVerdict::Pass,
            escalations: BTreeSet::new(),
            blocks: BTreeSet::new(),
            report,
            configuration: Digest::of(b"checks"),
        });
        let on_base = match self.tested.get(&(base.clone(), base.clone())) {
            Some(job) => *job,
            None => self.test(base, base, None, &["a", "b"]),
        };
        let on_head = self.test(head, base, Some(change), &["a", "b", "c"]);
        let report = self.compared(on_head, on_base);
        self.control(TestsCompleted {
            change,
            revision: 1,
            verdict: TestVerdict::Passed,
            head: Some(on_head),
            base: Some(on_base),
            counts: TestCounts {
                passed: 3,
                failed: 0,
                missing: 0,
            },
            report,
        });
    }

    fn test(
        &mut self,
        commit: &GitOid,
        base: &GitOid,
        change: Option<ChangeId>,
        passed: &[&str],
    ) -> JobId {
        let configuration = self.blob(b"[test]");
        let result = TestResult {
            result: TestOutcome::Passed,
            configuration: Vec::new(),
            url: None,
            passed_tests: passed.iter().map(|name| (*name).to_owned()).collect(),
            warned_tests: Vec::new(),
            failed_tests: Vec::new(),
        };
        let subject = vec![ResourceDescriptor::git_commit(
            "portcullis:repository:shop",
            commit,
        )];
        let attestation = self.attest(Statement::new(subject, result).unwrap());
        let job = self.job(
            JobRequested {
                kind: JobKind::Test,
                repository: self.place.clone(),
                commit: commit.clone(),
                configured_by: base.clone(),
                configuration,
                change,
            },
            attestation,
            Vec::new(),
        );
        self.tested.insert((commit.clone(), base.clone()), job);
        job
    }

    pub(crate) fn attest<P: Predicate>(&mut self, statement: Statement<P>) -> Digest {
        let envelope =
            dsse::sign(PAYLOAD_IN_TOTO, statement.to_json().unwrap(), &self.builder).unwrap();
        self.blob(&envelope.to_json().unwrap())
    }

    pub(super) fn job(
        &mut self,
        asked: JobRequested,
        attestation: Digest,
        outputs: Vec<Output>,
    ) -> JobId {
        let job = JobId(self.control(asked));
        let (actor, envelope) =
            self.command("service:builder", Command::ClaimJob { job: Some(job) });
        let service = "builder".parse().unwrap();
        self.record(
            actor,
            JobClaimed {
                job,
                service,
                envelope,
            },
        );
        let report = Digest::of(b"log");
        let finish = Command::FinishJob {
            job,
            succeeded: true,
            attestation,
            report,
            outputs: outputs.clone(),
        };
        let (actor, envelope) = self.command("service:builder", finish);
        let body = JobFinished {
            job,
            outcome: JobOutcome::Succeeded,
            attestation: Some(attestation),
            report: Some(report),
            outputs,
            envelope: Some(envelope),
        };
        self.record(actor, body);
        job
    }

    pub(crate) fn subject(&self, change: ChangeId) -> ApprovalSubject {
        portcullis_flow::change::subject_of(&self.state.changes[&change])
    }

    /// Checks and tests again what was prepared of a change on the commit `root`.
    /// `with` is the entry that prepared `head`, where that stands behind the change.
    pub(crate) fn retest(
        &mut self,
        change: ChangeId,
        prepared: LedgerIndex,
        head: &GitOid,
        root: &GitOid,
        with: Option<LedgerIndex>,
    ) -> LedgerIndex {
        let on_base = self.test(root, root, None, &["a", "b"]);
        let on_head = self.test(head, root, Some(change), &["a", "b", "c"]);
        let report = self.compared(on_head, on_base);
        let findings = self.blob(b"[\"no findings\"]");
        self.control(LandingTested {
            change,
            prepared,
            with,
            own: with.is_none(),
            tests: TestVerdict::Passed,
            head: Some(on_head),
            base: Some(on_base),
            counts: TestCounts {
                passed: 3,
                failed: 0,
                missing: 0,
            },
            report,
            checks: CheckVerdict::Pass,
            escalations: BTreeSet::new(),
            findings,
        })
    }

    /// What two test jobs say together.
    fn compared(&mut self, head: JobId, base: JobId) -> Digest {
        let attested = |job: JobId| self.state.jobs[&job].finished().unwrap().attestation;
        let summary = serde_json::json!({
            "verdict": "passed",
            "head": attested(head).unwrap(),
            "base": attested(base).unwrap(),
        });
        self.blob(&canonical::to_vec(&summary).unwrap())
    }

    /// Asks for a change, has it approved, and lands it.
    pub(crate) fn land(&mut self, change: ChangeId, task: Option<TaskId>, approvers: &[&str]) {
        let effect = self.approved(change, task, approvers, None);
        let decision = Some(self.decision());
        let effect = self.control(EffectIntended { effect, decision });
        self.conclude(effect);
    }

    /// Tries an intended landing, and it is done.
    pub(crate) fn conclude(&mut self, effect: LedgerIndex) {
        self.control(EffectAttempted { effect, attempt: 1 });
        self.control(EffectConcluded {
            effect,
            outcome: EffectOutcome::Done,
            code: None,
        });
    }

    /// Asks for a change and has it approved; gives the landing to intend.
    pub(crate) fn approved(
        &mut self,
        change: ChangeId,
        task: Option<TaskId>,
        approvers: &[&str],
        together: Option<TaskId>,
    ) -> Effect {
        let known = self.state.changes[&change].clone();
        let checks = portcullis_flow::change::evidence_digest(known.latest());
        let subject = self.subject(change);
        let request = (!approvers.is_empty()).then(|| {
            RequestId(self.control(RequestOpened {
                subject: subject.clone(),
                task,
                checks,
                needed: Needed {
                    humans: 1,
                    parties: 1,
                    key_class: KeyClass::Software,
                    administrators: false,
                },
                party: known.party.clone(),
                because: Vec::new(),
                decision: self.decision(),
                expires: at(self.time + DAY),
                envelope: None,
            }))
        });
        for approver in approvers {
            self.approve(approver, request.unwrap(), subject.clone(), task, checks);
        }
        let pushed = &known.latest().pushed;
        Effect::Land {
            change,
            revision: 1,
            repository: known.repository.clone(),
            branch: "main".to_owned(),
            old: pushed.base.clone(),
            new: pushed.head.clone(),
            tree: pushed.tree.clone(),
            request,
            prepared: None,
            together,
        }
    }
}
