//! The official Python client and ours, on a real server; and the official client on the dev
//! broker, where it must work as it does there.
//!
//! `INTEROP_PYTHON` names a Python that has the client: `.ci/e2e` makes one.

mod cases;
mod descriptors;
mod peer;
