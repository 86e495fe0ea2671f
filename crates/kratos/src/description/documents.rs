//! Documents of an App, from the parts that its servers and resources write.
//!
//! What two parts say alike is said once. Where they mean different things by one name, the later
//! gets another, and what refers to it follows. A path of OpenAPI has no other name: of one
//! operation the first part's stands.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{AppDescription, AppInfo, Description};

/// Where names are given, in the order in which they are referred to.
const SECTIONS: [&str; 15] = [
    "/components/schemas",
    "/components/headers",
    "/components/examples",
    "/components/securitySchemes",
    "/components/parameters",
    "/components/links",
    "/components/requestBodies",
    "/components/responses",
    "/components/messages",
    "/components/callbacks",
    "/components/pathItems",
    "/servers",
    "/channels",
    "/operations",
    "/paths",
];

impl AppDescription {
    /// The names of the App's documents: `asyncapi`, `openapi`.
    #[must_use]
    pub fn documents(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .descriptions()
            .flat_map(Description::documents)
            .map(|document| document.name().to_owned())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// A document of the App by its name, whole; `None` if nobody writes a part of it.
    ///
    /// ```
    /// use kratos::{App, http};
    /// use serde_json::json;
    ///
    /// let openapi = json!({ "paths": { "/hello": { "get": { "responses": {} } } } });
    /// let server = http::Server::new(http::Config::default(), axum::Router::new()).openapi(openapi);
    /// let app = App::new().name("hello").version("1.2.0").server(server);
    /// let document = app.describe().document("openapi").expect("the server wrote it");
    /// assert_eq!(document["info"], json!({ "title": "hello", "version": "1.2.0" }));
    /// assert!(document["paths"]["/hello"]["get"].is_object());
    /// ```
    #[must_use]
    pub fn document(&self, name: &str) -> Option<Value> {
        let all = self.descriptions().flat_map(Description::documents);
        let mut parts = all.filter(|document| document.name() == name);
        let mut whole = parts.next()?.part().clone();
        for part in parts {
            merge(&mut whole, part.part().clone());
        }
        finish(&mut whole, name, &self.info);
        Some(whole)
    }

    fn descriptions(&self) -> impl Iterator<Item = &Description> {
        // Servers first: their parts say more.
        self.servers
            .iter()
            .chain(&self.resources)
            .map(|(_, described)| described)
    }
}

/// Adds what the App knows, where no part has said it.
fn finish(document: &mut Value, name: &str, info: &AppInfo) {
    let version = match name {
        "asyncapi" => "3.0.0",
        "openapi" => "3.1.0",
        _ => return,
    };
    if let Value::Object(fields) = document {
        fields.entry(name).or_insert_with(|| version.into());
        fields
            .entry("info")
            .or_insert_with(|| json!({ "title": info.name(), "version": info.version() }));
        if name == "openapi" {
            fields.entry("paths").or_insert_with(|| json!({}));
        }
    }
}

/// Merges `part` into `whole`.
fn merge(whole: &mut Value, mut part: Value) {
    for section in SECTIONS {
        settle(whole, &mut part, section);
        if section != "/channels" {
            continue;
        }
        let channels = part.get("channels").and_then(Value::as_object);
        let channels: Vec<String> = channels
            .into_iter()
            .flatten()
            .map(|(k, _)| k.clone())
            .collect();
        for channel in channels {
            settle(whole, &mut part, &format!("/channels/{channel}/messages"));
        }
    }
    add(whole, part);
}

/// Renames in `part` what `whole` means something else by.
fn settle(whole: &Value, part: &mut Value, section: &str) {
    let Some(Value::Object(there)) = whole.pointer(section) else {
        return;
    };
    // What is renamed changes what refers to it, which may then differ too. Each round renames one
    // name at least, for good.
    loop {
        let Some(Value::Object(here)) = part.pointer(section) else {
            return;
        };
        let differs = |(name, value): &(&String, &Value)| {
            there
                .get(*name)
                .is_some_and(|other| !agrees(section, other, value))
        };
        let renamed: BTreeMap<String, String> = here
            .iter()
            .filter(differs)
            .map(|(name, _)| (name.clone(), free(name, there, here)))
            .collect();
        if renamed.is_empty() {
            return;
        }
        rename(part, section, &renamed);
    }
}

/// Whether both may stand under one name.
fn agrees(section: &str, one: &Value, other: &Value) -> bool {
    match section {
        "/channels" => one.get("address") == other.get("address"),
        "/paths" => true,
        _ => one == other,
    }
}

fn free(name: &str, there: &Map<String, Value>, here: &Map<String, Value>) -> String {
    let mut number = 2;
    loop {
        let free = format!("{name}_{number}");
        if !there.contains_key(&free) && !here.contains_key(&free) {
            return free;
        }
        number += 1;
    }
}

fn rename(part: &mut Value, section: &str, renamed: &BTreeMap<String, String>) {
    if let Some(Value::Object(names)) = part.pointer_mut(section) {
        for (name, now) in renamed {
            if let Some(value) = names.remove(name) {
                names.insert(now.clone(), value);
            }
        }
    }
    follow(part, &format!("#{section}/"), renamed);
}

/// Changes references to what was renamed, and to what is inside.
fn follow(value: &mut Value, section: &str, renamed: &BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(to)) = fields.get_mut("$ref")
                && let Some(path) = to.strip_prefix(section)
            {
                let (name, inside) = path.split_at(path.find('/').unwrap_or(path.len()));
                if let Some(now) = renamed.get(name) {
                    *to = format!("{section}{now}{inside}");
                }
            }
            fields
                .values_mut()
                .for_each(|value| follow(value, section, renamed));
        }
        Value::Array(values) => values
            .iter_mut()
            .for_each(|value| follow(value, section, renamed)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Adds what is missing; what is there stands.
fn add(whole: &mut Value, part: Value) {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            for (name, value) in part {
                match whole.get_mut(&name) {
                    Some(there) => add(there, value),
                    None => {
                        whole.insert(name, value);
                    }
                }
            }
        }
        (Value::Array(whole), Value::Array(part)) => {
            for value in part {
                if !whole.contains(&value) {
                    whole.push(value);
                }
            }
        }
        (_, _) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(parts: impl IntoIterator<Item = Value>) -> Value {
        let mut parts = parts.into_iter();
        let mut whole = parts.next().unwrap();
        for part in parts {
            merge(&mut whole, part);
        }
        whole
    }

    #[expect(clippy::needless_pass_by_value, reason = "tests read better so")]
    fn part(schema: Value) -> Value {
        json!({
            "channels": { "t": {
                "address": "t",
                "servers": [{ "$ref": "#/servers/s" }],
                "messages": { "M": { "$ref": "#/components/messages/M" } },
            } },
            "operations": { "o": {
                "action": "send",
                "channel": { "$ref": "#/channels/t" },
                "messages": [{ "$ref": "#/channels/t/messages/M" }],
            } },
            "components": {
                "messages": { "M": { "payload": { "$ref": "#/components/schemas/Outer" } } },
                "schemas": {
                    "Outer": { "properties": { "inner": { "$ref": "#/components/schemas/Inner" } } },
                    "Inner": schema,
                },
            },
        })
    }

    #[test]
    fn what_is_said_twice_is_said_once() {
        let one = part(json!({ "type": "string" }));
        assert_eq!(merged([one.clone(), one.clone(), one.clone()]), one);
    }

    #[test]
    fn what_differs_gets_another_name_and_all_that_refers_to_it_follows() {
        let [one, two] = ["string", "integer"].map(|kind| part(json!({ "type": kind })));
        let whole = merged([one.clone(), two.clone(), two]);
        let at = |pointer: &str| whole.pointer(pointer).unwrap();
        assert_eq!(whole["operations"]["o"], one["operations"]["o"]);
        assert_eq!(
            at("/components/schemas/Inner"),
            &json!({ "type": "string" })
        );
        assert_eq!(
            at("/components/schemas/Inner_2"),
            &json!({ "type": "integer" })
        );
        let message = "/operations/o_2/messages/0/$ref";
        assert_eq!(at(message), "#/channels/t/messages/M_2");
        let message = "/channels/t/messages/M_2/$ref";
        assert_eq!(at(message), "#/components/messages/M_2");
        let outer = "/components/messages/M_2/payload/$ref";
        assert_eq!(at(outer), "#/components/schemas/Outer_2");
        let inner = "/components/schemas/Outer_2/properties/inner/$ref";
        assert_eq!(at(inner), "#/components/schemas/Inner_2");
        assert_eq!(at("/channels").as_object().unwrap().len(), 1, "one topic");
    }

    #[test]
    fn channels_of_one_key_and_two_topics_are_two() {
        let of = |topic: &str| json!({ "channels": { "t": { "address": topic } } });
        let whole = merged([of("%t"), of("t%")]);
        assert_eq!(whole["channels"]["t"]["address"], "%t");
        assert_eq!(whole["channels"]["t_2"]["address"], "t%");
    }

    #[test]
    fn paths_of_two_servers_stand_together() {
        let one = json!({ "paths": { "/a": { "get": { "summary": "one" } } } });
        let two = json!({ "paths": {
            "/a": { "get": { "summary": "two" }, "post": {} },
            "/b": { "get": {} },
        } });
        let whole = merged([one, two]);
        assert_eq!(whole["paths"]["/a"]["get"]["summary"], "one");
        assert!(whole["paths"]["/a"]["post"].is_object() && whole["paths"]["/b"].is_object());
    }
}
