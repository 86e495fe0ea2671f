//! Schemas of types, under `#/components/schemas`.

use std::{any::TypeId, borrow::Cow, collections::BTreeMap, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value};

const PLACE: &str = "/components/schemas";

/// How the schema of a type is made.
#[derive(Clone, Copy)]
pub(crate) struct SchemaOf {
    pub(crate) id: TypeId,
    pub(crate) name: &'static str,
    title: fn() -> Cow<'static, str>,
    make: fn(&mut SchemaGenerator) -> Schema,
}

/// Makes schemas, and collects what they refer to.
pub(crate) struct Schemas {
    generator: SchemaGenerator,
}

// === impl SchemaOf ===

impl SchemaOf {
    pub(crate) fn of<T: JsonSchema + 'static>() -> Self {
        Self {
            id: TypeId::of::<T>(),
            name: std::any::type_name::<T>(),
            title: T::schema_name,
            make: SchemaGenerator::subschema_for::<T>,
        }
    }

    pub(crate) fn title(&self) -> String {
        key(&(self.title)())
    }
}

impl PartialEq for SchemaOf {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for SchemaOf {}

impl fmt::Debug for SchemaOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

// === impl Schemas ===

impl Schemas {
    pub(crate) fn new() -> Self {
        // AsyncAPI's own schemas are a superset of this draft; what schemars calls definitions
        // stands where AsyncAPI has it.
        let settings = SchemaSettings::draft07().with(|settings| {
            settings.definitions_path = Cow::Borrowed(PLACE);
            settings.meta_schema = None;
        });
        Self {
            generator: settings.into_generator(),
        }
    }

    pub(crate) fn payload(&mut self, schema: &SchemaOf) -> Value {
        let mut payload = (schema.make)(&mut self.generator);
        for transform in self.generator.transforms_mut() {
            transform.transform(&mut payload);
        }
        payload.to_value()
    }

    /// All that was referred to, by names that AsyncAPI takes; references in `document` follow.
    pub(crate) fn finish(mut self, document: &mut Value) -> Map<String, Value> {
        let mut schemas = self.generator.take_definitions(true);
        let mut renamed = BTreeMap::new();
        for name in schemas.keys().filter(|name| key(name) != **name) {
            let (mut fits, mut number) = (key(name), 2);
            while schemas.contains_key(&fits) || renamed.values().any(|other| *other == fits) {
                fits = format!("{}_{number}", key(name));
                number += 1;
            }
            renamed.insert(name.clone(), fits);
        }
        for (name, fits) in &renamed {
            if let Some(schema) = schemas.remove(name) {
                schemas.insert(fits.clone(), schema);
            }
        }
        let renamed = renamed
            .iter()
            .map(|(name, fits)| (reference(name), reference(fits)))
            .collect();
        follow(document, &renamed);
        schemas
            .values_mut()
            .for_each(|schema| follow(schema, &renamed));
        schemas
    }
}

/// As schemars writes it: a JSON pointer in the fragment of a URI.
fn reference(name: &str) -> String {
    let mut text = format!("#{PLACE}/");
    for byte in name.replace('~', "~0").replace('/', "~1").bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// Changes references that are among these.
fn follow(value: &mut Value, renamed: &BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(to)) = fields.get_mut("$ref")
                && let Some(now) = renamed.get(to)
            {
                to.clone_from(now);
            }
            fields.values_mut().for_each(|value| follow(value, renamed));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| follow(value, renamed)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A name that AsyncAPI takes as a key.
pub(crate) fn key(text: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let text = text.chars();
    text.map(|c| if fits(c) { c } else { '_' }).collect()
}
