//! The language of SelectObjectContent, as far as it is understood: `SELECT columns FROM S3Object s WHERE ... AND ... LIMIT n`.
//!
//! What is not understood is refused by name. It reads no object.

use s3s::{S3Error, S3ErrorCode};
use serde_json::{Map, Value};

/// A query that was understood.
#[derive(Debug, PartialEq)]
pub struct Query {
    /// None are all.
    pub columns: Option<Vec<Column>>,
    pub conditions: Vec<Condition>,
    /// So many at most.
    pub limit: Option<usize>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Names from the outside in.
    pub path: Vec<String>,
    pub called: Option<String>,
}

#[derive(Debug, PartialEq)]
pub struct Condition {
    column: Vec<String>,
    is: Comparison,
    value: Value,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Comparison {
    Equal,
    Other,
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
}

#[derive(Clone, Debug, PartialEq)]
enum Word {
    /// A name or a keyword.
    Name(String),
    /// A name in quotes.
    Quoted(String),
    Text(String),
    Number(String),
    Sign(String),
}

impl Query {
    pub fn parse(text: &str) -> Result<Self, S3Error> {
        let mut words = Words {
            words: words(text)?,
            at: 0,
        };
        words.expect("SELECT")?;
        let columns = words.columns()?;
        words.expect("FROM")?;
        let source = words.name()?;
        if !source.eq_ignore_ascii_case("s3object") {
            return Err(malformed(format!(
                "FROM {source}: the one table is S3Object"
            )));
        }
        // S3Object[*] is each of its records.
        if words.sign("[") {
            if !(words.sign("*") && words.sign("]")) {
                return Err(malformed(
                    "Paths into documents are not understood by this store",
                ));
            }
            if words.sign(".") || words.sign("[") {
                return Err(malformed(
                    "Paths into documents are not understood by this store",
                ));
            }
        }
        let mut alias = "s3object".to_owned();
        let _ = words.keyword("AS");
        if let Some(Word::Name(name)) = words.peek()
            && !is_keyword(name)
        {
            alias = name.clone();
            words.at += 1;
        }
        let mut conditions = Vec::new();
        if words.keyword("WHERE") {
            loop {
                conditions.push(words.condition(&alias)?);
                if !words.keyword("AND") {
                    break;
                }
            }
        }
        let mut limit = None;
        if words.keyword("LIMIT") {
            limit = match words.next() {
                Some(Word::Number(number)) => number.parse().ok(),
                _ => None,
            };
            if limit.is_none() {
                return Err(malformed("LIMIT needs a number"));
            }
        }
        if let Some(word) = words.peek() {
            return Err(malformed(format!(
                "{word:?} is not understood by this store here"
            )));
        }
        let columns = columns.map(|columns| {
            let columns = columns.into_iter().map(|column| Column {
                path: without(&alias, column.path),
                ..column
            });
            columns.collect()
        });
        Ok(Self {
            columns,
            conditions,
            limit,
        })
    }
}

/// A value in a record, by its names; `_2` is its second.
pub fn find<'r>(record: &'r Map<String, Value>, path: &[String]) -> Option<&'r Value> {
    let (first, rest) = path.split_first()?;
    let found = record
        .get(first)
        .or_else(|| {
            record
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(first))
                .map(|(_, value)| value)
        })
        .or_else(|| {
            let place: usize = first.strip_prefix('_')?.parse().ok()?;
            record.values().nth(place.checked_sub(1)?)
        })?;
    match rest {
        [] => Some(found),
        rest => find(found.as_object()?, rest),
    }
}

fn without(alias: &str, mut path: Vec<String>) -> Vec<String> {
    if path.len() > 1
        && (path[0].eq_ignore_ascii_case(alias) || path[0].eq_ignore_ascii_case("s3object"))
    {
        path.remove(0);
    }
    path
}

impl Condition {
    pub fn holds(&self, record: &Map<String, Value>) -> bool {
        use std::cmp::Ordering::{Equal, Greater, Less};
        let Some(found) = find(record, &self.column) else {
            return false;
        };
        let number = |value: &Value| match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            Value::Bool(_) | Value::Null | Value::Array(_) | Value::Object(_) => None,
        };
        let order = match (&self.value, found) {
            // A number in the query makes it a comparison of numbers.
            (Value::Number(_), found) => match (number(found), number(&self.value)) {
                (Some(found), Some(wanted)) => found.partial_cmp(&wanted),
                _ => None,
            },
            (Value::String(wanted), Value::String(found)) => Some(found.as_str().cmp(wanted)),
            (Value::String(wanted), Value::Number(found)) => {
                Some(found.to_string().as_str().cmp(wanted))
            }
            (wanted, found) => (wanted == found).then_some(Equal),
        };
        let Some(order) = order else {
            return self.is == Comparison::Other;
        };
        match self.is {
            Comparison::Equal => order == Equal,
            Comparison::Other => order != Equal,
            Comparison::Less => order == Less,
            Comparison::LessOrEqual => order != Greater,
            Comparison::More => order == Greater,
            Comparison::MoreOrEqual => order != Less,
        }
    }
}

struct Words {
    words: Vec<Word>,
    at: usize,
}

impl Words {
    fn peek(&self) -> Option<&Word> {
        self.words.get(self.at)
    }

    fn next(&mut self) -> Option<Word> {
        self.at += 1;
        self.words.get(self.at - 1).cloned()
    }

    fn keyword(&mut self, wanted: &str) -> bool {
        let found =
            matches!(self.peek(), Some(Word::Name(name)) if name.eq_ignore_ascii_case(wanted));
        self.at += usize::from(found);
        found
    }

    fn sign(&mut self, wanted: &str) -> bool {
        let found = matches!(self.peek(), Some(Word::Sign(sign)) if sign == wanted);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, wanted: &str) -> Result<(), S3Error> {
        if self.keyword(wanted) {
            return Ok(());
        }
        Err(malformed(format!(
            "{wanted} was expected: this store understands SELECT columns FROM S3Object s WHERE ... AND ... LIMIT n"
        )))
    }

    fn name(&mut self) -> Result<String, S3Error> {
        match self.next() {
            Some(Word::Name(name) | Word::Quoted(name)) => Ok(name),
            other => Err(malformed(format!("a name was expected, not {other:?}"))),
        }
    }

    fn path(&mut self) -> Result<Vec<String>, S3Error> {
        let mut path = vec![self.name()?];
        while self.sign(".") {
            path.push(self.name()?);
        }
        Ok(path)
    }

    fn columns(&mut self) -> Result<Option<Vec<Column>>, S3Error> {
        if self.sign("*") {
            return Ok(None);
        }
        let mut columns = Vec::new();
        loop {
            let mut path = vec![self.name()?];
            while self.sign(".") {
                // s.* is everything.
                if self.sign("*") {
                    return Ok(None);
                }
                path.push(self.name()?);
            }
            if self.sign("(") {
                return Err(malformed(
                    "Functions and aggregates are not understood by this store",
                ));
            }
            let called = if self.keyword("AS") {
                Some(self.name()?)
            } else {
                None
            };
            columns.push(Column { path, called });
            if !self.sign(",") {
                return Ok(Some(columns));
            }
        }
    }

    fn condition(&mut self, alias: &str) -> Result<Condition, S3Error> {
        // CAST(x AS kind): the comparison goes by what the value is compared with.
        let cast = self.keyword("CAST");
        if cast && !self.sign("(") {
            return Err(malformed("CAST needs a parenthesis"));
        }
        let column = self.path()?;
        if cast {
            self.expect("AS")?;
            self.name()?;
            if !self.sign(")") {
                return Err(malformed("CAST needs its closing parenthesis"));
            }
        }
        let is = match self.next() {
            Some(Word::Sign(sign)) => match sign.as_str() {
                "=" => Comparison::Equal,
                "!=" | "<>" => Comparison::Other,
                "<" => Comparison::Less,
                "<=" => Comparison::LessOrEqual,
                ">" => Comparison::More,
                ">=" => Comparison::MoreOrEqual,
                other => {
                    return Err(malformed(format!(
                        "{other} is no comparison that this store understands"
                    )));
                }
            },
            other => {
                return Err(malformed(format!(
                    "a comparison was expected, not {other:?}"
                )));
            }
        };
        let value = match self.next() {
            Some(Word::Text(text)) => Value::String(text),
            Some(Word::Number(number)) => number
                .parse()
                .map(Value::Number)
                .map_err(|_| malformed(format!("{number} is no number")))?,
            Some(Word::Name(name)) if name.eq_ignore_ascii_case("true") => Value::Bool(true),
            Some(Word::Name(name)) if name.eq_ignore_ascii_case("false") => Value::Bool(false),
            other => return Err(malformed(format!("a value was expected, not {other:?}"))),
        };
        Ok(Condition {
            column: without(alias, column),
            is,
            value,
        })
    }
}

fn is_keyword(name: &str) -> bool {
    ["WHERE", "LIMIT", "AND", "OR", "JOIN", "GROUP", "ORDER"]
        .iter()
        .any(|keyword| name.eq_ignore_ascii_case(keyword))
}

/// The words of a query.
fn words(text: &str) -> Result<Vec<Word>, S3Error> {
    let mut words = Vec::new();
    let mut rest = text.trim().trim_end_matches(';');
    while let Some(first) = rest.chars().next() {
        let (word, length) = match first {
            _ if first.is_whitespace() => {
                rest = rest.trim_start();
                continue;
            }
            '\'' | '"' => {
                let (inner, length) = quoted(rest, first)?;
                let word = if first == '"' {
                    Word::Quoted(inner)
                } else {
                    Word::Text(inner)
                };
                (word, length)
            }
            '0'..='9' | '-' | '+' => {
                let end = rest[1..]
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '-' && c != '+');
                let length = end.map_or(rest.len(), |end| end + 1);
                (
                    Word::Number(rest[..length].trim_start_matches('+').to_owned()),
                    length,
                )
            }
            _ if first.is_alphabetic() || first == '_' => {
                let length = rest
                    .find(|c: char| !c.is_alphanumeric() && c != '_')
                    .unwrap_or(rest.len());
                (Word::Name(rest[..length].to_owned()), length)
            }
            _ => {
                let two = rest
                    .get(..2)
                    .filter(|two| ["!=", "<>", "<=", ">="].contains(two));
                let sign = two.map_or_else(|| first.to_string(), str::to_owned);
                let length = sign.len();
                (Word::Sign(sign), length)
            }
        };
        words.push(word);
        rest = &rest[length..];
    }
    Ok(words)
}

/// What stands in quotes, doubled ones being one, and how long it is with them.
fn quoted(text: &str, quote: char) -> Result<(String, usize), S3Error> {
    let mut inner = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != quote {
            inner.push(c);
        } else if chars.peek().is_some_and(|(_, next)| *next == quote) {
            inner.push(quote);
            chars.next();
        } else {
            return Ok((inner, at + 1));
        }
    }
    Err(malformed(format!("a {quote} is not closed")))
}

pub fn malformed(what: impl Into<String>) -> S3Error {
    S3Error::with_message(S3ErrorCode::UnsupportedSqlStructure, what.into())
}
