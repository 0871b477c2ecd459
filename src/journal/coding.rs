//! Numbers as bytes: variable length for what is mostly small, fixed for what is looked up.
//!
//! Guarantees: reading takes any bytes and never panics; what does not fit is `None`.

/// Appends an unsigned number, seven bits a byte.
pub(super) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number as u8) | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a number that may be negative; one near zero is short.
pub(super) fn put_signed(out: &mut Vec<u8>, number: i64) {
    put(out, ((number << 1) ^ (number >> 63)) as u64);
}

/// Bytes that are read from the front.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    pub fn f64(&mut self) -> Option<f64> {
        self.array().map(f64::from_le_bytes)
    }

    pub fn number(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    pub fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some(((number >> 1) as i64) ^ -((number & 1) as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_at_their_limits_and_cut_ones_do_not() {
        for number in [0, 1, -1, 63, -64, 64, i64::MAX, i64::MIN, 1_700_000_000_000] {
            let mut out = Vec::new();
            put_signed(&mut out, number);
            put(&mut out, number as u64);
            let mut bytes = Bytes(&out);
            assert_eq!(bytes.signed(), Some(number));
            assert_eq!(bytes.number(), Some(number as u64));
            assert!(bytes.0.is_empty());
            let cut = &out[..out.len() - 1];
            let mut bytes = Bytes(cut);
            assert!(bytes.signed().is_none() || bytes.number().is_none());
        }
        assert_eq!(Bytes(&[0xff; 10]).number(), None);
    }
}
