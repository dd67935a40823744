//! What was left out of a tree, for the user.

/// The number of remarks that are kept.
const KEPT: usize = 100;

/// Remarks about objects that were left out or are incomplete. The number is bounded.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Notes {
    lines: Vec<String>,
    more: u64,
}

impl Notes {
    /// Adds a remark.
    pub fn add(&mut self, line: String) {
        if self.lines.len() < KEPT {
            self.lines.push(line);
        } else {
            self.more += 1;
        }
    }

    /// Adds the remarks of another one.
    pub fn append(&mut self, other: Self) {
        self.more += other.more;
        other.lines.into_iter().for_each(|line| self.add(line));
    }

    /// The remarks. The last line counts those that were not kept.
    #[must_use]
    pub fn into_lines(mut self) -> Vec<String> {
        if self.more > 0 {
            self.lines.push(format!("{} more objects are left out or incomplete", self.more));
        }
        self.lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remarks_are_bounded_and_counted() {
        let mut notes = Notes::default();
        (0..KEPT + 7).for_each(|number| notes.add(number.to_string()));
        let mut twice = notes.clone();
        twice.append(notes);
        let lines = twice.into_lines();
        assert_eq!(lines.len(), KEPT + 1);
        assert!(lines[KEPT].starts_with("114 more"), "{:?}", lines.last());
    }
}
