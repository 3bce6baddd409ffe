//! What every program must satisfy, checked after every pass.

use super::display::Text;
use super::expr::{Bounds, Elem, Expr, Monoid, Node, Pred};
use super::index::{Atom, Index};
use super::{AxisId, Function, Program, Stmt, TensorId, VarId, VarSizes};

/// Checks a program: tensors are defined once and before they are read, ranks and element types agree, variables are in scope, reads that promise
/// to be inside are (or stand under a guard), calls match their callees.
///
/// # Errors
/// Names the function and the tensor, and says what is wrong.
pub fn verify(program: &Program) -> Result<(), String> {
    for (n, f) in program.functions.iter().enumerate() {
        Check { program, f, number: n, text: Text::new(&program.axes, f) }
            .function()
            .map_err(|e| format!("function `{}`: {e}", f.name))?;
    }
    if program.entry.index() >= program.functions.len() {
        return Err("the entry function does not exist".to_owned());
    }
    Ok(())
}

struct Check<'a> {
    program: &'a Program,
    f: &'a Function,
    number: usize,
    text: Text<'a>,
}

/// What is in scope: the variables, and whether a guard stands above.
struct Scope {
    vars: Vec<VarId>,
    guarded: bool,
}

impl Check<'_> {
    fn function(&self) -> Result<(), String> {
        let f = self.f;
        let mut defined = vec![false; f.tensors.len()];
        for t in &f.tensors {
            for d in &t.dims {
                if d.index() >= self.program.axes.len() {
                    return Err(format!("`{}` has a dimension over no axis", t.name));
                }
            }
        }
        for a in &f.args {
            defined[a.tensor.index()] = true;
        }
        for stmt in &f.body {
            let names: Vec<&str> = stmt.defines().iter().map(|&t| self.text.tensor(t)).collect();
            let names = names.join(", ");
            for t in stmt.reads() {
                if !defined.get(t.index()).copied().unwrap_or(false) {
                    return Err(format!("`{names}` reads a tensor that is not defined before it ({t})"));
                }
            }
            self.statement(stmt).map_err(|e| format!("`{names}`: {e}"))?;
            for t in stmt.defines() {
                if std::mem::replace(&mut defined[t.index()], true) {
                    return Err(format!("`{}` is defined twice", self.text.tensor(t)));
                }
            }
        }
        for r in &f.results {
            if !defined.get(r.tensor.index()).copied().unwrap_or(false) {
                return Err(format!("result {:?} is not defined", r.role));
            }
        }
        Ok(())
    }

    fn statement(&self, stmt: &Stmt) -> Result<(), String> {
        match stmt {
            Stmt::Define(d) => {
                let tensor = self.f.tensor(d.tensor);
                let mut covered = 0usize;
                for c in &d.clauses {
                    if c.at.len() != tensor.dims.len() {
                        return Err(format!(
                            "a clause gives {} indices for {} dimensions",
                            c.at.len(),
                            tensor.dims.len()
                        ));
                    }
                    for (n, v) in c.vars.iter().enumerate() {
                        if c.vars[..n].contains(v) {
                            return Err(format!("a clause binds {v} twice"));
                        }
                    }
                    let mut scope = Scope { vars: c.vars.clone(), guarded: false };
                    for (i, &d) in c.at.iter().zip(&tensor.dims) {
                        self.index(i, &mut scope)?;
                        self.inside(i, d)?;
                    }
                    covered += c.vars.iter().map(|&v| self.size(v)).product::<usize>();
                    self.expr(&c.body, &mut scope)?;
                    if c.body.elem != tensor.elem {
                        return Err(format!("is {} but its body is {}", tensor.elem, c.body.elem));
                    }
                }
                let total: usize = tensor.dims.iter().map(|&d| self.program.size(d)).product();
                if covered != total {
                    return Err(format!("its clauses define {covered} of {total} elements"));
                }
                Ok(())
            }
            Stmt::Call(c) => {
                if c.function.index() >= self.number {
                    return Err("calls a function that does not come before it".to_owned());
                }
                let callee = &self.program.functions[c.function.index()];
                if callee.args.len() != c.args.len() || callee.results.len() != c.results.len() {
                    return Err(format!("calls `{}` with another number of tensors", callee.name));
                }
                let formal = callee.args.iter().map(|a| a.tensor).chain(callee.results.iter().map(|r| r.tensor));
                for (formal, &actual) in formal.zip(c.args.iter().chain(&c.results)) {
                    let same = self.program.shape(callee, formal) == self.program.shape(self.f, actual)
                        && callee.tensor(formal).elem == self.f.tensor(actual).elem;
                    if !same {
                        let name = &callee.tensor(formal).name;
                        return Err(format!("passes `{}` for `{name}` of another type", self.text.tensor(actual)));
                    }
                }
                Ok(())
            }
            Stmt::Components(c) => {
                let (mask, labels) = (self.f.tensor(c.mask), self.f.tensor(c.labels));
                if mask.elem != Elem::Bool
                    || labels.elem != Elem::I32
                    || mask.dims != labels.dims
                    || mask.dims.len() < 2
                {
                    return Err("components take a boolean map and give i32 labels of its shape".to_owned());
                }
                Ok(())
            }
        }
    }

    fn size(&self, v: VarId) -> usize {
        self.program.size(self.f.var(v).axis)
    }

    fn sizes(&self) -> VarSizes<'_> {
        VarSizes { vars: &self.f.vars, axes: &self.program.axes }
    }

    fn inside(&self, i: &Index, axis: AxisId) -> Result<(), String> {
        let n = self.program.size(axis) as i64;
        match i.range(&self.sizes()) {
            Some((lo, hi)) if lo < 0 || hi >= n => {
                let name = &self.program.axes[axis.index()].name;
                Err(format!("index {} runs over {lo}..={hi}, outside axis {name} of size {n}", self.text.index(i)))
            }
            _ => Ok(()),
        }
    }

    fn index(&self, i: &Index, scope: &mut Scope) -> Result<(), String> {
        for (a, c) in &i.terms {
            if *c == 0 {
                return Err("an index has a term with coefficient 0".to_owned());
            }
            match a {
                Atom::Var(v) if !scope.vars.contains(v) => {
                    return Err(format!("variable {v} ({}) is not in scope", self.f.var(*v).name));
                }
                Atom::Var(_) => {}
                Atom::Div(e, k) | Atom::Mod(e, k) => {
                    if *k <= 0 {
                        return Err(format!("an index is divided by {k}"));
                    }
                    self.index(e, scope)?;
                }
                Atom::Clamp(e, ..) => self.index(e, scope)?,
                Atom::Data(e) => {
                    if e.elem != Elem::I32 {
                        return Err(format!("an index is read from {} values", e.elem));
                    }
                    self.expr(e, scope)?;
                }
            }
        }
        Ok(())
    }

    fn pred(&self, p: &Pred, scope: &mut Scope) -> Result<(), String> {
        match p {
            Pred::True => Ok(()),
            Pred::Zero(i) | Pred::NonNeg(i) => self.index(i, scope),
            Pred::Value(e) if e.elem == Elem::Bool => self.expr(e, scope),
            Pred::Value(e) => Err(format!("a predicate is {}", e.elem)),
            Pred::Not(p) => self.pred(p, scope),
            Pred::And(ps) | Pred::Or(ps) => {
                // Later parts are only looked at where earlier ones hold.
                let was = scope.guarded;
                for p in ps {
                    self.pred(p, scope)?;
                    scope.guarded = true;
                }
                scope.guarded = was;
                Ok(())
            }
        }
    }

    fn read(&self, tensor: TensorId, at: &[Index], bounds: Bounds, scope: &mut Scope) -> Result<(), String> {
        let t = self.f.tensor(tensor);
        if t.dims.len() != at.len() {
            return Err(format!("`{}` has {} dimensions and is read with {}", t.name, t.dims.len(), at.len()));
        }
        for (i, &d) in at.iter().zip(&t.dims) {
            self.index(i, scope)?;
            if bounds == Bounds::Inside && !scope.guarded {
                self.inside(i, d).map_err(|e| format!("reading `{}`: {e}", t.name))?;
            }
        }
        Ok(())
    }

    fn expr(&self, e: &Expr, scope: &mut Scope) -> Result<(), String> {
        let same = |a: &Expr, what: &str| {
            if a.elem == e.elem { Ok(()) } else { Err(format!("{what} of {} has an operand of {}", e.elem, a.elem)) }
        };
        match &*e.node {
            Node::Const(_) => Ok(()),
            Node::Index(i) => self.index(i, scope),
            Node::Read { tensor, at, bounds } => {
                if self.f.tensor(*tensor).elem != e.elem {
                    return Err(format!("`{}` is read as {}", self.text.tensor(*tensor), e.elem));
                }
                self.read(*tensor, at, *bounds, scope)
            }
            Node::Unary(op, a) => {
                same(a, &format!("{op:?}"))?;
                self.expr(a, scope)
            }
            Node::Binary(op, a, b) => {
                if a.elem != b.elem || (op.is_comparison() && e.elem != Elem::Bool) {
                    return Err(format!("{op:?} of {} and {}", a.elem, b.elem));
                }
                if !op.is_comparison() {
                    same(a, &format!("{op:?}"))?;
                }
                self.expr(a, scope)?;
                self.expr(b, scope)
            }
            Node::Select(p, a, b) => {
                same(a, "select")?;
                same(b, "select")?;
                self.pred(p, scope)?;
                let was = std::mem::replace(&mut scope.guarded, true);
                self.expr(a, scope)?;
                self.expr(b, scope)?;
                scope.guarded = was;
                Ok(())
            }
            Node::Test(p) => self.pred(p, scope),
            Node::Cast(a) => self.expr(a, scope),
            Node::Stop(a) => {
                same(a, "stop")?;
                self.expr(a, scope)
            }
            Node::Random { key, at, .. } => {
                let t = self.f.tensor(*key);
                if t.elem != Elem::U32 || t.dims.len() != 1 || self.program.size(t.dims[0]) != 2 {
                    return Err("the random key is not u32 [2]".to_owned());
                }
                self.index(at, scope)
            }
            Node::Reduce(r) => {
                let positional = matches!(r.op, Monoid::ArgMax | Monoid::ArgMin);
                if (positional && e.elem != Elem::I32) || (!positional && r.body.elem != e.elem) {
                    return Err(format!("{:?} of {} gives {}", r.op, r.body.elem, e.elem));
                }
                for v in &r.vars {
                    if scope.vars.contains(v) {
                        return Err(format!("variable {v} is bound again inside itself"));
                    }
                }
                let count = scope.vars.len();
                scope.vars.extend(&r.vars);
                self.pred(&r.guard, scope)?;
                let was = scope.guarded;
                scope.guarded |= r.guard != Pred::True;
                self.expr(&r.body, scope)?;
                scope.guarded = was;
                scope.vars.truncate(count);
                Ok(())
            }
        }
    }
}
