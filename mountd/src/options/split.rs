//! Splits lists of options, and lists of paths in their values.
//!
//! A comma separates options, unless a backslash precedes it or it is in a value that is quoted as
//! a whole (`context="a,b"`). A colon separates paths, unless a backslash precedes it. A backslash
//! removes the special meaning of the next character (the kernel's `ovl_split_lowerdirs()` and
//! `ovl_unescape()` in fs/overlayfs/params.c).

/// Splits a list into its options; empty ones are dropped. Backslashes stay.
pub fn split(list: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut word = Vec::new();
    let mut rest = list;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        match byte {
            b'\\' => {
                word.push(byte);
                if let Some((&next, behind)) = rest.split_first() {
                    word.push(next);
                    rest = behind;
                }
            }
            b'"' if word.last() == Some(&b'=') => match quoted(rest) {
                Some(len) => {
                    let (inside, behind) = rest.split_at(len);
                    word.extend_from_slice(inside);
                    rest = behind.get(1..).unwrap_or_default();
                }
                None => word.push(byte),
            },
            b',' => words.push(std::mem::take(&mut word)),
            _ => word.push(byte),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

// The length of a quoted value: up to a quote that ends the value.
fn quoted(rest: &[u8]) -> Option<usize> {
    let ends =
        |at: &usize| rest.get(*at) == Some(&b'"') && matches!(rest.get(at + 1), None | Some(b','));
    (0..rest.len()).find(ends)
}

/// Removes the backslashes from a value.
pub fn unescape(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut bytes = value.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => out.push(bytes.next().unwrap_or(b'\\')),
            _ => out.push(byte),
        }
    }
    out
}

/// Splits a list of paths at its colons and removes the backslashes.
pub fn paths(value: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = value.iter().copied();
    while let Some(byte) = bytes.next() {
        let part = match byte {
            b':' => {
                parts.push(Vec::new());
                continue;
            }
            b'\\' => bytes.next().unwrap_or(b'\\'),
            _ => byte,
        };
        if let Some(last) = parts.last_mut() {
            last.push(part);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(words: Vec<Vec<u8>>) -> Vec<String> {
        words.into_iter().map(|word| String::from_utf8(word).unwrap()).collect()
    }

    #[test]
    fn empty_options_are_dropped() {
        assert_eq!(texts(split(b"a,,b=c,")), ["a", "b=c"]);
        assert_eq!(texts(split(b"")), Vec::<String>::new());
    }

    #[test]
    fn a_backslash_keeps_a_comma() {
        assert_eq!(texts(split(br"lowerdir=/a\,b:/c\:d,ro")), [r"lowerdir=/a\,b:/c\:d", "ro"]);
        assert_eq!(texts(split(br"a=\\,b")), [r"a=\\", "b"]);
    }

    #[test]
    fn a_quoted_value_keeps_its_commas_and_a_lone_quote_is_a_quote() {
        assert_eq!(texts(split(br#"context="s0:c1,c2",ro"#)), ["context=s0:c1,c2", "ro"]);
        assert_eq!(texts(split(br#"lowerdir=/a"b,ro"#)), [r#"lowerdir=/a"b"#, "ro"]);
        assert_eq!(texts(split(br#"lowerdir="x,ro"#)), [r#"lowerdir="x"#, "ro"]);
    }

    #[test]
    fn paths_are_split_at_bare_colons() {
        assert_eq!(texts(paths(br"/a\:b:/c\,d:/e\\f")), ["/a:b", "/c,d", r"/e\f"]);
        assert_eq!(texts(paths(b"/a::/b")), ["/a", "", "/b"]);
        assert_eq!(unescape(br"/a\:b\\c"), br"/a:b\c");
    }
}
