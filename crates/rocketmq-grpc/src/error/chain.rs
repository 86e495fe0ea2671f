//! An error with its causes, for our own log lines: whoever is on call reads nothing else.

use std::{
    error::Error,
    fmt::{self, Display},
};

/// Prints `error` and its sources as `a: b: c`, without what the level above has said already.
pub(crate) fn chain<'e>(error: &'e (dyn Error + 'static)) -> impl Display + 'e {
    fmt::from_fn(move |f| {
        let mut above = error.to_string();
        f.write_str(&above)?;
        let mut next = error.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if !above.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            (above, next) = (text, cause.source());
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::chain;
    use crate::Error;

    #[test]
    fn every_level_is_told_once() {
        let lowest = Error::closed("client");
        let middle = Error::lease_expired("not settled: the client is closed", Some(lowest));
        let error = Error::intercepted(middle.into());
        assert_eq!(
            chain(&error).to_string(),
            "an interceptor refused the message: not settled: the client is closed"
        );
    }
}
