//! The embedded definitions, unpacked once.

use std::sync::LazyLock;

use serde_json::{Map, Value};

/// What `mountd/kube-schema` wrote.
static PACKED: &[u8] = include_bytes!("definitions.json.zst");

/// The prefix of a reference from one definition to another.
pub(super) const REFERENCE: &str = "#/definitions/";

/// The unpacked file.
pub(super) struct Definitions {
    /// The definitions by their names, in the form of Swagger 2.0.
    pub(super) by_name: Map<String, Value>,
    /// The Go type of a field whose type has a name of its own, by `NAME.FIELD`.
    go: Map<String, Value>,
}

static ALL: LazyLock<Definitions> = LazyLock::new(|| {
    // A program whose own file does not unpack has no kinds: the tests see that first.
    let text = zstd::decode_all(PACKED).unwrap_or_default();
    let mut file: Value = serde_json::from_slice(&text).unwrap_or_default();
    let mut part = |name: &str| match file.get_mut(name).map(Value::take) {
        Some(Value::Object(part)) => part,
        _ => Map::new(),
    };
    Definitions { by_name: part("definitions"), go: part("go") }
});

impl Definitions {
    pub(super) fn all() -> &'static Self {
        &ALL
    }

    /// The definition of this name, with the name as long as the program lives.
    pub(super) fn named(&'static self, name: &str) -> Option<(&'static str, &'static Value)> {
        self.by_name.get_key_value(name).map(|(name, schema)| (name.as_str(), schema))
    }

    /// The definition to which a schema refers.
    pub(super) fn target(&'static self, schema: &Value) -> Option<(&'static str, &'static Value)> {
        let reference = schema.get("$ref")?.as_str()?;
        self.named(reference.strip_prefix(REFERENCE)?)
    }

    /// The name of a field's Go type, such as `PersistentVolumeMode` or `[]Capability`.
    pub(super) fn go(&self, definition: &str, field: &str) -> Option<&str> {
        self.go.get(&format!("{definition}.{field}"))?.as_str()
    }
}
