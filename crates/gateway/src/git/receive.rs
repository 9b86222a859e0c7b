//! Serving `git-receive-pack`: the advertisement, and the request up to its pack.

use std::time::Duration;

use portcullis_model::Refusal;
use tokio::io::{AsyncRead, BufReader};

use super::body::drain;
use super::fetch::ViewRef;
use super::pkt;
use super::push::{PushHeader, PushParser};
use super::tree::ObjectFormat;

/// Content type of the advertisement.
pub const ADVERTISEMENT_TYPE: &str = "application/x-git-receive-pack-advertisement";
/// Content type of a request.
pub const REQUEST_TYPE: &str = "application/x-git-receive-pack-request";
/// Content type of an answer.
pub const RESULT_TYPE: &str = "application/x-git-receive-pack-result";
/// Most bytes of a denied push that are read and dropped, so that its client reads why.
pub const DRAIN_MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Longest time for that.
pub const DRAIN_TIME: Duration = Duration::from_secs(30);
/// Longest time for the commands to arrive.
const HEADER_TIME: Duration = Duration::from_secs(60);

/// A push of which only the commands were read.
pub struct PushRequest<R> {
    /// What the client asks.
    pub header: PushHeader,
    /// The pack, not yet read.
    pub pack: BufReader<R>,
}

impl<R: AsyncRead + Unpin> PushRequest<R> {
    /// Reads the commands.
    ///
    /// # Errors
    /// `malformed-push`, `malformed-packet`, `connection-lost`, `push-too-large`, `push-timeout`.
    pub async fn read(format: ObjectFormat, body: R) -> Result<Self, Refusal> {
        let mut pack = BufReader::with_capacity(64 * 1024, body);
        let work = async {
            let mut parser = PushParser::new(format);
            let mut first = true;
            loop {
                match pkt::read(&mut pack).await? {
                    Some(packet) => {
                        if let Some(header) = parser.feed(&packet)? {
                            return Ok(header);
                        }
                    }
                    None if first => return Ok(PushHeader::default()),
                    None => {
                        return Err(
                            Refusal::malformed("push").expected("a flush after the commands")
                        );
                    }
                }
                first = false;
            }
        };
        let header = tokio::time::timeout(HEADER_TIME, work)
            .await
            .map_err(|_| Refusal::limit("push-timeout", "the push's commands did not arrive"))??;
        Ok(Self { header, pack })
    }

    /// Answers "no" without looking at the pack, which is read within bounds and dropped. Returns
    /// the body of the answer.
    pub async fn deny(mut self, refusal: &Refusal) -> Vec<u8> {
        self.answer(&super::report::Report::refused(&self.header, refusal))
            .await
    }

    /// Encodes an answer, after what is left of the request was read within bounds.
    pub async fn answer(&mut self, report: &super::report::Report) -> Vec<u8> {
        drain(&mut self.pack, DRAIN_MAX_BYTES, DRAIN_TIME).await;
        report.encode(&self.header.capabilities)
    }
}

/// The answer to `GET info/refs?service=git-receive-pack`, of type [`ADVERTISEMENT_TYPE`].
/// `nonce` offers signed pushes; give each at most once and accept it back for a short time.
pub fn advertise(format: ObjectFormat, refs: &[ViewRef], nonce: Option<&str>) -> Vec<u8> {
    let mut capabilities = format!(
        "report-status report-status-v2 delete-refs side-band-64k quiet atomic ofs-delta \
         push-options object-format={} agent=portcullis/{}",
        format.name(),
        env!("CARGO_PKG_VERSION"),
    );
    if let Some(nonce) = nonce.filter(|nonce| nonce.bytes().all(|b| b.is_ascii_graphic())) {
        capabilities.push_str(" push-cert=");
        capabilities.push_str(nonce);
    }
    let mut out = Vec::new();
    pkt::encode(b"# service=git-receive-pack\n", &mut out);
    pkt::flush(&mut out);
    let mut sorted: Vec<&ViewRef> = refs.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let mut capabilities = Some(capabilities);
    let mut line = |oid: &str, name: &str| {
        let text = match capabilities.take() {
            Some(capabilities) => format!("{oid} {name}\0{capabilities}\n"),
            None => format!("{oid} {name}\n"),
        };
        pkt::encode(text.as_bytes(), &mut out);
    };
    if sorted.is_empty() {
        line(&"0".repeat(format.id_bytes() * 2), "capabilities^{}");
    }
    for entry in sorted {
        line(entry.oid.as_str(), &entry.name);
    }
    pkt::flush(&mut out);
    out
}
