//! Label selectors and field selectors.

use std::iter::Peekable;
use std::vec::IntoIter;

use serde_json::Value;

use super::kinds::Kind;
use super::meta::text;
use super::status::{Answer, Failure};

/// The longest selector.
const LEN_MAX: usize = 16 << 10;

/// What a label must be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Missing,
    Above(i64),
    Below(i64),
}

/// A label selector; an empty one selects all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(Vec<(String, Rule)>);

/// A field selector; an empty one selects all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(Vec<Field>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    name: String,
    value: String,
    is_equal: bool,
}

/// Both selectors, and the namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The namespace; `None` for all.
    pub namespace: Option<String>,
    /// The labels.
    pub labels: Labels,
    /// The fields.
    pub fields: Fields,
}

impl Filter {
    /// Whether it selects an object.
    #[must_use]
    pub fn selects(&self, object: &Value) -> bool {
        let is_here =
            self.namespace.as_ref().is_none_or(|name| text(object, "/metadata/namespace") == name);
        is_here && self.labels.selects(object) && self.fields.selects(object)
    }

    /// Whether it selects all objects of its namespace.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.labels.0.is_empty() && self.fields.0.is_empty()
    }
}

fn refused(what: &str, selector: &str) -> Failure {
    Failure::bad_request(format!("unable to parse requirement: {what} in {selector:?}"))
}

/// The signs of label selectors, longer ones first.
const SIGNS: [&str; 9] = ["!=", "==", "=", "!", "(", ")", ",", ">", "<"];

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// Whether no word of a label selector has this character.
fn ends_word(c: char) -> bool {
    is_blank(c) || "!=(),<>".contains(c)
}

/// Splits a label selector into signs and words.
fn tokens(selector: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = selector.trim_start_matches(is_blank);
    while !rest.is_empty() {
        let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign));
        let len = sign.map_or_else(|| rest.find(ends_word).unwrap_or(rest.len()), str::len);
        let (token, after) = rest.split_at(len);
        found.push(token);
        rest = after.trim_start_matches(is_blank);
    }
    found
}

/// Whether the text has 1 to 63 characters, and begins and ends with a letter or digit.
fn is_name(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    let is_long = text.len() > 63;
    let is_framed = text.starts_with(edge) && text.ends_with(edge);
    is_framed && !is_long && text.chars().all(|c| edge(c) || "-_.".contains(c))
}

fn is_domain(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_label = |label: &str| {
        let is_framed = label.starts_with(edge) && label.ends_with(edge);
        is_framed && label.chars().all(|c| edge(c) || c == '-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

/// Whether a text is a name, or a domain, a slash and a name.
fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((domain, name)) => is_domain(domain) && is_name(name),
        None => is_name(key),
    }
}

/// Reads the requirements of a label selector, with the grammar of Kubernetes.
struct Reader<'a> {
    selector: &'a str,
    tokens: Peekable<IntoIter<&'a str>>,
}

impl<'a> Reader<'a> {
    fn new(selector: &'a str) -> Self {
        Self { selector, tokens: tokens(selector).into_iter().peekable() }
    }

    fn refused(&self, what: &str) -> Failure {
        refused(what, self.selector)
    }

    fn unexpected(&self, found: Option<&str>, expected: &str) -> Failure {
        self.refused(&format!("found '{}', expected: {expected}", found.unwrap_or_default()))
    }

    fn word(&mut self) -> Answer<&'a str> {
        match self.tokens.next() {
            Some(token) if !token.starts_with(ends_word) => Ok(token),
            found => Err(self.unexpected(found, "identifier")),
        }
    }

    fn requirement(&mut self) -> Answer<(String, Rule)> {
        let is_missing = self.tokens.next_if_eq(&"!").is_some();
        let key = self.word()?;
        if !is_key(key) {
            return Err(self.refused(&format!("invalid label key {key:?}")));
        }
        let rule = if is_missing { Rule::Missing } else { self.rule()? };
        Ok((key.to_owned(), rule))
    }

    /// Whether the requirement ends here.
    fn is_end(&mut self) -> bool {
        self.tokens.peek().is_none_or(|token| *token == ",")
    }

    fn rule(&mut self) -> Answer<Rule> {
        if self.is_end() {
            return Ok(Rule::Exists);
        }
        Ok(match self.tokens.next() {
            Some("=" | "==") => Rule::In(vec![self.value()?]),
            Some("!=") => Rule::NotIn(vec![self.value()?]),
            Some(">") => Rule::Above(self.number()?),
            Some("<") => Rule::Below(self.number()?),
            Some("in") => Rule::In(self.values()?),
            Some("notin") => Rule::NotIn(self.values()?),
            found => return Err(self.unexpected(found, "in, notin, =, ==, !=, <, >")),
        })
    }

    fn checked(&self, value: &str) -> Answer<String> {
        if value.is_empty() || is_name(value) {
            return Ok(value.to_owned());
        }
        Err(self.refused(&format!("invalid label value {value:?}")))
    }

    /// One value; none is an empty one.
    fn value(&mut self) -> Answer<String> {
        if self.is_end() {
            return Ok(String::new());
        }
        let value = self.word()?;
        self.checked(value)
    }

    fn number(&mut self) -> Answer<i64> {
        let value = self.value()?;
        value.parse().map_err(|_| self.refused(&format!("{value:?} is not a number")))
    }

    /// A list of values in parentheses. Each may be empty.
    fn values(&mut self) -> Answer<Vec<String>> {
        if self.tokens.next_if_eq(&"(").is_none() {
            let found = self.tokens.next();
            return Err(self.unexpected(found, "'('"));
        }
        let mut values = Vec::new();
        loop {
            let word = self.tokens.next_if(|token| !token.starts_with(ends_word));
            values.push(self.checked(word.unwrap_or_default())?);
            match self.tokens.next() {
                Some(",") => {}
                Some(")") => return Ok(values),
                found => return Err(self.unexpected(found, "',' or ')'")),
            }
        }
    }
}

impl Labels {
    /// Reads a selector. Only a blank one selects all: a stray comma is an error.
    ///
    /// # Errors
    /// A bad request.
    pub fn parse(selector: &str) -> Answer<Self> {
        if selector.len() > LEN_MAX {
            return Err(refused("too many bytes", "the selector"));
        }
        let mut reader = Reader::new(selector);
        let mut rules = Vec::new();
        if reader.tokens.peek().is_none() {
            return Ok(Self(rules));
        }
        loop {
            rules.push(reader.requirement()?);
            match reader.tokens.next() {
                None => return Ok(Self(rules)),
                Some(",") => {}
                found => return Err(reader.unexpected(found, "',' or 'end of string'")),
            }
        }
    }

    /// Whether the labels of an object fulfil it.
    #[must_use]
    pub fn selects(&self, object: &Value) -> bool {
        let labels = object.get("metadata").and_then(|meta| meta.get("labels"));
        self.0.iter().all(|(key, rule)| {
            let value = labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
            let number = value.and_then(|value| value.parse::<i64>().ok());
            match rule {
                Rule::In(all) => value.is_some_and(|value| all.iter().any(|one| one == value)),
                Rule::NotIn(all) => value.is_none_or(|value| all.iter().all(|one| one != value)),
                Rule::Exists => value.is_some(),
                Rule::Missing => value.is_none(),
                Rule::Above(least) => number.is_some_and(|number| number > *least),
                Rule::Below(most) => number.is_some_and(|number| number < *most),
            }
        })
    }
}

impl Fields {
    /// Reads a selector for a kind.
    ///
    /// Clients that join selectors write empty parts beside others: they say nothing, as in
    /// Kubernetes. A selector of nothing but commas is refused.
    ///
    /// # Errors
    /// A bad request, also for a field by which the kind is not selected.
    pub fn parse(kind: &Kind, selector: &str) -> Answer<Self> {
        if selector.len() > LEN_MAX {
            return Err(Failure::bad_request("the field selector has too many bytes"));
        }
        let mut fields = Vec::new();
        for part in pieces(selector) {
            let Some((name, value, is_equal)) = term(part) else {
                let text = format!("invalid selector: '{selector}'; can't understand '{part}'");
                return Err(Failure::bad_request(text));
            };
            let is_common = matches!(name, "metadata.name" | "metadata.namespace");
            if !is_common && !kind.fields.contains(&name) {
                return Err(Failure::bad_request(match kind.fields {
                    [] => format!(
                        "{name:?} is not a known field selector: only \"metadata.name\", \
                         \"metadata.namespace\""
                    ),
                    _ => format!("field label not supported: {name}"),
                }));
            }
            fields.push(Field { name: name.to_owned(), value, is_equal });
        }
        if fields.is_empty() && !selector.is_empty() {
            let text = format!("invalid selector: '{selector}'; it has no requirement");
            return Err(Failure::bad_request(text));
        }
        Ok(Self(fields))
    }

    /// The selector for one name.
    #[must_use]
    pub fn name(name: &str) -> Self {
        let (field, value) = ("metadata.name".to_owned(), name.to_owned());
        Self(vec![Field { name: field, value, is_equal: true }])
    }

    /// Whether the fields of an object fulfil it.
    #[must_use]
    pub fn selects(&self, object: &Value) -> bool {
        self.0.iter().all(|field| (value_of(object, &field.name) == field.value) == field.is_equal)
    }
}

/// Splits at commas that no backslash escapes.
fn pieces(selector: &str) -> Vec<&str> {
    let mut is_escaped = false;
    let split = selector.split(|c| {
        let is_end = c == ',' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        is_end
    });
    split.filter(|piece| !piece.is_empty()).collect()
}

/// The name and the value of a requirement, and whether they have to be equal.
fn term(part: &str) -> Option<(&str, String, bool)> {
    let (name, value) = part.split_once('=')?;
    let (name, is_equal) = name.strip_suffix('!').map_or((name, true), |name| (name, false));
    let value = if is_equal { value.strip_prefix('=').unwrap_or(value) } else { value };
    unescaped(value).map(|value| (name, value, is_equal))
}

/// A value without its backslashes, which stand before each backslash, comma and equals sign, and
/// before nothing else.
fn unescaped(value: &str) -> Option<String> {
    let mut kept = String::new();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        kept.push(match c {
            '\\' => chars.next().filter(|c| "\\,=".contains(*c))?,
            ',' | '=' => return None,
            c => c,
        });
    }
    Some(kept)
}

fn value_of(object: &Value, field: &str) -> String {
    let pointer = match field {
        // The two places where an event names its source.
        "source" => {
            let source = text(object, "/source/component");
            let other = text(object, "/reportingComponent");
            return if source.is_empty() { other } else { source }.to_owned();
        }
        field => format!("/{}", field.replace('.', "/")),
    };
    match object.pointer(&pointer) {
        Some(Value::String(value)) => value.clone(),
        Some(Value::Bool(value)) => value.to_string(),
        None if matches!(field, "spec.unschedulable" | "spec.hostNetwork") => "false".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_are_selected_as_kubernetes_selects_them() {
        let object = json!({"metadata": {"labels": {"a": "1", "b/c": "x"}}});
        let cases = [
            ("", true),
            ("a=1", true),
            ("a==1,b/c=x", true),
            ("a=2", false),
            ("a!=2", true),
            ("z!=2", true),
            ("a in (1, 2)", true),
            ("a notin (1,2),b/c", false),
            ("z notin (1)", true),
            ("b/c in (x),!z", true),
            ("!a", false),
            ("a>0", true),
            ("a<1", false),
        ];
        for (selector, selects) in cases {
            assert_eq!(Labels::parse(selector).unwrap().selects(&object), selects, "{selector}");
        }
        for bad in ["a in 1", "a like (1)", "=1", "a>x", "a b"] {
            assert_eq!(Labels::parse(bad).unwrap_err().code, 400, "{bad}");
        }
    }

    const WRONG: &str = ",;,,; , ;a!=b,;,a!=b;a,,b;a in (b),;x/y/z!=1;/a;a/;a//b;X/a;x..y/a;-x/a;\
        .a;a-;a$;\u{e9};a=b=c;a===b;a=!b;a!b;a=b||c=d;!a=b;!!a;!;a=-b;a=b.;a=b/c;a=b c;a=(b);a=b);\
        a in (b;a in b);a in ((b));a in (b));a in (b c);a in (b=c);a in (-b);a);(;();(a);a)b,c(;\
        a>;a>-;a<1.5;a in;a notin;a\0";

    #[test]
    fn label_selectors_have_the_grammar_of_kubernetes() {
        let (long, longer) = ("x".repeat(63), "x".repeat(64));
        let domain = format!("{}.{}/a", "y".repeat(126), "y".repeat(126));
        let right = [
            "",
            " \t",
            "a",
            "a ,!b",
            "! a",
            "a=",
            "a= ,b!=",
            "a!=b , c==d",
            "in in (in,notin)",
            "a in(b)",
            "a notin ()",
            "a in (,b,,c,)",
            "x.y-z/A_b.9=A-_.z",
            "a>1,b<2",
            &format!("{long}={long}"),
            &format!("{domain}!=1"),
        ];
        for selector in right {
            let parsed = Labels::parse(selector).unwrap_or_else(|fault| panic!("{fault:?}"));
            assert_eq!(parsed.0.is_empty(), selector.trim().is_empty(), "{selector:?}");
        }
        let wrong = [
            &format!("a={longer}"),
            &format!("a in ({longer})"),
            &format!("{longer}=a"),
            &format!("x/{longer}"),
            &format!("y{domain}"),
            &"a,".repeat(LEN_MAX),
        ];
        for selector in wrong.into_iter().map(String::as_str).chain(WRONG.split(';')) {
            let failure = Labels::parse(selector).err();
            let failure = failure.unwrap_or_else(|| panic!("{selector:?} was accepted"));
            assert_eq!(failure.code, 400, "{selector:?}");
            assert!(failure.message.starts_with("unable to parse requirement: "), "{failure:?}");
        }
    }

    #[test]
    fn field_selectors_have_the_grammar_of_kubernetes() {
        let kind = Kind::of_record("events").unwrap();
        let right = [
            ("", 0),
            ("reason=", 1),
            ("reason==a", 1),
            ("reason!=a!", 1),
            (r"reason=a\=b\\\,c", 1),
            (",reason=a,", 1),
            ("reason=a,metadata.name!=b", 2),
        ];
        for (selector, count) in right {
            let parsed = Fields::parse(kind, selector).unwrap_or_else(|e| panic!("{e:?}"));
            assert_eq!(parsed.0.len(), count, "{selector:?}");
        }
        let wrong = [
            ",",
            ",,",
            " ",
            "reason",
            "reason=a=b",
            "reason===a",
            "reason=a\\",
            r"reason=\a",
            "=a",
            "reason =a",
            " reason=a",
            "reason=a, ",
            "reason!a",
            "reason!!=a",
        ];
        for selector in wrong {
            let failure = Fields::parse(kind, selector).err();
            let failure = failure.unwrap_or_else(|| panic!("{selector:?} was accepted"));
            assert_eq!(failure.code, 400, "{selector:?}");
        }
    }

    #[test]
    fn fields_are_those_of_the_kind() {
        let kind = Kind::of_record("pods").unwrap();
        let pod = json!({"metadata": {"name": "a"}, "status": {"phase": "Running"}, "spec": {}});
        let selects = |selector: &str| Fields::parse(kind, selector).unwrap().selects(&pod);
        assert!(selects("metadata.name=a,status.phase!=Pending"));
        assert!(selects("spec.nodeName="));
        assert!(!selects("metadata.name==b"));
        let failure = Fields::parse(kind, "spec.volumes=1").unwrap_err();
        assert_eq!(failure.message, "field label not supported: spec.volumes");
        assert_eq!(Fields::parse(kind, "a").unwrap_err().code, 400);
        let event = Kind::of_record("events").unwrap();
        let fields = Fields::parse(event, r"reason=a\,b,involvedObject.name=x").unwrap();
        assert!(fields.selects(&json!({"reason": "a,b", "involvedObject": {"name": "x"}})));
    }
}
