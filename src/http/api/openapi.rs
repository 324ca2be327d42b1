//! The API, described by its own table: OpenAPI 3.1, <https://spec.openapis.org/oas/v3.1.1.html>.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::{BASE, Describe, Failure, ROUTES, Route, describe};

const COMPONENTS: &str = "/components/schemas";

/// What `docs/openapi.json` holds.
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = COMPONENTS.into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let problem = describe::<Failure>(&mut generator).to_value();
    let mut paths: Map<String, Value> = Map::new();
    for route in &ROUTES {
        let path = paths.entry(format!("{BASE}{}", route.path)).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(route.method.as_str().to_ascii_lowercase(), operation(route, &mut generator, &problem));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Callboard",
            "version": "1",
            "description": "Subscriptions and deliveries for automation. Each request carries a token of [[server.tokens]].",
        },
        "paths": paths,
        "security": [{ "token": [] }],
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": generator.take_definitions(true),
        },
    })
}

fn operation(route: &Route, generator: &mut SchemaGenerator, problem: &Value) -> Value {
    let failure = |about: &str| {
        json!({
            "description": about,
            "content": { "application/problem+json": { "schema": problem } },
        })
    };
    let mut responses = Map::new();
    for (status, about, body) in route.answers {
        let response = match body {
            Some(body) => json!({ "description": about, "content": content(*body, generator) }),
            None => json!({ "description": about }),
        };
        responses.insert(status.to_string(), response);
    }
    responses.insert("401".to_owned(), failure("No token, or one that is not known"));
    responses.insert("403".to_owned(), failure("The token lacks the scope"));
    responses.insert("default".to_owned(), failure("Anything else; detail says what to do"));
    let body = route.body.map(|body| json!({ "required": true, "content": content(body, generator) }));
    let operation = json!({
        "summary": route.about,
        "description": format!("Needs the scope {}.", route.scope.as_str()),
        "parameters": parameters(route, generator),
        "requestBody": body,
        "responses": responses,
    });
    without_nulls(operation)
}

/// What is not there is left out.
fn without_nulls(mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    object
}

fn content(describe: Describe, generator: &mut SchemaGenerator) -> Value {
    json!({ "application/json": { "schema": describe(generator) } })
}

fn parameters(route: &Route, generator: &mut SchemaGenerator) -> Vec<Value> {
    let in_path = route
        .path
        .contains("{id}")
        .then(|| json!({ "name": "id", "in": "path", "required": true, "schema": { "type": "string" } }));
    let mut parameters: Vec<Value> = in_path.into_iter().collect();
    let Some(query) = route.query else { return parameters };
    // A query is described by a structure of its own, which is told field by field.
    let reference = query(generator).to_value();
    let name = reference.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
    let fields = name.and_then(|name| generator.definitions().get(name)?.get("properties")?.as_object().cloned());
    for (name, mut schema) in fields.unwrap_or_default() {
        let about = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        let parameter = json!({ "name": name, "in": "query", "description": about, "schema": schema });
        parameters.push(without_nulls(parameter));
    }
    parameters
}
