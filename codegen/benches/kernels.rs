//! Where the time of a spec's kernels goes: `cargo bench -p foveate-codegen --bench kernels -- SPEC ITEM BATCH [NAME=VALUE...]` compiles an item with
//! its gradient for the processor and times every launch. Without arguments it takes the demo's training step.

use foveate_codegen::{Backend, Device};
use foveate_compiler::check::{Spec, Value};
use foveate_compiler::compile::{Gradient, derive};
use foveate_compiler::grad::Seeds;
use foveate_compiler::ir::{Elem, ResultRole};
use foveate_compiler::loops::work::work;
use foveate_compiler::lower::{LowerOptions, lower};
use foveate_compiler::schedule::{BufferRole, schedule};
use foveate_dsl::{SourceMap, render::render};
use std::path::Path;
use std::time::Instant;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let text = |n: usize, default: &str| args.get(n).cloned().unwrap_or_else(|| default.to_owned());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (spec, item) = (text(0, "specs/demo/fashion.fov"), text(1, "FashionLoss"));
    let batch: usize = text(2, "64").parse().expect("a batch size");
    let settings: Vec<(String, Value)> = args
        .iter()
        .skip(3)
        .filter_map(|a| a.split_once('='))
        .map(|(n, v)| (n.to_owned(), Value::parse(v).expect("a value")))
        .collect();

    let clock = Instant::now();
    let mut sources = SourceMap::new();
    let loaded =
        Spec::load(&root.join(spec), &mut sources).unwrap_or_else(|d| panic!("{}", render(&d, &sources, false)));
    println!("check     {:8.1} ms", clock.elapsed().as_secs_f64() * 1e3);
    let clock = Instant::now();
    let options = LowerOptions { training: true, batch, exposed: Vec::new() };
    let lowered = lower(&loaded, Some(&item), &settings, &options, &sources)
        .unwrap_or_else(|d| panic!("{}", render(&d, &sources, false)));
    println!("lower     {:8.1} ms", clock.elapsed().as_secs_f64() * 1e3);
    let clock = Instant::now();
    let entry = lowered.program.entry();
    let outputs: Vec<(String, usize)> = entry
        .results
        .iter()
        .filter_map(|r| match &r.role {
            ResultRole::Output(n) => Some((n.clone(), lowered.program.shape(entry, r.tensor).len())),
            _ => None,
        })
        .collect();
    let scalars: Vec<String> = outputs.iter().filter(|(_, rank)| *rank == 0).map(|(n, _)| n.clone()).collect();
    let seeds = if scalars.is_empty() { outputs.into_iter().map(|(n, _)| n).collect() } else { scalars };
    let mut wrt: Vec<String> = lowered.params.iter().map(|p| p.name.clone()).collect();
    if item != "FashionLoss" {
        wrt.extend(entry.args.iter().filter_map(|a| match &a.role {
            foveate_compiler::ir::ArgRole::Input(n) if entry.tensor(a.tensor).elem == Elem::F32 => Some(n.clone()),
            _ => None,
        }));
    }
    let gradient = Gradient { seeds: Seeds::Cotangents(seeds), wrt };
    let derivation = derive(lowered.program, Some(&gradient), &mut |_, _| {}).expect("derives");
    println!("derive    {:8.1} ms", clock.elapsed().as_secs_f64() * 1e3);
    let clock = Instant::now();
    let device = Device::open(Backend::Cpu).expect("a processor");
    let graph = schedule(&derivation.program, &device.facts());
    println!(
        "schedule  {:8.1} ms, {} kernels, {} launches",
        clock.elapsed().as_secs_f64() * 1e3,
        graph.kernels.len(),
        graph.launches.len()
    );
    if std::env::var("FOVEATE_IR").is_ok() {
        println!("{}", derivation.program);
    }
    let clock = Instant::now();
    let one_by_one = std::env::var("FOVEATE_COMPILE").is_ok();
    let kernels: Vec<_> = graph
        .kernels
        .iter()
        .filter(|_| !one_by_one)
        .map(|k| device.compile(k).unwrap_or_else(|e| panic!("{e}\n{k}")))
        .collect();
    let buffers: Vec<_> = graph
        .buffers
        .iter()
        .map(|b| {
            let len: usize = b.shape.iter().product();
            let h = device.allocate(len * 4);
            let data: Vec<u8> = (0..len)
                .flat_map(|n| match (b.elem, &b.role) {
                    (Elem::F32, BufferRole::Arg(_)) => (((n * 7919 % 1009) as f32 - 504.0) / 5040.0).to_le_bytes(),
                    _ => 0u32.to_le_bytes(),
                })
                .collect();
            device.upload(&h, &data).expect("uploads");
            h
        })
        .collect();
    let run = |times: &mut [f64]| {
        for (l, t) in graph.launches.iter().zip(times.iter_mut()) {
            let bound: Vec<_> = l.buffers.iter().map(|&b| &buffers[b]).collect();
            let clock = Instant::now();
            device.launch(&kernels[l.kernel], &bound).expect("launches");
            device.sync().expect("runs");
            *t = t.min(clock.elapsed().as_secs_f64());
        }
    };
    if one_by_one {
        let mut done = vec![false; graph.kernels.len()];
        let mut all = Vec::new();
        for l in &graph.launches {
            if std::mem::replace(&mut done[l.kernel], true) {
                continue;
            }
            let clock = Instant::now();
            let k = device.compile(&graph.kernels[l.kernel]).expect("compiles");
            let bound: Vec<_> = l.buffers.iter().map(|&b| &buffers[b]).collect();
            device.launch(&k, &bound).expect("launches");
            device.sync().expect("runs");
            all.push((clock.elapsed().as_secs_f64() * 1e3, graph.kernels[l.kernel].values.len(), l.site.clone()));
        }
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        println!(
            "compiling {:8.1} ms one by one, {} values",
            all.iter().map(|a| a.0).sum::<f64>(),
            all.iter().map(|a| a.1).sum::<usize>()
        );
        for (t, values, site) in all.iter().take(60) {
            println!("{t:9.1} ms {values:6} values  {site}");
        }
        return;
    }
    let mut times = vec![f64::INFINITY; graph.launches.len()];
    run(&mut times);
    println!("compile   {:8.1} ms", clock.elapsed().as_secs_f64() * 1e3);
    times.fill(f64::INFINITY);
    (0..4).for_each(|_| run(&mut times));
    // Processor time of all threads, which other processes do not lengthen.
    let cpu: Vec<f64> = graph
        .launches
        .iter()
        .zip(&times)
        .map(|(l, t)| {
            let bound: Vec<_> = l.buffers.iter().map(|&b| &buffers[b]).collect();
            let n = ((0.06 / t) as usize).clamp(1, 100);
            let batch = || {
                let before = processor_time();
                for _ in 0..n {
                    device.launch(&kernels[l.kernel], &bound).expect("launches");
                    device.sync().expect("runs");
                }
                (processor_time() - before) / n as f64
            };
            (0..8).map(|_| batch()).fold(f64::INFINITY, f64::min)
        })
        .collect();
    let total: f64 = times.iter().sum();
    println!("run       {:8.1} ms, {:.0} a second", total * 1e3, batch as f64 / total);
    let mut order: Vec<usize> = (0..times.len()).collect();
    order.sort_by(|&a, &b| times[b].total_cmp(&times[a]));
    println!("{:>9} {:>9} {:>6} {:>9} {:>8} {:>7}  launch", "ms", "cpu ms", "%", "GFLOP/s", "GB/s", "items");
    for n in order.into_iter().take(text(args.len(), "45").parse().unwrap_or(45)) {
        let (l, t) = (&graph.launches[n], times[n]);
        let k = &graph.kernels[l.kernel];
        let w = work(k);
        println!(
            "{:9.3} {:9.3} {:6.1} {:9.1} {:8.1} {:7}  {n}: {} [{}]",
            t * 1e3,
            cpu[n] * 1e3,
            100.0 * t / total,
            w.flops / t / 1e9,
            w.bytes / t / 1e9,
            k.items,
            l.site,
            k.name
        );
    }
    if let Ok(name) = std::env::var("FOVEATE_KERNEL") {
        for l in graph.launches.iter().filter(|l| l.site.contains(&name)) {
            println!("{}\n{}", l.site, graph.kernels[l.kernel]);
        }
    }
}

/// Seconds that the threads of this process have run so far; 0 where the system does not say.
fn processor_time() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanoseconds = |task: std::fs::DirEntry| -> Option<f64> {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    tasks.filter_map(nanoseconds).sum::<f64>() / 1e9
}
