//! A launcher without a sandbox: it holds a run's key itself, so that a test can say to the gateway
//! what no run could.

use portcullis_identity::client::{Opening, RunCredential, RunKey, RunSession};
use portcullis_identity::session::Said;
use portcullis_model::statement::{Command, Envelope};
use portcullis_model::{Digest, Secret, TaskText, canonical};
use serde_json::{Value, json};

use super::crafted::now;
use super::{Answer, House};

/// A started run.
pub(crate) struct Runner<'a> {
    house: &'a House,
    credential: RunCredential,
    /// What the server answered.
    pub(crate) answer: Value,
}

impl House {
    /// Asks for a run under a signed task; `source` is what the host read of the ticket.
    pub(crate) fn ask_run(
        &self,
        task: &Envelope,
        text: &TaskText,
        source: Option<Digest>,
    ) -> (Answer, RunKey) {
        let key = RunKey::generate().unwrap();
        let command = Command::StartRun {
            task: task.clone(),
            run_key: key.thumbprint().to_string(),
            run_public_key: portcullis_model::digest::encode_hex(key.public().point()),
            source,
            gaps: Default::default(),
        };
        let command = self.unsigned_command(&Self::host().to_string(), command);
        let envelope = self.sign_with_home_key("host", &command);
        let url = format!("{}/v1/commands", self.url());
        let (name, proof) = key.possession("POST", &url, now()).unwrap();
        let text = String::from_utf8(canonical::to_vec(text).unwrap()).unwrap();
        let body = json!({ "envelope": envelope, "attachments": [text] }).to_string();
        let answer = self.request(
            "POST",
            "/v1/commands",
            &[(name, proof.expose())],
            body.as_bytes(),
        );
        (answer, key)
    }

    /// The code with which a run under the task of a file is refused.
    pub(crate) fn runner_refused(&self, file: &std::path::Path) -> String {
        let (task, text) = self.read_task(file);
        let (answer, _) = self.ask_run(&self.sign_task(task.signer.as_str(), &task), &text, None);
        answer.code()
    }

    /// Starts a run under the task of a file.
    pub(crate) fn runner(&self, file: &std::path::Path) -> Runner<'_> {
        let written: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let envelope: Envelope = serde_json::from_value(written["envelope"].clone()).unwrap();
        let (_, text) = self.read_task(file);
        let (answer, key) = self.ask_run(&envelope, &text, None);
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = answer.json();
        let token = Secret::new(answer["token"].as_str().unwrap().to_owned());
        Runner {
            house: self,
            credential: key.with_token(token),
            answer,
        }
    }
}

impl Runner<'_> {
    /// The run's id.
    pub(crate) fn id(&self) -> String {
        self.answer["run"].as_str().unwrap().to_owned()
    }

    /// A request to the gateway, proved.
    pub(crate) fn call(
        &self,
        method: &str,
        path: &str,
        more: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let bare = path.split('?').next().unwrap();
        let url = format!("{}{bare}", self.house.url());
        let proofs = self.credential.headers(method, &url, now()).unwrap();
        let mut headers: Vec<(&str, &str)> = proofs
            .iter()
            .map(|(name, value)| (*name, value.expose().as_str()))
            .collect();
        headers.extend_from_slice(more);
        self.house.request(method, path, &headers, body)
    }

    /// The two headers that prove one request.
    pub(crate) fn proof(&self, method: &str, path: &str) -> Vec<(String, String)> {
        let url = format!("{}{path}", self.house.url());
        let proofs = self.credential.headers(method, &url, now()).unwrap();
        proofs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.expose().clone()))
            .collect()
    }

    /// As [`Self::proof`], with the offer of a session.
    pub(crate) fn opening(
        &self,
        method: &str,
        path: &str,
    ) -> (Vec<(&'static str, String)>, Opening) {
        let url = format!("{}{path}", self.house.url());
        let (proofs, opening) = self.credential.opening(method, &url, now()).unwrap();
        let headers = proofs
            .iter()
            .map(|(name, value)| (*name, value.expose().clone()))
            .collect();
        (headers, opening)
    }

    /// The proof of a connection's next request.
    pub(crate) fn next(&self, session: &mut RunSession, said: Said<'_>) -> String {
        self.credential.next(session, said).unwrap()
    }

    /// From here on with this token.
    pub(crate) fn take_token(&self, token: &str) {
        self.credential.renew(Secret::new(token.to_owned()));
    }

    /// A request with this run's proof beside somebody else's token.
    pub(crate) fn call_with_token(&self, token: &str, method: &str, path: &str) -> Answer {
        let proofs = self.proof(method, path);
        let token = format!("DPoP {token}");
        let headers = [
            ("authorization", token.as_str()),
            ("dpop", proofs[1].1.as_str()),
        ];
        self.house.request(method, path, &headers, b"")
    }

    /// What a push begins with.
    pub(crate) fn begin_push(&self, repository: &str) -> Answer {
        let path = format!("/gateway/v1/git/{repository}.git/info/refs?service=git-receive-pack");
        self.call("GET", &path, &[], b"")
    }

    /// A push of these bytes.
    pub(crate) fn push(&self, repository: &str, body: &[u8]) -> Answer {
        let path = format!("/gateway/v1/git/{repository}.git/git-receive-pack");
        let kind = [("content-type", "application/x-git-receive-pack-request")];
        self.call("POST", &path, &kind, body)
    }

    /// The token, which nobody may write down.
    pub(crate) fn token(&self) -> &str {
        self.answer["token"].as_str().unwrap()
    }
}
