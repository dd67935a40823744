//! The OpenAPI document of version 2 as protobuf: the message `openapi.v2.Document` of gnostic.
//!
//! `kubectl` of 1.20 takes the document in this form alone. The numbers are those of
//! `openapiv2/OpenAPIv2.proto`; of its messages, those that our document has are written.

use serde_json::{Map, Value};

/// A message as it is written, field by field.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            // The low seven bits, with the mark that more follow.
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u32, wire: u32) {
        self.varint(u64::from(field << 3 | wire));
    }

    fn bytes(&mut self, field: u32, value: &[u8]) {
        self.key(field, 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    /// Writes a text. Protobuf leaves out what is empty.
    fn text(&mut self, field: u32, value: Option<&Value>) {
        if let Some(text) = value.and_then(Value::as_str).filter(|text| !text.is_empty()) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn texts(&mut self, field: u32, value: Option<&Value>) {
        for text in value.and_then(Value::as_array).into_iter().flatten() {
            self.bytes(field, text.as_str().unwrap_or_default().as_bytes());
        }
    }

    fn flag(&mut self, field: u32, value: Option<&Value>) {
        if value.and_then(Value::as_bool) == Some(true) {
            self.key(field, 0);
            self.varint(1);
        }
    }

    fn double(&mut self, field: u32, value: Option<&Value>) {
        if let Some(number) = value.and_then(Value::as_f64) {
            self.key(field, 1);
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn message(&mut self, field: u32, value: &Self) {
        self.bytes(field, &value.0);
    }

    /// Writes a pair of a name and a message, as the document has its maps.
    fn pair(&mut self, field: u32, name: &str, value: &Self) {
        let mut pair = Self::default();
        pair.bytes(1, name.as_bytes());
        pair.message(2, value);
        self.message(field, &pair);
    }

    /// Writes the names that begin with `x-`: their values are YAML, of which JSON is a part.
    fn extensions(&mut self, field: u32, of: &Map<String, Value>) {
        for (name, value) in of.iter().filter(|(name, _)| name.starts_with("x-")) {
            self.pair(field, name, &any(value));
        }
    }
}

fn any(value: &Value) -> Message {
    let mut message = Message::default();
    message.bytes(2, value.to_string().as_bytes());
    message
}

/// The document as bytes.
pub(super) fn document(document: &Value) -> Vec<u8> {
    let mut message = Message::default();
    message.text(1, document.get("swagger"));
    let mut info = Message::default();
    info.text(1, document.pointer("/info/title"));
    info.text(2, document.pointer("/info/version"));
    message.message(2, &info);
    let mut paths = Message::default();
    for (name, item) in fields(document.get("paths")) {
        paths.pair(2, name, &path_item(item));
    }
    message.message(8, &paths);
    let mut definitions = Message::default();
    for (name, of) in fields(document.get("definitions")) {
        definitions.pair(1, name, &schema(of));
    }
    message.message(9, &definitions);
    message.0
}

fn fields(value: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    value.and_then(Value::as_object).into_iter().flatten()
}

fn path_item(item: &Value) -> Message {
    let mut message = Message::default();
    for (field, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(Value::Object(of)) = item.get(method) {
            message.message(field, &operation(of));
        }
    }
    parameters(&mut message, 9, item.get("parameters"));
    message
}

fn operation(of: &Map<String, Value>) -> Message {
    let mut message = Message::default();
    message.texts(1, of.get("tags"));
    message.text(3, of.get("description"));
    message.text(5, of.get("operationId"));
    message.texts(6, of.get("produces"));
    message.texts(7, of.get("consumes"));
    parameters(&mut message, 8, of.get("parameters"));
    let mut responses = Message::default();
    for (code, response) in fields(of.get("responses")) {
        let (mut value, mut answer, mut item) = <(Message, Message, Message)>::default();
        answer.text(1, response.get("description"));
        if let Some(of) = response.get("schema") {
            item.message(1, &schema(of));
            answer.message(2, &item);
        }
        value.message(1, &answer);
        responses.pair(1, code, &value);
    }
    message.message(9, &responses);
    message.texts(10, of.get("schemes"));
    message.extensions(13, of);
    message
}

fn parameters(message: &mut Message, field: u32, all: Option<&Value>) {
    for of in all.and_then(Value::as_array).into_iter().flatten() {
        let (mut item, mut parameter) = <(Message, Message)>::default();
        if of.get("in").and_then(Value::as_str) == Some("body") {
            let mut body = Message::default();
            body.text(2, of.get("name"));
            body.text(3, of.get("in"));
            body.flag(4, of.get("required"));
            body.message(5, &schema(of.get("schema").unwrap_or(&Value::Null)));
            parameter.message(1, &body);
        } else {
            parameter.message(2, &non_body(of));
        }
        item.message(1, &parameter);
        message.message(field, &item);
    }
}

/// A parameter of the query or of the path: two messages with the same beginning.
fn non_body(of: &Value) -> Message {
    let is_query = of.get("in").and_then(Value::as_str) == Some("query");
    let (mut message, mut parameter) = <(Message, Message)>::default();
    parameter.flag(1, of.get("required"));
    parameter.text(2, of.get("in"));
    parameter.text(3, of.get("description"));
    parameter.text(4, of.get("name"));
    let (kind, unique, number) = if is_query { (6, 20, 3) } else { (5, 19, 4) };
    parameter.text(kind, of.get("type"));
    parameter.flag(unique, of.get("uniqueItems"));
    message.message(number, &parameter);
    message
}

fn schema(of: &Value) -> Message {
    let mut message = Message::default();
    let Value::Object(words) = of else { return message };
    message.text(1, words.get("$ref"));
    message.text(2, words.get("format"));
    message.text(4, words.get("description"));
    if let Some(default) = words.get("default") {
        message.message(5, &any(default));
    }
    message.double(9, words.get("minimum"));
    message.text(13, words.get("pattern"));
    message.texts(19, words.get("required"));
    for value in words.get("enum").and_then(Value::as_array).into_iter().flatten() {
        message.message(20, &any(value));
    }
    let mut inner = Message::default();
    if let Some(values) = words.get("additionalProperties") {
        inner.message(1, &schema(values));
        message.message(21, &inner);
    }
    if let Some(kind) = words.get("type").and_then(Value::as_str) {
        let mut item = Message::default();
        item.bytes(1, kind.as_bytes());
        message.message(22, &item);
    }
    if let Some(items) = words.get("items") {
        let mut item = Message::default();
        item.message(1, &schema(items));
        message.message(23, &item);
    }
    if words.contains_key("properties") {
        let mut properties = Message::default();
        for (name, of) in fields(words.get("properties")) {
            properties.pair(1, name, &schema(of));
        }
        message.message(25, &properties);
    }
    message.extensions(31, words);
    message
}
