//! One CSV from S3 into a component's rows: streamed, so that its size does not matter.
//!
//! A file that is no CSV of the component leaves no row and is told to the caller, who discards it; an illegal name in a
//! header ends the job (contract 6).

use std::collections::HashMap;
use std::io::Read;

use anyhow::{Result, bail};
use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use super::objects::Objects;
use super::statistics::Counts;
use crate::records::shortened;
use crate::service::csv_rows::{Cell, CsvRows};
use crate::service::history::PartWriter;
use crate::service::schema::legal;

/// A file that was read, or why it could not be.
pub struct ReadFile {
    /// Where its rows went.
    pub writer: PartWriter,
    /// What was wrong with its cells, added to what was before.
    pub counts: Counts,
    /// Why it is no file of this component; then nothing of it was taken.
    pub problem: Option<String>,
}

/// Streams one file into `writer`. An error means that the job cannot go on.
pub async fn read(
    objects: &Objects,
    key: &str,
    sensors: &[String],
    writer: PartWriter,
    counts: Counts,
) -> Result<ReadFile> {
    let (sender, receiver) = mpsc::channel(8);
    let (sensors, name) = (sensors.to_vec(), key.to_owned());
    let parsing = tokio::task::spawn_blocking(move || {
        parse(Chunks::new(receiver), &name, &sensors, writer, counts)
    });
    let streamed = objects.stream(key, sender).await;
    let read = parsing.await?;
    // What was parsed of a file that broke off says nothing of it.
    streamed?;
    read
}

fn parse(
    input: Chunks,
    key: &str,
    sensors: &[String],
    mut writer: PartWriter,
    mut counts: Counts,
) -> Result<ReadFile> {
    let before = counts.clone();
    let problem = match CsvRows::open(input) {
        Err(problem) => Some(problem.to_string()),
        Ok(file) => {
            refuse_illegal(&file, key)?;
            take(file, key, sensors, &mut writer, &mut counts)?
        }
    };
    if problem.is_some() {
        writer.take_back()?;
        counts = before;
    }
    Ok(ReadFile {
        writer,
        counts,
        problem,
    })
}

/// A name that the service does not take ends the job (contract 6).
pub fn refuse_illegal<R: Read>(file: &CsvRows<R>, key: &str) -> Result<()> {
    match file.sensors().iter().find(|name| !legal(name, b":#$._-")) {
        None => Ok(()),
        Some(illegal) => bail!(
            "The header of '{key}' has the column '{}': names are 1 to 200 of 0-9 a-z A-Z : # $ . _ - (no spaces)",
            shortened(illegal)
        ),
    }
}

/// Takes the rows of the sensors that the file has. A text says why it is no file of this component.
fn take<R: Read>(
    file: CsvRows<R>,
    key: &str,
    sensors: &[String],
    writer: &mut PartWriter,
    counts: &mut Counts,
) -> Result<Option<String>> {
    let columns: HashMap<&str, usize> = file
        .sensors()
        .iter()
        .enumerate()
        .map(|(column, name)| (name.as_str(), column))
        .collect();
    let has = |(sensor, name): (usize, &String)| Some((sensor, *columns.get(name.as_str())?));
    let wanted: Vec<(usize, usize)> = sensors.iter().enumerate().filter_map(has).collect();
    if wanted.is_empty() {
        let shown = shortened(&file.sensors().join(","));
        return Ok(Some(format!(
            "none of its columns ({shown}) is a sensor of the component"
        )));
    }
    let places: Vec<usize> = wanted.iter().map(|(sensor, _)| *sensor).collect();
    writer.begin(&places)?;
    let mut values = vec![f64::NAN; wanted.len()];
    let (mut rows, mut failed) = (0, None);
    let read = file.for_each(|time, cells| {
        rows += 1;
        let Some(time) = time else {
            counts.invalid_times += 1;
            return;
        };
        for (value, (sensor, column)) in values.iter_mut().zip(&wanted) {
            *value = match cells.get(*column) {
                Cell::Number(number) => number,
                Cell::Invalid => {
                    counts.invalid[*sensor] += 1;
                    f64::NAN
                }
                Cell::Missing => f64::NAN,
            };
        }
        counts.rows += 1;
        if failed.is_none() {
            failed = writer.push(time, &values).err();
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    match read {
        Err(problem) => Ok(Some(problem.to_string())),
        Ok(misfits) if misfits.count == rows && rows > 0 => {
            Ok(Some(format!("no row fits the header: {misfits}")))
        }
        Ok(misfits) => {
            if misfits.count > 0 {
                tracing::warn!(
                    key,
                    rows = misfits.count,
                    first = %misfits,
                    "rows that do not fit their file's header have no value"
                );
            }
            Ok(None)
        }
    }
}

/// A body that arrives in chunks, as a reader.
struct Chunks {
    receiver: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Chunks {
    fn new(receiver: mpsc::Receiver<Bytes>) -> Chunks {
        Chunks {
            receiver,
            current: Bytes::new(),
        }
    }
}

impl Read for Chunks {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.current = chunk,
                None => return Ok(0),
            }
        }
        let count = out.len().min(self.current.len());
        self.current.copy_to_slice(&mut out[..count]);
        Ok(count)
    }
}
