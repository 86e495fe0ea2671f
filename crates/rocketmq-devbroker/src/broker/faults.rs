//! Faults on request.

use std::time::Duration;

use rocketmq_proto::v2::Code;

use crate::{
    DevBroker,
    state::{Faults, Rpc},
};

impl DevBroker {
    /// The next `n` calls of `rpc` are answered with `code`, and nothing is done.
    ///
    /// ```
    /// # use rocketmq_proto::v2::{self, messaging_service_client::MessagingServiceClient};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use rocketmq_devbroker::{Code, DevBroker, Rpc};
    ///
    /// let broker = DevBroker::start().await;
    /// # let endpoint = tonic::transport::Endpoint::from_static("http://whatever.invalid");
    /// # let channel = endpoint.connect_with_connector(broker.connector()).await?;
    /// # let mut client = MessagingServiceClient::new(channel);
    /// # let request = v2::QueryRouteRequest::default();
    /// broker.fail_calls(Rpc::QueryRoute, 1, Code::TooManyRequests);
    /// let answer = client.query_route(request).await?.into_inner();
    /// assert_eq!(answer.status.unwrap().code(), Code::TooManyRequests);
    /// # Ok(())
    /// # }
    /// ```
    pub fn fail_calls(&self, rpc: Rpc, n: usize, code: Code) {
        self.faults(|faults| {
            let refused = faults.refused.entry(rpc).or_default();
            refused.extend(std::iter::repeat_n(code, n));
        });
    }

    /// The next `n` sends are refused with `code`, and nothing is stored.
    pub fn fail_sends(&self, n: usize, code: Code) {
        self.fail_calls(Rpc::SendMessage, n, code);
    }

    /// The next `n` sends are stored, but answered with `code`: a producer that repeats them makes
    /// duplicates.
    pub fn fail_sends_after_storing(&self, n: usize, code: Code) {
        let codes = std::iter::repeat_n(code, n);
        self.faults(|faults| faults.sends_after_storing.extend(codes));
    }

    /// The next `n` requests of acknowledgements are refused with `code` as a whole.
    pub fn fail_acks(&self, n: usize, code: Code) {
        self.fail_calls(Rpc::AckMessage, n, code);
    }

    /// The next `n` acknowledgements, counted by message, are answered with OK and forgotten: the
    /// messages come again when their leases end.
    pub fn drop_acks(&self, n: usize) {
        self.faults(|faults| faults.dropped_acks += n);
    }

    /// The next `n` calls of `rpc` are done, and their answers never come: the caller waits until
    /// its deadline.
    pub fn lose_answers(&self, rpc: Rpc, n: usize) {
        self.faults(|faults| *faults.lost.entry(rpc).or_default() += n);
    }

    /// From now on every call of `rpc` is done at once and answered `by` later. Zero ends it.
    pub fn delay_answers(&self, rpc: Rpc, by: Duration) {
        self.faults(|faults| faults.delays.insert(rpc, by));
    }

    /// Each of the next `n` receives that get messages breaks with UNAVAILABLE after `after` of
    /// them. The others count as delivered: they come again when their leases end.
    pub fn break_receives(&self, n: usize, after: usize) {
        let broken = std::iter::repeat_n(after, n);
        self.faults(|faults| faults.broken_receives.extend(broken));
    }

    /// Each of the next `n` deliveries to a group without order is made once more, by a later
    /// receive, whether or not it was acknowledged meanwhile.
    pub fn duplicate_deliveries(&self, n: usize) {
        self.faults(|faults| faults.duplicated += n);
    }

    /// Each of the next `n` receives that get several messages gets them in reverse order.
    pub fn reorder_deliveries(&self, n: usize) {
        self.faults(|faults| faults.reversed_receives += n);
    }

    /// Each of the next `n` checks of a transaction is sent twice.
    pub fn repeat_transaction_checks(&self, n: usize) {
        self.faults(|faults| faults.repeated_checks += n);
    }

    /// From now on a send of several messages is answered with an entry for each, as other servers
    /// do it, rather than with one.
    pub fn answer_each_message(&self) {
        self.faults(|faults| faults.entry_per_message = true);
    }

    /// From now on a receive is answered in the order of other servers: time of delivery, messages,
    /// status.
    pub fn send_status_last(&self) {
        self.faults(|faults| faults.status_last = true);
    }

    /// Ends every telemetry stream now; connections stay.
    pub fn drop_telemetry(&self) {
        self.core().end_streams();
    }

    /// Forgets every client, as a proxy does that was restarted behind a load balancer: connections
    /// stay, heartbeats are answered with UNRECOGNIZED_CLIENT_TYPE, and transactions can be ended
    /// after their next check only.
    pub fn forget_clients(&self) {
        self.core().with(|state, _| state.forget_clients());
    }

    /// Goes silent without hanging up: nothing is read from any connection nor written to it, and
    /// new ones are accepted just so. Goes on when [`DevBroker::thaw`] is called.
    pub fn freeze(&self) {
        self.core().frost().freeze();
    }

    /// Ends [`DevBroker::freeze`]. What was sent meanwhile is read now.
    pub fn thaw(&self) {
        self.core().frost().thaw();
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

    /// Loses all messages, positions, leases and transactions, as a broker does whose disk is gone.
    /// Topics and groups stay. Between [`DevBroker::stop`] and [`DevBroker::restart`] it makes a
    /// restart with state lost.
    pub fn lose_messages(&self) {
        self.core().with(|state, _| state.lose_messages());
    }

    /// Takes back every fault that has not struck yet and ends those that last.
    pub fn clear_faults(&self) {
        self.faults(|faults| *faults = Faults::default());
        self.thaw();
        #[cfg(feature = "persist")]
        self.fail_writes(0);
    }

    fn faults<R>(&self, change: impl FnOnce(&mut Faults) -> R) {
        self.core().with(|state, _| {
            change(&mut state.faults);
        });
    }
}
