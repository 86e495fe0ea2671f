//! The OpenAPI document of `GET /saver/v1/reports`.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::{
    Report,
    list::{LIMIT_DEFAULT, LIMIT_MAX, Problem},
};

/// The document of [`routes`](crate::routes); its schemas are those of the types.
#[must_use]
pub fn openapi() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let mut schemas = settings
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    let reports = schemas.subschema_for::<Vec<Report>>();
    let problem = schemas.subschema_for::<Problem>();
    let answer = |what: &str, schema: &schemars::Schema| {
        json!({
            "description": what,
            "content": { "application/json": { "schema": schema } },
        })
    };
    json!({
        "paths": { "/saver/v1/reports": { "get": {
            "operationId": "listReports",
            "summary": "The newest reports, newest first.",
            "parameters": [{
                "name": "limit",
                "in": "query",
                "description": "How many at most.",
                "schema": {
                    "type": "integer",
                    "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT,
                },
            }],
            "responses": {
                "200": answer("The reports.", &reports),
                "400": answer("The limit is no number, or out of its range.", &problem),
                "503": answer("The database does not answer.", &problem),
            },
        } } },
        "components": { "schemas": schemas.take_definitions(true) },
    })
}
