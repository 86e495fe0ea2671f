//! What stands for the data folder without the feature `persist`: nothing, so that nobody else has
//! to ask.

use crate::state::{Fact, Refusal};

#[derive(Debug)]
pub(crate) enum Store {}

impl Store {
    pub(crate) fn push(&self, _facts: Vec<Fact>) {
        match *self {}
    }

    pub(crate) fn check(&self) -> Result<(), Refusal> {
        match *self {}
    }

    #[expect(clippy::unused_async, reason = "the signature of the feature")]
    pub(crate) async fn durable(&self) -> Result<(), Refusal> {
        match *self {}
    }

    #[expect(clippy::unused_async, reason = "the signature of the feature")]
    pub(crate) async fn close(&self) {
        match *self {}
    }
}
