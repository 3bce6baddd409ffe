//! The multiply-adds of a program's products and convolutions, definition by definition.
//!
//! Counted is every sum of products of two factors each of which has an index that the other has not: matrix products, convolutions,
//! scores, weighted values. Statistics of a norm, means, the normaliser of a linear attention (a row weighed by another row), weights
//! that depend on positions alone and pointwise work are not; that is what counters of published models count too. Domains count
//! whole: a window's positions beyond the border, which contribute nothing, are among them.

use crate::ir::{ArgRole, BinaryOp, Expr, FuncId, Function, Index, Monoid, Node, Program, Stmt, TensorId, VarId};
use std::collections::{HashMap, HashSet};

/// A sum of products.
#[derive(Clone, Debug, PartialEq)]
pub struct Product {
    /// The definition that it is in, with the path of the module instance: `block1.0.attn.score`.
    pub definition: String,
    /// The parameter that it reads, if it reads one.
    pub parameter: Option<String>,
    /// Multiply-adds of one run.
    pub multiply_adds: f64,
}

/// The sums of products of a run, in the order of the program.
pub fn products(program: &Program) -> Vec<Product> {
    let entry = program.entry();
    let parameter = |role: &ArgRole| match role {
        ArgRole::Param(name) => Some(name.clone()),
        _ => None,
    };
    let parameters = entry.args.iter().filter_map(|a| Some((a.tensor, parameter(&a.role)?))).collect();
    let mut out = Vec::new();
    visit(program, program.entry, "", &parameters, &mut out);
    out
}

fn visit(program: &Program, id: FuncId, site: &str, parameters: &HashMap<TensorId, String>, out: &mut Vec<Product>) {
    let function = &program.functions[id.index()];
    let mut positional = HashSet::new();
    for stmt in &function.body {
        match stmt {
            Stmt::Call(call) => {
                let callee = &program.functions[call.function.index()];
                let passed = callee.args.iter().zip(&call.args);
                let passed = passed.filter_map(|(a, t)| Some((a.tensor, parameters.get(t)?.clone()))).collect();
                visit(program, call.function, &join(site, &call.site), &passed, out);
            }
            Stmt::Define(d) => {
                let mut alone = true;
                d.clauses.iter().for_each(|c| c.body.visit_reads(&mut |t, _| alone &= positional.contains(&t)));
                if alone {
                    positional.insert(d.tensor);
                }
                let definition = join(site, &function.tensor(d.tensor).name);
                let mut count = Counter { program, function, parameters, positional: &positional, definition, out };
                for clause in &d.clauses {
                    let points = count.points(&clause.vars);
                    count.expr(&clause.body, points);
                }
            }
            Stmt::Components(_) => {}
        }
    }
}

fn join(site: &str, name: &str) -> String {
    if site.is_empty() { name.to_owned() } else { format!("{site}.{name}") }
}

struct Counter<'a> {
    program: &'a Program,
    function: &'a Function,
    parameters: &'a HashMap<TensorId, String>,
    /// Definitions that depend on their indices alone.
    positional: &'a HashSet<TensorId>,
    definition: String,
    out: &'a mut Vec<Product>,
}

impl Counter<'_> {
    fn points(&self, vars: &[VarId]) -> f64 {
        vars.iter().map(|&v| self.program.size(self.function.var(v).axis) as f64).product()
    }

    /// Counts in an expression that is computed `times` times.
    fn expr(&mut self, e: &Expr, times: f64) {
        let mut times = times;
        if let Node::Reduce(r) = &*e.node {
            times *= self.points(&r.vars);
            let mut factors = Vec::new();
            factors_of(&r.body, &mut factors);
            let mut parameter = None;
            r.body.visit_reads(&mut |t, _| parameter = parameter.take().or_else(|| self.parameters.get(&t).cloned()));
            let places: Vec<Vec<Index>> = factors.iter().map(|f| self.places(f)).collect();
            // A layer's weights may have no index besides those of the sum: a depthwise convolution. Other factors need one that stays.
            let stays = |i: &Index| {
                let mut stays = parameter.is_some();
                i.visit_vars(&mut |v| stays |= !r.vars.contains(&v));
                stays
            };
            let own = |a: &[Index], b: &[Index]| a.iter().any(|i| !b.contains(i) && stays(i));
            let mut pairs = places.iter().enumerate().flat_map(|(n, a)| places[n + 1..].iter().map(move |b| (a, b)));
            if r.op == Monoid::Sum && pairs.any(|(a, b)| own(a, b) && own(b, a)) {
                self.out.push(Product { definition: self.definition.clone(), parameter, multiply_adds: times });
            }
        }
        e.for_each_child(&mut |c| self.expr(c, times));
    }
}

impl Counter<'_> {
    /// The indices at which an expression reads what depends on more than its indices.
    fn places(&self, e: &Expr) -> Vec<Index> {
        let mut out = Vec::new();
        e.visit_reads(&mut |t, at| {
            if !self.positional.contains(&t) {
                out.extend(at.iter().cloned());
            }
        });
        out
    }
}

/// The factors of a product, in the order of its tree.
pub(crate) fn factors_of<'e>(e: &'e Expr, out: &mut Vec<&'e Expr>) {
    match &*e.node {
        Node::Binary(BinaryOp::Mul, a, b) => {
            factors_of(a, out);
            factors_of(b, out);
        }
        _ => out.push(e),
    }
}
