//! On a real PostgreSQL: `make e2e` starts one. `POSTGRES_URL` names it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../it/laws.rs"]
mod laws;
mod site;
mod trouble;
