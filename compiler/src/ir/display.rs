//! The index IR as text: one definition a block, variables and tensors by name, equal names told apart by number.

use super::expr::{BinaryOp, Bounds, Elem, Expr, Monoid, Node, Pred, UnaryOp};
use super::index::{Atom, Index};
use super::{Axis, Function, Keep, Program, Stmt, TensorId, VarId};
use std::collections::HashMap;
use std::fmt::{self, Display, Formatter, Write};

impl Display for Program {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (n, function) in self.functions.iter().enumerate() {
            if n > 0 {
                f.write_char('\n')?;
            }
            f.write_str(&Text::new(&self.axes, function).function(self, n == self.entry.index()))?;
        }
        Ok(())
    }
}

impl Display for Elem {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Elem::F64 => "f64",
            Elem::F32 => "f32",
            Elem::Bf16 => "bf16",
            Elem::F16 => "f16",
            Elem::I32 => "i32",
            Elem::U32 => "u32",
            Elem::Bool => "bool",
        })
    }
}

/// Names and text of one function.
pub struct Text<'a> {
    axes: &'a [Axis],
    function: &'a Function,
    tensors: Vec<String>,
    vars: Vec<String>,
}

/// Distinct names in order: the second `x` becomes `x.2`.
fn distinct<'n>(names: impl Iterator<Item = &'n str>) -> Vec<String> {
    let mut count: HashMap<&str, usize> = HashMap::new();
    names
        .map(|name| {
            let n = count.entry(name).or_insert(0);
            *n += 1;
            if *n == 1 { name.to_owned() } else { format!("{name}.{n}") }
        })
        .collect()
}

impl<'a> Text<'a> {
    /// The names of a function.
    pub fn new(axes: &'a [Axis], function: &'a Function) -> Text<'a> {
        let tensors = distinct(function.tensors.iter().map(|t| t.name.as_str()));
        let vars = distinct(function.vars.iter().map(|v| v.name.as_str()));
        Text { axes, function, tensors, vars }
    }

    /// A tensor's name.
    pub fn tensor(&self, t: TensorId) -> &str {
        &self.tensors[t.index()]
    }

    fn var(&self, v: VarId) -> &str {
        &self.vars[v.index()]
    }

    fn ty(&self, t: TensorId) -> String {
        let tensor = self.function.tensor(t);
        let dims: Vec<String> = tensor
            .dims
            .iter()
            .map(|d| {
                let a = &self.axes[d.index()];
                let pieces: Vec<String> = a.pieces.iter().map(|(name, n)| format!("{name} {n}")).collect();
                let inner = if pieces.is_empty() { String::new() } else { format!(" ({})", pieces.join(" | ")) };
                format!("{} {}{inner}", a.name, a.size)
            })
            .collect();
        format!("{}: {}[{}]", self.tensor(t), tensor.elem, dims.join(", "))
    }

    fn function(&self, program: &Program, entry: bool) -> String {
        let mut out = format!("{}function {}\n", if entry { "entry " } else { "" }, self.function.name);
        for a in &self.function.args {
            out.push_str(&format!("  arg {} as {:?}\n", self.ty(a.tensor), a.role));
        }
        for stmt in &self.function.body {
            match stmt {
                Stmt::Define(d) => {
                    let keep = match d.keep {
                        Keep::Auto => "",
                        Keep::Save => " save",
                        Keep::Recompute => " recompute",
                    };
                    out.push_str(&format!("  {}{keep}\n", self.ty(d.tensor)));
                    for c in &d.clauses {
                        let at: Vec<String> = c.at.iter().map(|i| self.index(i)).collect();
                        let plain =
                            c.at.len() == c.vars.len() && c.at.iter().zip(&c.vars).all(|(i, v)| i.as_var() == Some(*v));
                        let over = if plain { String::new() } else { format!(" for {}", self.domain(&c.vars)) };
                        out.push_str(&format!("    [{}]{over} = {}\n", at.join(", "), self.expr(&c.body, 0)));
                    }
                }
                Stmt::Call(c) => {
                    let results: Vec<&str> = c.results.iter().map(|&t| self.tensor(t)).collect();
                    let args: Vec<&str> = c.args.iter().map(|&t| self.tensor(t)).collect();
                    let callee = &program.functions[c.function.index()].name;
                    out.push_str(&format!("  {} = {callee}({})  // {}\n", results.join(", "), args.join(", "), c.site));
                }
                Stmt::Components(c) => {
                    let (labels, mask) = (self.ty(c.labels), self.tensor(c.mask));
                    out.push_str(&format!("  {labels} = components({mask}, {})\n", c.connectivity));
                }
            }
        }
        for r in &self.function.results {
            out.push_str(&format!("  result {} as {:?}\n", self.tensor(r.tensor), r.role));
        }
        out
    }

    fn domain(&self, vars: &[VarId]) -> String {
        let parts: Vec<String> = vars
            .iter()
            .map(|&v| {
                let a = &self.axes[self.function.var(v).axis.index()];
                format!("{}: {} {}", self.var(v), a.name, a.size)
            })
            .collect();
        parts.join(", ")
    }

    /// An index.
    pub fn index(&self, i: &Index) -> String {
        let mut out = String::new();
        for (a, c) in &i.terms {
            let atom = match a {
                Atom::Var(v) => self.var(*v).to_owned(),
                Atom::Div(e, k) => format!("({} div {k})", self.index(e)),
                Atom::Mod(e, k) => format!("({} mod {k})", self.index(e)),
                Atom::Clamp(e, lo, hi) => format!("clamp({}, {lo}, {hi})", self.index(e)),
                Atom::Data(e) => format!("value({})", self.expr(e, 0)),
            };
            let sign = if *c < 0 { "-" } else { "+" };
            match (out.is_empty(), *c < 0) {
                (true, false) => {}
                (true, true) => out.push('-'),
                _ => out.push_str(&format!(" {sign} ")),
            }
            if c.abs() != 1 {
                out.push_str(&format!("{}*", c.abs()));
            }
            out.push_str(&atom);
        }
        if out.is_empty() {
            return i.offset.to_string();
        }
        if i.offset != 0 {
            out.push_str(&format!(" {} {}", if i.offset < 0 { '-' } else { '+' }, i.offset.abs()));
        }
        out
    }

    /// A predicate.
    pub fn pred(&self, p: &Pred) -> String {
        let list = |ps: &[Pred], word: &str| {
            let parts: Vec<String> = ps.iter().map(|p| self.pred(p)).collect();
            format!("({})", parts.join(word))
        };
        match p {
            Pred::True => "true".to_owned(),
            Pred::Zero(i) => format!("{} == 0", self.index(i)),
            Pred::NonNeg(i) => format!("{} >= 0", self.index(i)),
            Pred::Value(e) => self.expr(e, 0),
            Pred::Not(p) => format!("not ({})", self.pred(p)),
            Pred::And(ps) => list(ps, " and "),
            Pred::Or(ps) => list(ps, " or "),
        }
    }

    /// A value; `tight` is the binding strength of what stands around it.
    pub fn expr(&self, e: &Expr, tight: u8) -> String {
        let paren = |own: u8, text: String| if own < tight { format!("({text})") } else { text };
        match &*e.node {
            Node::Const(bits) => {
                let x = f64::from_bits(*bits);
                if e.elem == Elem::Bool { (x != 0.0).to_string() } else { format!("{x:?}") }
            }
            Node::Index(i) => format!("{}({})", e.elem, self.index(i)),
            Node::Read { tensor, at, bounds } => {
                let at: Vec<String> = at.iter().map(|i| self.index(i)).collect();
                let zero = if *bounds == Bounds::Zero { " else 0" } else { "" };
                format!("{}[{}{zero}]", self.tensor(*tensor), at.join(", "))
            }
            Node::Unary(UnaryOp::Neg, a) => paren(3, format!("-{}", self.expr(a, 4))),
            Node::Unary(op, a) => format!("{}({})", format!("{op:?}").to_lowercase(), self.expr(a, 0)),
            Node::Binary(op, a, b) => {
                let (own, text) = match op {
                    BinaryOp::Add => (2, "+"),
                    BinaryOp::Sub => (2, "-"),
                    BinaryOp::Mul => (3, "*"),
                    BinaryOp::Div => (3, "/"),
                    BinaryOp::Eq => (1, "=="),
                    BinaryOp::Ne => (1, "!="),
                    BinaryOp::Lt => (1, "<"),
                    BinaryOp::Le => (1, "<="),
                    BinaryOp::Gt => (1, ">"),
                    BinaryOp::Ge => (1, ">="),
                    other => {
                        let name = format!("{other:?}").to_lowercase();
                        return format!("{name}({}, {})", self.expr(a, 0), self.expr(b, 0));
                    }
                };
                paren(own, format!("{} {text} {}", self.expr(a, own), self.expr(b, own + 1)))
            }
            Node::Select(p, a, b) => {
                paren(0, format!("(if {} then {} else {})", self.pred(p), self.expr(a, 0), self.expr(b, 0)))
            }
            Node::Test(p) => format!("[{}]", self.pred(p)),
            Node::Cast(a) => format!("{}({})", e.elem, self.expr(a, 0)),
            Node::Stop(a) => format!("stop({})", self.expr(a, 0)),
            Node::Random { key, place, at } => {
                format!("random({}, {place}, {})", self.tensor(*key), self.index(at))
            }
            Node::Reduce(r) => {
                let op = match r.op {
                    Monoid::Sum => "sum",
                    Monoid::Prod => "prod",
                    Monoid::Max => "max",
                    Monoid::Min => "min",
                    Monoid::Any => "any",
                    Monoid::All => "all",
                    Monoid::ArgMax => "argmax",
                    Monoid::ArgMin => "argmin",
                };
                let guard =
                    if r.guard == Pred::True { String::new() } else { format!(" where {}", self.pred(&r.guard)) };
                let domain = self.domain(&r.vars);
                paren(2, format!("{op}({domain}{guard}) {}", self.expr(&r.body, 3)))
            }
        }
    }
}
