//! Faults on request.

use rocketmq_proto::v2::Code;

use crate::DevBroker;

impl DevBroker {
    /// The next `n` sends are refused with `code`, and nothing is stored.
    pub fn fail_sends(&self, n: usize, code: Code) {
        self.core()
            .with(|state, _| state.faults.sends.extend(std::iter::repeat_n(code, n)));
    }

    /// The next `n` sends are stored, but answered with `code`: a producer that repeats them makes
    /// duplicates.
    pub fn fail_sends_after_storing(&self, n: usize, code: Code) {
        let codes = std::iter::repeat_n(code, n);
        self.core()
            .with(|state, _| state.faults.sends_after_storing.extend(codes));
    }

    /// The next `n` requests of acknowledgements are refused with `code` as a whole.
    pub fn fail_acks(&self, n: usize, code: Code) {
        self.core().with(|state, _| {
            state
                .faults
                .ack_requests
                .extend(std::iter::repeat_n(code, n))
        });
    }

    /// The next `n` acknowledgements, counted by message, are answered with OK and forgotten: the
    /// messages come again when their leases end.
    pub fn drop_acks(&self, n: usize) {
        self.core().with(|state, _| state.faults.dropped_acks += n);
    }

    /// Each of the next `n` checks of a transaction is sent twice.
    pub fn repeat_transaction_checks(&self, n: usize) {
        self.core()
            .with(|state, _| state.faults.repeated_checks += n);
    }

    /// Ends every telemetry stream now; connections stay.
    pub fn drop_telemetry(&self) {
        self.core().end_streams();
    }

    /// Ends all leases of the group now: handles are out of date, messages come again.
    pub fn expire_leases(&self, group: &str) {
        self.core()
            .with(|state, now| state.expire_leases(now, group));
    }

    /// The next `n` attempts to write the data folder fail as if the disk was full: sends are
    /// refused until one succeeds. Does nothing without a folder.
    #[cfg(feature = "persist")]
    pub fn fail_writes(&self, n: usize) {
        if let Some(store) = self.core().store() {
            store.fail(n);
        }
    }

    /// Takes back every fault that has not struck yet.
    pub fn clear_faults(&self) {
        self.core()
            .with(|state, _| state.faults = crate::state::Faults::default());
        #[cfg(feature = "persist")]
        self.fail_writes(0);
    }
}
