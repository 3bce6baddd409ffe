//! The oracle: the index IR in float64, definition by definition, as written. Simple, slow and never optimised.
//!
//! Integers and booleans are exact in an f64; u32 operations wrap. Every read is checked.

mod eval;

use crate::check::elaborator::MAX_ELEMENTS;
use crate::ir::{ArgRole, Components, Elem, FuncId, Function, Program, ResultRole, Stmt, TensorId};
use eval::Evaluator;

/// A dense array.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Dimensions, row-major.
    pub shape: Vec<usize>,
    /// The elements.
    pub data: Vec<f64>,
}

impl Array {
    /// An array of one value.
    pub fn full(shape: Vec<usize>, value: f64) -> Array {
        let n = shape.iter().product();
        Array { shape, data: vec![value; n] }
    }
}

/// Why a program could not be run.
#[derive(Clone, Debug, PartialEq)]
pub enum InterpError {
    /// An argument of the entry function was not given.
    Missing(ArgRole),
    /// An argument has another shape: the role, expected, found.
    Shape(ArgRole, Vec<usize>, Vec<usize>),
    /// A read outside its tensor: the function, the tensor, the index, the shape.
    OutOfRange(String, String, Vec<i64>, Vec<usize>),
    /// A definition with more elements than are stored here, where all are: the function, the tensor, the shape.
    TooLarge(String, String, Vec<usize>),
}

impl std::fmt::Display for InterpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            InterpError::Missing(role) => write!(f, "no value was given for {role:?}"),
            InterpError::Shape(role, want, got) => write!(f, "{role:?} has shape {got:?}; the program takes {want:?}"),
            InterpError::OutOfRange(function, tensor, at, shape) => {
                write!(f, "in `{function}`, `{tensor}` of shape {shape:?} is read at {at:?}")
            }
            InterpError::TooLarge(function, tensor, shape) => {
                write!(
                    f,
                    "in `{function}`, `{tensor}` of shape {shape:?} is too large: the interpreter stores every definition"
                )
            }
        }
    }
}

impl std::error::Error for InterpError {}

/// Runs the entry function. Results come in the function's order.
///
/// # Errors
/// A missing or misshapen argument, or a read outside a tensor.
pub fn run(program: &Program, args: &[(ArgRole, Array)]) -> Result<Vec<(ResultRole, Array)>, InterpError> {
    let entry = program.entry();
    let mut values = Vec::new();
    for a in &entry.args {
        let (_, value) =
            args.iter().find(|(role, _)| *role == a.role).ok_or_else(|| InterpError::Missing(a.role.clone()))?;
        let want = program.shape(entry, a.tensor);
        if value.shape != want {
            return Err(InterpError::Shape(a.role.clone(), want, value.shape.clone()));
        }
        values.push(value.clone());
    }
    let results = call(program, program.entry, values)?;
    Ok(entry.results.iter().map(|r| r.role.clone()).zip(results).collect())
}

/// Runs a function on its arguments, in order.
fn call(program: &Program, function: FuncId, args: Vec<Array>) -> Result<Vec<Array>, InterpError> {
    let f = &program.functions[function.index()];
    let mut tensors: Vec<Option<Array>> = vec![None; f.tensors.len()];
    for (a, value) in f.args.iter().zip(args) {
        tensors[a.tensor.index()] = Some(value);
    }
    let needed = needed(f);
    for (stmt, _) in f.body.iter().zip(needed).filter(|(_, needed)| *needed) {
        match stmt {
            Stmt::Define(d) => {
                let shape = program.shape(f, d.tensor);
                if shape.iter().map(|&n| n as f64).product::<f64>() > MAX_ELEMENTS as f64 {
                    return Err(InterpError::TooLarge(f.name.clone(), f.tensor(d.tensor).name.clone(), shape));
                }
                let mut out = Array::full(shape, 0.0);
                for clause in &d.clauses {
                    Evaluator { program, function: f, tensors: &tensors }.clause(clause, &mut out)?;
                }
                if f.tensor(d.tensor).elem == Elem::U32 {
                    out.data.iter_mut().for_each(|x| *x = x.rem_euclid(4_294_967_296.0));
                }
                tensors[d.tensor.index()] = Some(out);
            }
            Stmt::Call(c) => {
                let args = c.args.iter().map(|&t| get(&tensors, t).clone()).collect();
                for (&t, value) in c.results.iter().zip(call(program, c.function, args)?) {
                    tensors[t.index()] = Some(value);
                }
            }
            Stmt::Components(c) => tensors[c.labels.index()] = Some(components(c, get(&tensors, c.mask))),
        }
    }
    Ok(f.results.iter().map(|r| get(&tensors, r.tensor).clone()).collect())
}

fn get(tensors: &[Option<Array>], t: TensorId) -> &Array {
    tensors[t.index()].as_ref().expect("verified programs define tensors before they are read")
}

/// Which statements some result depends on.
fn needed(f: &Function) -> Vec<bool> {
    let mut live = vec![false; f.tensors.len()];
    f.results.iter().for_each(|r| live[r.tensor.index()] = true);
    let mut out = vec![false; f.body.len()];
    for (n, stmt) in f.body.iter().enumerate().rev() {
        out[n] = stmt.defines().iter().any(|t| live[t.index()]);
        if out[n] {
            stmt.reads().iter().for_each(|t| live[t.index()] = true);
        }
    }
    out
}

/// Labels by union-find, the smaller position as root.
fn components(c: &Components, mask: &Array) -> Array {
    let [.., height, width] = mask.shape[..] else { return Array::full(mask.shape.clone(), 0.0) };
    let mut out = Array::full(mask.shape.clone(), -1.0);
    for (labels, mask) in out.data.chunks_mut(height * width).zip(mask.data.chunks(height * width)) {
        let mut parent: Vec<usize> = (0..height * width).collect();
        fn root(parent: &mut [usize], mut p: usize) -> usize {
            while parent[p] != p {
                parent[p] = parent[parent[p]];
                p = parent[p];
            }
            p
        }
        for y in 0..height {
            for x in 0..width {
                let before: &[(i64, i64)] =
                    if c.connectivity == 8 { &[(-1, -1), (-1, 0), (-1, 1), (0, -1)] } else { &[(-1, 0), (0, -1)] };
                for (dy, dx) in before {
                    let (ny, nx) = (y as i64 + dy, x as i64 + dx);
                    if ny < 0 || nx < 0 || nx >= width as i64 {
                        continue;
                    }
                    let (a, b) = (y * width + x, ny as usize * width + nx as usize);
                    if mask[a] != 0.0 && mask[b] != 0.0 {
                        let (a, b) = (root(&mut parent, a), root(&mut parent, b));
                        parent[a.max(b)] = a.min(b);
                    }
                }
            }
        }
        for p in 0..labels.len() {
            if mask[p] != 0.0 {
                labels[p] = root(&mut parent, p) as f64;
            }
        }
    }
    out
}
