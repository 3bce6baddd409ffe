//! No text and no sizes make loading, checking or lowering panic or run away.
//!
//! Specs of the repository are damaged token by token and lowered with hostile settings. `PROPTEST_CASES` in the environment sets another
//! number of cases; a case that takes longer than [`LIMIT`] counts as a failure.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use foveate_compiler::check::{Files, Spec, Value, check};
use foveate_compiler::compile::{Gradient, derive};
use foveate_compiler::grad::Seeds;
use foveate_compiler::ir::verify;
use foveate_compiler::lower::{LowerOptions, lower};
use foveate_compiler::schedule::{Facts, schedule, too_large};
use foveate_dsl::SourceMap;
use foveate_dsl::codes::CODES;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

/// The longest that a case may take.
const LIMIT: Duration = Duration::from_secs(120);

/// All specs, by path from the folder of specs.
fn specs() -> &'static Vec<(PathBuf, String)> {
    static SPECS: OnceLock<Vec<(PathBuf, String)>> = OnceLock::new();
    SPECS.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../specs");
        let mut folders = vec![root.clone()];
        let mut out = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("a readable folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let text = std::fs::read_to_string(&path).expect("specs are UTF-8");
                    out.push((path.strip_prefix(&root).expect("inside").to_owned(), text));
                }
            }
        }
        out.sort();
        out
    })
}

/// The words, numbers, strings and signs of a text; comments are left out.
fn tokens(text: &str) -> Vec<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut out: Vec<String> = Vec::new();
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or_default();
        let mut rest = line;
        while let Some(c) = rest.chars().next() {
            let len = if word(c) {
                rest.find(|c| !word(c)).unwrap_or(rest.len())
            } else if c == '"' {
                rest[1..].find('"').map_or(rest.len(), |n| n + 2)
            } else {
                ["==", "!=", "<=", ">=", "->", ".."]
                    .iter()
                    .find(|s| rest.starts_with(*s))
                    .map_or(c.len_utf8(), |s| s.len())
            };
            out.push(rest[..len].to_owned());
            rest = &rest[len..];
        }
        out.push("\n".to_owned());
    }
    out
}

/// What no spec holds, and what specs hold elsewhere.
fn strange() -> &'static Vec<String> {
    static STRANGE: OnceLock<Vec<String>> = OnceLock::new();
    STRANGE.get_or_init(|| {
        let mut out: Vec<String> =
            ["0", "1", "2", "7", "-1", "1e308", "1e-320", "0.5", "1000000007", "9223372036854775807", "4294967296"]
                .map(str::to_owned)
                .to_vec();
        let signs = [
            "(", ")", "[", "]", "{", "}", ",", ":", "=", "==", "..", "|", " x ", " - ", " div ", " % ", "^", "\"", "é",
            "//",
        ];
        out.extend(signs.map(str::to_owned));
        let phrases = [
            "for m in 0..1000000 {",
            "if training {",
            "update ",
            "expose ",
            "return ",
            "flat ",
            "softmax(j)(",
            "sum(i) ",
            "argmax(c) ",
            "window(i, 3, 3, pad: clamp)",
            "window(i, 1, pad: zero, stride: 5)",
            "components(mask, connectivity: 8)",
            ".row",
            "Batch",
            "b: Batch",
            "uniform()",
            "stop(",
            "clamp(i, 0, 3)",
            "(2, h, d)",
            "label[C]",
            "state[C] = zeros",
            "inf",
        ];
        out.extend(phrases.map(str::to_owned));
        for (_, text) in specs() {
            out.extend(tokens(text));
        }
        out.sort();
        out.dedup();
        out
    })
}

#[derive(Clone, Debug)]
enum Damage {
    Delete(usize, usize),
    Repeat(usize, usize),
    Swap(usize, usize),
    Replace(usize, usize),
    Insert(usize, usize),
    /// Takes a run of tokens of another spec.
    Graft(usize, usize, usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = || any::<usize>();
    prop_oneof![
        (at(), 1..6_usize).prop_map(|(a, n)| Damage::Delete(a, n)),
        (at(), 1..30_usize).prop_map(|(a, n)| Damage::Repeat(a, n)),
        (at(), at()).prop_map(|(a, b)| Damage::Swap(a, b)),
        (at(), at()).prop_map(|(a, b)| Damage::Replace(a, b)),
        (at(), at()).prop_map(|(a, b)| Damage::Insert(a, b)),
        (at(), at(), at(), 1..40_usize).prop_map(|(a, b, c, n)| Damage::Graft(a, b, c, n)),
    ]
}

fn damaged(text: &str, damages: &[Damage]) -> String {
    let mut list = tokens(text);
    for d in damages {
        let len = list.len().max(1);
        let run = |a: usize, n: usize| (a % len).min(list.len())..(a % len).saturating_add(n).min(list.len());
        match *d {
            Damage::Delete(a, n) => drop(list.drain(run(a, n))),
            Damage::Repeat(a, n) => {
                let part = list[run(a, n)].to_vec();
                let end = run(a, n).end;
                list.splice(end..end, part);
            }
            Damage::Swap(a, b) if !list.is_empty() => list.swap(a % len, b % len),
            Damage::Replace(a, b) if !list.is_empty() => list[a % len].clone_from(&strange()[b % strange().len()]),
            Damage::Insert(a, b) => list.insert(run(a, 0).start, strange()[b % strange().len()].clone()),
            Damage::Graft(a, b, c, n) => {
                let other = tokens(&specs()[b % specs().len()].1);
                let start = c % other.len().max(1);
                let at = run(a, 0).start;
                list.splice(at..at, other[start..(start + n).min(other.len())].to_vec());
            }
            _ => {}
        }
    }
    list.concat()
}

fn value() -> impl Strategy<Value = Value> {
    let size = || {
        prop_oneof![
            4 => 1..9_i64,
            2 => prop_oneof![Just(12_i64), Just(14), Just(16), Just(64), Just(7919)],
            1 => prop_oneof![Just(0), Just(-1), Just(i64::MIN), Just(i64::MAX), Just(1_000_000_000), Just(1 << 31), Just(65536)],
        ]
    };
    prop_oneof![
        8 => size().prop_map(Value::Int),
        3 => (size(), size()).prop_map(|(a, b)| Value::Tuple(vec![Value::Int(a), Value::Int(b)])),
        1 => prop::collection::vec(size().prop_map(Value::Int), 0..4).prop_map(Value::List),
        1 => any::<bool>().prop_map(Value::Bool),
        1 => any::<f64>().prop_map(Value::Float),
        1 => prop_oneof![Just("product"), Just("sum"), Just("central"), Just("nonsense")].prop_map(|w| Value::Word(w.to_owned())),
    ]
}

/// The specs with one of them replaced.
struct Replaced<'t>(&'t Path, &'t str);

impl Files for Replaced<'_> {
    fn read(&self, path: &Path) -> Result<String, String> {
        if path == self.0 {
            return Ok(self.1.to_owned());
        }
        let found = specs().iter().find(|(p, _)| p == path);
        found.map(|(_, text)| text.clone()).ok_or_else(|| "there is no such file".to_owned())
    }
}

/// Loads, checks and lowers; whatever lowers verifies, and whatever does not says why.
fn put_through(path: &Path, text: &str, values: &[Value], training: bool, batch: usize) -> Result<(), TestCaseError> {
    let start = Instant::now();
    let known = |code: &str| CODES.iter().any(|info| info.code == code);
    let mut sources = SourceMap::new();
    match Spec::load_from(path, &Replaced(path, text), &mut sources) {
        Err(diagnostics) => prop_assert!(!diagnostics.is_empty() && diagnostics.iter().all(|d| known(d.code))),
        Ok(spec) => {
            prop_assert!(check(&spec, &sources).iter().all(|d| known(d.code)));
            for item in spec.items() {
                let Ok(names) = spec.arguments(Some(&item.name)) else { continue };
                let settings: Vec<(String, Value)> = names.into_iter().zip(values.iter().cloned()).collect();
                let options = LowerOptions { training, random: true, batch, exposed: Vec::new() };
                match lower(&spec, Some(&item.name), &settings, &options, &sources) {
                    Ok(lowered) => {
                        let found = verify::verify(&lowered.program);
                        prop_assert!(found.is_ok(), "{:?}\n{}", found, lowered.program);
                    }
                    Err(diagnostics) => {
                        prop_assert!(!diagnostics.is_empty() && diagnostics.iter().all(|d| known(d.code)))
                    }
                }
            }
        }
    }
    prop_assert!(start.elapsed() < LIMIT, "it took {:?}", start.elapsed());
    Ok(())
}

fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    let failure_persistence = Some(Box::new(FileFailurePersistence::Off) as _);
    ProptestConfig { cases, failure_persistence, max_shrink_iters: 400, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn damaged_specs(
        which in any::<usize>(),
        damages in prop::collection::vec(damage(), 1..5),
        values in prop::collection::vec(value(), 12),
        training in any::<bool>(),
        batch in prop_oneof![Just(1_usize), Just(3), Just(0), Just(usize::MAX), Just(1 << 20)],
    ) {
        let (path, text) = &specs()[which % specs().len()];
        put_through(path, &damaged(text, &damages), &values, training, batch)?;
    }

    #[test]
    fn hostile_sizes(
        which in any::<usize>(),
        values in prop::collection::vec(value(), 12),
        training in any::<bool>(),
        batch in prop_oneof![Just(1_usize), Just(3), Just(0), Just(usize::MAX), Just(1 << 20)],
    ) {
        let (path, text) = &specs()[which % specs().len()];
        put_through(path, text, &values, training, batch)?;
    }
}

/// Texts that ask for much in few words.
#[test]
fn small_texts_that_explode() {
    let doubling: String = (0..40)
        .map(|n| {
            format!(
                "module M{n}(C) {{\n a = M{}(C)\n b = M{}(C)\n forward(x[C]) -> [C] {{ return a(b(x)) }}\n}}\n",
                n + 1,
                n + 1
            )
        })
        .collect();
    let functions: String = (0..40).map(|n| format!("fn f{n}(x) = f{}(x) + f{}(x)\n", n + 1, n + 1)).collect();
    let last = "module M40(C) {\n forward(x[C]) -> [C] { return x }\n}\nfn f40(x) = x * x\n";
    let using = "module U(C) {\n forward(x[C]) -> [C] {\n y[c] = f0(x[c])\n return y\n }\n}\n";
    let members = "module L(C) {\n for a in 0..1000000 { for b in 0..1000000 { axis N = 3 } }\n forward(x[C]) -> [C] { return x }\n}\n";
    let statements = "module S(C) {\n forward(x[C]) -> [C] {\n for a in 0..100000000 { x = x + x }\n return x\n }\n}\n";
    let squares: String =
        (0..60).map(|n| format!(" y{}[c] = y{n}[c] * y{n}[c] + (sum(i: C) y{n}[i]) * y{n}[c]\n", n + 1)).collect();
    let squares = format!("module Q(C) {{\n forward(y0[C]) -> [C] {{\n{squares} return y60\n }}\n}}\n");
    let powers = "module P(C) {\n let n = 9 ^ 9 ^ 9\n axis A = 2 ^ 62 * 8\n forward(x[C]) -> [C] { return x }\n}\n";
    let list = format!(
        "module I(C) {{\n let l = [{}]\n forward(x[C]) -> [C] {{ return x }}\n}}\n",
        "1, ".repeat(20_000) + "1"
    );
    let wide = format!(
        "module W(C) {{\n forward(x[C]) -> [C] {{\n y[c] = {} x[c]\n return y\n }}\n}}\n",
        "x[c] + ".repeat(3000)
    );
    let parts = [doubling.as_str(), &functions, last, using, members, statements, &squares, powers, &list, &wide];
    let texts: HashMap<&str, String> = HashMap::from([
        ("doubling", format!("foveate 1\n{doubling}{last}")),
        ("functions", format!("foveate 1\n{functions}{last}{using}")),
        ("members", format!("foveate 1\n{members}")),
        ("statements", format!("foveate 1\n{statements}")),
        ("squares", format!("foveate 1\n{squares}")),
        ("powers", format!("foveate 1\n{powers}")),
        ("list", format!("foveate 1\n{list}")),
        ("wide", format!("foveate 1\n{wide}")),
        ("all", format!("foveate 1\n{}", parts.concat())),
    ]);
    for (name, text) in texts {
        let values = vec![Value::Int(4); 4];
        let start = Instant::now();
        let done = put_through(Path::new("a.fov"), &text, &values, true, 2);
        assert!(done.is_ok(), "{name}: {done:?}");
        println!("{name}: {:?}", start.elapsed());
    }
}

/// What is never stored may be larger than any buffer; what is stored may not.
#[test]
fn huge_pairs_compile() {
    let text = |result: &str| {
        format!(
            "foveate 1\n\nmodule Large(C, N) {{\n    index i, j: N\n    forward(x[N, C]) -> {result} {{\n        \
             s[i, j] = sum(c) x[i, c] * x[j, c]\n        y[i, c] = sum(j) softmax(j)(s[i, j]) * x[j, c]\n        \
             return {}\n    }}\n}}\n",
            if result == "[N, C]" { "y" } else { "s" }
        )
    };
    for (result, n, stored) in
        [("[N, C]", 1_000_000, true), ("[N, C]", 100_000_000, false), ("[N, N]", 1_000_000, false)]
    {
        let mut sources = SourceMap::new();
        let files = HashMap::from([(PathBuf::from("a.fov"), text(result))]);
        let spec = Spec::load_from(Path::new("a.fov"), &files, &mut sources).expect("parses");
        let settings = [("C".to_owned(), Value::Int(4)), ("N".to_owned(), Value::Int(n))];
        let options = LowerOptions { training: true, random: true, batch: 1, exposed: Vec::new() };
        let lowered = lower(&spec, None, &settings, &options, &sources);
        let Ok(lowered) = lowered else {
            assert!(!stored && n == 100_000_000);
            continue;
        };
        let gradient =
            Gradient { seeds: Seeds::Cotangents(vec!["y".to_owned()]), wrt: vec!["x".to_owned()], recomputed: 0 };
        let derived = derive(lowered.program, Some(&gradient), &mut |_, _| {}).expect("differentiable");
        let large = too_large(&derived.program, &Facts::USUAL);
        assert_eq!(large.is_none(), stored, "{large:?}");
        if stored {
            let facts = Facts { local_bytes: 48 << 10, ..Facts::USUAL };
            assert!(schedule(&derived.program, &facts).launches.len() > 1);
        } else {
            let text = large.expect("too large");
            assert!(text.contains("of shape [1, 1000000, 1000000] would be stored"), "{text}");
        }
    }
}
