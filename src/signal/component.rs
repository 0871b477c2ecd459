//! The tag list: which signals exist, in which unit, and which component's input file carries each.
//!
//! Guarantees: components keep the order of first appearance and signals the file's order, which is the column order of
//! every input file; names satisfy the service's patterns (contract 1.3: `ComponentName`, `SensorName`), no tag is
//! listed twice for an asset, and no two components of an asset can ever share a key, also on a file system that ignores
//! case. With a column Asset each asset has components of its own, which may be called alike.
//! Input names are `<component><delimiter><fixed-width stamp>`, so a component that is a prefix of another is harmless.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::Asset;
use crate::records::Records;

/// A group of signals that is written to one input file; the `Subsystem` column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Component {
    /// The asset it is a part of.
    pub asset: Asset,
    /// The component's name, case-sensitive.
    pub name: String,
    /// Its signals as files and models call them, in the order of the tag list.
    pub signals: Vec<String>,
    /// The tag of each signal, as the plant and its history call it; as long as `signals`.
    pub tags: Vec<String>,
    /// The unit of each signal, empty where the list has none; as long as `signals`.
    pub units: Vec<String>,
    /// Which input brings each signal, and how it finds it there; as long as `signals`.
    pub places: Vec<Place>,
}

/// Where the values of a signal come from in a live plant. All of it is empty where the list does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The input.
    pub input: String,
    /// What it is there: a topic, a node, a register.
    pub address: String,
    /// What makes its unit of what comes.
    pub scale: Option<Scale>,
}

/// A value is multiplied and then moved. Both numbers are finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// What it is multiplied by.
    pub factor: f64,
    /// What is added then.
    pub offset: f64,
}

// No part of it is NaN.
impl Eq for Scale {}

/// Every component, of one asset or of all, in order of first appearance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagList {
    /// The components; never empty, and none is without signals.
    pub components: Vec<Component>,
}

/// Why a tag list was refused.
#[derive(Debug, thiserror::Error)]
pub enum TagListError {
    /// The file could not be read.
    #[error("cannot read the tag list {file}")]
    Read {
        /// The file.
        file: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The file's content is not a tag list.
    #[error("{file}{}: {problem}", line.map(|line| format!(":{line}")).unwrap_or_default())]
    Content {
        /// The file.
        file: String,
        /// The 1-based line, where one line is at fault.
        line: Option<u64>,
        /// What is wrong, what was expected, and what to do.
        problem: String,
    },
}

impl TagListError {
    /// Whether trying again may help: the file is not there yet, or cannot be reached.
    pub fn is_retryable(&self) -> bool {
        let Self::Read { source, .. } = self else {
            return false;
        };
        !matches!(
            source.kind(),
            std::io::ErrorKind::IsADirectory | std::io::ErrorKind::PermissionDenied
        )
    }
}

impl TagList {
    /// Reads the tag list at `path`; see [`TagList::parse`].
    pub fn read(path: impl AsRef<Path>) -> Result<TagList, TagListError> {
        let file = path.as_ref().display().to_string();
        match std::fs::read(path.as_ref()) {
            Ok(bytes) => TagList::parse(&bytes, &file),
            Err(source) => Err(TagListError::Read { file, source }),
        }
    }

    /// Parses a CSV with the columns Tag, UOM, Subsystem, Asset, Name, Input, Address, Scale, Offset; `file` names the source in errors.
    ///
    /// With a header, the columns are found by name in any case and order, others are ignored, and all but Tag and Subsystem
    /// may be absent. Without one, the first three columns are taken. A byte order mark and CRLF are tolerated.
    pub fn parse(bytes: &[u8], file: &str) -> Result<TagList, TagListError> {
        let refuse = |line: Option<u64>, problem: String| TagListError::Content {
            file: file.to_owned(),
            line,
            problem,
        };
        let mut records = Records::open(bytes).map_err(|error| refuse(None, error.to_string()))?;
        let mut columns = None;
        let mut reading = Reading::default();
        while records
            .read()
            .map_err(|error| refuse(None, error.to_string()))?
        {
            let line = records.line();
            let record = cells_of(&records).map_err(|problem| refuse(Some(line), problem))?;
            if record.iter().all(|cell| cell.is_empty()) {
                continue;
            }
            let columns = match columns {
                Some(columns) => columns,
                None => {
                    let (found, is_header) = Columns::of_first_record(&record)
                        .map_err(|problem| refuse(Some(line), problem))?;
                    columns = Some(found);
                    if is_header {
                        continue;
                    }
                    found
                }
            };
            reading
                .take(columns, &record, line)
                .map_err(|problem| refuse(Some(line), problem))?;
        }
        if reading.components.is_empty() {
            let problem = "the tag list is empty; expected the columns Tag,UOM,Subsystem and one line per signal";
            return Err(refuse(None, problem.to_owned()));
        }
        Ok(TagList {
            components: reading.components,
        })
    }

    /// The assets, in order of first appearance: one without a name where the list names none.
    pub fn assets(&self) -> Vec<Asset> {
        let mut seen = HashSet::new();
        let assets = self.components.iter().map(|component| &component.asset);
        assets
            .filter(|asset| seen.insert(*asset))
            .cloned()
            .collect()
    }

    /// The list of one asset; without components where there is no such asset.
    pub fn of(&self, asset: &Asset) -> TagList {
        let components = self.components.iter();
        TagList {
            components: components
                .filter(|component| component.asset == *asset)
                .cloned()
                .collect(),
        }
    }

    /// Every tag with its component's index, in the order of [`TagList::signals`].
    pub fn tags(&self) -> impl Iterator<Item = (usize, &str)> {
        let components = self.components.iter().enumerate();
        components.flat_map(|(index, component)| {
            component.tags.iter().map(move |tag| (index, tag.as_str()))
        })
    }

    /// Every signal with its component's index, in the order of the input files' columns.
    pub fn signals(&self) -> impl Iterator<Item = (usize, &str)> {
        self.components
            .iter()
            .enumerate()
            .flat_map(|(index, component)| {
                component
                    .signals
                    .iter()
                    .map(move |signal| (index, signal.as_str()))
            })
    }

    /// The number of signals.
    pub fn signal_count(&self) -> usize {
        self.components
            .iter()
            .map(|component| component.signals.len())
            .sum()
    }

    /// The components' names, in order.
    pub fn component_names(&self) -> impl Iterator<Item = &str> {
        self.components
            .iter()
            .map(|component| component.name.as_str())
    }
}

/// What was read so far.
#[derive(Default)]
struct Reading {
    components: Vec<Component>,
    /// Asset and tag, and the line they are in; the same of names.
    tags: HashMap<(Asset, String), u64>,
    names: HashMap<(Asset, String), u64>,
    assets: HashMap<String, (Asset, u64)>,
    by_name: HashMap<(Asset, String), usize>,
    by_folded: HashMap<(Asset, String), (usize, u64)>,
    /// Asset, input and address, and the line they are in.
    addresses: HashMap<(Asset, String, String), u64>,
}

impl Reading {
    fn take(&mut self, columns: Columns, record: &[&str], line: u64) -> Result<(), String> {
        let cell = |column: usize| record.get(column).copied().unwrap_or("");
        let (tag, subsystem) = (cell(columns.tag), cell(columns.subsystem));
        let asset = match columns.asset {
            Some(column) => self.asset(cell(column), line)?,
            None => Asset::default(),
        };
        let signal = match columns.name.map(cell) {
            Some(name) if !name.is_empty() && !tag.is_empty() => {
                check_tag(name)?;
                name
            }
            _ => {
                check_tag(tag)?;
                tag
            }
        };
        check_component(subsystem, tag)?;
        let of = if asset.is_named() {
            format!(" for asset \"{asset}\"")
        } else {
            String::new()
        };
        if let Some(first) = self.tags.insert((asset.clone(), tag.to_owned()), line) {
            return Err(format!(
                "tag \"{tag}\" is already listed in line {first}{of}; remove one of the two"
            ));
        }
        if let Some(first) = self.names.insert((asset.clone(), signal.to_owned()), line) {
            return Err(format!(
                "the signal of line {first}{of} is called \"{signal}\" already; give one of the two another Name"
            ));
        }
        let place = self.place(columns, &cell, &asset, line)?;
        let at = self.component(&asset, subsystem, line)?;
        let component = &mut self.components[at];
        component.signals.push(signal.to_owned());
        component.tags.push(tag.to_owned());
        let unit = columns.unit.map(cell).unwrap_or("");
        component.units.push(unit.to_owned());
        component.places.push(place);
        Ok(())
    }

    /// Where the values of a line come from. Columns of these names mean something else to a list without addresses.
    fn place<'a>(
        &mut self,
        columns: Columns,
        cell: &impl Fn(usize) -> &'a str,
        asset: &Asset,
        line: u64,
    ) -> Result<Place, String> {
        let text = |column: Option<usize>| column.map(cell).unwrap_or("");
        let (input, address) = (text(columns.input), text(columns.address));
        if address.is_empty() {
            return Ok(Place::default());
        }
        let key = (asset.clone(), input.to_owned(), address.to_owned());
        if let Some(first) = self.addresses.insert(key, line) {
            return Err(format!(
                "address \"{address}\" is already that of line {first}; two tags of one machine cannot be one value"
            ));
        }
        let number = |column: Option<usize>, name: &str, otherwise: f64| match text(column) {
            "" => Ok(otherwise),
            text => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(number),
                _ => Err(format!("{name} \"{text}\" is not a number")),
            },
        };
        let scale = Scale {
            factor: number(columns.scale, "Scale", 1.0)?,
            offset: number(columns.offset, "Offset", 0.0)?,
        };
        if scale.factor == 0.0 {
            return Err("Scale is 0: every value would be the same".to_owned());
        }
        let is_none = scale.factor == 1.0 && scale.offset == 0.0;
        Ok(Place {
            input: input.to_owned(),
            address: address.to_owned(),
            scale: (!is_none).then_some(scale),
        })
    }

    /// The asset of a cell; two whose names differ only in case would share a directory somewhere.
    fn asset(&mut self, cell: &str, line: u64) -> Result<Asset, String> {
        let folded = cell.to_ascii_lowercase();
        if let Some((known, first)) = self.assets.get(&folded) {
            if known.name() != cell {
                return Err(format!(
                    "asset \"{cell}\" collides with \"{known}\" in line {first}: their names differ only in case; spell them \
                     alike or rename one"
                ));
            }
            return Ok(known.clone());
        }
        let asset = Asset::named(cell)?;
        self.assets.insert(folded, (asset.clone(), line));
        Ok(asset)
    }

    /// Where the component of that name is.
    fn component(&mut self, asset: &Asset, name: &str, line: u64) -> Result<usize, String> {
        let key = (asset.clone(), name.to_owned());
        if let Some(index) = self.by_name.get(&key) {
            return Ok(*index);
        }
        let index = self.components.len();
        let folded = (asset.clone(), name.to_ascii_lowercase());
        if let Some((other, first)) = self.by_folded.insert(folded, (index, line)) {
            return Err(format!(
                "component \"{name}\" collides with \"{}\" in line {first}: their names differ only \
                 in case, so their files would collide; spell them alike or rename one",
                self.components[other].name
            ));
        }
        self.by_name.insert(key, index);
        self.components.push(Component {
            asset: asset.clone(),
            name: name.to_owned(),
            ..Component::default()
        });
        Ok(index)
    }
}

#[derive(Clone, Copy)]
struct Columns {
    tag: usize,
    unit: Option<usize>,
    subsystem: usize,
    asset: Option<usize>,
    name: Option<usize>,
    input: Option<usize>,
    address: Option<usize>,
    scale: Option<usize>,
    offset: Option<usize>,
}

impl Columns {
    fn of_first_record(record: &[&str]) -> Result<(Columns, bool), String> {
        let find = |name: &str| -> Result<Option<usize>, String> {
            let mut at = record
                .iter()
                .enumerate()
                .filter(|(_, cell)| cell.eq_ignore_ascii_case(name));
            match (at.next(), at.next()) {
                (first, None) => Ok(first.map(|(index, _)| index)),
                (_, Some(_)) => Err(format!("the header has the column {name} twice; keep one")),
            }
        };
        let found = (find("Tag")?, find("UOM")?, find("Subsystem")?);
        let missing = |name: &str| {
            format!(
                "the header has no column {name}; it has {}; expected Tag,UOM,Subsystem",
                record.join(",")
            )
        };
        match found {
            (Some(tag), unit, Some(subsystem)) => Ok((
                Columns {
                    tag,
                    unit,
                    subsystem,
                    asset: find("Asset")?,
                    name: find("Name")?,
                    input: find("Input")?,
                    address: find("Address")?,
                    scale: find("Scale")?,
                    offset: find("Offset")?,
                },
                true,
            )),
            (None, None, None) if record.len() >= 3 => Ok((
                Columns {
                    tag: 0,
                    unit: Some(1),
                    subsystem: 2,
                    asset: None,
                    name: None,
                    input: None,
                    address: None,
                    scale: None,
                    offset: None,
                },
                false,
            )),
            (None, None, None) => {
                let first = record.first().copied().unwrap_or("");
                let separator = if first.contains(';') || first.contains('\t') {
                    " separated by commas"
                } else {
                    ""
                };
                Err(format!(
                    "expected the three columns Tag,UOM,Subsystem{separator}, found {} column(s)",
                    record.len()
                ))
            }
            (None, _, _) => Err(missing("Tag")),
            (_, _, None) => Err(missing("Subsystem")),
        }
    }
}

fn check_tag(tag: &str) -> Result<(), String> {
    if tag.is_empty() {
        return Err("the tag is blank; every line needs one".to_owned());
    }
    if tag.eq_ignore_ascii_case("timestamp") {
        return Err(format!(
            "tag \"{tag}\" collides with the time column of the input files; rename the signal"
        ));
    }
    check_name("tag", tag, "letters, digits and : # $ . - _", |c| {
        c.is_ascii_alphanumeric() || ":#$.-_".contains(c)
    })
    .map_err(|problem| format!("{problem}; a column Name may say what files and models call it"))
}

fn check_component(name: &str, tag: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err(format!(
            "the subsystem of tag \"{tag}\" is blank; every signal needs a component"
        ));
    }
    check_name("component", name, "letters, digits and . _ -", |c| {
        c.is_ascii_alphanumeric() || "._-".contains(c)
    })
}

fn check_name(
    what: &str,
    name: &str,
    allowed: &str,
    valid: impl Fn(char) -> bool,
) -> Result<(), String> {
    if let Some(bad) = name.chars().find(|c| !valid(*c)) {
        return Err(format!(
            "{what} \"{name}\" contains {bad:?}; the service allows only {allowed}"
        ));
    }
    if name.len() > 200 {
        return Err(format!(
            "{what} \"{name}\" has {} characters; the service allows 200",
            name.len()
        ));
    }
    Ok(())
}

/// The cells of a record, trimmed. A cell of a tag list has one line: one that goes on has a quote that is not closed.
fn cells_of<R>(records: &Records<R>) -> Result<Vec<&str>, String> {
    if let Some(broken) = records.broken() {
        return Err(broken.to_string());
    }
    if records.spans_lines() {
        return Err("a cell goes over more than one line; close its quote".to_owned());
    }
    let cell = |bytes| {
        std::str::from_utf8(bytes)
            .map(str::trim)
            .map_err(|_| "not UTF-8; save the tag list as CSV in UTF-8".to_owned())
    };
    records.iter().map(cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<TagList, TagListError> {
        TagList::parse(text.as_bytes(), "tags.csv")
    }

    fn refusal(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn components_keep_the_order_of_first_appearance() {
        let tags = parse("Tag,UOM,Subsystem\ns2,C,b\ns1,,a\ns3,mm,b\n").unwrap();
        assert_eq!(tags.component_names().collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(tags.components[0].signals, ["s2", "s3"]);
        assert_eq!(tags.components[0].units, ["C", "mm"]);
        assert_eq!(tags.components[1].units, [""]);
        assert_eq!(
            tags.signals().collect::<Vec<_>>(),
            [(0, "s2"), (0, "s3"), (1, "s1")]
        );
        assert_eq!(tags.signal_count(), 3);
    }

    #[test]
    fn headers_come_in_any_case_and_order_or_not_at_all() {
        let plain = parse("Tag,UOM,Subsystem\ns1,C,a\n").unwrap();
        assert_eq!(parse("s1,C,a\n").unwrap(), plain);
        assert_eq!(
            parse("\u{feff}subsystem,Note,TAG,uom\r\na,hello,s1,C\r\n").unwrap(),
            plain
        );
        assert_eq!(parse("s1,C,a,extra,more").unwrap(), plain);
        assert_eq!(
            parse("\n\nTag,UOM,Subsystem\n\n s1 , C ,a\n,,\n\n").unwrap(),
            plain
        );
        assert_eq!(
            parse("Tag,Subsystem\ns1,a\n").unwrap().components[0].units,
            [""]
        );
    }

    #[test]
    fn a_line_says_which_input_brings_its_values_and_how_they_are_scaled() {
        let list = parse(
            "Tag,Subsystem,Input,Address,Scale,Offset\na,m,plc,plant/a,0.1,-40\nb,m,,plant/b,,\nc,m,,,many,\n",
        )
        .unwrap();
        let places = &list.components[0].places;
        assert_eq!(
            (places[0].input.as_str(), places[0].address.as_str()),
            ("plc", "plant/a")
        );
        let scale = places[0].scale.unwrap();
        assert_eq!((scale.factor, scale.offset), (0.1, -40.0));
        assert_eq!(
            (places[1].address.as_str(), places[1].scale),
            ("plant/b", None)
        );
        // A column of that name means something else to a list without addresses.
        assert_eq!(places[2], Place::default());
        let head = "Asset,Tag,Subsystem,Input,Address,Scale\n";
        let refused = refusal(&format!("{head}p,a,m,x,t,\np,b,m,x,t,\n"));
        assert!(
            refused.contains("tags.csv:3: address \"t\" is already that of line 2"),
            "{refused}"
        );
        // One of two machines may have what the other has, and one input what another has.
        assert!(parse(&format!("{head}p,a,m,x,t,\nq,b,m,x,t,\np,c,m,y,t,\n")).is_ok());
        assert!(
            refusal(&format!("{head}p,a,m,x,t,none\n")).contains("Scale \"none\" is not a number")
        );
    }

    #[test]
    fn a_bad_line_is_refused_with_its_number() {
        let head = "Tag,UOM,Subsystem\n";
        let cases = [
            (
                "s1,C,a\ns1,C,b\n",
                "tags.csv:3: tag \"s1\" is already listed in line 2",
            ),
            ("s1,C,a\n\n\n,C,b\n", "tags.csv:5: the tag is blank"),
            (
                "s1,C,a\r\ns2,C, \r\n",
                "tags.csv:3: the subsystem of tag \"s2\" is blank",
            ),
            ("s1,C\n", "tags.csv:2: the subsystem of tag \"s1\" is blank"),
            ("s1,C,a/b\n", "tags.csv:2: component \"a/b\" contains '/'"),
            ("s 1,C,a\n", "tags.csv:2: tag \"s 1\" contains ' '"),
            (
                "s1,C,Pump\ns2,C,pump\n",
                "tags.csv:3: component \"pump\" collides with \"Pump\" in line 2",
            ),
            (
                "timestamp,C,a\n",
                "tags.csv:2: tag \"timestamp\" collides with the time column",
            ),
        ];
        for (body, expected) in cases {
            let message = refusal(&format!("{head}{body}"));
            assert!(message.starts_with(expected), "{message}");
        }
        let long = refusal(&format!("{head}{},C,a\n", "x".repeat(201)));
        assert!(long.contains("has 201 characters"), "{long}");
    }

    #[test]
    fn assets_have_components_of_their_own_and_may_share_tags() {
        let tags = parse(
            "Asset,Subsystem,Tag,UOM,Name,Address\npump-1,motor,amps,A,,x\npump-2,motor,amps,A,,\npump-1,bearing,\\\\PI\\P1 VIB,mm/s,vib,\n",
        )
        .unwrap();
        let assets = tags.assets();
        let names: Vec<_> = assets.iter().map(Asset::name).collect();
        assert_eq!(names, ["pump-1", "pump-2"]);
        let one = tags.of(&assets[0]);
        assert_eq!(
            one.component_names().collect::<Vec<_>>(),
            ["motor", "bearing"]
        );
        assert_eq!(one.signals().last(), Some((1, "vib")));
        assert_eq!(one.tags().last(), Some((1, "\\\\PI\\P1 VIB")));
        assert_eq!(tags.of(&assets[1]).signal_count(), 1);
        assert_eq!(parse("a,b,c").unwrap().assets(), [Asset::default()]);
        let head = "Asset,Tag,Subsystem,Name\n";
        for (body, expected) in [
            ("a,s1,c,\n,s2,c,\n", "tags.csv:3: the asset is blank"),
            ("a/b,s1,c,\n", "tags.csv:2: asset \"a/b\" contains '/'"),
            (
                "a,s1,c,\nA,s2,c,\n",
                "tags.csv:3: asset \"A\" collides with \"a\" in line 2",
            ),
            (
                "a,s1,c,\na,s1,d,\n",
                "tags.csv:3: tag \"s1\" is already listed in line 2 for asset \"a\"",
            ),
            (
                "a,s1,c,\na,s2,c,s1\n",
                "tags.csv:3: the signal of line 2 for asset \"a\" is called \"s1\" already",
            ),
        ] {
            let message = refusal(&format!("{head}{body}"));
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn a_missing_column_and_an_empty_file_are_refused() {
        let message = refusal("Sensor,UOM,Subsystem\ns1,C,a\n");
        assert!(
            message.contains("no column Tag") && message.contains("Sensor,UOM,Subsystem"),
            "{message}"
        );
        assert!(refusal("Tag,UOM,System\ns1,C,a\n").contains("no column Subsystem"));
        assert!(refusal("Tag,Tag,Subsystem\n").contains("twice"));
        assert!(refusal("Tag;UOM;Subsystem\ns1;C;a\n").contains("separated by commas"));
        for empty in ["", "\n", "Tag,UOM,Subsystem\n"] {
            assert!(refusal(empty).contains("is empty"), "{empty:?}");
        }
    }

    #[test]
    fn other_encodings_are_named() {
        let utf16: Vec<u8> = [0xff, 0xfe]
            .into_iter()
            .chain("Tag".encode_utf16().flat_map(u16::to_le_bytes))
            .collect();
        assert!(
            TagList::parse(&utf16, "t")
                .unwrap_err()
                .to_string()
                .contains("UTF-16")
        );
        let latin = b"Tag,UOM,Subsystem\ns1,\xb0C,a\n";
        let message = TagList::parse(latin, "t").unwrap_err().to_string();
        assert!(message.starts_with("t:2: not UTF-8"), "{message}");
    }

    #[test]
    fn a_quote_that_is_not_closed_takes_no_line_with_it() {
        let head = "Tag,UOM,Subsystem\n";
        for (body, expected) in [
            (
                "s1,\"C,a\ns2,\"C,b\n",
                "tags.csv:2: there is text after a closing quote",
            ),
            (
                "s1,\"C,a\ns2,C\",b\n",
                "tags.csv:2: a cell goes over more than one line",
            ),
            (
                "s1,C,a\ns2,\"C,b\ns3,C,b\n",
                "tags.csv:3: a quote is not closed",
            ),
        ] {
            let message = refusal(&format!("{head}{body}"));
            assert!(message.starts_with(expected), "{message}");
        }
        let long = refusal(&format!("{head}s1,\"{}", "x\n".repeat(1 << 20)));
        assert!(long.contains("begins in line 2"), "{long}");
    }

    #[test]
    fn a_component_that_is_a_prefix_of_another_is_fine() {
        assert_eq!(
            parse("Tag,UOM,Subsystem\ns1,C,a\ns2,C,a_2026\n")
                .unwrap()
                .components
                .len(),
            2
        );
    }
}
