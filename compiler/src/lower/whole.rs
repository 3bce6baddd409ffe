//! Whole tensors: arguments, results, and definitions without indices.

use std::fmt::Arguments;
use std::rc::Rc;

use foveate_dsl::Diagnostic;
use foveate_dsl::ast::{Expr as Ast, ExprKind};

use super::builder::View;
use super::index::IndexVal;
use crate::check::axes::Axis;
use crate::check::elaborator::Elaborator;
use crate::check::report::R;
use crate::check::value::Static;
use crate::ir::{Clause, Index};

impl<'a> Elaborator<'a> {
    /// The one tensor that an expression is.
    pub(crate) fn single(&mut self, e: &'a Ast, name: Arguments<'_>) -> R<View> {
        let views = self.tensors(e, name)?;
        let count = views.len();
        match views.into_iter().next() {
            Some(view) if count == 1 => Ok(view),
            _ => {
                let d =
                    Diagnostic::error("E0410", format!("this has {count} results")).primary(e.span, "one is expected");
                self.fail(d.help("take them apart: `(a, b) = ...`"))
            }
        }
    }

    /// The tensor that is read or passed on. It does not depend on the indices around it.
    pub(crate) fn tensor(&mut self, e: &'a Ast) -> R<View> {
        let defining = self.frame.defining.clone();
        self.single(e, format_args!("{defining}.part"))
    }

    /// The tensors that an expression is: several for a call with several results.
    pub(crate) fn tensors(&mut self, e: &'a Ast, name: Arguments<'_>) -> R<Vec<View>> {
        self.step(e.span)?;
        match &e.kind {
            ExprKind::Path(path) => {
                let env = self.frame.env.clone();
                let text = self.path_text(&env, path)?;
                if let Some(view) = self.find_view(&text) {
                    return Ok(vec![view?]);
                }
            }
            ExprKind::Call { callee, args } if self.is_tensor_call(callee)? => return self.call(e, callee, args),
            ExprKind::If { cond, then, otherwise } if !self.has_tensor(cond)? => {
                let outer = self.leave();
                let value = self.value(cond);
                self.enter(outer);
                if let Ok(super::expr::Val::Static(Static::Bool(c))) = value {
                    return self.tensors(if c { then } else { otherwise }, name);
                }
            }
            _ => {}
        }
        let outer = self.leave();
        let out = self.elementwise(e, name);
        self.enter(outer);
        out.map(|view| vec![view])
    }

    /// A definition over the shape of the whole tensors in an expression.
    fn elementwise(&mut self, e: &'a Ast, name: Arguments<'_>) -> R<View> {
        let name = name.to_string();
        let dims = self.joint_shape(e)?.unwrap_or_else(|| Rc::from([]));
        let batch = self.batch.clone();
        let batch_dim = self.dim(&batch);
        let b = self.builder.function.new_var("b", batch_dim);
        let (mut values, mut vars, mut at) = (Vec::new(), Vec::new(), Vec::new());
        for (n, axis) in dims.iter().enumerate() {
            let (value, mut made) = self.new_index(&format!("i{n}"), axis);
            at.extend(value.comps.iter().map(|c| c.index.clone()));
            vars.append(&mut made);
            values.push(value);
        }
        self.frame.batch = Some(b);
        self.frame.whole = Some(values);
        self.frame.defining.clone_from(&name);
        let value = self.value(e)?;
        let (body, label) = self.element_of(value, e.span)?;
        let mut ids = self.dims(&dims);
        let batched = body.uses(b);
        if batched {
            ids.insert(0, batch_dim);
            vars.insert(0, b);
            at.insert(0, Index::from(b));
        }
        let elem = body.elem;
        let tensor = self.builder.function.new_tensor(name, elem, ids, Some(e.span));
        self.define(tensor, vec![Clause { vars, at, body }]);
        Ok(View { tensor, elem, batched, store: Rc::clone(&dims), dims, label })
    }

    /// The shape of the whole tensors in an expression; none if there are only numbers. That they agree is checked where
    /// they are read.
    fn joint_shape(&mut self, e: &'a Ast) -> R<Option<Rc<[Axis]>>> {
        let parts: Vec<&'a Ast> = match &e.kind {
            ExprKind::Path(path) => {
                let env = self.frame.env.clone();
                let name = self.path_text(&env, path)?;
                return match self.find_view(&name) {
                    Some(view) => Ok(Some(view?.dims).filter(|d| !d.is_empty())),
                    None => Ok(None),
                };
            }
            ExprKind::Call { callee, args } => {
                if self.is_tensor_call(callee)? {
                    let views = self.call(e, callee, args)?;
                    return Ok(views.into_iter().next().map(|v| v.dims).filter(|d| !d.is_empty()));
                }
                args.iter().map(|a| &a.value).collect()
            }
            ExprKind::Unary { operand, .. } => vec![operand],
            ExprKind::Binary { left, right, .. } => vec![left, right],
            ExprKind::If { cond, then, otherwise } => vec![cond, then, otherwise],
            _ => return Ok(None),
        };
        for part in parts {
            if let Some(dims) = self.joint_shape(part)? {
                return Ok(Some(dims));
            }
        }
        Ok(None)
    }

    /// Whether a condition depends on a tensor, so that it chooses elements and not one of two tensors.
    fn has_tensor(&mut self, e: &'a Ast) -> R<bool> {
        let parts: Vec<&'a Ast> = match &e.kind {
            ExprKind::Path(path) => {
                let env = self.frame.env.clone();
                let name = self.path_text(&env, path)?;
                return Ok(self.find_view(&name).is_some());
            }
            ExprKind::Call { callee, args } => {
                if self.is_tensor_call(callee)? {
                    return Ok(true);
                }
                args.iter().map(|a| &a.value).collect()
            }
            ExprKind::Unary { operand, .. } => vec![operand],
            ExprKind::Binary { left, right, .. } => vec![left, right],
            ExprKind::If { cond, then, otherwise } => vec![cond, then, otherwise],
            _ => return Ok(false),
        };
        for part in parts {
            if self.has_tensor(part)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Leaves the indices of the definition at hand, for a tensor that does not depend on them.
    fn leave(&mut self) -> Outer {
        Outer {
            scope: std::mem::take(&mut self.frame.scope),
            batch: self.frame.batch.take(),
            whole: self.frame.whole.take(),
            rest_index: self.frame.rest_index.take(),
            defining: self.frame.defining.clone(),
        }
    }

    fn enter(&mut self, outer: Outer) {
        self.frame.scope = outer.scope;
        self.frame.batch = outer.batch;
        self.frame.whole = outer.whole;
        self.frame.rest_index = outer.rest_index;
        self.frame.defining = outer.defining;
    }

    /// Whether a call gives whole tensors, and not a number at a point.
    fn is_tensor_call(&mut self, callee: &'a foveate_dsl::ast::Path) -> R<bool> {
        let env = self.frame.env.clone();
        let name = self.path_text(&env, callee)?;
        if self.frame.arguments.is_some() {
            return Ok(false);
        }
        let function = self.spec.function(self.frame.file, &name).is_some();
        Ok(!function && (name == "components" || self.frame.submodule(&name).is_some()))
    }
}

struct Outer {
    scope: Vec<super::forward::Bound>,
    batch: Option<crate::ir::VarId>,
    whole: Option<Vec<IndexVal>>,
    rest_index: Option<Vec<IndexVal>>,
    defining: String,
}
