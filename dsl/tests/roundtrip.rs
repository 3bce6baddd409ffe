//! The formatter and the printer keep the meaning, the comments and their own output; nothing panics.

mod support;

use foveate_dsl::format::print;
use foveate_dsl::{format, parse};
use proptest::prelude::*;
use support::trees::Trees;
use support::{EVERYTHING, read, without_spans};

/// Byte positions between two tokens, where white space and comments may stand without changing the tree. In front of
/// the brackets of a call and inside paths they may not.
fn gaps(text: &str) -> Vec<usize> {
    text.char_indices()
        .filter(|(_, c)| matches!(c, ' ' | '\n'))
        .map(|(at, _)| at)
        .filter(|&at| !in_token(text, at))
        .collect()
}

/// Whether a blank stands in a string or comment.
fn in_token(text: &str, at: usize) -> bool {
    let line = &text[text[..at].rfind('\n').map_or(0, |line| line + 1)..at];
    line.contains("//") || line.contains('"')
}

/// The comments of a text in order, without their slashes.
fn comments(text: &str) -> Vec<String> {
    let marks = text.lines().filter_map(|line| line.split_once("//"));
    let mut all: Vec<String> =
        marks.map(|(_, comment)| comment.trim_start_matches('/').trim_end().to_owned()).collect();
    all.sort();
    all
}

fn check_format(text: &str) -> Result<(), TestCaseError> {
    let formatted = match format(text) {
        Ok(formatted) => formatted,
        Err(diagnostics) => return Err(TestCaseError::fail(format!("{diagnostics:?}\n{text}"))),
    };
    prop_assert_eq!(format(&formatted), Ok(formatted.clone()), "not idempotent:\n{}", text);
    let (before, after) = (parse(0, text).0, parse(0, &formatted).0);
    prop_assert_eq!(without_spans(&before), without_spans(&after), "{}\nbecame\n{}", text, formatted);
    prop_assert_eq!(comments(text), comments(&formatted), "{}\nbecame\n{}", text, formatted);
    prop_assert!(formatted.lines().all(|line| !line.ends_with(' ')), "{}", formatted);
    Ok(())
}

/// Neither parser nor formatter panics, and every place is one in the text.
fn check_total(text: &str) -> Result<(), TestCaseError> {
    let (_, diagnostics) = parse(0, text);
    for label in diagnostics.iter().flat_map(|diagnostic| &diagnostic.labels) {
        let range = label.span.start as usize..label.span.end as usize;
        prop_assert!(text.get(range).is_some(), "{:?}\n{}", label, text);
    }
    for diagnostic in &diagnostics {
        prop_assert!(foveate_dsl::codes::lookup(diagnostic.code).is_some(), "{}", diagnostic.code);
    }
    prop_assert_eq!(format(text).is_err(), diagnostics.iter().any(|diagnostic| diagnostic.is_error()));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn trees_survive_printing_and_parsing(bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
        let tree = Trees::new(&bytes).file();
        let text = print(&tree);
        let (read, diagnostics) = parse(0, &text);
        prop_assert!(diagnostics.is_empty(), "{diagnostics:?}\n{text}");
        prop_assert_eq!(without_spans(&read), without_spans(&tree), "{}", text);
        prop_assert_eq!(format(&text), Ok(text.clone()));
    }

    #[test]
    fn comments_and_breaks_anywhere_survive(
        places in prop::collection::vec((any::<prop::sample::Index>(), 0..6u8), 0..12)
    ) {
        let gaps = gaps(EVERYTHING);
        let mut places: Vec<(usize, u8)> = places.iter().map(|(at, what)| (gaps[at.index(gaps.len())], *what)).collect();
        places.sort();
        places.dedup_by_key(|place| place.0);
        let mut text = EVERYTHING.to_owned();
        for (number, (at, what)) in places.iter().enumerate().rev() {
            let inserted = match what {
                0 => "\n".to_owned(),
                1 => "\n\n\n".to_owned(),
                2 => format!("\n// c{number}\n"),
                3 => format!("  // c{number}\n"),
                4 => format!("\n\n\t/// c{number}\r\n\n"),
                _ => format!(" // c{number}\n// d{number}\n"),
            };
            text.insert_str(*at, &inserted);
        }
        check_format(&text)?;
    }

    #[test]
    fn any_text_is_read(text in "\\PC*") {
        check_total(&text)?;
    }

    #[test]
    fn damaged_files_are_read(edits in prop::collection::vec((any::<prop::sample::Index>(), 0..5u8, any::<prop::sample::Index>()), 1..6)) {
        const PIECES: &[&str] = &["(", ")", "[", "]", "{", "}", "=", "if ", "\"", "//", "\n", " x ", "..", "sum(", "-", "é", "\0", "for "];
        let mut text: Vec<char> = EVERYTHING.chars().collect();
        for (at, what, piece) in edits {
            if text.is_empty() {
                break;
            }
            let at = at.index(text.len());
            match what {
                0 => { text.remove(at); }
                1 => { let end = (at + 40).min(text.len()); text.drain(at..end); }
                2 => { let end = (at + 40).min(text.len()); let copy: Vec<char> = text[at..end].to_vec(); text.splice(at..at, copy); }
                3 => text.truncate(at.max(1)),
                _ => { text.splice(at..at, piece.get(PIECES).chars()); }
            }
        }
        check_total(&text.into_iter().collect::<String>())?;
    }

    #[test]
    fn token_soup_is_read(tokens in prop::collection::vec(prop::sample::select(vec![
        "foveate 1", "module", "M", "(", ")", "{", "}", "[", "]", ",", ":", "=", "==", "->", "..", ".", "+", "-", "*", "^",
        "if", "then", "else", "for", "in", "where", "sum(", "softmax(", "x", "1", "1.5", "2x2", "\"s\"", "let", "return",
        "forward", "axis", "index", "param", "recipe", "fn", "import", "// c\n", "\n", "not", "div", "|", "{x}",
    ]), 0..120)) {
        check_total(&tokens.join(" "))?;
        check_total(&format!("foveate 1\nmodule M() {{ forward(x[C]) -> [C] {{ {} }} }}", tokens.join(" ")))?;
        check_total(&tokens.concat())?;
    }
}

#[test]
fn everything_is_formatted() {
    check_format(EVERYTHING).unwrap_or_else(|error| panic!("{error}"));
    read(EVERYTHING);
}
