//! The OpenAPI document of `POST /agent/v1/report`.

use report_proto::{PostReportRequest, PostReportResponse};
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

/// The document of [`routes`](crate::routes); its schemas are those of the types.
#[must_use]
pub fn openapi() -> Value {
    let settings = SchemaSettings::draft2020_12();
    let mut schemas = settings
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    let request = schemas.subschema_for::<PostReportRequest>();
    let response = schemas.subschema_for::<PostReportResponse>();
    let answer = |what: &str| {
        json!({
            "description": what,
            "content": { "application/json": { "schema": &response } },
        })
    };
    json!({
        "paths": { "/agent/v1/report": { "post": {
            "operationId": "postReport",
            "summary": "Takes a report, once the broker has confirmed it.",
            "requestBody": {
                "required": true,
                "content": { "application/json": {
                    "schema": request,
                    "example": {
                        "reportType": "event", "appId": "a", "appKey": "k",
                        "eventName": "login", "debug": 0, "content": "{}",
                    },
                } },
            },
            "responses": {
                "200": answer("It is taken."),
                "400": answer("It is wrong: `msg` says why."),
                "413": answer("It is too large."),
                "503": answer("The broker did not confirm it; it may be stored all the same."),
            },
        } } },
        "components": { "schemas": schemas.take_definitions(true) },
    })
}
