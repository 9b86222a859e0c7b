//! JWS in compact form (RFC 7515 §7.1) with one algorithm, ES256, and nothing optional.
//!
//! Our own because no library we found lets the caller hand in the time, keeps a parsed key
//! between calls, and refuses unknown and repeated members; `docs/decisions` has the comparison.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis_model::Refusal;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::key::{P256Key, P256PublicKey};

/// The only algorithm. A header that says anything else is refused before a key is looked at.
pub(crate) const ALGORITHM: &str = "ES256";
/// Length of an ES256 signature in bytes: r and s.
const SIGNATURE_BYTES: usize = 64;

/// Signs `claims` under `header`.
pub(crate) fn sign<H: Serialize, C: Serialize>(
    key: &P256Key,
    header: &H,
    claims: &C,
) -> Result<String, Refusal> {
    let mut text = encode(header)?;
    text.push('.');
    text.push_str(&encode(claims)?);
    let signature = key.sign(text.as_bytes())?;
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut text);
    Ok(text)
}

fn encode<T: Serialize>(value: &T) -> Result<String, Refusal> {
    serde_json::to_vec(value)
        .map(|bytes| URL_SAFE_NO_PAD.encode(bytes))
        .map_err(|error| Refusal::internal(format!("a claim does not serialise: {error}")))
}

/// A token taken apart and read, its signature not yet looked at.
pub(crate) struct UnverifiedJws<'a, H, C> {
    pub(crate) header: H,
    pub(crate) claims: C,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a, H: DeserializeOwned, C: DeserializeOwned> UnverifiedJws<'a, H, C> {
    /// Reads `text` of at most `max_bytes`; `what` names it in refusals, which repeat nothing of
    /// it but the parser's remark.
    pub(crate) fn read(what: &str, text: &'a str, max_bytes: usize) -> Result<Self, Refusal> {
        if text.len() > max_bytes {
            return Err(Refusal::malformed(what).expected(&format!("at most {max_bytes} bytes")));
        }
        let malformed = || {
            Refusal::malformed(what)
                .expected("three parts of base64url without padding, separated by dots")
        };
        let (signed, signature) = text.rsplit_once('.').ok_or_else(malformed)?;
        let (header, claims) = signed.split_once('.').ok_or_else(malformed)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed());
        let signature = decode(signature)?;
        if signature.len() != SIGNATURE_BYTES {
            return Err(malformed());
        }
        Ok(Self {
            header: parse(what, &decode(header)?)?,
            claims: parse(what, &decode(claims)?)?,
            signed,
            signature,
        })
    }

    /// The header and claims, now that `key` is known to have signed them.
    pub(crate) fn verify(self, what: &str, key: &P256PublicKey) -> Result<(H, C), Refusal> {
        if key.verifies(self.signed.as_bytes(), &self.signature) {
            Ok((self.header, self.claims))
        } else {
            Err(Refusal::denied(
                &format!("{}-signature", what.replace(' ', "-")),
                format!("the signature of this {what} does not hold"),
            ))
        }
    }
}

fn parse<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes)
        .map_err(|error| Refusal::malformed(what).received(&error.to_string()))
}

/// Refuses any algorithm but ours, `none` and `HS256` over the public key among them.
pub(crate) fn check_algorithm(what: &str, algorithm: &str) -> Result<(), Refusal> {
    if algorithm == ALGORITHM {
        Ok(())
    } else {
        Err(Refusal::denied(
            &format!("{}-algorithm", what.replace(' ', "-")),
            format!("this {what} is signed in a way that is not accepted"),
        )
        .expected(ALGORITHM)
        .received(algorithm))
    }
}
