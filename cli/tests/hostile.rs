//! No text and no sizes make a verb panic that needs no more than a spec: it succeeds, or says what is wrong and exits with 1.

mod common;
#[path = "common/damage.rs"]
mod damage;

use common::foveate;
use damage::{copy, damage_text, damages};
use proptest::prelude::*;
use std::path::Path;

const ITEMS: &[&str] = &[
    "specs/attention/alibi_2d.fov:Alibi2dAttention",
    "specs/attention/causal_window.fov:CausalWindowAttention",
    "specs/attention/cosine.fov:CosineAttention",
    "specs/attention/cross.fov:CrossAttention",
    "specs/attention/elu_linear.fov:EluLinearAttention",
    "specs/attention/full.fov:SelfAttention",
    "specs/attention/mcsa.fov:CentralAttention",
    "specs/attention/neighbourhood.fov:NeighbourhoodAttention",
    "specs/attention/sigmoid.fov:SigmoidAttention",
    "specs/attention/sp_sa.fov:SpatialPriorAttention",
    "specs/attention/swin_bias.fov:SwinAttention",
    "specs/attention/vicinity.fov:VicinityAttention",
    "specs/attention/vicinity.fov:VicinityAttentionQuadratic",
    "specs/losses/spatial_entropy.fov:SpatialEntropy",
    "specs/demo/fashion.fov:FashionNet",
    "specs/demo/fashion.fov:FashionLoss",
];

/// Sizes that schedules stumble over, and values that are none.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => (1i64..20).prop_map(|n| n.to_string()),
        2 => prop::sample::select(vec!["0", "-1", "1", "97", "1024", "9223372036854775807", "-9223372036854775808", "1.5", "true", "sum", "x", "", "3,4"])
            .prop_map(str::to_owned),
    ]
}

fn pair() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => (1i64..16, 1i64..16).prop_map(|(a, b)| format!("{a}x{b}")),
        1 => (value(), value()).prop_map(|(a, b)| format!("{a}x{b}")),
        1 => prop::sample::select(vec!["1x1", "1x7", "13x17", "56x56", "0x3", "3x3x3", "4"]).prop_map(str::to_owned),
    ]
}

fn settings() -> impl Strategy<Value = Vec<String>> {
    let heads = prop::sample::select(vec![1i64, 2, 3]);
    (heads, 1i64..9, pair(), value(), value(), prop::collection::vec((0usize..7, value()), 0..3)).prop_map(
        |(heads, width, grid, n, m, more)| {
            let mut out = vec![format!("C={}", heads * width), format!("H={heads}"), format!("grid={grid}")];
            out.extend([format!("N={n}"), format!("M={m}"), "K=5".to_owned()]);
            let names = ["k", "f", "r", "C", "H", "width", "image"];
            out.extend(more.into_iter().map(|(at, value)| format!("{}={value}", names[at])));
            out
        },
    )
}

/// Runs a verb on an item, leaving out what the item says it does not have.
fn run(verb: &[&str], item: &str, mut settings: Vec<String>) -> Result<(), TestCaseError> {
    for _ in 0..2 {
        let mut arguments: Vec<&str> = verb.to_vec();
        arguments.insert(1, item);
        for setting in &settings {
            arguments.extend(["--set", setting]);
        }
        let ran = foveate(&arguments);
        // 2 is for what is no setting at all, such as `C=`.
        prop_assert!(matches!(ran.code, Some(0..=2)) && !ran.err.contains("panicked"), "{arguments:?}: {}", ran.err);
        prop_assert!(
            ran.code == Some(0) || !(ran.err.is_empty() && ran.out.is_empty()),
            "{arguments:?} fails without a word"
        );
        prop_assert!(!ran.err.contains("internal error"), "{arguments:?}: {}", ran.err);
        let unknown = |setting: &String| {
            let name = setting.split('=').next().unwrap_or("");
            ran.err.contains(&format!("has no parameter `{name}`"))
        };
        if !settings.iter().any(unknown) {
            break;
        }
        settings.retain(|setting| !unknown(setting));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn no_settings_make_a_verb_panic(
        item in prop::sample::select(ITEMS.to_vec()),
        settings in settings(),
        batch in prop::sample::select(vec!["1", "3", "0", "99999999"]),
        verb in 0usize..4,
    ) {
        let out = tempfile::tempdir().expect("a folder");
        let folder = out.path().display().to_string();
        let verb: Vec<&str> = match verb {
            0 => vec!["explain", "--batch", batch],
            1 => vec!["explain", "--json", "--inference"],
            2 => vec!["info", "--params", "--batch", batch],
            _ => vec!["emit", "--target", "loops", "-o", &folder],
        };
        run(&verb, item, settings)?;
    }

    #[test]
    fn no_damage_to_a_spec_makes_a_verb_panic(
        item in prop::sample::select(ITEMS.to_vec()),
        settings in settings(),
        damages in damages(),
    ) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let (file, name) = item.split_once(':').expect("FILE:ITEM");
        let folder = tempfile::tempdir().expect("a folder");
        copy(&root.join("specs"), &folder.path().join("specs"));
        let path = folder.path().join(file);
        damage_text(&path, &damages);
        let path = path.display().to_string();
        run(&["check"], &path, Vec::new())?;
        run(&["fmt", "--check"], &path, Vec::new())?;
        run(&["explain"], &format!("{path}:{name}"), settings)?;
    }
}
