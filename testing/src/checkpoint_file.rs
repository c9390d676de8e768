//! Checkpoints as torch.save writes them, built opcode by opcode, for tests that need large or invalid ones.

use std::io::{Cursor, Read, Write};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// A stored zip archive with `data.pkl` and storages 0, 1, ...
pub fn archive(pickle: &[u8], storages: &[&[u8]]) -> Vec<u8> {
    let storages = storages.iter().enumerate().map(|(i, bytes)| (format!("data/{i}"), *bytes));
    archive_of(std::iter::once(("data.pkl".to_owned(), pickle)).chain(storages))
}

/// A stored zip archive of any files.
pub fn archive_of<'a>(files: impl IntoIterator<Item = (String, &'a [u8])>) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in files {
        zip.start_file(format!("archive/{name}"), stored).expect("an entry");
        zip.write_all(bytes).expect("its bytes");
    }
    zip.finish().expect("an archive").into_inner()
}

/// The files of an archive, each as its name without the folder, the offset of its bytes, and its bytes.
pub fn files(bytes: &[u8]) -> Vec<(String, usize, Vec<u8>)> {
    let mut zip = ZipArchive::new(Cursor::new(bytes)).expect("an archive");
    let count = zip.len();
    let read = |i| {
        let mut file = zip.by_index(i).expect("a file");
        let mut content = Vec::new();
        file.read_to_end(&mut content).expect("its bytes");
        let name = file.name().expect("a name").split_once('/').expect("a folder").1.to_owned();
        (name, file.data_start().expect("its place") as usize, content)
    };
    (0..count).map(read).collect()
}

/// The opcode of a text.
pub fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn integer(value: usize) -> Vec<u8> {
    [b"\x8a\x08", &(value as u64).to_le_bytes()[..]].concat()
}

fn sizes(values: &[usize]) -> Vec<u8> {
    [b"(", &values.iter().copied().flat_map(integer).collect::<Vec<_>>()[..], b"t"].concat()
}

/// Writes f32 tensors in C order as a state dict of protocol 2.
pub fn write(path: &Path, tensors: &[(&str, &[usize], &[f32])]) {
    let (pickle, storages) = state_dict(tensors);
    let storages: Vec<&[u8]> = storages.iter().map(Vec::as_slice).collect();
    std::fs::write(path, archive(&pickle, &storages)).expect("a checkpoint");
}

/// The pickle of a state dict, and its storages in little-endian order.
pub fn state_dict(tensors: &[(&str, &[usize], &[f32])]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let (mut pickle, mut storages) = (b"\x80\x02}".to_vec(), Vec::new());
    for (i, (name, shape, values)) in tensors.iter().enumerate() {
        let strides: Vec<usize> = (0..shape.len()).map(|a| shape[a + 1..].iter().product()).collect();
        pickle.extend(text(name));
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        pickle.extend(text("storage"));
        pickle.extend(b"ctorch\nFloatStorage\n");
        pickle.extend([text(&i.to_string()), text("cpu"), integer(values.len()), b"tQ".to_vec()].concat());
        pickle.extend([integer(0), sizes(shape), sizes(&strides)].concat());
        pickle.extend(b"\x89ccollections\nOrderedDict\n)RtRs");
        storages.push(values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
    }
    pickle.push(b'.');
    (pickle, storages)
}
