//! Finding the input files of a window.
//!
//! Keys are `<prefix><component><delimiter><stamp>.csv`, flat under the prefix; every stamp from two cadences before the
//! boundary to one after is looked at, aligned or not (contract 3.5). One listing of the whole prefix is tried first; a
//! prefix that holds more than a page of newer keys is listed component by component, each bounded by its stamps.

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::s3::{Bucket, S3Error};
use crate::signal::{NameFormat, Window};

/// Files per component and execution (contract 4.4).
pub const MOST_FILES: usize = 60;
/// Listings at once for one execution.
const PARALLEL_LISTS: usize = 8;
/// Keys per page of ListObjectsV2.
const PAGE: usize = 1000;

/// Where the input of a scheduler lies and how it is named.
#[derive(Debug, Clone)]
pub struct Place {
    /// Bucket.
    pub bucket: String,
    /// Prefix, empty or ending in `/`.
    pub prefix: String,
    /// How files are named.
    pub format: NameFormat,
}

/// One object that may hold rows of the window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The whole key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// The instant its stamp names, microseconds.
    pub stamp_us: i64,
}

impl Place {
    /// First and last stamp of the search for `window`'s files, as `<prefix><component><delimiter><stamp>`.
    pub fn range(&self, component: &str, window: Window) -> (String, String) {
        let stem = |window: Window| {
            let name = self.format.file_name(component, window.start());
            format!(
                "{}{}",
                self.prefix,
                name.strip_suffix(".csv").unwrap_or(&name)
            )
        };
        (stem(window.previous()), stem(window.offset(2)))
    }

    /// The files of each of `components`, by stamp. `crowded` remembers that the whole prefix does not fit a page.
    pub async fn locate(
        &self,
        bucket: &Bucket,
        components: &[String],
        window: Window,
        crowded: &mut bool,
    ) -> Result<Vec<Vec<Found>>, S3Error> {
        let ranges: Vec<(String, String)> = components
            .iter()
            .map(|name| self.range(name, window))
            .collect();
        if !*crowded {
            let after = ranges
                .iter()
                .map(|(low, _)| low.as_str())
                .min()
                .unwrap_or_default();
            let (objects, complete) = self.list(bucket, &self.prefix, after, None).await?;
            if complete {
                return Ok(self.sort(components, &ranges, objects));
            }
            *crowded = true;
        }
        let mut lists = Vec::with_capacity(components.len());
        for (component, (low, high)) in components.iter().zip(&ranges) {
            let prefix = format!("{}{component}{}", self.prefix, self.format.delimiter);
            let until = format!("{high}.csv");
            lists.push(async move {
                self.list(bucket, &prefix, low, Some(&until))
                    .await
                    .map(|(objects, _)| objects)
            });
        }
        let objects: Vec<Vec<(String, u64)>> = stream::iter(lists)
            .buffer_unordered(PARALLEL_LISTS)
            .try_collect()
            .await?;
        Ok(self.sort(components, &ranges, objects.into_iter().flatten().collect()))
    }

    /// Up to a page of keys under `prefix` that a person may have meant for the window, for the failure's explanation.
    pub async fn sample(
        &self,
        bucket: &Bucket,
        prefix: &str,
        after: &str,
    ) -> Result<Vec<String>, S3Error> {
        let (objects, _) = self.list(bucket, prefix, after, None).await?;
        Ok(objects.into_iter().map(|(key, _)| key).collect())
    }

    /// Keys under `prefix` after `after`: about a page without `until`, else all up to it. The flag tells whether nothing was
    /// left out.
    async fn list(
        &self,
        bucket: &Bucket,
        prefix: &str,
        after: &str,
        until: Option<&str>,
    ) -> Result<(Vec<(String, u64)>, bool), S3Error> {
        let mut objects = Vec::new();
        let most = if until.is_none() { Some(PAGE) } else { None };
        let complete = bucket
            .walk(prefix, after, most, |object| {
                let wanted = until.is_none_or(|until| object.key.as_str() <= until);
                if wanted {
                    objects.push((object.key, object.size));
                }
                wanted
            })
            .await?;
        Ok((objects, complete || until.is_some()))
    }

    fn sort(
        &self,
        components: &[String],
        ranges: &[(String, String)],
        objects: Vec<(String, u64)>,
    ) -> Vec<Vec<Found>> {
        let mut files = vec![Vec::new(); components.len()];
        for (key, size) in objects {
            let Some(name) = key.strip_prefix(&self.prefix) else {
                continue;
            };
            let Ok((component, stamp)) = self
                .format
                .parse(components.iter().map(String::as_str), name)
            else {
                continue;
            };
            let Some(index) = components.iter().position(|known| known == component) else {
                continue;
            };
            let (low, high) = &ranges[index];
            let stem = key.strip_suffix(".csv").unwrap_or(&key);
            // Stamps are of fixed width, so the order of keys is the order of time.
            if (low.as_str()..=high.as_str()).contains(&stem) {
                files[index].push(Found {
                    stamp_us: stamp.timestamp_micros(),
                    key,
                    size,
                });
            }
        }
        files
            .iter_mut()
            .for_each(|files: &mut Vec<Found>| files.sort_by_key(|file| file.stamp_us));
        files
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::Cadence;

    fn place(format: &str) -> Place {
        Place {
            bucket: "b".into(),
            prefix: "in/".into(),
            format: serde_json::from_str(format).unwrap(),
        }
    }

    fn window() -> Window {
        Window::new("2022-05-13T12:10:00Z".parse().unwrap(), Cadence::Pt5m).unwrap()
    }

    #[test]
    fn the_search_spans_two_cadences_before_the_boundary_to_one_after() {
        let (low, high) = place(r#"{"delimiter": "_"}"#).range("centrifugal-pump", window());
        assert_eq!(
            (low.as_str(), high.as_str()),
            (
                "in/centrifugal-pump_20220513120500",
                "in/centrifugal-pump_20220513122000"
            )
        );
    }

    #[test]
    fn stamps_may_be_unaligned_and_components_may_hold_the_delimiter() {
        let place = place(r#"{"delimiter": "-"}"#);
        let components = ["pump-1".to_owned(), "pump".to_owned()];
        let ranges: Vec<_> = components
            .iter()
            .map(|name| place.range(name, window()))
            .collect();
        let keys = [
            "in/pump-1-20220513121007.csv",
            "in/pump-20220513120500.csv",
            "in/pump-20220513120459.csv",
            "in/pump-20220513122000.csv",
            "in/pump-20220513122001.csv",
            "in/pump-20220513121000.txt",
            "in/sub/pump-20220513121000.csv",
        ];
        let found = place.sort(
            &components,
            &ranges,
            keys.iter().map(|key| ((*key).to_owned(), 1)).collect(),
        );
        let names = |index: usize| {
            found[index]
                .iter()
                .map(|file| file.key.as_str())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(0), ["in/pump-1-20220513121007.csv"]);
        assert_eq!(
            names(1),
            ["in/pump-20220513120500.csv", "in/pump-20220513122000.csv"]
        );
    }

    #[test]
    fn names_in_a_zone_are_read_back_to_utc_and_epoch_names_ignore_it() {
        let zoned = place(r#"{"zone_offset": "+05:30"}"#);
        assert_eq!(zoned.range("a", window()).0, "in/a_20220513173500");
        let epoch = place(r#"{"timestamp": "EPOCH", "zone_offset": "+05:30", "delimiter": ""}"#);
        assert_eq!(epoch.range("a", window()).0, "in/a1652443500");
        let components = ["a".to_owned()];
        let ranges = [epoch.range("a", window())];
        let found = epoch.sort(&components, &ranges, vec![("in/a1652443800.csv".into(), 1)]);
        assert_eq!(found[0][0].stamp_us, window().start().timestamp_micros());
    }
}
