//! Lists in pages, by id: what is removed between two pages moves nothing.

use super::fault::{Fault, Outcome};

/// The digits of a token: it is the id of the last entry of a page.
const DIGITS: usize = 32;

/// A page of entries that are in the order of their ids, and the token of the next one.
///
/// # Errors
/// `ABORTED` for a token that was never given out, `INVALID_ARGUMENT` for a negative limit.
pub fn of<T>(
    mut all: Vec<T>,
    id: impl Fn(&T) -> &str,
    (limit, token): (i32, &str),
) -> Outcome<(Vec<T>, String)> {
    let limit = usize::try_from(limit)
        .map_err(|_| Fault::invalid(format!("max_entries is negative: {limit}")))?;
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if !token.is_empty() && (token.len() != DIGITS || !token.bytes().all(is_hex)) {
        return Err(Fault::aborted(format!(
            "starting_token {token:?} is not one of this driver: begin without a token"
        )));
    }
    all.retain(|one| id(one) > token);
    all.sort_by(|one, other| id(one).cmp(id(other)));
    if limit == 0 || all.len() <= limit {
        return Ok((all, String::new()));
    }
    all.truncate(limit);
    let next = all.last().map(|one| id(one).to_owned()).unwrap_or_default();
    Ok((all, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[u32]) -> Vec<String> {
        numbers.iter().map(|number| format!("{number:032x}")).collect()
    }

    #[test]
    fn pages_hold_over_removals() {
        let page = |all: &[u32], limit, token: &str| {
            of(ids(all), |one| one.as_str(), (limit, token)).map_err(|fault| fault.code())
        };
        let (first, next) = page(&[3, 1, 2, 5], 2, "").unwrap();
        assert_eq!(first, ids(&[1, 2]));
        let (second, end) = page(&[1, 3, 4, 5], 3, &next).unwrap();
        assert_eq!((second, end.as_str()), (ids(&[3, 4, 5]), ""));
        assert_eq!(page(&[1], 0, "").unwrap().0.len(), 1);
        assert_eq!(page(&[1], -1, ""), Err(tonic::Code::InvalidArgument));
        assert_eq!(page(&[1], 1, "../../etc"), Err(tonic::Code::Aborted));
    }
}
