//! What a failed handshake means, and what to do about it.

use std::io;

use rustls::{AlertDescription as Alert, CertificateError, Error as TlsError, InvalidMessage};

use crate::connect::Fault;

/// `None` if the connection was lost for a reason that is not TLS.
pub(super) fn of(error: &io::Error) -> Option<Fault> {
    let error = error.get_ref()?.downcast_ref::<TlsError>()?;
    Some(Fault::lasting(match error {
        TlsError::InvalidCertificate(why) => certificate(why),
        TlsError::AlertReceived(alert) => alert_of_the_server(*alert),
        TlsError::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the server does not speak TLS at this port: use another port, or leave Config::tls out"
                .to_owned()
        }
        other => format!("the TLS handshake failed: {other}"),
    }))
}

fn certificate(why: &CertificateError) -> String {
    use CertificateError as Why;
    match why {
        Why::UnknownIssuer => "the server's certificate is signed by nobody who is trusted here: \
                               give its CA with Tls::ca_pem"
            .to_owned(),
        Why::Expired | Why::ExpiredContext { .. } => {
            "the server's certificate has expired: renew it there, or set the clock here".to_owned()
        }
        Why::NotValidYet | Why::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet: set the clock here, or there".to_owned()
        }
        Why::NotValidForName => "the server's certificate is for another name: connect by that \
                                 name, or give it with Tls::server_name"
            .to_owned(),
        Why::NotValidForNameContext {
            expected,
            presented,
        } => format!(
            "the server's certificate is for {}, not for {}: connect by that name, or give it with \
             Tls::server_name",
            presented.join(", "),
            expected.to_str(),
        ),
        other => format!(
            "the server's certificate is refused, {other}: give the CA that signed it with \
             Tls::ca_pem"
        ),
    }
}

fn alert_of_the_server(alert: Alert) -> String {
    match alert {
        Alert::CertificateRequired => "the server wants a client certificate: give one with \
                                       Tls::client_identity_pem"
            .to_owned(),
        Alert::UnknownCA
        | Alert::BadCertificate
        | Alert::CertificateUnknown
        | Alert::CertificateExpired
        | Alert::CertificateRevoked
        | Alert::UnsupportedCertificate
        | Alert::DecryptError
        | Alert::AccessDenied => format!(
            "the server refuses this client's certificate ({alert:?}): \
             give one that it trusts with Tls::client_identity_pem"
        ),
        Alert::NoApplicationProtocol => {
            "the server speaks no HTTP/2 at this port: use the gRPC port of the proxy".to_owned()
        }
        Alert::HandshakeFailure => "the server refuses the TLS handshake: it may want a client \
                                    certificate (Tls::client_identity_pem), or knows none of the \
                                    ciphers"
            .to_owned(),
        other => format!("the server refuses the TLS handshake: {other:?}"),
    }
}
