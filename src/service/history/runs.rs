//! A component's rows as its files bring them, in any order, made into one file sorted by time.
//!
//! Guarantees: files with the same columns continue each other, and of their rows with one time the last is kept; files
//! with other columns are merged with them by time, cell by cell, a later file's value over an earlier one's. A file that
//! turns out to be none is taken back whole. Memory is 16 bytes per row; on disk a row has the cells of its file, not those of the component, until all are merged.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Part, read_row, row_bytes, write_row};

/// Runs merged at once: what stays open.
const FAN_IN: usize = 64;
const WRITE: &str = "cannot write the dataset's rows";

/// Takes one component's rows.
pub struct PartWriter {
    path: PathBuf,
    component: String,
    sensors: Vec<String>,
    runs: Vec<Run>,
    /// The run that takes rows, and where its file's begin.
    current: Option<Current>,
}

/// Rows of some of the sensors.
struct Run {
    path: PathBuf,
    columns: Vec<usize>,
    times: Vec<i64>,
    sorted: bool,
}

struct Current {
    run: usize,
    file: BufWriter<File>,
    rows_before: usize,
    sorted_before: bool,
}

impl PartWriter {
    /// Starts the file of component `number` in `directory`.
    pub fn create(
        directory: &Path,
        number: usize,
        component: &str,
        sensors: &[String],
    ) -> PartWriter {
        PartWriter {
            path: directory.join(format!("{number}.rows")),
            component: component.to_owned(),
            sensors: sensors.to_vec(),
            runs: Vec::new(),
            current: None,
        }
    }

    /// Begins a file that has these of the sensors, by position, ascending.
    pub fn begin(&mut self, columns: &[usize]) -> Result<()> {
        self.end()?;
        let run = match self.run_of(columns) {
            Some(run) => run,
            None => {
                self.runs.push(Run {
                    path: self.beside(&format!("run-{}", self.runs.len())),
                    columns: columns.to_vec(),
                    times: Vec::new(),
                    sorted: true,
                });
                self.runs.len() - 1
            }
        };
        let Run {
            path,
            times,
            sorted,
            ..
        } = &self.runs[run];
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        self.current = Some(Current {
            run,
            file: BufWriter::with_capacity(1 << 20, file),
            rows_before: times.len(),
            sorted_before: *sorted,
        });
        Ok(())
    }

    /// The run that a file with these columns continues: the last of the same columns, unless one after it has some of them,
    /// whose values would then count for later than they are.
    fn run_of(&self, columns: &[usize]) -> Option<usize> {
        let shares = |run: &Run| run.columns.iter().any(|column| columns.contains(column));
        let last = self.runs.iter().rposition(shares)?;
        (self.runs[last].columns == columns).then_some(last)
    }

    fn beside(&self, end: &str) -> PathBuf {
        self.path.with_extension(end)
    }

    /// Adds a row of the file that was begun; NaN is missing.
    pub fn push(&mut self, time: i64, values: &[f64]) -> Result<()> {
        let current = self.current.as_mut().context("no file was begun")?;
        let run = &mut self.runs[current.run];
        run.sorted &= run.times.last().is_none_or(|last| *last < time);
        run.times.push(time);
        write_row(&mut current.file, time, values).context(WRITE)
    }

    /// Takes back every row of the file that was begun last.
    pub fn take_back(&mut self) -> Result<()> {
        let Some(current) = self.current.take() else {
            return Ok(());
        };
        let run = &mut self.runs[current.run];
        let (file, _) = current.file.into_parts();
        let bytes = current.rows_before * row_bytes(run.columns.len());
        file.set_len(bytes as u64).context(WRITE)?;
        run.times.truncate(current.rows_before);
        run.sorted = current.sorted_before;
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        match self.current.take() {
            Some(mut current) => current.file.flush().context(WRITE),
            None => Ok(()),
        }
    }

    /// Sorts and merges what came into one file.
    pub fn finish(mut self) -> Result<Part> {
        self.end()?;
        let mut duplicates = 0;
        let mut sorted = Vec::new();
        for (number, run) in self.runs.iter_mut().enumerate() {
            let path = self.path.with_extension(format!("sorted-{number}"));
            duplicates += run.sort(&path)?;
            sorted.push((path, std::mem::take(&mut run.columns)));
        }
        let mut level = 0;
        while sorted.len() > FAN_IN {
            let mut merged = Vec::new();
            for (number, runs) in sorted.chunks(FAN_IN).enumerate() {
                let path = self.beside(&format!("merged-{level}-{number}"));
                let mut columns: Vec<usize> = runs
                    .iter()
                    .flat_map(|(_, columns)| columns)
                    .copied()
                    .collect();
                columns.sort_unstable();
                columns.dedup();
                duplicates += merge(runs, &path, &columns)?.duplicates;
                merged.push((path, columns));
            }
            (sorted, level) = (merged, level + 1);
        }
        let all: Vec<usize> = (0..self.sensors.len()).collect();
        let times = match &sorted[..] {
            [(path, columns)] if *columns == all => {
                std::fs::rename(path, &self.path).context("cannot rename the dataset's rows")?;
                let run = self.runs.first();
                Times {
                    rows: run.map_or(0, |run| run.times.len()) as u64 - duplicates,
                    first: run.and_then(|run| run.times.iter().min().copied()),
                    last: run.and_then(|run| run.times.iter().max().copied()),
                    duplicates: 0,
                }
            }
            runs => merge(runs, &self.path, &all)?,
        };
        Ok(Part {
            rows: times.rows,
            duplicates: duplicates + times.duplicates,
            first_us: times.first,
            last_us: times.last,
            component: self.component,
            sensors: self.sensors,
            file: String::new(),
        })
    }
}

impl Run {
    /// Puts the rows into `path`, by time and each time once; returns how many were dropped.
    fn sort(&mut self, path: &Path) -> Result<u64> {
        if self.sorted {
            std::fs::rename(&self.path, path).context("cannot rename the dataset's rows")?;
            return Ok(0);
        }
        let count = u32::try_from(self.times.len()).context("more than 4 billion rows")?;
        let mut order: Vec<u32> = (0..count).collect();
        // Stable: among equal times the last written comes last, and is the one that is kept.
        order.sort_by_key(|row| self.times[*row as usize]);
        let last_of_time = |at: &usize| {
            let next = order.get(at + 1).map(|row| self.times[*row as usize]);
            next != Some(self.times[order[*at] as usize])
        };
        let order: Vec<u32> = (0..order.len())
            .filter(last_of_time)
            .map(|at| order[at])
            .collect();
        let mut input = BufReader::new(File::open(&self.path)?);
        let mut output = BufWriter::with_capacity(1 << 20, File::create(path)?);
        let mut row = vec![0; row_bytes(self.columns.len())];
        let mut at = 0;
        for index in &order {
            let offset = u64::from(*index) * row.len() as u64;
            // Mostly sorted input stays inside the buffer.
            input.seek_relative(offset as i64 - at as i64)?;
            input.read_exact(&mut row)?;
            at = offset + row.len() as u64;
            output.write_all(&row).context(WRITE)?;
        }
        output.flush().context(WRITE)?;
        std::fs::remove_file(&self.path).context("cannot remove the unsorted rows")?;
        Ok((self.times.len() - order.len()) as u64)
    }
}

/// What a merge saw.
#[derive(Default)]
struct Times {
    rows: u64,
    first: Option<i64>,
    last: Option<i64>,
    /// Rows that had a value where an earlier run had one at the same time.
    duplicates: u64,
}

struct Merging {
    file: BufReader<File>,
    /// Where the run's cells go in the merged row.
    places: Vec<usize>,
    head: Option<(i64, Vec<f64>)>,
}

/// Merges sorted runs into rows of `columns`; a later run's values over an earlier one's. The runs are removed.
fn merge(runs: &[(PathBuf, Vec<usize>)], path: &Path, columns: &[usize]) -> Result<Times> {
    let mut open = Vec::new();
    for (path, of) in runs {
        let mut file = BufReader::with_capacity(1 << 16, File::open(path)?);
        let head = read_row(&mut file, of.len())?;
        let place = |column| columns.binary_search(column).unwrap_or_default();
        open.push(Merging {
            file,
            places: of.iter().map(place).collect(),
            head,
        });
    }
    let mut output = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut seen = Times::default();
    let mut row = vec![f64::NAN; columns.len()];
    loop {
        let heads = open.iter().filter_map(|run| run.head.as_ref());
        let Some(time) = heads.map(|(time, _)| *time).min() else {
            break;
        };
        row.fill(f64::NAN);
        for run in open.iter_mut() {
            let Some((_, values)) = run.head.take_if(|(head, _)| *head == time) else {
                continue;
            };
            let mut twice = false;
            for (place, value) in run
                .places
                .iter()
                .zip(values)
                .filter(|(_, value)| !value.is_nan())
            {
                twice |= !row[*place].is_nan();
                row[*place] = value;
            }
            seen.duplicates += u64::from(twice);
            run.head = read_row(&mut run.file, run.places.len())?;
        }
        write_row(&mut output, time, &row).context(WRITE)?;
        seen.rows += 1;
        seen.first.get_or_insert(time);
        seen.last = Some(time);
    }
    output.flush().context(WRITE)?;
    drop(open);
    for (path, _) in runs {
        std::fs::remove_file(path).context("cannot remove the rows that were merged")?;
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::super::each_row;
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// One file: the positions of its columns and its rows.
    type Csv<'a> = (&'a [usize], &'a [(i64, &'a [f64])]);

    /// A time and a value for each sensor that has one then.
    type Row = (i64, Vec<Option<f64>>);

    fn ingested(sensors: &[&str], files: &[Csv<'_>]) -> (Part, Vec<Row>) {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = PartWriter::create(directory.path(), 0, "c", &names(sensors));
        for (columns, rows) in files {
            writer.begin(columns).unwrap();
            for (time, values) in *rows {
                writer.push(*time, values).unwrap();
            }
        }
        let part = writer.finish().unwrap();
        let mut rows = Vec::new();
        each_row(directory.path(), 0, &part, |time, values| {
            let cells = values
                .iter()
                .map(|value| (!value.is_nan()).then_some(*value));
            rows.push((time, cells.collect()));
        })
        .unwrap();
        let mut left: Vec<String> = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        left.sort();
        assert_eq!(left, ["0.rows"]);
        assert_eq!(part.rows, rows.len() as u64);
        assert_eq!(part.first_us, rows.first().map(|(time, _)| *time));
        assert_eq!(part.last_us, rows.last().map(|(time, _)| *time));
        (part, rows)
    }

    #[test]
    fn one_file_per_sensor_is_merged_by_time() {
        let (part, rows) = ingested(
            &["a", "b", "c"],
            &[
                (&[0], &[(10, &[1.0]), (20, &[2.0])]),
                (&[1], &[(20, &[5.0]), (10, &[4.0])]),
                (&[2], &[(15, &[7.0])]),
                (&[0], &[(30, &[3.0])]),
            ],
        );
        assert_eq!(part.duplicates, 0);
        assert_eq!(
            rows,
            [
                (10, vec![Some(1.0), Some(4.0), None]),
                (15, vec![None, None, Some(7.0)]),
                (20, vec![Some(2.0), Some(5.0), None]),
                (30, vec![Some(3.0), None, None]),
            ]
        );
    }

    #[test]
    fn of_files_that_share_a_column_the_later_counts() {
        let (part, rows) = ingested(
            &["a", "b"],
            &[
                (&[0, 1], &[(10, &[1.0, 1.0]), (20, &[1.0, 1.0])]),
                (&[0], &[(20, &[2.0]), (10, &[f64::NAN])]),
                (&[0, 1], &[(20, &[3.0, 3.0])]),
            ],
        );
        assert_eq!(
            rows,
            [
                (10, vec![Some(1.0), Some(1.0)]),
                (20, vec![Some(3.0), Some(3.0)])
            ]
        );
        assert_eq!(part.duplicates, 2);
    }

    #[test]
    fn more_files_than_are_merged_at_once_are_merged_all_the_same() {
        let count = 3 * FAN_IN + 5;
        let sensors: Vec<String> = (0..count).map(|n| format!("s{n}")).collect();
        let sensors: Vec<&str> = sensors.iter().map(String::as_str).collect();
        let columns: Vec<[usize; 1]> = (0..count).map(|n| [n]).collect();
        let cells: Vec<[f64; 1]> = (0..count).map(|n| [n as f64]).collect();
        let rows: Vec<[(i64, &[f64]); 2]> = cells
            .iter()
            .map(|cell| [(10, &cell[..]), (20, &cell[..])])
            .collect();
        let files: Vec<Csv<'_>> = columns
            .iter()
            .zip(&rows)
            .map(|(columns, rows)| (&columns[..], &rows[..]))
            .collect();
        let (part, found) = ingested(&sensors, &files);
        assert_eq!((part.duplicates, found.len()), (0, 2));
        assert!(found.iter().all(|(_, cells)| {
            cells
                .iter()
                .enumerate()
                .all(|(n, cell)| *cell == Some(n as f64))
        }));
    }

    #[test]
    fn a_file_that_is_taken_back_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = PartWriter::create(directory.path(), 0, "c", &names(&["a"]));
        writer.begin(&[0]).unwrap();
        writer.push(10, &[1.0]).unwrap();
        writer.begin(&[0]).unwrap();
        for time in [30, 5, 20] {
            writer.push(time, &[9.0]).unwrap();
        }
        writer.take_back().unwrap();
        writer.begin(&[0]).unwrap();
        writer.push(20, &[2.0]).unwrap();
        let part = writer.finish().unwrap();
        assert_eq!(
            (part.rows, part.first_us, part.last_us),
            (2, Some(10), Some(20))
        );
    }
}
