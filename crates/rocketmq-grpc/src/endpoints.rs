//! Where a server is reached: sets of equivalent addresses.

use std::{fmt, net::IpAddr, str::FromStr};

use rocketmq_proto::v2 as pb;

use crate::Error;

/// A set of equivalent addresses of one server, as configured or as named by a route.
///
/// The addresses are not balanced over: leases and registrations live in the memory of one proxy,
/// so a client stays with the address that it reached and moves on when that one is lost.
///
/// Written `host:port`, several separated by `;`.
///
/// ```
/// use rocketmq_grpc::Endpoints;
///
/// let endpoints: Endpoints = "10.0.0.1:8081;10.0.0.2:8081".parse()?;
/// assert_eq!(endpoints.to_string(), "10.0.0.1:8081;10.0.0.2:8081");
/// assert!("10.0.0.1".parse::<Endpoints>().is_err());
/// # Ok::<(), rocketmq_grpc::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Endpoints {
    addresses: Vec<Address>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    host: String,
    port: u16,
}

impl Endpoints {
    /// The first of the addresses: host and port.
    #[must_use]
    pub fn first(&self) -> (&str, u16) {
        let first = self.addresses.first();
        first.map_or(("", 0), |address| (&address.host, address.port))
    }

    pub(crate) fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The same with other addresses.
    pub(crate) fn rewritten(self, rewrite: &dyn Fn(&str, u16) -> (String, u16)) -> Self {
        let addresses = self.addresses.into_iter().map(|it| {
            let (host, port) = rewrite(&it.host, it.port);
            Address { host, port }
        });
        Self {
            addresses: addresses.collect(),
        }
    }

    pub(crate) fn to_proto(&self) -> pb::Endpoints {
        let scheme = match self.addresses.first().map(|a| a.host.parse::<IpAddr>()) {
            Some(Ok(IpAddr::V4(_))) => pb::AddressScheme::IPv4,
            Some(Ok(IpAddr::V6(_))) => pb::AddressScheme::IPv6,
            Some(Err(_)) | None => pb::AddressScheme::DomainName,
        };
        let addresses = self.addresses.iter().map(|a| pb::Address {
            host: a.host.clone(),
            port: a.port.into(),
        });
        pb::Endpoints {
            scheme: scheme.into(),
            addresses: addresses.collect(),
        }
    }

    /// None if the server named no usable address.
    pub(crate) fn from_proto(it: &pb::Endpoints) -> Option<Self> {
        let addresses: Vec<_> = it
            .addresses
            .iter()
            .filter(|a| !a.host.is_empty() && !a.host.contains(['/', '@', ' ']))
            .filter_map(|a| {
                let port = u16::try_from(a.port).ok().filter(|port| *port > 0)?;
                Some(Address {
                    host: a.host.clone(),
                    port,
                })
            })
            .collect();
        (!addresses.is_empty()).then_some(Self { addresses })
    }
}

impl FromStr for Endpoints {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parse = |part: &str| {
            let (host, port) = part.trim().rsplit_once(':')?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let port = port.parse().ok().filter(|port| *port > 0)?;
            let plain = !host.is_empty() && !host.contains(['/', '@', ' ']);
            plain.then(|| Address {
                host: host.to_owned(),
                port,
            })
        };
        let addresses: Option<Vec<_>> = text.split(';').map(parse).collect();
        match addresses {
            Some(addresses) => Ok(Self { addresses }),
            None => Err(Error::config(format!(
                "endpoints {text:?} are not host:port, or several of them separated by `;`"
            ))),
        }
    }
}

impl fmt::Display for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, address) in self.addresses.iter().enumerate() {
            if n > 0 {
                f.write_str(";")?;
            }
            address.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_both_ip_versions_survive_the_wire() {
        for text in [
            "127.0.0.1:8081",
            "[::1]:8081",
            "proxy.example:80;proxy-2.example:81",
        ] {
            let endpoints: Endpoints = text.parse().unwrap();
            assert_eq!(endpoints.to_string(), text);
            assert_eq!(
                Endpoints::from_proto(&endpoints.to_proto()),
                Some(endpoints)
            );
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "host",
            "host:",
            "host:0",
            ":80",
            "http://host:80",
            "a:1;;b:2",
            "h:99999",
        ] {
            assert!(text.parse::<Endpoints>().is_err(), "{text}");
        }
        let odd = pb::Address {
            host: "a".to_owned(),
            port: -1,
        };
        assert_eq!(
            Endpoints::from_proto(&pb::Endpoints {
                scheme: 9,
                addresses: vec![odd]
            }),
            None
        );
    }
}
