//! The configuration of one asset among several: what `{asset}` stands for, and what `[asset.NAME]` sets otherwise.
//!
//! Guarantees: what [`Config::of`] returns is a configuration like that of a plant with one asset, so that nothing below
//! needs to know of others; what two assets would share and must not is a finding, with the key and what to write.

use std::collections::{BTreeMap, HashMap};

use config::Value;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Config, Finding, suggestion};
use crate::feed::Publish;
use crate::inference::Wanted;
use crate::input;
use crate::signal::{Asset, Cadence, TagList};

/// What stands for the asset's name.
pub const PLACEHOLDER: &str = "{asset}";
/// Where it may stand.
const MAY: &str = "source.history, s3.input_prefix, inference.scheduler, .model, .output_prefix, .archive_prefix and .tags";

/// What differs for one asset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Own {
    /// Its window length, instead of `feed.cadence`.
    pub cadence: Option<Cadence>,
    /// Its delay offset, instead of `inference.delay_offset_minutes`.
    pub delay_offset_minutes: Option<u8>,
    /// Its model, instead of `inference.model`.
    pub model: Option<String>,
    /// What its scheduler is kept as, instead of `inference.wanted`.
    pub wanted: Option<Wanted>,
    /// Its history, instead of `source.history`.
    pub history: Option<String>,
    /// The name of its time column, instead of `source.time_column`.
    pub time_column: Option<String>,
    /// What its time column counts, instead of `source.time_unit`.
    pub time_unit: Option<String>,
    /// The clock of its times, instead of `source.time_zone`.
    pub time_zone: Option<String>,
}

/// What assets set of their own, by name.
pub type Assets = BTreeMap<String, Own>;

/// Takes the value of a key `asset.NAME.KEY`; the error says what is wrong with it.
pub(super) fn take(assets: &mut Assets, key: &str, value: &Value) -> Result<(), String> {
    let mut parts = key.splitn(3, '.');
    let (_, name, own) = (parts.next(), parts.next(), parts.next());
    let (Some(name), Some(own)) = (name, own) else {
        return Err("is no key: write the section of an asset as [asset.NAME]".into());
    };
    Asset::named(name)?;
    let known = serde_json::to_value(Own::default()).unwrap_or_default();
    let known: Vec<String> = known
        .as_object()
        .into_iter()
        .flat_map(|members| members.keys().map(|key| format!("asset.{name}.{key}")))
        .collect();
    if !known.iter().any(|known| known == key) {
        return Err(format!("is not a known key; {}", suggestion(key, &known)));
    }
    // Environment and flags have only texts.
    let json: serde_json::Value = match (own, &value.kind) {
        ("delay_offset_minutes", _) => value.clone().into_uint().map(Into::into),
        _ => value.clone().into_string().map(Into::into),
    }
    .map_err(|error| super::plain(&error))?;
    let mut whole =
        serde_json::to_value(assets.get(name).cloned().unwrap_or_default()).unwrap_or_default();
    whole[own] = json;
    let read = serde_json::from_value(whole).map_err(|error| error.to_string())?;
    assets.insert(name.to_owned(), read);
    Ok(())
}

impl Own {
    /// Gives way to a key of the whole configuration that is named on the command line.
    pub fn give_way(&mut self, key: &str) {
        match key {
            "source.history" => self.history = None,
            "source.time_column" => self.time_column = None,
            "source.time_unit" => self.time_unit = None,
            "source.time_zone" => self.time_zone = None,
            _ => {}
        }
    }

    /// Its keys that are set, with their values.
    pub(super) fn set(&self) -> Vec<(String, serde_json::Value)> {
        let members = serde_json::to_value(self).unwrap_or_default();
        let members = members.as_object().cloned().unwrap_or_default();
        members
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .collect()
    }
}

impl Config {
    /// The configuration of one asset.
    pub fn of(&self, asset: &Asset) -> Config {
        let mut config = self.clone();
        config.asset.clear();
        if config.is_live() {
            // What is to come is not known: a window is cut when it has ended.
            config.feed.publish = Publish::Behind;
        }
        if !asset.is_named() {
            return config;
        }
        if let Some(own) = self.asset.get(asset.name()) {
            let own = own.clone();
            config.feed.cadence = own.cadence.unwrap_or(config.feed.cadence);
            let inference = &mut config.inference;
            inference.delay_offset_minutes = own
                .delay_offset_minutes
                .unwrap_or(inference.delay_offset_minutes);
            inference.wanted = own.wanted.unwrap_or(inference.wanted);
            inference.model = own.model.unwrap_or_else(|| inference.model.clone());
            if let Some(history) = own.history {
                config.source.parquet.clear();
                config.source.history = history;
            }
            let source = &mut config.source;
            for (key, own) in [
                (&mut source.time_column, own.time_column),
                (&mut source.time_unit, own.time_unit),
                (&mut source.time_zone, own.time_zone),
            ] {
                *key = own.unwrap_or_else(|| key.clone());
            }
        }
        for (_, text) in config.named() {
            *text = text.replace(PLACEHOLDER, asset.name());
        }
        config
    }

    /// Where `{asset}` may stand.
    fn named(&mut self) -> [(&'static str, &mut String); 8] {
        let inference = &mut self.inference;
        [
            ("source.history", &mut self.source.history),
            ("source.parquet", &mut self.source.parquet),
            ("s3.input_prefix", &mut self.s3.input_prefix),
            ("inference.scheduler", &mut inference.scheduler),
            ("inference.model", &mut inference.model),
            ("inference.output_prefix", &mut inference.output_prefix),
            ("inference.archive_prefix", &mut inference.archive_prefix),
            ("inference.tags", &mut inference.tags),
        ]
    }

    /// The keys that name the asset.
    fn placed(&self) -> Vec<&'static str> {
        let mut copy = self.clone();
        let named = copy.named();
        let has = named
            .into_iter()
            .filter(|(_, text)| text.contains(PLACEHOLDER));
        has.map(|(key, _)| key).collect()
    }

    /// The configurations of all assets of a tag list, or everything that is wrong with them together. `origin` says where a
    /// key's value came from.
    pub fn of_all(
        &self,
        tags: &TagList,
        origin: &dyn Fn(&str) -> String,
    ) -> Result<Vec<(Asset, Config)>, super::ConfigError> {
        let assets = tags.assets();
        let found: Vec<_> = assets
            .into_iter()
            .map(|asset| (asset.clone(), self.of(&asset)))
            .collect();
        let mut problems = self.problems_of(&found);
        problems.extend(input::problems(&self.input, tags));
        if problems.is_empty() {
            return Ok(found);
        }
        let findings = problems.into_iter().map(|(key, problem)| Finding {
            origin: origin(&key),
            key,
            problem,
        });
        Err(super::ConfigError {
            findings: findings.collect(),
        })
    }

    /// What is wrong with the configurations of all assets together.
    fn problems_of(&self, assets: &[(Asset, Config)]) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let names: Vec<String> = assets
            .iter()
            .map(|(asset, _)| format!("asset.{}", asset.name()))
            .collect();
        for name in self.asset.keys().map(|name| format!("asset.{name}")) {
            if !names.contains(&name) {
                problems.push((
                    name.clone(),
                    format!(
                        "the tag list has no such asset; {}",
                        match assets {
                            [(asset, _)] if !asset.is_named() =>
                                "it has no column Asset at all".to_owned(),
                            _ => suggestion(&name, &names),
                        }
                    ),
                ));
            }
        }
        if assets.iter().all(|(asset, _)| !asset.is_named()) {
            for key in self.placed() {
                problems.push((
                    key.to_owned(),
                    format!("has {PLACEHOLDER}, and the tag list has no column Asset: give it one, or write the name here"),
                ));
            }
            return problems;
        }
        problems.extend(self.collisions(assets));
        let already = self.problems();
        for (_, config) in assets {
            for (key, problem) in config.problems() {
                let is_new = !already.iter().any(|(known, _)| *known == key)
                    && !problems.iter().any(|(known, _)| known == key);
                if is_new {
                    problems.push((key.to_owned(), problem));
                }
            }
        }
        problems
    }

    /// What two assets must not have in common.
    fn collisions(&self, assets: &[(Asset, Config)]) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut say = |key: &str, same: Option<(&Asset, &Asset)>, example: &str| {
            if let Some((one, other)) = same {
                problems.push((
                    key.to_owned(),
                    format!("is the same for {one} and {other}: name the asset in it, such as \"{example}\""),
                ));
            }
        };
        let input = same(assets, |config| Some(&config.s3.input_prefix));
        let written = |text: &str, otherwise: &str| match text {
            "" => format!("{otherwise}{PLACEHOLDER}"),
            text => text.trim_end_matches('/').to_owned(),
        };
        let bare = written(&self.s3.input_prefix, "input/");
        say("s3.input_prefix", input, &example(&bare, "/"));
        let scheduler = same(assets, |config| {
            let name = &config.inference.scheduler;
            (!name.is_empty()).then_some(name)
        });
        let bare = written(&self.inference.scheduler, "");
        say("inference.scheduler", scheduler, &example(&bare, ""));
        let output = same(assets, |config| {
            let is_kept = !config.inference.scheduler.is_empty();
            is_kept.then_some(&config.inference.output_prefix)
        });
        let bare = written(&self.inference.output_prefix, "output/");
        say("inference.output_prefix", output, &example(&bare, "/"));
        problems
    }
}

/// Two assets that have the same value.
fn same(
    assets: &[(Asset, Config)],
    pick: impl Fn(&Config) -> Option<&String>,
) -> Option<(&Asset, &Asset)> {
    let mut seen: HashMap<&str, &Asset> = HashMap::new();
    for (asset, config) in assets {
        if let Some(value) = pick(config)
            && let Some(other) = seen.insert(value, asset)
        {
            return Some((other, asset));
        }
    }
    None
}

fn example(bare: &str, end: &str) -> String {
    let between = if end.is_empty() { "-" } else { "/" };
    if bare.contains(PLACEHOLDER) {
        return format!("{bare}{end}");
    }
    format!("{bare}{between}{PLACEHOLDER}{end}")
}

/// As the checks of each key by itself see it: with some name in its place.
pub(super) fn filled(config: &Config) -> Config {
    config.of(&Asset::known("asset"))
}

/// Where the name may stand and does not.
pub(super) fn misplaced(settings: &[(String, String)]) -> Vec<(String, String)> {
    let mut may = Config::default();
    let may: Vec<&str> = may.named().iter().map(|(key, _)| *key).collect();
    settings
        .iter()
        .filter(|(key, value)| {
            let own = key.starts_with("asset.");
            value.contains(PLACEHOLDER) && !own && !may.contains(&key.as_str())
        })
        .map(|(key, _)| {
            (
                key.clone(),
                format!("has {PLACEHOLDER}, which may only stand in {MAY}"),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::inspect;

    fn tags(text: &str) -> TagList {
        TagList::parse(text.as_bytes(), "tags.csv").unwrap()
    }

    fn two() -> TagList {
        tags("Asset,Tag,Subsystem\npump-1,a,m\npump-2,a,m\n")
    }

    fn load(text: &str) -> (Config, Vec<Finding>) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("lookoutd.toml");
        std::fs::write(&file, text).unwrap();
        let (loaded, findings) = inspect(Some(&file), &[], &[]).unwrap();
        (loaded.config, findings)
    }

    const WHOLE: &str = "
[source]
history = \"plant/{asset}.parquet\"
tags = \"tags.csv\"
[s3]
bucket = \"plant\"
input_prefix = \"input/{asset}/\"
[inference]
scheduler = \"{asset}-live\"
model = \"m\"
output_prefix = \"output/{asset}/\"
tags = \"machine={asset}\"
[asset.pump-2]
cadence = \"PT10M\"
delay_offset_minutes = 3
model = \"m-2\"
wanted = \"observe\"
history = \"other.parquet\"
";

    #[test]
    fn an_asset_has_a_plain_configuration_of_its_own() {
        let (config, findings) = load(WHOLE);
        assert_eq!(findings, []);
        let all = config.of_all(&two(), &|_| String::new()).unwrap();
        let (one, other) = (&all[0].1, &all[1].1);
        assert_eq!(one.source.history, "plant/pump-1.parquet");
        assert_eq!(one.s3.input_prefix, "input/pump-1/");
        assert_eq!(one.inference.scheduler, "pump-1-live");
        assert_eq!(one.inference.tags, "machine=pump-1");
        assert_eq!(
            (one.feed.cadence, one.inference.model.as_str()),
            (Cadence::Pt5m, "m")
        );
        assert_eq!(other.source.history, "other.parquet");
        assert_eq!(other.feed.cadence, Cadence::Pt10m);
        assert_eq!(other.inference.delay_offset_minutes, 3);
        assert_eq!(other.inference.model, "m-2");
        assert_eq!(other.inference.wanted, Wanted::Observe);
        assert!(other.asset.is_empty());
        assert_eq!(
            config.of(&Asset::default()).inference.scheduler,
            "{asset}-live"
        );
    }

    fn wrong(text: &str, list: &TagList) -> Vec<String> {
        let (config, findings) = load(text);
        let together = config
            .of_all(list, &|_| String::new())
            .err()
            .map(|error| error.findings)
            .unwrap_or_default();
        let all = findings.into_iter().chain(together);
        all.map(|finding| format!("{}: {}", finding.key, finding.problem))
            .collect()
    }

    #[test]
    fn what_two_assets_would_share_is_a_finding_with_what_to_write() {
        let shared = WHOLE
            .replace("input/{asset}/", "input/")
            .replace("{asset}-live", "live")
            .replace("output/{asset}/", "output/");
        let found = wrong(&shared, &two());
        for expected in [
            "s3.input_prefix: is the same for pump-1 and pump-2: name the asset in it, such as \"input/{asset}/\"",
            "inference.scheduler: is the same for pump-1 and pump-2: name the asset in it, such as \"live-{asset}\"",
            "inference.output_prefix: is the same for pump-1 and pump-2: name the asset in it, such as \"output/{asset}/\"",
        ] {
            assert!(found.iter().any(|found| found == expected), "{found:?}");
        }
        // One asset with a name shares with nobody.
        assert_eq!(
            wrong(
                &shared.replace("[asset.pump-2]", "[asset.pump-1]"),
                &tags("Asset,Tag,Subsystem\npump-1,a,m\n")
            ),
            Vec::<String>::new()
        );
    }

    #[test]
    fn what_names_no_asset_or_no_key_is_a_finding_with_the_nearest() {
        let found = wrong(&WHOLE.replace("[asset.pump-2]", "[asset.pump-3]"), &two());
        assert!(
            found[0].starts_with(
                "asset.pump-3: the tag list has no such asset; did you mean asset.pump-"
            ),
            "{found:?}"
        );
        let found = wrong(&WHOLE.replace("cadence =", "cadense ="), &two());
        assert_eq!(
            found[0],
            "asset.pump-2.cadense: is not a known key; did you mean asset.pump-2.cadence?"
        );
        let found = wrong(&WHOLE.replace("PT10M", "PT7M"), &two());
        assert!(found[0].starts_with("asset.pump-2.cadence: "), "{found:?}");
        let found = wrong(WHOLE, &tags("Tag,Subsystem\na,m\n"));
        assert!(
            found.iter().any(|found| found
                .starts_with("s3.input_prefix: has {asset}, and the tag list has no column Asset")),
            "{found:?}"
        );
        let found = wrong(
            &WHOLE.replace("bucket = \"plant\"", "bucket = \"{asset}\""),
            &two(),
        );
        assert!(
            found[0].starts_with("s3.bucket: has {asset}, which may only stand in source.history"),
            "{found:?}"
        );
    }
}
