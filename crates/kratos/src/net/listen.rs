//! Binding a socket, with an error that says what to do.

use std::{io, net::SocketAddr};

use serde::{Deserialize, Deserializer, de::Error as _};
use tokio::net::{TcpListener, TcpSocket};

use crate::{Error, Result};

/// Connections that the kernel keeps for us while we do not accept.
const BACKLOG: u32 = 1024;

/// Where the address of a server is set, for the error's reader.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hint {
    /// The key in the configuration, such as `http.addr`.
    pub(crate) key: &'static str,
    /// The environment variable of that key.
    pub(crate) variable: &'static str,
}

/// Reads an address; the standard library's own error says only that the syntax is invalid.
pub(crate) fn addr<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_invalid| {
        let accepted = "an IP address and a port, such as 127.0.0.1:8000 or [::]:8000";
        D::Error::custom(format_args!("found {text:?}, expected {accepted}"))
    })
}

/// Listens at `addr`; port 0 takes a free one.
pub(crate) fn listen(addr: SocketAddr, hint: Hint) -> Result<(TcpListener, SocketAddr)> {
    bind(addr).map_err(|e| explain(addr, hint, &e).with_source(e))
}

fn bind(addr: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A restarted process must not wait for the kernel to forget its predecessor's connections.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    let listener = socket.listen(BACKLOG)?;
    let addr = listener.local_addr()?;
    Ok((listener, addr))
}

fn explain(addr: SocketAddr, Hint { key, variable }: Hint, error: &io::Error) -> Error {
    let set = format!("set another address with `{key}` or {variable}");
    Error::msg(match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("cannot listen on {addr}: another process does; stop it, or {set}")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("cannot listen on {addr}: this machine has no such address; {set}")
        }
        io::ErrorKind::PermissionDenied => {
            format!("cannot listen on {addr}: ports below 1024 need a privilege; {set}")
        }
        _ => format!("cannot listen on {addr}; {set}"),
    })
}
