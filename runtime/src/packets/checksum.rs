//! The Internet checksum (RFC 1071) and its update in place (RFC 1624).

/// Folds a sum of 16-bit words to 16 bits with end-around carry.
#[inline]
pub(super) fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The checksum that makes a sum of words right.
#[inline]
pub(super) fn finish(sum: u64) -> u16 {
    !fold(sum)
}

/// That of a header in which zero would say that there is no checksum: all ones are the same
/// number (RFC 768, RFC 3828).
#[inline]
pub(super) fn never_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// The checksum after words that summed up to `old` were changed to sum up to
/// `new` (RFC 1624, equation 3).
#[inline]
pub(super) fn update(checksum: u16, old: u64, new: u64) -> u16 {
    !fold(u64::from(!checksum) + u64::from(!fold(old)) + new)
}

/// The sum of a 128-bit number's eight words.
#[inline]
pub(super) fn words_of_u128(value: u128) -> u64 {
    [96, 64, 32, 0].into_iter().map(|shift| words((value >> shift) as u32)).sum()
}

/// The sum of a 32-bit number's two words.
#[inline]
pub(super) fn words(value: u32) -> u64 {
    u64::from(value >> 16) + u64::from(value & 0xffff)
}
