//! Which component each column of a history belongs to, where no tag list tells, or not all of it.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::model::sensor::Sensor;
use crate::signal::{Component, TagList};
use crate::source::replay::follow::Place;
use crate::source::replay::{LocalFiles, column_names};
use crate::source::shape::Shape;

/// The component of columns that name none.
const DEFAULT_COMPONENT: &str = "asset";

/// The first file of those at a place.
pub fn first_file(place: &Path) -> Result<PathBuf> {
    let listing = LocalFiles::at(place).list()?;
    let Some(first) = listing.files.first() else {
        bail!("{}: no file of a history is there", place.display());
    };
    Ok(PathBuf::from(&*first.name))
}

/// Whether a file is none of Parquet.
pub fn is_csv(path: &Path) -> Result<bool> {
    let mut head = [0; 4];
    let length = File::open(path)
        .and_then(|mut file| file.read(&mut head))
        .with_context(|| format!("cannot open {}", path.display()))?;
    Ok(head[..length] != *b"PAR1")
}

/// The list of the columns of a CSV, in their order. Which component a column belongs to is told by the tag list, or else by its own
/// name (`component\\signal` or `component__signal`), or else all belong to one component named `asset`; a column that a tag list
/// does not have, and that names none, is left out. A long one has the tags of the tag list.
pub fn of_csv(path: &Path, tags: Option<&TagList>, shape: &Shape) -> Result<TagList> {
    let names = column_names(path)?;
    let owners: HashMap<&str, (usize, &str)> = tags
        .into_iter()
        .flat_map(|tags| tags.tags().zip(tags.signals()))
        .map(|((component, tag), (_, signal))| (tag, (component, signal)))
        .collect();
    let is_wide = names.iter().any(|name| owners.contains_key(name.as_str()));
    let called = |wanted: &str| names.iter().any(|name| name.eq_ignore_ascii_case(wanted));
    if shape.long.is_some() || (!is_wide && called("tag") && called("value")) {
        let tags = tags.with_context(|| {
            let path = path.display();
            format!(
                "{path} is a long history; give its tag list (--tags), which tells the components"
            )
        })?;
        return Ok(tags.clone());
    }
    let is_time = |name: &String| match shape.time.is_empty() {
        true => name.eq_ignore_ascii_case("timestamp"),
        false => *name == shape.time,
    };
    let time = names.iter().position(is_time).unwrap_or(0);
    let (mut components, mut known): (Vec<Component>, HashSet<Sensor>) = Default::default();
    for (column, name) in names.iter().enumerate().filter(|(at, _)| *at != time) {
        let listed = owners.get(name.as_str());
        let owner = tags.map(|tags| listed.map(|(at, _)| tags.components[*at].name.as_str()));
        let signal = listed.map_or(name.as_str(), |(_, signal)| *signal);
        let Some(sensor) = sensor_of(signal, owner)
            .with_context(|| format!("{} column {}", path.display(), column + 1))?
        else {
            continue;
        };
        if !known.insert(sensor.clone()) {
            bail!(
                "{}: two columns are {sensor}; rename or remove one",
                path.display()
            );
        }
        // One of a name for each stretch of columns keeps their order.
        match components.last_mut() {
            Some(last) if last.name == sensor.component => add(last, sensor.signal, name),
            _ => {
                let mut component = Component {
                    name: sensor.component,
                    ..Component::default()
                };
                add(&mut component, sensor.signal, name);
                components.push(component);
            }
        }
    }
    if components.is_empty() {
        bail!(
            "{}: {}: {}",
            path.display(),
            match names.len() {
                0 | 1 =>
                    "expected a time column and at least one sensor, separated by commas, found",
                _ => "none of its columns is in the tag list",
            },
            names.join(",")
        );
    }
    Ok(TagList { components })
}

fn add(component: &mut Component, signal: String, tag: &str) {
    component.signals.push(signal);
    component.tags.push(tag.to_owned());
    component.units.push(String::new());
}

/// The sensor that a column is; none where there is a tag list (`owner`) that lacks it.
fn sensor_of(name: &str, owner: Option<Option<&str>>) -> Result<Option<Sensor>> {
    if name.is_empty() {
        bail!("a column has no name");
    }
    let split = name.split_once('\\').or_else(|| name.split_once("__"));
    if let Some((component, signal)) =
        split.filter(|(component, signal)| !component.is_empty() && !signal.is_empty())
    {
        return Ok(Some(Sensor::new(component, signal)));
    }
    Ok(match owner {
        None => Some(Sensor::new(DEFAULT_COMPONENT, name)),
        Some(component) => component.map(|component| Sensor::new(component, name)),
    })
}

/// The tag list that a model's sensors and the columns of a file make together.
pub fn of_sensors(sensors: &[Sensor], path: &Path) -> Result<TagList> {
    let columns = column_names(path)?;
    let mut components: Vec<Component> = Vec::new();
    let mut owners: HashMap<&str, &str> = HashMap::new();
    for sensor in sensors
        .iter()
        .filter(|sensor| columns.contains(&sensor.signal))
    {
        if let Some(other) = owners.insert(&sensor.signal, &sensor.component) {
            bail!(
                "{}: its column {} may be {other}\\{} or {sensor} of the model; give the tag list (--tags), which tells",
                path.display(),
                sensor.signal,
                sensor.signal
            );
        }
        let known = components
            .iter()
            .position(|component| component.name == sensor.component);
        let at = known.unwrap_or_else(|| {
            components.push(Component {
                name: sensor.component.clone(),
                ..Component::default()
            });
            components.len() - 1
        });
        components[at].signals.push(sensor.signal.clone());
        components[at].tags.push(sensor.signal.clone());
        components[at].units.push(String::new());
    }
    if components.is_empty() {
        bail!(
            "{}: none of its {} columns is called like a sensor of the model, such as {}; is it the history of another asset?",
            path.display(),
            columns.len(),
            sensors.first().map_or("", |sensor| &sensor.signal)
        );
    }
    Ok(TagList { components })
}
