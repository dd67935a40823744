//! Columns of text, aligned as Go's `text/tabwriter` does it, which kubectl prints with.
//!
//! A tab ends a cell. Cells of one column in lines that follow each other are as wide as the widest
//! of them; what stands behind the last tab of a line belongs to no column.

/// Aligns the cells of a text; a column has at least `least` characters, and `gap` blanks behind
/// its widest cell.
#[must_use]
pub fn align(text: &str, least: usize, gap: usize) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut sheet = Sheet { widths: vec![Vec::new(); lines.len()], lines, least, gap };
    sheet.measure(0, sheet.lines.len(), 0);
    sheet.text()
}

struct Sheet<'a> {
    lines: Vec<Vec<&'a str>>,
    /// The widths of the columns of each line.
    widths: Vec<Vec<usize>>,
    least: usize,
    gap: usize,
}

impl Sheet<'_> {
    fn has(&self, line: usize, column: usize) -> bool {
        self.lines.get(line).is_some_and(|cells| cells.len() > column + 1)
    }

    fn width(&self, line: usize, column: usize) -> usize {
        let cell = self.lines.get(line).and_then(|cells| cells.get(column));
        cell.map_or(0, |cell| cell.chars().count())
    }

    /// Measures a column, and those behind it, in a range of lines that all have the one before.
    fn measure(&mut self, start: usize, end: usize, column: usize) {
        let mut at = start;
        while at < end {
            if !self.has(at, column) {
                at += 1;
                continue;
            }
            let until = (at..end).find(|line| !self.has(*line, column)).unwrap_or(end);
            let widest = (at..until).map(|line| self.width(line, column)).max().unwrap_or(0);
            let width = self.least.max(widest + self.gap);
            for widths in self.widths.iter_mut().take(until).skip(at) {
                widths.push(width);
            }
            self.measure(at, until, column + 1);
            at = until;
        }
    }

    fn text(&self) -> String {
        let mut lines = Vec::with_capacity(self.lines.len());
        for (cells, widths) in self.lines.iter().zip(&self.widths) {
            let mut line = String::new();
            for (at, cell) in cells.iter().enumerate() {
                line.push_str(cell);
                if let Some(width) = widths.get(at) {
                    let blanks = width.saturating_sub(cell.chars().count());
                    line.extend(std::iter::repeat_n(' ', blanks));
                }
            }
            lines.push(line);
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_in_a_block() {
        let text =
            "Name:\ta\nStorageClass:\t\nSource:\n    Type:\tx\n    P:\t/a\tb\nEvents:\t<none>\n";
        let shown = "Name:          a\nStorageClass:  \nSource:\n    Type:  x\n    P:     /a  b\n\
                     Events:    <none>\n";
        assert_eq!(align(text, 0, 2), shown);
        assert_eq!(align("NAME\tAGE\nab\t1s", 6, 3), "NAME   AGE\nab     1s");
    }
}
