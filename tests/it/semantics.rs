//! The tables of docs/SEMANTICS.md must match the code.

use laminafs::error::Errno;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/SEMANTICS.md");
const HEAD: &str = "| errno | text |\n| --- | --- |\n";

fn errnos() -> String {
    let row =
        |errno: &Errno| format!("| {} | {} |\n", errno.symbol().unwrap(), errno.text().unwrap());
    Errno::ALL.iter().map(row).collect()
}

/// Fails if the errnos of the page differ from the code; `LAMINA_UPDATE=1` rewrites the table.
#[test]
fn errnos_of_the_page_are_those_of_the_code() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (before, table) = page.split_once(HEAD).expect("a table of errnos");
    let rest = table.split_once("\n\n").map_or("", |(_, rest)| rest);
    if std::env::var_os("LAMINA_UPDATE").is_some() {
        let gap = if rest.is_empty() { "" } else { "\n" };
        std::fs::write(PAGE, format!("{before}{HEAD}{}{gap}{rest}", errnos())).unwrap();
        return;
    }
    assert_eq!(table.split("\n\n").next().unwrap().trim_end(), errnos().trim_end());
}
