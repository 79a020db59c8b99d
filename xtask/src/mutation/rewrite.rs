//! A file with all its mutants in it: each asks whether it is the active one.
//!
//! The original's operands are evaluated where they were, once, in their order, and their temporaries live as long as before: a guard that is
//! dropped earlier would be another program. So no operand is put into a block of its own, and what has to choose between operators does so
//! on the operands' values. Only compound assignments and fields have copies, since there is no other way.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Expr, Pat, UnOp};

use super::list::{Genre, Id, Mutant};
use super::operator::{self, Operator};
use super::place::Lines;
use super::splice::{Rank, Spliced, Splices, Text};

/// What became of a mutant.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// It can be activated.
    Built,
    /// It does not compile, for this reason.
    NotViable(String),
    /// It may compile, but not as one of many: for this reason.
    NotInBuild(String),
}

/// Puts `mutants` into `source`, but for those in `without`. Says of each whether it is there.
///
/// # Errors
/// The source is no Rust, or a mutant's place is not in it.
pub(super) fn rewrite(
    source: &str,
    mutants: &[&Mutant],
    without: &HashSet<Id>,
) -> Result<(Spliced, BTreeMap<Id, State>)> {
    let lines = Lines::of(source);
    let mut rewriter =
        Rewriter { source, wanted: HashMap::new(), splices: Splices::default(), states: BTreeMap::new(), constants: 0 };
    for mutant in mutants.iter().filter(|mutant| !without.contains(&mutant.id)) {
        let at = lines.offset(mutant.span.start).with_context(|| format!("no such place: {}", mutant.name))?;
        if mutant.genre == Genre::FnValue {
            rewriter.fn_value(at, mutant);
        } else {
            rewriter.wanted.entry((mutant.genre, at)).or_default().push(mutant);
        }
    }
    rewriter.visit_file(&syn::parse_file(source)?);
    if let Some(mutant) = rewriter.wanted.values().flatten().next() {
        bail!("nothing to mutate is found at the place of {}", mutant.name);
    }
    Ok((rewriter.splices.into_text(source), rewriter.states))
}

struct Rewriter<'s> {
    source: &'s str,
    wanted: HashMap<(Genre, usize), Vec<&'s Mutant>>,
    splices: Splices,
    states: BTreeMap<Id, State>,
    /// How many constants we are in. The compiler evaluates them, and no mutant is active then.
    constants: usize,
}

fn bytes(node: &impl Spanned) -> Range<usize> {
    node.span().byte_range()
}

/// The question whether a mutant is active.
pub(super) fn on(id: Id) -> String {
    format!("::machine::mutant::on({id})")
}

impl<'s> Rewriter<'s> {
    /// The mutants at a place that can be built there; those that cannot are done with.
    fn take(&mut self, genre: Genre, at: usize) -> Vec<&'s Mutant> {
        let mutants = self.wanted.remove(&(genre, at)).unwrap_or_default();
        if self.constants > 0 {
            self.leave_out(&mutants, State::NotInBuild("in a constant".into()));
            return Vec::new();
        }
        mutants
    }

    fn leave_out(&mut self, mutants: &[&Mutant], state: State) {
        self.states.extend(mutants.iter().map(|mutant| (mutant.id, state.clone())));
    }

    fn built(&mut self, old: Range<usize>, mutants: &[&Mutant]) {
        self.leave_out(mutants, State::Built);
        self.splices.site(old, mutants.iter().map(|mutant| mutant.id).collect());
    }

    /// The text of a node, if it is of one line: only then it can be copied as it is.
    fn one_line(&self, node: &impl Spanned) -> Option<&'s str> {
        Some(&self.source[bytes(node)]).filter(|text| !text.contains('\n'))
    }

    fn fn_value(&mut self, at: usize, mutant: &Mutant) {
        let text = format!("if {} {{ return {}; }} ", on(mutant.id), mutant.replacement);
        self.splices.insert(at, Rank::Statement, Text::default().push_of(mutant.id, &text));
        self.leave_out(&[mutant], State::Built);
    }

    fn in_constant(&mut self, visit: impl FnOnce(&mut Self)) {
        self.constants += 1;
        visit(self);
        self.constants -= 1;
    }

    /// Text around an expression, and something else for its operator.
    fn surround(
        &mut self,
        whole: Range<usize>,
        operator: Range<usize>,
        parts: operator::Parts,
        inside: impl FnOnce(&mut Self),
    ) {
        self.splices.insert(whole.start, Rank::Open, parts.open);
        if let Some(text) = parts.operator {
            self.splices.replace(operator, Rank::Replace, text);
        }
        inside(self);
        self.splices.insert(whole.end, Rank::Close, parts.close);
    }

    fn compound_assignment(&mut self, node: &syn::ExprBinary, mutants: &[&'s Mutant]) -> Option<operator::Parts> {
        let operands = (self.one_line(&node.left)?, self.one_line(&node.right)?);
        Some(operator::compound(operands, mutants))
    }
}

/// Whether an operand of a chain of `&&` binds names.
fn binds(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) => binds(&binary.left) || binds(&binary.right),
        _ => false,
    }
}

impl<'ast> Visit<'ast> for Rewriter<'_> {
    fn visit_expr_binary(&mut self, node: &'ast syn::ExprBinary) {
        let operator = bytes(&node.op);
        let mutants = self.take(Genre::BinaryOperator, operator.start);
        let parts = match Operator::of(&node.op) {
            _ if mutants.is_empty() => None,
            Operator::Lazy if binds(&node.left) || binds(&node.right) => {
                self.leave_out(&mutants, State::NotViable("operand of a chain of `let`".into()));
                None
            }
            Operator::Compound => {
                let parts = self.compound_assignment(node, &mutants);
                if parts.is_none() {
                    self.leave_out(&mutants, State::NotInBuild("an assignment of several lines".into()));
                }
                parts
            }
            kind => Some(kind.parts(&self.source[operator.clone()], &mutants)),
        };
        let inside = |this: &mut Self| visit::visit_expr_binary(this, node);
        match parts {
            None => inside(self),
            Some(parts) => {
                self.built(bytes(node), &mutants);
                self.surround(bytes(node), operator, parts, inside);
            }
        }
    }

    fn visit_expr_unary(&mut self, node: &'ast syn::ExprUnary) {
        let operator = bytes(&node.op);
        let mutants = match node.op {
            UnOp::Not(_) | UnOp::Neg(_) => self.take(Genre::UnaryOperator, operator.start),
            _ => Vec::new(),
        };
        let inside = |this: &mut Self| visit::visit_expr_unary(this, node);
        if mutants.is_empty() {
            return inside(self);
        }
        self.built(bytes(node), &mutants);
        let parts = operator::unary(&self.source[operator.clone()], &mutants);
        self.surround(bytes(node), operator, parts, inside);
    }

    fn visit_expr_match(&mut self, node: &'ast syn::ExprMatch) {
        let takes_all = |arm: &syn::Arm| arm.guard.is_none() && matches!(arm.pat, Pat::Wild(_) | Pat::Ident(_));
        if !node.arms.iter().any(takes_all) {
            for arm in &node.arms {
                let deleted = self.take(Genre::MatchArm, bytes(arm).start);
                self.leave_out(&deleted, State::NotViable("no other arm takes what this one took".into()));
            }
        }
        visit::visit_expr_match(self, node);
    }

    fn visit_arm(&mut self, node: &'ast syn::Arm) {
        let deleted = self.take(Genre::MatchArm, bytes(node).start);
        let guard = node.guard.as_ref().map(|(_, guard)| guard);
        let guarded = guard.map_or_else(Vec::new, |guard| self.take(Genre::MatchArmGuard, bytes(guard).start));
        let all: Vec<&Mutant> = deleted.iter().chain(&guarded).copied().collect();
        if all.is_empty() {
            return visit::visit_arm(self, node);
        }
        if guard.is_some_and(|guard| binds(guard)) {
            self.leave_out(&all, State::NotInBuild("a guard that binds names".into()));
            return visit::visit_arm(self, node);
        }
        let head = node.pat.span().byte_range().start..guard.map_or(bytes(&node.pat), bytes).end;
        self.built(head, &all);
        let there: String = deleted.iter().map(|mutant| format!("!{} && ", on(mutant.id))).collect();
        let Some(guard) = guard else {
            let there = format!(" if {}", there.trim_end_matches(" && "));
            self.splices.insert(bytes(&node.pat).end, Rank::Close, there.as_str());
            return visit::visit_arm(self, node);
        };
        let of = |value: &str, prefix: &str, joint: &str| -> String {
            guarded
                .iter()
                .filter(|mutant| mutant.replacement == value)
                .map(|mutant| format!("{prefix}{}{joint}", on(mutant.id)))
                .collect()
        };
        let (yes, no) = (of("true", "", " || "), of("false", "!", " && "));
        self.splices.insert(bytes(guard).start, Rank::Open, format!("{there}({yes}({no}(").as_str());
        visit::visit_arm(self, node);
        self.splices.insert(bytes(guard).end, Rank::Close, ")))");
    }

    fn visit_expr_struct(&mut self, node: &'ast syn::ExprStruct) {
        let mut closing = Vec::new();
        for field in &node.fields {
            let mutants = self.take(Genre::StructField, bytes(field).start);
            let [mutant] = mutants[..] else { continue };
            let syn::Member::Named(name) = &field.member else { continue };
            let Some(base) = node.rest.as_ref().and_then(|base| self.one_line(base)) else {
                self.leave_out(&mutants, State::NotInBuild("a base of several lines".into()));
                continue;
            };
            self.built(bytes(field), &mutants);
            let chosen = operator::from_base(base, &self.source[bytes(&node.path)], name, mutant);
            if field.colon_token.is_some() {
                self.splices.insert(bytes(&field.expr).start, Rank::Open, chosen);
                closing.push((bytes(&field.expr).end, " }".to_owned()));
            } else {
                self.splices.insert(
                    bytes(field).end,
                    Rank::Close,
                    Text::from(": ").then(chosen).push(&format!("{name} }}")),
                );
            }
        }
        visit::visit_expr_struct(self, node);
        for (at, text) in closing {
            self.splices.insert(at, Rank::Close, text.as_str());
        }
    }

    fn visit_item_const(&mut self, node: &'ast syn::ItemConst) {
        self.in_constant(|this| visit::visit_item_const(this, node));
    }

    fn visit_item_static(&mut self, node: &'ast syn::ItemStatic) {
        self.in_constant(|this| visit::visit_item_static(this, node));
    }

    fn visit_impl_item_const(&mut self, node: &'ast syn::ImplItemConst) {
        self.in_constant(|this| visit::visit_impl_item_const(this, node));
    }

    fn visit_trait_item_const(&mut self, node: &'ast syn::TraitItemConst) {
        self.in_constant(|this| visit::visit_trait_item_const(this, node));
    }

    fn visit_expr_const(&mut self, node: &'ast syn::ExprConst) {
        self.in_constant(|this| visit::visit_expr_const(this, node));
    }

    fn visit_type_array(&mut self, node: &'ast syn::TypeArray) {
        self.visit_type(&node.elem);
        self.in_constant(|this| this.visit_expr(&node.len));
    }

    fn visit_expr_repeat(&mut self, node: &'ast syn::ExprRepeat) {
        self.visit_expr(&node.expr);
        self.in_constant(|this| this.visit_expr(&node.len));
    }

    fn visit_variant(&mut self, node: &'ast syn::Variant) {
        self.in_constant(|this| visit::visit_variant(this, node));
    }

    fn visit_generic_argument(&mut self, node: &'ast syn::GenericArgument) {
        if let syn::GenericArgument::Const(expr) = node {
            return self.in_constant(|this| this.visit_expr(expr));
        }
        visit::visit_generic_argument(self, node);
    }
}
