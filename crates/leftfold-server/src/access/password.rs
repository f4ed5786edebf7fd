//! Passwords: hashing, verifying, making.
//!
//! **Owns:** argon2id and its parameters. **Does not know:** whose password it is; threads.
//! **Invariants:** a password is kept as a hash only; verifying takes the same time whether there is a hash or not.

use argon2::{
    Algorithm, Argon2, Params, PasswordHash, PasswordHasher, PasswordVerifier, Version,
    password_hash::SaltString,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::rand::{SecureRandom, SystemRandom};

use super::registry::AccessError;

/// Memory of a hash in KiB, its passes and lanes: the first choice of RFC 9106 scaled down as OWASP advises for servers.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Bytes of a password, at least and at most.
const BYTES_MIN: usize = 8;
const BYTES_MAX: usize = 256;
/// A hash of no password that can be sent: verifying it takes as long as any other.
const NO_USER: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn hasher() -> Result<Argon2<'static>, AccessError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None);
    let params = params.map_err(|error| AccessError::Hashing(error.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// Hashes a password, as a PHC string. Takes tens of milliseconds and 19 MiB.
pub(super) fn hash(password: &str) -> Result<String, AccessError> {
    if !(BYTES_MIN..=BYTES_MAX).contains(&password.len()) {
        return Err(AccessError::PasswordLength {
            bytes: password.len(),
            min: BYTES_MIN,
            max: BYTES_MAX,
        });
    }
    let failed = |error: argon2::password_hash::Error| AccessError::Hashing(error.to_string());
    let salt = SaltString::encode_b64(&random_bytes::<16>()?).map_err(failed)?;
    let hash = hasher()?
        .hash_password(password.as_bytes(), &salt)
        .map_err(failed)?;
    Ok(hash.to_string())
}

/// Whether a password has this hash; without a hash it has not, after the same time.
pub(super) fn verify(password: &str, hash: Option<&str>) -> bool {
    let parsed = PasswordHash::new(hash.unwrap_or(NO_USER));
    let verified = parsed.is_ok_and(|parsed| {
        let password = password
            .as_bytes()
            .get(..BYTES_MAX)
            .unwrap_or(password.as_bytes());
        hasher().is_ok_and(|hasher| hasher.verify_password(password, &parsed).is_ok())
    });
    verified && hash.is_some() && password.len() <= BYTES_MAX
}

/// A password of 128 random bits.
pub(super) fn random() -> Result<String, AccessError> {
    Ok(URL_SAFE_NO_PAD.encode(random_bytes::<16>()?))
}

/// Bytes that cannot be guessed.
pub(super) fn random_bytes<const N: usize>() -> Result<[u8; N], AccessError> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| AccessError::Hashing("the system gives no random bytes".to_owned()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_verified_by_its_hash_and_by_no_other() {
        let kept = hash("correct horse").unwrap();
        assert!(
            kept.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{kept}"
        );
        assert!(verify("correct horse", Some(&kept)));
        assert!(!verify("correct house", Some(&kept)));
        assert!(!verify("", Some(&kept)));
        let longest = "x".repeat(BYTES_MAX);
        let kept_longest = hash(&longest).unwrap();
        assert!(verify(&longest, Some(&kept_longest)));
        assert!(!verify(&format!("{longest}x"), Some(&kept_longest)));
        assert!(!verify("correct horse", None));
        assert!(!verify("correct horse", Some("changeit")));
        assert_ne!(
            kept,
            hash("correct horse").unwrap(),
            "each has its own salt"
        );
    }

    #[test]
    fn the_hash_of_no_user_is_parsed_so_that_verifying_it_takes_its_time() {
        let parsed = PasswordHash::new(NO_USER).unwrap();
        assert_eq!(parsed.hash.unwrap().len(), 32);
        assert_eq!(Params::try_from(&parsed).unwrap().m_cost(), MEMORY_KIB);
    }

    #[test]
    fn passwords_that_are_too_short_or_too_long_are_refused() {
        for wrong in ["seven77".to_owned(), "x".repeat(257)] {
            let refused = hash(&wrong).unwrap_err().to_string();
            assert!(refused.contains(&wrong.len().to_string()), "{refused}");
            assert!(!refused.contains(&wrong), "{refused}");
        }
    }
}
