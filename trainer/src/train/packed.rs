//! Encoded vectors in as little memory as gives every bit of them back.
//!
//! What encoders write into a softmax segment is one-hot, so its class is kept:
//! one bit of two, a byte or two of more. Sigmoid and tanh values stay numbers.
//! A segment that holds anything else is kept as numbers too, in every row.

use ns_model_format::layout::{Activation, Layout, Segment};

/// How a segment's values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Store {
    /// A softmax over one class: nothing to keep.
    Nothing,
    Bit,
    Byte,
    TwoBytes,
    Numbers,
}

impl Store {
    /// The smallest that can hold one-hot values of a segment.
    fn smallest(segment: Segment) -> Store {
        match (segment.activation, segment.dim) {
            (Activation::Softmax, 1) => Store::Nothing,
            (Activation::Softmax, 2) => Store::Bit,
            (Activation::Softmax, 3..=0x100) => Store::Byte,
            (Activation::Softmax, 0x101..=0x1_0000) => Store::TwoBytes,
            _ => Store::Numbers,
        }
    }
}

/// A segment's values in a vector and in a packed row.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Place {
    store: Store,
    from: usize,
    dim: usize,
    /// Its bit for [`Store::Bit`], else its first byte.
    at: usize,
}

/// Vectors of one layout, packed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Packed {
    dim: usize,
    places: Vec<Place>,
    row_bytes: usize,
    rows: usize,
    bytes: Vec<u8>,
}

/// The class of one-hot values, bit for bit.
fn class(values: &[f32]) -> Option<usize> {
    let (yes, no) = (1.0_f32.to_bits(), 0.0_f32.to_bits());
    let at = values.iter().position(|value| value.to_bits() == yes)?;
    let others = values.iter().enumerate().all(|(index, v)| index == at || v.to_bits() == no);
    others.then_some(at)
}

impl Packed {
    /// No vectors of this layout.
    pub(crate) fn new(layout: &Layout) -> Packed {
        let mut from = 0;
        let places = layout.segments.iter().map(|&segment| {
            let place = Place { store: Store::smallest(segment), from, dim: segment.dim, at: 0 };
            from += segment.dim;
            place
        });
        let mut packed = Packed { places: places.collect(), ..Packed::default() };
        packed.dim = from;
        packed.arrange();
        packed
    }

    /// Bits first, then what takes whole bytes.
    fn arrange(&mut self) {
        let bits = self.places.iter_mut().filter(|place| place.store == Store::Bit);
        let bits = bits.zip(0..).map(|(place, bit)| place.at = bit).count();
        let mut at = bits.div_ceil(8);
        for place in &mut self.places {
            let bytes = match place.store {
                Store::Nothing | Store::Bit => continue,
                Store::Byte => 1,
                Store::TwoBytes => 2,
                Store::Numbers => 4 * place.dim,
            };
            place.at = at;
            at += bytes;
        }
        self.row_bytes = at;
    }

    /// How many vectors.
    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    /// Memory that they take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Values of a vector.
    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    /// Gives memory back that only further vectors would need.
    pub(crate) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
    }

    /// Adds vectors that lie one after another.
    pub(crate) fn push_all(&mut self, vectors: &[f32]) {
        for vector in vectors.chunks_exact(self.dim.max(1)) {
            let as_numbers: Vec<usize> = (0..self.places.len())
                .filter(|&index| {
                    let Place { store, from, dim, .. } = self.places[index];
                    store != Store::Numbers && class(&vector[from..from + dim]).is_none()
                })
                .collect();
            if !as_numbers.is_empty() {
                self.keep_as_numbers(&as_numbers);
            }
            self.push(vector);
        }
    }

    /// Adds a vector whose segments are all such as their stores hold.
    fn push(&mut self, vector: &[f32]) {
        let start = self.bytes.len();
        self.bytes.resize(start + self.row_bytes, 0);
        let row = &mut self.bytes[start..];
        for &Place { store, from, dim, at } in &self.places {
            let values = &vector[from..from + dim];
            match store {
                Store::Nothing => {}
                Store::Bit => row[at / 8] |= u8::from(values[1] == 1.0) << (at % 8),
                Store::Byte => row[at] = class(values).unwrap_or(0) as u8,
                Store::TwoBytes => {
                    let class = class(values).unwrap_or(0) as u16;
                    row[at..at + 2].copy_from_slice(&class.to_le_bytes());
                }
                Store::Numbers => {
                    let bytes = row[at..].chunks_exact_mut(4);
                    bytes.zip(values).for_each(|(to, v)| to.copy_from_slice(&v.to_le_bytes()));
                }
            }
        }
        self.rows += 1;
    }

    /// Packs all vectors anew, with these segments as numbers.
    fn keep_as_numbers(&mut self, segments: &[usize]) {
        let mut wider = Packed { bytes: Vec::new(), rows: 0, ..self.clone() };
        segments.iter().for_each(|&index| wider.places[index].store = Store::Numbers);
        wider.arrange();
        wider.bytes.reserve_exact(self.rows * wider.row_bytes);
        let mut vector = vec![0.0; self.dim];
        for row in 0..self.rows {
            vector.fill(0.0);
            self.read(row, &mut vector);
            wider.push(&vector);
        }
        *self = wider;
    }

    /// What is needed beside the layout to read the vectors back: which segments are kept
    /// as numbers though their activation does not ask for it, how many vectors, and their bytes.
    pub(crate) fn parts(&self) -> (Vec<usize>, usize, &[u8]) {
        let places = self.places.iter().enumerate();
        let numbers = places.filter(|(_, place)| place.store == Store::Numbers);
        (numbers.map(|(index, _)| index).collect(), self.rows, &self.bytes)
    }

    /// The vectors of a layout from their [`Packed::parts`]; what is wrong with them, else.
    pub(crate) fn from_parts(
        layout: &Layout,
        numbers: &[usize],
        rows: usize,
        bytes: Vec<u8>,
    ) -> Result<Packed, String> {
        let mut packed = Packed::new(layout);
        if let Some(index) = numbers.iter().find(|&&index| index >= packed.places.len()) {
            return Err(format!("segment {index} of {}", packed.places.len()));
        }
        packed.keep_as_numbers(numbers);
        let expected = rows.checked_mul(packed.row_bytes);
        if expected != Some(bytes.len()) {
            let (found, row) = (bytes.len(), packed.row_bytes);
            return Err(format!("{found} bytes for {rows} vectors of {row}"));
        }
        (packed.rows, packed.bytes) = (rows, bytes);
        // A class that is not there would be written outside of its segment.
        for row in packed.bytes.chunks_exact(packed.row_bytes.max(1)) {
            for place in &packed.places {
                let class = match place.store {
                    Store::Byte => usize::from(row[place.at]),
                    Store::TwoBytes => {
                        usize::from(u16::from_le_bytes([row[place.at], row[place.at + 1]]))
                    }
                    _ => continue,
                };
                if class >= place.dim {
                    return Err(format!("class {class} of {}", place.dim));
                }
            }
        }
        Ok(packed)
    }

    /// Adds another's vectors, of the same layout.
    pub(crate) fn append(&mut self, mut other: Packed) {
        let numbers = |packed: &Packed| -> Vec<usize> {
            let places = packed.places.iter().enumerate();
            places.filter(|(_, p)| p.store == Store::Numbers).map(|(index, _)| index).collect()
        };
        let (ours, theirs) = (numbers(self), numbers(&other));
        if ours != theirs {
            self.keep_as_numbers(&theirs);
            other.keep_as_numbers(&ours);
        }
        self.bytes.extend_from_slice(&other.bytes);
        self.rows += other.rows;
    }

    /// Writes a vector over zeros.
    pub(crate) fn read(&self, row: usize, zeros: &mut [f32]) {
        let row = &self.bytes[row * self.row_bytes..(row + 1) * self.row_bytes];
        for &Place { store, from, dim, at } in &self.places {
            let class = match store {
                Store::Nothing => 0,
                Store::Bit => usize::from(row[at / 8] >> (at % 8) & 1),
                Store::Byte => usize::from(row[at]),
                Store::TwoBytes => usize::from(u16::from_le_bytes([row[at], row[at + 1]])),
                Store::Numbers => {
                    let bytes = row[at..].chunks_exact(4);
                    for (to, bytes) in zeros[from..from + dim].iter_mut().zip(bytes) {
                        *to = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                    }
                    continue;
                }
            };
            zeros[from + class] = 1.0;
        }
    }

    /// Writes vectors from number `first` on over zeros, as many as fit.
    pub(crate) fn read_all(&self, first: usize, zeros: &mut [f32]) {
        for (row, vector) in zeros.chunks_exact_mut(self.dim.max(1)).enumerate() {
            self.read(first + row, vector);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layout() -> Layout {
        let dims = [(1, Activation::Softmax), (2, Activation::Softmax), (2, Activation::Sigmoid)];
        let more = [(300, Activation::Softmax), (5, Activation::Softmax), (3, Activation::Tanh)];
        let many = [(2, Activation::Softmax); 9];
        let all = dims.into_iter().chain(more).chain(many);
        Layout { segments: all.map(|(dim, kind)| Segment::new(dim, kind)).collect() }
    }

    /// A vector as encoders write it, or with a segment that is not one-hot.
    fn vector() -> impl Strategy<Value = Vec<f32>> {
        let segments = layout().segments;
        let odd = prop_oneof![30 => Just(usize::MAX), 1 => 0..segments.len()];
        (any::<u64>(), odd, prop_oneof![Just(0.5_f32), Just(-0.0), Just(1.0)]).prop_map(
            move |(mut bits, odd, fill)| {
                let mut vector = Vec::new();
                for (index, segment) in segments.iter().enumerate() {
                    bits = bits.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767);
                    let class = (bits >> 33) as usize % segment.dim;
                    let one_hot = segment.activation == Activation::Softmax && index != odd;
                    vector.extend((0..segment.dim).map(|value| match one_hot {
                        true => f32::from(value == class),
                        false => fill * (value + class) as f32,
                    }));
                }
                vector
            },
        )
    }

    fn unpacked(packed: &Packed) -> Vec<u32> {
        let mut out = vec![0.0; packed.len() * packed.dim()];
        packed.read_all(0, &mut out);
        out.into_iter().map(f32::to_bits).collect()
    }

    proptest! {
        #[test]
        fn every_bit_comes_back(
            first in prop::collection::vec(vector(), 0..12),
            second in prop::collection::vec(vector(), 0..12),
        ) {
            let (mut packed, mut more) = (Packed::new(&layout()), Packed::new(&layout()));
            packed.push_all(&first.concat());
            more.push_all(&second.concat());
            packed.append(more);
            prop_assert_eq!(packed.len(), first.len() + second.len());
            let expected = first.concat().into_iter().chain(second.concat()).map(f32::to_bits);
            prop_assert_eq!(unpacked(&packed), expected.collect::<Vec<_>>());
            let (numbers, rows, bytes) = packed.parts();
            let back = Packed::from_parts(&layout(), &numbers, rows, bytes.to_vec());
            prop_assert_eq!(unpacked(&back.unwrap()), unpacked(&packed));
        }
    }

    #[test]
    fn one_hot_segments_take_bits_and_bytes() {
        // Ten bits, two and three floats, a class of 300 and one of 5.
        assert_eq!(Packed::new(&layout()).row_bytes, 2 + 4 * 5 + 2 + 1);
    }
}
