//! Finding the input files of a window.
//!
//! Keys are `<prefix><component><delimiter><stamp>.csv`, flat under the prefix; every stamp from two cadences before the
//! boundary to one after is looked at, aligned or not (contract 3.5). One short page of the whole prefix is tried first; a
//! prefix that holds more is listed component by component, each from its first stamp to its last. So the requests and the
//! keys that are told are bounded by the components, however many older and newer files lie there.

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::s3::{Bucket, Listed, S3Error};
use crate::signal::{NameFormat, Window};

/// Files per component and execution (contract 4.4).
pub const MOST_FILES: usize = 60;
/// Listings at once for one execution.
const PARALLEL_LISTS: usize = 8;
/// Keys per page of ListObjectsV2.
const PAGE: usize = 1000;
/// Keys per component of the page that is tried first: its own and its neighbours', with room for some more.
const FIRST_EACH: usize = 4;
/// Keys of a component that are asked for first; most have one file a window.
const FEW: usize = 16;

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
    /// Its ETag, which tells one version of it from another.
    pub etag: Option<String>,
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
            let most = (components.len() * FIRST_EACH + FEW).min(PAGE);
            let (objects, complete) = Self::page(bucket, &self.prefix, after, most).await?;
            if complete {
                return Ok(self.sort(components, &ranges, objects));
            }
            *crowded = true;
        }
        let mut lists = Vec::with_capacity(components.len());
        for (component, (low, high)) in components.iter().zip(&ranges) {
            let prefix = format!("{}{component}{}", self.prefix, self.format.delimiter);
            let until = format!("{high}.csv");
            lists.push(async move { Self::between(bucket, &prefix, low, &until).await });
        }
        let objects: Vec<Vec<Listed>> = stream::iter(lists)
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
        let (objects, _) = Self::page(bucket, prefix, after, PAGE).await?;
        Ok(objects.into_iter().map(|object| object.key).collect())
    }

    /// About `most` keys under `prefix` after `after`, and whether that was all.
    async fn page(
        bucket: &Bucket,
        prefix: &str,
        after: &str,
        most: usize,
    ) -> Result<(Vec<Listed>, bool), S3Error> {
        let mut objects = Vec::new();
        let complete = bucket
            .walk(prefix, after, Some(most), |object| {
                objects.push(object);
                true
            })
            .await?;
        Ok((objects, complete))
    }

    /// The keys under `prefix` after `after`, up to `until`: few at first, which is all in almost every window.
    async fn between(
        bucket: &Bucket,
        prefix: &str,
        after: &str,
        until: &str,
    ) -> Result<Vec<Listed>, S3Error> {
        let (mut objects, mut most) = (Vec::new(), Some(FEW));
        let mut after = after.to_owned();
        loop {
            let mut beyond = false;
            let complete = bucket
                .walk(prefix, &after, most, |object| {
                    beyond = object.key.as_str() > until;
                    if !beyond {
                        objects.push(object);
                    }
                    !beyond
                })
                .await?;
            match objects.last() {
                Some(last) if !complete && !beyond => {
                    (after, most) = (last.key.clone(), None);
                }
                _ => return Ok(objects),
            }
        }
    }

    fn sort(
        &self,
        components: &[String],
        ranges: &[(String, String)],
        objects: Vec<Listed>,
    ) -> Vec<Vec<Found>> {
        let mut files = vec![Vec::new(); components.len()];
        for Listed { key, size, etag } in objects {
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
                    etag,
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
    use std::collections::BTreeSet;
    use std::sync::{Arc, Mutex};

    use percent_encoding::percent_decode_str;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::signal::{Cadence, Delimiter, TimestampFormat};

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
            keys.iter().map(|key| object(key)).collect(),
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
        let found = epoch.sort(&components, &ranges, vec![object("in/a1652443800.csv")]);
        assert_eq!(found[0][0].stamp_us, window().start().timestamp_micros());
    }

    fn object(key: &str) -> Listed {
        Listed {
            key: key.to_owned(),
            size: 7,
            etag: None,
        }
    }

    /// A store that has nothing but keys, and notes how many it told with each request.
    async fn store(keys: BTreeSet<String>) -> (Bucket, Arc<Mutex<Vec<usize>>>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let told = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&told);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                let request = String::from_utf8(request).unwrap();
                let target = request.split(' ').nth(1).unwrap();
                let (body, count) = listed(&keys, target);
                noted.lock().unwrap().push(count);
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/xml\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let client = crate::s3::local_client(&endpoint, "a", "s");
        (Bucket::new(client, "b"), told)
    }

    /// A page as S3 has it, whose token is its last key, and how many keys are on it.
    fn listed(keys: &BTreeSet<String>, target: &str) -> (String, usize) {
        let asked = |name: &str| {
            let pairs = target.split_once('?').unwrap().1.split('&');
            let value = pairs
                .filter_map(|pair| pair.split_once('='))
                .find(|pair| pair.0 == name);
            value.map(|(_, value)| {
                percent_decode_str(value)
                    .decode_utf8()
                    .unwrap()
                    .into_owned()
            })
        };
        let after = asked("continuation-token")
            .or(asked("start-after"))
            .unwrap_or_default();
        let prefix = asked("prefix").unwrap();
        let most = asked("max-keys").map_or(1000, |most| most.parse().unwrap());
        let mut page: Vec<&String> = keys
            .iter()
            .filter(|key| key.starts_with(&prefix) && **key > after)
            .take(most + 1)
            .collect();
        let more = page.len() > most;
        page.truncate(most);
        let token = page.last().filter(|_| more);
        let token =
            token.map(|last| format!("<NextContinuationToken>{last}</NextContinuationToken>"));
        let contents: String = page
            .iter()
            .map(|key| format!("<Contents><Key>{key}</Key><Size>7</Size></Contents>"))
            .collect();
        let token = token.unwrap_or_default();
        (
            format!(
                "<ListBucketResult><IsTruncated>{more}</IsTruncated>{token}{contents}</ListBucketResult>"
            ),
            page.len(),
        )
    }

    /// Files of `windows` windows on both sides of the one that is looked for, some of them named for no window's start.
    fn history(place: &Place, components: &[String], windows: i64) -> BTreeSet<String> {
        let mut keys = BTreeSet::from(["in/other.txt".to_owned(), "in/pump_sub/x.csv".to_owned()]);
        for away in -windows..=windows {
            for (number, component) in components.iter().enumerate() {
                let start = window().offset(away).start();
                let odd = chrono::TimeDelta::seconds(7 + number as i64);
                for start in [start, start + odd]
                    .iter()
                    .take(1 + usize::from(away % 2 == 0))
                {
                    keys.insert(format!("in/{}", place.format.file_name(component, *start)));
                }
            }
        }
        keys
    }

    #[tokio::test]
    async fn the_search_costs_the_same_whatever_lies_before_and_after_the_window() {
        let components: Vec<String> = ["pump", "pump-1", "pump2", "a b", "z"]
            .map(str::to_owned)
            .into();
        let formats = TimestampFormat::ALL.into_iter().flat_map(|timestamp| {
            Delimiter::ALL.into_iter().flat_map(move |delimiter| {
                ["+00:00", "-11:30"].map(|zone| NameFormat {
                    timestamp,
                    delimiter,
                    zone_offset: zone.parse().unwrap(),
                })
            })
        });
        for format in formats {
            let place = Place {
                format,
                ..place("{}")
            };
            let mut costs = Vec::new();
            for windows in [3, 150] {
                let keys = history(&place, &components, windows);
                let (bucket, told) = store(keys.clone()).await;
                let mut crowded = false;
                let first = place
                    .locate(&bucket, &components, window(), &mut crowded)
                    .await
                    .unwrap();
                let looked = told.lock().unwrap().len();
                let found = place
                    .locate(&bucket, &components, window(), &mut crowded)
                    .await
                    .unwrap();
                assert_eq!(first, found);
                let ranges: Vec<_> = components
                    .iter()
                    .map(|name| place.range(name, window()))
                    .collect();
                let all = keys.iter().map(|key| object(key)).collect();
                assert_eq!(found, place.sort(&components, &ranges, all), "{format:?}");
                let told = told.lock().unwrap();
                assert!(
                    looked <= components.len() + 1 && crowded,
                    "{format:?}: {looked}"
                );
                costs.push((told.len() - looked, told[looked..].iter().sum::<usize>()));
            }
            // One request a component, of a few keys.
            let (few, many) = (costs[0], costs[1]);
            assert_eq!((few.0, many.0), (components.len(), components.len()));
            assert!(many.1 <= components.len() * FEW, "{format:?}: {many:?}");
        }
    }

    #[tokio::test]
    async fn a_component_with_many_files_in_its_window_is_found_whole() {
        let place = place("{}");
        let components = ["pump".to_owned()];
        let start = window().start();
        let keys: BTreeSet<String> = (-400..1_400)
            .map(|second| start + chrono::TimeDelta::seconds(second))
            .map(|stamp| format!("in/{}", place.format.file_name("pump", stamp)))
            .collect();
        let (bucket, told) = store(keys).await;
        let found = place
            .locate(&bucket, &components, window(), &mut true)
            .await
            .unwrap();
        // From two cadences before the boundary to one after.
        assert_eq!(found[0].len(), 901);
        assert_eq!(*told.lock().unwrap(), [FEW, 1000]);
    }
}
