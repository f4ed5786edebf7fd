//! Encrypting values under the key of a subject.
//!
//! **Owns:** [`SubjectCipher`], and the forms of encrypted values. **Does not know:** where values stand.
//! **Invariants:** a nonce is random; what is bound to a value is authenticated with it; each form uses a key of its own; what a
//! cipher holds is wiped when it is dropped.

use aes_gcm::{
    Aes256Gcm,
    aead::{AeadInOut, inout::InOutBuf},
};
use chacha20poly1305::{
    Key, KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use leftfold_store::keys::{KeyError, KeyId, SubjectKey};
use zeroize::Zeroizing;

const ID_BYTES: usize = size_of::<KeyId>();
const XCHACHA_NONCE_BYTES: usize = 24;
const GCM_NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// What the key of the second form is derived with.
const GCM_KEY: [u8; 16] = *b"leftfold aes-gcm";

/// How values of an event are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// XChaCha20-Poly1305 with a nonce of 24 bytes. It is read, and no longer written.
    XChaCha20Poly1305,
    /// AES-256-GCM with a nonce of 12 bytes, under a key that HChaCha20 derives from that of the subject. Processors have
    /// instructions for it. Random nonces of 12 bytes are good for 2^32 values of one subject.
    Aes256Gcm,
}

impl Form {
    /// The form of new values.
    pub(super) const NEWEST: Self = Self::Aes256Gcm;

    /// Returns the name under which the form is stored.
    pub(super) fn version(self) -> &'static str {
        match self {
            Self::XChaCha20Poly1305 => "1",
            Self::Aes256Gcm => "2",
        }
    }

    /// Returns the form of this name.
    pub(super) fn of_version(version: &str) -> Option<Self> {
        let forms = [Self::XChaCha20Poly1305, Self::Aes256Gcm];
        forms.into_iter().find(|form| form.version() == version)
    }
}

/// Encrypts and decrypts under the key of one subject.
pub(super) struct SubjectCipher {
    key: SubjectKey,
    gcm: Aes256Gcm,
}

fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut nonce = [0; N];
    getrandom::fill(&mut nonce).map_err(|error| KeyError::Random {
        reason: error.to_string(),
    })?;
    Ok(nonce)
}

fn too_large() -> KeyError {
    KeyError::Unavailable {
        reason: "a value is too large to be sealed".to_owned(),
    }
}

impl SubjectCipher {
    pub(super) fn new(key: SubjectKey) -> Self {
        let derived = chacha20::hchacha::<chacha20::R20>(&key.secret.into(), &GCM_KEY.into());
        let derived: Zeroizing<[u8; 32]> = Zeroizing::new(derived.into());
        let gcm = Aes256Gcm::new((&*derived).into());
        Self { key, gcm }
    }

    /// Encrypts in the newest form: the name of the key, a nonce, and the value.
    pub(super) fn encrypt(&self, value: &[u8], bound: &[u8]) -> Result<Vec<u8>, KeyError> {
        let nonce = random::<GCM_NONCE_BYTES>()?;
        let begin = ID_BYTES + GCM_NONCE_BYTES;
        let mut bytes = Vec::with_capacity(begin + value.len() + TAG_BYTES);
        bytes.extend_from_slice(&self.key.id);
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(value);
        let encrypted = bytes.get_mut(begin..).unwrap_or_default();
        let tag = self
            .gcm
            .encrypt_inout_detached(&nonce.into(), bound, InOutBuf::from(encrypted));
        bytes.extend_from_slice(&tag.map_err(|_| too_large())?);
        Ok(bytes)
    }

    /// Decrypts what `bytes` hold, in place; `None` if the bytes or what is bound to them differ from what was encrypted.
    pub(super) fn decrypt<'b>(
        &self,
        form: Form,
        bytes: &'b mut Vec<u8>,
        bound: &[u8],
    ) -> Option<&'b [u8]> {
        match form {
            Form::XChaCha20Poly1305 => {
                *bytes = decrypt_state(&self.key, bytes, bound)?;
                Some(bytes)
            }
            Form::Aes256Gcm => {
                let (id, rest) = bytes.split_first_chunk_mut::<ID_BYTES>()?;
                let (nonce, rest) = rest.split_first_chunk_mut::<GCM_NONCE_BYTES>()?;
                let (value, tag) = rest.split_last_chunk_mut::<TAG_BYTES>()?;
                let (nonce, tag) = ((*nonce).into(), (*tag).into());
                let decrypted = self.gcm.decrypt_inout_detached(
                    &nonce,
                    bound,
                    InOutBuf::from(&mut *value),
                    &tag,
                );
                decrypted.ok()?;
                (*id == self.key.id).then_some(value)
            }
        }
    }
}

/// Encrypts the state of a snapshot: the name of the key, a nonce, and the state.
pub(super) fn encrypt_state(
    key: &SubjectKey,
    state: &[u8],
    bound: &[u8],
) -> Result<Vec<u8>, KeyError> {
    let nonce = random::<XCHACHA_NONCE_BYTES>()?;
    let cipher = XChaCha20Poly1305::new(&Key::from(key.secret));
    let payload = Payload {
        msg: state,
        aad: bound,
    };
    let encrypted = cipher.encrypt(&XNonce::from(nonce), payload);
    let encrypted = encrypted.map_err(|_| too_large())?;
    Ok([&key.id[..], &nonce, &encrypted].concat())
}

/// Decrypts the state of a snapshot; `None` if the bytes or what is bound to them differ from what was encrypted.
pub(super) fn decrypt_state(key: &SubjectKey, bytes: &[u8], bound: &[u8]) -> Option<Vec<u8>> {
    let (id, rest) = bytes.split_first_chunk::<ID_BYTES>()?;
    let (nonce, encrypted) = rest.split_first_chunk::<XCHACHA_NONCE_BYTES>()?;
    let cipher = XChaCha20Poly1305::new(&Key::from(key.secret));
    let payload = Payload {
        msg: encrypted,
        aad: bound,
    };
    let opened = cipher.decrypt(&XNonce::from(*nonce), payload).ok()?;
    (*id == key.id).then_some(opened)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_or_is_bound_to_another_place_does_not_open() {
        let key = SubjectKey::random().unwrap();
        let cipher = SubjectCipher::new(key.clone());
        let other = SubjectCipher::new(SubjectKey::random().unwrap());
        let of_newest = cipher.encrypt(b"Ann", b"here").unwrap();
        let of_oldest = encrypt_state(&key, b"Ann", b"here").unwrap();
        for (form, bytes) in [
            (Form::Aes256Gcm, of_newest),
            (Form::XChaCha20Poly1305, of_oldest),
        ] {
            let open = |cipher: &SubjectCipher, mut bytes: Vec<u8>, bound: &[u8]| {
                let opened = cipher.decrypt(form, &mut bytes, bound);
                opened.map(<[u8]>::to_vec)
            };
            assert_eq!(open(&cipher, bytes.clone(), b"here"), Some(b"Ann".to_vec()));
            assert_eq!(open(&cipher, bytes.clone(), b"there"), None);
            assert_eq!(open(&other, bytes.clone(), b"here"), None);
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                assert_eq!(open(&cipher, changed, b"here"), None, "{form:?}, byte {at}");
                assert_eq!(open(&cipher, bytes[..at].to_vec(), b"here"), None);
            }
        }
    }

    #[test]
    fn each_encryption_has_a_nonce_of_its_own() {
        let cipher = SubjectCipher::new(SubjectKey::random().unwrap());
        let one = cipher.encrypt(b"Ann", b"").unwrap();
        let two = cipher.encrypt(b"Ann", b"").unwrap();
        assert_ne!(
            one[ID_BYTES..][..GCM_NONCE_BYTES],
            two[ID_BYTES..][..GCM_NONCE_BYTES]
        );
    }
}
