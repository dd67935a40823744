//! The fields of a word: separated by colons in the short forms of grafts, by commas in the long
//! one.

/// Splits at a separator, unless a backslash precedes it. Backslashes stay.
fn split(word: &[u8], separator: u8) -> Vec<&[u8]> {
    let (mut parts, mut start, mut at) = (Vec::new(), 0, 0);
    while let Some(byte) = word.get(at) {
        match *byte {
            b'\\' => at += 1,
            byte if byte == separator => {
                parts.push(word.get(start..at).unwrap_or_default());
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    parts.push(word.get(start..).unwrap_or_default());
    parts
}

/// Removes the backslashes before a colon, a comma or a backslash. Any other one is a character of
/// the name.
fn plain(part: &[u8]) -> Vec<u8> {
    let mut bytes = part.iter().copied().peekable();
    let mut out = Vec::with_capacity(part.len());
    while let Some(byte) = bytes.next() {
        let escaped = bytes.next_if(|next| byte == b'\\' && matches!(next, b':' | b',' | b'\\'));
        out.push(escaped.unwrap_or(byte));
    }
    out
}

/// The fields of a short form, `A:B:WORD,WORD`: the first two, and the words of the others.
pub(super) fn short(word: &[u8]) -> (Vec<u8>, Option<Vec<u8>>, Vec<Vec<u8>>) {
    let mut parts = split(word, b':').into_iter();
    let first = plain(parts.next().unwrap_or_default());
    let second = parts.next().map(plain);
    (first, second, parts.flat_map(|part| split(part, b',')).map(plain).collect())
}

/// The fields of a form `A:WORD,WORD`: the first, and the words of the rest.
pub(super) fn pair(word: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let mut parts = split(word, b':').into_iter();
    let first = plain(parts.next().unwrap_or_default());
    (first, parts.flat_map(|part| split(part, b',')).map(plain).collect())
}

/// The fields of a line of CSV (RFC 4180, section 2): one with a comma in it is in double quotes as
/// a whole, and a double quote in it is doubled.
///
/// # Errors
/// A sentence about a quote at a wrong place.
pub(super) fn csv(line: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    let mut fields = Vec::new();
    let mut rest = Some(line);
    while let Some(text) = rest {
        let (field, behind) = match text.strip_prefix(b"\"") {
            Some(inside) => quoted(inside)?,
            None => bare(text)?,
        };
        fields.push(field);
        rest = behind;
    }
    Ok(fields)
}

type Field<'a> = Result<(Vec<u8>, Option<&'a [u8]>), &'static str>;

fn bare(text: &[u8]) -> Field<'_> {
    let end = text.iter().position(|byte| *byte == b',');
    let field = text.get(..end.unwrap_or(text.len())).unwrap_or_default();
    if field.contains(&b'"') {
        return Err("quotes enclose a whole field, key and value: \"source=/a,b\"");
    }
    Ok((field.to_vec(), end.and_then(|end| text.get(end + 1..))))
}

/// A quoted field, behind its first quote.
fn quoted(inside: &[u8]) -> Field<'_> {
    let mut field = Vec::new();
    let mut rest = inside;
    loop {
        let Some(end) = rest.iter().position(|byte| *byte == b'"') else {
            return Err("a quoted field has no closing quote");
        };
        let (text, behind) = rest.split_at(end);
        field.extend_from_slice(text);
        match behind.get(1) {
            None => return Ok((field, None)),
            Some(b',') => return Ok((field, behind.get(2..))),
            Some(b'"') => field.push(b'"'),
            Some(_) => {
                return Err("a comma has to follow a quoted field; a quote in it is doubled");
            }
        }
        rest = behind.get(2..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(fields: Vec<Vec<u8>>) -> Vec<String> {
        fields.into_iter().map(|field| String::from_utf8(field).unwrap()).collect()
    }

    #[test]
    fn a_backslash_keeps_a_separator() {
        let (source, path, words) = short(br"/a\:b\,c:/d\:e:ro,subpath=x\,y\:z:rw");
        assert_eq!((&source[..], path.as_deref()), (&b"/a:b,c"[..], Some(&b"/d:e"[..])));
        assert_eq!(texts(words), ["ro", "subpath=x,y:z", "rw"]);
        let (source, path, words) = short(br"/a\n\\:/b");
        assert_eq!((&source[..], path.as_deref()), (&br"/a\n\"[..], Some(&b"/b"[..])));
        assert!(words.is_empty() && short(b"/a").1.is_none());
        assert_eq!(pair(br"/a\:b:size=1").0, b"/a:b");
    }

    #[test]
    fn quotes_are_those_of_csv() {
        let fields = |line: &str| csv(line.as_bytes()).map(texts);
        assert_eq!(fields("a,b=c,").unwrap(), ["a", "b=c", ""]);
        assert_eq!(
            fields(r#"type=bind,"source=/a,b",t=/c"#).unwrap().get(1).unwrap(),
            "source=/a,b"
        );
        assert_eq!(fields(r#""a""b,",c"#).unwrap(), [r#"a"b,"#, "c"]);
        assert_eq!(fields(r#""""#).unwrap(), [""]);
        for (line, part) in [
            (r#"source="/a,b""#, "whole field"),
            (r#""a"#, "closing"),
            (r#""a"b,c"#, "a comma has to follow"),
        ] {
            assert!(fields(line).unwrap_err().contains(part), "{line}");
        }
    }
}
