//! An asset: one machine of a plant, with its own windows, input files and scheduler.
//!
//! Guarantees: a name is one that the service takes as part of a scheduler's name, and a store as part of a key; the one
//! asset of a tag list that names none has no name, and nothing that is kept tells it from a plant without assets.

use std::fmt;
use std::sync::Arc;

/// The longest name: that of a scheduler, of which it is a part.
const LONGEST: usize = 200;

/// The name of an asset; empty where the tag list names none. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asset(Arc<str>);

impl Asset {
    /// The asset of that name, or why there can be none.
    pub fn named(name: &str) -> Result<Self, String> {
        if let Some(bad) = name
            .chars()
            .find(|c| !c.is_ascii_alphanumeric() && !"-_".contains(*c))
        {
            return Err(format!(
                "asset \"{name}\" contains {bad:?}; it is part of a scheduler's name, which has only letters, digits, hyphens and \
                 underscores"
            ));
        }
        match name.len() {
            0 => {
                Err("the asset is blank; every line needs one where there is a column Asset".into())
            }
            1..=LONGEST => Ok(Self(name.into())),
            length => Err(format!(
                "asset \"{name}\" has {length} characters; the service allows {LONGEST}"
            )),
        }
    }

    /// One that is known already, as it was written down.
    pub fn known(name: &str) -> Self {
        Self(name.into())
    }

    /// Its name; empty where it has none.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Whether it has a name.
    pub fn is_named(&self) -> bool {
        !self.0.is_empty()
    }
}

impl fmt::Display for Asset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_named() {
            &self.0
        } else {
            "the asset without a name"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_a_schedulers_name_may_hold() {
        for name in ["pump-1", "P_2", "20260101T000500Z-PT5M"] {
            assert_eq!(Asset::named(name).unwrap().name(), name);
        }
        for name in ["", "a/b", "pump 1", "pumpe-ü", "a.b", &"x".repeat(201)] {
            assert!(Asset::named(name).is_err(), "{name}");
        }
        assert_eq!(Asset::default().to_string(), "the asset without a name");
    }
}
