//! Whether an item gives the numbers of a safetensors file: its results, exposed values and gradients, tensor by tensor.
//!
//! | key | meaning |
//! |---|---|
//! | `input/N` | argument `N` of `forward` |
//! | `param/N` | parameter or state `N`; all of them, no more |
//! | `output/N` | result or exposed value `N` in training mode, with every `probability` at 0: nothing is dropped |
//! | `output/N_eval` | `N` in inference mode |
//! | `cotangent/N` | what result `N` is weighed with before gradients are taken; without any, the result `loss` is differentiated |
//! | `grad/N` | gradient with respect to input or parameter `N` |

use crate::checkpoint::fit::matches;
use crate::checkpoint::{Data, Tensor, Tensors, tensors::same_shape};
use crate::device::Device;
use crate::driver::{Compiled, Request, Source, Wrt};
use crate::error::{Error, Result};
use crate::plan::{Bindings, Memory, Session};
use foveate_compiler::check::Value;
use foveate_compiler::grad::Seeds;
use foveate_compiler::ir::{ArgRole, ResultRole};
use foveate_compiler::schedule::variants::Choices;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Share of the norm of all gradients that one may be off by in any case: some are exactly 0.
const FLOOR: f64 = 1e-7;

/// What to verify, and against what.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// The spec file.
    pub spec: PathBuf,
    /// The item; `None` if the file has only one.
    pub item: Option<String>,
    /// The tensors.
    pub against: PathBuf,
    /// Arguments of the item; whole lengths of axes may be left out.
    pub settings: Vec<(String, Value)>,
    /// A device's name.
    pub device: String,
    /// Bound on the relative L2 error of outputs; the device's if left out.
    pub rtol: Option<f64>,
    /// Bound on that of gradients.
    pub grad_rtol: Option<f64>,
    /// Compare only tensors whose name (`output/y`, or `y`) matches; `*` stands for anything.
    pub only: Option<String>,
}

/// How one tensor compares.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Its key in the file.
    pub tensor: String,
    /// L2 norm of the difference over that of the tensor; where the tensor is all zeros, the norm of the difference.
    pub error: f64,
    /// Largest difference of an element.
    pub max_error: f64,
    /// What `error` may be.
    pub bound: f64,
    /// Whether it is within the bound.
    pub pass: bool,
}

/// All comparisons.
#[derive(Clone, Debug, Serialize)]
pub struct Verification {
    /// One row a tensor, in the order outputs, gradients.
    pub rows: Vec<Row>,
    /// Whether all are within their bounds.
    pub pass: bool,
    /// The item's arguments, with those inferred from the tensors.
    pub settings: BTreeMap<String, String>,
    /// The batch size, from the inputs.
    pub batch: usize,
}

/// The tensors of the file by their kind.
struct Reference {
    path: PathBuf,
    inputs: Tensors,
    params: Tensors,
    outputs: Tensors,
    cotangents: Tensors,
    grads: Tensors,
}

/// Runs the item on the file's inputs and compares.
pub fn verify(options: &VerifyOptions) -> Result<Verification> {
    Run::prepare(options)?.compare(options)
}

/// The gradients that [`verify`] compares, for whoever knows them by other means than their elements: with respect to these inputs and
/// parameters, row-major.
pub fn gradients(options: &VerifyOptions, wrt: &[String]) -> Result<BTreeMap<String, Vec<f64>>> {
    let run = Run::prepare(options)?;
    let gradients = (run.seeds(), Wrt::Names(wrt.to_vec()));
    let results = run.results(&run.request(true, &[], Some(gradients)))?;
    wrt.iter().map(|name| Ok((name.clone(), result(&results, &ResultRole::Grad(name.clone()))?.1.to_vec()))).collect()
}

/// Results on the host: role, shape, elements.
type Results = Vec<(ResultRole, Vec<usize>, Vec<f64>)>;

/// An item with what it runs on.
struct Run {
    source: Source,
    device: Device,
    item: Option<String>,
    /// All arguments.
    settings: Vec<(String, Value)>,
    batch: usize,
    reference: Reference,
}

impl Run {
    fn prepare(options: &VerifyOptions) -> Result<Run> {
        let source = Source::load(&options.spec)?;
        let device = Device::open(&options.device)?;
        let reference = Reference::read(&options.against)?;
        let item = options.item.as_deref();
        let settings = source.infer(item, &options.settings, &shapes(&reference.inputs), &shapes(&reference.params))?;
        let batch = reference.inputs.iter().find_map(|(_, t)| t.shape.first().copied()).unwrap_or(1);
        Ok(Run { source, device, item: options.item.clone(), settings, batch, reference })
    }

    fn compare(&self, options: &VerifyOptions) -> Result<Verification> {
        let Run { device, reference, .. } = self;
        let (rtol, grad_rtol) = device.bounds();
        let (rtol, grad_rtol) = (options.rtol.unwrap_or(rtol), options.grad_rtol.unwrap_or(grad_rtol));
        let wanted = |key: &str| options.only.as_deref().is_none_or(|p| matches_key(p, key));

        // What the item can give, from lowering alone.
        let able = self.source.lower(&self.request(true, &[], None))?;
        let all = able.params.iter().chain(&able.states);
        reference.params.expect(&options.against, all.map(|p| (p.name.as_str(), p.shape.as_slice())))?;
        let given: Vec<&String> = able.results.iter().chain(able.exposed.iter().map(|e| &e.name)).collect();
        let has = |name: &str| given.iter().any(|n| *n == name);
        // By result and key: `output/NAME_eval` is the result NAME in inference, `output/NAME_train` and `output/NAME` in training.
        let (mut training, mut inference) = (Vec::new(), Vec::new());
        for (name, _) in reference.outputs.iter().filter(|(n, _)| wanted(&format!("output/{n}"))) {
            let base = |suffix: &str| name.strip_suffix(suffix).filter(|b| has(b)).map(str::to_owned);
            if has(name) {
                training.push((name.clone(), name.clone()));
            } else if let Some(base) = base("_train") {
                training.push((base, name.clone()));
            } else if let Some(base) = base("_eval") {
                inference.push((base, name.clone()));
            } else {
                return Err(Error::file(
                    &options.against,
                    format!(
                        "`output/{name}`: the item has no such result; it gives {} (leave the tensor out with --only)",
                        given.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
                    ),
                ));
            }
        }
        let grads: Vec<String> =
            reference.grads.iter().map(|(n, _)| n.clone()).filter(|n| wanted(&format!("grad/{n}"))).collect();
        let known =
            |name: &String| able.params.iter().any(|p| p.name == *name) || able.inputs.iter().any(|i| i.name == *name);
        if let Some(name) = grads.iter().find(|name| !known(name)) {
            let found =
                format!("`grad/{name}`: the item has no such parameter or input (leave the tensor out with --only)");
            return Err(Error::file(&options.against, found));
        }
        let exposed = |names: &[String]| -> Vec<String> {
            let mut out: Vec<String> = names.iter().filter(|n| !able.results.contains(n)).cloned().collect();
            out.dedup();
            out
        };
        let bases = |of: &[(String, String)]| of.iter().map(|(base, _)| base.clone()).collect::<Vec<_>>();

        let mut rows = Vec::new();
        if !training.is_empty() || !grads.is_empty() {
            let cotangents: Vec<String> = reference.cotangents.iter().map(|(n, _)| n.clone()).collect();
            let gradients = (!grads.is_empty()).then(|| (self.seeds(), Wrt::Names(grads.clone())));
            let mut needed = exposed(&bases(&training));
            if gradients.is_some() {
                needed.extend(exposed(&cotangents).into_iter().filter(|n| !training.iter().any(|(base, _)| base == n)));
            }
            let results = self.results(&self.request(true, &needed, gradients))?;
            for (base, key) in &training {
                rows.push(compare_output(&results, base, key, reference, rtol)?);
            }
            let total = norm(reference.grads.iter().flat_map(|(_, t)| t.data.to_f64()));
            for name in &grads {
                let (shape, got) = result(&results, &ResultRole::Grad(name.clone()))?;
                let key = format!("grad/{name}");
                let expected = fitting(reference, &reference.grads, &key, name, shape, false)?;
                rows.push(compare(key, &expected, got, grad_rtol, FLOOR * total));
            }
        }
        if !inference.is_empty() {
            let results = self.results(&self.request(false, &exposed(&bases(&inference)), None))?;
            for (base, key) in &inference {
                rows.push(compare_output(&results, base, key, reference, rtol)?);
            }
        }
        if rows.is_empty() {
            return Err(Error::file(
                &options.against,
                "there is nothing to compare: no `output/*` or `grad/*` was chosen",
            ));
        }
        Ok(Verification {
            pass: rows.iter().all(|r| r.pass),
            rows,
            settings: self.settings.iter().map(|(n, v)| (n.clone(), v.to_string())).collect(),
            batch: self.batch,
        })
    }

    fn request(&self, training: bool, exposed: &[String], gradients: Option<(Seeds, Wrt)>) -> Request<'_> {
        Request {
            item: self.item.as_deref(),
            settings: &self.settings,
            training,
            random: false,
            batch: self.batch,
            exposed: exposed.to_vec(),
            gradients,
            choices: Choices::NONE,
        }
    }

    /// What is differentiated.
    fn seeds(&self) -> Seeds {
        let cotangents: Vec<String> = self.reference.cotangents.iter().map(|(n, _)| n.clone()).collect();
        if cotangents.is_empty() { Seeds::Loss } else { Seeds::Cotangents(cotangents) }
    }

    /// Compiles and runs the item on the reference's inputs and parameters.
    fn results(&self, request: &Request<'_>) -> Result<Results> {
        let compiled = self.source.compile(request, self.device.facts().as_ref())?;
        let Compiled { program, graph, .. } = &compiled;
        let mut memory = Memory::new(self.device.clone())?;
        let session = Session::new(&mut memory, program, graph.as_ref(), &Bindings::NONE)?;
        let entry = program.entry();
        for arg in &entry.args {
            let Some(place) = session.arg(&arg.role) else { continue };
            let shape = program.shape(entry, arg.tensor);
            let reference = &self.reference;
            let data = match &arg.role {
                ArgRole::Param(n) | ArgRole::State(n) => match reference.params.get(n) {
                    Some(t) => t.data.clone(),
                    None => continue, // a counter that may be absent
                },
                ArgRole::Input(n) => {
                    let key = format!("input/{n}");
                    let data = fitting(reference, &reference.inputs, &key, n, &shape, true)?;
                    compiled
                        .check_labels(n, &data)
                        .map_err(|e| Error::file(&reference.path, format!("`{key}`: {e}")))?;
                    data
                }
                ArgRole::Cotangent(n) => {
                    fitting(reference, &reference.cotangents, &format!("cotangent/{n}"), n, &shape, true)?
                }
                ArgRole::Key => Data::I64(vec![0, 0]),
                ArgRole::Saved(_) => continue,
            };
            memory.write(place, &data)?;
        }
        session.run(&mut memory)?;
        let mut out = Vec::new();
        for r in &entry.results {
            if let Some((place, elem, shape)) = session.result(&r.role) {
                out.push((r.role.clone(), shape.to_vec(), memory.read_f64(place, elem)?));
            }
        }
        Ok(out)
    }
}

fn result<'r>(results: &'r Results, role: &ResultRole) -> Result<(&'r [usize], &'r [f64])> {
    let found = results.iter().find(|(r, _, _)| r == role);
    let (_, shape, data) = found.ok_or_else(|| Error::Setting(format!("the program gives no {role:?}")))?;
    Ok((shape, data))
}

fn compare_output(results: &Results, name: &str, key: &str, reference: &Reference, rtol: f64) -> Result<Row> {
    let output = ResultRole::Output(name.to_owned());
    let role = if results.iter().any(|r| r.0 == output) { output } else { ResultRole::Exposed(name.to_owned()) };
    let (shape, got) = result(results, &role)?;
    let full = format!("output/{key}");
    let expected = fitting(reference, &reference.outputs, &full, key, shape, true)?;
    Ok(compare(full, &expected, got, rtol, 0.0))
}

/// The elements of a tensor of the file, if its shape says the same as the program's.
fn fitting(reference: &Reference, from: &Tensors, key: &str, name: &str, shape: &[usize], batch: bool) -> Result<Data> {
    let tensor = from
        .get(name)
        .ok_or_else(|| Error::file(&reference.path, format!("missing `{key}`: expected shape {shape:?}")))?;
    if coarser(&tensor.shape, shape, batch) {
        return Ok(tensor.data.clone());
    }
    Err(Error::file(&reference.path, format!("`{key}`: expected shape {shape:?}, found {:?}", tensor.shape)))
}

/// Whether `coarse` is `fine` with some neighbouring dimensions merged. With `batch`, the first dimension stands for itself.
fn coarser(coarse: &[usize], fine: &[usize], batch: bool) -> bool {
    if same_shape(coarse, fine) {
        return true;
    }
    let (coarse, fine) = match (batch, coarse, fine) {
        (true, [a, c @ ..], [b, f @ ..]) if a == b => (c, f),
        (true, ..) => return false,
        (false, ..) => (coarse, fine),
    };
    let mut rest = fine.iter();
    for &whole in coarse {
        let mut product = 1;
        while product < whole {
            match rest.next() {
                Some(d) => product *= d,
                None => return false,
            }
        }
        if product != whole {
            return false;
        }
    }
    rest.all(|&d| d == 1)
}

fn compare(tensor: String, expected: &Data, got: &[f64], rtol: f64, floor: f64) -> Row {
    let expected = expected.to_f64();
    let size = norm(expected.iter().copied());
    let difference = || expected.iter().zip(got).map(|(a, b)| a - b);
    let distance = norm(difference());
    let max_error = difference().fold(0.0, |m: f64, d| if d.is_nan() { f64::NAN } else { m.max(d.abs()) });
    let scale = if size > 0.0 { size } else { 1.0 };
    let (error, bound) = (distance / scale, (rtol * size + floor) / scale);
    // Written so that NaN fails.
    Row { tensor, error, max_error, bound, pass: error <= bound }
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|x| x * x).sum::<f64>().sqrt()
}

impl Reference {
    fn read(path: &std::path::Path) -> Result<Reference> {
        let mut out = Reference {
            path: path.to_owned(),
            inputs: Tensors::default(),
            params: Tensors::default(),
            outputs: Tensors::default(),
            cotangents: Tensors::default(),
            grads: Tensors::default(),
        };
        for (key, tensor) in Tensors::read(path)?.iter() {
            let (kind, name) = key.split_once('/').unwrap_or(("", key));
            let group = match kind {
                "input" => &mut out.inputs,
                "param" => &mut out.params,
                "output" => &mut out.outputs,
                "cotangent" => &mut out.cotangents,
                "grad" => &mut out.grads,
                _ => {
                    return Err(Error::file(
                        path,
                        format!(
                            "`{key}`: expected a name that begins with input/, param/, output/, cotangent/ or grad/"
                        ),
                    ));
                }
            };
            group.insert(name.to_owned(), tensor.clone());
        }
        Ok(out)
    }
}

fn shapes(tensors: &Tensors) -> Vec<(String, Vec<usize>)> {
    tensors.iter().map(|(n, t): (&String, &Tensor)| (n.clone(), t.shape.clone())).collect()
}

/// Whether a pattern with `*` matches a key (`output/y`) or its name (`y`).
fn matches_key(pattern: &str, key: &str) -> bool {
    matches(pattern, key) || key.split_once('/').is_some_and(|(_, name)| matches(pattern, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_that_say_the_same() {
        assert!(coarser(&[2, 25, 8], &[2, 5, 5, 8], true));
        assert!(coarser(&[2, 5, 5, 8], &[2, 5, 5, 8], true));
        assert!(coarser(&[2, 5, 5, 8], &[2, 5, 5, 2, 4], true));
        assert!(coarser(&[1], &[], true) && coarser(&[], &[], true));
        assert!(coarser(&[8, 1], &[8], false) && coarser(&[8], &[8, 1], false));
        assert!(!coarser(&[50, 8], &[2, 5, 5, 8], true));
        assert!(!coarser(&[2, 24, 8], &[2, 5, 5, 8], true));
        assert!(!coarser(&[2, 25], &[2, 5, 5, 8], true));
    }

    #[test]
    fn patterns() {
        assert!(
            matches_key("output/*", "output/y")
                && matches_key("y", "output/y")
                && matches_key("*.weight", "grad/a.weight")
        );
        assert!(!matches_key("z", "output/y") && !matches_key("grad/*", "output/y"));
    }

    #[test]
    fn bounds_are_relative_with_a_floor() {
        let row = |e: &[f32], g: &[f64], floor| compare("t".into(), &Data::F32(e.to_vec()), g, 1e-3, floor);
        let r = row(&[3.0, 4.0], &[3.0, 4.004], 0.0);
        assert!((r.error - 0.0008).abs() < 1e-6 && (r.max_error - 0.004).abs() < 1e-6 && r.pass);
        assert!(!row(&[3.0, 4.0], &[3.0, 4.006], 0.0).pass && row(&[3.0, 4.0], &[3.0, 4.006], 0.01).pass);
        assert!(!row(&[1.0], &[f64::NAN], 1.0).pass);
        assert!(row(&[0.0], &[0.5], 1.0).pass && !row(&[0.0], &[0.5], 0.1).pass);
    }
}
