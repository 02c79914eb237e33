//! Where a byte stands, found 16 bytes at a time.
//!
//! Separators stand close together in messages, and pieces are short: what a general search needs to get going costs
//! more than the search. Long texts are left to memchr.

use memchr::memchr;
use wide::u8x16;

/// What is searched here at most.
const NEAR: usize = 256;

/// The place of the n-th byte of this value, from 1.
pub(super) fn nth(byte: u8, bytes: &[u8], n: usize) -> Option<usize> {
    if n == 1 && bytes.len() > NEAR {
        return memchr(byte, bytes);
    }
    let (lanes, rest) = bytes.as_chunks::<16>();
    let (wanted, mut left, mut at) = (u8x16::splat(byte), n, 0);
    for lane in lanes {
        let mut hits = u8x16::new(*lane).simd_eq(wanted).to_bitmask();
        while hits != 0 {
            left = left.checked_sub(1)?;
            if left == 0 {
                return Some(at + hits.trailing_zeros() as usize);
            }
            hits &= hits - 1;
        }
        at += 16;
    }
    for found in rest {
        if *found == byte {
            left = left.checked_sub(1)?;
            if left == 0 {
                return Some(at);
            }
        }
        at += 1;
    }
    None
}

/// Tells each place of either byte in order, until told to stop; returns where it stopped to look, the end if never.
pub(super) fn walk([one, other]: [u8; 2], bytes: &[u8], mut tell: impl FnMut(usize, u8) -> bool) -> usize {
    let (lanes, rest) = bytes.as_chunks::<16>();
    let (ones, others) = (u8x16::splat(one), u8x16::splat(other));
    let mut at = 0;
    for lane in lanes {
        let wide = u8x16::new(*lane);
        let mut hits = (wide.simd_eq(ones) | wide.simd_eq(others)).to_bitmask();
        while hits != 0 {
            let place = hits.trailing_zeros() as usize;
            if !tell(at + place, lane.get(place).copied().unwrap_or_default()) {
                return at + place;
            }
            hits &= hits - 1;
        }
        at += 16;
    }
    for (place, byte) in (at..).zip(rest) {
        if (*byte == one || *byte == other) && !tell(place, *byte) {
            return place;
        }
    }
    bytes.len()
}

/// The bytes of one value, and all bytes up to another, among 64: a bit for each byte.
pub(super) fn masks(block: &[u8; 64], byte: u8, last: u8) -> (u64, u64) {
    let (byte, last) = (u8x16::splat(byte), u8x16::splat(last));
    let (mut same, mut up_to) = (0, 0);
    let (lanes, _) = block.as_chunks::<16>();
    for (number, lane) in lanes.iter().enumerate() {
        let lane = u8x16::new(*lane);
        same |= u64::from(lane.simd_eq(byte).to_bitmask()) << (16 * number);
        up_to |= u64::from(lane.min(last).simd_eq(lane).to_bitmask()) << (16 * number);
    }
    (same, up_to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_nth_is_where_counting_finds_it(bytes in prop::collection::vec(b'a'..b'e', 0..600), n in 0usize..40) {
            let counted = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'c').map(|(at, _)| at);
            prop_assert_eq!(nth(b'c', &bytes, n), n.checked_sub(1).and_then(|skip| { let mut counted = counted; counted.nth(skip) }));
        }

        #[test]
        fn a_mask_has_a_bit_for_each_byte(bytes in prop::array::uniform32(any::<u8>()), last in any::<u8>()) {
            let mut block = [0; 64];
            block.iter_mut().zip(bytes.iter().chain(&bytes)).for_each(|(to, from)| *to = *from);
            let (same, up_to) = masks(&block, b'|', last);
            for (at, byte) in block.iter().enumerate() {
                prop_assert_eq!(same >> at & 1 == 1, *byte == b'|');
                prop_assert_eq!(up_to >> at & 1 == 1, *byte <= last);
            }
        }
    }
}
