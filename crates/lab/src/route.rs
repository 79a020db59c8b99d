//! In which order the search for the shortest run goes through a level, and by which ways.
//!
//! Between one node and the next, the machine undoes the steps to where their ways part, and does others. Most nodes have several ways of the same length. So few parents are chosen that lead to all nodes of the level,
//! then few that lead to these parents, and so on. Gone through depth first, that tree takes about three steps for each node, where ways by the first parent that was met take twice as many.

use crate::shortest::{Node, Search, Step};

/// Lays the ways to the nodes of the last level, and says in which order to go through them.
pub(crate) fn through(search: &mut Search) -> Vec<u32> {
    let last = search.levels.len() - 1;
    let mut wanted: Vec<u32> = (search.levels[last].node as u32..search.nodes.len() as u32).collect();
    let few = wanted.len() / FEW;
    let mut generations = Vec::new();
    let mut level = last;
    while level > 0 && wanted.len() > few {
        level -= 1;
        let parents = parents_of(search, level, &wanted);
        generations.push(std::mem::replace(&mut wanted, parents));
    }
    let mut order = wanted;
    for mut children in generations.into_iter().rev() {
        let first = search.levels[level].node;
        let mut rank = vec![0; search.levels[level + 1].node - first];
        order.iter().zip(0u32..).for_each(|(&parent, at)| rank[parent as usize - first] = at);
        children.sort_by_key(|&child| rank[search.nodes[child as usize].parent as usize - first]);
        order = children;
        level += 1;
    }
    order
}

/// Of a level, this part of the nodes is so few that it does not matter by which ways they are reached.
const FEW: usize = 16;

/// Chooses nodes of a level that lead to all of `wanted`, of the next, and lays the ways through them. They are in their order.
fn parents_of(search: &mut Search, level: usize, wanted: &[u32]) -> Vec<u32> {
    let Search { nodes, steps, levels, .. } = search;
    let next = &levels[level + 1];
    let steps = &steps[levels[level].step..next.step];
    let end = levels.get(level + 2).map_or(nodes.len(), |after| after.node);
    let place = |step: &Step| step.to as usize - next.node;
    let mut is_open = vec![false; end - next.node];
    wanted.iter().for_each(|&node| is_open[node as usize - next.node] = true);
    let mut parents = Vec::new();
    // The smallest choice is hard to find. First those that lead to many which no other was chosen for.
    for many in [3, 2, 1] {
        for of_one in steps.chunk_by(|step, next| step.from == next.from) {
            if of_one.iter().filter(|step| is_open[place(step)]).count() < many {
                continue;
            }
            let parent = of_one[0].from;
            parents.push(parent);
            for step in of_one {
                if std::mem::take(&mut is_open[place(step)]) {
                    nodes[step.to as usize] = Node { parent, choice: step.choice };
                }
            }
        }
    }
    parents.sort_unstable();
    parents
}
