//! Patterns for header values: plain text in which `?` stands for any one character and `*` for any many.
//!
//! Promises: compiled once; a match takes time at most proportional to pattern × value, never exponential.

use std::fmt;

/// One pattern, such as `ADT^A0?` or `RXX*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    shape: Shape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Anything,
    Exact,
    Wild,
}

impl Pattern {
    /// Compiles a pattern.
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let shape = if !text.is_empty() && text.bytes().all(|byte| byte == b'*') {
            Shape::Anything
        } else if text.contains(['?', '*']) {
            Shape::Wild
        } else {
            Shape::Exact
        };
        Self { text, shape }
    }

    /// Whether the value is as the pattern says, from its first to its last character; case matters.
    pub fn matches(&self, value: &str) -> bool {
        match self.shape {
            Shape::Anything => true,
            Shape::Exact => self.text == value,
            Shape::Wild => wild(&self.text, value),
        }
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Goes back to the last `*` only: earlier ones cannot do better by taking more.
fn wild(pattern: &str, value: &str) -> bool {
    let (mut pattern, mut value) = (pattern.chars(), value.chars());
    let mut retry: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let value_here = value.clone();
        match (pattern.next(), value.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                value = value_here.clone();
                retry = Some((pattern.clone(), value_here));
            }
            (Some('?'), Some(_)) => {}
            (Some(wanted), Some(found)) if wanted == found => {}
            _ => {
                let Some((after_star, mut from)) = retry.take() else { return false };
                if from.next().is_none() {
                    return false;
                }
                pattern = after_star.clone();
                value = from.clone();
                retry = Some((after_star, from));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_match_from_end_to_end() {
        for (pattern, value, expected) in [
            ("ADT^A0?", "ADT^A01", true),
            ("ADT^A0?", "ADT^A0", false),
            ("ADT^A0?", "ADT^A010", false),
            ("ADT^A0?", "ADT^A11", false),
            ("ADT^*", "ADT^A01", true),
            ("ADT^*", "ADT^", true),
            ("*", "", true),
            ("", "", true),
            ("", "x", false),
            ("*ab*ab", "abxabyab", true),
            ("*ab*ab", "abx", false),
            ("a*é?", "abcéd", true),
            ("LORENZO", "lorenzo", false),
        ] {
            assert_eq!(Pattern::new(pattern).matches(value), expected, "{pattern} {value}");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = Pattern::new("*a".repeat(200) + "b");
        assert!(!pattern.matches(&"a".repeat(20_000)));
    }

    /// The meaning of a pattern, word by word.
    fn meaning(pattern: &[char], value: &[char]) -> bool {
        match (pattern, value) {
            ([], []) => true,
            (['*', rest @ ..], _) => (0..=value.len()).any(|taken| meaning(rest, &value[taken..])),
            (['?', pattern @ ..], [_, value @ ..]) => meaning(pattern, value),
            ([wanted, pattern @ ..], [found, value @ ..]) => wanted == found && meaning(pattern, value),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn a_compiled_pattern_means_what_it_says(pattern in "[ab?*]{0,6}", value in "[ab]{0,8}") {
            let expected = meaning(
                &pattern.chars().collect::<Vec<_>>(),
                &value.chars().collect::<Vec<_>>(),
            );
            prop_assert_eq!(Pattern::new(pattern).matches(&value), expected);
        }
    }
}
