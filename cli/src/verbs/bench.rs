//! `foveate bench`: time and memory of an item.

use crate::args::{Bench, Part};
use crate::failure::Failure;
use crate::output::{self, Align, Table, bytes, count, si};
use crate::source;
use foveate_runtime::bench::{self, BenchOptions, Ceilings, Measurement, bench};
use foveate_runtime::device::Device;
use serde::Serialize;

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    measured: Measurement,
    ceilings: Option<Ceilings>,
}

/// Measures an item, and what the device can do at best if that is wanted.
pub fn run(arguments: &Bench) -> Result<(), Failure> {
    let options = BenchOptions {
        spec: arguments.target.item.file.clone(),
        item: arguments.target.item.item.clone(),
        settings: source::values(&arguments.target.settings.set)?,
        against: arguments.against.clone(),
        batch: arguments.batch,
        // `--backward` excludes another part.
        part: match arguments.part {
            Part::Inference => bench::Part::Inference,
            Part::Gradients => bench::Part::Gradients,
            Part::Step => bench::Part::Step,
        },
        memory: arguments.memory.map(|m| m.0),
        device: arguments.device.name().to_owned(),
        seconds: arguments.seconds,
        launches: arguments.kernels,
        tune: source::tune(arguments.tune, arguments.json),
    };
    let measured = bench(&options)?;
    let ceilings = match arguments.ceilings {
        true => Some(bench::ceilings(&Device::open(&options.device)?)?),
        false => None,
    };
    let report = Report { measured, ceilings };
    if arguments.json { output::say_json(&report) } else { output::say(&text(&report)) }
}

fn text(report: &Report) -> String {
    let Report { measured: m, ceilings } = report;
    let seconds = m.median_ms / 1e3;
    let share = |value: f64, of: fn(&Ceilings) -> f64| {
        ceilings.as_ref().map_or(String::new(), |c| format!("{:.0} %", 100.0 * value / of(c)))
    };
    let mut out = format!(
        "{:.3} ms the median of {} runs (half of them {:.3} to {:.3})\n{} flops: {}flop/s {}\n",
        m.median_ms,
        m.runs.len(),
        m.low_ms,
        m.high_ms,
        si(m.flops),
        si(m.flops / seconds),
        share(m.flops / seconds, |c| c.flops),
    );
    if let Some(c) = ceilings {
        out += &format!("at best {}flop/s and {}/s\n", si(c.flops), bytes(c.bandwidth));
    }
    out += &format!(
        "{}, {}; {:.2} s to the end of the first run, {:.2} s of that until the kernels were known\n",
        count(m.kernels, "kernel"),
        if m.launches == 1 { "1 launch".to_owned() } else { format!("{} launches", m.launches) },
        m.start_s,
        m.derive_s
    );
    out += &format!(
        "memory: {} for parameters, gradients and moments, {} on the device, {} the process at its peak\n",
        bytes(m.state_bytes as f64),
        bytes(m.device_bytes as f64),
        bytes(m.peak_bytes as f64)
    );
    if let Some(tuning) = &m.tuning {
        out += &format!("{tuning}\n");
    }
    if let Some(saving) = &m.saving {
        out += &format!("{saving}\n");
    }
    if !m.by_kernel.is_empty() {
        let columns = [("kernel", Align::Left), ("launches", Align::Right), ("ms", Align::Right)];
        let rates = [("flop/s", Align::Right), ("", Align::Right), ("bytes/s", Align::Right), ("", Align::Right)];
        let mut table = Table::new(columns.into_iter().chain(rates));
        for k in &m.by_kernel {
            let (flops, moved) = (1e3 * k.flops / k.ms, 1e3 * k.bytes / k.ms);
            table.row([
                k.name.clone(),
                k.launches.to_string(),
                format!("{:.3}", k.ms),
                si(flops),
                share(flops, |c| c.flops),
                bytes(moved),
                share(moved, |c| c.bandwidth),
            ]);
        }
        let total: f64 = m.by_kernel.iter().map(|k| k.ms).sum();
        out += &format!("\n{}{total:.3} ms in kernels, launched one by one\n", table.render());
    }
    out
}
