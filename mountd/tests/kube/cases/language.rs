//! The language of the cases: one step a line.
//!
//! ```text
//! case TITLE                 begins a case, which has a daemon and a data root of its own
//! pv NAME SIZE MODES ..      creates an object: pv, pvc, class, vac, pod, node, ns (`manifest`)
//! patch KIND NAME {..}       a merge patch; `status` patches the status
//! delete KIND NAME
//! ! CODE TEXT                the request before is refused with the code, and a message with TEXT
//! = KIND NAME WORD ..        holds, or will soon, and stays so: KEY=VALUE, `there`, `gone`
//! = KIND count=N             there are as many objects of the kind
//! event KIND NAME REASON ..  an event whose message has the rest of the line
//! dir PATH, file PATH        makes a directory or file in the directory of the case
//! ```
//!
//! An indented line continues the one before it. A value `{..}` is YAML, and ends a line. Names of
//! claims and pods may have a namespace (`other/name`). `@NAME` is the volume that is made for
//! claim NAME. `$DIR` is the directory of the case, below `/tmp`.

use serde_json::Value;

/// A request or a look.
#[derive(Debug, Clone)]
pub struct Step {
    /// The line, for messages.
    pub text: String,
    pub number: usize,
    pub verb: String,
    pub words: Vec<String>,
    /// The YAML at the end of the line.
    pub value: Option<Value>,
    /// The code and the text of a refusal.
    pub refusal: Option<(u16, String)>,
}

#[derive(Debug, Clone)]
pub struct Case {
    /// The file and the title.
    pub name: String,
    pub steps: Vec<Step>,
}

/// The lines with their numbers; indented ones belong to the one before them.
fn lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let words = line.trim();
        if words.is_empty() || words.starts_with('#') {
            continue;
        }
        match lines.last_mut() {
            Some((_, last)) if line.starts_with(' ') => {
                last.push(' ');
                last.push_str(words);
            }
            _ => lines.push((index + 1, words.to_owned())),
        }
    }
    lines
}

fn step(number: usize, text: &str) -> Step {
    let at = text.find(" {").unwrap_or(text.len());
    let (head, value) = text.split_at(at);
    let mut words = head.split_whitespace().map(str::to_owned);
    let yaml = |text: &str| {
        serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("line {number}: {error}"))
    };
    Step {
        text: text.to_owned(),
        number,
        verb: words.next().unwrap(),
        words: words.collect(),
        value: Some(value.trim()).filter(|text| !text.is_empty()).map(yaml),
        refusal: None,
    }
}

/// The cases of a file.
pub fn parse(file: &str, text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for (number, line) in lines(text) {
        if let Some(title) = line.strip_prefix("case ") {
            cases.push(Case { name: format!("{file}: {title}"), steps: Vec::new() });
            continue;
        }
        let case = cases.last_mut().unwrap_or_else(|| panic!("{file}:{number}: no case"));
        if let Some(refusal) = line.strip_prefix("! ") {
            let (code, text) = refusal.split_once(' ').unwrap();
            let last = case.steps.last_mut().unwrap();
            last.refusal = Some((code.parse().unwrap(), text.to_owned()));
            continue;
        }
        case.steps.push(step(number, &line));
    }
    cases
}
