//! Zip archives of folders, as nnUNetv2_export_model writes them.

use std::io::{Cursor, Write};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A compressed archive of all files under `folder`, whose names begin at `folder`.
pub fn of_folder(folder: &Path) -> Vec<u8> {
    let mut files = Vec::new();
    collect(folder, "", &mut files);
    let files: Vec<(String, Vec<u8>)> =
        files.into_iter().map(|name| (name.clone(), std::fs::read(folder.join(&name)).expect("a file"))).collect();
    of_files(files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())))
}

/// A compressed archive of files with any names.
pub fn of_files<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        let deflated = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        zip.start_file(name, deflated).expect("an entry");
        zip.write_all(bytes).expect("its bytes");
    }
    zip.finish().expect("an archive").into_inner()
}

fn collect(folder: &Path, prefix: &str, files: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{name}/"), files);
        } else {
            files.push(name);
        }
    }
    files.sort();
}
