//! The server's dialect of SQL92 conditions over message properties.
//!
//! It looks odd in places and is so on purpose: it follows what the real server does with the
//! expressions in `tests/filter.rs`. Properties are strings; against a number or a boolean they are
//! read as one, and one that cannot be read makes the message unwanted whatever the rest says.
//! `NOT` binds more tightly than a comparison. What follows a complete condition is ignored.

mod lexer;
mod parser;

use std::cmp::Ordering;

pub(crate) use self::parser::ParseError;

/// A condition that was read.
#[derive(Debug)]
pub(crate) struct Sql(Expr);

/// What a condition is made of.
#[derive(Clone, Debug, PartialEq)]
enum Expr {
    Literal(Literal),
    Property(String),
    Negate(Box<Self>),
    Not(Box<Self>),
    /// All, or any, of several.
    All(Vec<Self>),
    Any(Vec<Self>),
    Compare(Box<Self>, Op, Box<Self>),
    In(Box<Self>, Vec<String>),
    Text(Box<Self>, TextOp, String),
    IsNull(Box<Self>),
}

#[derive(Clone, Debug, PartialEq)]
enum Literal {
    Null,
    Bool(bool),
    Long(i64),
    Double(f64),
    Text(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TextOp {
    Contains,
    StartsWith,
    EndsWith,
}

/// A value in an evaluation.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Value<'a> {
    Null,
    Bool(bool),
    Long(i64),
    Double(f64),
    Text(&'a str),
}

/// A value could not be compared: the message is not wanted.
#[derive(Debug)]
struct Incomparable;

type Lookup<'f, 'm> = &'f dyn Fn(&str) -> Option<&'m str>;

impl Sql {
    pub(crate) fn parse(text: &str) -> Result<Self, ParseError> {
        parser::parse(text).map(Self)
    }

    /// Whether the condition is true, given the message's properties.
    pub(crate) fn matches<'m>(&'m self, lookup: Lookup<'_, 'm>) -> bool {
        matches!(self.0.truth(lookup), Ok(Some(true)))
    }
}

impl Expr {
    fn value<'a>(&'a self, lookup: Lookup<'_, 'a>) -> Result<Value<'a>, Incomparable> {
        let truth = |truth: Option<bool>| truth.map_or(Value::Null, Value::Bool);
        Ok(match self {
            Self::Literal(literal) => literal.value(),
            // The store drops properties without a value.
            Self::Property(name) => lookup(name)
                .filter(|value| !value.is_empty())
                .map_or(Value::Null, Value::Text),
            Self::Negate(inner) => match inner.value(lookup)? {
                Value::Long(value) => Value::Long(value.wrapping_neg()),
                Value::Double(value) => Value::Double(-value),
                Value::Null | Value::Bool(_) | Value::Text(_) => Value::Null,
            },
            Self::Not(inner) => truth(inner.truth(lookup)?.map(|truth| !truth)),
            Self::All(parts) => truth(Self::fold(parts, false, lookup)?),
            Self::Any(parts) => truth(Self::fold(parts, true, lookup)?),
            Self::Compare(left, op, right) => {
                truth(compare(left.value(lookup)?, *op, right.value(lookup)?)?)
            }
            Self::In(inner, set) => match inner.value(lookup)? {
                Value::Text(text) => Value::Bool(set.iter().any(|member| member == text)),
                Value::Null | Value::Bool(_) | Value::Long(_) | Value::Double(_) => Value::Null,
            },
            Self::Text(inner, op, part) => match inner.value(lookup)? {
                Value::Text(text) => Value::Bool(op.holds(text, part)),
                Value::Null => Value::Null,
                Value::Bool(_) | Value::Long(_) | Value::Double(_) => Value::Bool(false),
            },
            Self::IsNull(inner) => Value::Bool(inner.value(lookup)? == Value::Null),
        })
    }

    /// As a part of a condition: true, false or unknown. A string is false.
    fn truth<'a>(&'a self, lookup: Lookup<'_, 'a>) -> Result<Option<bool>, Incomparable> {
        Ok(match self.value(lookup)? {
            Value::Null => None,
            Value::Bool(truth) => Some(truth),
            Value::Long(_) | Value::Double(_) | Value::Text(_) => Some(false),
        })
    }

    /// The first part that is `decides` settles it; else it is unknown if any part is.
    fn fold<'a>(
        parts: &'a [Self],
        decides: bool,
        lookup: Lookup<'_, 'a>,
    ) -> Result<Option<bool>, Incomparable> {
        let mut result = Some(!decides);
        for part in parts {
            match part.truth(lookup)? {
                Some(truth) if truth == decides => return Ok(Some(decides)),
                Some(_) => {}
                None => result = None,
            }
        }
        Ok(result)
    }
}

impl Literal {
    fn value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Long(value) => Value::Long(*value),
            Self::Double(value) => Value::Double(*value),
            Self::Text(value) => Value::Text(value),
        }
    }
}

impl TextOp {
    fn holds(self, text: &str, part: &str) -> bool {
        !part.is_empty()
            && match self {
                Self::Contains => text.contains(part),
                Self::StartsWith => text.starts_with(part),
                Self::EndsWith => text.ends_with(part),
            }
    }
}

impl Op {
    fn is_equality(self) -> bool {
        matches!(self, Self::Equal | Self::NotEqual)
    }

    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

fn compare(left: Value<'_>, op: Op, right: Value<'_>) -> Result<Option<bool>, Incomparable> {
    let order = match (left, right) {
        (Value::Null, Value::Null) if op.is_equality() => Some(Ordering::Equal),
        (Value::Null, _) | (_, Value::Null) => return Ok(None),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(&right)),
        (Value::Text(text), Value::Bool(right)) => Some(read_bool(text).cmp(&right)),
        (Value::Bool(left), Value::Text(text)) => Some(left.cmp(&read_bool(text))),
        (Value::Text(left), Value::Text(right)) if op.is_equality() => Some(left.cmp(right)),
        (Value::Text(left), Value::Text(right)) => {
            read_double(left)?.partial_cmp(&read_double(right)?)
        }
        (Value::Text(text), Value::Long(right)) => Some(read_long(text)?.cmp(&right)),
        (Value::Long(left), Value::Text(text)) => Some(left.cmp(&read_long(text)?)),
        (Value::Text(text), Value::Double(right)) => read_double(text)?.partial_cmp(&right),
        (Value::Double(left), Value::Text(text)) => left.partial_cmp(&read_double(text)?),
        (Value::Long(left), Value::Long(right)) => Some(left.cmp(&right)),
        (Value::Double(left), Value::Double(right)) => left.partial_cmp(&right),
        (Value::Long(left), Value::Double(right)) => widen(left).partial_cmp(&right),
        (Value::Double(left), Value::Long(right)) => left.partial_cmp(&widen(right)),
        (Value::Bool(_), Value::Long(_) | Value::Double(_))
        | (Value::Long(_) | Value::Double(_), Value::Bool(_)) => None,
    };
    Ok(Some(order.is_some_and(|order| op.holds(order))))
}

fn read_bool(text: &str) -> bool {
    text.eq_ignore_ascii_case("true")
}

fn read_long(text: &str) -> Result<i64, Incomparable> {
    text.parse().map_err(|_| Incomparable)
}

/// Reads what Java reads, near enough: no names of special values.
fn read_double(text: &str) -> Result<f64, Incomparable> {
    let text = text.trim().trim_end_matches(['d', 'D', 'f', 'F']);
    let number = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
    if !text.chars().all(number) {
        return Err(Incomparable);
    }
    text.parse().map_err(|_| Incomparable)
}

#[expect(clippy::cast_precision_loss, reason = "as the server compares them")]
fn widen(value: i64) -> f64 {
    value as f64
}
