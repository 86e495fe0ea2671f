//! Faults of a whole call: refused, late, or never answered.

use http::Request;
use tokio::time;

use crate::{
    core::Core,
    state::{Refusal, Rpc, Strike},
};

/// What is to happen to a call besides what it asks for.
#[derive(Debug)]
pub(crate) struct Fault(Strike);

/// The refusal that a call is to be answered with.
#[derive(Clone, Debug)]
pub(crate) struct Injected(pub(crate) Refusal);

impl Fault {
    /// Decides what happens to a request, and marks one that is to be refused.
    pub(crate) fn of<B>(core: &Core, request: &mut Request<B>) -> Self {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        let Some(rpc) = Rpc::named(method) else {
            return Self(Strike::default());
        };
        let mut strike = core.with(|state, _| state.faults.strike(rpc));
        if let Some(refusal) = strike.refusal.take() {
            request.extensions_mut().insert(Injected(refusal));
        }
        Self(strike)
    }

    /// Ends when the answer may be given.
    pub(crate) async fn strike(self) {
        if self.0.lost {
            return std::future::pending().await;
        }
        if !self.0.delay.is_zero() {
            time::sleep(self.0.delay).await;
        }
    }
}
