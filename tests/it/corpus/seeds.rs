//! The seeds of the corpus: small, whole inputs of every kind, from which the fuzzer starts.
//!
//! They are committed; this is how they were made. Files with other names than `seed-*` are what was found, and are left alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lookoutd::model::{Model, Options, Rows, Sensor, Training};
use lookoutd::service::operations::OPERATIONS;
use lookoutd::service::shapes::{INPUTS, Kind, Member, validate};
use parquet::basic::{Compression, Encoding, GzipLevel, ZstdLevel};
use parquet::data_type::{
    BoolType, DataType, DoubleType, FloatType, Int32Type, Int64Type, Int96, Int96Type,
};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use serde_json::{Value, json};

const SECOND: i64 = 1_000_000;
const START: i64 = 1_440_892_800 * SECOND;

#[test]
#[ignore = "writes fuzz/corpus/*/seed-*; cargo test --test it -- --ignored corpus::seeds"]
fn write_the_seeds() {
    let corpus = Corpus(super::corpus());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    configurations(&corpus, &root.join("config"));
    tables(&corpus);
    models(&corpus);
    names(&corpus);
    histories(&corpus);
    requests(&corpus);
    results(&corpus);
    signatures(&corpus);
}

struct Corpus(PathBuf);

impl Corpus {
    fn add(&self, target: &str, name: &str, bytes: impl AsRef<[u8]>) {
        let directory = self.0.join(target);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(format!("seed-{name}")), bytes).unwrap();
    }
}

fn configurations(corpus: &Corpus, directory: &Path) {
    for name in ["gateway", "embedded"] {
        let text = std::fs::read(directory.join(format!("{name}.toml"))).unwrap();
        corpus.add("config", name, text);
    }
    let text = "data_dir = \"/var/lib/lookoutd\"\n[source]\nparquet = \"s3://plant/history.parquet\"\ntags = \"tags.csv\"\n\
        [feed]\ncadence = \"PT15M\"\nmin_free = \"2GiB\"\n[s3]\nbucket = \"plant\"\nprefix = \"in/\"\n[inference]\nscheduler = \"pump\"\n";
    corpus.add("config", "small", text);
    let environment = "LOOKOUTD__FEED__CADENCE=PT5M\nLOOKOUTD__FEED__MIN_FREE=17179869183GiB\nLOOKOUTD__NAMING__ZONE_OFFSET=+05:30\n";
    corpus.add("config", "environment", format!("{text}\0{environment}"));
    corpus.add(
        "config",
        "wrong",
        "[feed]\ncadence = \"PT7M\"\nmin_free = \"1 XB\"\ncadenze = 3\n[source]\nstart = 7\n",
    );
}

fn tables(corpus: &Corpus) {
    let rows = "Timestamp,a,b\n2015-08-30T12:00:00.000000,1.5,2\n2015-08-30 12:05:00,,nan\n2015/08/30T12:10,-1e3,x\n20150830121500,1\n";
    let tags = "Tag,UOM,Subsystem\na,bar,pump\nb,,pump\n\"c, d\",rpm,\"motor\"\n";
    let labels =
        "start,end\n2015-08-30T12:00:00,2015-08-30T13:00:00\n2015-08-31 00:00,2015-08-31 01:00\n";
    for (kind, name, text) in [
        (0, "rows", rows),
        (
            0,
            "bom",
            "\u{feff}Time,\"s \"\"1\"\"\"\r\n2015-08-30-12-00-00,7\r\n",
        ),
        (1, "table", rows),
        (
            1,
            "components",
            "Timestamp,pump\\a,motor\\b\n2015-08-30T12:00:00,1,2\n2015-08-30T12:00:01.5,3,\n",
        ),
        (2, "tags", tags),
        (3, "labels", labels),
    ] {
        corpus.add("csv", name, [&[kind], text.as_bytes()].concat());
    }
}

fn models(corpus: &Corpus) {
    let sensors = vec![Sensor::new("pump", "a"), Sensor::new("pump", "b")];
    let mut rows = Rows {
        sensors: 2,
        ..Rows::default()
    };
    for row in 0..600 {
        let value = f64::from(row * 7919 % 101);
        rows.push(START + i64::from(row) * 60 * SECOND, &[value, value.sqrt()]);
    }
    let training = Training::in_memory(sensors, rows.clone(), Vec::new());
    let model = Model::fit(training, &Options::default(), &mut |_| {}).unwrap();
    let mut state = model.live_state();
    model.score(&mut state, &rows, START - 1, START + 3600 * SECOND);
    let (file, state) = (model.encode(), state.encode());
    // The container's header is 52 bytes.
    corpus.add("model", "file", [&[0], &file[..]].concat());
    corpus.add("model", "state", [&[1], &state[..]].concat());
    corpus.add("model", "payload", [&[2], &file[52..]].concat());
    corpus.add("model", "state-payload", [&[3], &state[52..]].concat());
}

fn names(corpus: &Corpus) {
    for (name, [format, delimiter, offset], text) in [
        (
            "compact",
            [2, 1, 0],
            "pump\nsubsystem-01\nsubsystem-01_20150830123500.csv",
        ),
        ("dashed", [1, 0, 1], "a-b\na\na-2015-08-30-18-05-00.csv"),
        ("epoch", [0, 2, 0], "pump\npump 1440938100.csv"),
        ("joined", [2, 3, 2], "pump\npump20150830123500.csv"),
        (
            "folder",
            [0, 0, 0],
            "out/2015-08-30T12:35:00Z/results.jsonl",
        ),
        ("start", [0, 0, 0], "2015-11-30T23:45:00.5Z"),
    ] {
        corpus.add(
            "name",
            name,
            [&[format, delimiter, offset], text.as_bytes()].concat(),
        );
    }
}

/// Small histories in the encodings and codecs that writers use.
fn histories(corpus: &Corpus) {
    let codecs = [
        ("plain", Compression::UNCOMPRESSED),
        ("snappy", Compression::SNAPPY),
        ("gzip", Compression::GZIP(GzipLevel::default())),
        ("lz4", Compression::LZ4_RAW),
        ("zstd", Compression::ZSTD(ZstdLevel::default())),
    ];
    let plain = || WriterProperties::builder().set_dictionary_enabled(false);
    for (name, codec) in codecs {
        let properties = WriterProperties::builder().set_compression(codec);
        corpus.add(
            "parquet",
            name,
            history(Times::Micros, 1, properties.build()),
        );
    }
    let v2 = WriterProperties::builder().set_writer_version(WriterVersion::PARQUET_2_0);
    corpus.add("parquet", "v2", history(Times::Nanos, 2, v2.build()));
    let split = plain().set_encoding(Encoding::BYTE_STREAM_SPLIT).build();
    corpus.add("parquet", "split", history(Times::Micros, 1, split));
    let delta = plain()
        .set_column_encoding("Timestamp".into(), Encoding::DELTA_BINARY_PACKED)
        .set_column_encoding("n".into(), Encoding::DELTA_BINARY_PACKED)
        .build();
    corpus.add("parquet", "delta", history(Times::Millis, 3, delta));
    let pages = plain()
        .set_data_page_row_count_limit(4)
        .set_write_batch_size(4)
        .build();
    corpus.add("parquet", "pages", history(Times::Micros, 1, pages));
    corpus.add(
        "parquet",
        "int96",
        history(Times::Int96, 1, plain().build()),
    );
}

#[derive(Clone, Copy)]
enum Times {
    Millis,
    Micros,
    Nanos,
    Int96,
}

fn history(times: Times, groups: i64, properties: WriterProperties) -> Vec<u8> {
    let time = match times {
        Times::Millis => "required int64 Timestamp (TIMESTAMP(MILLIS,true))",
        Times::Micros => "required int64 Timestamp (TIMESTAMP(MICROS,false))",
        Times::Nanos => "optional int64 Timestamp (TIMESTAMP(NANOS,true))",
        Times::Int96 => "required int96 Timestamp",
    };
    let second = match times {
        Times::Millis => "optional boolean b",
        _ => "optional float b",
    };
    let schema = format!("message m {{ {time}; required double a; {second}; optional int32 n; }}");
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let mut out = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut out, schema, Arc::new(properties)).unwrap();
    const ROWS: i64 = 20;
    for group in 0..groups {
        let at = |row: i64| START + (group * ROWS + row) * 60 * SECOND;
        let rows = || 0..ROWS;
        let mut group = writer.next_row_group().unwrap();
        match times {
            Times::Millis => {
                column::<Int64Type>(&mut group, rows().map(|row| Some(at(row) / 1000)))
            }
            Times::Micros => column::<Int64Type>(&mut group, rows().map(|row| Some(at(row)))),
            Times::Nanos => column::<Int64Type>(&mut group, rows().map(|row| Some(at(row) * 1000))),
            Times::Int96 => column::<Int96Type>(&mut group, rows().map(|row| Some(int96(at(row))))),
        }
        column::<DoubleType>(&mut group, rows().map(|row| Some((row % 7) as f64 * 0.25)));
        let some = |row: i64| row % 5 > 0;
        match times {
            Times::Millis => {
                column::<BoolType>(
                    &mut group,
                    rows().map(|row| some(row).then_some(row % 3 == 0)),
                );
            }
            _ => column::<FloatType>(
                &mut group,
                rows().map(|row| some(row).then_some(row as f32)),
            ),
        }
        column::<Int32Type>(&mut group, rows().map(|row| Some(row as i32 * 3)));
        group.close().unwrap();
    }
    writer.close().unwrap();
    out
}

fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, &mut Vec<u8>>,
    cells: impl Iterator<Item = Option<T::T>>,
) {
    let cells: Vec<Option<T::T>> = cells.collect();
    let levels: Vec<i16> = cells.iter().map(|cell| i16::from(cell.is_some())).collect();
    let values: Vec<T::T> = cells.into_iter().flatten().collect();
    let mut column = group.next_column().unwrap().unwrap();
    column
        .typed::<T>()
        .write_batch(&values, Some(&levels), None)
        .unwrap();
    column.close().unwrap();
}

fn int96(micros: i64) -> Int96 {
    let nanos = micros.rem_euclid(86_400 * SECOND) as u64 * 1000;
    let day = micros.div_euclid(86_400 * SECOND) + 2_440_588;
    let mut value = Int96::new();
    value.set_data(nanos as u32, (nanos >> 32) as u32, day as u32);
    value
}

/// Every operation with the members that it must have, and then with all of them.
fn requests(corpus: &Corpus) {
    for (operation, members) in INPUTS {
        let number = OPERATIONS.iter().position(|(name, _)| *name == operation);
        let number = number.unwrap() as u8;
        for (form, all) in [("least", false), ("all", true)] {
            let body = structure(members, all).to_string();
            corpus.add(
                "request",
                &format!("{operation}-{form}"),
                [&[number], body.as_bytes()].concat(),
            );
        }
    }
    let body = json!({"DatasetName": "pump"}).to_string();
    let head = |more: &str| {
        format!(
            "POST / HTTP/1.1\r\nhost: localhost\r\nx-amz-target: AWSLookoutEquipmentFrontendService.CreateDataset\r\n\
             content-type: application/x-amz-json-1.0\r\n{more}\r\n"
        )
    };
    let whole = format!(
        "{}{body}",
        head(&format!("content-length: {}\r\n", body.len()))
    );
    let chunked = format!(
        "{}{:x}\r\n{body}\r\n0\r\n\r\n",
        head("transfer-encoding: chunked\r\n"),
        body.len()
    );
    for (name, text) in [
        ("http", whole.clone()),
        ("http-chunked", chunked),
        ("http-two", format!("{whole}{whole}")),
        ("http-get", "GET / HTTP/1.0\r\n\r\n".to_owned()),
    ] {
        corpus.add("request", name, [b"@", text.as_bytes()].concat());
    }
}

fn structure(members: &'static [Member], all: bool) -> Value {
    let members = members.iter().filter(|member| all || member.required);
    members
        .filter_map(|member| Some((member.name.to_owned(), value(member, member.kind, all)?)))
        .collect()
}

/// A value that the service's own check takes for the member.
fn value(member: &'static Member, kind: &'static Kind, all: bool) -> Option<Value> {
    const TEXTS: [&str; 14] = [
        "pump",
        "+00:00",
        "arn:aws:iam::123456789012:role/pump",
        "arn:aws:lookoutequipment:us-east-1:123456789012:model/pump/0a1b2c3d-0000-4000-8000-000000000000",
        "arn:aws:lookoutequipment:us-east-1:123456789012:dataset/pump/0a1b2c3d-0000-4000-8000-000000000000",
        "arn:aws:lookoutequipment:us-east-1:123456789012:label-group/pump/0a1b2c3d-0000-4000-8000-000000000000",
        "0a1b2c3d00004000800000000000000a",
        "0123456789abcdef0123456789abcdef0123456789abcdef",
        "P180D",
        "in/",
        "EPOCH",
        "_",
        "{}",
        "pump\\a<1",
    ];
    Some(match kind {
        Kind::Text { .. } => TEXTS.into_iter().map(Value::from).find(|text| {
            let alone = json!({ member.name: text });
            match member.kind {
                // What a list holds is checked with the list.
                Kind::Text { .. } => validate(std::slice::from_ref(member), &alone).is_ok(),
                _ => true,
            }
        })?,
        Kind::Enum(words) => Value::from(words[0]),
        Kind::Integer { min, .. } => Value::from((*min).max(1)),
        Kind::Time | Kind::Float => Value::from(1_440_938_400),
        Kind::Boolean => Value::from(true),
        Kind::List { of, .. } => Value::from(vec![value(member, of, all)?]),
        Kind::Structure(members) => structure(members, all),
    })
}

fn results(corpus: &Corpus) {
    let line = "{\"timestamp\": \"2015-08-30T12:36:00.000000\", \"prediction\": 1, \"prediction_reason\": \"ANOMALY_DETECTED\", \
        \"anomaly_score\": 0.72, \"diagnostics\": [{\"name\": \"pump\\\\a\", \"value\": 0.4}, {\"name\": \"pump\\\\b\", \"value\": 0.6}]}\n";
    for (name, text) in [
        ("lines", format!("out/2015-08-30T12:35:00Z/results.jsonl\n{line}{line}")),
        ("old", "out/2015-08-30T12_35_00Z/results.jsonl\n{\"timestamp\": \"2015-08-30T12:36:00\", \"prediction\": 0}\n".into()),
        ("table", "20150830T123500Z/results.csv\nTimestamp,prediction\n2015-08-30 12:36:00,0\n".into()),
        ("preview", "20150830T123500Z/results.csv\n2015-08-30T12:36:00.000000,1,\"[{'name': 'pump\\\\a', 'value': 0.4}]\"\n".into()),
        ("nothing", "2015-08-30T12%3A35%3A00Z/results.jsonl\n\n".into()),
    ] {
        corpus.add("results", name, text);
    }
}

/// The example that AWS publishes.
fn signatures(corpus: &Corpus) {
    let request = "GET\n/\nVersion=2010-05-08&Action=ListUsers\n\
        authorization:AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
        SignedHeaders=content-type;host;x-amz-date, \
        Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7\n\
        host:iam.amazonaws.com\nx-amz-date:20150830T123600Z\n\
        content-type:application/x-www-form-urlencoded; charset=utf-8\n\n";
    corpus.add("sigv4", "example", request);
    let other = request
        .replace("Version=2010-05-08&Action=ListUsers", "a=%20b&a=c+d&%41=")
        .replace("GET\n/\n", "POST\n/a%2fb/../c\n");
    corpus.add("sigv4", "escapes", format!("{other}{{}}"));
}
