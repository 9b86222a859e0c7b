//! Where boxes and lines stand in the picture.
//!
//! Boxes keep the column they are given. A line that passes a column in between gets a place of its
//! own there, as if it were a low box, so it never runs behind one. Within a column the order is
//! the one with the fewest crossings that a few sweeps find, and heights follow the neighbours as
//! closely as the order allows.

use std::collections::BTreeMap;

/// Height of a box, in pixels.
pub(super) const BOX_HEIGHT: f64 = 46.0;
/// Height that a passing line takes.
const PASS_HEIGHT: f64 = 10.0;
/// Least distance between two things in a column.
const GAP: f64 = 18.0;
/// Sweeps over the columns, forth and back.
const SWEEPS: usize = 6;
/// Above this many lines between two columns, crossings are not counted: it takes the square.
const COUNTED_MAX: usize = 2_000;

/// Places of boxes and lines; the top is 0.
pub(super) struct Layout {
    /// Middle of each box, downwards.
    pub(super) boxes: Vec<f64>,
    /// For each line, its height in every column that it passes: (column, height).
    pub(super) passes: Vec<Vec<(usize, f64)>>,
    pub(super) height: f64,
}

/// A box or a passing line in one column.
struct Slot {
    column: usize,
    height: f64,
    middle: f64,
    before: Vec<usize>,
    after: Vec<usize>,
}

/// Lays out boxes by their columns, and lines from box to box, each to a later column.
pub(super) fn layout(columns: &[usize], lines: &[(usize, usize)]) -> Layout {
    let mut slots: Vec<Slot> = columns
        .iter()
        .map(|column| slot(*column, BOX_HEIGHT))
        .collect();
    let mut chains: Vec<Vec<usize>> = Vec::new();
    for (from, to) in lines {
        let mut chain = Vec::new();
        let mut last = *from;
        let (start, end) = (column_of(columns, *from), column_of(columns, *to));
        for column in start + 1..end {
            slots.push(slot(column, PASS_HEIGHT));
            let here = slots.len() - 1;
            connect(&mut slots, last, here);
            chain.push(here);
            last = here;
        }
        connect(&mut slots, last, *to);
        chains.push(chain);
    }
    let mut order: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, slot) in slots.iter().enumerate() {
        order.entry(slot.column).or_default().push(index);
    }
    let order = untangle(&slots, order);
    place(&mut slots, &order);
    let top = slots
        .iter()
        .map(|slot| slot.middle - slot.height / 2.0)
        .fold(f64::INFINITY, f64::min);
    let top = if top.is_finite() { top } else { 0.0 };
    let middle = |index: usize| slots.get(index).map_or(0.0, |slot| slot.middle - top);
    Layout {
        boxes: (0..columns.len()).map(middle).collect(),
        passes: chains
            .iter()
            .map(|chain| {
                chain
                    .iter()
                    .map(|index| (column_of_slot(&slots, *index), middle(*index)))
                    .collect()
            })
            .collect(),
        height: slots
            .iter()
            .map(|slot| slot.middle + slot.height / 2.0 - top)
            .fold(0.0, f64::max),
    }
}

fn slot(column: usize, height: f64) -> Slot {
    Slot {
        column,
        height,
        middle: 0.0,
        before: Vec::new(),
        after: Vec::new(),
    }
}

fn column_of(columns: &[usize], index: usize) -> usize {
    columns.get(index).copied().unwrap_or_default()
}

fn column_of_slot(slots: &[Slot], index: usize) -> usize {
    slots.get(index).map_or(0, |slot| slot.column)
}

fn connect(slots: &mut [Slot], from: usize, to: usize) {
    if let Some(slot) = slots.get_mut(from) {
        slot.after.push(to);
    }
    if let Some(slot) = slots.get_mut(to) {
        slot.before.push(from);
    }
}

/// Orders every column by the middle of its neighbours' places, forth and back, and keeps the
/// order with the fewest crossings.
fn untangle(slots: &[Slot], start: BTreeMap<usize, Vec<usize>>) -> BTreeMap<usize, Vec<usize>> {
    let mut order = start;
    let mut best = order.clone();
    let mut fewest = crossings(slots, &best);
    for sweep in 0..SWEEPS {
        let forth = sweep % 2 == 0;
        let columns: Vec<usize> = if forth {
            order.keys().copied().collect()
        } else {
            order.keys().rev().copied().collect()
        };
        let mut places = places(slots.len(), &order);
        for column in columns {
            let Some(list) = order.get_mut(&column) else {
                continue;
            };
            let mut keyed: Vec<(f64, usize, usize)> = list
                .iter()
                .enumerate()
                .map(|(position, index)| {
                    let neighbours = slots.get(*index).map_or(&[][..], |slot| {
                        if forth { &slot.before } else { &slot.after }
                    });
                    let key = mean(neighbours.iter().filter_map(|n| places.get(*n).copied()))
                        .unwrap_or(position as f64);
                    (key, position, *index)
                })
                .collect();
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            *list = keyed.iter().map(|(_, _, index)| *index).collect();
            for (position, index) in list.iter().enumerate() {
                if let Some(place) = places.get_mut(*index) {
                    *place = position as f64;
                }
            }
        }
        let now = crossings(slots, &order);
        if now < fewest {
            fewest = now;
            best = order.clone();
        }
    }
    best
}

/// Position of every slot in its column.
fn places(count: usize, order: &BTreeMap<usize, Vec<usize>>) -> Vec<f64> {
    let mut out = vec![0.0; count];
    for list in order.values() {
        for (position, index) in list.iter().enumerate() {
            if let Some(place) = out.get_mut(*index) {
                *place = position as f64;
            }
        }
    }
    out
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

fn crossings(slots: &[Slot], order: &BTreeMap<usize, Vec<usize>>) -> usize {
    let places = places(slots.len(), order);
    let place = |index: usize| places.get(index).copied().unwrap_or_default();
    order
        .values()
        .map(|list| {
            let pairs: Vec<(f64, f64)> = list
                .iter()
                .filter_map(|index| slots.get(*index).map(|slot| (*index, slot)))
                .flat_map(|(index, slot)| {
                    slot.after.iter().map(move |to| (place(index), place(*to)))
                })
                .take(COUNTED_MAX)
                .collect();
            pairs
                .iter()
                .enumerate()
                .map(|(at, one)| {
                    pairs
                        .iter()
                        .skip(at + 1)
                        .filter(|other| (one.0 - other.0) * (one.1 - other.1) < 0.0)
                        .count()
                })
                .sum::<usize>()
        })
        .sum()
}

/// Gives every slot its height: as near to its neighbours' as the order and the gaps allow.
fn place(slots: &mut [Slot], order: &BTreeMap<usize, Vec<usize>>) {
    for list in order.values() {
        let mut bottom = 0.0;
        for index in list {
            if let Some(slot) = slots.get_mut(*index) {
                slot.middle = bottom + slot.height / 2.0;
                bottom += slot.height + GAP;
            }
        }
    }
    for sweep in 0..SWEEPS {
        let forth = sweep % 2 == 0;
        let lists: Vec<&Vec<usize>> = if forth {
            order.values().collect()
        } else {
            order.values().rev().collect()
        };
        for list in lists {
            let wanted: Vec<(f64, f64)> = list
                .iter()
                .filter_map(|index| {
                    let slot = slots.get(*index)?;
                    let sides = if forth { &slot.before } else { &slot.after };
                    let middle = mean(sides.iter().filter_map(|n| slots.get(*n).map(|s| s.middle)));
                    Some((middle.unwrap_or(slot.middle), slot.height))
                })
                .collect();
            for (index, middle) in list.iter().zip(nearest(&wanted)) {
                if let Some(slot) = slots.get_mut(*index) {
                    slot.middle = middle;
                }
            }
        }
    }
}

/// The heights nearest to the wanted ones (least squares) that keep order and gaps: isotonic
/// regression by pooling neighbours that would overlap.
fn nearest(wanted: &[(f64, f64)]) -> Vec<f64> {
    // Without the room that everything above takes, order is all that remains to keep.
    let mut room = 0.0;
    let mut rooms = Vec::new();
    let mut before: Option<f64> = None;
    for (_, height) in wanted {
        if let Some(above) = before {
            room += above / 2.0 + GAP + height / 2.0;
        }
        before = Some(*height);
        rooms.push(room);
    }
    let mut pools: Vec<(f64, u32)> = Vec::new();
    for ((middle, _), room) in wanted.iter().zip(&rooms) {
        let mut pool = (middle - room, 1_u32);
        while let Some((sum, count)) = pools.last().copied() {
            if sum / f64::from(count) <= pool.0 / f64::from(pool.1) {
                break;
            }
            pools.pop();
            pool = (pool.0 + sum, pool.1 + count);
        }
        pools.push(pool);
    }
    pools
        .iter()
        .flat_map(|(sum, count)| {
            std::iter::repeat_n(
                sum / f64::from(*count),
                usize::try_from(*count).unwrap_or(1),
            )
        })
        .zip(&rooms)
        .map(|(value, room)| value + room)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sound(columns: &[usize], lines: &[(usize, usize)]) {
        let layout = layout(columns, lines);
        let mut things: Vec<(usize, f64, f64)> = columns
            .iter()
            .zip(&layout.boxes)
            .map(|(column, middle)| (*column, *middle, BOX_HEIGHT))
            .collect();
        for passes in &layout.passes {
            things.extend(passes.iter().map(|(c, middle)| (*c, *middle, PASS_HEIGHT)));
        }
        for (at, one) in things.iter().enumerate() {
            assert!(one.1 - one.2 / 2.0 > -0.001 && one.1 + one.2 / 2.0 < layout.height + 0.001);
            for other in things.iter().skip(at + 1).filter(|other| other.0 == one.0) {
                let apart = (one.1 - other.1).abs() - (one.2 + other.2) / 2.0;
                assert!(apart > GAP - 0.001, "overlap in column {}: {apart}", one.0);
            }
        }
        for ((from, to), passes) in lines.iter().zip(&layout.passes) {
            let between: Vec<usize> = passes.iter().map(|(column, _)| *column).collect();
            let wanted: Vec<usize> = (columns[*from] + 1..columns[*to]).collect();
            assert_eq!(between, wanted, "a line leaves its own places");
        }
    }

    #[test]
    fn a_short_path_to_the_last_column_passes_beside_the_boxes_of_a_long_one() {
        // A long path 0-1-2-3 and a short one 4-3, in one row if nothing made room.
        sound(&[0, 1, 2, 3, 0, 3], &[(0, 1), (1, 2), (2, 3), (4, 5)]);
    }

    proptest! {
        #[test]
        fn nothing_overlaps_in_any_graph(
            columns in prop::collection::vec(0_usize..6, 1..40),
            pairs in prop::collection::vec((0_usize..40, 0_usize..40), 0..60),
        ) {
            let lines: Vec<(usize, usize)> = pairs
                .into_iter()
                .map(|(a, b)| (a % columns.len(), b % columns.len()))
                .filter(|(a, b)| columns[*a] < columns[*b])
                .collect();
            sound(&columns, &lines);
        }
    }
}
