use foveate_compiler::check::Value;
use foveate_runtime::train::*;
use foveate_runtime::verify::*;
fn main() {
    let a: Vec<String> = std::env::args().skip(1).collect();
    let opt = |n: &str| a.iter().position(|x| x == n).map(|i| a[i + 1].clone());
    let sets: Vec<(String, Value)> = a
        .windows(2)
        .filter(|w| w[0] == "--set")
        .map(|w| {
            let (n, v) = w[1].split_once('=').unwrap();
            (n.to_owned(), Value::parse(v).unwrap())
        })
        .collect();
    let (file, item) = match a[1].rsplit_once(':') {
        Some((f, i)) => (f.to_owned(), Some(i.to_owned())),
        None => (a[1].clone(), None),
    };
    let device = opt("--device").unwrap_or("cpu".into());
    if a[0] == "train" {
        let o = TrainOptions {
            spec: file.into(),
            recipe: item,
            settings: sets,
            data: opt("--data").map(Into::into),
            device,
            out: opt("--out").unwrap().into(),
            resume: a.contains(&"--resume".to_owned()),
            max_steps: opt("--steps").map(|s| s.parse().unwrap()),
            quiet: false,
        };
        if a.contains(&"--profile".to_owned()) {
            let p = profile(&o).unwrap();
            for (n, t) in &p.stages {
                println!("{t:8.2} s  {n}");
            }
            println!("step {:.1} ms, kernels {:.1} ms, {:.0} images/s", p.step_ms, p.kernel_ms, p.images_per_second);
            for k in &p.kernels {
                println!("{:9.3} ms {:3} x {}", k.ms, k.launches, k.name);
            }
            return;
        }
        match train(&o) {
            Ok(o) => println!("{o:#?}"),
            Err(e) => {
                eprintln!("{e}");
                std::process::exit(1)
            }
        }
    } else {
        let o = VerifyOptions {
            spec: file.into(),
            item,
            against: opt("--against").unwrap().into(),
            settings: sets,
            device,
            rtol: None,
            grad_rtol: None,
            only: opt("--only"),
        };
        match verify(&o) {
            Ok(v) => {
                for r in &v.rows {
                    println!("{:40} {:.2e} {:.2e} {}", r.tensor, r.error, r.bound, r.pass)
                }
                println!("{}", if v.pass { "PASS" } else { "FAIL" })
            }
            Err(e) => {
                eprintln!("{e}");
                std::process::exit(1)
            }
        }
    }
}
