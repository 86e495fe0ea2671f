//! Deserializes a merged configuration.
//!
//! figment's own deserializer wants the environment's values typed before the field's type is
//! known, so that `123` is no string any more. This one keeps them as strings and reads them as the
//! field asks.

use std::collections::btree_map;

use figment::{
    Figment, Source,
    providers::{Format, Toml},
    value::{Dict, Num, Value},
};
use serde::{
    Deserializer,
    de::{
        DeserializeSeed, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor,
        value::{MapAccessDeserializer, StrDeserializer},
    },
};

use super::fault::{Fault, Step};

/// A value on its way into a field.
#[derive(Clone, Copy)]
pub(super) struct Node<'v> {
    figment: &'v Figment,
    value: &'v Value,
    /// Whether a string may be read as another type: it comes from the environment.
    loose: bool,
}

struct Entries<'v> {
    parent: Node<'v>,
    entries: btree_map::Iter<'v, String, Value>,
    pending: Option<(&'v String, &'v Value)>,
}

struct Items<'v> {
    parent: Node<'v>,
    items: &'v [Value],
    next: usize,
}

// === impl Node ===

impl<'v> Node<'v> {
    pub(super) fn new(figment: &'v Figment, value: &'v Value) -> Self {
        let source = figment.get_metadata(value.tag());
        let source = source.and_then(|source| source.source.as_ref());
        Self {
            figment,
            value,
            loose: matches!(source, Some(Source::Custom(_))),
        }
    }

    fn child(self, value: &'v Value) -> Self {
        let child = Self::new(self.figment, value);
        Self {
            loose: self.loose || child.loose,
            ..child
        }
    }

    fn entries(self, dict: &'v Dict) -> Entries<'v> {
        Entries {
            parent: self,
            entries: dict.iter(),
            pending: None,
        }
    }

    fn items(self, items: &'v [Value]) -> Items<'v> {
        Items {
            parent: self,
            items,
            next: 0,
        }
    }

    /// The string, if it may be read as another type.
    fn text(&self) -> Option<&'v str> {
        match self.value {
            Value::String(_, text) if self.loose => Some(text.trim()),
            _ => None,
        }
    }

    fn number<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.text().and_then(parse_number) {
            Some(number) => visit_number(number, visitor),
            None => self.as_it_is(visitor),
        }
    }

    /// Visits the value as what it is: a string stays one.
    fn as_it_is<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::String(_, text) => visitor.visit_str(text),
            Value::Char(_, value) => visitor.visit_char(*value),
            Value::Bool(_, value) => visitor.visit_bool(*value),
            Value::Num(_, number) => visit_number(*number, visitor),
            Value::Empty(..) => visitor.visit_unit(),
            Value::Dict(_, dict) => visitor.visit_map(self.entries(dict)),
            Value::Array(_, items) => visitor.visit_seq(self.items(items)),
        }
    }
}

/// Deserializer methods that all do the same.
macro_rules! forward {
    ($to:ident: $($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            self.$to(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Node<'_> {
    type Error = Fault;

    forward!(number: deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_u128 deserialize_f32 deserialize_f64);

    forward!(as_it_is: deserialize_char deserialize_str deserialize_string deserialize_bytes
        deserialize_byte_buf deserialize_map deserialize_identifier deserialize_ignored_any);

    /// Where nobody says which type is wanted, a string of the environment is guessed; in double
    /// quotes it stays one.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Some(text) = self.text() else {
            return self.as_it_is(visitor);
        };
        let quoted = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
        if let Some(quoted) = quoted {
            visitor.visit_str(quoted)
        } else if let Ok(value) = text.parse() {
            visitor.visit_bool(value)
        } else if let Some(number) = parse_number(text) {
            visit_number(number, visitor)
        } else {
            self.as_it_is(visitor)
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.text().map(str::to_lowercase).as_deref() {
            Some("true" | "1") => visitor.visit_bool(true),
            Some("false" | "0") => visitor.visit_bool(false),
            _ => self.as_it_is(visitor),
        }
    }

    /// An empty variable is as none: a deployment's template cannot leave a variable out.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Empty(..) => visitor.visit_none(),
            _ if self.text() == Some("") => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.text() {
            Some("") => visitor.visit_unit(),
            _ => self.as_it_is(visitor),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Some(text) = self.text() else {
            return self.as_it_is(visitor);
        };
        visitor.visit_seq(Items {
            parent: self,
            items: &parse_list(text)?,
            next: 0,
        })
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.as_it_is(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.value {
            Value::String(_, text) => {
                let variant: StrDeserializer<'_, Fault> = text.as_str().into_deserializer();
                visitor.visit_enum(variant)
            }
            Value::Dict(_, dict) => {
                visitor.visit_enum(MapAccessDeserializer::new(self.entries(dict)))
            }
            _ => self.as_it_is(visitor),
        }
    }
}

// === impl Entries ===

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        self.pending = self.entries.next();
        let Some((key, _)) = self.pending else {
            return Ok(None);
        };
        let key: StrDeserializer<'_, Fault> = key.as_str().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some((key, value)) = self.pending.take() else {
            return Err(Fault::custom("a value was asked for before its key"));
        };
        seed.deserialize(self.parent.child(value))
            .map_err(|fault| fault.within(Step::Key(key.clone())))
    }
}

// === impl Items ===

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let index = self.next;
        let Some(item) = self.items.get(index) else {
            return Ok(None);
        };
        self.next += 1;
        seed.deserialize(self.parent.child(item))
            .map(Some)
            .map_err(|fault| fault.within(Step::Index(index)))
    }

    fn size_hint(&self) -> Option<usize> {
        self.items.len().checked_sub(self.next)
    }
}

fn visit_number<'de, V: Visitor<'de>>(number: Num, visitor: V) -> Result<V::Value, Fault> {
    if let Some(value) = number.to_i128() {
        match i64::try_from(value) {
            Ok(value) => visitor.visit_i64(value),
            Err(_beyond) => visitor.visit_i128(value),
        }
    } else if let Some(value) = number.to_u128() {
        match u64::try_from(value) {
            Ok(value) => visitor.visit_u64(value),
            Err(_beyond) => visitor.visit_u128(value),
        }
    } else if let Some(value) = number.to_f64() {
        visitor.visit_f64(value)
    } else {
        Err(Fault::custom("no number of this size is supported"))
    }
}

/// Whole numbers, then fractions; `None` for other text.
fn parse_number(text: &str) -> Option<Num> {
    if let Ok(value) = text.parse::<u64>() {
        return Some(Num::U64(value));
    }
    if let Ok(value) = text.parse::<i64>() {
        return Some(Num::I64(value));
    }
    // `inf` and `nan` are words first.
    if text.contains(|c: char| c.is_ascii_digit()) {
        return text.parse().ok().map(Num::F64);
    }
    None
}

/// A TOML array, or items between commas, which stay strings until their type is known.
fn parse_list(text: &str) -> Result<Vec<Value>, Fault> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    if !text.starts_with('[') {
        return Ok(text.split(',').map(|item| item.trim().into()).collect());
    }
    let mut document: Dict = Toml::from_str(&format!("list = {text}"))
        .map_err(|error| Fault::custom(format_args!("no TOML array: {}", error.message())))?;
    match document.remove("list") {
        Some(Value::Array(_, items)) if document.is_empty() => Ok(items),
        _ => Err(Fault::custom("no TOML array")),
    }
}
