//! The words of a condition, one at a time.

use std::iter::Peekable;
use std::str::CharIndices;

/// A word.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A property, or a keyword in upper case.
    Word(String),
    Keyword(Keyword),
    Text(String),
    Long(i64),
    Double(f64),
    Symbol(&'static str),
    End,
}

macro_rules! keywords {
    ($($name:ident $text:literal),* $(,)?) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Keyword { $($name),* }

        const KEYWORDS: &[(&str, Keyword)] = &[$(($text, Keyword::$name)),*];
    };
}

keywords! {
    Not "NOT", And "AND", Or "OR", Between "BETWEEN", In "IN", True "TRUE", False "FALSE",
    Null "NULL", Is "IS", Contains "CONTAINS", StartsWith "STARTSWITH", EndsWith "ENDSWITH",
}

/// Longest first, so that `<=` is not `<`.
const SYMBOLS: [&str; 11] = ["<=", ">=", "<>", "=", "<", ">", "(", ")", ",", "+", "-"];

/// Reads words from a text. Only as far as it is asked: what follows may be anything.
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

/// There is no word at this byte of the text.
#[derive(Debug)]
pub(super) struct NoWord(pub(super) usize);

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Where the next word begins, or space before it.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn next(&mut self) -> Result<Token, NoWord> {
        self.skip_blank()?;
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(Token::End);
        };
        if first == '\'' {
            return self.text();
        }
        let second = rest.chars().nth(1);
        if first.is_ascii_digit() || first == '.' && second.is_some_and(|c| c.is_ascii_digit()) {
            return self.number();
        }
        if first.is_ascii_alphabetic() || matches!(first, '_' | '$') {
            let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$');
            let end = rest.find(|c| !word(c)).unwrap_or(rest.len());
            self.at += end;
            let word = &rest[..end];
            let known = KEYWORDS
                .iter()
                .find(|(text, _)| text.eq_ignore_ascii_case(word));
            return Ok(known.map_or_else(
                || Token::Word(word.to_owned()),
                |(_, keyword)| Token::Keyword(*keyword),
            ));
        }
        let symbol = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol));
        let symbol = symbol.ok_or(NoWord(self.at))?;
        self.at += symbol.len();
        Ok(Token::Symbol(symbol))
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Passes over space and comments.
    fn skip_blank(&mut self) -> Result<(), NoWord> {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0c']);
            self.at += rest.len() - trimmed.len();
            if trimmed.starts_with("--") && trimmed.contains('\n') {
                self.at += trimmed.find('\n').unwrap_or_default();
            } else if let Some(comment) = trimmed.strip_prefix("/*") {
                let end = comment.find("*/").ok_or(NoWord(self.at))?;
                self.at += end + 4;
            } else {
                return Ok(());
            }
        }
    }

    /// A text in quotes; two quotes stand for one.
    fn text(&mut self) -> Result<Token, NoWord> {
        let mut text = String::new();
        let mut chars: Peekable<CharIndices<'_>> = self.rest().char_indices().peekable();
        chars.next();
        while let Some((at, c)) = chars.next() {
            if c != '\'' {
                text.push(c);
            } else if chars.next_if(|(_, next)| *next == '\'').is_some() {
                text.push('\'');
            } else {
                self.at += at + 1;
                return Ok(Token::Text(text));
            }
        }
        Err(NoWord(self.at))
    }

    fn number(&mut self) -> Result<Token, NoWord> {
        let rest = self.rest();
        let digits = |from: usize| {
            let tail = rest.get(from..).unwrap_or_default();
            from + tail
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(tail.len())
        };
        let whole = digits(0);
        let mut end = whole;
        if rest[end..].starts_with('.') {
            end = digits(end + 1);
        }
        let exponent = rest[end..].strip_prefix(['e', 'E']).map(|tail| {
            let sign = usize::from(tail.starts_with(['+', '-']));
            (end + 1 + sign, digits(end + 1 + sign))
        });
        if let Some((_, to)) = exponent.filter(|(from, to)| to > from) {
            end = to;
        }
        if end > whole {
            let value = rest[..end].parse().map_err(|_| NoWord(self.at))?;
            self.at += end;
            return Ok(Token::Double(value));
        }
        // A zero is a number of its own: `01` is two of them.
        let end = if rest.starts_with('0') { 1 } else { whole };
        let value = rest[..end].parse().map_err(|_| NoWord(self.at))?;
        self.at += end + usize::from(rest[end..].starts_with(['l', 'L']));
        Ok(Token::Long(value))
    }
}
