//! Amounts as people write them: tokens with up to twelve decimals.

use starling_primitives::{Balance, TOKEN};

/// Reads `12`, `0.5` or `1.000000000001` tokens.
pub(crate) fn parse(text: &str) -> Result<Balance, String> {
    let invalid = || format!("'{text}' is not an amount of tokens, such as 10 or 0.25");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || (text.contains('.') && fraction.is_empty())
    {
        return Err(invalid());
    }
    if fraction.len() > 12 {
        return Err(format!("'{text}' has more than twelve decimals"));
    }
    let whole: Balance = whole.parse().map_err(|_| invalid())?;
    let fraction: Balance = format!("{fraction:0<12}").parse().map_err(|_| invalid())?;
    whole.checked_mul(TOKEN).and_then(|units| units.checked_add(fraction)).ok_or_else(invalid)
}

/// Writes an amount with as many decimals as it needs.
pub(crate) fn format(amount: Balance) -> String {
    let text = format!("{}.{:012}", amount / TOKEN, amount % TOKEN);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_written_exactly() {
        for (text, units) in [("0", 0), ("12", 12 * TOKEN), ("0.5", TOKEN / 2), ("1.000000000001", TOKEN + 1)]
        {
            assert_eq!(parse(text), Ok(units));
            assert_eq!(format(units), text);
        }
        for text in
            ["", ".5", "1.", "-1", "1e3", "1.0000000000001", "99999999999999999999999999999999999999999"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
