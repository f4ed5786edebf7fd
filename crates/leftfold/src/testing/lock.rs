//! The lock file of events: the shapes of stored events must not change.
//!
//! **Owns:** [`EventsLock`] and its text. **Does not know:** any store.
//! **Invariants:** the recorded shape of a (name, version) stays; a new shape needs a new version; the file changes only on
//! explicit request.

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use super::decision_result::fail;
use crate::Event;

/// When this is set to `update`, new shapes are written down.
const ASK: &str = "LEFTFOLD_EVENTS_LOCK";

/// A test that fails when the shape of a stored event changes without a new version.
///
/// The file belongs under version control. A line is a type, a version and a shape; lines are added by running the test with
/// `LEFTFOLD_EVENTS_LOCK=update`. A type of a field is followed into its fields if it derives [`crate::Shape`].
///
/// ```no_run
/// # use leftfold::{Event, testing::EventsLock};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize)]
/// # enum AccountEvent { #[event("DepositMade")] DepositMade { amount: u64 } }
/// #[test]
/// fn stored_shapes_stay_as_they_are() {
///     EventsLock::at("events.lock").with::<AccountEvent>().check();
/// }
/// ```
#[derive(Debug)]
#[must_use = "nothing is compared before `check`"]
pub struct EventsLock {
    path: PathBuf,
    shapes: BTreeMap<(String, u32), String>,
    /// Old shapes that upcasts read.
    upcast: Vec<(String, u32)>,
}

impl EventsLock {
    /// Names the lock file, by its path relative to the package.
    pub fn at(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            shapes: BTreeMap::new(),
            upcast: Vec::new(),
        }
    }

    /// Adds the events of this enum.
    pub fn with<V: Event>(mut self) -> Self {
        for (index, kind) in V::KINDS.iter().enumerate() {
            let shape = (kind.name.to_owned(), kind.version);
            self.shapes.insert(shape, V::shape(index));
        }
        let old = V::upcasts().shapes().into_iter();
        self.upcast
            .extend(old.map(|(name, version)| (name.to_owned(), version)));
        self
    }

    /// Compares the shapes with the file, or, with `LEFTFOLD_EVENTS_LOCK=update`, adds new ones to it.
    ///
    /// # Panics
    /// If a shape differs from its line, has no line yet, or is in the file and can no longer be read.
    #[track_caller]
    pub fn check(self) {
        let update = env::var(ASK).is_ok_and(|value| value == "update");
        if let Err(problem) = self.compare(update) {
            fail(&problem);
        }
    }

    fn compare(&self, update: bool) -> Result<(), String> {
        let path = self.path.display();
        let locked = match std::fs::read_to_string(&self.path) {
            Ok(text) => parse(&text)
                .map_err(|line| format!("{path}: line {line} is not `Name version shape`"))?,
            Err(_) if update => BTreeMap::new(),
            Err(error) => {
                return Err(format!(
                    "{path}: {error}; run this test with {ASK}=update to make it"
                ));
            }
        };
        let problems = self.problems(&locked);
        if !problems.is_empty() {
            return Err(format!("{path}: {}", problems.join("\n")));
        }
        let new: Vec<_> = self
            .shapes
            .keys()
            .filter(|shape| !locked.contains_key(*shape))
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        if !update {
            let names: Vec<_> = new
                .iter()
                .map(|(name, version)| format!("{name} {version}"))
                .collect();
            return Err(format!(
                "{path}: not written down yet: {}; run this test with {ASK}=update",
                names.join(", ")
            ));
        }
        let mut all = locked;
        all.extend(self.shapes.clone());
        let mut text = String::new();
        for ((name, version), shape) in all {
            // Writing to a text cannot fail.
            let _ = writeln!(text, "{name}\t{version}\t{shape}");
        }
        std::fs::write(&self.path, text).map_err(|error| format!("{path}: {error}"))
    }

    /// ShapeWriter that changed, and old ones that nothing reads any more.
    fn problems(&self, locked: &BTreeMap<(String, u32), String>) -> Vec<String> {
        let mut problems = Vec::new();
        for ((name, version), was) in locked {
            let shape = (name.clone(), *version);
            match self.shapes.get(&shape) {
                Some(is) if is == was => {}
                Some(is) => problems.push(format!(
                    "{name} version {version} is stored with another shape; write `version = {}` above the variant \
                     and upcast the old one\n  was: {was}\n  is:  {is}",
                    version + 1
                )),
                None if self.upcast.contains(&shape) => {}
                None => problems.push(format!(
                    "{name} version {version} is stored, and neither a variant nor an upcast reads it: {was}"
                )),
            }
        }
        problems
    }
}

/// The lines of the file; `Err` with the number of one that is none.
fn parse(text: &str) -> Result<BTreeMap<(String, u32), String>, usize> {
    let mut shapes = BTreeMap::new();
    for (line, number) in text.lines().zip(1..) {
        let mut parts = line.split('\t');
        let (Some(name), Some(version), Some(shape), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(number);
        };
        let version = version.parse().map_err(|_| number)?;
        shapes.insert((name.to_owned(), version), shape.to_owned());
    }
    Ok(shapes)
}
