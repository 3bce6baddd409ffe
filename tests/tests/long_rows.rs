//! Attention over rows that are gone through strip by strip: values and gradients agree with those of the program as written, at awkward sizes, and are
//! the same bits on any number of threads.

use foveate_codegen::Device as Kernels;
use foveate_compiler::check::Value;
use foveate_compiler::grad::Seeds;
use foveate_compiler::ir::{ArgRole, ResultRole};
use foveate_compiler::schedule::variants::Choices;
use foveate_runtime::checkpoint::Data;
use foveate_runtime::device::Device;
use foveate_runtime::driver::{Request, Source, Wrt};
use foveate_runtime::plan::{Bindings, Memory, Session};
use foveate_runtime::rng::{Keyed, hash_bytes};
use std::sync::Arc;

const SPEC: &str = "foveate 1

module Long(N, M, H, D) {
    index i: N
    index j: M
    axis Offset = N + M - 1
    table: param[H, Offset] = normal(1.0)

    forward(q[N, H, D], k[M, H, D], v[M, H, D]) -> [N, H, D] {
        score[h, i, j] = SCORE
        y[i, h, d] = VALUE
        return y
    }
}
";

/// The output and all gradients, from values that depend on names alone; and whether rows were gone through in strips.
fn results(source: &Source, settings: &[(String, Value)], training: bool, device: Device) -> (Vec<Vec<f64>>, bool) {
    let names = ["table", "q", "k", "v"].map(str::to_owned).to_vec();
    let wrt = Wrt::Names(names.clone());
    let request = Request {
        item: Some("Long"),
        settings,
        training,
        random: true,
        batch: 1,
        exposed: Vec::new(),
        gradients: training.then(|| (Seeds::Cotangents(vec!["y".into()]), wrt)),
        choices: Choices::NONE,
    };
    let compiled = source.compile(&request, device.facts().as_ref()).unwrap_or_else(|e| panic!("{e}"));
    let mut memory = Memory::new(device).expect("memory");
    let session = Session::new(&mut memory, &compiled.program, compiled.graph.as_ref(), &Bindings::NONE);
    let session = session.unwrap_or_else(|e| panic!("{e}"));
    for arg in &compiled.program.entry().args {
        let (ArgRole::Param(name) | ArgRole::Input(name) | ArgRole::Cotangent(name)) = &arg.role else { continue };
        let place = session.arg(&arg.role).expect("an argument has a place");
        let mut random = Keyed::new(&[hash_bytes(name.as_bytes())]);
        let data = (0..place.len).map(|_| random.normal() as f32).collect();
        memory.write(place, &Data::F32(data)).unwrap_or_else(|e| panic!("{e}"));
    }
    session.run(&mut memory).unwrap_or_else(|e| panic!("{e}"));
    let roles = names.into_iter().filter(|_| training).map(ResultRole::Grad);
    let read = |role: ResultRole| {
        let (place, elem, _) = session.result(&role).expect("a result");
        memory.read_f64(place, elem).expect("readable")
    };
    let kernels = compiled.graph.iter().flat_map(|g| &g.kernels);
    let strips = kernels.flat_map(|k| &k.locals).any(|l| l.name.ends_with(".sums"));
    (roles.chain([ResultRole::Output("y".into())]).map(read).collect(), strips)
}

#[test]
fn long_rows_are_gone_through_in_strips() {
    let product = "(sum(d) q[i, h, d] * k[j, h, d])";
    let sum = "sum(j) softmax(j)(score[h, i, j]) * v[j, h, d]";
    let forms = [
        (format!("{product} * 0.5"), sum.to_owned()),
        // The largest score is in the last strip, and grows from strip to strip.
        (format!("{product} + 0.05 * j"), sum.to_owned()),
        // Whole strips are left out, the first or the last.
        (format!("if j + 500 >= i + M then {product} else -1.0e30"), sum.to_owned()),
        (
            format!("if j <= i + 1 then {product} + table[h, i - j + M - 1] else -1.0e30"),
            format!("v[0, h, d] + ({sum})"),
        ),
        (format!("if j + 500 >= i + M then {product} else log(0.0)"), sum.to_owned()),
        // Not relative to a maximum, or in other ways.
        (product.to_owned(), "sum(j) score[h, i, j] * v[j, h, d]".to_owned()),
        (product.to_owned(), "(max(j) score[h, i, j]) * sum(j) exp(0.1 * score[h, i, j]) * v[j, h, d]".to_owned()),
        (product.to_owned(), "sum(j) (score[h, i, j] - max(j) score[h, i, j]) * v[j, h, d]".to_owned()),
        (product.to_owned(), "sum(j) log_softmax(j)(score[h, i, j]) * v[j, h, d]".to_owned()),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("long.fov");
    let (mut all, mut of_strips) = (0, 0);
    for (score, value) in &forms {
        std::fs::write(&path, SPEC.replace("SCORE", score).replace("VALUE", value)).expect("written");
        let source = Source::load(&path).unwrap_or_else(|e| panic!("{e}"));
        for sizes in ["N=19 M=1213 H=1 D=17", "N=17 M=1627 H=1 D=16"] {
            let settings: Vec<(String, Value)> = (sizes.split(' ').filter_map(|s| s.split_once('=')))
                .map(|(n, v)| (n.to_owned(), Value::parse(v).expect("a value")))
                .collect();
            for training in [false, true] {
                let on = |device| results(&source, &settings, training, device);
                let (expected, _) = on(Device::Interpreter);
                let cpu = |threads| Device::Kernels(Arc::new(Kernels::processor(threads)));
                let (found, strips) = on(cpu(1));
                all += 1;
                of_strips += usize::from(strips);
                for (n, (a, b)) in expected.iter().zip(&found).enumerate() {
                    let size = a.iter().map(|x| x * x).sum::<f64>().sqrt();
                    let off = a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum::<f64>().sqrt();
                    assert!(
                        off <= 2e-5 * size.max(1e-3),
                        "{score}, {value} at {sizes}, result {n}, training {training}: {off:e} of {size:e}"
                    );
                }
                let bits = |v: &[Vec<f64>]| -> Vec<u64> { v.iter().flatten().map(|x| x.to_bits()).collect() };
                assert_eq!(bits(&on(cpu(3)).0), bits(&found), "{score} at {sizes}");
            }
        }
    }
    assert!(3 * of_strips >= all, "{of_strips} of {all}");
}
