//! Expressions where their conditions hold.

use super::expand::View;
use crate::ir::{Bounds, Expr, Node, Pred};

/// The expression where those of its conditions hold that are chosen, which are listed: selects take the first branch, reads are inside.
pub fn assume(view: &View<'_>, e: &Expr, chosen: &dyn Fn(&Pred) -> bool, conditions: &mut Vec<Pred>) -> Expr {
    match &*e.node {
        Node::Select(p, a, _) if chosen(p) => {
            conditions.push(p.clone());
            assume(view, a, chosen, conditions)
        }
        Node::Read { tensor, at, bounds: Bounds::Zero } => {
            let shape = view.shape(*tensor);
            let inside = Pred::and(at.iter().zip(&shape).map(|(i, &n)| Pred::within(i, 0, n as i64, view)));
            if !chosen(&inside) {
                return e.clone();
            }
            conditions.push(inside);
            Expr::new(e.elem, Node::Read { tensor: *tensor, at: at.clone(), bounds: Bounds::Inside })
        }
        _ => e.map_children(&mut |c| assume(view, c, chosen, conditions)),
    }
}
