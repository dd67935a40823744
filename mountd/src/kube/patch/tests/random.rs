//! What holds after any sequence of applies, whatever is applied.

use serde_json::{Map, Value, json};

use super::super::field_set::FieldSet;
use super::super::*;
use super::super::{managed, typed};
use super::apply::{apply_as, pod, writer};

/// A generator of numbers that are the same in each run (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    /// Some of the words, in an order of their own.
    fn some(&mut self, words: &[&str]) -> Vec<String> {
        let mut all: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        for at in (1..all.len()).rev() {
            let other = self.below(at as u64 + 1) as usize;
            all.swap(at, other);
        }
        all.truncate(self.below(words.len() as u64 + 1) as usize);
        all
    }

    fn value(&mut self) -> String {
        format!("v{}", self.below(3))
    }

    fn container(&mut self, name: String) -> Value {
        let mut container = json!({ "name": name });
        if self.below(2) == 0 {
            container["image"] = self.value().into();
        }
        let env = self.some(&["A", "B", "C"]);
        if !env.is_empty() {
            container["env"] = env
                .into_iter()
                .map(|name| json!({ "name": name, "value": self.value() }))
                .collect();
        }
        if self.below(3) == 0 {
            container["command"] = json!(self.some(&["x", "y"]));
        }
        container
    }

    fn config(&mut self) -> Value {
        let names = self.some(&["a", "b", "c", "d"]);
        let containers: Vec<Value> = names.into_iter().map(|name| self.container(name)).collect();
        // An empty list is nobody's field, so that nobody applies one here.
        let mut config = pod(json!({ "containers": containers }));
        if containers.is_empty() {
            config = pod(json!({ "nodeName": self.value() }));
        }
        let labels: Map<String, Value> =
            self.some(&["l", "m"]).into_iter().map(|name| (name, self.value().into())).collect();
        config["metadata"]["labels"] = labels.into();
        let finalizers = self.some(&["f/1", "f/2", "f/3"]);
        if !finalizers.is_empty() {
            config["metadata"]["finalizers"] = json!(finalizers);
        }
        config
    }
}

/// All fields that a record names.
fn owned(object: &Value) -> FieldSet {
    let entries = managed::take(&mut object.clone()).unwrap_or_default();
    entries.iter().fold(FieldSet::default(), |all, one| all.union(&one.fields))
}

fn fields(object: &Value) -> FieldSet {
    let of = Type::of_kind("Pod").unwrap();
    typed::fields_of(object, Some(&of)).with_declared_fields(Some(&of))
}

#[test]
fn any_apply_sets_what_it_names_and_a_second_one_changes_nothing() {
    let of = Type::of_kind("Pod").unwrap();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..60 {
        let mut live: Option<Value> = None;
        for step in 0..12 {
            let manager = ["m", "n", "o"][random.below(3) as usize];
            let config = random.config();
            let answer = apply_as(manager, live.as_ref(), &config, true).unwrap();
            let at = format!("round {round}, step {step}: {manager} applies {config}: {answer}");
            assert_eq!(typed::merge(answer.clone(), &config, Some(&of)), answer, "{at}");
            let again = apply_as(manager, Some(&answer), &config, false).unwrap();
            assert_eq!(again, answer, "{at}");
            let lost = owned(&answer).difference(&fields(&answer)).paths();
            assert_eq!(lost, Vec::<String>::new(), "{at}");
            live = Some(answer);
        }
        // Each manager lets go of everything: nothing of the spec remains.
        let nothing = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" } });
        for manager in ["m", "n", "o"] {
            live = Some(apply_as(manager, live.as_ref(), &nothing, false).unwrap());
        }
        assert_eq!(live, Some(nothing));
    }
}

#[test]
fn any_update_leaves_each_value_with_one_manager_or_none() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut live = random.config();
    track_update("Pod", None, &mut live, &writer("m"));
    for step in 0..300 {
        let manager = ["m", "n", "o"][random.below(3) as usize];
        let mut new = random.config();
        track_update("Pod", Some(&live), &mut new, &writer(manager));
        let entries = managed::take(&mut new.clone()).unwrap_or_default();
        for (at, one) in entries.iter().enumerate() {
            for other in &entries[at + 1..] {
                let both = one.fields.intersection(&other.fields);
                assert!(both.is_empty(), "step {step}: {:?}", both.paths());
            }
        }
        let lost = owned(&new).difference(&fields(&new)).paths();
        // A list or map that is there without items is a field, and has none.
        let lost: Vec<String> =
            lost.into_iter().filter(|path| new.pointer(&pointer(path)).is_none()).collect();
        assert_eq!(lost, Vec::<String>::new(), "step {step}: {new}");
        live = new;
    }
}

/// The JSON pointer of a path that has fields alone.
fn pointer(path: &str) -> String {
    path.replace('.', "/")
}
