//! The likeliest mistakes of people who use Leftfold, and what the compiler says about them.

#[test]
fn mistakes_are_explained_where_they_are_made() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
