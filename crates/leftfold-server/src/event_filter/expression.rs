//! Regular expressions of filters, compiled within bounds.
//!
//! **Owns:** [`Expression`]: its bounds, where it is compiled, and how it is matched. **Does not know:** what is filtered.
//! **Invariants:**
//! - No expression is compiled on a worker of the runtime.
//! - What an expression compiles to is bounded in bytes, and charged to the call that keeps it before it is compiled.
//! - A plain expression is matched in linear time. Any other backtracks a bounded number of times on one name.

use fancy_regex::{CompileError, Error, Regex, RegexBuilder};
use tokio::{sync::Semaphore, task::spawn_blocking};

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

/// Bounds of one attempt to compile an expression.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Parts of an expression that is not plain; 0 if it must be plain.
    parts: usize,
    /// Bytes of an automaton.
    automaton_bytes: usize,
    /// What is charged: an automaton, its reverse, and the states that matching keeps take about four times its bytes.
    charged: usize,
}

const fn plain(automaton_bytes: usize) -> Bounds {
    Bounds {
        parts: 0,
        automaton_bytes,
        charged: 4 * automaton_bytes,
    }
}

const fn in_parts(parts: usize, automaton_bytes: usize) -> Bounds {
    Bounds {
        parts,
        automaton_bytes,
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

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Expression {
    regex: Box<Regex>,
    /// Whether it is matched in linear time.
    pub(super) is_plain: bool,
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
                        regex: Box::new(regex),
                        is_plain: bounds.parts == 0,
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

    /// Returns whether a name matches.
    pub(super) fn matches(&self, name: &str) -> Result<bool, FilterError> {
        let matched = self.regex.is_match(name);
        matched.map_err(|error| FilterError::TooSlow {
            expression: shortened(self.regex.as_str()),
            name: shortened(name),
            reason: error.to_string(),
        })
    }
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

    #[tokio::test]
    async fn expressions_may_look_ahead() {
        let expression = compile(r"^(?!(\$.+$|PersistentConfig\d+$))").await;
        assert!(expression.matches("Deposited").unwrap());
        assert!(!expression.matches("$metadata").unwrap());
        assert!(!expression.matches("PersistentConfig1").unwrap());
        assert!(compile(r"^[^\$].*").await.matches("a").unwrap());
    }

    #[tokio::test]
    async fn expressions_that_look_around_are_known_as_those_that_may_take_long() {
        for plain in [r"^[^\$].*", r"^(Foo|Bar\d+)$", r"^\w{1,20}-\d+$", ""] {
            assert!(compile(plain).await.is_plain, "{plain}");
        }
        for other in [r"^(?!\$)", r"^(\w+)-\1$", r"(?>a|ab)c"] {
            assert!(!compile(other).await.is_plain, "{other}");
        }
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
