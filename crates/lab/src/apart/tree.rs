//! Ways to states that are still to be gone on from. They share their beginnings: a tree, of which only what leads to such a state is kept.

use crate::choice::Choice;

/// The number of a node. Numbers of nodes that are gone are used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Node(u32);

/// The initial state. It is always there.
pub(crate) const ROOT: Node = Node(0);

struct Entry {
    parent: Node,
    choice: Choice,
    depth: u32,
    /// Children, and holds.
    uses: u32,
}

/// A tree of choices.
pub(crate) struct Tree {
    entries: Vec<Entry>,
    free: Vec<Node>,
}

impl Tree {
    pub(crate) fn new() -> Self {
        Self { entries: vec![Entry { parent: ROOT, choice: Choice::NONE, depth: 0, uses: 1 }], free: Vec::new() }
    }

    fn entry(&self, node: Node) -> &Entry {
        &self.entries[node.0 as usize]
    }

    fn entry_mut(&mut self, node: Node) -> &mut Entry {
        &mut self.entries[node.0 as usize]
    }

    /// The state that this choice leads to, held.
    ///
    /// # Panics
    /// If four thousand million are held.
    pub(crate) fn add(&mut self, parent: Node, choice: Choice) -> Node {
        let depth = self.entry(parent).depth + 1;
        self.hold(parent);
        let entry = Entry { parent, choice, depth, uses: 1 };
        if let Some(node) = self.free.pop() {
            *self.entry_mut(node) = entry;
            return node;
        }
        self.entries.push(entry);
        Node(u32::try_from(self.entries.len() - 1).expect("memory ends before numbers do"))
    }

    /// Keeps a node until it is let go once more.
    pub(crate) fn hold(&mut self, node: Node) {
        self.entry_mut(node).uses += 1;
    }

    /// What nobody holds and leads nowhere is gone.
    pub(crate) fn let_go(&mut self, mut node: Node) {
        loop {
            let entry = self.entry_mut(node);
            entry.uses -= 1;
            if entry.uses != 0 {
                return;
            }
            let parent = entry.parent;
            self.free.push(node);
            node = parent;
        }
    }

    pub(crate) fn parent(&self, node: Node) -> Node {
        self.entry(node).parent
    }

    pub(crate) fn choice(&self, node: Node) -> Choice {
        self.entry(node).choice
    }

    pub(crate) fn depth(&self, node: Node) -> usize {
        self.entry(node).depth as usize
    }

    /// The way to a node.
    pub(crate) fn path(&self, mut node: Node) -> Vec<Choice> {
        let mut path = Vec::with_capacity(self.depth(node));
        while node != ROOT {
            path.push(self.choice(node));
            node = self.parent(node);
        }
        path.reverse();
        path
    }

    /// Bytes in use.
    pub(crate) fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.free.capacity() * size_of::<Node>()
    }

    /// Whether nothing but the root is held.
    #[cfg(test)]
    fn is_bare(&self) -> bool {
        self.entries.len() - self.free.len() == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_nowhere_is_gone_and_the_rest_stays() {
        let step = Choice::from_bits;
        let mut tree = Tree::new();
        let trunk = tree.add(ROOT, step(1));
        let left = tree.add(trunk, step(2));
        let right = tree.add(trunk, step(3));
        tree.let_go(trunk);
        assert_eq!(tree.path(left), [step(1), step(2)]);
        tree.let_go(left);
        let leaf = tree.add(right, step(4));
        tree.let_go(right);
        assert_eq!((tree.path(leaf), tree.depth(leaf)), (vec![step(1), step(3), step(4)], 3));
        assert!(!tree.is_bare());
        tree.let_go(leaf);
        assert!(tree.is_bare());
    }
}
