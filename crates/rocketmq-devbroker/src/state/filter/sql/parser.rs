//! Reads a condition by recursive descent, within bounds of size and depth.

use std::fmt;

use super::{
    Expr, Literal, Op, TextOp,
    lexer::{Keyword, Lexer, NoWord, Token},
};

/// Bytes of the longest condition that is read.
const MAX_BYTES: usize = 16 << 10;
/// How deeply a condition may be nested.
const MAX_DEPTH: usize = 100;

/// A condition that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ParseError {
    at: usize,
    what: &'static str,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what, self.at)
    }
}

/// Reads a condition. What follows a complete one is ignored, as on the server.
pub(super) fn parse(text: &str) -> Result<Expr, ParseError> {
    if text.len() > MAX_BYTES {
        let what = "the condition is too long";
        return Err(ParseError {
            at: MAX_BYTES,
            what,
        });
    }
    let mut lexer = Lexer::new(text);
    let next = lexer.next().map_err(no_word)?;
    let mut parser = Parser {
        lexer,
        next,
        depth: 0,
    };
    let expr = parser.any()?;
    parser.condition(expr)
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    next: Token,
    depth: usize,
}

fn no_word(NoWord(at): NoWord) -> ParseError {
    let what = "unexpected character";
    ParseError { at, what }
}

impl Parser<'_> {
    fn fail<T>(&self, what: &'static str) -> Result<T, ParseError> {
        let at = self.lexer.position();
        Err(ParseError { at, what })
    }

    fn advance(&mut self) -> Result<Token, ParseError> {
        let next = self.lexer.next().map_err(no_word)?;
        Ok(std::mem::replace(&mut self.next, next))
    }

    fn take(&mut self, token: &Token) -> Result<bool, ParseError> {
        let found = self.next == *token;
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn take_keyword(&mut self, keyword: Keyword) -> Result<bool, ParseError> {
        self.take(&Token::Keyword(keyword))
    }

    fn expect(&mut self, token: &Token, what: &'static str) -> Result<(), ParseError> {
        if self.take(token)? {
            return Ok(());
        }
        self.fail(what)
    }

    /// Counts a step down, which every recursion and every longer chain takes.
    fn deeper(&mut self) -> Result<(), ParseError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.fail("the condition is nested too deeply");
        }
        Ok(())
    }

    /// What may stand in a condition: not a number, not a text.
    fn condition(&self, expr: Expr) -> Result<Expr, ParseError> {
        match &expr {
            Expr::Literal(Literal::Long(_) | Literal::Double(_) | Literal::Text(_))
            | Expr::Negate(_) => self.fail("this is no condition"),
            _ => Ok(expr),
        }
    }

    fn any(&mut self) -> Result<Expr, ParseError> {
        self.joined(Keyword::Or, Self::all, Expr::Any)
    }

    fn all(&mut self) -> Result<Expr, ParseError> {
        self.joined(Keyword::And, Self::equality, Expr::All)
    }

    fn joined(
        &mut self,
        keyword: Keyword,
        part: fn(&mut Self) -> Result<Expr, ParseError>,
        join: fn(Vec<Expr>) -> Expr,
    ) -> Result<Expr, ParseError> {
        let first = part(self)?;
        if self.next != Token::Keyword(keyword) {
            return Ok(first);
        }
        let mut parts = vec![self.condition(first)?];
        while self.take_keyword(keyword)? {
            let next = part(self)?;
            parts.push(self.condition(next)?);
        }
        Ok(join(parts))
    }

    fn equality(&mut self) -> Result<Expr, ParseError> {
        let mut left = self.comparison()?;
        let depth = self.depth;
        loop {
            let op = match self.next {
                Token::Symbol("=") => Op::Equal,
                Token::Symbol("<>") => Op::NotEqual,
                Token::Keyword(Keyword::Is) => {
                    self.advance()?;
                    self.deeper()?;
                    let not = self.take_keyword(Keyword::Not)?;
                    self.expect(&Token::Keyword(Keyword::Null), "expected NULL")?;
                    left = negated(not, Expr::IsNull(Box::new(left)));
                    continue;
                }
                _ => break,
            };
            self.advance()?;
            self.deeper()?;
            let right = self.comparison()?;
            if [&left, &right].contains(&&Expr::Literal(Literal::Null)) {
                return self.fail("NULL is compared with IS NULL");
            }
            left = Expr::Compare(Box::new(left), op, Box::new(right));
        }
        self.depth = depth;
        Ok(left)
    }

    fn comparison(&mut self) -> Result<Expr, ParseError> {
        let mut left = self.unary()?;
        let depth = self.depth;
        loop {
            let op = match self.next {
                Token::Symbol("<") => Op::Less,
                Token::Symbol("<=") => Op::LessOrEqual,
                Token::Symbol(">") => Op::Greater,
                Token::Symbol(">=") => Op::GreaterOrEqual,
                Token::Keyword(
                    Keyword::Not
                    | Keyword::Between
                    | Keyword::In
                    | Keyword::Contains
                    | Keyword::StartsWith
                    | Keyword::EndsWith,
                ) => {
                    self.deeper()?;
                    left = self.special(left)?;
                    continue;
                }
                _ => break,
            };
            self.advance()?;
            self.deeper()?;
            let right = self.unary()?;
            left = self.ordered(left, op, right)?;
        }
        self.depth = depth;
        Ok(left)
    }

    /// BETWEEN, IN and the tests of texts, each with or without NOT.
    fn special(&mut self, left: Expr) -> Result<Expr, ParseError> {
        let not = self.take_keyword(Keyword::Not)?;
        let text_op = match self.next {
            Token::Keyword(Keyword::Contains) => Some(TextOp::Contains),
            Token::Keyword(Keyword::StartsWith) => Some(TextOp::StartsWith),
            Token::Keyword(Keyword::EndsWith) => Some(TextOp::EndsWith),
            _ => None,
        };
        if let Some(op) = text_op {
            self.advance()?;
            let text = self.text()?;
            return Ok(negated(not, Expr::Text(Box::new(left), op, text)));
        }
        if self.take_keyword(Keyword::Between)? {
            return self.between(left, not);
        }
        self.expect(&Token::Keyword(Keyword::In), "expected IN or BETWEEN")?;
        if !matches!(left, Expr::Property(_)) {
            return self.fail("IN needs a property on its left");
        }
        self.expect(&Token::Symbol("("), "expected (")?;
        let mut set = vec![self.text()?];
        while self.take(&Token::Symbol(","))? {
            set.push(self.text()?);
        }
        self.expect(&Token::Symbol(")"), "expected )")?;
        Ok(negated(not, Expr::In(Box::new(left), set)))
    }

    fn between(&mut self, value: Expr, not: bool) -> Result<Expr, ParseError> {
        let low = self.unary()?;
        self.expect(&Token::Keyword(Keyword::And), "expected AND")?;
        let high = self.unary()?;
        let reversed = match (&low, &high) {
            (Expr::Literal(Literal::Long(low)), Expr::Literal(Literal::Long(high))) => low > high,
            (Expr::Literal(Literal::Double(low)), Expr::Literal(Literal::Double(high))) => {
                low > high
            }
            _ => false,
        };
        if reversed {
            return self.fail("the bounds of BETWEEN are the wrong way round");
        }
        let (below, above) = if not {
            (Op::Less, Op::Greater)
        } else {
            (Op::GreaterOrEqual, Op::LessOrEqual)
        };
        let parts = vec![
            self.ordered(value.clone(), below, low)?,
            self.ordered(value, above, high)?,
        ];
        Ok(if not {
            Expr::Any(parts)
        } else {
            Expr::All(parts)
        })
    }

    /// A comparison by order, which neither conditions nor texts have.
    fn ordered(&self, left: Expr, op: Op, right: Expr) -> Result<Expr, ParseError> {
        for side in [&left, &right] {
            let has_order = match side {
                Expr::Property(_) | Expr::Negate(_) => true,
                Expr::Literal(literal) => {
                    matches!(literal, Literal::Long(_) | Literal::Double(_))
                }
                Expr::Not(_)
                | Expr::All(_)
                | Expr::Any(_)
                | Expr::Compare(..)
                | Expr::In(..)
                | Expr::Text(..)
                | Expr::IsNull(_) => false,
            };
            if !has_order {
                return self.fail("only numbers and properties are greater or less");
            }
        }
        Ok(Expr::Compare(Box::new(left), op, Box::new(right)))
    }

    fn text(&mut self) -> Result<String, ParseError> {
        match self.advance()? {
            Token::Text(text) => Ok(text),
            _ => self.fail("expected a text in quotes"),
        }
    }

    fn unary(&mut self) -> Result<Expr, ParseError> {
        self.deeper()?;
        let token = self.advance()?;
        let expr = match token {
            Token::Symbol("+") => self.unary()?,
            Token::Symbol("-") => match self.unary()? {
                Expr::Literal(Literal::Long(value)) => {
                    Expr::Literal(Literal::Long(value.wrapping_neg()))
                }
                Expr::Literal(Literal::Double(value)) => Expr::Literal(Literal::Double(-value)),
                inner => Expr::Negate(Box::new(inner)),
            },
            Token::Keyword(Keyword::Not) => {
                let inner = self.unary()?;
                Expr::Not(Box::new(self.condition(inner)?))
            }
            Token::Symbol("(") => {
                let inner = self.any()?;
                self.expect(&Token::Symbol(")"), "expected )")?;
                inner
            }
            Token::Word(name) => Expr::Property(name),
            Token::Text(text) => Expr::Literal(Literal::Text(text)),
            Token::Long(value) => Expr::Literal(Literal::Long(value)),
            Token::Double(value) => Expr::Literal(Literal::Double(value)),
            Token::Keyword(Keyword::True) => Expr::Literal(Literal::Bool(true)),
            Token::Keyword(Keyword::False) => Expr::Literal(Literal::Bool(false)),
            Token::Keyword(Keyword::Null) => Expr::Literal(Literal::Null),
            Token::Symbol(_) | Token::Keyword(_) | Token::End => {
                return self.fail("expected a property or a value");
            }
        };
        self.depth -= 1;
        Ok(expr)
    }
}

fn negated(not: bool, expr: Expr) -> Expr {
    if not { Expr::Not(Box::new(expr)) } else { expr }
}
