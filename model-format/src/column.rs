//! A column of an input table.

use std::sync::Arc;

use crate::record::Value;

/// The cells of a column, all of one type.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ColumnData {
    /// Whole numbers.
    Int(Vec<i64>),
    /// Real numbers.
    Float(Vec<f64>),
    /// Whole numbers of up to 128 bits.
    Wide(Vec<u128>),
    /// Text: `ids` index `words`, which holds each distinct text once.
    Text {
        /// One index a row.
        ids: Vec<u32>,
        /// The distinct texts.
        words: Arc<[String]>,
    },
}

/// A named column.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its name in the input's header, or the packet field's.
    pub name: String,
    /// Its cells.
    pub data: ColumnData,
    /// Which cells are missing, one entry a row; empty if none is. The cell of
    /// a missing value holds a typical one, for encoders that need some value there.
    pub missing: Vec<bool>,
}

impl Column {
    /// A column without missing values.
    #[must_use]
    pub fn new(name: &str, data: ColumnData) -> Column {
        Column { name: name.to_owned(), data, missing: Vec::new() }
    }

    /// A column of whole numbers.
    #[must_use]
    pub fn ints(name: &str, cells: Vec<i64>) -> Column {
        Column::new(name, ColumnData::Int(cells))
    }

    /// A column of real numbers.
    #[must_use]
    pub fn floats(name: &str, cells: Vec<f64>) -> Column {
        Column::new(name, ColumnData::Float(cells))
    }

    /// A column of texts.
    #[must_use]
    pub fn texts<S: AsRef<str>>(name: &str, cells: impl IntoIterator<Item = S>) -> Column {
        let mut words = Words::default();
        let ids = cells.into_iter().map(|cell| words.id(cell.as_ref())).collect();
        Column::new(name, ColumnData::Text { ids, words: words.into_list() })
    }

    /// How many rows.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.data {
            ColumnData::Int(cells) => cells.len(),
            ColumnData::Float(cells) => cells.len(),
            ColumnData::Wide(cells) => cells.len(),
            ColumnData::Text { ids, .. } => ids.len(),
        }
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether any cell is missing.
    #[must_use]
    pub fn has_missing(&self) -> bool {
        self.missing.contains(&true)
    }

    /// Whether the cell of a row is missing.
    #[must_use]
    pub fn is_missing(&self, row: usize) -> bool {
        self.missing.get(row).copied().unwrap_or(false)
    }

    /// The cell of a row. Panics if there is no such row.
    #[must_use]
    pub fn value(&self, row: usize) -> Value {
        if self.is_missing(row) {
            return Value::Missing;
        }
        match &self.data {
            ColumnData::Int(cells) => Value::Int(cells[row]),
            ColumnData::Float(cells) => Value::Float(cells[row]),
            ColumnData::Wide(cells) => Value::Wide(cells[row].into()),
            ColumnData::Text { ids, .. } => Value::Text(ids[row]),
        }
    }

    /// The distinct texts that [`Value::Text`] of this column indexes; empty for numbers.
    #[must_use]
    pub fn words(&self) -> &[String] {
        match &self.data {
            ColumnData::Text { words, .. } => words,
            _ => &[],
        }
    }

    /// The cells of some rows, in the order given. Panics if there is no such row.
    #[must_use]
    pub fn pick(&self, rows: &[usize]) -> Column {
        fn of<T: Copy>(cells: &[T], rows: &[usize]) -> Vec<T> {
            rows.iter().map(|&row| cells[row]).collect()
        }
        let data = match &self.data {
            ColumnData::Int(cells) => ColumnData::Int(of(cells, rows)),
            ColumnData::Float(cells) => ColumnData::Float(of(cells, rows)),
            ColumnData::Wide(cells) => ColumnData::Wide(of(cells, rows)),
            ColumnData::Text { ids, words } => {
                ColumnData::Text { ids: of(ids, rows), words: Arc::clone(words) }
            }
        };
        let missing = if self.missing.is_empty() { Vec::new() } else { of(&self.missing, rows) };
        Column { name: self.name.clone(), data, missing }
    }
}

/// Distinct texts in order of first sight.
#[derive(Clone, Debug, Default)]
pub struct Words {
    ids: std::collections::HashMap<Arc<str>, u32>,
    list: Vec<Arc<str>>,
}

impl Words {
    /// The index of a text, a new one if it was not seen.
    pub fn id(&mut self, text: &str) -> u32 {
        if let Some(&id) = self.ids.get(text) {
            return id;
        }
        let (id, text) = (self.list.len() as u32, Arc::<str>::from(text));
        self.list.push(Arc::clone(&text));
        self.ids.insert(text, id);
        id
    }

    /// The texts by index.
    #[must_use]
    pub fn into_list(self) -> Arc<[String]> {
        drop(self.ids);
        self.list.iter().map(|text| text.as_ref().to_owned()).collect()
    }
}
