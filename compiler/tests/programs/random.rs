//! Random programs keep their values through all passes.

use crate::build::rewritten;
use crate::generate::{cases, program};
use crate::value::is_tame;
use foveate_compiler::rewrite::pipeline;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(500), failure_persistence: None, max_global_rejects: 100_000, ..ProptestConfig::default() })]
    #[test]
    fn all_passes_keep_all_values(seed in proptest::collection::vec(any::<u8>(), 40..400)) {
        let p = program(&seed);
        prop_assume!(is_tame(&p, &[0, 1]));
        let (after, _) = rewritten(&p, pipeline::BEFORE);
        rewritten(&after, pipeline::AFTER);
    }
}
