//! Dispatch: the table of the API's operations, and what every operation is given.
//!
//! Guarantees: an operation runs in one transaction with its validated input and the current time, and either answers
//! and is committed or raises a fault and leaves no trace. A request with a `ClientToken` that was answered before is
//! answered the same again if it is the same request, and is a conflict if it is another (contract 1.1).

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Map, Value};

use super::faults::Fault;
use super::store::{Store, seconds};
use super::{shapes, sigv4};

pub mod datasets;
pub mod events;
pub mod executions;
pub mod imports;
pub mod ingestion;
pub mod labels;
pub mod models;
pub mod policies;
pub mod retraining;
pub mod schedulers;
pub mod tags;
pub mod versions;

/// What an operation does with a call. `Value::Null` is an empty body.
type Run = fn(&Call<'_>) -> Result<Value, Fault>;

/// How long an answered `ClientToken` is remembered. The original's lifetime is not documented; SDK retries are seconds
/// apart.
const TOKEN_LIFETIME: TimeDelta = TimeDelta::days(7);

/// Every operation of the API, in the order of the service model; `None` is answered `UnknownOperationException`.
pub static OPERATIONS: [(&str, Option<Run>); 49] = [
    ("CreateDataset", Some(datasets::create)),
    ("CreateInferenceScheduler", Some(schedulers::create)),
    ("CreateLabel", Some(labels::create)),
    ("CreateLabelGroup", Some(labels::create_group)),
    ("CreateModel", Some(models::create)),
    ("CreateRetrainingScheduler", Some(retraining::create)),
    ("DeleteDataset", Some(datasets::delete)),
    ("DeleteInferenceScheduler", Some(schedulers::delete)),
    ("DeleteLabel", Some(labels::delete)),
    ("DeleteLabelGroup", Some(labels::delete_group)),
    ("DeleteModel", Some(models::delete)),
    ("DeleteResourcePolicy", Some(policies::delete)),
    ("DeleteRetrainingScheduler", Some(retraining::delete)),
    ("DescribeDataIngestionJob", Some(ingestion::describe)),
    ("DescribeDataset", Some(datasets::describe)),
    ("DescribeInferenceScheduler", Some(schedulers::describe)),
    ("DescribeLabel", Some(labels::describe)),
    ("DescribeLabelGroup", Some(labels::describe_group)),
    ("DescribeModel", Some(models::describe)),
    ("DescribeModelVersion", Some(versions::describe)),
    ("DescribeResourcePolicy", Some(policies::describe)),
    ("DescribeRetrainingScheduler", Some(retraining::describe)),
    ("ImportDataset", Some(imports::dataset)),
    ("ImportModelVersion", Some(imports::model_version)),
    ("ListDataIngestionJobs", Some(ingestion::list)),
    ("ListDatasets", Some(datasets::list)),
    ("ListInferenceEvents", Some(events::list)),
    ("ListInferenceExecutions", Some(executions::list)),
    ("ListInferenceSchedulers", Some(schedulers::list)),
    ("ListLabelGroups", Some(labels::list_groups)),
    ("ListLabels", Some(labels::list)),
    ("ListModelVersions", Some(versions::list)),
    ("ListModels", Some(models::list)),
    ("ListRetrainingSchedulers", Some(retraining::list)),
    ("ListSensorStatistics", Some(ingestion::statistics)),
    ("ListTagsForResource", Some(tags::list)),
    ("PutResourcePolicy", Some(policies::put)),
    ("StartDataIngestionJob", Some(ingestion::start)),
    ("StartInferenceScheduler", Some(schedulers::start)),
    ("StartRetrainingScheduler", Some(retraining::start)),
    ("StopInferenceScheduler", Some(schedulers::stop)),
    ("StopRetrainingScheduler", Some(retraining::stop)),
    ("TagResource", Some(tags::tag)),
    ("UntagResource", Some(tags::untag)),
    ("UpdateActiveModelVersion", Some(versions::activate)),
    ("UpdateInferenceScheduler", Some(schedulers::update)),
    ("UpdateLabelGroup", Some(labels::update_group)),
    ("UpdateModel", Some(models::update)),
    ("UpdateRetrainingScheduler", Some(retraining::update)),
];

/// The identity ARNs are made of.
#[derive(Debug, Clone)]
pub struct Identity {
    /// `us-east-1`.
    pub region: String,
    /// 12 digits.
    pub account: String,
}

/// One call of an operation.
pub struct Call<'a> {
    /// The transaction.
    pub db: &'a Connection,
    /// Validated input.
    pub input: &'a Input,
    /// Time of the call.
    pub now: DateTime<Utc>,
    /// For ARNs.
    pub identity: &'a Identity,
}

/// The validated members of a request.
pub struct Input(Map<String, Value>);

/// Runs `operation` on `body`.
pub async fn call(
    store: &Store,
    identity: &Identity,
    now: DateTime<Utc>,
    operation: &str,
    body: &Value,
) -> Result<Value, Fault> {
    let Some((name, run)) = OPERATIONS
        .iter()
        .find(|(name, _)| *name == operation)
        .copied()
    else {
        return Err(Fault::unknown_operation(format!(
            "The API has no operation '{}'",
            shown(operation)
        )));
    };
    let Some(run) = run else {
        return Err(Fault::unknown_operation(format!(
            "This version of lookoutd does not serve {name}. docs/compatibility.md lists what it serves."
        )));
    };
    let members = shapes::input_of(name).ok_or_else(Fault::internal)?;
    let input = Input(shapes::validate(members, body)?);
    let identity = identity.clone();
    store
        .transact(move |db| {
            let call = Call {
                db,
                input: &input,
                now,
                identity: &identity,
            };
            match input.text("ClientToken") {
                Some(token) => call.once(name, token, run),
                None => run(&call),
            }
        })
        .await
}

impl Call<'_> {
    /// Runs the operation unless its token was answered before.
    fn once(&self, operation: &str, token: &str, run: Run) -> Result<Value, Fault> {
        let mut request = self.input.0.clone();
        request.remove("ClientToken");
        let request = Value::Object(request).to_string();
        let known: Option<(String, String)> = self
            .db
            .query_row(
                "SELECT request, response FROM idempotency WHERE operation = ?1 AND token = ?2",
                [operation, token],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()?;
        if let Some((before, response)) = known {
            if before != request {
                return Err(Fault::conflict(format!(
                    "ClientToken '{token}' was used by another {operation} request: use a new token for a new request"
                )));
            }
            return serde_json::from_str(&response).map_err(|_| Fault::internal());
        }
        let response = run(self)?;
        let now = self.now.timestamp_micros();
        let horizon = (self.now - TOKEN_LIFETIME).timestamp_micros();
        self.db
            .execute("DELETE FROM idempotency WHERE created_us < ?1", [horizon])?;
        self.db.execute(
            "INSERT INTO idempotency (operation, token, request, response, created_us) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![operation, token, request, response.to_string(), now],
        )?;
        Ok(response)
    }

    /// An ARN of this service: `arn:aws:lookoutequipment:<region>:<account>:<kind>/<name>/<uuid>`.
    pub fn arn(&self, kind: &str, name: &str, uuid: &str) -> String {
        let Identity { region, account } = self.identity;
        format!("arn:aws:lookoutequipment:{region}:{account}:{kind}/{name}/{uuid}")
    }

    /// The page this request asks for, of a list identified by `list` (so that a token of another list is refused).
    pub fn page(&self, list: &str) -> Result<Page, Fault> {
        let size = self
            .input
            .integer("MaxResults")
            .unwrap_or(Page::DEFAULT_SIZE);
        let after = match self.input.text("NextToken") {
            None => None,
            Some(token) => Some(Page::open(list, token).ok_or_else(|| {
                Fault::validation("NextToken is invalid: pass the token of the previous page of this list unchanged")
            })?),
        };
        Ok(Page {
            list: list.to_owned(),
            size,
            after,
        })
    }
}

impl Input {
    /// A string member.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// A string member that validation made sure of.
    pub fn required(&self, name: &str) -> Result<&str, Fault> {
        self.text(name).ok_or_else(|| {
            tracing::error!(
                member = name,
                "an operation requires a member its shape does not"
            );
            Fault::internal()
        })
    }

    /// A whole number.
    pub fn integer(&self, name: &str) -> Option<i64> {
        self.0.get(name).and_then(Value::as_i64)
    }

    /// An instant, microseconds.
    pub fn time_us(&self, name: &str) -> Option<i64> {
        self.0
            .get(name)
            .and_then(Value::as_f64)
            .map(|seconds| (seconds * 1e6).round() as i64)
    }

    /// Any other member.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// `Tags` as pairs.
    pub fn tags(&self) -> Vec<(String, String)> {
        let pair = |tag: &Value| {
            Some((
                tag["Key"].as_str()?.to_owned(),
                tag["Value"].as_str()?.to_owned(),
            ))
        };
        self.0
            .get("Tags")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(pair)
            .collect()
    }
}

/// An instant as the API writes it: epoch seconds, milliseconds at most.
pub fn time(micros: i64) -> Value {
    Value::from(seconds(micros.div_euclid(1000) * 1000))
}

/// An optional instant.
pub fn maybe_time(micros: Option<i64>) -> Value {
    micros.map_or(Value::Null, time)
}

// === pages ===

/// A page of a list: how many items, and after which key.
pub struct Page {
    list: String,
    size: i64,
    after: Option<String>,
}

impl Page {
    /// The original's default is not documented; the official SDK asks for 50.
    const DEFAULT_SIZE: i64 = 50;

    /// The sort key of the previous page's last item.
    pub fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// One more than the page holds, so that the query itself tells whether there is a next page.
    pub fn limit(&self) -> i64 {
        self.size + 1
    }

    /// Cuts the extra item off and returns the page with the token of the next one, absent on the last page. `items`
    /// pairs each item with its sort key.
    pub fn cut(&self, items: Vec<(String, Value)>) -> (Vec<Value>, Option<String>) {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        let next = (items.len() > size).then(|| self.seal(&items[size - 1].0));
        (
            items.into_iter().take(size).map(|(_, item)| item).collect(),
            next,
        )
    }

    /// Hexadecimal of a check sum, the list and the key: opaque to clients, and refused when made up or mixed up.
    fn seal(&self, key: &str) -> String {
        let content = format!("{}\n{key}", self.list);
        let check = &blake3::hash(content.as_bytes()).to_hex()[..8];
        format!("{check}{}", sigv4::hex(content.as_bytes()))
    }

    fn open(list: &str, token: &str) -> Option<String> {
        let (check, content) = token.split_at_checked(8)?;
        let bytes: Option<Vec<u8>> = content
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        let content = String::from_utf8(bytes?).ok()?;
        (check == &blake3::hash(content.as_bytes()).to_hex()[..8]).then_some(())?;
        content
            .strip_prefix(list)?
            .strip_prefix('\n')
            .map(str::to_owned)
    }
}

fn shown(operation: &str) -> String {
    operation.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_of_the_model_has_a_place_in_the_dispatch_table() {
        let declared: Vec<&str> = shapes::INPUTS.iter().map(|(name, _)| *name).collect();
        let dispatched: Vec<&str> = OPERATIONS.iter().map(|(name, _)| *name).collect();
        assert_eq!(declared, dispatched);
    }

    #[test]
    fn compatibility_md_lists_the_state_of_every_operation() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/compatibility.md");
        let document = std::fs::read_to_string(path).unwrap();
        for (name, run) in &OPERATIONS {
            let state = if run.is_some() {
                "served"
            } else {
                "not served"
            };
            let row = format!("| {name} | {state} |");
            assert!(
                document.contains(&row),
                "docs/compatibility.md must have the row: {row}"
            );
        }
        let served = OPERATIONS.iter().filter(|(_, run)| run.is_some()).count();
        assert!(
            document.contains(&format!("{served} of 49")),
            "docs/compatibility.md must say: {served} of 49"
        );
    }

    #[test]
    fn a_page_token_opens_only_the_list_it_was_made_for() {
        let page = Page {
            list: "executions of s".into(),
            size: 2,
            after: None,
        };
        let items = ["a", "b", "c"].map(|key| (key.to_owned(), Value::from(key)));
        let (shown, next) = page.cut(items.to_vec());
        assert_eq!(shown, ["a", "b"]);
        let token = next.unwrap();
        assert_eq!(Page::open("executions of s", &token).as_deref(), Some("b"));
        assert_eq!(Page::open("executions of t", &token), None);
        for bad in [
            "",
            "x",
            "00000000",
            "zzzzzzzzzz",
            &token[..token.len() - 1],
            "\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}",
        ] {
            assert_eq!(Page::open("executions of s", bad), None, "{bad}");
        }
        assert_eq!(page.cut(items[..2].to_vec()).1, None);
    }
}
