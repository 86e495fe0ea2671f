//! An error with all that lies underneath, on one line.

use std::{
    error::Error,
    fmt::{self, Display, Write},
};

/// Prints `error` and its sources as `a: b: c`.
///
/// Our errors say their own level only; this is for the edge, where a person reads. A source whose
/// text the level above has already printed is left out.
///
/// ```
/// use std::io;
///
/// let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
/// let error = kratos::Error::msg("cannot reach the broker").with_source(refused);
/// let text = kratos::error_chain(&error).to_string();
/// assert_eq!(text, "cannot reach the broker: connection refused");
/// ```
pub fn error_chain<'e>(error: &'e (dyn Error + 'static)) -> impl Display + 'e {
    Chain(error)
}

struct Chain<'e>(&'e (dyn Error + 'static));

impl Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut above = self.0.to_string();
        f.write_str(&above)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            let text = error.to_string();
            if !above.ends_with(&text) {
                f.write_str(": ")?;
                f.write_str(&text)?;
                above.clear();
                above.write_str(&text)?;
            }
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::error_chain;

    #[test]
    fn prints_every_level_once() {
        let lowest = crate::Error::msg("refused");
        let middle = crate::Error::msg("connect: refused").with_source(lowest);
        let error = crate::Error::msg("start").with_source(middle);
        assert_eq!(error_chain(&error).to_string(), "start: connect: refused");
    }
}
