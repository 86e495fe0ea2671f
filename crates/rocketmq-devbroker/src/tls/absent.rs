//! What stands for TLS without the feature `tls`: nothing, so that nobody else has to ask.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::{Error, serving::Io};

#[derive(Clone, Debug)]
pub(crate) enum Pem {}

#[derive(Clone, Debug)]
pub(crate) enum Tls {}

impl Tls {
    pub(crate) fn new(pem: &Pem) -> Result<Self, Error> {
        match *pem {}
    }

    #[expect(clippy::unused_async, reason = "the signature of the feature")]
    pub(crate) async fn accept<I>(&self, _io: I) -> io::Result<Box<dyn Io>>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        match *self {}
    }
}
