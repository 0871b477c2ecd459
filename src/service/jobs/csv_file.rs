//! One CSV from S3 into a component's rows: streamed, so that its size does not matter.
//!
//! A file that is no CSV is told to the caller, who discards it; an illegal name in a header ends the job (contract 6).

use std::io::Read;

use anyhow::{Result, anyhow, bail};
use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use super::Jobs;
use super::statistics::Counts;
use crate::service::csv_rows::{Cell, CsvError, CsvRows};
use crate::service::history::PartWriter;
use crate::service::s3_problem;
use crate::service::schema::legal;

/// A file that was read, or why it could not be.
pub struct ReadFile {
    /// Where its rows went.
    pub writer: PartWriter,
    /// What was wrong with its cells, added to what was before.
    pub counts: Counts,
    /// Why it is no CSV; rows before the problem were taken.
    pub problem: Option<CsvError>,
}

/// Streams one file into `writer`. An error means that the job cannot go on.
pub async fn read(
    jobs: &Jobs,
    bucket: &str,
    key: &str,
    sensors: &[String],
    writer: PartWriter,
    counts: Counts,
) -> Result<ReadFile> {
    let object = jobs.s3.get_object().bucket(bucket).key(key).send().await;
    let mut body = object
        .map_err(|error| {
            anyhow!(
                "cannot read s3://{bucket}/{key}: {}",
                s3_problem::of(&error)
            )
        })?
        .body;
    let (sender, receiver) = mpsc::channel(8);
    let (sensors, name) = (sensors.to_vec(), key.to_owned());
    let parsing = tokio::task::spawn_blocking(move || {
        parse(Chunks::new(receiver), &name, &sensors, writer, counts)
    });
    let mut broken = None;
    loop {
        match body.next().await {
            None => break,
            Some(Ok(chunk)) => {
                // A parser that went away has its own error.
                if sender.send(chunk).await.is_err() {
                    break;
                }
            }
            Some(Err(error)) => {
                broken = Some(error);
                break;
            }
        }
    }
    drop(sender);
    let read = parsing.await??;
    match broken {
        Some(error) => Err(anyhow!("s3://{bucket}/{key} broke off: {error}")),
        None => Ok(read),
    }
}

fn parse(
    input: Chunks,
    key: &str,
    sensors: &[String],
    mut writer: PartWriter,
    mut counts: Counts,
) -> Result<ReadFile> {
    let file = match CsvRows::open(input) {
        Ok(file) => file,
        Err(problem) => {
            return Ok(ReadFile {
                writer,
                counts,
                problem: Some(problem),
            });
        }
    };
    if let Some(illegal) = file.sensors().iter().find(|name| !legal(name, b":#$._-")) {
        bail!(
            "The header of '{key}' has the column '{illegal}': names are 1 to 200 of 0-9 a-z A-Z : # $ . _ - (no spaces)"
        );
    }
    let position = |sensor: &String| file.sensors().iter().position(|column| column == sensor);
    let columns: Vec<Option<usize>> = sensors.iter().map(position).collect();
    let mut values = vec![f64::NAN; sensors.len()];
    let mut failed = None;
    let read = file.for_each(|time, cells| {
        let Some(time) = time else {
            counts.invalid_times += 1;
            return;
        };
        for (sensor, column) in columns.iter().enumerate() {
            values[sensor] = match column.map(|column| cells.get(column)) {
                Some(Cell::Number(number)) => number,
                Some(Cell::Invalid) => {
                    counts.invalid[sensor] += 1;
                    f64::NAN
                }
                Some(Cell::Missing) | None => f64::NAN,
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
    Ok(ReadFile {
        writer,
        counts,
        problem: read.err(),
    })
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
