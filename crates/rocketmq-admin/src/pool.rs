//! Connections by address, opened on use.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};

use crate::{
    connection::{Broken, Connection, Fault},
    error::{Error, Kind, Place, Result},
    frame::Frame,
    sync::Guarded,
};

/// One connection for each address, shared by all who ask.
#[derive(Debug)]
pub(crate) struct Pool {
    connect_timeout: Duration,
    request_timeout: Duration,
    slots: Guarded<HashMap<String, Arc<Slot>>>,
}

type Slot = Mutex<Option<Arc<Connection>>>;

/// Whom to ask, what for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) operation: &'a str,
    pub(crate) broker: Option<&'a str>,
    pub(crate) address: &'a str,
}

impl Pool {
    pub(crate) fn new(connect_timeout: Duration, request_timeout: Duration) -> Self {
        Self {
            connect_timeout,
            request_timeout,
            slots: Guarded::new(HashMap::new()),
        }
    }

    /// One request and its answer with code 0; every other answer is an error.
    ///
    /// A connection that was open before may have died unseen: then the request, which can be
    /// repeated as every one of this crate can, is sent once more on a new one.
    pub(crate) async fn call(&self, target: Target<'_>, request: Frame) -> Result<Frame> {
        let by = Instant::now() + self.request_timeout;
        let code = request.header.code;
        let place = || Place {
            broker: target.broker.map(str::to_owned),
            address: Some(target.address.to_owned()),
            request_code: Some(code),
        };
        let mut again = true;
        loop {
            let (connection, fresh) = self
                .connection(target.address, by)
                .await
                .map_err(|error| unreachable(target.operation, error).at(place()))?;
            return match connection.call(request.clone(), by).await {
                Ok(answer) if answer.header.code == crate::code::SUCCESS => Ok(answer),
                Ok(answer) => {
                    let header = answer.header;
                    Err(Error::refused(target.operation, header.code, header.remark).at(place()))
                }
                Err(Fault::Lost(_)) if !fresh && again => {
                    again = false;
                    continue;
                }
                Err(fault) => Err(self.fault(target.operation, fault).at(place())),
            };
        }
    }

    /// An open connection, and whether it was opened for this call.
    async fn connection(&self, address: &str, by: Instant) -> io::Result<(Arc<Connection>, bool)> {
        let by = by.min(Instant::now() + self.connect_timeout);
        let slot = self.slots.with(|it| {
            // Addresses of brokers come and go: keep those that are open or in use.
            it.retain(|_, slot| match slot.try_lock() {
                Ok(slot) => slot.as_ref().is_some_and(|it| it.is_open()),
                Err(_) => true,
            });
            Arc::clone(it.entry(address.to_owned()).or_default())
        });
        let open = async {
            let mut slot = slot.lock().await;
            if let Some(connection) = slot.as_ref().filter(|it| it.is_open()) {
                return Ok((Arc::clone(connection), false));
            }
            let connection = Arc::new(Connection::open(address).await?);
            *slot = Some(Arc::clone(&connection));
            Ok((connection, true))
        };
        timeout_at(by, open).await.unwrap_or_else(|_| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no connection within {:?}", self.connect_timeout),
            ))
        })
    }

    fn fault(&self, operation: &str, fault: Fault) -> Error {
        match fault {
            Fault::Timeout => Error::new(
                Kind::Timeout,
                operation,
                format!("no answer within {:?}", self.request_timeout),
            ),
            Fault::Lost(Some(cause)) => {
                let error = match *cause {
                    Broken::Io(_) => Error::new(
                        Kind::Disconnected,
                        operation,
                        "connection lost before the answer",
                    ),
                    Broken::Frame(_) => {
                        Error::protocol(operation, "it does not speak RocketMQ's remoting protocol")
                    }
                };
                error.with_source(cause)
            }
            Fault::Lost(None) => Error::new(
                Kind::Disconnected,
                operation,
                "connection closed before the answer",
            ),
            Fault::Request(error) => {
                Error::new(Kind::Invalid, operation, "too much for one request").with_source(error)
            }
        }
    }
}

fn unreachable(operation: &str, error: io::Error) -> Error {
    Error::new(Kind::Unreachable, operation, "cannot connect").with_source(error)
}
