//! What is known of identifiers whoever reads them: one spelling of them, and what an NHS number is.
//!
//! Intake (order, search keys, test patients) and the FHIR types (systems) must agree on who a patient is: both ask here.
//!
//! Sources: NHS Data Dictionary (NHS NUMBER, modulus 11); HL7 table 0203; the spellings that British feeds use.
//! Not here: which identifiers a site prefers (intake), the systems of authorities (tables of the mappings).

/// The authority of NHS numbers among the keys of patients, whatever word a sender has for it.
pub const NHS: &str = "nhs";

/// Assigning authorities (CX.4, by name or universal id) that give NHS numbers; in capitals, without blanks, `-`, `_`.
const NHS_AUTHORITIES: [&str; 7] = [
    "NHS",
    "NHSNBR",
    "NHSNMBR",
    "NHSNO",
    "NHSNUMBER",
    "2.16.840.1.113883.2.1.4.1",
    "HTTPS://FHIR.NHS.UK/ID/NHSNUMBER",
];

/// One spelling of what is typed in many: lower case, blanks trimmed and single; no NUL, with which some senders fill
/// fields up.
pub fn spelled(text: &str) -> String {
    let mut spelled = String::with_capacity(text.len());
    let mut after_blank = false;
    for one in text.chars().filter(|one| *one != '\0') {
        if one.is_whitespace() {
            after_blank = !spelled.is_empty();
            continue;
        }
        if std::mem::take(&mut after_blank) {
            spelled.push(' ');
        }
        spelled.push(one);
    }
    if !spelled.is_ascii() {
        return spelled.to_lowercase();
    }
    spelled.make_ascii_lowercase();
    spelled
}

/// What senders write where they know no number: patients who have nothing else in common would be one.
const FILLERS: [&str; 9] = ["unknown", "not known", "unk", "none", "nil", "null", "n/a", "tba", "tbc"];

/// Whether a number, as [`spelled`], names nobody: it is a word for that, or a row of one character, which is what a
/// mandatory field is filled with.
pub fn names_nobody(spelled: &str) -> bool {
    let Some(first) = spelled.chars().next() else { return true };
    spelled.chars().count() > 1 && spelled.chars().all(|one| one == first) || FILLERS.contains(&spelled)
}

/// Whether a number of an order, a stay or a document, as [`spelled`], is none: such a word, a single character, noughts,
/// or four nines and more. A row of another digit may be the next of a sequence. Without a digit it is a word that came
/// into the wrong field (`IN`, `TAB`), unless somebody is named who assigned it.
pub fn is_no_number(spelled: &str, is_assigned: bool) -> bool {
    let is_word = !is_assigned && !spelled.chars().any(char::is_numeric);
    spelled.chars().count() < 2 || is_word || is_dummy(spelled)
}

/// Whether a number of a person of the staff, as [`spelled`], is none: by it two people would be one. Names to log in with
/// have no digit, and small hospitals count from 1.
pub fn is_no_person(spelled: &str) -> bool {
    !spelled.chars().any(char::is_alphanumeric) || is_dummy(spelled)
}

/// Noughts, four nines and more, or a word for what is not known.
fn is_dummy(spelled: &str) -> bool {
    let is_row = |of: char| spelled.chars().all(|one| one == of);
    is_row('0') || spelled.chars().count() > 3 && is_row('9') || FILLERS.contains(&spelled)
}

/// Whether an assigning authority of this name or universal id gives NHS numbers and nothing else.
pub fn names_nhs(authority: &str) -> bool {
    let plain = || {
        let letters =
            authority.chars().filter(|one| !one.is_whitespace() && !matches!(one, '-' | '_' | '\0'));
        letters.map(|one| one.to_ascii_uppercase())
    };
    NHS_AUTHORITIES.iter().any(|known| known.chars().eq(plain()))
}

/// Whether only NHS numbers have this type (CX.5), whoever gave them.
pub fn types_nhs(kind: &str) -> bool {
    is_one_of(kind, &["NHS", "NHSNMBR", "NHSNBR"])
}

/// Whether this type (CX.5) is an NHS number's where no authority says otherwise.
pub fn may_type_nhs(kind: &str) -> bool {
    types_nhs(kind) || is_one_of(kind, &["NH", "HN", "NI"])
}

fn is_one_of(kind: &str, known: &[&str]) -> bool {
    known.iter().any(|known| kind.trim().eq_ignore_ascii_case(known))
}

/// The ten digits of an NHS number, however it is spaced; none if it is not one.
pub fn nhs_number(value: &str) -> Option<String> {
    let digits: String =
        value.chars().filter(|one| !one.is_whitespace() && !matches!(one, '-' | '\0')).collect();
    is_nhs_number(&digits).then_some(digits)
}

/// Whether the ten digits are an NHS number (or CHI number): modulus 11 with the weights 10 to 2. Numbers of ten
/// equal digits pass the sum and are nobody's.
pub fn is_nhs_number(digits: &str) -> bool {
    let Ok([head @ .., check]) = <&[u8; 10]>::try_from(digits.as_bytes()) else { return false };
    let all = digits.bytes();
    if !all.clone().all(|digit| digit.is_ascii_digit()) || all.clone().all(|digit| digit == *check) {
        return false;
    }
    let value = |digit: &u8| u32::from(digit - b'0');
    let sum: u32 = head.iter().zip((2..=10).rev()).map(|(digit, weight)| value(digit) * weight).sum();
    (11 - sum % 11) % 11 == value(check)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_digit_of_an_nhs_number() {
        for good in ["9991001018", "9991001069", "9434765919", "4010232137"] {
            assert!(is_nhs_number(good), "{good}");
        }
        for bad in ["", "999100106", "99910010690", "999100106٩", "999100101X", "9991001068", "9991001078"] {
            assert!(!is_nhs_number(bad), "{bad}");
        }
        assert!(!is_nhs_number("0000000000") && !is_nhs_number("6666666666"), "all digits equal");
        // 11 - (sum mod 11) = 10 is no check digit at all
        assert!((0..10).all(|check| !is_nhs_number(&format!("100000001{check}")) || check != 10));
    }

    #[test]
    fn one_spelling_has_single_blanks_small_letters_and_no_nul() {
        for (typed, one) in [
            ("  A\u{a0}\t b\0 \0 C ", "a b c"),
            ("\0", ""),
            ("\u{dc}BER \u{39f}\u{3a3}", "\u{fc}ber \u{3bf}\u{3c2}"),
        ] {
            assert_eq!(spelled(typed), one, "{typed:?}");
        }
    }

    #[test]
    fn what_only_fills_a_field_is_no_number() {
        for none in ["", "0", "7", "00", "9999", "unknown", "n/a"] {
            assert!(is_no_number(none, false) && is_no_number(none, true), "{none}");
        }
        for number in ["10", "77", "999", "1111", "unk-7"] {
            assert!(!is_no_number(number, false), "{number}");
        }
        for word in ["in", "tab", "report.pdf"] {
            assert!(is_no_number(word, false) && !is_no_number(word, true), "{word}");
        }
    }

    #[test]
    fn what_only_fills_a_field_is_no_person() {
        assert!(["", "0", "-", "--", "000", "9999", "unknown"].iter().all(|none| is_no_person(none)));
        assert!(!["7", "999", "awright", "c9999991"].iter().any(|number| is_no_person(number)));
    }

    #[test]
    fn a_number_that_is_a_filler_names_nobody() {
        assert!(["", "unknown", "n/a", "000000", "xx"].iter().all(|one| names_nobody(one)));
        assert!(!["7", "0001", "x1"].iter().any(|one| names_nobody(one)));
    }

    #[test]
    fn an_nhs_number_is_known_however_it_is_spaced() {
        for spaced in
            ["9991001069", "999 100 1069", "999-100-1069", " 9991001069\0", "999\u{a0}100\u{a0}1069"]
        {
            assert_eq!(nhs_number(spaced).as_deref(), Some("9991001069"), "{spaced:?}");
        }
        assert_eq!(nhs_number("999.100.1069"), None);
    }

    #[test]
    fn words_are_known_however_they_are_written() {
        for named in
            ["NHS", "nhs", "NHS NUMBER", "NHS-Number", "nhs_no", "NHSNMBR", "2.16.840.1.113883.2.1.4.1"]
        {
            assert!(names_nhs(named), "{named}");
        }
        assert!(
            !["", "RXX", "NHSX", "NHSBT", "CHI", "2.16.840.1.113883.2.1.4.10"].into_iter().any(names_nhs)
        );
        assert!(types_nhs("NHSNBR") && types_nhs("nhs") && !types_nhs("NH") && !types_nhs(""));
        assert!(may_type_nhs("NH") && may_type_nhs("NHSNMBR") && !may_type_nhs("MR") && !may_type_nhs(""));
    }
}
