//! Selectors of labels and nodes.

use super::field::Field;
use super::meta;
use super::names;
use super::report::Report;

const NO_OPERATOR: &str = "not a valid selector operator";
const NEEDS_VALUES: &str = "must be specified when `operator` is 'In' or 'NotIn'";
const NO_VALUES: &str = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
const ONE_VALUE: &str = "must be specified single value when `operator` is 'Lt' or 'Gt'";

/// Judges a label selector.
pub(super) fn labels(selector: &Field<'_>, report: &mut Report) {
    meta::labels(&selector.child("matchLabels"), report);
    for one in selector.child("matchExpressions").items() {
        requirement(&one, report, false);
        for value in one.child("values").items() {
            report.invalid_all(&value, value.text(), names::label_value(value.text()));
        }
    }
}

fn requirement(one: &Field<'_>, report: &mut Report, is_node: bool) {
    let (operator, values) = (one.child("operator"), one.child("values"));
    match operator.text() {
        "In" | "NotIn" if values.is_empty() => report.required(&values, NEEDS_VALUES),
        "In" | "NotIn" => {}
        "Exists" | "DoesNotExist" if !values.is_empty() => report.forbidden(&values, NO_VALUES),
        "Exists" | "DoesNotExist" => {}
        "Gt" | "Lt" if is_node => {
            if values.items().len() != 1 {
                report.required(&values, ONE_VALUE);
            }
        }
        text => report.invalid_text(&operator, text, NO_OPERATOR),
    }
    let key = one.child("key");
    report.invalid_all(&key, key.text(), names::qualified(key.text()));
}

/// Judges a node selector: `required` of a volume's node affinity.
pub(super) fn nodes(selector: &Field<'_>, report: &mut Report) {
    let terms = selector.child("nodeSelectorTerms");
    if terms.is_empty() {
        report.required(&terms, "must have at least one node selector term");
    }
    for term in terms.items() {
        for one in term.child("matchExpressions").items() {
            requirement(&one, report, true);
        }
        for one in term.child("matchFields").items() {
            field_requirement(&one, report);
        }
    }
}

fn field_requirement(one: &Field<'_>, report: &mut Report) {
    let (operator, values) = (one.child("operator"), one.child("values"));
    match operator.text() {
        "In" | "NotIn" => {
            if values.items().len() != 1 {
                let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node \
                              field selector";
                report.required(&values, detail);
            }
        }
        text => report.invalid_text(&operator, text, NO_OPERATOR),
    }
    let key = one.child("key");
    if key.text() != "metadata.name" {
        report.invalid_text(&key, key.text(), "not a valid field selector key");
    }
}
