//! Who may call: users and their signatures, as access control 2.0 of the real server checks them.

use std::{collections::HashMap, fmt};

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::HeaderMap;
use rocketmq_proto::v2::Code;
use sha1::Sha1;

use crate::state::{Refusal, Signer};

const AUTHORIZATION: &str = "authorization";
const DATE_TIME: &str = "x-mq-date-time";
const SESSION_TOKEN: &str = "x-mq-session-token";

/// Users by access key. Nobody has to sign while there are none.
#[derive(Clone, Default)]
pub(crate) struct Users {
    secrets: HashMap<String, String>,
}

/// What a call's signature says, found out before the call is looked at.
#[derive(Clone, Debug)]
pub(crate) struct Signature(pub(crate) Result<Signer, Refusal>);

impl Users {
    pub(crate) fn add(&mut self, access_key: String, secret_key: String) {
        self.secrets.insert(access_key, secret_key);
    }

    /// Checks a call's headers, in the order and with the words of the real server.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Signature {
        let token = text(headers, SESSION_TOKEN);
        let session_token = (!token.is_empty()).then(|| token.to_owned());
        let access_key = if self.secrets.is_empty() {
            Ok(claimed(headers))
        } else {
            self.verify(headers).map(Some)
        };
        Signature(access_key.map(|access_key| Signer {
            access_key,
            session_token,
        }))
    }

    fn verify(&self, headers: &HeaderMap) -> Result<String, Refusal> {
        let date = text(headers, DATE_TIME);
        let claim = Claim::read(text(headers, AUTHORIZATION), date)?;
        let name = claim.access_key;
        let secret = self
            .secrets
            .get(name)
            .ok_or_else(|| refused(format!("User:{name} is not found.")))?;
        if !claim
            .signature
            .is_some_and(|sent| signs(secret, date, &sent))
        {
            return Err(refused("check signature failed."));
        }
        Ok(name.to_owned())
    }
}

/// Secrets are not printed.
impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.secrets.keys()).finish()
    }
}

/// The header `authorization`, taken apart.
struct Claim<'a> {
    access_key: &'a str,
    signature: Option<Vec<u8>>,
}

impl<'a> Claim<'a> {
    /// Reads `<scheme> Credential=<access key>[/…], Signature=<hex>[, …]`. The scheme is not looked
    /// at.
    fn read(header: &'a str, date: &str) -> Result<Self, Refusal> {
        let mut claim = Self {
            access_key: "",
            signature: None,
        };
        if !header.is_empty() {
            if date.is_empty() {
                return Err(refused("datetime is null."));
            }
            let (_, pairs) = header
                .split_once(' ')
                .ok_or_else(|| refused("authentication header is incorrect."))?;
            for pair in pairs.trim_end_matches(',').split(',') {
                claim.take(pair.trim())?;
            }
        }
        if claim.access_key.is_empty() {
            return Err(refused("username cannot be null."));
        }
        Ok(claim)
    }

    fn take(&mut self, pair: &'a str) -> Result<(), Refusal> {
        let (key, value) = pair.split_once('=').ok_or_else(|| {
            refused("authentication keyValues length is incorrect, actual length=1.")
        })?;
        match key {
            "Credential" if !value.is_empty() && value.chars().all(|c| c == '/') => {
                let message = "authentication credential length is incorrect, actual length=0.";
                return Err(refused(message));
            }
            "Credential" => self.access_key = value.split('/').next().unwrap_or_default(),
            "Signature" => {
                let bytes = unhex(value);
                let wrong = || refused("create authentication context error.");
                self.signature = Some(bytes.ok_or_else(wrong)?);
            }
            _ => {}
        }
        Ok(())
    }
}

fn refused(message: impl Into<String>) -> Refusal {
    Refusal::new(Code::Unauthorized, message)
}

/// The access key of a call that nobody checks.
fn claimed(headers: &HeaderMap) -> Option<String> {
    let claim = Claim::read(text(headers, AUTHORIZATION), text(headers, DATE_TIME));
    claim.ok().map(|claim| claim.access_key.to_owned())
}

/// Whether `signature` is the HMAC-SHA1 of the date under the secret; compared in constant time.
fn signs(secret: &str, date: &str, signature: &[u8]) -> bool {
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(secret.as_bytes()) else {
        return false;
    };
    mac.update(date.as_bytes());
    mac.verify_slice(signature).is_ok()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let byte = |pair: &[u8]| match pair {
        [high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
        _ => None,
    };
    text.as_bytes().chunks(2).map(byte).collect()
}

fn text<'a>(headers: &'a HeaderMap, key: &str) -> &'a str {
    let value = headers.get(key).and_then(|value| value.to_str().ok());
    value.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "20261123T080000Z";
    /// The HMAC-SHA1 of the date under `12345678`, in hex.
    const SIGNATURE: &str = "F64BD4A1F420971AE98D93517326EF65CF645531";

    fn users() -> Users {
        let mut users = Users::default();
        users.add("rocketmq".to_owned(), "12345678".to_owned());
        users
    }

    fn check(authorization: &str, date: &str) -> Result<Signer, Refusal> {
        let mut headers = HeaderMap::new();
        for (key, value) in [(AUTHORIZATION, authorization), (DATE_TIME, date)] {
            if !value.is_empty() {
                headers.insert(key, value.parse().unwrap());
            }
        }
        users().check(&headers).0
    }

    fn refusal(authorization: &str) -> String {
        let refusal = check(authorization, DATE).unwrap_err();
        assert_eq!(refusal.code, Code::Unauthorized);
        refusal.message
    }

    #[test]
    fn takes_every_form_of_a_right_signature_that_the_real_server_takes() {
        let lower = SIGNATURE.to_lowercase();
        for header in [
            format!("MQv2-HMAC-SHA1 Credential=rocketmq, SignedHeaders=x, Signature={SIGNATURE}"),
            format!("MQv2-HMAC-SHA1 Credential=rocketmq,Signature={SIGNATURE}"),
            format!("MQv2-HMAC-SHA1 Credential=rocketmq,Signature={SIGNATURE},"),
            format!("MQv2-HMAC-SHA1 Credential=rocketmq/a/b, Signature={lower}"),
            format!("Other Credential=rocketmq, Signature={SIGNATURE}"),
        ] {
            let signer = check(&header, DATE).unwrap();
            assert_eq!(signer.access_key.as_deref(), Some("rocketmq"), "{header}");
        }
    }

    #[test]
    fn says_what_is_wrong_as_the_real_server_does() {
        let signed = |credential: &str| format!("M Credential={credential}, Signature={SIGNATURE}");
        assert_eq!(refusal(""), "username cannot be null.");
        assert_eq!(refusal("rubbish"), "authentication header is incorrect.");
        assert_eq!(
            refusal("M rubbish"),
            "authentication keyValues length is incorrect, actual length=1."
        );
        assert_eq!(refusal(&signed("")), "username cannot be null.");
        assert_eq!(
            refusal(&signed("/")),
            "authentication credential length is incorrect, actual length=0."
        );
        assert_eq!(refusal(&signed("nobody")), "User:nobody is not found.");
        for signature in ["", ", Signature=", ", Signature=AB"] {
            let header = format!("M Credential=rocketmq{signature}");
            assert_eq!(refusal(&header), "check signature failed.", "{header}");
        }
        for signature in ["zz", "abc", "+1"] {
            let header = format!("M Credential=rocketmq, Signature={signature}");
            assert_eq!(refusal(&header), "create authentication context error.");
        }
        let header = signed("rocketmq");
        assert_eq!(check(&header, "").unwrap_err().message, "datetime is null.");
        assert_eq!(
            check(&header, "20261123T080001Z").unwrap_err().message,
            "check signature failed."
        );
    }

    #[test]
    fn without_users_nobody_has_to_sign() {
        assert!(Users::default().check(&HeaderMap::new()).0.is_ok());
    }

    #[test]
    fn a_secret_is_not_printed() {
        let printed = format!("{:?}", users());
        assert!(
            printed.contains("rocketmq") && !printed.contains("12345678"),
            "{printed}"
        );
    }
}
