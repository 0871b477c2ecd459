//! Deterministic randomness that can be asked for any minute in any order.
//!
//! Guarantees: only integer arithmetic and the exactly rounded operations of IEEE 754, so every platform draws the same
//! numbers; no state, so a shorter history holds the same samples as the end of a longer one.

/// SplitMix64's mixing of a stream and a counter (Steele, Lea, Flood: Fast splittable pseudorandom number generators).
#[inline]
pub(super) fn hash(stream: u64, counter: u64) -> u64 {
    let mut z =
        stream.wrapping_mul(0xd1b5_4a32_d192_ed03) ^ counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Uniform in 0..1.
#[inline]
pub(super) fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// Uniform in -1..1.
#[inline]
pub(super) fn signed(bits: u64) -> f64 {
    2.0 * unit(bits) - 1.0
}

/// Close to a standard normal, within 3.5: the sum of four uniforms.
#[inline]
pub(super) fn gaussian(bits: u64) -> f64 {
    let lanes = (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
    (lanes as f64 - 131_070.0) / 37_837.0
}

/// A smooth wander in -1..1 that changes direction about every `period` minutes.
#[inline]
pub(super) fn wander(stream: u64, minute: i64, period: i64) -> f64 {
    let knot = minute.div_euclid(period);
    let position = minute.rem_euclid(period) as f64 / period as f64;
    let from = signed(hash(stream, knot as u64));
    let to = signed(hash(stream, (knot + 1) as u64));
    from + (to - from) * smooth(position)
}

/// Rises from 0 to 1 with level ends.
#[inline]
pub(super) fn smooth(x: f64) -> f64 {
    let x = x.clamp(0.0, 1.0);
    x * x * (3.0 - 2.0 * x)
}

/// A wave of period 1 between -1 and 1, highest at 0: two parabolas, within 0.06 of the cosine.
#[inline]
pub(super) fn wave(phase: f64) -> f64 {
    let x = phase - phase.floor();
    let distance = 4.0 * (x - 0.5).abs() - 1.0;
    distance * (2.0 - distance.abs())
}
