//! Proves that the generated code is what the `.proto` files say.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod generated;
