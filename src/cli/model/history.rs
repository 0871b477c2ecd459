//! The recorded history that `lookoutd model` works on: opening it, its time ranges, and scoring it block by block.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::cli::asset::part;
use crate::cli::shape::ShapeArgs;
use crate::model::guard;
use crate::model::table::Table;
use crate::model::{Model, Rows, Scored, Span, Warning, timestamp};
use crate::signal::TagList;

/// Where a recorded history lies.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// History: a Parquet or CSV file (also .csv.gz), a directory of them, or a pattern
    #[arg(long, value_name = "PLACE", visible_alias = "parquet")]
    pub history: PathBuf,
    /// Tag list: which component each signal belongs to; a model's sensors tell it too, where no two share a name
    #[arg(long, value_name = "FILE")]
    pub tags: Option<PathBuf>,
    /// The asset, where the tag list names several
    #[arg(long, value_name = "NAME", requires = "tags")]
    pub asset: Option<String>,
    #[command(flatten)]
    pub shape: ShapeArgs,
}

impl HistoryArgs {
    /// Opens the table to learn from.
    pub fn open(&self) -> Result<Table> {
        let shape = self.shape.shape()?;
        Table::open(&self.history, self.tag_list()?.as_ref(), &shape)
    }

    /// Opens the table to score with a model, which tells the components where no tag list does.
    pub fn open_for(&self, model: &Model) -> Result<Table> {
        let (tags, shape) = (self.tag_list()?, self.shape.shape()?);
        Table::open_for(model.sensors(), &self.history, tags.as_ref(), &shape)
    }

    fn tag_list(&self) -> Result<Option<TagList>> {
        let Some(list) = self.tags.as_deref().map(TagList::read).transpose()? else {
            return Ok(None);
        };
        Ok(Some(part(&list, self.asset.as_deref())?))
    }
}

/// Scores the rows of a range block by block and hands the verdicts on; returns what to know about the data. Rows before the
/// range prime the detector, so that a range does not begin with an alarm that a longer one has not.
pub fn score_history(
    model: &Model,
    history: &HistoryArgs,
    from: Option<i64>,
    to: Option<i64>,
    take: &mut dyn FnMut(&[Scored]) -> Result<()>,
) -> Result<Vec<Warning>> {
    let mut table = history.open_for(model)?;
    let places = model
        .align(table.sensors())
        .with_context(|| format!("cannot score {}", history.history.display()))?;
    let absent: Vec<_> = places
        .iter()
        .zip(model.sensors())
        .filter(|(place, _)| place.is_none())
        .map(|(_, sensor)| sensor.clone())
        .collect();
    let mut warnings = Vec::new();
    if !absent.is_empty() {
        warnings.push(Warning::AbsentSensors(absent));
    }
    let (from, to) = (from.unwrap_or(i64::MIN / 2), to.unwrap_or(i64::MAX / 2));
    let primed = from.saturating_sub(model.priming_us());
    let mut state = model.fresh_state();
    let mut start = primed - 1;
    let mut first = true;
    while let Some(block) = table.next_block()? {
        let mut rows = Rows {
            sensors: places.len(),
            ..Rows::default()
        };
        for (index, &time) in block
            .times
            .iter()
            .enumerate()
            .filter(|(_, time)| (primed..=to).contains(*time))
        {
            let values = block.row(index);
            rows.times.push(time);
            rows.values.extend(
                places
                    .iter()
                    .map(|place| place.map_or(f64::NAN, |column| values[column])),
            );
        }
        let Some(&last) = rows.times.last() else {
            continue;
        };
        if std::mem::take(&mut first) {
            warnings.extend(guard::resolution(model, &rows));
        }
        let mut lines = model.score(&mut state, &rows, start, last);
        lines.retain(|line| line.time >= from);
        take(&lines)?;
        start = last;
    }
    if !first {
        // The last bin may end after the last row.
        let end = (start + model.step_us()).min(to);
        let nothing = Rows {
            sensors: places.len(),
            ..Rows::default()
        };
        let mut lines = model.score(&mut state, &nothing, start, end);
        lines.retain(|line| line.time >= from);
        take(&lines)?;
    }
    Ok(warnings)
}

/// The training and the evaluation range of a time ranges file.
pub fn time_ranges(path: &Path) -> Result<[Span; 2]> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut times = Vec::new();
    for (index, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let place = || format!("{} line {}", path.display(), index + 1);
        times.push(time(line).map_err(anyhow::Error::msg).with_context(place)?);
    }
    match times[..] {
        [a, b, c, d] if a < b && c < d => {
            Ok([Span { start: a, end: b }, Span { start: c, end: d }])
        }
        [_, _, _, _] => bail!("{}: a range ends before it starts", path.display()),
        _ => bail!(
            "{}: expected four lines, start and end of training and of evaluation; found {}",
            path.display(),
            times.len()
        ),
    }
}

/// A time argument.
pub fn time(text: &str) -> Result<i64, String> {
    timestamp::instant(text).map(|time| time.timestamp_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_ranges_file_has_four_times() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            time_ranges(file.path())
        };
        let ranges = read(
            "2020-01-01 00:00:00\n2020-01-17 10:55:00\n2020-01-17 10:56:00\n2020-02-02 21:51:00\n",
        )
        .unwrap();
        assert_eq!(timestamp::format(ranges[1].start), "2020-01-17T10:56:00");
        assert!(read("2020-01-01 00:00:00\n2020-01-17 10:55:00\n").is_err());
        assert!(
            read("2020-01-02 00:00\n2020-01-01 00:00\n2020-01-17 10:56\n2020-02-02 21:51\n")
                .is_err()
        );
        assert!(
            read("tomorrow\n")
                .unwrap_err()
                .to_string()
                .contains("line 1")
        );
    }
}
