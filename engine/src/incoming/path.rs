//! Places in a FHIR tree that was received: `name[0].given`, `identifier.where(system='…').value`, `value[x]`,
//! `extension(https://…).valueCode`.
//!
//! As in FHIRPath a step goes into every item of a list, and what is not there gives nothing. So is what does not have the
//! shape that FHIR wants: a sender that writes an object where a list is due is read all the same.
//! Not here: FHIRPath as a whole; places to write to (`fhir::Path`).

use crate::fhir::{Node, elements::is_name};

/// Steps of one path.
const MOST_STEPS: usize = 64;

/// A text that is no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is not a path such as `name[0].family`, `identifier.where(system='…').value` or `value[x]`, of elements that FHIR has"
)]
pub struct PathFault;

/// One step of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step<'p> {
    Name(&'p str),
    /// `[2]`
    Nth(usize),
    /// `value[x]`
    Choice(&'p str),
    /// `where(path='text')`
    Where(&'p str, &'p str),
}

/// Every value at a path, in order; nothing empty is among them.
///
/// # Errors
/// The text is no path.
pub fn all<'n>(node: &'n Node, path: &str) -> Result<Vec<&'n Node>, PathFault> {
    let mut found: Vec<&Node> = items(node).collect();
    for step in steps(path)? {
        found = follow(found, step)?;
    }
    Ok(found)
}

/// The first value at a path.
///
/// # Errors
/// The text is no path.
pub fn first<'n>(node: &'n Node, path: &str) -> Result<Option<&'n Node>, PathFault> {
    Ok(all(node, path)?.into_iter().next())
}

/// Whether a text is a path, and of elements that FHIR has.
///
/// # Errors
/// It is none.
pub fn check_path(path: &str) -> Result<(), PathFault> {
    steps(path)?.into_iter().try_for_each(|step| match step {
        Step::Where(inner, _) => check_path(inner),
        Step::Name(name) if !is_name(name.trim_start_matches('_')) => Err(PathFault),
        Step::Name(_) | Step::Nth(_) | Step::Choice(_) => Ok(()),
    })
}

/// The items of a list, or the one value that is none.
pub fn items(node: &Node) -> impl Iterator<Item = &Node> {
    let (list, one) = match node {
        Node::Array(items) => (items.as_slice(), None),
        other => (&[][..], Some(other)),
    };
    list.iter().chain(one).filter(|item| !item.is_empty())
}

fn follow<'n>(found: Vec<&'n Node>, step: Step<'_>) -> Result<Vec<&'n Node>, PathFault> {
    Ok(match step {
        Step::Name(name) => found.into_iter().filter_map(|node| node.get(name)).flat_map(items).collect(),
        Step::Nth(nth) => found.into_iter().skip(nth).take(1).collect(),
        Step::Choice(stem) => {
            found.into_iter().filter_map(|node| shape(node, stem)).flat_map(|(_, node)| items(node)).collect()
        }
        Step::Where(path, text) => {
            let mut kept = Vec::new();
            for node in found {
                if all(node, path)?.into_iter().any(|value| is(value, text)) {
                    kept.push(node);
                }
            }
            kept
        }
    })
}

/// The shape that a choice has: its type and value. `value` finds `valueQuantity`.
pub fn shape<'n>(node: &'n Node, stem: &str) -> Option<(&'n str, &'n Node)> {
    let Node::Object(object) = node else { return None };
    object.shape(stem)
}

fn is(node: &Node, text: &str) -> bool {
    match node {
        Node::Text(own) | Node::Decimal(own) => own == text,
        Node::Integer(number) => number.to_string() == text,
        Node::Boolean(truth) => truth.to_string() == text,
        Node::Object(_) | Node::Array(_) | Node::Reference(_) | Node::Null => false,
    }
}

fn steps(path: &str) -> Result<Vec<Step<'_>>, PathFault> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if steps.len() > MOST_STEPS {
            return Err(PathFault);
        }
        rest = step(rest, &mut steps)?;
        rest = match rest.strip_prefix('.') {
            Some("") => return Err(PathFault),
            Some(behind) => behind,
            None if rest.is_empty() || rest.starts_with('[') => rest,
            None => return Err(PathFault),
        };
    }
    if steps.is_empty() { Err(PathFault) } else { Ok(steps) }
}

/// Reads one step; gives back what is behind it.
fn step<'p>(text: &'p str, steps: &mut Vec<Step<'p>>) -> Result<&'p str, PathFault> {
    if let Some(inner) = text.strip_prefix('[') {
        let (number, behind) = inner.split_once(']').ok_or(PathFault)?;
        steps.push(Step::Nth(number.parse().map_err(|_| PathFault)?));
        return Ok(behind);
    }
    let end = text.find(|one: char| !one.is_ascii_alphanumeric() && one != '_').unwrap_or(text.len());
    let (name, behind) = text.split_at_checked(end).filter(|(name, _)| !name.is_empty()).ok_or(PathFault)?;
    if let Some(behind) = behind.strip_prefix("[x]") {
        steps.push(Step::Choice(name));
        return Ok(behind);
    }
    let Some(inner) = behind.strip_prefix('(') else {
        steps.push(Step::Name(name));
        return Ok(behind);
    };
    if name == "where" {
        let (inner, wanted) = inner.split_once('=').ok_or(PathFault)?;
        let wanted = wanted.trim_start().strip_prefix('\'').ok_or(PathFault)?;
        let (wanted, behind) = wanted.split_once('\'').ok_or(PathFault)?;
        steps.push(Step::Where(inner.trim(), wanted));
        return behind.trim_start().strip_prefix(')').ok_or(PathFault);
    }
    let (url, behind) = inner.split_once(')').ok_or(PathFault)?;
    steps.extend([Step::Name(name), Step::Where("url", url)]);
    Ok(behind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incoming::json::parse;

    fn check(path: &str, expected: &[&str]) {
        let node = parse(
            r#"{"name":[{"use":"official","family":"Smith","given":["Ann","May"]},{"family":"Jones"}],
                "identifier":[{"system":"https://a.b/c","value":"1"},{"system":"x","value":"2","type":{"coding":[{"code":"MR"}]}}],
                "valueQuantity":{"value":7.10},"active":true,"birthDate":"","extension":[{"url":"https://e/f","valueCode":"q"}],
                "maritalStatus":[{"text":"odd"}]}"#,
        )
        .unwrap();
        let found: Vec<String> = all(&node, path)
            .unwrap()
            .into_iter()
            .map(|node| String::from_utf8(node.to_json()).unwrap())
            .collect();
        assert_eq!(found, expected, "{path}");
    }

    #[test]
    fn steps_go_into_every_item_and_what_is_not_there_is_nothing() {
        check("name.family", &["\"Smith\"", "\"Jones\""]);
        check("name[0].given[1]", &["\"May\""]);
        check("name[1].given[1]", &[]);
        check("name[9].x.y", &[]);
        check("identifier.where(system='https://a.b/c').value", &["\"1\""]);
        check("identifier.where(type.coding.code='MR').value", &["\"2\""]);
        check("value[x].value", &["7.10"]);
        check("valueQuantity[0].value", &["7.10"]);
        check("extension(https://e/f).valueCode", &["\"q\""]);
        check("active", &["true"]);
        check("birthDate", &[]);
        check("maritalStatus.text", &["\"odd\""]);
    }

    #[test]
    fn what_is_no_path_is_told() {
        for bad in [
            "",
            ".a",
            "a.",
            "a..b",
            "a[",
            "a[x",
            "a[-1]",
            "a b",
            "a.where(b)",
            "a.where(b=c)",
            "a(b",
            "[0]a",
            "name.famly",
        ] {
            assert!(check_path(bad).is_err(), "{bad}");
        }
    }
}
