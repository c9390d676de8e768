use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::*;

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_write_that_fails_leaves_nothing_and_names_the_final_file_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.txt");
    write_atomic(&path, |file| file.write_all(b"first")).expect("written");
    let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
    let message = write_atomic(&path, |file| file.write_all(b"half").and(Err(full()))).expect_err("full").to_string();
    assert!(message.contains("a.txt: cannot be written") && !message.contains(".nephron-"), "{message}");
    assert_eq!(fs::read(&path).expect("the old file"), b"first");
    let below = write_atomic(path.join("b"), |_| Ok(())).expect_err("no folder").to_string();
    assert!(below.contains("there is no folder") && !below.contains(".nephron-"), "{below}");
    assert_eq!(names(folder.path()), ["a.txt"]);
}

#[test]
fn only_files_of_dead_processes_are_swept() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| {
        let path = folder.path().join(name);
        let file = File::create(&path).expect("a file");
        file.set_modified(SystemTime::now() - Duration::from_secs(60)).expect("an old file");
        (path, file)
    };
    // Its writer lives as long as it holds the lock.
    let (_, living) = at(".nephron-1-1.tmp");
    living.lock().expect("a lock");
    at(".nephron-1-2.tmp");
    at(".nephron-notes.txt");
    at("other.tmp");
    File::create(folder.path().join(".nephron-1-3.tmp")).expect("a file that was made just now");
    // Folders likewise, with all that is in them.
    let made = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir(&path).expect("a folder");
        fs::write(path.join("weights"), "some").expect("written");
        let held = File::open(&path).expect("a folder");
        held.set_modified(SystemTime::now() - Duration::from_secs(60)).expect("an old folder");
        held
    };
    if cfg!(unix) {
        made(".nephron-1-4.tmp");
    }
    try_folder(folder.path()).expect("writable");
    let kept = [".nephron-1-1.tmp", ".nephron-1-3.tmp", ".nephron-notes.txt", "other.tmp"];
    assert_eq!(names(folder.path()), kept);
}

#[test]
fn a_temporary_folder_becomes_the_whole_one_or_nothing() {
    let parent = tempfile::tempdir().expect("a folder");
    let made = TemporaryFolder::new(parent.path()).expect("a folder");
    write_atomic(made.path().join("weights"), |file| file.write_all(b"some")).expect("written");
    made.rename(parent.path().join("model")).expect("renamed");
    drop(TemporaryFolder::new(parent.path()).expect("a folder"));
    let failed = TemporaryFolder::new(parent.path()).expect("a folder");
    fs::write(failed.path().join("weights"), "some").expect("written");
    failed.rename(parent.path().join("model")).expect_err("a folder that is not empty");
    assert_eq!(names(parent.path()), ["model"]);
    assert_eq!(fs::read(parent.path().join("model/weights")).expect("the file"), b"some");
}

#[test]
fn a_folder_is_held_by_one_run_and_free_after_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("new");
    let first = FolderLock::new(&path).expect("free");
    if cfg!(unix) {
        let message = FolderLock::new(&path).expect_err("held").to_string();
        assert!(message.contains("new: another run is writing"), "{message}");
    }
    assert_eq!(names(&path), [""; 0], "the lock has no file");
    drop(first);
    assert!(!path.exists(), "it was made for the lock and nothing was written");
    let below = path.join("of/results");
    let second = FolderLock::new(&below).expect("free again");
    fs::write(below.join("a"), "").expect("written");
    drop(second);
    assert_eq!((names(&path), names(&below)), (vec!["of".into()], vec!["a".into()]));
    let file = folder.path().join("file");
    fs::write(&file, "").expect("written");
    assert!(FolderLock::new(&file).expect_err("a file").to_string().contains("cannot be created"));
    assert!(try_beside(file.join("a")).is_err() && try_beside(&path).is_err());
    try_beside(&file).expect("may be replaced");
}

#[test]
fn small_files_are_bounded_and_regular() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.json");
    let message = |path: &Path| read_small(path).expect_err("refused").to_string();
    assert!(message(&path).contains("there is no such file"));
    assert!(message(folder.path()).contains("is a folder"));
    File::create(&path).and_then(|file| file.set_len(MAX_SMALL)).expect("a sparse file");
    assert_eq!(read_small(&path).expect("as large as allowed").len() as u64, MAX_SMALL);
    File::create(&path).and_then(|file| file.set_len(MAX_SMALL + 1)).expect("a sparse file");
    assert!(message(&path).contains("larger than 32 MiB"));
    if cfg!(unix) {
        assert!(message(Path::new("/dev/zero")).contains("is not a regular file"));
    }
}
