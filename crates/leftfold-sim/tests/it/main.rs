//! The engine against the simulated disk.

#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

mod damage;
mod disk;
mod full_disk;
mod histories;
mod lost_name;
mod planted;
mod scavenge;
mod scenarios;
mod small_log;
mod telling;
mod threads;

/// How many seeds to try: more in an optimised build, or as many as `LEFTFOLD_SEEDS` says.
fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    if let Some(one) = number("LEFTFOLD_SEED") {
        return one..one + 1;
    }
    0..number("LEFTFOLD_SEEDS").unwrap_or(if cfg!(debug_assertions) {
        1_500
    } else {
        20_000
    })
}
