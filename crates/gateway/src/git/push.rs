//! What a client asks of `git-receive-pack`, parsed before anything of it is believed.
//!
//! The shape is that of gitprotocol-pack(5), "Reference Update Request": shallow lines, commands
//! or a push certificate, a flush; push options and a flush; then the pack.

use portcullis_model::{GitOid, Refusal};

use super::pkt::Packet;
use super::tree::ObjectFormat;

#[cfg(test)]
mod tests;

/// Most ref commands of one push: a mirror of a big repository is no work of an agent.
pub const COMMANDS_MAX: usize = 4_096;
/// Most push options, and the longest in bytes: words for us, not a payload.
pub const OPTIONS_MAX: usize = 64;
/// Longest push option in bytes.
pub const OPTION_MAX_BYTES: usize = 1_024;
/// Most shallow commits that a client may mention.
pub const SHALLOW_MAX: usize = 4_096;
/// Largest push certificate in bytes.
pub const CERTIFICATE_MAX_BYTES: usize = 1024 * 1024;
/// Longest ref name in bytes that is read at all.
const NAME_MAX_BYTES: usize = 1_024;

/// One ref that shall move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefCommand {
    /// Where the client believes it to be; zero to create it.
    pub old: GitOid,
    /// Where it shall be; zero to delete it.
    pub new: GitOid,
    /// Full name as the client wrote it; printable, not yet checked otherwise.
    pub name: String,
}

/// How the client wants to be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReportFormat {
    /// Not at all.
    #[default]
    None,
    /// `report-status`.
    V1,
    /// `report-status-v2`.
    V2,
}

/// What the client can and wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// How results are reported.
    pub report: ReportFormat,
    /// Whether it reads a side band, where words for people go.
    pub side_band: bool,
    /// All commands or none.
    pub atomic: bool,
    /// Whether push options follow.
    pub push_options: bool,
    /// Whether it wants no progress.
    pub quiet: bool,
    /// What it says it is, such as `git/2.47.3`.
    pub agent: Option<String>,
}

/// A signed push. Nobody verified it: check `signature` (SSHSIG, namespace `git`) over `payload`,
/// the nonce against the one advertised, and that its commands are those of the push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushCertificate {
    /// The bytes that are signed.
    pub payload: Vec<u8>,
    /// The signature, armored, or something else that claims to be one.
    pub signature: String,
    /// Who says to push: key or name, mail address, time.
    pub pusher: String,
    /// Where to, as the client wrote it.
    pub pushee: Option<String>,
    /// The nonce that it answers.
    pub nonce: Option<String>,
    /// Push options that it covers.
    pub options: Vec<String>,
    /// The commands that it covers; these are the push's commands.
    pub commands: Vec<RefCommand>,
}

/// Everything that comes before the pack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushHeader {
    /// What shall move; empty for the probe that git sends before a big push.
    pub commands: Vec<RefCommand>,
    /// What the client can and wants.
    pub capabilities: Capabilities,
    /// Push options.
    pub options: Vec<String>,
    /// The certificate of a signed push.
    pub certificate: Option<PushCertificate>,
    /// Commits whose parents the client does not have.
    pub shallow: Vec<GitOid>,
}

impl PushHeader {
    /// Whether this asks nothing: answer 200 with an empty body.
    pub fn is_probe(&self) -> bool {
        self.commands.is_empty()
    }

    /// Whether a pack follows: any command but a deletion needs one.
    pub fn has_pack(&self) -> bool {
        self.commands.iter().any(|command| !command.new.is_zero())
    }

    /// Whether the client only wants to know what would be said (`git push -o dry-run`).
    pub fn is_question(&self) -> bool {
        self.options.iter().any(|option| option == "dry-run")
    }

    /// The value of a push option `key=value`.
    pub fn option(&self, key: &str) -> Option<&str> {
        self.options
            .iter()
            .find_map(|option| option.strip_prefix(key)?.strip_prefix('='))
    }
}

/// Takes packets one by one until the header is whole.
#[derive(Debug)]
pub struct PushParser {
    format: ObjectFormat,
    header: PushHeader,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Commands,
    Certificate(Vec<u8>),
    Options,
    Done,
}

impl PushParser {
    /// A parser for a repository that names objects so.
    pub fn new(format: ObjectFormat) -> Self {
        Self {
            format,
            header: PushHeader::default(),
            step: Step::Commands,
        }
    }

    /// Takes the next packet, and gives the header once it is whole. A client may close the
    /// stream at the beginning instead: then there is nothing to do.
    ///
    /// # Errors
    /// `malformed-push`, with what was expected; or a bound is passed (`push-too-large`).
    pub fn feed(&mut self, packet: &Packet) -> Result<Option<PushHeader>, Refusal> {
        match std::mem::replace(&mut self.step, Step::Done) {
            Step::Commands => self.command_packet(packet)?,
            Step::Certificate(lines) => self.certificate_packet(lines, packet)?,
            Step::Options => self.option_packet(packet)?,
            Step::Done => return Err(malformed("the pack after the last flush")),
        }
        Ok(match self.step {
            Step::Done => Some(std::mem::take(&mut self.header)),
            Step::Commands | Step::Certificate(_) | Step::Options => None,
        })
    }

    fn command_packet(&mut self, packet: &Packet) -> Result<(), Refusal> {
        let line = match packet {
            Packet::Flush => {
                self.after_commands();
                return Ok(());
            }
            Packet::Data(data) => data.as_slice(),
            Packet::Delimiter | Packet::ResponseEnd => {
                return Err(malformed("commands and a flush"));
            }
        };
        self.step = Step::Commands;
        if self.header.certificate.is_some() {
            return Err(malformed("nothing but a flush after a push certificate"));
        }
        if let Some(oid) = line.strip_prefix(b"shallow ") {
            let oid = text(oid.strip_suffix(b"\n").unwrap_or(oid))?;
            bound(self.header.shallow.len(), SHALLOW_MAX, "shallow commits")?;
            self.header.shallow.push(self.oid(oid)?);
            return Ok(());
        }
        let (command, capabilities) = match line.iter().position(|byte| *byte == 0) {
            Some(at) => {
                let (command, rest) = line.split_at(at);
                (command, rest.get(1..))
            }
            None => (line, None),
        };
        if let Some(capabilities) = capabilities.filter(|_| self.header.commands.is_empty()) {
            self.capabilities(text(capabilities)?.trim_end_matches('\n'))?;
        }
        let command = command.strip_suffix(b"\n").unwrap_or(command);
        if command == b"push-cert" && self.header.commands.is_empty() {
            self.step = Step::Certificate(Vec::new());
            return Ok(());
        }
        bound(self.header.commands.len(), COMMANDS_MAX, "commands")?;
        let command = parse_command(self.format, command)?;
        if self.header.commands.iter().any(|c| c.name == command.name) {
            return Err(malformed("each ref once").received(&command.name));
        }
        self.header.commands.push(command);
        Ok(())
    }

    fn certificate_packet(&mut self, mut lines: Vec<u8>, packet: &Packet) -> Result<(), Refusal> {
        let Packet::Data(data) = packet else {
            return Err(malformed("push-cert-end"));
        };
        if data.strip_suffix(b"\n").unwrap_or(data) == b"push-cert-end" {
            let certificate = parse_certificate(self.format, &lines)?;
            self.header.commands.clone_from(&certificate.commands);
            self.header.certificate = Some(certificate);
            self.step = Step::Commands;
            return Ok(());
        }
        bound(lines.len(), CERTIFICATE_MAX_BYTES, "bytes of certificate")?;
        lines.extend_from_slice(data);
        self.step = Step::Certificate(lines);
        Ok(())
    }

    fn option_packet(&mut self, packet: &Packet) -> Result<(), Refusal> {
        match packet {
            Packet::Flush => self.end(),
            Packet::Data(data) => {
                bound(self.header.options.len(), OPTIONS_MAX, "push options")?;
                bound(data.len(), OPTION_MAX_BYTES, "bytes in a push option")?;
                let option = text(data.strip_suffix(b"\n").unwrap_or(data))?;
                self.header.options.push(option.to_owned());
                self.step = Step::Options;
                Ok(())
            }
            Packet::Delimiter | Packet::ResponseEnd => Err(malformed("push options and a flush")),
        }
    }

    fn after_commands(&mut self) {
        self.step = if self.header.capabilities.push_options && !self.header.is_probe() {
            Step::Options
        } else {
            Step::Done
        };
    }

    /// The options that a certificate covers must be those that were sent.
    fn end(&mut self) -> Result<(), Refusal> {
        self.step = Step::Done;
        match &self.header.certificate {
            Some(certificate) if certificate.options != self.header.options => {
                Err(malformed("the push options that the certificate covers"))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn capabilities(&mut self, words: &str) -> Result<(), Refusal> {
        for word in words.split(' ').filter(|word| !word.is_empty()) {
            let capabilities = &mut self.header.capabilities;
            match word.split_once('=').map_or((word, ""), |pair| pair) {
                ("report-status", _) if capabilities.report == ReportFormat::None => {
                    capabilities.report = ReportFormat::V1;
                }
                ("report-status-v2", _) => capabilities.report = ReportFormat::V2,
                ("side-band-64k", _) => capabilities.side_band = true,
                ("atomic", _) => capabilities.atomic = true,
                ("push-options", _) => capabilities.push_options = true,
                ("quiet", _) => capabilities.quiet = true,
                ("agent", agent) => {
                    capabilities.agent = Some(agent.chars().take(128).collect());
                }
                ("object-format", format) if format != self.format.name() => {
                    return Err(
                        malformed(&format!("object-format={}", self.format.name())).received(word)
                    );
                }
                // What we did not offer means nothing: delete-refs, ofs-delta and session-id ask
                // nothing of us, and unknown ones are the client's own business.
                _ => {}
            }
        }
        Ok(())
    }

    fn oid(&self, text: &str) -> Result<GitOid, Refusal> {
        parse_oid(self.format, text)
    }
}

fn parse_command(format: ObjectFormat, line: &[u8]) -> Result<RefCommand, Refusal> {
    let line = text(line)?;
    let mut words = line.splitn(3, ' ');
    let (Some(old), Some(new), Some(name)) = (words.next(), words.next(), words.next()) else {
        return Err(malformed("old id, new id and ref name").received(line));
    };
    if name.is_empty() || name.len() > NAME_MAX_BYTES || name.chars().any(char::is_control) {
        return Err(malformed("a printable ref name of at most 1024 bytes").received(name));
    }
    let command = RefCommand {
        old: parse_oid(format, old)?,
        new: parse_oid(format, new)?,
        name: name.to_owned(),
    };
    if command.old.is_zero() && command.new.is_zero() {
        return Err(malformed("an id to go from or to").received(line));
    }
    Ok(command)
}

fn parse_oid(format: ObjectFormat, text: &str) -> Result<GitOid, Refusal> {
    let oid: GitOid = text
        .parse()
        .map_err(|_| malformed("object ids in lowercase hex").received(text))?;
    if ObjectFormat::of(&oid) == format {
        Ok(oid)
    } else {
        Err(malformed(&format!("ids of {}", format.name())).received(text))
    }
}

/// `certificate version 0.1`, headers, an empty line, commands, then the signature.
fn parse_certificate(format: ObjectFormat, bytes: &[u8]) -> Result<PushCertificate, Refusal> {
    const BEGIN: &[u8] = b"-----BEGIN ";
    let wrong = || malformed("a push certificate of version 0.1");
    let at = bytes
        .windows(BEGIN.len())
        .enumerate()
        .find(|(at, window)| *window == BEGIN && (*at == 0 || bytes.get(at - 1) == Some(&b'\n')))
        .map(|(at, _)| at)
        .ok_or_else(wrong)?;
    let (payload, signature) = bytes.split_at(at);
    let mut lines = text(payload)?.lines();
    if lines.next() != Some("certificate version 0.1") {
        return Err(wrong());
    }
    let mut certificate = PushCertificate {
        payload: payload.to_vec(),
        signature: text(signature)?.to_owned(),
        pusher: String::new(),
        pushee: None,
        nonce: None,
        options: Vec::new(),
        commands: Vec::new(),
    };
    for line in lines.by_ref() {
        if line.is_empty() {
            break;
        }
        let (key, value) = line.split_once(' ').ok_or_else(wrong)?;
        match key {
            "pusher" if certificate.pusher.is_empty() => value.clone_into(&mut certificate.pusher),
            "pushee" if certificate.pushee.is_none() => certificate.pushee = Some(value.to_owned()),
            "nonce" if certificate.nonce.is_none() => certificate.nonce = Some(value.to_owned()),
            "push-option" => {
                bound(certificate.options.len(), OPTIONS_MAX, "push options")?;
                certificate.options.push(value.to_owned());
            }
            _ => return Err(wrong().received(line)),
        }
    }
    for line in lines {
        bound(certificate.commands.len(), COMMANDS_MAX, "commands")?;
        let command = parse_command(format, line.as_bytes())?;
        if certificate.commands.iter().any(|c| c.name == command.name) {
            return Err(malformed("each ref once").received(&command.name));
        }
        certificate.commands.push(command);
    }
    if certificate.pusher.is_empty() || certificate.commands.is_empty() {
        return Err(wrong());
    }
    Ok(certificate)
}

fn text(bytes: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(bytes)
        .map_err(|_| malformed("UTF-8").received(&String::from_utf8_lossy(bytes)))
}

fn malformed(expected: &str) -> Refusal {
    Refusal::malformed("push").expected(expected)
}

fn bound(count: usize, max: usize, what: &str) -> Result<(), Refusal> {
    if count < max {
        return Ok(());
    }
    Err(
        Refusal::limit("push-too-large", format!("the push has too many {what}"))
            .expected(&format!("at most {max}"))
            .next("push less at once"),
    )
}
