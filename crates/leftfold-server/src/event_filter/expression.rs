//! Regular expressions of filters, compiled within bounds.
//!
//! **Owns:** [`Expression`]: its bounds, where it is compiled, and how it is matched. **Does not know:** what is filtered.
//! **Invariants:**
//! - No expression is compiled on a worker of the runtime.
//! - The automata of a compiled expression take at most [`COMPILED_BYTES_MAX`]: a few large ones, or more small ones.
//! - Matching one name backtracks a bounded number of times.

use fancy_regex::{CompileError, Error, Regex, RegexBuilder};
use tokio::{sync::Semaphore, task::spawn_blocking};

use super::{FilterError, shortened};

/// Maximum bytes of an expression.
pub(super) const EXPRESSION_BYTES_MAX: usize = 8 * 1024;
/// Maximum bytes of all automata of a compiled expression.
pub(super) const COMPILED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The bounds of expressions with many parts, and of those with few. Each instruction has at most one automaton; an expression
/// without look-around, back references and atomic groups is one. `\w{40}` needs an automaton of about 1 MiB.
const BOUNDS: [Bounds; 2] = [Bounds::of_parts(64), Bounds::of_parts(8)];
/// Maximum backtracking steps of matching one name.
const BACKTRACKS_MAX: usize = 10_000;
/// Maximum expressions that are compiled at once. Others wait, so that hostile ones leave processors to requests.
const COMPILED_AT_ONCE: usize = 2;

static COMPILERS: Semaphore = Semaphore::const_new(COMPILED_AT_ONCE);

/// What an expression may compile to.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    instructions: usize,
    automaton_bytes: usize,
}

impl Bounds {
    const fn of_parts(parts: usize) -> Self {
        Self {
            instructions: parts,
            automaton_bytes: COMPILED_BYTES_MAX / parts,
        }
    }
}

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Expression(Box<Regex>);

impl Expression {
    /// Compiles an expression on the blocking pool.
    ///
    /// # Cancel safety
    /// A compilation that began goes on when the future is dropped, and counts among those at once until it ends.
    pub(super) async fn compile(text: &str) -> Result<Self, FilterError> {
        let bytes = text.len();
        if bytes > EXPRESSION_BYTES_MAX {
            return Err(FilterError::TooLong { bytes });
        }
        let malformed = |reason: String| FilterError::Malformed {
            expression: shortened(text),
            reason,
        };
        let permit = COMPILERS.acquire().await;
        let permit = permit.map_err(|closed| malformed(closed.to_string()))?;
        let owned = text.to_owned();
        let compiled = spawn_blocking(move || {
            let compiled = build(&owned);
            drop(permit);
            compiled
        });
        // It panicked, or the runtime is shutting down.
        compiled.await.map_err(|lost| malformed(lost.to_string()))?
    }

    /// Returns whether a name matches.
    pub(super) fn matches(&self, name: &str) -> Result<bool, FilterError> {
        self.0.is_match(name).map_err(|error| FilterError::TooSlow {
            expression: shortened(self.0.as_str()),
            name: shortened(name),
            reason: error.to_string(),
        })
    }
}

fn build(text: &str) -> Result<Expression, FilterError> {
    let mut last = None;
    for bounds in BOUNDS {
        match build_within(text, bounds) {
            Ok(regex) => return Ok(Expression(Box::new(regex))),
            Err(error) if is_too_complex(&error) => last = Some(error),
            Err(error) => {
                return Err(FilterError::Malformed {
                    expression: shortened(text),
                    reason: shortened(&error.to_string()),
                });
            }
        }
    }
    Err(FilterError::TooComplex {
        expression: shortened(text),
        reason: last.map_or_else(String::new, |error| shortened(&error.to_string())),
    })
}

fn build_within(text: &str, bounds: Bounds) -> Result<Regex, Error> {
    RegexBuilder::new(text)
        .backtrack_limit(BACKTRACKS_MAX)
        .delegate_size_limit(bounds.automaton_bytes)
        .delegate_dfa_size_limit(bounds.automaton_bytes)
        .delegate_dfa_skip_cache_capacity_check(false)
        .max_prog_size(bounds.instructions)
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
        Expression::compile(text).await.unwrap()
    }

    #[tokio::test]
    async fn expressions_may_look_ahead() {
        let expression = compile(r"^(?!(\$.+$|PersistentConfig\d+$))").await;
        assert!(expression.matches("Deposited").unwrap());
        assert!(!expression.matches("$metadata").unwrap());
        assert!(!expression.matches("PersistentConfig1").unwrap());
        assert!(compile(r"^[^\$].*").await.matches("a").unwrap());
    }

    #[tokio::test]
    async fn an_expression_that_is_none_or_never_ends_is_an_error() {
        let malformed = Expression::compile("(").await.unwrap_err();
        assert!(matches!(malformed, FilterError::Malformed { .. }));
        let long = Expression::compile(&"a".repeat(9_000)).await.unwrap_err();
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
            assert!(Expression::compile(&text).await.is_ok(), "{text}");
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
            let refused = Expression::compile(&text).await.unwrap_err();
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
        let mut compiling = Box::pin(Expression::compile(text));
        assert!(compiling.as_mut().now_or_never().is_none());
        compiling.await.unwrap();
    }
}
