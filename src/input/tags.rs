//! Which tags each input brings, by the tag list; and what is wrong with the two together. Pure.

use std::collections::BTreeMap;

use super::intake::Tag;
use super::settings::Inputs;
use crate::signal::TagList;

/// So many tags are named in a finding.
const NAMED: usize = 5;

/// The name of the input that brings a tag: the one that the list names, or the only one there is.
fn input_of<'a>(named: &'a str, inputs: &'a Inputs) -> Option<&'a str> {
    match named {
        "" if inputs.len() == 1 => inputs.keys().next().map(String::as_str),
        "" => None,
        named => Some(named),
    }
}

/// The tags of each input, by its name; an input without tags has none.
pub fn tags_of(inputs: &Inputs, list: &TagList) -> BTreeMap<String, Vec<Tag>> {
    let mut found: BTreeMap<String, Vec<Tag>> = inputs
        .keys()
        .map(|name| (name.clone(), Vec::new()))
        .collect();
    for component in &list.components {
        for (at, tag) in component.tags.iter().enumerate() {
            let Some(place) = component.places.get(at) else {
                continue;
            };
            let input = input_of(&place.input, inputs);
            let tags = input.and_then(|input| found.get_mut(input));
            if place.address.is_empty() {
                continue;
            }
            if let Some(tags) = tags {
                tags.push(Tag {
                    asset: component.asset.clone(),
                    component: component.name.clone(),
                    tag: tag.clone(),
                    address: place.address.clone(),
                    unit: component.units.get(at).cloned().unwrap_or_default(),
                    scale: place.scale,
                });
            }
        }
    }
    found
}

/// What is wrong with a list for these inputs: key and problem.
pub fn problems(inputs: &Inputs, list: &TagList) -> Vec<(String, String)> {
    if inputs.is_empty() {
        return Vec::new();
    }
    let (mut bare, mut unnamed) = (Vec::new(), Vec::new());
    let mut unknown: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for component in &list.components {
        for (at, tag) in component.tags.iter().enumerate() {
            let place = component.places.get(at).cloned().unwrap_or_default();
            if place.address.is_empty() {
                bare.push(tag.as_str());
            } else if place.input.is_empty() && inputs.len() > 1 {
                unnamed.push(tag.as_str());
            } else if !place.input.is_empty() && !inputs.contains_key(&place.input) {
                let named = component.places[at].input.as_str();
                unknown.entry(named).or_default().push(tag);
            }
        }
    }
    let known: Vec<&str> = inputs.keys().map(String::as_str).collect();
    let mut problems = Vec::new();
    let mut say = |problem: String| problems.push(("source.tags".to_owned(), problem));
    if !bare.is_empty() {
        say(format!(
            "{} without an Address, and there are inputs: write where each comes from, or take it out",
            some(&bare)
        ));
    }
    if !unnamed.is_empty() {
        say(format!(
            "{} without an Input, of which there are {}: write which brings each",
            some(&unnamed),
            known.join(", ")
        ));
    }
    for (input, tags) in unknown {
        say(format!(
            "{} of the input \"{input}\", which is not configured; there are {}",
            some(&tags),
            known.join(", ")
        ));
    }
    let by_input = tags_of(inputs, list);
    let idle = by_input.iter().filter(|(_, tags)| tags.is_empty());
    for (name, _) in idle {
        problems.push((
            format!("input.{name}"),
            "no tag of the list is brought by it: give tags its name in the column Input, or take it out".to_owned(),
        ));
    }
    problems
}

fn some(tags: &[&str]) -> String {
    let named = tags.iter().take(NAMED).map(|tag| format!("\"{tag}\""));
    let named = named.collect::<Vec<_>>().join(", ");
    let more = match tags.len() > NAMED {
        true => ", ...",
        false => "",
    };
    match tags.len() {
        1 => format!("has the tag {named}"),
        count => format!("has {count} tags ({named}{more})"),
    }
}
