//! The score of the last day in a small picture: a bar for each stretch with its highest score, the threshold across.
//!
//! What is above the threshold is seen by its height as well as by its colour; a stretch without a result is a gap.

use chrono::{DateTime, TimeDelta, Utc};
use maud::{Markup, html};

use crate::executions::{Answer, SchedulerRow, State};
use crate::ops::health::span;

/// The shortest stretch.
const STRETCH: TimeDelta = TimeDelta::minutes(15);
/// Width and height of the picture.
const WIDTH: usize = 192;
const HEIGHT: f64 = 26.0;
/// A score above it is anomalous.
const THRESHOLD: f64 = 0.5;

/// The highest scores of a day, a stretch each.
pub struct Day {
    step: TimeDelta,
    peaks: Vec<Option<f64>>,
}

impl Day {
    /// The day before `now`, or before the last execution of a scheduler that is only archived.
    pub fn ask(state: &State, scheduler: &SchedulerRow, now: DateTime<Utc>) -> Answer<Self> {
        let step = STRETCH.max(scheduler.cadence().duration());
        let count = (TimeDelta::days(1).num_minutes() / step.num_minutes()) as usize;
        let until = scheduler.until(now);
        let from = until - step * i32::try_from(count).unwrap_or(i32::MAX);
        let peaks = state.peaks(&scheduler.uuid, from, step, count)?;
        Ok(Self { step, peaks })
    }

    /// The highest of the newest stretch that has one.
    pub fn newest(&self) -> Option<f64> {
        self.peaks.iter().rev().find_map(|peak| *peak)
    }

    fn words(&self) -> String {
        let scored = self.peaks.iter().rev().zip(0_i32..);
        let highest = scored
            .filter_map(|(peak, back)| Some(((*peak)?, back)))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        match highest {
            None => "no score in the last day".to_owned(),
            Some((peak, 0)) => format!("highest score of the last day {peak:.2}, just now"),
            Some((peak, back)) => {
                let ago = span(self.step * back);
                format!("highest score of the last day {peak:.2}, {ago} ago")
            }
        }
    }
}

/// The picture.
pub fn sparkline(day: &Day) -> Markup {
    let (mut low, mut high) = (String::new(), String::new());
    let step = WIDTH / day.peaks.len().max(1);
    for (place, peak) in day.peaks.iter().enumerate() {
        let Some(peak) = peak else { continue };
        let bars = if *peak > THRESHOLD {
            &mut high
        } else {
            &mut low
        };
        // A score of nothing is a stretch that was scored.
        let top = HEIGHT - (peak.clamp(0.0, 1.0) * HEIGHT).max(1.5);
        bars.push_str(&format!("M{} {HEIGHT}V{top:.1}", place * step + step / 2));
    }
    let width = (step as f64 * 0.8).max(1.0);
    let words = day.words();
    html! {
        svg class="spark" viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } width=(WIDTH) height=(HEIGHT) role="img" aria-label=(words) {
            title { (words) }
            path class="low" d=(low) stroke-width=(width) {}
            path class="high" d=(high) stroke-width=(width) {}
            path class="mark" d={ "M0 " (HEIGHT * (1.0 - THRESHOLD)) "H" (WIDTH) } {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_drawn_with_its_gaps_and_says_its_peak() {
        let mut peaks = vec![Some(0.1); 24];
        peaks[3] = None;
        peaks[20] = Some(0.9);
        let day = Day {
            step: TimeDelta::hours(1),
            peaks,
        };
        let drawn = sparkline(&day).into_string();
        assert!(
            drawn.contains("highest score of the last day 0.90, 3 h"),
            "{drawn}"
        );
        assert_eq!(
            drawn.matches('M').count(),
            23 + 1,
            "a gap, and the threshold: {drawn}"
        );
        assert!(
            drawn.contains("class=\"high\" d=\"M164 26V2.6\""),
            "{drawn}"
        );
        assert_eq!(day.newest(), Some(0.1));
        let none = Day {
            step: TimeDelta::hours(1),
            peaks: vec![None; 24],
        };
        assert!(
            sparkline(&none)
                .into_string()
                .contains("no score in the last day")
        );
    }
}
