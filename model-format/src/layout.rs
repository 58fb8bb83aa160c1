//! How encoded fields lie in a network's output.
//!
//! Two forms. In **training** the segments of all fields follow one another in
//! field order and a yes/no output is a softmax over two values, as NetShare's
//! is. In the **bundle** the same outputs are *folded*: softmax over two values
//! `(a, b)` equals `sigmoid(b - a)` for the second, so it takes one value
//! instead of two, and equal activations stand side by side so that a graph
//! needs one Sigmoid, one Tanh, and one Softmax a class count.

use serde::{Deserialize, Serialize};

/// What turns a network's raw output into an encoded value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// Each value by itself into (0, 1).
    Sigmoid,
    /// Each value by itself into (-1, 1).
    Tanh,
    /// The segment's values together into a distribution.
    Softmax,
}

/// A run of outputs that one activation covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// How many values.
    pub dim: usize,
    /// Their activation.
    pub activation: Activation,
}

impl Segment {
    /// A segment of `dim` values under `activation`.
    #[must_use]
    pub fn new(dim: usize, activation: Activation) -> Segment {
        Segment { dim, activation }
    }

    fn folded(self) -> Segment {
        match self {
            Segment { dim: 2, activation: Activation::Softmax } => {
                Segment::new(1, Activation::Sigmoid)
            }
            other => other,
        }
    }
}

/// Consecutive segments: the training form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The segments, in order.
    pub segments: Vec<Segment>,
}

impl Layout {
    /// Values in all.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.segments.iter().map(|segment| segment.dim).sum()
    }

    /// Values in all after folding.
    #[must_use]
    pub fn folded_dim(&self) -> usize {
        self.segments.iter().map(|segment| segment.folded().dim).sum()
    }

    /// Writes the folded form of one encoded vector: of every two-way softmax
    /// only the second probability is kept; field order stays.
    ///
    /// `encoded` has [`Self::dim`] values, `folded` [`Self::folded_dim`].
    pub fn fold(&self, encoded: &[f32], folded: &mut [f32]) {
        let (mut from, mut to) = (0, 0);
        for segment in &self.segments {
            let dim = segment.folded().dim;
            let skip = segment.dim - dim;
            folded[to..to + dim].copy_from_slice(&encoded[from + skip..from + segment.dim]);
            from += segment.dim;
            to += dim;
        }
    }

    /// The order of outputs in a bundle's graph that emits `repeat` vectors at once.
    #[must_use]
    pub fn fold_layout(&self, repeat: usize) -> FoldedLayout {
        let mut order: Vec<usize> = (0..self.segments.len()).collect();
        order.sort_by_key(|&index| {
            let segment = self.segments[index].folded();
            (segment.activation, segment.dim, index)
        });
        let mut segments = vec![
            FoldedSegment { offset: 0, dim: 0, activation: Activation::Sigmoid };
            self.segments.len()
        ];
        let mut offset = 0;
        for index in order {
            let segment = self.segments[index].folded();
            segments[index] =
                FoldedSegment { offset, dim: segment.dim, activation: segment.activation };
            offset += segment.dim * repeat;
        }
        FoldedLayout { repeat, segments }
    }
}

/// Where one folded segment lies in a graph's output row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoldedSegment {
    /// Its first column for vector 0; vector `r` begins `r * dim` further.
    pub offset: usize,
    /// Columns a vector.
    pub dim: usize,
    /// The activation that the graph has applied.
    pub activation: Activation,
}

/// The columns of a graph's output, in field order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoldedLayout {
    /// Vectors a row: the records that one step yields, or 1 for attributes.
    pub repeat: usize,
    /// One entry a segment, in field order (not in column order).
    pub segments: Vec<FoldedSegment>,
}

impl FoldedLayout {
    /// Columns of the graph's output.
    #[must_use]
    pub fn width(&self) -> usize {
        self.vector_dim() * self.repeat
    }

    /// Values of one vector.
    #[must_use]
    pub fn vector_dim(&self) -> usize {
        self.segments.iter().map(|segment| segment.dim).sum()
    }

    /// For each value of vector `repeat_index` in field order, its column.
    #[must_use]
    pub fn columns(&self, repeat_index: usize) -> Vec<usize> {
        self.segments
            .iter()
            .flat_map(|segment| {
                let start = segment.offset + repeat_index * segment.dim;
                start..start + segment.dim
            })
            .collect()
    }

    /// Whether the segments tile `0..width()` without gap or overlap: a
    /// layout read from a bundle must, before anything is indexed by it.
    #[must_use]
    pub fn is_tiling(&self) -> bool {
        const MOST_COLUMNS: usize = 1 << 24;
        let mut extents: Vec<(usize, usize)> = Vec::with_capacity(self.segments.len());
        for segment in &self.segments {
            let Some(length) = segment.dim.checked_mul(self.repeat) else { return false };
            if length == 0 || length > MOST_COLUMNS || segment.offset > MOST_COLUMNS {
                return false;
            }
            extents.push((segment.offset, length));
        }
        extents.sort_unstable();
        let mut next = 0;
        extents.into_iter().all(|(offset, length)| {
            let fits = offset == next;
            next = offset + length;
            fits
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout {
            segments: vec![
                Segment::new(3, Activation::Softmax),
                Segment::new(1, Activation::Sigmoid),
                Segment::new(2, Activation::Softmax),
                Segment::new(4, Activation::Tanh),
                Segment::new(2, Activation::Softmax),
            ],
        }
    }

    #[test]
    fn folding_keeps_the_second_probability() {
        let encoded = [0.0, 1.0, 0.0, 0.5, 1.0, 0.0, 0.1, 0.2, 0.3, 0.4, 0.25, 0.75];
        let mut folded = [0.0; 10];
        assert_eq!(layout().folded_dim(), 10);
        layout().fold(&encoded, &mut folded);
        assert_eq!(folded, [0.0, 1.0, 0.0, 0.5, 0.0, 0.1, 0.2, 0.3, 0.4, 0.75]);
    }

    #[test]
    fn folded_columns_tile_the_row_grouped_by_activation() {
        let folded = layout().fold_layout(5);
        assert_eq!(folded.width(), 50);
        assert!(folded.is_tiling());
        let mut seen: Vec<usize> = (0..5).flat_map(|record| folded.columns(record)).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..50).collect::<Vec<_>>());
        // Sigmoids first (1 + 1 + 1 a record), then tanh, then softmax.
        assert!(folded.segments.iter().all(|segment| match segment.activation {
            Activation::Sigmoid => segment.offset < 15,
            Activation::Tanh => (15..35).contains(&segment.offset),
            Activation::Softmax => segment.offset >= 35,
        }));
    }

    #[test]
    fn overlapping_or_absurd_layouts_are_not_tilings() {
        let mut folded = layout().fold_layout(2);
        folded.segments[0].offset = 0;
        assert!(!folded.is_tiling());
        let mut folded = layout().fold_layout(2);
        folded.repeat = usize::MAX;
        assert!(!folded.is_tiling());
    }
}
