//! The ssh-agent's socket.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use portcullis_evidence::sshsig::{AGENT_MESSAGE_MAX_BYTES, agent_keys, agent_list_request};
use portcullis_model::{PublicKey, Refusal};

/// How long an agent may take: it may ask a person to confirm, or a hardware key for a touch.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// An ssh-agent's address.
#[derive(Clone, Debug)]
pub(crate) struct Agent(PathBuf);

impl Agent {
    /// The agent that the environment names, if one answers.
    pub(crate) fn from_environment() -> Option<Self> {
        let path = PathBuf::from(std::env::var_os("SSH_AUTH_SOCK")?);
        UnixStream::connect(&path).ok().map(|_| Self(path))
    }

    /// The agent at a socket.
    #[cfg(test)]
    pub(crate) fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The keys it holds that we can use, with their comments.
    ///
    /// # Errors
    /// It does not answer as an agent.
    pub(crate) fn keys(&self) -> Result<Vec<(PublicKey, String)>, Refusal> {
        agent_keys(&self.ask(&agent_list_request())?)
    }

    /// Whether it holds `key`.
    pub(crate) fn holds(&self, key: &PublicKey) -> bool {
        self.keys()
            .is_ok_and(|keys| keys.iter().any(|(held, _)| held == key))
    }

    /// Sends one message and gives the answer, its length included.
    ///
    /// # Errors
    /// Nobody answers, not in time, or too much.
    pub(crate) fn ask(&self, request: &[u8]) -> Result<Vec<u8>, Refusal> {
        let failed = |error: std::io::Error| {
            Refusal::unavailable("ssh-agent-unreachable", "the ssh-agent does not answer")
                .received(&format!("{}: {error}", self.0.display()))
                .next("start one with `eval $(ssh-agent)` and `ssh-add`, or name a key file with --key")
        };
        let mut stream = UnixStream::connect(&self.0).map_err(failed)?;
        stream
            .set_read_timeout(Some(ANSWER_TIMEOUT))
            .map_err(failed)?;
        stream.write_all(request).map_err(failed)?;
        let mut length = [0_u8; 4];
        stream.read_exact(&mut length).map_err(failed)?;
        let size = u32::from_be_bytes(length) as usize;
        if size > AGENT_MESSAGE_MAX_BYTES {
            return Err(Refusal::malformed("ssh-agent answer")
                .expected(&format!("at most {AGENT_MESSAGE_MAX_BYTES} bytes"))
                .received(&format!("{size} bytes")));
        }
        let mut answer = length.to_vec();
        answer.resize(size + 4, 0);
        if let Some(body) = answer.get_mut(4..) {
            stream.read_exact(body).map_err(failed)?;
        }
        Ok(answer)
    }
}
