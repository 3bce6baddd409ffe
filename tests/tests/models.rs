//! The architectures: what they can do besides their published forms, against numbers of PyTorch (`tests/fixtures/models/make.py`), and
//! what a training step at full size needs, from the plan alone.

use foveate_compiler::check::Value;
use foveate_compiler::schedule::Facts;
use foveate_compiler::schedule::variants::Choices;
use foveate_runtime::driver::{Request, Source, gradient};
use foveate_runtime::plan::scratch_bytes;
use foveate_runtime::verify::{VerifyOptions, verify};
use foveate_tests::golden::root;

fn settings(text: &str) -> Vec<(String, Value)> {
    let value = |setting: &str| {
        let (name, value) = setting.split_once('=').expect("NAME=VALUE");
        (name.to_owned(), Value::parse(value).expect("a value"))
    };
    text.split_whitespace().map(value).collect()
}

/// The names of a model's parameters.
fn parameters(spec: &str, item: &str, with: &str) -> Vec<String> {
    let source = Source::load(&root().join("specs/models").join(spec)).unwrap_or_else(|e| panic!("{e}"));
    let settings = settings(with);
    let lowered = source.lower(&Request::inference(Some(item), &settings, 1));
    lowered.unwrap_or_else(|e| panic!("{item} {with}: {e}")).params.into_iter().map(|p| p.name).collect()
}

#[test]
fn optional_parts_give_the_same_numbers() {
    for (file, spec, item, with) in [
        (
            "dense",
            "sp_vit.fov",
            "SpVit",
            "image=32 classes=7 C=12 depth=3 H=3 mlp_ratio=2 skip_lam=2 sp_layers=2 stem=8 dense=true",
        ),
        ("skip", "deit_sar.fov", "DeitSar", "image=32 classes=7 C=12 depth=2 H=3 mlp_ratio=2 last_skip=true"),
    ] {
        for device in ["interpreter", "cpu"] {
            let found = verify(&VerifyOptions {
                spec: root().join("specs/models").join(spec),
                item: Some(item.to_owned()),
                against: root().join("tests/fixtures/models").join(format!("{file}.safetensors")),
                settings: settings(with),
                device: device.to_owned(),
                rtol: None,
                grad_rtol: None,
                only: None,
            });
            let found = found.unwrap_or_else(|e| panic!("{file} on {device}: {e}"));
            assert!(found.pass && found.rows.len() == 1, "{file} on {device}: {:?}", found.rows);
        }
    }
}

#[test]
fn every_size_takes_them() {
    let has = |names: &[String], name: &str| names.iter().any(|n| n == name);
    for (item, layers) in [("SpVitS", 14), ("SpVitM", 10), ("SpVitL", 22)] {
        for loss in ["", "Loss"] {
            let item = format!("{item}{loss}");
            let of = |with: &str| parameters("sp_vit.fov", &item, &format!("image=32 {with}"));
            let published = of("");
            assert!(!has(&published, "aux_head.weight"), "{item}");
            assert!(has(&published, &format!("blocks.{}.attn.w2", layers - 1)), "{item}");
            assert!(has(&published, &format!("blocks.{layers}.attn.qkv.weight")), "{item}");
            let other = of("dense=true sp_layers=3");
            assert!(has(&other, "aux_head.weight") && has(&other, "aux_head.bias"), "{item}");
            assert!(has(&other, "blocks.2.attn.w2") && has(&other, "blocks.3.attn.qkv.weight"), "{item}");
        }
    }
    for item in ["DeitSarTiny", "DeitSarSmall", "DeitSarBase"] {
        for loss in ["", "Loss"] {
            let item = format!("{item}{loss}");
            let of = |with: &str| parameters("deit_sar.fov", &item, &format!("image=32 {with}"));
            assert!(!has(&of(""), "blocks.11.norm2.weight"), "{item}");
            assert!(has(&of("last_skip=true"), "blocks.11.norm2.weight"), "{item}");
        }
    }
}

#[test]
fn a_step_at_full_size_is_planned_in_little_memory() {
    const BATCH: usize = 8;
    let facts = Facts { lanes: 16, ..Facts::USUAL };
    for (spec, item) in [
        ("sp_vit.fov", "SpVitSLoss"),
        ("vvt.fov", "VvtTinyLoss"),
        ("simvit.fov", "SimVitMicroLoss"),
        ("deit_sar.fov", "DeitSarTinyLoss"),
    ] {
        let source = Source::load(&root().join("specs/models").join(spec)).unwrap_or_else(|e| panic!("{e}"));
        let mut request = Request {
            item: Some(item),
            settings: &[],
            random: true,
            training: true,
            batch: BATCH,
            exposed: Vec::new(),
            gradients: None,
            choices: Choices::NONE,
        };
        request.gradients = Some(gradient(&source.lower(&request).unwrap_or_else(|e| panic!("{item}: {e}"))));
        let compiled = source.compile(&request, Some(&facts)).unwrap_or_else(|e| panic!("{item}: {e}"));
        let elements = |shape: &[usize]| shape.iter().product::<usize>();
        // Parameters, their gradients and two moments, images, and what is kept between forward and backward.
        let parameters: usize = compiled.lowered.params.iter().map(|p| elements(&p.shape)).sum();
        let graph = compiled.graph.as_ref().expect("a schedule");
        let planned = 4 * (4 * parameters + BATCH * 3 * 224 * 224) + scratch_bytes(graph);
        let (kernels, launches) = (graph.kernels.len(), graph.launches.len());
        println!("{item}: {planned} bytes planned, {kernels} kernels, {launches} launches");
        assert!(planned < 6_000_000_000, "{item}: {planned} bytes");
        // Blocks that repeat share their kernels.
        assert!(kernels < 450, "{item}: {kernels} kernels");
        // A budget is kept by tensors that lie closer, then by computing blocks again, as far as that goes.
        let within = |bytes: usize| source.compile_within(&request, Some(&facts), bytes, &|_| Ok(0));
        let all = within(usize::MAX).unwrap_or_else(|e| panic!("{item}: {e}")).saving.expect("a budget");
        assert_eq!((all.recomputed, all.bytes), (0, all.saving_all), "{item}");
        let close = within(all.bytes - 1).unwrap_or_else(|e| panic!("{item}: {e}")).saving.expect("a budget");
        assert!(close.recomputed == 0 || close.saving_all == all.saving_all, "{item}: {close}");
        let less = close.saving_all - close.saving_all / 64;
        let some = within(less).unwrap_or_else(|e| panic!("{item}: {e}")).saving.expect("a budget");
        println!("{item}: {some}");
        assert!(some.recomputed > 0 && some.bytes <= less && some.work > 1.0, "{item}: {some}");
        let message = within(1 << 20).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(message.contains("MiB at least") && message.contains("the budget is 1 MiB"), "{item}: {message}");
    }
}

#[test]
fn kernels_bind_no_more_tensors_than_the_device_allows() {
    let facts = Facts {
        lanes: 4,
        units: 4096,
        local_bytes: 4 << 10,
        registers: 16,
        tensors: 16,
        lockstep: true,
        pairs: 1 << 20,
    };
    let tiny = "image=32 classes=10 dims=16,24,32,40 mlp_ratios=4,4,2,2";
    for (spec, item, with) in [
        (
            "sp_vit.fov",
            "SpVitLoss",
            "image=64 classes=10 C=36 depth=3 H=3 mlp_ratio=3 skip_lam=2 sp_layers=2".to_owned(),
        ),
        ("vvt.fov", "VvtLoss", format!("{tiny} heads=1,1,2,2 depths=1,1,2,1")),
        ("simvit.fov", "SimVitLoss", format!("{tiny} heads=1,2,2,4 depths=1,2,1,1")),
        ("deit_sar.fov", "DeitSarLoss", "image=224 classes=10 C=24 depth=2 H=3 mlp_ratio=2".to_owned()),
    ] {
        let source = Source::load(&root().join("specs/models").join(spec)).unwrap_or_else(|e| panic!("{e}"));
        let settings = settings(&with);
        let mut request = Request { training: true, ..Request::inference(Some(item), &settings, 2) };
        request.gradients = Some(gradient(&source.lower(&request).unwrap_or_else(|e| panic!("{item}: {e}"))));
        let compiled = source.compile(&request, Some(&facts)).unwrap_or_else(|e| panic!("{item}: {e}"));
        for kernel in &compiled.graph.as_ref().expect("a schedule").kernels {
            assert!(kernel.buffers.len() <= facts.tensors, "{item}: {} of {}", kernel.buffers.len(), kernel.name);
        }
    }
}
