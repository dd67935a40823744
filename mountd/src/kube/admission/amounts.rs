//! Quantities in objects.

use laminafs::types::quantity::Quantity;
use serde_json::Value;

use super::field::Field;
use super::report::Report;

/// The quantity of a field: a text or a number.
pub(super) fn parse(field: &Field<'_>) -> Option<Result<Quantity, String>> {
    let text = match field.value()? {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    Some(text.parse().map_err(|fault: laminafs::types::quantity::QuantityError| fault.to_string()))
}

/// The quantity of a field. A text that is none is refused.
pub(super) fn judged(field: &Field<'_>, report: &mut Report) -> Option<Quantity> {
    match parse(field)? {
        Ok(quantity) => Some(quantity),
        Err(detail) => {
            report.invalid(field, &detail);
            None
        }
    }
}

/// Refuses a quantity of less than no bytes.
pub(super) fn basic(field: &Field<'_>, report: &mut Report) {
    if let Some(Ok(quantity)) = parse(field)
        && quantity.bytes() < 0
    {
        let bytes = quantity.bytes().to_string();
        report.invalid_shown(field, &bytes, "must be a valid resource quantity");
    }
}

/// Refuses a quantity that is not above zero.
pub(super) fn positive(field: &Field<'_>, report: &mut Report) {
    if let Some(quantity) = judged(field, report)
        && (quantity.is_negative() || quantity.is_zero())
    {
        report.invalid_text(field, &quantity.to_string(), "must be greater than zero");
    }
}

/// Warns of a number of bytes with a fraction.
pub(super) fn whole(field: &Field<'_>, report: &mut Report) {
    if let Some(Ok(quantity)) = parse(field)
        && !quantity.is_whole()
    {
        let text = quantity.to_string();
        let text = format!("fractional byte value {text:?} is invalid, must be an integer");
        report.warn(field, &text);
    }
}

/// Refuses a quantity below zero.
pub(super) fn not_negative(field: &Field<'_>, report: &mut Report) {
    if let Some(quantity) = judged(field, report)
        && quantity.is_negative()
    {
        let detail = "must be greater than or equal to 0";
        report.invalid_text(field, &quantity.to_string(), detail);
    }
}

/// Writes the entries of a list of resources in the canonical form, rounded up to thousandths.
pub(super) fn canonical(list: Option<&mut Value>) {
    let entries = list.and_then(Value::as_object_mut).into_iter().flatten();
    for (_, value) in entries {
        let text = match &*value {
            Value::String(text) => text.trim().to_owned(),
            Value::Number(number) => number.to_string(),
            _ => continue,
        };
        if let Ok(quantity) = text.parse::<Quantity>() {
            *value = Value::String(quantity.rounded_to_milli().to_string());
        }
    }
}
