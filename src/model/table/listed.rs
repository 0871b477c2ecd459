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

/// The files at a place.
pub struct Files {
    paths: Vec<PathBuf>,
    /// Whether there may be any number of them, each with some of the columns.
    many: bool,
}

/// The columns of one file.
struct Header {
    path: PathBuf,
    names: Vec<String>,
    /// Where its time is; `None` where only the types of a Parquet file tell.
    time: Option<usize>,
}

impl Header {
    fn read(path: &Path, shape: &Shape) -> Result<Self> {
        let names = column_names(path)?;
        let is_time = |name: &String| match shape.time.is_empty() {
            true => name.eq_ignore_ascii_case("timestamp"),
            false => *name == shape.time,
        };
        Ok(Self {
            path: path.to_owned(),
            time: match names.iter().position(is_time) {
                None if !is_parquet(path) => Some(0),
                time => time,
            },
            names,
        })
    }

    /// Its columns but the time, with their places.
    fn columns(&self) -> impl Iterator<Item = (usize, &str)> {
        let columns = self.names.iter().map(String::as_str).enumerate();
        columns.filter(|(at, _)| Some(*at) != self.time)
    }

    fn has(&self, wanted: impl Fn(&str) -> bool) -> bool {
        self.names.iter().any(|name| wanted(name))
    }
}

impl Files {
    pub fn at(place: &Path) -> Result<Self> {
        let listing = LocalFiles::at(place).list()?;
        if listing.files.is_empty() {
            bail!("{}: no file of a history is there", place.display());
        }
        let paths = listing.files.iter();
        Ok(Self {
            paths: paths.map(|file| PathBuf::from(&*file.name)).collect(),
            many: listing.many,
        })
    }

    /// The first that is Parquet.
    pub fn parquet(&self) -> Option<&Path> {
        let mut paths = self.paths.iter().map(PathBuf::as_path);
        paths.find(|path| is_parquet(path))
    }

    /// The list of the columns of CSVs, in their order. Which component a column belongs to is told by the tag list, or else by its own
    /// name (`component\\signal` or `component__signal`), or else all belong to one component named `asset`; a column that a tag
    /// list does not have, and that names none, is left out, and so is a file of nothing else. Long ones have the tags of the tag
    /// list. Of many files, none of which has one of its tags, that is missing.
    pub fn of_csv(&self, tags: Option<&TagList>, shape: &Shape) -> Result<TagList> {
        let mut listed = Columns::new(tags);
        for header in self.headers(shape)? {
            let path = &header.path;
            let is_wide = header.has(|name| listed.owners.contains_key(name));
            let called = |wanted: &str| header.has(|name| name.eq_ignore_ascii_case(wanted));
            if shape.long.is_some() || (!is_wide && called("tag") && called("value")) {
                let path = path.display();
                return tags.cloned().with_context(|| {
                    format!("{path} is a long history; give its tag list (--tags), which tells the components")
                });
            }
            listed.take(&header)?;
            if !self.many && listed.components.is_empty() {
                bail!(
                    "{}: none of its columns is in the tag list: {}",
                    path.display(),
                    header.names.join(",")
                );
            }
        }
        if self.many {
            listed.take_missing();
        }
        Ok(TagList {
            components: listed.components,
        })
    }

    /// The names of the columns of all files but their times, each once.
    pub fn columns(&self, shape: &Shape) -> Result<Vec<String>> {
        let (mut names, mut known) = (Vec::new(), HashSet::new());
        for header in self.headers(shape)? {
            for (_, name) in header.columns() {
                if !name.is_empty() && known.insert(name.to_owned()) {
                    names.push(name.to_owned());
                }
            }
        }
        Ok(names)
    }

    /// The headers that can be read: of many files, opening the history tells of the others, which hold their own rows only.
    fn headers(&self, shape: &Shape) -> Result<Vec<Header>> {
        let (mut headers, mut unread) = (Vec::new(), None);
        for path in &self.paths {
            match Header::read(path, shape) {
                Ok(header) => headers.push(header),
                Err(error) => unread = Some(error),
            }
        }
        match unread {
            Some(error) if headers.is_empty() => Err(error),
            _ => Ok(headers),
        }
    }
}

/// Whether a file begins as Parquet does; one that cannot be read does not.
fn is_parquet(path: &Path) -> bool {
    let mut head = [0; 4];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && head == *b"PAR1"
}

/// Columns whose components are known, file by file.
struct Columns<'a> {
    /// The component and signal of each tag of the tag list, where there is one.
    owners: HashMap<&'a str, Sensor>,
    tags: Option<&'a TagList>,
    components: Vec<Component>,
    sensors: HashSet<Sensor>,
    /// Columns of the files before.
    known: HashSet<String>,
}

impl<'a> Columns<'a> {
    fn new(tags: Option<&'a TagList>) -> Self {
        let listed = tags.into_iter().flat_map(|tags| {
            tags.tags()
                .zip(tags.signals())
                .map(move |pair| (tags, pair))
        });
        let owners = listed.map(|(tags, ((component, tag), (_, signal)))| {
            (tag, Sensor::new(&tags.components[component].name, signal))
        });
        Self {
            owners: owners.collect(),
            tags,
            components: Vec::new(),
            sensors: HashSet::new(),
            known: HashSet::new(),
        }
    }

    fn take(&mut self, header: &Header) -> Result<()> {
        let path = header.path.display();
        for (at, name) in header.columns() {
            if self.known.contains(name) {
                continue;
            }
            let sensor = self
                .sensor_of(name)
                .with_context(|| format!("{path} column {}", at + 1))?;
            let Some(sensor) = sensor else { continue };
            if !self.sensors.insert(sensor.clone()) {
                bail!("{path}: two columns are {sensor}; rename or remove one");
            }
            add(&mut self.components, sensor, name);
        }
        let names = header.columns().map(|(_, name)| name.to_owned());
        self.known.extend(names);
        Ok(())
    }

    /// The tags that no file has: opening the history names them.
    fn take_missing(&mut self) {
        let Some(tags) = self.tags else { return };
        for (_, tag) in tags.tags().filter(|(_, tag)| !self.known.contains(*tag)) {
            if let Some(sensor) = self.owners.get(tag).cloned() {
                add(&mut self.components, sensor, tag);
            }
        }
    }

    /// The sensor that a column is; none where there is a tag list that lacks it.
    fn sensor_of(&self, name: &str) -> Result<Option<Sensor>> {
        if let Some(sensor) = self.owners.get(name) {
            return Ok(Some(sensor.clone()));
        }
        let split = name.split_once('\\').or_else(|| name.split_once("__"));
        if let Some((component, signal)) =
            split.filter(|(component, signal)| !component.is_empty() && !signal.is_empty())
        {
            return Ok(Some(Sensor::new(component, signal)));
        }
        match self.tags {
            Some(_) => Ok(None),
            None if name.is_empty() => bail!("a column has no name"),
            None => Ok(Some(Sensor::new(DEFAULT_COMPONENT, name))),
        }
    }
}

/// Adds a sensor. One component of a name for each stretch of columns keeps their order.
fn add(components: &mut Vec<Component>, sensor: Sensor, tag: &str) {
    if components
        .last()
        .is_none_or(|last| last.name != sensor.component)
    {
        components.push(Component {
            name: sensor.component,
            ..Component::default()
        });
    }
    if let Some(last) = components.last_mut() {
        last.signals.push(sensor.signal);
        last.tags.push(tag.to_owned());
        last.units.push(String::new());
    }
}

/// The tag list that a model's sensors and the columns of a history make together.
pub fn of_sensors(sensors: &[Sensor], place: &Path, columns: &[String]) -> Result<TagList> {
    let mut components: Vec<Component> = Vec::new();
    let mut owners: HashMap<&str, &str> = HashMap::new();
    for sensor in sensors
        .iter()
        .filter(|sensor| columns.contains(&sensor.signal))
    {
        if let Some(other) = owners.insert(&sensor.signal, &sensor.component) {
            bail!(
                "{}: its column {} may be {other}\\{} or {sensor} of the model; give the tag list (--tags), which tells",
                place.display(),
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
            place.display(),
            columns.len(),
            sensors.first().map_or("", |sensor| &sensor.signal)
        );
    }
    Ok(TagList { components })
}
