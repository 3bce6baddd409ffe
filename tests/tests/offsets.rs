//! Gradients of tables that attention reads by offset agree with those of the program as written, at awkward sizes.

use foveate_compiler::check::Value;
use foveate_compiler::grad::Seeds;
use foveate_compiler::ir::{ArgRole, ResultRole};
use foveate_compiler::schedule::variants::Choices;
use foveate_runtime::checkpoint::Data;
use foveate_runtime::device::Device;
use foveate_runtime::driver::{Request, Source, Wrt};
use foveate_runtime::plan::{Bindings, Memory, Session};
use foveate_runtime::rng::{Keyed, hash_bytes};

const SPEC: &str = "foveate 1

module Line(N, M, H, D) {
    index i: N
    index j: M
    axis Offset = N + M - 1
    table: param[H, Offset] = normal(1.0)

    forward(q[N, H, D], k[M, H, D], v[M, H, D]) -> [N, H, D] {
        score[h, i, j] = SCORE
        y[i, h, d] = sum(j) softmax(j)(score[h, i, j]) * v[j, h, d]
        return y
    }
}

module Plane(grid: (Gy, Gx), H, D) {
    axis Grid = Gy x Gx
    axis Dy = 2 * Gy - 1
    axis Dx = 2 * Gx - 1
    index i, j: Grid
    table: param[Dy, Dx, H] = normal(1.0)

    forward(q[Grid, H, D], k[Grid, H, D], v[Grid, H, D]) -> [Grid, H, D] {
        score[h, i, j] = table[i.row - j.row + Gy - 1, j.col - i.col + Gx - 1, h] + sum(d) q[i, h, d] * k[j, h, d]
        y[i, h, d] = sum(j) softmax(j)(score[h, i, j]) * v[j, h, d]
        return y
    }
}
";

/// The gradients of all parameters and of `q`, from values that depend on names alone; and whether a kernel collected by key.
fn gradients(
    source: &Source,
    item: &str,
    settings: &[(String, Value)],
    batch: usize,
    device: Device,
) -> (Vec<Vec<f64>>, bool) {
    let request = Request {
        item: Some(item),
        settings,
        training: true,
        random: true,
        batch,
        exposed: Vec::new(),
        gradients: Some((Seeds::Cotangents(vec!["y".into()]), Wrt::Names(vec!["table".into(), "q".into()]))),
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
    let read = |name: &str| {
        let (place, elem, _) = session.result(&ResultRole::Grad(name.into())).expect("a gradient");
        memory.read_f64(place, elem).expect("readable")
    };
    let kernels = compiled.graph.iter().flat_map(|g| &g.kernels);
    let keyed = kernels.flat_map(|k| &k.buffers).any(|b| b.name.ends_with(".parts"));
    (vec![read("table"), read("q")], keyed)
}

#[test]
fn tables_by_offset_collect_their_gradient() {
    let products = "sum(d) q[i, h, d] * k[j, h, d]";
    let scores = [
        format!("table[h, j - i + N - 1] + {products}"),
        format!("table[h, i - j + M - 1] * ({products})"),
        format!("if j <= i + 2 then table[h, i - j + M - 1] + {products} else -1.0e9"),
    ];
    let line = [(17, 17), (5, 23), (40, 19), (64, 64), (1, 9)].map(|(n, m)| ("Line", format!("N={n} M={m}")));
    let plane = [(5, 7), (4, 4), (1, 19), (13, 3)].map(|(y, x)| ("Plane", format!("grid={y}x{x}")));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("offsets.fov");
    // Runs that collected by key, and all; scores that are no larger than what they are made of are stored instead.
    let mut all = (0, 0);
    for (n, score) in scores.iter().enumerate() {
        std::fs::write(&path, SPEC.replace("SCORE", score)).expect("written");
        let source = Source::load(&path).unwrap_or_else(|e| panic!("{e}"));
        for (item, sizes) in line.iter().chain(plane.iter().filter(|_| n == 0)) {
            for (h, d, batch) in [(3, 5, 1), (1, 4, 9)] {
                let text = format!("{sizes} H={h} D={d}");
                let settings: Vec<(String, Value)> = (text.split(' ').filter_map(|s| s.split_once('=')))
                    .map(|(n, v)| (n.to_owned(), Value::parse(v).expect("a value")))
                    .collect();
                let on = |device| gradients(&source, item, &settings, batch, device);
                let (expected, _) = on(Device::Interpreter);
                let kernels = (batch == 1).then(|| Device::open("cpu").expect("a processor"));
                for device in [Some(Device::Loops), kernels].into_iter().flatten() {
                    let name = device.name();
                    let (found, keyed) = on(device);
                    all.0 += usize::from(keyed);
                    all.1 += 1;
                    for (a, b) in expected.iter().zip(&found) {
                        let size = a.iter().map(|x| x * x).sum::<f64>().sqrt();
                        let off = a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum::<f64>().sqrt();
                        assert!(
                            off <= 2e-5 * size.max(1e-3),
                            "{item} {text}, batch {batch}, {score} on {name}: {off:e} of {size:e}"
                        );
                    }
                }
            }
        }
    }
    assert!(2 * all.0 > all.1, "{all:?}");
}
