//! On SQLite, in a file.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod laws;
mod site;
mod trouble;
