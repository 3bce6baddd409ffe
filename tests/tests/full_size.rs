//! The four architectures at full size, 224 x 224, batch 2: outputs in both modes, and the statistics of every gradient.

use foveate_tests::full_size::{FULL_SIZE, passes};

#[test]
fn on_the_processor() {
    for (case, head_bound) in &FULL_SIZE {
        let start = std::time::Instant::now();
        passes(case, *head_bound);
        println!("{} in {:.1} s", case.name, start.elapsed().as_secs_f64());
    }
}
