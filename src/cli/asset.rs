//! Which asset a command is about, where the tag list names several.

use clap::Args;

use crate::config::{Config, Loaded};
use crate::daemon::Plan;
use crate::feed::Ledger;
use crate::signal::{Asset, TagList};

/// The choice of an asset.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct AssetArgs {
    /// The asset, where the tag list names several
    #[arg(long, value_name = "NAME")]
    asset: Option<String>,
}

/// One asset with its own configuration.
pub(super) struct One {
    pub asset: Asset,
    pub config: Config,
    /// Its components; `None` where they cannot be read, or are those of the sample plant.
    pub tags: Option<TagList>,
}

impl One {
    /// One of which the tag list says nothing.
    pub fn unread(loaded: &Loaded, asset: Asset) -> Self {
        Self {
            config: loaded.config.of(&asset),
            asset,
            tags: None,
        }
    }
}

/// Why it is not known which is meant.
#[derive(Debug, thiserror::Error)]
pub(super) enum AssetError {
    #[error("which asset? name it with --asset: the tag list has {0}")]
    Which(String),
    #[error("the tag list has no asset {name}; it has {known}")]
    Unknown { name: String, known: String },
    #[error("the tag list names no assets: leave --asset {0} out")]
    None(String),
}

impl AssetArgs {
    /// The one that is named, otherwise all.
    pub fn all(&self, loaded: &Loaded) -> anyhow::Result<Vec<One>> {
        let all = every(loaded)?;
        let Some(name) = &self.asset else {
            return Ok(all);
        };
        let known = names(&all);
        let found: Vec<One> = all
            .into_iter()
            .filter(|one| one.asset.name() == name)
            .collect();
        if !found.is_empty() {
            return Ok(found);
        }
        Err(match known {
            Some(known) => AssetError::Unknown {
                name: name.clone(),
                known,
            },
            None => AssetError::None(name.clone()),
        }
        .into())
    }

    /// The one that is named, or the only one.
    pub fn one(&self, loaded: &Loaded) -> anyhow::Result<One> {
        let mut all = self.all(loaded)?;
        match (all.pop(), all.is_empty()) {
            (Some(one), true) => Ok(one),
            (last, _) => {
                all.extend(last);
                Err(AssetError::Which(names(&all).unwrap_or_default()).into())
            }
        }
    }

    /// As [`AssetArgs::one`], and those that have left the list and that the ledger knows.
    pub fn recorded(&self, loaded: &Loaded, ledger: &Ledger) -> anyhow::Result<One> {
        if let Some(name) = &self.asset
            && !every(loaded)?.iter().any(|one| one.asset.name() == name)
            && ledger.assets()?.contains(name)
        {
            return Ok(One::unread(loaded, Asset::known(name)));
        }
        self.one(loaded)
    }

    /// The name that is given.
    pub fn name(&self) -> Option<&str> {
        self.asset.as_deref()
    }

    /// Whether one is named.
    pub fn is_named(&self) -> bool {
        self.asset.is_some()
    }
}

impl AssetArgs {
    /// The one that keeps the scheduler of that name, where one is given; otherwise as [`AssetArgs::one`].
    pub fn keeper(&self, loaded: &Loaded, scheduler: Option<&str>) -> anyhow::Result<One> {
        let Some(name) = scheduler.filter(|_| self.asset.is_none()) else {
            return self.one(loaded);
        };
        let mut all = every(loaded)?;
        let at = match all.len() {
            1 => Some(0),
            _ => all
                .iter()
                .position(|one| one.config.inference.scheduler == name),
        };
        Ok(match at {
            Some(at) => all.swap_remove(at),
            // Nobody's of this configuration.
            None => One {
                asset: Asset::default(),
                config: loaded.config.clone(),
                tags: None,
            },
        })
    }
}

/// The list of one asset: of the one that is named, or of the only one.
pub(super) fn part(list: &TagList, named: Option<&str>) -> Result<TagList, AssetError> {
    let assets = list.assets();
    let joined = || {
        let names: Vec<&str> = assets.iter().map(Asset::name).collect();
        names.join(", ")
    };
    match (named, assets.as_slice()) {
        (None, [only]) => Ok(list.of(only)),
        (None, _) => Err(AssetError::Which(joined())),
        (Some(name), [only]) if !only.is_named() => Err(AssetError::None(name.to_owned())),
        (Some(name), _) => match assets.iter().find(|asset| asset.name() == name) {
            Some(asset) => Ok(list.of(asset)),
            None => Err(AssetError::Unknown {
                name: name.to_owned(),
                known: joined(),
            }),
        },
    }
}

/// Every asset of a configuration. Where the tag list cannot be read there is one without a name: who needs the list says so.
fn every(loaded: &Loaded) -> anyhow::Result<Vec<One>> {
    let list = match loaded.config.source.tags.as_str() {
        "" => None,
        tags => TagList::read(tags).ok(),
    };
    let Some(list) = list else {
        return Ok(vec![One {
            asset: Asset::default(),
            config: loaded.config.clone(),
            tags: None,
        }]);
    };
    let configs = Plan::configs(loaded, &list)?;
    let one = |(asset, config): (Asset, Config)| One {
        tags: Some(list.of(&asset)),
        asset,
        config,
    };
    Ok(configs.into_iter().map(one).collect())
}

/// Some of their names; `None` where they have none.
fn names(all: &[One]) -> Option<String> {
    const SHOWN: usize = 10;
    let mut names: Vec<&str> = all
        .iter()
        .filter(|one| one.asset.is_named())
        .map(|one| one.asset.name())
        .collect();
    if names.is_empty() {
        return None;
    }
    let more = names.len().saturating_sub(SHOWN);
    names.truncate(SHOWN);
    Some(match more {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    })
}
