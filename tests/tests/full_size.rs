//! The four architectures at full size, 224 x 224, batch 2: outputs in both modes, and the statistics of every gradient. Their weights come from a formula, which
//! is tested on the small ones.

use foveate_tests::full_size::{FULL_SIZE, has_formula, passes};
use foveate_tests::golden::MODELS;

#[test]
fn on_the_processor() {
    for (case, head_bound) in &FULL_SIZE {
        let start = std::time::Instant::now();
        passes(case, *head_bound);
        println!("{} in {:.1} s", case.name, start.elapsed().as_secs_f64());
    }
}

#[test]
fn small_cases_have_the_weights_of_the_formula() {
    MODELS.iter().for_each(has_formula);
}
