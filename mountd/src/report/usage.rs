//! Wrong arguments: what is wrong, to which word, and the right form.
//!
//! The parser of the command line reports facts and a text of its own. The messages are built of
//! the facts, so that they have the form of all other errors.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// A wrong argument.
pub(super) struct Wrong {
    /// The message.
    pub what: String,
    /// The word of the command line.
    pub object: Option<String>,
    /// The next thing to try.
    pub hint: Option<String>,
}

/// Describes an error of the parser; `None` if its text is help or the version.
pub(super) fn wrong(error: &clap::Error) -> Option<Wrong> {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        return None;
    }
    let arg = text(error, ContextKind::InvalidArg);
    let usage = usage(error);
    let (what, object, hint) = match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let word = text(error, ContextKind::InvalidSubcommand).unwrap_or_default();
            let suggested = meant(error, ContextKind::SuggestedSubcommand);
            let usage = usage.unwrap_or_default();
            let is_first = usage.split(' ').nth(1).is_none_or(|word| word.starts_with(['[', '<']));
            let (alike, nouns) = match is_first {
                true => (crate::cli::alike(&word), crate::cli::with_verb(&word)),
                false => (None, Vec::new()),
            };
            let alike = alike.filter(|_| suggested.is_empty());
            let alike = alike.map(|name| format!(", did you mean {name}?")).unwrap_or_default();
            let hint = match nouns.is_empty() {
                true => commands(&usage),
                false => nouns.join(", or "),
            };
            (format!("unknown command {word:?}{suggested}{alike}"), Some(word), Some(hint))
        }
        ErrorKind::UnknownArgument => {
            let word = arg.unwrap_or_default();
            let kind = if word.starts_with('-') { "unknown option" } else { "unexpected argument" };
            let what = format!("{kind} {word:?}");
            (what + &meant(error, ContextKind::SuggestedArg), Some(word), usage)
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            (value(error, &arg.unwrap_or_default()), text(error, ContextKind::InvalidValue), usage)
        }
        ErrorKind::MissingRequiredArgument => {
            (format!("missing: {}", arg.unwrap_or_default()), None, usage)
        }
        ErrorKind::ArgumentConflict => {
            let prior = text(error, ContextKind::PriorArg).unwrap_or_default();
            let arg = arg.unwrap_or_default();
            let what = match arg == prior {
                true => format!("{arg} is given twice"),
                false => format!("{arg} cannot be used with {prior}"),
            };
            (what, Some(arg), usage)
        }
        ErrorKind::InvalidUtf8 => {
            ("an argument is not valid UTF-8, and it is not a path".to_owned(), None, usage)
        }
        _ => (paragraph(error), arg, usage),
    };
    Some(Wrong { what, object: object.filter(|word| !word.is_empty()), hint })
}

/// A fact of the parser.
fn text(error: &clap::Error, kind: ContextKind) -> Option<String> {
    Some(match error.get(kind)? {
        ContextValue::String(one) => one.clone(),
        ContextValue::Strings(all) => all.join(", "),
        ContextValue::StyledStr(one) => one.to_string(),
        ContextValue::Number(number) => number.to_string(),
        _ => return None,
    })
}

/// The form of the command.
fn usage(error: &clap::Error) -> Option<String> {
    let text = text(error, ContextKind::Usage)?;
    let words: Vec<&str> = text.trim_start_matches("Usage:").split_whitespace().collect();
    // An option that ends the program needs no command.
    Some(words.join(" ").replace("--version <COMMAND>", "--version"))
        .filter(|usage| !usage.is_empty())
}

/// The command that lists the commands of a form.
fn commands(usage: &str) -> String {
    let names = usage.split(' ').take_while(|word| !word.starts_with(['[', '<', '-']));
    let names: Vec<&str> = names.collect();
    format!("{} --help, for the list of commands", names.join(" "))
}

/// The words that are like the wrong one.
fn meant(error: &clap::Error, kind: ContextKind) -> String {
    let words = text(error, kind).map(|words| words.replace(", ", " or "));
    words.map_or_else(String::new, |words| format!(", did you mean {words}?"))
}

/// A wrong value.
fn value(error: &clap::Error, arg: &str) -> String {
    let value = text(error, ContextKind::InvalidValue).unwrap_or_default();
    let known = text(error, ContextKind::ValidValue).map(|known| format!(": use one of {known}"));
    let reason = std::error::Error::source(error).map(|reason| reason.to_string());
    match (known, reason) {
        (known, _) if value.is_empty() => {
            format!("{arg} needs a value{}", known.unwrap_or_default())
        }
        (Some(known), _) => {
            let meant = meant(error, ContextKind::SuggestedValue);
            format!("invalid value {value:?} for {arg}{meant}{known}")
        }
        // The reason names the value.
        (None, Some(reason)) if reason.contains(&value) => format!("{arg}: {reason}"),
        (None, Some(reason)) => format!("invalid value {value:?} for {arg}: {}", plain(&reason)),
        (None, None) => format!("invalid value {value:?} for {arg}"),
    }
}

/// A reason of the standard library, in words for people.
fn plain(reason: &str) -> &str {
    match reason {
        "invalid digit found in string" => "it is not a whole number",
        "number too large to fit in target type" => "it is too large",
        "invalid float literal" => "it is not a number",
        other => other,
    }
}

/// The first paragraph of the text of the parser.
fn paragraph(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    first.trim_start_matches("error: ").trim().to_owned()
}
