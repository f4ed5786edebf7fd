//! Lists in JSON with a maximum number of elements.
//!
//! **Owns:** [`Bounded`]. **Does not know:** what the elements are.
//! **Invariants:** elements over the maximum are counted and dropped, so that the error can name their number without holding
//! them.

use std::{fmt, marker::PhantomData};

use leftfold_model::ModelError;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};

/// A list, of which at most `MAX` elements are kept and the rest is only counted.
#[derive(Debug)]
pub(crate) struct Bounded<T, const MAX: usize> {
    kept: Vec<T>,
    count: usize,
}

impl<T, const MAX: usize> Default for Bounded<T, MAX> {
    fn default() -> Self {
        Self {
            kept: Vec::new(),
            count: 0,
        }
    }
}

impl<T, const MAX: usize> From<Vec<T>> for Bounded<T, MAX> {
    fn from(kept: Vec<T>) -> Self {
        Self {
            count: kept.len(),
            kept,
        }
    }
}

impl<T, const MAX: usize> Bounded<T, MAX> {
    /// Returns the elements, or an error if there are more than `MAX`. `thing` has them, `unit` names them, `limit` names `MAX`.
    pub(crate) fn all(
        self,
        thing: &str,
        unit: &'static str,
        limit: &'static str,
    ) -> Result<Vec<T>, ModelError> {
        if self.count > MAX {
            return Err(ModelError::OutOfRange {
                thing: thing.to_owned(),
                unit,
                got: self.count,
                min: 0,
                max: MAX,
                limit,
            });
        }
        Ok(self.kept)
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Bounded<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(BoundedVisitor(PhantomData))
    }
}

struct BoundedVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for BoundedVisitor<T, MAX> {
    type Value = Bounded<T, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut kept = Vec::new();
        while kept.len() < MAX {
            match list.next_element()? {
                Some(element) => kept.push(element),
                None => return Ok(kept.into()),
            }
        }
        let mut count = MAX;
        while list.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(Bounded { kept, count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_kept_up_to_its_bound_and_counted_beyond() {
        let list = |json| serde_json::from_str::<Bounded<u8, 3>>(json).unwrap();
        assert!(list("[]").all("x", "y", "Z").unwrap().is_empty());
        assert_eq!(list("[1,2,3]").all("x", "y", "Z").unwrap(), [1, 2, 3]);
        // What is beyond the bound need not even be of the right kind.
        let long = list(r#"[1,2,3,"four",5]"#);
        assert_eq!(long.kept, [1, 2, 3]);
        let message = long.all("x", "y", "Z").unwrap_err().to_string();
        assert_eq!(message, "x has 5 y; allowed are 0 to 3 (Z)");
        assert!(serde_json::from_str::<Bounded<u8, 3>>("{}").is_err());
    }
}
