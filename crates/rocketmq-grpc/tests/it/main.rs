//! Behaviour, against a dev broker and a scripted server.
#![allow(clippy::unwrap_used, clippy::expect_used)]
