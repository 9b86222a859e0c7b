//! Which arm a request goes to: a function of the seed, the key and the weight alone.

use portcullis_model::Digest;

/// Separates this use of SHA-256 from any other.
const DOMAIN: &[u8] = b"portcullis-assign-v1\0";

/// Where `key` falls, 0 to 999: the first 8 bytes of SHA-256(domain, seed, key), big-endian,
/// modulo 1000. Anyone can recompute it from the recorded seed.
pub fn bucket(seed: u64, key: &[u8]) -> u16 {
    let digest = Digest::of_parts(&[DOMAIN, &seed.to_be_bytes(), key]);
    let number = digest
        .as_bytes()
        .iter()
        .take(8)
        .fold(0u64, |number, &byte| (number << 8) | u64::from(byte));
    u16::try_from(number % 1000).unwrap_or(0)
}

/// Whether `key` belongs to the canary at this weight. Monotone: a key in the canary at 10 is in
/// it at 50 too.
pub fn assigned_to_canary(seed: u64, key: &[u8], weight_per_mille: u16) -> bool {
    bucket(seed, key) < weight_per_mille
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignment_never_changes() {
        // Recorded once; `printf 'portcullis-assign-v1\0\0\0\0\0\0\0\0\7alice' | sha256sum`.
        assert_eq!(bucket(7, b"alice"), 269);
        assert_ne!(bucket(7, b"alice"), bucket(8, b"alice"));
    }

    #[test]
    fn shares_follow_the_weight_and_grow_monotonely() {
        for weight in [0, 10, 100, 500, 1000] {
            let canary = (0..10_000u64)
                .filter(|key| assigned_to_canary(42, &key.to_be_bytes(), weight))
                .count();
            let expected = usize::from(weight) * 10;
            assert!(canary.abs_diff(expected) <= 200, "{weight}: {canary}");
        }
        for key in 0..1_000u64 {
            let key = key.to_be_bytes();
            assert!(!assigned_to_canary(1, &key, 10) || assigned_to_canary(1, &key, 50));
        }
    }
}
