//! The picture of an evaluation: anomaly score over time with its threshold, labels as bands, predictions as ticks.
//!
//! PNG or SVG, by the file's extension. Each pixel column shows the range of the scores that fall into it, so that a single
//! high row stays visible in a year of rows. The font of the PNG is part of the program; nothing of the system is needed.

use std::path::Path;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Datelike, Timelike};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};

use crate::model::evaluate::Evaluation;
use crate::model::timestamp;

const WIDTH: i32 = 1600;
const HEIGHT: i32 = 710;
/// The plot itself.
const LEFT: i32 = 90;
const RIGHT: i32 = WIDTH - 40;
const TOP: i32 = 120;
const BOTTOM: i32 = 560;
/// The strips below it: top and bottom of each.
const LABELLED: (i32, i32) = (576, 600);
const PREDICTED: (i32, i32) = (608, 632);

const INK: RGBColor = RGBColor(24, 33, 43);
const QUIET: RGBColor = RGBColor(92, 104, 117);
const GRID: RGBColor = RGBColor(226, 230, 235);
const BAND: RGBColor = RGBColor(255, 226, 150);
const LABEL: RGBColor = RGBColor(224, 160, 20);
const ALARM: RGBColor = RGBColor(196, 38, 38);
const FONT: &[u8] = include_bytes!("../../../assets/dejavu-sans-ascii.ttf");

/// Draws an evaluation to `path`; `title` says what it is about.
pub fn draw(evaluation: &Evaluation, title: &str, path: &Path) -> Result<()> {
    let failed = || format!("cannot draw {}", path.display());
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("svg") => {
            let mut text = String::new();
            let area = SVGBackend::with_string(&mut text, (WIDTH as u32, HEIGHT as u32))
                .into_drawing_area();
            Picture {
                area: &area,
                evaluation,
            }
            .draw(title)
            .with_context(failed)?;
            area.present().with_context(failed)?;
            drop(area);
            std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
        }
        Some("png") => {
            if register_font("sans-serif", FontStyle::Normal, FONT).is_err() {
                bail!("the built-in font cannot be read");
            }
            let mut pixels = vec![255; (WIDTH * HEIGHT * 3) as usize];
            let area = BitMapBackend::with_buffer(&mut pixels, (WIDTH as u32, HEIGHT as u32))
                .into_drawing_area();
            Picture {
                area: &area,
                evaluation,
            }
            .draw(title)
            .with_context(failed)?;
            area.present().with_context(failed)?;
            drop(area);
            write_png(path, &pixels).with_context(|| format!("cannot write {}", path.display()))
        }
        _ => bail!("{}: a picture is a .png or a .svg", path.display()),
    }
}

fn write_png(path: &Path, pixels: &[u8]) -> Result<()> {
    let file = std::io::BufWriter::new(std::fs::File::create(path)?);
    let mut encoder = png::Encoder::new(file, WIDTH as u32, HEIGHT as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(())
}

struct Picture<'a, B: DrawingBackend> {
    area: &'a DrawingArea<B, Shift>,
    evaluation: &'a Evaluation,
}

impl<B: DrawingBackend> Picture<'_, B>
where
    B::ErrorType: 'static,
{
    fn draw(&self, title: &str) -> Result<()> {
        self.area.fill(&WHITE)?;
        self.words(title)?;
        self.labels()?;
        self.axes()?;
        self.score()?;
        self.predictions()
    }

    fn words(&self, title: &str) -> Result<()> {
        let found = self.evaluation;
        self.text(title, 24, INK, (LEFT, 26), HPos::Left)?;
        let events = match found.labelled.len() {
            0 => format!("no labels, {} predicted events", found.predicted.len()),
            all => format!(
                "{} of {all} labelled events found, {:.2} false events per week",
                found.found(),
                found.false_events_per_week
            ),
        };
        let sensors: Vec<String> = found
            .worst_sensors
            .iter()
            .take(3)
            .filter(|(_, share)| *share > 0.0)
            .map(|(sensor, share)| format!("{sensor} {:.0} %", share * 100.0))
            .collect();
        let line = if sensors.is_empty() {
            events
        } else {
            format!("{events}. Worst sensors: {}", sensors.join(", "))
        };
        self.text(&line, 17, QUIET, (LEFT, 60), HPos::Left)?;
        // The legend, right to left.
        let y = 94;
        self.line((LEFT, y), (LEFT + 28, y), INK, 2)?;
        self.text("anomaly score", 15, QUIET, (LEFT + 36, y), HPos::Left)?;
        self.dashes(LEFT + 180, LEFT + 216, y)?;
        self.text("threshold", 15, QUIET, (LEFT + 224, y), HPos::Left)?;
        self.block((LEFT + 330, y - 8), (LEFT + 358, y + 8), BAND)?;
        self.text("labelled", 15, QUIET, (LEFT + 366, y), HPos::Left)?;
        self.block((LEFT + 465, y - 8), (LEFT + 468, y + 8), ALARM)?;
        self.text("predicted", 15, QUIET, (LEFT + 476, y), HPos::Left)
    }

    fn labels(&self) -> Result<()> {
        for label in &self.evaluation.labelled {
            let (from, to) = (
                self.x(label.span.start),
                self.x(label.span.end).max(self.x(label.span.start) + 1),
            );
            self.block((from, TOP), (to, BOTTOM), BAND)?;
            self.block((from, LABELLED.0), (to, LABELLED.1), LABEL)?;
        }
        Ok(())
    }

    fn axes(&self) -> Result<()> {
        for tenth in [0, 2, 4, 6, 8, 10] {
            let y = y_of(f64::from(tenth) / 10.0);
            self.line((LEFT, y), (RIGHT, y), GRID, 1)?;
            self.text(
                &format!("{:.1}", f64::from(tenth) / 10.0),
                15,
                QUIET,
                (LEFT - 12, y),
                HPos::Right,
            )?;
        }
        self.text(
            "labelled",
            15,
            QUIET,
            (LEFT - 12, (LABELLED.0 + LABELLED.1) / 2),
            HPos::Right,
        )?;
        self.text(
            "predicted",
            15,
            QUIET,
            (LEFT - 12, (PREDICTED.0 + PREDICTED.1) / 2),
            HPos::Right,
        )?;
        for (top, bottom) in [LABELLED, PREDICTED] {
            self.line((LEFT, top), (RIGHT, top), GRID, 1)?;
            self.line((LEFT, bottom), (RIGHT, bottom), GRID, 1)?;
        }
        let range = self.evaluation.range;
        for (time, text) in ticks(range.start, range.end) {
            let x = self.x(time);
            self.line((x, TOP), (x, BOTTOM), GRID, 1)?;
            self.line((x, PREDICTED.1), (x, PREDICTED.1 + 8), QUIET, 1)?;
            self.text(&text, 15, QUIET, (x, PREDICTED.1 + 22), HPos::Center)?;
        }
        let times = format!(
            "{} to {}, UTC",
            timestamp::format(range.start),
            timestamp::format(range.end)
        );
        self.text(
            &times,
            15,
            QUIET,
            ((LEFT + RIGHT) / 2, HEIGHT - 28),
            HPos::Center,
        )?;
        self.dashes(LEFT, RIGHT, y_of(0.5))
    }

    /// A line through the rows, or the range of each pixel column where rows are many; broken where rows are missing or off.
    fn score(&self) -> Result<()> {
        let mut columns: Vec<(i32, f64, f64, f64, i64)> = Vec::new();
        let mut segments = Vec::new();
        for point in self.evaluation.series.iter().filter(|point| point.scored) {
            let (x, score) = (self.x(point.time), point.anomaly_score);
            if let Some((_, _, _, _, last)) = columns.last()
                && point.time - last > 3 * self.evaluation.step
            {
                segments.push(std::mem::take(&mut columns));
            }
            match columns.last_mut() {
                Some((column, low, high, latest, last)) if *column == x => {
                    (*low, *high, *latest, *last) =
                        (low.min(score), high.max(score), score, point.time);
                }
                _ => columns.push((x, score, score, score, point.time)),
            }
        }
        segments.push(columns);
        for segment in segments {
            let mut path = Vec::with_capacity(3 * segment.len());
            for (x, low, high, latest, _) in segment {
                path.extend([(x, y_of(low)), (x, y_of(high)), (x, y_of(latest))]);
            }
            path.dedup();
            self.area
                .draw(&PathElement::new(path, INK.stroke_width(1)))?;
        }
        Ok(())
    }

    fn predictions(&self) -> Result<()> {
        let mut drawn = i32::MIN;
        for point in self
            .evaluation
            .series
            .iter()
            .filter(|point| point.prediction)
        {
            let x = self.x(point.time);
            if x > drawn {
                self.block((x, PREDICTED.0), (x + 1, PREDICTED.1), ALARM)?;
                drawn = x;
            }
        }
        Ok(())
    }

    fn x(&self, time: i64) -> i32 {
        let range = self.evaluation.range;
        let share = (time - range.start) as f64 / ((range.end - range.start) as f64).max(1.0);
        LEFT + (share.clamp(0.0, 1.0) * f64::from(RIGHT - LEFT)).round() as i32
    }

    fn line(&self, from: (i32, i32), to: (i32, i32), colour: RGBColor, width: u32) -> Result<()> {
        Ok(self.area.draw(&PathElement::new(
            vec![from, to],
            colour.stroke_width(width),
        ))?)
    }

    fn dashes(&self, from: i32, to: i32, y: i32) -> Result<()> {
        for x in (from..to).step_by(14) {
            self.line((x, y), ((x + 8).min(to), y), ALARM, 2)?;
        }
        Ok(())
    }

    fn block(&self, from: (i32, i32), to: (i32, i32), colour: RGBColor) -> Result<()> {
        Ok(self
            .area
            .draw(&Rectangle::new([from, to], colour.filled()))?)
    }

    fn text(
        &self,
        text: &str,
        size: i32,
        colour: RGBColor,
        at: (i32, i32),
        anchor: HPos,
    ) -> Result<()> {
        let style = TextStyle::from(("sans-serif", size).into_font())
            .color(&colour)
            .pos(Pos::new(anchor, VPos::Center));
        Ok(self.area.draw(&Text::new(text.to_owned(), at, style))?)
    }
}

fn y_of(score: f64) -> i32 {
    BOTTOM - (score.clamp(0.0, 1.0) * f64::from(BOTTOM - TOP)).round() as i32
}

/// Times to mark and what to write there: at most eleven, on round hours, days or months.
fn ticks(start: i64, end: i64) -> Vec<(i64, String)> {
    const MINUTE: i64 = 60_000_000;
    const STEPS: [i64; 16] = [
        1, 5, 10, 30, 60, 180, 360, 720, 1440, 2880, 7200, 10_080, 20_160, 43_200, 129_600, 525_600,
    ];
    let steps = STEPS.map(|minutes| minutes * MINUTE);
    let step = steps
        .into_iter()
        .find(|step| (end - start) / step <= 10)
        .unwrap_or(20 * steps[15]);
    let mut ticks = Vec::new();
    let mut time = start.div_euclid(step) * step;
    while time <= end {
        if time >= start
            && let Some(date) = DateTime::from_timestamp_micros(time)
        {
            let day = format!("{:04}-{:02}-{:02}", date.year(), date.month(), date.day());
            let text = match step {
                step if step >= 1440 * MINUTE => day,
                _ if date.hour() == 0 && date.minute() == 0 => day,
                _ => format!("{:02}:{:02}", date.hour(), date.minute()),
            };
            ticks.push((time, text));
        }
        time += step;
    }
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::evaluate::{LabelledEvent, ModelQuality, Point, Points};
    use crate::model::{Sensor, Span};

    #[test]
    fn a_range_of_any_length_has_a_few_round_ticks() {
        let start = timestamp::parse("2020-01-17T10:56:00").unwrap();
        for minutes in [3, 45, 600, 3 * 1440, 17 * 1440, 300 * 1440, 40 * 525_600] {
            let found = ticks(start, start + minutes * 60_000_000);
            assert!((2..=11).contains(&found.len()), "{minutes}: {found:?}");
        }
        let days = ticks(start, start + 8 * 1440 * 60_000_000);
        assert_eq!(days[0].1, "2020-01-18");
    }

    #[test]
    fn a_picture_is_a_png_or_an_svg_with_its_words() {
        let minute = |n: i64| n * 60_000_000;
        let series = (0..5000).map(|n| Point {
            time: minute(n),
            u: 1.0,
            anomaly_score: (n % 100) as f64 / 100.0,
            prediction: n % 100 > 50,
            labelled: n < 300,
            scored: n != 77,
        });
        let evaluation = Evaluation {
            sensors: vec![Sensor::new("pump", "flow")],
            range: Span {
                start: 0,
                end: minute(4999),
            },
            series: series.collect(),
            labelled: vec![LabelledEvent {
                span: Span {
                    start: 0,
                    end: minute(299),
                },
                warning: None,
            }],
            predicted: Vec::new(),
            points: Points::default(),
            auc_pr: None,
            false_events_per_week: 1.25,
            worst_sensors: vec![(Sensor::new("pump", "flow"), 1.0)],
            quality: ModelQuality::PoorQualityDetected,
            warnings: Vec::new(),
            step: minute(1),
        };
        let directory = tempfile::tempdir().unwrap();
        let svg = directory.path().join("a.svg");
        draw(&evaluation, "plant.model", &svg).unwrap();
        let text = std::fs::read_to_string(&svg).unwrap();
        for words in [
            "plant.model",
            "0 of 1 labelled events found, 1.25 false events per week",
            "pump\\flow 100 %",
            "1970-01-02",
        ] {
            assert!(text.contains(words), "{words}");
        }
        let path = directory.path().join("a.png");
        draw(&evaluation, "plant.model", &path).unwrap();
        let decoder =
            png::Decoder::new(std::io::BufReader::new(std::fs::File::open(&path).unwrap()));
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        let count = |colour: RGBColor| {
            pixels
                .chunks(3)
                .filter(|pixel| *pixel == [colour.0, colour.1, colour.2])
                .count()
        };
        assert!(count(BAND) > 10_000 && count(ALARM) > 5_000 && count(INK) > 1_000);
        assert!(draw(&evaluation, "plant.model", &directory.path().join("a.jpg")).is_err());
    }
}
