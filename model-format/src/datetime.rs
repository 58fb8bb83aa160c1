//! Times written as a date and time (ISO 8601, RFC 3339).

use jiff::Timestamp;
use jiff::civil::{DateTime, Time};
use jiff::fmt::temporal::{DateTimePrinter, Pieces};
use jiff::tz::Offset;
use serde::{Deserialize, Serialize};

/// How a column writes its times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatetimeStyle {
    /// Between date and time: `T` or a space.
    separator: char,
    /// How many characters stand before fraction and zone: 10 for a date, 16
    /// with minutes, 19 with seconds.
    length: usize,
    /// Digits after the point.
    decimals: u8,
    /// What stands at the end: `Z`, `+00:00` or nothing.
    zone: String,
    /// The zone's distance from UTC in seconds; nothing means UTC.
    offset_s: i32,
}

impl DatetimeStyle {
    /// Nanoseconds since 1970 and the style of a text such as
    /// `2018-03-24T17:15:20.865716Z`; `None` if it is none, is out of range, or
    /// would not be written as it is.
    #[must_use]
    pub fn parse(text: &str) -> Option<(i64, DatetimeStyle)> {
        // Numbers are never dates here, though the standard knows `20180324`.
        if text.len() > 40 || !text.is_ascii() || text.as_bytes().get(4) != Some(&b'-') {
            return None;
        }
        let pieces = Pieces::parse(text).ok()?;
        let offset = pieces.to_numeric_offset().unwrap_or(Offset::UTC);
        let time = pieces.time().unwrap_or(Time::midnight());
        let timestamp = offset.to_timestamp(DateTime::from_parts(pieces.date(), time)).ok()?;
        let digit_or = |also: u8| move |byte: &u8| byte.is_ascii_digit() || *byte == also;
        let clock = text.as_bytes().get(11..).unwrap_or_default();
        let length = match clock.iter().take_while(|byte| digit_or(b':')(byte)).count() {
            0 => 10,
            clock => 11 + clock,
        };
        let rest = text.get(length..)?;
        let decimals = match rest.strip_prefix('.') {
            Some(rest) => rest.bytes().take_while(u8::is_ascii_digit).count().min(9),
            None => 0,
        };
        let zone = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let style = DatetimeStyle {
            separator: if text.as_bytes().get(10) == Some(&b' ') { ' ' } else { 'T' },
            length,
            decimals: decimals as u8,
            zone: zone.to_owned(),
            offset_s: offset.seconds(),
        };
        let time_ns = i64::try_from(timestamp.as_nanosecond()).ok()?;
        let mut written = String::new();
        style.write(time_ns, &mut written);
        (written == text).then_some((time_ns, style))
    }

    /// Checks what a manifest from outside could have wrong.
    pub(crate) fn validate(&self) -> Result<(), String> {
        let fits = matches!(self.separator, 'T' | ' ')
            && matches!(self.length, 10 | 16 | 19)
            && self.decimals <= 9
            && Offset::from_seconds(self.offset_s).is_ok();
        if fits { Ok(()) } else { Err("the style of a date is out of range".to_owned()) }
    }

    /// The finer of two styles of one column.
    #[must_use]
    pub fn finer(self, other: &DatetimeStyle) -> DatetimeStyle {
        let length = self.length.max(other.length);
        DatetimeStyle { decimals: self.decimals.max(other.decimals), length, ..self }
    }

    /// Appends a time in nanoseconds since 1970.
    pub fn write(&self, time_ns: i64, out: &mut String) {
        let step = match self.length {
            10 => 86_400_000_000_000,
            16 => 60_000_000_000,
            _ => 10_i64.pow(9 - u32::from(self.decimals.min(9))),
        };
        let half = if self.length < 19 { 0 } else { step / 2 };
        let offset_ns = i64::from(self.offset_s) * 1_000_000_000;
        let local_ns = time_ns.saturating_add(half).saturating_add(offset_ns);
        let rounded = (local_ns.div_euclid(step) * step).saturating_sub(offset_ns);
        let timestamp = Timestamp::from_nanosecond(rounded.into());
        let offset = Offset::from_seconds(self.offset_s).unwrap_or(Offset::UTC);
        let Ok(timestamp) = timestamp else { return };
        let separator = u8::try_from(self.separator).unwrap_or(b'T');
        let printer =
            DateTimePrinter::new().separator(separator).precision(Some(self.decimals.min(9)));
        let begin = out.len();
        // Writing to a String cannot fail.
        let _ = printer.print_datetime(&offset.to_datetime(timestamp), &mut *out);
        if self.length < 19 {
            out.truncate(begin + self.length);
        }
        out.push_str(&self.zone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_written_the_same() {
        for (text, ns) in [
            ("2018-03-24T17:15:20.865716Z", 1_521_911_720_865_716_000),
            ("2018-03-24 17:15:20", 1_521_911_720_000_000_000),
            ("2018-03-24T19:15:20.50+02:00", 1_521_911_720_500_000_000),
            ("1969-12-31T23:59:59.9Z", -100_000_000),
            ("2018-03-24T17:15+02:00", 1_521_904_500_000_000_000),
            ("2018-03-24 17:15Z", 1_521_911_700_000_000_000),
            ("2018-03-24", 1_521_849_600_000_000_000),
        ] {
            let (found, style) = DatetimeStyle::parse(text).expect(text);
            assert_eq!(found, ns, "{text}");
            let mut out = String::new();
            style.write(found, &mut out);
            assert_eq!(out, text);
        }
    }

    #[test]
    fn numbers_and_words_are_no_dates() {
        for text in
            ["", "1521911720", "1521911720.865716", "20180324", "now", "2018-13-01", "12:30"]
        {
            assert_eq!(DatetimeStyle::parse(text), None, "{text}");
        }
    }
}
