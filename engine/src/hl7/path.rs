//! Paths such as `PID-3.1`, `PID-3[2].4.2` and `OBX(3)-5`, parsed once and used often.
//!
//! ```text
//! path    = segment [ "(" number ")" ] [ "-" number [ "[" number "]" ] [ "." number [ "." number ] ] ]
//! segment = capital letter, then two capital letters or digits
//! ```
//!
//! Promise:  what `Display` prints parses to the same path. Numbers count from 1 and end at 65535.

use std::fmt::{self, Write};

use nom::{
    IResult, Parser,
    bytes::complete::take_while1,
    character::complete::char as character,
    combinator::opt,
    sequence::{delimited, preceded},
};

/// A place in a message. Every number counts from 1, as in the HL7 standard.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Path {
    /// Three characters, upper case.
    pub segment: [u8; 3],
    /// Which of the segments of that name; 1 unless told.
    pub occurrence: usize,
    /// The field; 0 stands for the whole segment.
    pub field: usize,
    /// Which repetition; 1 unless told.
    pub repetition: usize,
    /// The component, if the path goes so deep.
    pub component: Option<usize>,
    /// The subcomponent, if the path goes so deep.
    pub subcomponent: Option<usize>,
}

/// Why a path cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{path}` is not a path: {what} at character {at}; write it as `PID-3`, `PID-3[2].4.1` or `OBX(3)-5`"
)]
pub struct PathError {
    /// What was written.
    pub path: String,
    /// What is wrong there.
    pub what: &'static str,
    /// The character that is wrong, from 1; one past the end when something is missing.
    pub at: usize,
}

impl Path {
    /// Reads a path.
    ///
    /// # Errors
    /// What is wrong and at which character.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let fail = |rest: &str, what| {
            let read = text.len().saturating_sub(rest.len());
            let at = text.get(..read).unwrap_or(text).chars().count() + 1;
            Err(PathError { path: text.to_owned(), what, at })
        };
        let Some((segment, rest)) = segment(text) else {
            return fail(text, "a segment has three capital letters or digits");
        };
        match place(rest) {
            Ok(("", (occurrence, numbers))) => {
                let (field, repetition, component, subcomponent) = numbers.unwrap_or_default();
                Ok(Self {
                    segment,
                    occurrence: occurrence.unwrap_or(1),
                    field,
                    repetition: repetition.unwrap_or(1),
                    component,
                    subcomponent,
                })
            }
            Ok((rest, _)) => fail(rest, expected(rest)),
            Err(nom::Err::Error(error) | nom::Err::Failure(error)) => {
                fail(error.input, "a number from 1 to 65535 belongs here")
            }
            Err(nom::Err::Incomplete(_)) => fail("", "more is needed"),
        }
    }

    /// The name of the segment.
    pub fn segment_name(&self) -> &str {
        std::str::from_utf8(&self.segment).unwrap_or_default()
    }
}

impl std::str::FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::parse(text)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.segment_name())?;
        if self.occurrence != 1 {
            write!(f, "({})", self.occurrence)?;
        }
        if self.field == 0 {
            return Ok(());
        }
        write!(f, "-{}", self.field)?;
        if self.repetition != 1 {
            write!(f, "[{}]", self.repetition)?;
        }
        for number in [self.component, self.subcomponent].into_iter().flatten() {
            f.write_char('.')?;
            write!(f, "{number}")?;
        }
        Ok(())
    }
}

type Numbers = (usize, Option<usize>, Option<usize>, Option<usize>);

fn segment(text: &str) -> Option<([u8; 3], &str)> {
    let (name, _) = text.as_bytes().split_first_chunk::<3>()?;
    let [first, others @ ..] = name;
    let named = first.is_ascii_uppercase()
        && others.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    named.then_some(*name).zip(text.get(3..))
}

fn place(input: &str) -> IResult<&str, (Option<usize>, Option<Numbers>)> {
    let occurrence = opt(bracketed('(', ')'));
    let component = preceded(character('.'), commit);
    let subcomponent = preceded(character('.'), commit);
    let components = opt((component, opt(subcomponent)));
    let field = preceded(character('-'), (commit, opt(bracketed('[', ']')), components)).map(
        |(field, repetition, components)| {
            let (component, subcomponent) = components.unzip();
            (field, repetition, component, subcomponent.flatten())
        },
    );
    (occurrence, opt(field)).parse(input)
}

fn bracketed<'a>(
    open: char,
    close: char,
) -> impl Parser<&'a str, Output = usize, Error = nom::error::Error<&'a str>> {
    delimited(character(open), commit, nom::combinator::cut(character(close)))
}

/// A number that must be there: what came before it allows nothing else.
fn commit(input: &str) -> IResult<&str, usize> {
    nom::combinator::cut(number).parse(input)
}

fn number(input: &str) -> IResult<&str, usize> {
    let (rest, digits) = take_while1(|c: char| c.is_ascii_digit())(input)?;
    match digits.parse::<u16>() {
        Ok(number) if number > 0 => Ok((rest, usize::from(number))),
        _ => Err(nom::Err::Error(nom::error::Error::new(input, nom::error::ErrorKind::Digit))),
    }
}

fn expected(rest: &str) -> &'static str {
    match rest.chars().next() {
        Some('.') => "a component needs a field before it, and nothing is deeper than a subcomponent",
        Some('[') => "a repetition stands behind the field",
        Some('(') => "an occurrence stands behind the segment",
        _ => "this does not belong to a path",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error(text: &str) -> (usize, &'static str) {
        let error = Path::parse(text).unwrap_err();
        (error.at, error.what)
    }

    #[test]
    fn every_form_is_read() {
        let path = Path::parse("ZX1(2)-3[4].5.6").unwrap();
        assert_eq!(
            path,
            Path {
                segment: *b"ZX1",
                occurrence: 2,
                field: 3,
                repetition: 4,
                component: Some(5),
                subcomponent: Some(6),
            }
        );
        let path = Path::parse("PID").unwrap();
        assert_eq!((path.occurrence, path.field, path.repetition, path.component), (1, 0, 1, None));
    }

    #[test]
    fn errors_say_what_and_where() {
        assert_eq!(error("pid-3").0, 1);
        assert_eq!(error("PI").0, 1);
        assert_eq!(error("P日D-3").0, 1);
        assert_eq!(error("PID-"), (5, "a number from 1 to 65535 belongs here"));
        assert_eq!(error("PID-0"), (5, "a number from 1 to 65535 belongs here"));
        assert_eq!(error("PID-99999999999999999999").0, 5);
        assert_eq!(error("PID-3[2").0, 8);
        assert_eq!(error("PID-3.1.2.4").0, 10);
        assert_eq!(
            error("PID.3"),
            (4, "a component needs a field before it, and nothing is deeper than a subcomponent")
        );
        assert_eq!(error("PID-3é").0, 6);
        assert!(Path::parse("PID-3x").unwrap_err().to_string().contains("`PID-3x`"));
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(
            segment in "[A-Z][A-Z0-9]{2}", occurrence in 1usize..70_000, field in 0usize..300,
            repetition in 1usize..9, component in proptest::option::of(1usize..30), sub in proptest::option::of(1usize..9),
        ) {
            let deep = field > 0;
            let path = Path {
                segment: segment.as_bytes().try_into().unwrap(),
                occurrence: occurrence.min(65_535),
                field,
                repetition: if deep { repetition } else { 1 },
                component: component.filter(|_| deep),
                subcomponent: sub.filter(|_| deep && component.is_some()),
            };
            prop_assert_eq!(Path::parse(&path.to_string()), Ok(path));
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,20}|[A-Z]{3}[-.()\\[\\]0-9é]{0,20}") {
            if let Ok(path) = Path::parse(&text) {
                prop_assert_eq!(Path::parse(&path.to_string()), Ok(path));
            }
        }
    }
}
