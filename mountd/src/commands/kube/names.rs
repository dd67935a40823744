//! Objects as the words of a command line name them: `pv`, `pvc NAME NAME`, `pv/a pvc/b`.

use clap::Args;
use serde_json::Value;

use super::host::{Namespace, Place};
use crate::kube::kinds::Kind;
use crate::kube::objects::{ListOptions, Store, Target};
use crate::kube::select::{Fields, Filter, Labels};
use crate::kube::status::Answer;
use crate::report::CliError;

/// What the words name.
#[derive(Debug, PartialEq, Eq)]
pub enum Named {
    /// All objects of some kinds.
    Kinds(Vec<&'static Kind>),
    /// Single objects.
    Objects(Vec<(&'static Kind, String)>),
}

fn kinds(word: &str) -> Result<Vec<&'static Kind>, CliError> {
    let mut found = Vec::new();
    for one in word.split(',') {
        let kinds = Kind::of_word(one);
        if kinds.is_empty() {
            let text = format!("the server doesn't have a resource type {one:?}");
            return Err(CliError::Objects(text));
        }
        found.extend(kinds.into_iter().filter(|kind| !found.contains(kind)).collect::<Vec<_>>());
    }
    Ok(found)
}

impl Named {
    /// Reads the words.
    ///
    /// # Errors
    /// [`CliError`].
    pub fn parse(words: &[String]) -> Result<Self, CliError> {
        let usage = |text: &str| Err(CliError::Usage(text.to_owned()));
        let Some((first, names)) = words.split_first() else {
            return usage("name a kind of objects: pv, pvc, sc, pod, ...");
        };
        if words.iter().any(|word| word.contains('/')) {
            let mut objects = Vec::new();
            for word in words {
                let Some((kind, name)) = word.split_once('/') else {
                    return usage("there is no need to name a kind beside KIND/NAME");
                };
                match (&kinds(kind)?[..], name.is_empty()) {
                    ([kind], false) => objects.push((*kind, name.to_owned())),
                    _ => return usage(&format!("{word}: use KIND/NAME")),
                }
            }
            return Ok(Self::Objects(objects));
        }
        let kinds = kinds(first)?;
        if names.is_empty() {
            return Ok(Self::Kinds(kinds));
        }
        let of = |kind: &&'static Kind| {
            let kind = *kind;
            names.iter().map(move |name| (kind, name.clone()))
        };
        Ok(Self::Objects(kinds.iter().flat_map(of).collect()))
    }
}

/// Which objects a command shows.
#[derive(Debug, Args)]
pub struct Shown {
    /// KIND, KIND NAME.., or KIND/NAME..; several kinds with commas. Kinds have the short names of
    /// kubectl: pv, pvc, sc, po, ns, cm, ev.
    #[arg(value_name = "KIND[/NAME]", required = true)]
    pub words: Vec<String>,
    #[command(flatten)]
    pub namespace: Namespace,
    /// The objects of all namespaces.
    #[arg(long, short = 'A', conflicts_with = "namespace")]
    pub all_namespaces: bool,
    #[command(flatten)]
    pub selectors: Selectors,
    #[command(flatten)]
    pub place: Place,
}

impl Shown {
    /// The namespace of the objects; `None` for all of them.
    pub fn in_namespace(&self) -> Option<&str> {
        (!self.all_namespaces).then(|| self.namespace.name())
    }
}

/// The place of an object of a kind in a namespace.
pub fn target<'a>(kind: &'static Kind, namespace: &'a str, name: &'a str) -> Target<'a> {
    Target { kind, namespace: if kind.is_namespaced { namespace } else { "" }, name }
}

/// Selectors as the flags have them.
#[derive(Debug, Clone, Default, Args)]
pub struct Selectors {
    /// Only objects whose labels fulfil this.
    #[arg(
        long,
        short = 'l',
        value_name = "SELECTOR",
        default_value = "",
        hide_default_value = true
    )]
    pub selector: String,
    /// Only objects whose fields fulfil this.
    #[arg(long, value_name = "SELECTOR", default_value = "", hide_default_value = true)]
    pub field_selector: String,
}

impl Selectors {
    /// Whether they select all.
    pub fn is_empty(&self) -> bool {
        self.selector.is_empty() && self.field_selector.is_empty()
    }

    /// The objects of a kind that they select; of all namespaces if none is named.
    ///
    /// # Errors
    /// A bad selector; those of the catalogue.
    pub fn list(
        &self,
        store: &Store,
        kind: &'static Kind,
        namespace: Option<&str>,
    ) -> Answer<Vec<Value>> {
        let filter = Filter {
            namespace: namespace.filter(|_| kind.is_namespaced).map(str::to_owned),
            labels: Labels::parse(&self.selector)?,
            fields: Fields::parse(kind, &self.field_selector)?,
        };
        Ok(store.list(kind, &ListOptions { filter, ..ListOptions::default() })?.items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<String, String> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        match Named::parse(&words).map_err(|error| error.to_string())? {
            Named::Kinds(kinds) => {
                Ok(kinds.iter().map(|kind| kind.kind).collect::<Vec<_>>().join(" "))
            }
            Named::Objects(all) => {
                Ok(all.iter().map(|(kind, name)| kind.shown(name)).collect::<Vec<_>>().join(" "))
            }
        }
    }

    #[test]
    fn words_name_kinds_or_objects() {
        let good = [
            ("pv,pvc,pv", "PersistentVolume PersistentVolumeClaim"),
            ("pv a b", "persistentvolume/a persistentvolume/b"),
            ("pv/a sc/b", "persistentvolume/a storageclass.storage.k8s.io/b"),
            ("pv,pvc a", "persistentvolume/a persistentvolumeclaim/a"),
        ];
        for (text, wanted) in good {
            assert_eq!(parsed(text).unwrap(), wanted, "{text}");
        }
        for text in ["", "deploy", "pv/a b", "pv/", "pv,deploy"] {
            parsed(text).unwrap_err();
        }
    }
}
