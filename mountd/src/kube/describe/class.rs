//! A StorageClass in words.

use serde_json::Value;

use super::{NONE, Page, items, joined, plain_text};
use crate::kube::cells::is_default_class;
use crate::kube::meta::{text, texts};

/// Describes a class.
pub(super) fn describe(page: &mut Page, class: &Value) {
    page.field(0, "Name", text(class, "/metadata/name"));
    page.field(0, "IsDefaultClass", if is_default_class(class) { "Yes" } else { "No" });
    page.field(0, "Annotations", &joined(class, "/metadata/annotations"));
    page.field(0, "Provisioner", text(class, "/provisioner"));
    page.field(0, "Parameters", &joined(class, "/parameters"));
    let expansion = match &plain_text(class, "/allowVolumeExpansion")[..] {
        "true" => "True",
        "false" => "False",
        _ => "<unset>",
    };
    page.field(0, "AllowVolumeExpansion", expansion);
    let options = texts(class, "/mountOptions");
    if options.is_empty() {
        page.field(0, "MountOptions", NONE);
    } else {
        page.line(0, "MountOptions:");
        options.iter().for_each(|option| page.line(1, option));
    }
    for (title, field) in
        [("ReclaimPolicy", "/reclaimPolicy"), ("VolumeBindingMode", "/volumeBindingMode")]
    {
        let value = text(class, field);
        if !value.is_empty() {
            page.field(0, title, value);
        }
    }
    topologies(page, class);
}

fn topologies(page: &mut Page, class: &Value) {
    if !class.get("allowedTopologies").is_some_and(Value::is_array) {
        return;
    }
    let terms = items(class, "/allowedTopologies");
    page.field(0, "AllowedTopologies", if terms.is_empty() { NONE } else { "" });
    for (at, term) in terms.iter().enumerate() {
        let expressions = items(term, "/matchLabelExpressions");
        if expressions.is_empty() {
            page.field(1, &format!("Term {at}"), NONE);
        }
        for (number, one) in expressions.iter().enumerate() {
            let title = if number == 0 { format!("Term {at}:") } else { String::new() };
            let values = texts(one, "/values").join(", ");
            page.line(1, &format!("{title}\t{} in [{values}]", text(one, "/key")));
        }
    }
}
