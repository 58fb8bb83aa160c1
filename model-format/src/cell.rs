//! From a cell of text to the value that it stands for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::datetime::DatetimeStyle;
use crate::record::Value;
use crate::schema::FieldKind;

/// Words for no and yes.
pub const BOOLEANS: [[&str; 2]; 6] =
    [["F", "T"], ["false", "true"], ["0", "1"], ["no", "yes"], ["n", "y"], ["off", "on"]];

/// A whole number; programs that know only floats write 80.0.
#[must_use]
pub fn integer(cell: &str) -> Option<i64> {
    // The largest whole numbers that a float holds exactly, about.
    let whole = |number: &f64| *number == number.trunc() && number.abs() < 9e15;
    let float = || cell.parse::<f64>().ok().filter(whole).map(|number| number as i64);
    cell.parse().ok().or_else(float)
}

/// A number that is finite.
#[must_use]
pub fn real(cell: &str) -> Option<f64> {
    cell.parse().ok().filter(|number: &f64| number.is_finite())
}

/// An address as [`ip_number`] has it.
#[must_use]
pub fn ip(cell: &str) -> Option<u128> {
    Some(ip_number(cell.parse().ok()?))
}

/// An address as a number of 128 bits, an IPv4 one mapped into IPv6 (RFC 4291,
/// section 2.5.5.2).
#[must_use]
pub fn ip_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// The address that such a number stands for.
#[must_use]
pub fn ip_address(number: u128) -> IpAddr {
    Ipv6Addr::from(number).to_canonical()
}

/// Six bytes in hexadecimal with colons or dashes.
#[must_use]
pub fn mac(cell: &str) -> Option<i64> {
    let mut bytes = cell.split([':', '-']);
    let mut address = 0;
    for _ in 0..6 {
        let is_byte = |byte: &&str| byte.len() == 2 && !byte.starts_with('+');
        let byte = bytes.next().filter(is_byte)?;
        address = address << 8 | i64::from(u8::from_str_radix(byte, 16).ok()?);
    }
    bytes.next().is_none().then_some(address)
}

/// One of [`BOOLEANS`], in any case.
#[must_use]
pub fn boolean(cell: &str) -> Option<bool> {
    let words = BOOLEANS.iter().flat_map(|pair| pair.iter().zip([false, true]));
    let mut matching = words.filter(|(word, _)| word.eq_ignore_ascii_case(cell));
    matching.next().map(|(_, value)| value)
}

impl FieldKind {
    /// The value that a cell of text stands for; where addresses are, a whole
    /// number is one too. `None` for text, which is itself.
    ///
    /// # Errors
    /// What was expected, and what was found.
    pub fn parse_cell(&self, cell: &str) -> Result<Option<Value>, String> {
        let fail = |expected: &str| {
            let shown: String = cell.chars().take(40).collect();
            format!("expected {expected}, found `{shown}`")
        };
        let value = match self {
            FieldKind::Text => return Ok(None),
            FieldKind::Integer => {
                integer(cell).map(Value::Int).ok_or_else(|| fail("a whole number"))
            }
            FieldKind::Float { .. } => real(cell).map(Value::Float).ok_or_else(|| fail("a number")),
            FieldKind::Ipv4 => {
                let address = cell.parse().ok().map(|address: Ipv4Addr| u32::from(address).into());
                let number = address.or_else(|| integer(cell));
                let number = number.filter(|number| u32::try_from(*number).is_ok());
                number.map(Value::Int).ok_or_else(|| fail("an IPv4 address"))
            }
            FieldKind::Ip => ip(cell)
                .map(|address| Value::Wide(address.into()))
                .ok_or_else(|| fail("an IP address")),
            FieldKind::Mac => mac(cell)
                .map(Value::Int)
                .ok_or_else(|| fail("six bytes such as `02:00:00:00:00:01`")),
            FieldKind::Boolean { no, yes } => {
                let own = (cell == yes).then_some(true).or((cell == no).then_some(false));
                own.or_else(|| boolean(cell))
                    .map(|value| Value::Int(value.into()))
                    .ok_or_else(|| fail(&format!("`{no}` or `{yes}`")))
            }
            FieldKind::Datetime(_) => DatetimeStyle::parse(cell)
                .map(|(time_ns, _)| Value::Int(time_ns.div_euclid(1_000)))
                .ok_or_else(|| fail("a date and time such as `2026-01-31T12:00:00Z`")),
        };
        value.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_read_as_their_kind() {
        let read = |kind: &FieldKind, cell: &str| kind.parse_cell(cell);
        assert_eq!(
            read(&FieldKind::Mac, "02-00-00-00-01-ff"),
            Ok(Some(Value::Int(0x0200_0000_01ff)))
        );
        for wrong in ["", "02:00:00:00:00", "02:00:00:00:00:0g", "2:0:0:0:0:1", "+1:00:00:00:00:00"]
        {
            assert!(read(&FieldKind::Mac, wrong).is_err(), "{wrong}");
        }
        let mapped = u128::from(Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped());
        assert_eq!(read(&FieldKind::Ip, "10.0.0.1"), Ok(Some(Value::Wide(mapped.into()))));
        assert_eq!(read(&FieldKind::Ip, "::1"), Ok(Some(Value::Wide(1.into()))));
        let kind = FieldKind::Boolean { no: "F".to_owned(), yes: "T".to_owned() };
        assert_eq!(read(&kind, "T"), Ok(Some(Value::Int(1))));
        assert_eq!(read(&kind, "false"), Ok(Some(Value::Int(0))));
        assert_eq!(read(&kind, "x"), Err("expected `F` or `T`, found `x`".to_owned()));
    }
}
