//! SelectObjectContent, as far as it is used on results and tables: JSON lines and CSV, `SELECT *` or named columns, a WHERE of
//! comparisons joined by AND, a LIMIT.
//!
//! Anything else of the language is refused by name, before a byte is answered. An object is read into memory: the largest
//! that can be selected from is [`LARGEST`].

mod query;

use bytes::Bytes;
use s3s::dto::*;
use s3s::{S3Error, S3Request, S3Response, S3Result, s3_error};
use serde_json::{Map, Value};

use self::query::{Query, find, malformed};
use super::{Store, answer, no_customer_key, objects};
use crate::store::Problem;
use crate::store::bodies::Spans;

/// The largest object that is selected from.
const LARGEST: u64 = 256 << 20;
/// Records are sent in events of about this size.
const EVENT: usize = 128 << 10;

pub async fn select_object_content(
    store: &Store,
    request: S3Request<SelectObjectContentInput>,
) -> S3Result<S3Response<SelectObjectContentOutput>> {
    let input = request.input;
    no_customer_key(input.sse_customer_algorithm.as_ref())?;
    let asked = input.request;
    if !asked.expression_type.as_str().eq_ignore_ascii_case("SQL") {
        return Err(s3_error!(
            InvalidExpressionType,
            "The ExpressionType is invalid. Only SQL expressions are supported."
        ));
    }
    let compression = asked.input_serialization.compression_type.as_ref();
    if compression.is_some_and(|kind| !matches!(kind.as_str(), "NONE" | "")) {
        return Err(s3_error!(
            InvalidCompressionFormat,
            "This store selects from objects that are not compressed"
        ));
    }
    if asked.scan_range.is_some() {
        return Err(s3_error!(
            NotImplemented,
            "This store selects from whole objects, without a ScanRange"
        ));
    }
    let query = Query::parse(&asked.expression)?;
    let (bucket, key) = (input.bucket, input.key);
    let name = (bucket.clone(), key.clone());
    let reader = store.clone();
    let selected = tokio::task::spawn_blocking(move || -> Result<_, Problem> {
        let reading = reader.lookup(move |db| {
            let object = objects::get(db, &bucket, &key)?;
            if object.size > LARGEST {
                return Err(s3_error!(
                    OverMaxRecordSize,
                    "This store selects from objects of up to {LARGEST} bytes"
                )
                .into());
            }
            Ok(Some(Spans::of(db, object.body, 0..object.size)?))
        })?;
        let bytes = reading.map_or(Ok(Vec::new()), |reading| reading.read_all())?;
        let records = records(&bytes, &asked.input_serialization)?;
        Ok((
            bytes.len(),
            query.select(records, &asked.output_serialization)?,
        ))
    });
    let selected = selected.await.map_err(S3Error::internal_error)?;
    let (read, text) =
        selected.inspect_err(|problem| store.note_damage(&name.0, &name.1, problem))?;
    let stats = Stats {
        bytes_processed: Some(read as i64),
        bytes_returned: Some(text.len() as i64),
        bytes_scanned: Some(read as i64),
    };
    let text = Bytes::from(text);
    let pieces = (0..text.len())
        .step_by(EVENT)
        .map(|at| text.slice(at..text.len().min(at + EVENT)));
    let mut events: Vec<S3Result<SelectObjectContentEvent>> = pieces
        .map(|piece| {
            Ok(SelectObjectContentEvent::Records(RecordsEvent {
                payload: Some(piece),
            }))
        })
        .collect();
    events.push(Ok(SelectObjectContentEvent::Stats(StatsEvent {
        details: Some(stats),
    })));
    events.push(Ok(SelectObjectContentEvent::End(EndEvent {})));
    answer(SelectObjectContentOutput {
        payload: Some(SelectObjectContentEventStream::new(
            futures_util::stream::iter(events),
        )),
    })
}

/// The records of an object, in its own order.
fn records(bytes: &[u8], kind: &InputSerialization) -> Result<Vec<Map<String, Value>>, S3Error> {
    if let Some(json) = &kind.json {
        return json_records(bytes, json.type_.as_ref().map(JSONType::as_str));
    }
    if let Some(csv) = &kind.csv {
        return csv_records(bytes, csv);
    }
    Err(s3_error!(
        InvalidDataSource,
        "This store selects from JSON and CSV"
    ))
}

fn json_records(bytes: &[u8], kind: Option<&str>) -> Result<Vec<Map<String, Value>>, S3Error> {
    let mut records = Vec::new();
    let values = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
    for value in values {
        let value =
            value.map_err(|error| s3_error!(JSONParsingError, "Error parsing JSON: {error}"))?;
        let value = match value {
            Value::Array(values) if kind == Some("DOCUMENT") => values,
            other => vec![other],
        };
        for value in value {
            records.push(match value {
                Value::Object(record) => record,
                other => [("_1".to_owned(), other)].into_iter().collect(),
            });
        }
    }
    Ok(records)
}

fn csv_records(bytes: &[u8], kind: &CSVInput) -> Result<Vec<Map<String, Value>>, S3Error> {
    let one = |text: &Option<String>, usual: u8| -> Result<u8, S3Error> {
        match text.as_deref().map(str::as_bytes) {
            None | Some([]) => Ok(usual),
            Some([byte]) => Ok(*byte),
            Some(_) => Err(malformed(
                "This store takes delimiters and quotes of one byte",
            )),
        }
    };
    let mut builder = csv::ReaderBuilder::new();
    builder
        .has_headers(false)
        .flexible(true)
        .delimiter(one(&kind.field_delimiter, b',')?)
        .quote(one(&kind.quote_character, b'"')?);
    if kind.comments.is_some() {
        builder.comment(Some(one(&kind.comments, b'#')?));
    }
    let header = kind
        .file_header_info
        .as_ref()
        .map_or("NONE", FileHeaderInfo::as_str);
    let (mut names, mut records) = (Vec::<String>::new(), Vec::new());
    for (number, row) in builder.from_reader(bytes).records().enumerate() {
        let row = row.map_err(|error| s3_error!(CSVParsingError, "Error parsing CSV: {error}"))?;
        if number == 0 && header != "NONE" {
            if header == "USE" {
                names = row.iter().map(str::to_owned).collect();
            }
            continue;
        }
        let fields = row.iter().enumerate().map(|(at, field)| {
            let name = names
                .get(at)
                .cloned()
                .unwrap_or_else(|| format!("_{}", at + 1));
            (name, Value::String(field.to_owned()))
        });
        records.push(fields.collect());
    }
    Ok(records)
}

impl Query {
    fn select(
        &self,
        records: Vec<Map<String, Value>>,
        kind: &OutputSerialization,
    ) -> Result<Vec<u8>, S3Error> {
        let mut text = Vec::new();
        let chosen = records
            .into_iter()
            .filter(|record| {
                self.conditions
                    .iter()
                    .all(|condition| condition.holds(record))
            })
            .take(self.limit.unwrap_or(usize::MAX));
        for record in chosen {
            let record = match &self.columns {
                None => record,
                Some(columns) => {
                    let picked = columns.iter().enumerate().filter_map(|(at, column)| {
                        let value = find(&record, &column.path)?.clone();
                        let last = column.path.last().cloned();
                        let name = column
                            .called
                            .clone()
                            .or(last)
                            .unwrap_or_else(|| format!("_{}", at + 1));
                        Some((name, value))
                    });
                    picked.collect()
                }
            };
            if let Some(csv) = &kind.csv {
                csv_line(&mut text, record, csv)?;
            } else {
                let end = kind
                    .json
                    .as_ref()
                    .and_then(|json| json.record_delimiter.as_deref());
                let line = serde_json::to_vec(&record).map_err(S3Error::internal_error)?;
                text.extend(line);
                text.extend(end.unwrap_or("\n").as_bytes());
            }
        }
        Ok(text)
    }
}

fn csv_line(
    text: &mut Vec<u8>,
    record: Map<String, Value>,
    kind: &CSVOutput,
) -> Result<(), S3Error> {
    let delimiter = kind.field_delimiter.as_deref().unwrap_or(",");
    let quote = kind.quote_character.as_deref().unwrap_or("\"");
    let end = kind.record_delimiter.as_deref().unwrap_or("\n");
    let always = kind
        .quote_fields
        .as_ref()
        .is_some_and(|fields| fields.as_str() == "ALWAYS");
    let fields = record.into_iter().map(|(_, value)| match value {
        Value::String(text) => text,
        Value::Null => String::new(),
        other => other.to_string(),
    });
    let fields = fields.map(|field| {
        let needs =
            field.contains(delimiter) || field.contains(quote) || field.contains(['\n', '\r']);
        if always || needs {
            format!(
                "{quote}{}{quote}",
                field.replace(quote, &format!("{quote}{quote}"))
            )
        } else {
            field
        }
    });
    let line = fields.collect::<Vec<_>>().join(delimiter);
    text.extend(line.as_bytes());
    text.extend(end.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_understood_is_selected_and_the_rest_refused() {
        let records = || {
            let text =
                b"{\"a\": 1, \"b\": {\"c\": \"x\"}}\n{\"a\": 2.5, \"b\": {\"c\": \"it's\"}}\n";
            json_records(text, Some("LINES")).unwrap()
        };
        let json = OutputSerialization {
            json: Some(JSONOutput::default()),
            csv: None,
        };
        let select = |text: &str| {
            let query = Query::parse(text).unwrap();
            String::from_utf8(query.select(records(), &json).unwrap()).unwrap()
        };
        assert_eq!(
            select("SELECT * FROM s3object s LIMIT 1"),
            "{\"a\":1,\"b\":{\"c\":\"x\"}}\n"
        );
        assert_eq!(
            select("select s.a from S3Object[*] as s where s.b.c = 'it''s'"),
            "{\"a\":2.5}\n"
        );
        assert_eq!(
            select("SELECT s.b.c AS d, a FROM s3object s WHERE s.\"a\" <= 1 AND a > -5"),
            "{\"d\":\"x\",\"a\":1}\n"
        );
        assert_eq!(select("SELECT _1 FROM s3object WHERE nothing = 1"), "");
        for refused in [
            "SELECT COUNT(*) FROM s3object",
            "SELECT a FROM table",
            "SELECT a FROM s3object s WHERE a = 1 OR a = 2",
            "SELECT a FROM s3object s WHERE a LIKE 'x'",
            "DELETE FROM s3object",
            "SELECT 'a",
            "",
        ] {
            assert!(Query::parse(refused).is_err(), "{refused}");
        }
    }
}
