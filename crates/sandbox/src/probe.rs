//! What this machine offers, for `doctor`.

use std::path::Path;

use portcullis_model::Refusal;
use serde::{Deserialize, Serialize};

use crate::Protection;
use crate::launch::Helper;
use crate::plan::{Order, Probed};

/// One protection on this machine, for this user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeResult {
    /// Which.
    pub protection: Protection,
    /// Whether a run would have it.
    pub available: bool,
    /// By which means, or why not.
    pub why: String,
    /// What the administrator can do, where it isn't available.
    pub how_to_mend: Option<String>,
}

/// Tries every protection, through this program as the helper.
///
/// # Errors
/// `sandbox-helper` where the helper can't be started.
pub fn probe() -> Result<Vec<ProbeResult>, Refusal> {
    probe_with(None)
}

/// The same, through another program that calls [`helper_main`](crate::helper_main).
///
/// # Errors
/// As [`probe`].
pub fn probe_with(helper: Option<&Path>) -> Result<Vec<ProbeResult>, Refusal> {
    let (probed, _) = Helper::start(helper)?.ask::<Vec<Probed>>(&Order::Probe, &[])?;
    Ok(probed
        .into_iter()
        .map(|probed| ProbeResult {
            protection: probed.protection,
            available: probed.found.is_ok(),
            how_to_mend: probed
                .found
                .is_err()
                .then(|| probed.protection.how_to_mend().to_owned()),
            why: probed.found.unwrap_or_else(|why| why),
        })
        .collect())
}
