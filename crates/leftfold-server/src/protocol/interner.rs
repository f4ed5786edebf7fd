//! Interning of the names in one request.
//!
//! **Owns:** [`NameInterner`].
//! **Does not know:** protocols. **Invariants:** an interned name equals its text.
//!
//! Most events of one append share their type and a tag. Cloning a reference-counted name costs less than validating and
//! allocating it again.

use leftfold_model::{EventType, ModelError, Tag};

/// The names that came last.
#[derive(Debug, Default)]
pub(crate) struct NameInterner {
    event_type: Option<EventType>,
    tag: Option<Tag>,
}

impl NameInterner {
    pub(crate) fn event_type(&mut self, text: &str) -> Result<EventType, ModelError> {
        match &self.event_type {
            Some(last) if last.as_str() == text => Ok(last.clone()),
            _ => Ok(self.event_type.insert(EventType::new(text)?).clone()),
        }
    }

    pub(crate) fn tag(&mut self, text: &str) -> Result<Tag, ModelError> {
        match &self.tag {
            Some(last) if last.as_str() == text => Ok(last.clone()),
            _ => Ok(self.tag.insert(Tag::new(text)?).clone()),
        }
    }

    pub(crate) fn tags(&mut self, texts: &[String]) -> Result<Vec<Tag>, ModelError> {
        texts.iter().map(|text| self.tag(text)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_its_text_whether_it_came_before_or_not() {
        let mut names = NameInterner::default();
        for text in ["a", "a", "b", "a"] {
            assert_eq!(names.event_type(text).unwrap().as_str(), text);
            assert_eq!(names.tag(text).unwrap().as_str(), text);
        }
        assert!(names.tag("").is_err());
        assert_eq!(names.tag("a").unwrap().as_str(), "a");
    }
}
