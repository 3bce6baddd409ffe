//! One expression at one point.

use super::{Array, InterpError};
use crate::ir::expr::random;
use crate::ir::index::Atom;
use crate::ir::{
    BinaryOp, Bounds, Clause, Elem, Expr, Function, Index, Monoid, Node, Pred, Program, Reduction, TensorId, VarId,
};
use rayon::prelude::*;

/// Evaluates the definitions of one function.
pub struct Evaluator<'a> {
    pub program: &'a Program,
    pub function: &'a Function,
    pub tensors: &'a [Option<Array>],
}

type Value = Result<f64, InterpError>;

impl Evaluator<'_> {
    /// Fills the elements that a clause defines.
    pub fn clause(&self, clause: &Clause, out: &mut Array) -> Result<(), InterpError> {
        let sizes: Vec<usize> = clause.vars.iter().map(|&v| self.size(v)).collect();
        let total: usize = sizes.iter().product();
        let block = total.div_ceil(64).max(256);
        let parts: Vec<Vec<(usize, f64)>> = (0..total.div_ceil(block))
            .into_par_iter()
            .map(|b| {
                let mut env = vec![0i64; self.function.vars.len()];
                (b * block..total.min((b + 1) * block))
                    .map(|n| {
                        let mut rest = n;
                        for (&v, &size) in clause.vars.iter().zip(&sizes).rev() {
                            env[v.index()] = (rest % size) as i64;
                            rest /= size;
                        }
                        let at = clause.at.iter().map(|i| self.index(i, &mut env)).collect::<Result<Vec<_>, _>>()?;
                        let place = flat(&at, &out.shape)
                            .ok_or_else(|| self.out_of_range("the defined tensor".into(), at, &out.shape))?;
                        Ok((place, self.eval(&clause.body, &mut env)?))
                    })
                    .collect::<Result<Vec<_>, InterpError>>()
            })
            .collect::<Result<_, _>>()?;
        for (place, value) in parts.into_iter().flatten() {
            out.data[place] = value;
        }
        Ok(())
    }

    fn size(&self, v: VarId) -> usize {
        self.program.size(self.function.var(v).axis)
    }

    fn out_of_range(&self, tensor: String, at: Vec<i64>, shape: &[usize]) -> InterpError {
        InterpError::OutOfRange(self.function.name.clone(), tensor, at, shape.to_vec())
    }

    fn tensor(&self, t: TensorId) -> &Array {
        super::get(self.tensors, t)
    }

    fn index(&self, index: &Index, env: &mut Vec<i64>) -> Result<i64, InterpError> {
        let mut sum = index.offset;
        for (atom, c) in &index.terms {
            sum += c * match atom {
                Atom::Var(v) => env[v.index()],
                Atom::Div(e, k) => self.index(e, env)?.div_euclid(*k),
                Atom::Mod(e, k) => self.index(e, env)?.rem_euclid(*k),
                Atom::Clamp(e, lo, hi) => self.index(e, env)?.clamp(*lo, *hi),
                Atom::Data(e) => self.eval(e, env)? as i64,
            };
        }
        Ok(sum)
    }

    fn test(&self, p: &Pred, env: &mut Vec<i64>) -> Result<bool, InterpError> {
        Ok(match p {
            Pred::True => true,
            Pred::Zero(i) => self.index(i, env)? == 0,
            Pred::NonNeg(i) => self.index(i, env)? >= 0,
            Pred::Value(e) => self.eval(e, env)? != 0.0,
            Pred::Not(p) => !self.test(p, env)?,
            Pred::And(ps) => {
                for p in ps {
                    if !self.test(p, env)? {
                        return Ok(false);
                    }
                }
                true
            }
            Pred::Or(ps) => {
                for p in ps {
                    if self.test(p, env)? {
                        return Ok(true);
                    }
                }
                false
            }
        })
    }

    fn eval(&self, e: &Expr, env: &mut Vec<i64>) -> Value {
        Ok(match &*e.node {
            Node::Const(bits) => f64::from_bits(*bits),
            Node::Index(i) => self.index(i, env)? as f64,
            Node::Read { tensor, at, bounds } => {
                let source = self.tensor(*tensor);
                let mut place = 0;
                for (i, &n) in at.iter().zip(&source.shape) {
                    let x = self.index(i, env)?;
                    if x < 0 || x >= n as i64 {
                        if *bounds == Bounds::Zero {
                            return Ok(0.0);
                        }
                        let at = at.iter().map(|i| self.index(i, env)).collect::<Result<_, _>>()?;
                        return Err(self.out_of_range(self.function.tensor(*tensor).name.clone(), at, &source.shape));
                    }
                    place = place * n + x as usize;
                }
                source.data[place]
            }
            Node::Unary(op, a) => op.eval(self.eval(a, env)?),
            Node::Binary(op, a, b) => {
                let (a, b) = (self.eval(a, env)?, self.eval(b, env)?);
                if e.elem == Elem::U32 && *op == BinaryOp::Mul {
                    f64::from((a as u32).wrapping_mul(b as u32))
                } else {
                    op.eval(a, b)
                }
            }
            Node::Select(p, a, b) => {
                if self.test(p, env)? {
                    self.eval(a, env)?
                } else {
                    self.eval(b, env)?
                }
            }
            Node::Test(p) => f64::from(u8::from(self.test(p, env)?)),
            Node::Cast(a) => {
                let x = self.eval(a, env)?;
                match e.elem {
                    Elem::Bool => f64::from(u8::from(x != 0.0)),
                    Elem::I32 | Elem::U32 => x.floor(),
                    _ => x,
                }
            }
            Node::Stop(a) => self.eval(a, env)?,
            Node::Random { key, place, at } => {
                let index = self.index(at, env)?;
                let key = &self.tensor(*key).data;
                f64::from(random(key[0] as u32, key[1] as u32, *place, index as u32))
            }
            Node::Reduce(r) => self.reduce(r, env)?,
        })
    }

    fn reduce(&self, r: &Reduction, env: &mut Vec<i64>) -> Value {
        let sizes: Vec<i64> = r.vars.iter().map(|&v| self.size(v) as i64).collect();
        let total: i64 = sizes.iter().product();
        let saved: Vec<i64> = r.vars.iter().map(|v| env[v.index()]).collect();
        let positional = matches!(r.op, Monoid::ArgMax | Monoid::ArgMin);
        let mut sum = r.op.neutral();
        let mut best = if r.op == Monoid::ArgMax { f64::NEG_INFINITY } else { f64::INFINITY };
        for n in 0..total {
            let mut rest = n;
            for (&v, &size) in r.vars.iter().zip(&sizes).rev() {
                env[v.index()] = rest % size;
                rest /= size;
            }
            if !self.test(&r.guard, env)? {
                continue;
            }
            let x = self.eval(&r.body, env)?;
            if positional {
                if (r.op == Monoid::ArgMax && x > best) || (r.op == Monoid::ArgMin && x < best) {
                    (best, sum) = (x, n as f64);
                }
                continue;
            }
            sum = match r.op {
                Monoid::Sum => sum + x,
                Monoid::Prod => sum * x,
                Monoid::Max => sum.max(x),
                Monoid::Min => sum.min(x),
                Monoid::Any => f64::from(u8::from(sum != 0.0 || x != 0.0)),
                _ => f64::from(u8::from(sum != 0.0 && x != 0.0)),
            };
        }
        for (v, old) in r.vars.iter().zip(saved) {
            env[v.index()] = old;
        }
        Ok(sum)
    }
}

/// The row-major position, if inside.
fn flat(at: &[i64], shape: &[usize]) -> Option<usize> {
    at.iter().zip(shape).try_fold(0usize, |sum, (&i, &n)| (i >= 0 && i < n as i64).then(|| sum * n + i as usize))
}
