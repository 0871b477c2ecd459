//! Dispatch: the table of the API's operations, and what every operation is given.
//!
//! An operation is: validated input, one function of the store, the rendered answer. It either answers, and what it did is
//! committed, or raises a fault and leaves no trace. What makes something hands its `ClientToken` to the store, which makes
//! it once (`store::Once`).

use std::collections::HashSet;
use std::pin::Pin;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};

use super::faults::Fault;
use super::options::Options;
use super::store::{Once, Store, seconds};
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

/// What an operation does with a request. `Value::Null` is an empty body.
pub type Run = for<'a> fn(&'a Request<'a>) -> Answer<'a>;

/// The answer to come.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<Value, Fault>> + Send + 'a>>;

/// An operation of the table.
macro_rules! asks {
    ($operation:path) => {
        Some(|request| Box::pin($operation(request)))
    };
}

/// Every operation of the API, in the order of the service model; `None` is answered `UnknownOperationException`.
pub static OPERATIONS: [(&str, Option<Run>); 49] = [
    ("CreateDataset", asks!(datasets::create)),
    ("CreateInferenceScheduler", asks!(schedulers::create)),
    ("CreateLabel", asks!(labels::create)),
    ("CreateLabelGroup", asks!(labels::create_group)),
    ("CreateModel", asks!(models::create)),
    ("CreateRetrainingScheduler", asks!(retraining::create)),
    ("DeleteDataset", asks!(datasets::delete)),
    ("DeleteInferenceScheduler", asks!(schedulers::delete)),
    ("DeleteLabel", asks!(labels::delete)),
    ("DeleteLabelGroup", asks!(labels::delete_group)),
    ("DeleteModel", asks!(models::delete)),
    ("DeleteResourcePolicy", asks!(policies::delete)),
    ("DeleteRetrainingScheduler", asks!(retraining::delete)),
    ("DescribeDataIngestionJob", asks!(ingestion::describe)),
    ("DescribeDataset", asks!(datasets::describe)),
    ("DescribeInferenceScheduler", asks!(schedulers::describe)),
    ("DescribeLabel", asks!(labels::describe)),
    ("DescribeLabelGroup", asks!(labels::describe_group)),
    ("DescribeModel", asks!(models::describe)),
    ("DescribeModelVersion", asks!(versions::describe)),
    ("DescribeResourcePolicy", asks!(policies::describe)),
    ("DescribeRetrainingScheduler", asks!(retraining::describe)),
    ("ImportDataset", asks!(imports::dataset)),
    ("ImportModelVersion", asks!(imports::model_version)),
    ("ListDataIngestionJobs", asks!(ingestion::list)),
    ("ListDatasets", asks!(datasets::list)),
    ("ListInferenceEvents", asks!(events::list)),
    ("ListInferenceExecutions", asks!(executions::list)),
    ("ListInferenceSchedulers", asks!(schedulers::list)),
    ("ListLabelGroups", asks!(labels::list_groups)),
    ("ListLabels", asks!(labels::list)),
    ("ListModelVersions", asks!(versions::list)),
    ("ListModels", asks!(models::list)),
    ("ListRetrainingSchedulers", asks!(retraining::list)),
    ("ListSensorStatistics", asks!(ingestion::statistics)),
    ("ListTagsForResource", asks!(tags::list)),
    ("PutResourcePolicy", asks!(policies::put)),
    ("StartDataIngestionJob", asks!(ingestion::start)),
    ("StartInferenceScheduler", asks!(schedulers::start)),
    ("StartRetrainingScheduler", asks!(retraining::start)),
    ("StopInferenceScheduler", asks!(schedulers::stop)),
    ("StopRetrainingScheduler", asks!(retraining::stop)),
    ("TagResource", asks!(tags::tag)),
    ("UntagResource", asks!(tags::untag)),
    ("UpdateActiveModelVersion", asks!(versions::activate)),
    ("UpdateInferenceScheduler", asks!(schedulers::update)),
    ("UpdateLabelGroup", asks!(labels::update_group)),
    ("UpdateModel", asks!(models::update)),
    ("UpdateRetrainingScheduler", asks!(retraining::update)),
];

/// The identity ARNs are made of.
#[derive(Debug, Clone)]
pub struct Identity {
    /// `us-east-1`.
    pub region: String,
    /// 12 digits.
    pub account: String,
}

impl Identity {
    /// An ARN of this service: `arn:aws:lookoutequipment:<region>:<account>:<kind>/<name>/<uuid>`.
    pub fn arn(&self, kind: &str, name: &str, uuid: &str) -> String {
        let Identity { region, account } = self;
        format!("arn:aws:lookoutequipment:{region}:{account}:{kind}/{name}/{uuid}")
    }
}

/// One request of an operation.
pub struct Request<'a> {
    /// The state.
    pub store: &'a Store,
    /// The operation's name.
    pub operation: &'static str,
    /// Validated input.
    pub input: &'a Input,
    /// Time of the request.
    pub now: DateTime<Utc>,
    /// For ARNs.
    pub identity: &'a Identity,
}

impl Request<'_> {
    /// Its `ClientToken`, for the store function that makes something.
    pub fn once(&self) -> Option<Once> {
        self.input.once(self.operation)
    }

    /// The ARN of something new.
    pub fn new_arn(&self, kind: &str, name: &str) -> String {
        let uuid = uuid::Uuid::new_v4().to_string();
        self.identity.arn(kind, name, &uuid)
    }

    /// The page this request asks for, of a list identified by `list` (so that a token of another list is refused).
    pub fn page(&self, list: &str) -> Result<Page, Fault> {
        self.input.page(list)
    }
}

/// What the store says was made, as the answer.
pub fn answer(made: impl Serialize) -> Result<Value, Fault> {
    serde_json::to_value(made).map_err(|error| {
        tracing::error!(%error, "an answer cannot be written");
        Fault::internal()
    })
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
    let mut input = Input(shapes::validate(members, body)?);
    input.name_key(identity);
    let request = Request {
        store,
        operation: name,
        input: &input,
        now,
        identity,
    };
    run(&request)
        .await
        .inspect(|answer| hold_to_model(name, answer))
}

/// What clients cannot read is found by whatever test asks for it.
fn hold_to_model(operation: &str, answer: &Value) {
    #[cfg(debug_assertions)]
    if let Some(misfit) = shapes::misfit(operation, answer) {
        tracing::error!(
            operation,
            misfit,
            "an answer is not that of the service model"
        );
    }
    #[cfg(not(debug_assertions))]
    let _ = (operation, answer);
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

    /// A list of strings.
    pub fn texts(&self, name: &str) -> Option<Vec<String>> {
        let texts = self.0.get(name)?.as_array()?.iter().map(Value::as_str);
        Some(texts.flatten().map(str::to_owned).collect())
    }

    /// `Tags` as pairs: each key once, and lookoutd's own (`super::options`) with values there are.
    pub fn tags(&self) -> Result<Vec<(String, String)>, Fault> {
        let pair = |tag: &Value| {
            Some((
                tag["Key"].as_str()?.to_owned(),
                tag["Value"].as_str()?.to_owned(),
            ))
        };
        let tags = self.0.get("Tags").and_then(Value::as_array);
        let tags: Vec<(String, String)> = tags.into_iter().flatten().filter_map(pair).collect();
        let mut seen = HashSet::new();
        if let Some((key, _)) = tags.iter().find(|(key, _)| !seen.insert(key)) {
            return Err(Fault::validation(format!(
                "Tags has the key '{key}' twice: a key names one tag"
            )));
        }
        let pairs = tags.iter();
        Options::from_tags(pairs.map(|(key, value)| (key.as_str(), value.as_str())))?;
        Ok(tags)
    }

    /// A key is given by name or ARN, and told by ARN alone.
    fn name_key(&mut self, identity: &Identity) {
        let Some(Value::String(key)) = self.0.get_mut("ServerSideKmsKeyId") else {
            return;
        };
        if !key.starts_with("arn:") {
            let Identity { region, account } = identity;
            let kind = if key.starts_with("alias/") || key.starts_with("key/") {
                ""
            } else {
                "key/"
            };
            *key = format!("arn:aws:kms:{region}:{account}:{kind}{key}");
        }
    }

    fn once(&self, operation: &'static str) -> Option<Once> {
        let token = self.text("ClientToken")?;
        let mut request = self.0.clone();
        request.remove("ClientToken");
        Some(Once::new(
            operation,
            token,
            Value::Object(request).to_string(),
        ))
    }

    fn page(&self, list: &str) -> Result<Page, Fault> {
        let size = self.integer("MaxResults").unwrap_or(Page::DEFAULT_SIZE);
        // The model allows an empty token; clients that page in a loop begin with one.
        let after = match self.text("NextToken").filter(|token| !token.is_empty()) {
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
mod tests;
