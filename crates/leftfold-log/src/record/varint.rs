//! Variable-length integers: seven bits a byte, lowest first (LEB128, as protocol buffers use it).
//!
//! **Owns:** [`put`] and [`take`]. **Does not know:** what the numbers mean.
//! **Invariants:** one number has one encoding, the shortest; a longer one is refused, so that bytes and values
//! are one to one.

use super::{Malformed, malformed};

/// Appends `value`, in 1 to 10 bytes.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

/// How many bytes [`put`] appends.
pub(crate) fn length(value: u64) -> usize {
    (70 - value.leading_zeros() as usize).max(7) / 7
}

/// Splits a number off the front of `bytes`.
#[inline]
pub(crate) fn take(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    match bytes.split_first() {
        Some((&byte, rest)) if byte < 0x80 => {
            *bytes = rest;
            Ok(u64::from(byte))
        }
        _ => take_long(bytes),
    }
}

fn take_long(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes
            .split_first()
            .ok_or(malformed("a number runs past the end"))?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(malformed("a number has more than 64 bits"));
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            let shortest = byte != 0 || shift == 0;
            return if shortest {
                Ok(value)
            } else {
                Err(malformed("a number is not in its shortest form"))
            };
        }
    }
    Err(malformed("a number has more than 64 bits"))
}

/// Splits a length off the front of `bytes` and checks that the rest can hold it.
#[inline]
pub(crate) fn take_length(bytes: &mut &[u8]) -> Result<usize, Malformed> {
    let length = usize::try_from(take(bytes)?).map_err(|_| malformed("a length is too big"))?;
    if length > bytes.len() {
        Err(malformed("a length runs past the end"))
    } else {
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_number_comes_back_as_it_went_in(value: u64, tail: Vec<u8>) {
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            bytes.extend_from_slice(&tail);
            let mut rest = bytes.as_slice();
            prop_assert_eq!(take(&mut rest), Ok(value));
            prop_assert_eq!(rest, tail.as_slice());
        }
    }

    #[test]
    fn a_longer_spelling_of_a_number_is_refused() {
        assert!(take(&mut [0x80, 0x00].as_slice()).is_err());
        assert!(take(&mut [0xff; 11].as_slice()).is_err());
        assert!(take(&mut [].as_slice()).is_err());
        assert_eq!(take(&mut [0].as_slice()), Ok(0));
    }
}
