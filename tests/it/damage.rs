//! State that is not what it was: files cut short, overwritten, gone or with flipped bits. Whatever is damaged is named, with
//! the way to go on; it is never taken for something else, and nothing that is whole goes with it.

mod archive;
mod files;
mod lost;

/// What is done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// Only so many bytes are left.
    Cut(usize),
    /// One bit is another: which byte, which bit.
    Flip(usize, u8),
    /// As long as before, but nothing but zeros.
    Zero,
    /// It is not there.
    Gone,
}

impl Harm {
    /// Everything for a file of so many bytes: each byte where it is short, else its ends and some places between, always
    /// the same ones.
    pub fn all(length: usize) -> Vec<Harm> {
        let places: Vec<usize> = if length < 4096 {
            (0..length).collect()
        } else {
            let mut random = fastrand::Rng::with_seed(length as u64);
            let between = (0..64).map(|_| random.usize(512..length - 512));
            (0..512)
                .chain(between)
                .chain(length - 512..length)
                .collect()
        };
        let cuts = places.iter().map(|at| Harm::Cut(*at));
        let flips = places.iter().map(|at| Harm::Flip(*at, (*at % 8) as u8));
        cuts.chain(flips).chain([Harm::Zero, Harm::Gone]).collect()
    }

    /// Some of it, spread evenly; all of it with `LOOKOUTD_FULL`.
    pub fn some(length: usize, count: usize) -> Vec<Harm> {
        let all = Self::all(length);
        if crate::skipped::full("most places of the damage") {
            return all;
        }
        let (step, ends) = (all.len().div_ceil(count).max(1), all.len() - 2);
        let spread = all[..ends].iter().step_by(step);
        spread.chain(&all[ends..]).copied().collect()
    }

    /// Does it to a file whose bytes were these.
    pub fn inflict(self, path: &std::path::Path, whole: &[u8]) {
        let bytes = match self {
            Harm::Cut(length) => whole[..length].to_vec(),
            Harm::Flip(at, bit) => {
                let mut bytes = whole.to_vec();
                bytes[at] ^= 1 << bit;
                bytes
            }
            Harm::Zero => vec![0; whole.len()],
            Harm::Gone => return std::fs::remove_file(path).unwrap(),
        };
        std::fs::write(path, bytes).unwrap();
    }
}
