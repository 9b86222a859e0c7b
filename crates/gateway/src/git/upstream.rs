//! Where a repository's truth lives, and how we may speak to it.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use portcullis_model::Refusal;

use crate::http::Credential;

/// The repository that a mirror follows and that landing writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// None: the mirror itself is the repository.
    Embedded,
    /// A repository on this machine, bare or with a work tree.
    Path(PathBuf),
    /// `https://`, `http://`, `ssh://` or `user@host:path`.
    Url(String),
}

/// How we show who we are to an upstream. Only the server holds it.
#[derive(Clone, Debug, Default)]
pub enum Access {
    /// Nothing; for SSH, the keys of the server's own user.
    #[default]
    None,
    /// A name and a password or token, over HTTPS.
    Password {
        /// The name; forges take any or `x-access-token` with a token.
        username: String,
        /// The password or token.
        password: Credential,
    },
    /// An SSH key in a file, and the host keys that count.
    SshKey {
        /// The private key's file.
        key_file: PathBuf,
        /// A `known_hosts` file; any other host key is refused.
        known_hosts: PathBuf,
    },
}

impl Upstream {
    /// What git is told; the mirror's own directory for [`Upstream::Embedded`].
    pub(crate) fn argument(&self, mirror: &Path) -> String {
        match self {
            Self::Embedded => mirror.display().to_string(),
            Self::Path(path) => path.display().to_string(),
            Self::Url(url) => url.clone(),
        }
    }

    /// The protocols that git may speak to it.
    pub(crate) fn protocols(&self) -> &'static str {
        match self {
            Self::Embedded | Self::Path(_) => "file",
            Self::Url(url) if url.starts_with("https://") => "https",
            Self::Url(url) if url.starts_with("http://") => "http",
            Self::Url(_) => "ssh",
        }
    }

    /// Whether it is a directory here.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Embedded | Self::Path(_) => true,
            Self::Url(_) => false,
        }
    }

    /// # Errors
    /// `credential-in-the-clear`: a password over plain HTTP to another machine.
    pub(crate) fn check(&self, access: &Access) -> Result<(), Refusal> {
        let clear = match (self, access) {
            (Self::Url(url), Access::Password { .. }) => url
                .strip_prefix("http://")
                .is_some_and(|rest| !is_loopback(rest)),
            _ => false,
        };
        if clear {
            return Err(Refusal::denied(
                "credential-in-the-clear",
                "a password must not travel over plain HTTP",
            )
            .expected("an https:// URL")
            .next("change the repository's upstream to https"));
        }
        Ok(())
    }
}

fn is_loopback(rest: &str) -> bool {
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    matches!(host, "127.0.0.1" | "localhost" | "[::1]")
}

impl FromStr for Upstream {
    type Err = Refusal;

    /// Reads a path or URL; the empty text is [`Upstream::Embedded`].
    fn from_str(text: &str) -> Result<Self, Refusal> {
        let malformed = || {
            Refusal::malformed("upstream")
                .expected("an absolute path, or a file, https, http or ssh URL without a password")
                .received(text)
        };
        if text.chars().any(char::is_control) || text.starts_with('-') {
            return Err(malformed());
        }
        if text.is_empty() {
            return Ok(Self::Embedded);
        }
        if let Some(path) = text.strip_prefix("file://") {
            return path_of(path).ok_or_else(malformed);
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            let authority = rest.split('/').next().unwrap_or_default();
            let (user, host) = authority
                .rsplit_once('@')
                .map_or(("", authority), |(user, host)| (user, host));
            let known = match scheme {
                "https" | "http" => user.is_empty(),
                "ssh" => !user.contains(':'),
                _ => false,
            };
            return if known && !host.is_empty() && !host.starts_with('-') {
                Ok(Self::Url(text.to_owned()))
            } else {
                Err(malformed())
            };
        }
        if text.starts_with('/') {
            return path_of(text).ok_or_else(malformed);
        }
        // scp's form; anything else with a colon (`ext::…`) is no transport of ours.
        match text.split_once(':') {
            Some((host, path))
                if host.contains('@') && !path.starts_with(':') && !host.contains('/') =>
            {
                let host = host.rsplit('@').next().unwrap_or_default();
                if host.is_empty() || host.starts_with('-') || path.starts_with('-') {
                    return Err(malformed());
                }
                Ok(Self::Url(text.to_owned()))
            }
            _ => Err(malformed()),
        }
    }
}

fn path_of(text: &str) -> Option<Upstream> {
    text.starts_with('/').then(|| Upstream::Path(text.into()))
}

impl Access {
    pub(crate) fn ssh_command(&self) -> String {
        match self {
            Self::None | Self::Password { .. } => {
                "ssh -o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=15".to_owned()
            }
            Self::SshKey {
                key_file,
                known_hosts,
            } => format!(
                "ssh -F /dev/null -o BatchMode=yes -o IdentitiesOnly=yes \
                 -o ConnectTimeout=20 -o ServerAliveInterval=15 \
                 -o StrictHostKeyChecking=yes -o UserKnownHostsFile={} -i {}",
                quoted(known_hosts),
                quoted(key_file)
            ),
        }
    }
}

/// A path as one word of a POSIX shell.
pub(crate) fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_transports_that_we_know_are_read() {
        assert_eq!("".parse::<Upstream>().unwrap(), Upstream::Embedded);
        assert_eq!(
            "file:///srv/a.git".parse::<Upstream>().unwrap(),
            Upstream::Path("/srv/a.git".into())
        );
        for url in [
            "https://forge.example/a/b.git",
            "ssh://git@forge.example/a",
            "git@forge.example:a/b.git",
        ] {
            assert_eq!(
                url.parse::<Upstream>().unwrap(),
                Upstream::Url(url.to_owned())
            );
        }
        for text in [
            "ext::sh -c true",
            "relative/path",
            "-x",
            "--upload-pack=x",
            "git://host/a",
            "https://user:secret@host/a",
            "https://",
            "ssh://-oProxyCommand=x/a",
            "git@-oProxyCommand=x:a",
            "fd::17",
            "http://h\nx",
            "file://host/a",
        ] {
            assert!(text.parse::<Upstream>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_password_never_travels_in_the_clear() {
        let access = Access::Password {
            username: "x".into(),
            password: Credential::new("secret".into()),
        };
        let far: Upstream = "http://forge.example/a".parse().unwrap();
        assert_eq!(
            far.check(&access).unwrap_err().code,
            "credential-in-the-clear"
        );
        for near in ["http://127.0.0.1:80/a", "https://forge.example/a"] {
            near.parse::<Upstream>().unwrap().check(&access).unwrap();
        }
        assert!(!format!("{access:?}").contains("secret"));
    }
}
