//! A column of an input table.

use crate::record::Value;

/// The cells of a column, all of one type.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ColumnData {
    /// Whole numbers.
    Int(Vec<i64>),
    /// Real numbers.
    Float(Vec<f64>),
    /// Text: `ids` index `words`, which holds each distinct text once.
    Text {
        /// One index a row.
        ids: Vec<u32>,
        /// The distinct texts.
        words: Vec<String>,
    },
}

/// A named column.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its name in the input's header, or the packet field's.
    pub name: String,
    /// Its cells.
    pub data: ColumnData,
}

impl Column {
    /// A column of whole numbers.
    #[must_use]
    pub fn ints(name: &str, cells: Vec<i64>) -> Column {
        Column { name: name.to_owned(), data: ColumnData::Int(cells) }
    }

    /// A column of real numbers.
    #[must_use]
    pub fn floats(name: &str, cells: Vec<f64>) -> Column {
        Column { name: name.to_owned(), data: ColumnData::Float(cells) }
    }

    /// A column of texts.
    #[must_use]
    pub fn texts<S: AsRef<str>>(name: &str, cells: impl IntoIterator<Item = S>) -> Column {
        let mut index = std::collections::HashMap::new();
        let mut words: Vec<String> = Vec::new();
        let ids = cells
            .into_iter()
            .map(|cell| {
                let cell = cell.as_ref();
                *index.entry(cell.to_owned()).or_insert_with(|| {
                    words.push(cell.to_owned());
                    (words.len() - 1) as u32
                })
            })
            .collect();
        Column { name: name.to_owned(), data: ColumnData::Text { ids, words } }
    }

    /// How many rows.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.data {
            ColumnData::Int(cells) => cells.len(),
            ColumnData::Float(cells) => cells.len(),
            ColumnData::Text { ids, .. } => ids.len(),
        }
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The cell of a row. Panics if there is no such row.
    #[must_use]
    pub fn value(&self, row: usize) -> Value {
        match &self.data {
            ColumnData::Int(cells) => Value::Int(cells[row]),
            ColumnData::Float(cells) => Value::Float(cells[row]),
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
}
