//! What a user reads when a handler does not fit.

#[test]
fn wrong_handlers_are_explained() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
}
