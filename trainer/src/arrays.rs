//! Files of named arrays and a JSON document about them: safetensors that tell
//! whether they are what was written.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::files::write_whole;
use crate::work::WorkError;

/// Where the document stands in the file's metadata.
const ABOUT: &str = "netshare";

/// Numbers of one kind.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Array {
    F32(Vec<f32>),
    U64(Vec<u64>),
    U32(Vec<u32>),
    U8(Vec<u8>),
}

impl Array {
    /// Their type, number and bytes.
    pub(crate) fn bytes(&self) -> (Dtype, usize, Vec<u8>) {
        match self {
            Array::F32(v) => {
                (Dtype::F32, v.len(), v.iter().flat_map(|v| v.to_le_bytes()).collect())
            }
            Array::U64(v) => {
                (Dtype::U64, v.len(), v.iter().flat_map(|v| v.to_le_bytes()).collect())
            }
            Array::U32(v) => {
                (Dtype::U32, v.len(), v.iter().flat_map(|v| v.to_le_bytes()).collect())
            }
            Array::U8(v) => (Dtype::U8, v.len(), v.clone()),
        }
    }

    fn of(view: &TensorView<'_>) -> Option<Array> {
        fn words<const N: usize, T>(data: &[u8], of: impl Fn([u8; N]) -> T) -> Vec<T> {
            let chunks = data.chunks_exact(N);
            chunks.filter_map(|chunk| chunk.try_into().ok()).map(of).collect()
        }
        match view.dtype() {
            Dtype::F32 => Some(Array::F32(words(view.data(), f32::from_le_bytes))),
            Dtype::U64 => Some(Array::U64(words(view.data(), u64::from_le_bytes))),
            Dtype::U32 => Some(Array::U32(words(view.data(), u32::from_le_bytes))),
            Dtype::U8 => Some(Array::U8(view.data().to_vec())),
            _ => None,
        }
    }
}

/// Arrays by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Arrays(BTreeMap<String, Array>);

impl Arrays {
    pub(crate) fn put(&mut self, name: impl Into<String>, array: Array) {
        self.0.insert(name.into(), array);
    }

    /// Adds a list of arrays under numbered names.
    pub(crate) fn put_all(&mut self, name: &str, arrays: &[Vec<f32>]) {
        for (index, values) in arrays.iter().enumerate() {
            self.put(format!("{name}.{index}"), Array::F32(values.clone()));
        }
    }

    /// Takes out what [`Arrays::put_all`] put in.
    pub(crate) fn take_all(&mut self, name: &str) -> Vec<Vec<f32>> {
        let next = |index| self.take_f32(&format!("{name}.{index}"));
        (0_usize..).map_while(next).collect()
    }

    pub(crate) fn take_f32(&mut self, name: &str) -> Option<Vec<f32>> {
        match self.0.remove(name) {
            Some(Array::F32(values)) => Some(values),
            _ => None,
        }
    }

    pub(crate) fn take_u64(&mut self, name: &str) -> Option<Vec<u64>> {
        match self.0.remove(name) {
            Some(Array::U64(values)) => Some(values),
            _ => None,
        }
    }

    pub(crate) fn take_u32(&mut self, name: &str) -> Option<Vec<u32>> {
        match self.0.remove(name) {
            Some(Array::U32(values)) => Some(values),
            _ => None,
        }
    }

    pub(crate) fn take_u8(&mut self, name: &str) -> Option<Vec<u8>> {
        match self.0.remove(name) {
            Some(Array::U8(values)) => Some(values),
            _ => None,
        }
    }

    /// Writes a file whole or not at all.
    pub(crate) fn write(&self, path: &Path, about: &impl Serialize) -> Result<(), WorkError> {
        let fail = |source: std::io::Error| WorkError::Write { path: path.to_owned(), source };
        let other = |error: safetensors::SafeTensorError| fail(std::io::Error::other(error));
        let bytes = self.0.iter().map(|(name, array)| (name, array.bytes()));
        let data: Vec<_> = bytes.collect();
        let views = data
            .iter()
            .map(|(name, (dtype, length, bytes))| {
                TensorView::new(*dtype, vec![*length], bytes).map(|view| (name.as_str(), view))
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(other)?;
        let about = serde_json::to_value(about).map_err(|error| fail(error.into()))?;
        let all = data.iter().map(|(name, (_, _, bytes))| (name.as_str(), bytes.as_slice()));
        let document = Document { sha256: digest(&about, all), about };
        let document = serde_json::to_string(&document).map_err(|error| fail(error.into()))?;
        let metadata = HashMap::from([(ABOUT.to_owned(), document)]);
        let file = safetensors::serialize(views, Some(metadata)).map_err(other)?;
        write_whole(path, &file).map_err(fail)
    }

    /// Reads a file, and what it says of itself.
    pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<(Arrays, T), WorkError> {
        let file = std::fs::read(path)
            .map_err(|source| WorkError::Read { path: path.to_owned(), source })?;
        let damaged = |reason: String| WorkError::Damaged { path: path.to_owned(), reason };
        let (_, header) =
            SafeTensors::read_metadata(&file).map_err(|error| damaged(error.to_string()))?;
        let text = header.metadata().as_ref().and_then(|all| all.get(ABOUT));
        let text = text.ok_or_else(|| damaged(format!("no `{ABOUT}` in its metadata")))?;
        let document: Document =
            serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
        let tensors =
            SafeTensors::deserialize(&file).map_err(|error| damaged(error.to_string()))?;
        let views: BTreeMap<String, TensorView<'_>> = tensors.tensors().into_iter().collect();
        let found =
            digest(&document.about, views.iter().map(|(name, view)| (name.as_str(), view.data())));
        if found != document.sha256 {
            return Err(damaged("its contents are not those that were written".to_owned()));
        }
        let mut arrays = Arrays::default();
        for (name, view) in views {
            let Some(array) = Array::of(&view) else {
                return Err(damaged(format!("`{name}` is of an unknown type")));
            };
            arrays.put(name, array);
        }
        let about =
            serde_json::from_value(document.about).map_err(|error| damaged(error.to_string()))?;
        Ok((arrays, about))
    }
}

/// What stands in the metadata.
#[derive(Serialize, Deserialize)]
struct Document {
    about: serde_json::Value,
    /// Of the document and of all arrays.
    sha256: String,
}

fn digest<'a>(
    about: &serde_json::Value,
    arrays: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> String {
    let mut sha = Sha256::new();
    let about = about.to_string();
    sha.update((about.len() as u64).to_le_bytes());
    sha.update(about);
    for (name, bytes) in arrays {
        sha.update((name.len() as u64).to_le_bytes());
        sha.update(name);
        sha.update((bytes.len() as u64).to_le_bytes());
        sha.update(bytes);
    }
    sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_any_damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let mut arrays = Arrays::default();
        arrays.put("empty", Array::U8(Vec::new()));
        arrays.put("ends", Array::U64(vec![1, u64::MAX]));
        arrays.put_all("weight", &[vec![0.1, -0.0], vec![f32::MIN_POSITIVE]]);
        arrays.write(&path, &("what", 0.1)).unwrap();
        let (mut back, about) = Arrays::read::<(String, f64)>(&path).unwrap();
        assert_eq!((&back, about), (&arrays, ("what".to_owned(), 0.1)));
        assert_eq!(back.take_all("weight"), [vec![0.1, -0.0], vec![f32::MIN_POSITIVE]]);
        assert_eq!(back.take_u64("ends"), Some(vec![1, u64::MAX]));
        assert_eq!(back.take_f32("empty"), None, "of another type");
        let file = std::fs::read(&path).unwrap();
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, &damaged).unwrap();
            // A changed blank between header and data is no damage.
            match Arrays::read::<(String, f64)>(&path) {
                Ok((same, _)) => assert_eq!(same, arrays, "byte {at}"),
                Err(error) => assert!(error.to_string().contains("is damaged"), "{error}"),
            }
            std::fs::write(&path, &file[..at]).unwrap();
            assert!(Arrays::read::<(String, f64)>(&path).is_err(), "cut at {at}");
        }
    }
}
