//! Listings of the embedded S3: beside a model of what S3 answers, and read by boto3.

use std::collections::BTreeMap;
use std::process::Command;

use aws_sdk_s3::Client;
use lookoutd::s3::local_client;
use lookoutd::store::Store;

use crate::s3_server;

const BUCKET: &str = "plant";
/// Directories and files that sort differently by name and by key: `-` and `.` come before `/`, `0` after it.
const SEGMENTS: [&str; 9] = ["a", "a-b", "a.b", "a0", "b", "b+c d", "ü", "100%", "z"];
const DELIMITERS: [Option<&str>; 5] = [None, Some("/"), Some("-"), Some("b/"), Some("/a")];

#[derive(Clone, Debug, Default)]
struct Asked {
    prefix: String,
    delimiter: Option<String>,
    start_after: Option<String>,
    page: i32,
}

/// Every line of every page, objects and common prefixes.
#[derive(Debug, Default, PartialEq)]
struct Told {
    objects: Vec<(String, i64)>,
    prefixes: Vec<String>,
}

async fn ours(client: &Client, asked: &Asked) -> Told {
    let (mut told, mut token) = (Told::default(), None);
    loop {
        let page = client
            .list_objects_v2()
            .bucket(BUCKET)
            .prefix(&asked.prefix)
            .set_delimiter(asked.delimiter.clone())
            .set_start_after(asked.start_after.clone())
            .set_continuation_token(token)
            .max_keys(asked.page)
            .send()
            .await
            .unwrap();
        let lines = page.contents().len() + page.common_prefixes().len();
        assert_eq!(page.key_count(), Some(lines as i32));
        assert!(lines <= asked.page as usize);
        for object in page.contents() {
            let key = object.key().unwrap().to_owned();
            told.objects.push((key, object.size().unwrap()));
        }
        for common in page.common_prefixes() {
            told.prefixes.push(common.prefix().unwrap().to_owned());
        }
        token = page.next_continuation_token().map(str::to_owned);
        assert_eq!(page.is_truncated(), Some(token.is_some()));
        if token.is_none() {
            return told;
        }
        assert_eq!(lines, asked.page as usize, "a page that goes on is full");
    }
}

/// What S3 answers: keys after `start_after`, in the order of their bytes, rolled up at the first delimiter after the prefix.
fn model(keys: &BTreeMap<String, i64>, asked: &Asked) -> Told {
    let mut told = Told::default();
    for (key, size) in keys {
        if !key.starts_with(&asked.prefix)
            || asked.start_after.as_ref().is_some_and(|after| key <= after)
        {
            continue;
        }
        let rest = &key[asked.prefix.len()..];
        match asked
            .delimiter
            .as_ref()
            .and_then(|delimiter| Some((rest.find(delimiter.as_str())?, delimiter)))
        {
            None => told.objects.push((key.clone(), *size)),
            Some((at, delimiter)) => {
                let common = key[..asked.prefix.len() + at + delimiter.len()].to_owned();
                if told.prefixes.last() != Some(&common) {
                    told.prefixes.push(common);
                }
            }
        }
    }
    told
}

/// Random keys; some are "directories" of others.
fn place(store: &Store, random: &mut fastrand::Rng) -> BTreeMap<String, i64> {
    let mut keys = BTreeMap::new();
    store.create_bucket(BUCKET).unwrap();
    for _ in 0..60 {
        let depth = random.usize(1..=3);
        let parts: Vec<&str> = (0..depth)
            .map(|_| SEGMENTS[random.usize(..SEGMENTS.len())])
            .collect();
        let slash = if random.u8(..10) == 0 { "/" } else { "" };
        let key = parts.join("/") + slash;
        let size = random.usize(..20);
        store.put_blocking(BUCKET, &key, &vec![0; size]).unwrap();
        keys.insert(key, size as i64);
    }
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_is_that_of_s3_for_any_prefix_delimiter_page_and_start() {
    let seed = std::env::var("LOOKOUTD_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    eprintln!("LOOKOUTD_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let directory = tempfile::tempdir().unwrap();
    let (address, store) = s3_server::open(directory.path(), "127.0.0.1:0".parse().unwrap()).await;
    let keys = place(&store, &mut random);
    let client = s3_server::client(address);
    let all: Vec<&String> = keys.keys().collect();
    let piece = |random: &mut fastrand::Rng| {
        let key = all[random.usize(..all.len())];
        key.chars()
            .take(random.usize(..=key.chars().count()))
            .collect::<String>()
    };
    for _ in 0..150 {
        let asked = Asked {
            prefix: piece(&mut random),
            delimiter: DELIMITERS[random.usize(..DELIMITERS.len())].map(str::to_owned),
            start_after: random.bool().then(|| piece(&mut random)),
            page: [1, 2, 3, 7, 1000][random.usize(..5)],
        };
        let told = ours(&client, &asked).await;
        assert_eq!(told, model(&keys, &asked), "{asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prefixes_that_climb_out_strangers_and_absent_buckets_get_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (address, store) = s3_server::open(directory.path(), "127.0.0.1:0".parse().unwrap()).await;
    store.create_bucket(BUCKET).unwrap();
    for key in ["in/k", "in/deep/k", "other/k"] {
        store.put_blocking(BUCKET, key, b"x").unwrap();
    }
    let client = s3_server::client(address);
    let asked = |prefix: &str| Asked {
        prefix: prefix.into(),
        page: 1000,
        ..Asked::default()
    };
    let keys = |told: Told| {
        told.objects
            .into_iter()
            .map(|(key, _)| key)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        keys(ours(&client, &asked("in/")).await),
        ["in/deep/k", "in/k"]
    );
    assert_eq!(keys(ours(&client, &asked("in/deep/")).await), ["in/deep/k"]);
    for climbing in ["../", "in/../other/", "/", "in//", "./in/"] {
        assert_eq!(
            ours(&client, &asked(climbing)).await,
            Told::default(),
            "{climbing}"
        );
    }
    let none = client
        .list_objects_v2()
        .bucket(BUCKET)
        .max_keys(0)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (none.key_count(), none.is_truncated()),
        (Some(0), Some(false))
    );
    let gone = client
        .list_objects_v2()
        .bucket("gone")
        .send()
        .await
        .unwrap_err();
    assert!(gone.into_service_error().is_no_such_bucket());
    let stranger = local_client(
        &format!("http://{address}"),
        s3_server::KEY.0,
        "another secret",
    );
    let refused = stranger
        .list_objects_v2()
        .bucket(BUCKET)
        .send()
        .await
        .unwrap_err();
    assert_eq!(refused.raw_response().unwrap().status().as_u16(), 403);
}

const PAGES: &str = "
import boto3, json, sys
s3 = boto3.client('s3', endpoint_url=sys.argv[1], aws_access_key_id=sys.argv[2], aws_secret_access_key=sys.argv[3], region_name='us-east-1')
told = []
for delimiter in ['', '/']:
    keys, prefixes = [], []
    for page in s3.get_paginator('list_objects_v2').paginate(Bucket='plant', Delimiter=delimiter, PaginationConfig={'PageSize': 3}):
        keys += [item['Key'] for item in page.get('Contents', [])]
        prefixes += [item['Prefix'] for item in page.get('CommonPrefixes', [])]
    told.append([keys, prefixes])
print(json.dumps(told))
";

/// boto3 asks for URL-encoded keys and decodes them, `+` as a blank.
#[tokio::test(flavor = "multi_thread")]
async fn boto3_pages_through_keys_of_any_characters() {
    let Some(python) = crate::skipped::python() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let (address, store) = s3_server::open(directory.path(), "127.0.0.1:0".parse().unwrap()).await;
    let keys = place(&store, &mut fastrand::Rng::with_seed(7));
    let run = tokio::task::spawn_blocking(move || {
        Command::new(python)
            .args(["-c", PAGES, &format!("http://{address}")])
            .args([s3_server::KEY.0, s3_server::KEY.1])
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .output()
            .unwrap()
    });
    let output = run.await.unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let told: Vec<(Vec<String>, Vec<String>)> = serde_json::from_slice(&output.stdout).unwrap();
    for (delimiter, (found, prefixes)) in [None, Some("/".to_owned())].into_iter().zip(told) {
        let asked = Asked {
            delimiter,
            ..Asked::default()
        };
        let expected = model(&keys, &asked);
        let expected_keys: Vec<String> = expected.objects.into_iter().map(|(key, _)| key).collect();
        assert_eq!((found, prefixes), (expected_keys, expected.prefixes));
    }
}
