//! Regular expressions of filters, compiled within bounds.
//!
//! **Owns:** [`Expression`]: its bounds, where it is compiled, and how it is matched. **Does not know:** what is filtered.
//! **Invariants:**
//! - No expression is compiled on a worker of the runtime.
//! - What an expression compiles to is bounded in bytes, and charged to the call that keeps it before it is compiled.
//! - A plain expression is matched in linear time. Any other backtracks a bounded number of times on one name.
//! - A worker of the runtime matches with small expressions only, a few names at a time.

use std::{sync::Arc, time::Duration};

use fancy_regex::{CompileError, Error, Regex, RegexBuilder};
use tokio::{
    sync::Semaphore,
    task::{spawn_blocking, yield_now},
    time::Instant,
};

use super::{FilterError, shortened};

/// Maximum bytes of an expression.
pub(super) const EXPRESSION_BYTES_MAX: usize = 8 * 1024;
/// Maximum bytes of the automaton of a plain expression: one without look-around, back references and atomic groups. One for
/// `\w{40}` has about 1 MiB.
pub(super) const PLAIN_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Maximum parts of any other expression. Each of them is an instruction, some with an automaton.
pub(super) const PARTS_MAX: usize = 64;
/// Maximum bytes of the automaton of a part.
pub(super) const PART_BYTES_MAX: usize = 256 * 1024;

/// Maximum bytes of the automaton of a plain expression that workers of the runtime match with. If an automaton's states are
/// more than it may keep, each character of a name costs a look at all of it.
const SMALL_BYTES_MAX: usize = 16 * 1024;
/// Names that a worker matches before other tasks have a turn.
const NAMES_AT_ONCE: usize = 4;
/// How long other expressions wait while names are matched with one. It ends with a name.
const TURN: Duration = Duration::from_millis(10);

/// Bounds of one attempt to compile an expression.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Parts of an expression that is not plain; 0 if it must be plain.
    parts: usize,
    /// Bytes of an automaton.
    automaton_bytes: usize,
    /// Whether workers of the runtime may match with such an expression.
    is_small: bool,
    /// What is charged: an automaton, its reverse, and the states that matching keeps take about four times its bytes.
    charged: usize,
}

const fn plain(automaton_bytes: usize) -> Bounds {
    Bounds {
        parts: 0,
        automaton_bytes,
        is_small: automaton_bytes <= SMALL_BYTES_MAX,
        charged: 4 * automaton_bytes,
    }
}

const fn in_parts(parts: usize, automaton_bytes: usize) -> Bounds {
    Bounds {
        parts,
        automaton_bytes,
        is_small: parts * automaton_bytes <= 2 * SMALL_BYTES_MAX,
        // Few have all parts of that size.
        charged: parts * automaton_bytes / 2 * 3,
    }
}

/// The attempts, in order. A plain expression that fits a bound in parts fits an earlier one.
const ATTEMPTS: [Bounds; 10] = [
    plain(16 * 1024),
    in_parts(8, 4 * 1024),
    plain(64 * 1024),
    in_parts(8, 16 * 1024),
    plain(256 * 1024),
    in_parts(8, 64 * 1024),
    plain(1024 * 1024),
    in_parts(16, PART_BYTES_MAX),
    plain(PLAIN_BYTES_MAX),
    in_parts(PARTS_MAX, PART_BYTES_MAX),
];

/// Maximum backtracking steps of matching one name.
const BACKTRACKS_MAX: usize = 10_000;
/// Maximum expressions that are compiled at once. Others wait, so that hostile ones leave processors to requests.
const COMPILED_AT_ONCE: usize = 2;

static COMPILERS: Semaphore = Semaphore::const_new(COMPILED_AT_ONCE);
/// As many names are matched at once with expressions that are not small.
static MATCHERS: Semaphore = Semaphore::const_new(COMPILED_AT_ONCE);

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Expression {
    regex: Arc<Regex>,
    /// Whether workers of the runtime may match with it.
    is_small: bool,
}

impl Expression {
    /// Compiles an expression on the blocking pool. `keep` charges the bytes that it may take, or refuses them.
    ///
    /// # Cancel safety
    /// A compilation that began goes on when the future is dropped, and counts among those at once until it ends.
    pub(super) async fn compile(
        text: &str,
        mut keep: impl FnMut(usize) -> bool,
    ) -> Result<Self, FilterError> {
        let bytes = text.len();
        if bytes > EXPRESSION_BYTES_MAX {
            return Err(FilterError::TooLong { bytes });
        }
        let malformed = |reason: String| FilterError::Malformed {
            expression: shortened(text),
            reason,
        };
        let permit = COMPILERS.acquire().await;
        let mut permit = permit.map_err(|closed| malformed(closed.to_string()))?;
        let (mut charged, mut refused) = (0, None);
        for bounds in ATTEMPTS {
            let more = bounds.charged.saturating_sub(charged);
            if !keep(more) {
                return Err(FilterError::Exhausted);
            }
            charged = charged.max(bounds.charged);
            let owned = text.to_owned();
            let compiled = spawn_blocking(move || (build(&owned, bounds), permit));
            // It panicked, or the runtime is shutting down.
            let compiled = compiled.await.map_err(|lost| malformed(lost.to_string()))?;
            match compiled.0 {
                Err(error) if is_too_complex(&error) => refused = Some(error),
                Err(error) => return Err(malformed(shortened(&error.to_string()))),
                Ok(regex) => {
                    return Ok(Self {
                        regex: Arc::new(regex),
                        is_small: bounds.is_small,
                    });
                }
            }
            permit = compiled.1;
        }
        Err(FilterError::TooComplex {
            expression: shortened(text),
            reason: refused.map_or_else(String::new, |error| shortened(&error.to_string())),
        })
    }

    /// Returns for each of these names whether it matches.
    ///
    /// # Cancel safety
    /// A turn that began goes on for a moment when the future is dropped.
    pub(super) async fn match_each<N: AsRef<str> + Send + Sync + 'static>(
        &self,
        names: Vec<N>,
    ) -> Result<Vec<bool>, FilterError> {
        let mut matched = Vec::with_capacity(names.len());
        if self.is_small {
            for (nth, name) in names.iter().enumerate() {
                if nth % NAMES_AT_ONCE == NAMES_AT_ONCE - 1 {
                    yield_now().await;
                }
                matched.push(is_match(&self.regex, name.as_ref())?);
            }
            return Ok(matched);
        }
        let names: Arc<[N]> = names.into();
        while matched.len() < names.len() {
            let lost = |reason: String| FilterError::Malformed {
                expression: shortened(self.regex.as_str()),
                reason,
            };
            let permit = MATCHERS.acquire().await;
            let permit = permit.map_err(|closed| lost(closed.to_string()))?;
            let (regex, names, done) = (Arc::clone(&self.regex), Arc::clone(&names), matched.len());
            let turn = spawn_blocking(move || {
                let _permit = permit;
                match_for_a_turn(&regex, names.iter().skip(done))
            });
            // It panicked, or the runtime is shutting down.
            matched.extend(turn.await.map_err(|gone| lost(gone.to_string()))??);
        }
        Ok(matched)
    }
}

/// Matches names until the turn is over, and at least one.
fn match_for_a_turn<'a, N: AsRef<str> + 'a>(
    regex: &Regex,
    names: impl Iterator<Item = &'a N>,
) -> Result<Vec<bool>, FilterError> {
    let begun = Instant::now();
    let mut matched = Vec::new();
    for name in names {
        matched.push(is_match(regex, name.as_ref())?);
        if begun.elapsed() >= TURN {
            break;
        }
    }
    Ok(matched)
}

/// Returns whether a name matches.
fn is_match(regex: &Regex, name: &str) -> Result<bool, FilterError> {
    let matched = regex.is_match(name);
    matched.map_err(|error| FilterError::TooSlow {
        expression: shortened(regex.as_str()),
        name: shortened(name),
        reason: error.to_string(),
    })
}

fn build(text: &str, bounds: Bounds) -> Result<Regex, Error> {
    RegexBuilder::new(text)
        .backtrack_limit(BACKTRACKS_MAX)
        .delegate_size_limit(bounds.automaton_bytes)
        .delegate_dfa_size_limit(bounds.automaton_bytes)
        .delegate_dfa_skip_cache_capacity_check(false)
        .max_prog_size(bounds.parts)
        .build()
}

/// Returns whether an expression was refused for its size alone.
fn is_too_complex(error: &Error) -> bool {
    let Error::CompileError(error) = error else {
        return false;
    };
    match &**error {
        CompileError::PatternTooComplex | CompileError::DfaBuildError(..) => true,
        CompileError::InnerError(error) => error.size_limit().is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    async fn compile(text: &str) -> Expression {
        Expression::compile(text, |_| true).await.unwrap()
    }

    impl Expression {
        fn matches(&self, name: &str) -> Result<bool, FilterError> {
            is_match(&self.regex, name)
        }
    }

    #[tokio::test]
    async fn expressions_may_look_ahead() {
        let expression = compile(r"^(?!(\$.+$|PersistentConfig\d+$))").await;
        assert!(expression.matches("Deposited").unwrap());
        assert!(!expression.matches("$metadata").unwrap());
        assert!(!expression.matches("PersistentConfig1").unwrap());
        assert!(compile(r"^[^\$].*").await.matches("a").unwrap());
    }

    #[test]
    fn names_are_matched_by_the_task_that_waits_with_small_expressions_alone() {
        // One thread besides that of the tasks, which is busy when names are matched.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(1)
            .build();
        runtime.unwrap().block_on(async {
            let names = || vec!["a".to_owned(), "b!".to_owned(), "!".to_owned()];
            for small in [r"^[^\$]*!$", r"^(?!\$).*!$", r"^(Foo|b|)!$"] {
                let expression = compile(small).await;
                let matched = expression.match_each(names()).now_or_never();
                assert_eq!(matched.unwrap().unwrap(), [false, true, true], "{small}");
            }
            for other in [r"^([ab]{0,50}){300}!$", r"^(?=([ab]{0,30}){30}!).*$"] {
                let expression = compile(other).await;
                let (free, busy) = std::sync::mpsc::channel::<()>();
                let thread = spawn_blocking(move || busy.recv().is_err());
                let mut matching = Box::pin(expression.match_each(names()));
                assert!(matching.as_mut().now_or_never().is_none(), "{other}");
                drop(free);
                assert!(thread.await.unwrap());
                assert_eq!(matching.await.unwrap(), [false, true, true], "{other}");
            }
        });
    }

    #[tokio::test]
    async fn other_tasks_go_on_while_names_are_matched_that_take_long() {
        // More states than are kept, so each of them is looked at for each character.
        let expression = compile(r"^([ab]{0,50}){300}!$").await;
        let names = vec!["ab".repeat(500); 4];
        let mut matching = Box::pin(expression.match_each(names));
        let mut others = 0;
        while matching.as_mut().now_or_never().is_none() {
            others += 1;
            yield_now().await;
        }
        assert!(others > 4, "{others}");
    }

    #[tokio::test]
    async fn an_expression_that_is_none_or_never_ends_is_an_error() {
        let malformed = Expression::compile("(", |_| true).await.unwrap_err();
        assert!(matches!(malformed, FilterError::Malformed { .. }));
        let long = Expression::compile(&"a".repeat(9_000), |_| true)
            .await
            .unwrap_err();
        assert_eq!(long, FilterError::TooLong { bytes: 9_000 });
        let slow = compile(r"^(a|b|ab)*(?=c)$").await;
        assert!(slow.matches(&"ab".repeat(400)).is_err());
    }

    #[tokio::test]
    async fn expressions_that_clients_send_are_within_the_bounds() {
        let types: Vec<_> = (0..300).map(|number| format!("Type{number}")).collect();
        let expressions = [
            format!("^({})$", types.join("|")),
            format!("^(?!({})$)", types.join("|")),
            r"^account-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$".to_owned(),
            r"(?i)^(?!\$)[a-z]+.*created$".to_owned(),
            r"^(\w+)-\1$".to_owned(),
            r"^\w{1,20}-\d+$".to_owned(),
            r"^[^\$]\p{Lu}\w*(?<!Tested)$".to_owned(),
        ];
        for text in expressions {
            assert!(Expression::compile(&text, |_| true).await.is_ok(), "{text}");
        }
    }

    #[tokio::test]
    async fn an_expression_that_compiles_to_much_is_refused_for_its_size() {
        let expressions = [
            r"\w{2000}".to_owned(),
            r"((\w{100}){100}){100}".to_owned(),
            // Each atomic group has an automaton of its own.
            r"(?>\w{30})".repeat(100),
            r"(?>\w{1000})".repeat(68),
            r"((?>\w{30})){1000}".to_owned(),
            r"(?<=\w{1,2000})a".to_owned(),
        ];
        for text in expressions {
            let refused = Expression::compile(&text, |_| true).await.unwrap_err();
            assert!(
                matches!(refused, FilterError::TooComplex { .. }),
                "{refused}"
            );
            assert!(refused.to_string().len() < 1_000, "it fits into a header");
        }
    }

    #[tokio::test]
    async fn an_expression_is_not_compiled_by_the_task_that_waits_for_it() {
        let text = r"^\w{1,20}-\d+$";
        let mut compiling = Box::pin(Expression::compile(text, |_| true));
        assert!(compiling.as_mut().now_or_never().is_none());
        compiling.await.unwrap();
    }
}
