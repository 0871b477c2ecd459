//! The demo's model: trained in process on the sample plant's healthy weeks, as `lookoutd`'s service trains it.

use std::path::Path;

use chrono::NaiveDateTime;

use crate::daemon::{ACCOUNT, REGION};
use crate::model::table::Table;
use crate::model::{Model, Options, Sampling, Training};
use crate::sample::SampleSummary;
use crate::service::store::NewModel;
use crate::signal::TagList;

/// The plant's own interval: five verdicts per window.
const SAMPLING: Sampling = Sampling::Pt1m;

/// Trains on the sample's training range; the model as the service takes it, and a line about it for people.
pub fn train(
    directory: &Path,
    tags: &TagList,
    sample: &SampleSummary,
    name: &str,
) -> anyhow::Result<(NewModel, String)> {
    let mut table = Table::open(
        &directory.join("signals.parquet"),
        Some(tags),
        &Default::default(),
    )?;
    let sensors = table.sensors().to_vec();
    let micros = |time: NaiveDateTime| time.and_utc().timestamp_micros();
    let training = Training {
        sensors,
        labels: Vec::new(),
        from: Some(micros(sample.train_start)),
        to: Some(micros(sample.train_end)),
        rows: Box::new(|| table.next_block()),
    };
    let options = Options {
        sampling: Some(SAMPLING),
        ..Options::default()
    };
    let model = Model::fit(training, &options, &mut |_| ())?;
    let about = format!(
        "model {name} trained on {} rows of {} sensors",
        model.training_rows(),
        model.sensors().len()
    );
    let model = NewModel::of(name, &model, REGION, ACCOUNT);
    Ok((model, about))
}
