//! Fields that a body has twice. A parsed object has lost them: the text is read once more.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::fields::FieldProblem;

/// The most duplicates that are named: a warning is for a person.
const NAMED: usize = 20;

/// The fields that a body of JSON has twice, as far as it is JSON.
pub fn duplicate_fields(json: &[u8]) -> Vec<FieldProblem> {
    let mut found = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(json);
    let value = Place { path: "", found: &mut found };
    // A body that is no JSON is refused where it is parsed, and what was found so far goes with it.
    if value.deserialize(&mut reader).is_err() {
        found.clear();
    }
    found
}

/// A value of the body, with its path.
struct Place<'a> {
    path: &'a str,
    found: &'a mut Vec<FieldProblem>,
}

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut names = BTreeSet::new();
        while let Some(name) = map.next_key::<String>()? {
            let path = match self.path {
                "" => name.clone(),
                path => format!("{path}.{name}"),
            };
            map.next_value_seed(Place { path: &path, found: self.found })?;
            if !names.insert(name) && self.found.len() < NAMED {
                self.found.push(FieldProblem::Duplicate(path));
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        for at in 0.. {
            let path = format!("{}[{at}]", self.path);
            if items.next_element_seed(Place { path: &path, found: self.found })?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}
