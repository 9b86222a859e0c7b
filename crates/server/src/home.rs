//! The server's directory: where what stands, and who may read it.

use std::path::{Path, PathBuf};

use portcullis_model::Refusal;

/// Paths below the directory that `init` made.
#[derive(Clone, Debug)]
pub struct Home(PathBuf);

impl Home {
    /// The directory `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.0
    }

    /// `portcullis.toml`.
    pub fn config(&self) -> PathBuf {
        self.0.join("portcullis.toml")
    }

    /// Entry 0, byte for byte. Verification pins it.
    pub fn genesis(&self) -> PathBuf {
        self.0.join("genesis.json")
    }

    /// Key files, mode 0600 each.
    pub fn key(&self, name: &str) -> PathBuf {
        self.0.join("keys").join(format!("{name}.key"))
    }

    /// The trust domain's certificate.
    pub fn authority(&self) -> PathBuf {
        self.0.join("keys").join("authority.pem")
    }

    /// Organisation policies.
    pub fn policy(&self) -> PathBuf {
        self.0.join("policy")
    }

    /// Secrets of model endpoints, one file each, mode 0600.
    pub fn secrets(&self) -> PathBuf {
        self.0.join("secrets")
    }

    /// The ledger and its blobs.
    pub fn ledger(&self) -> PathBuf {
        self.0.join("ledger")
    }

    /// Mirrors of repositories.
    pub fn repositories(&self) -> PathBuf {
        self.0.join("repositories")
    }

    /// What runs see of repositories; gone when they end.
    pub fn views(&self) -> PathBuf {
        self.0.join("views")
    }

    /// What the environments' supervisors and proxies keep.
    pub fn environments(&self) -> PathBuf {
        self.0.join("environments")
    }

    /// What the builder keeps.
    pub fn builder(&self) -> PathBuf {
        self.0.join("builder")
    }

    /// Reads a file of at most `max` bytes.
    ///
    /// # Errors
    /// It can't be read, or is larger.
    pub fn read(path: &Path, max: u64) -> Result<Vec<u8>, Refusal> {
        let unreadable = |error: &std::io::Error| {
            Refusal::unavailable(
                "file-unreadable",
                format!("{} can't be read", path.display()),
            )
            .received(&error.to_string())
            .next("make the directory with `portcullis init`, or name it with --home")
        };
        let size = std::fs::metadata(path)
            .map_err(|error| unreadable(&error))?
            .len();
        if size > max {
            return Err(Refusal::limit(
                "file-too-large",
                format!("{} is too large", path.display()),
            )
            .expected(&format!("at most {max} bytes"))
            .received(&format!("{size} bytes")));
        }
        std::fs::read(path).map_err(|error| unreadable(&error))
    }
}
