//! Results that are whole and of one run: streams that fail, signals, kills, a folder that two runs want, files of earlier runs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nephron::io::FolderLock;
use nephron::io::nifti::{self, Image};
use nephron::phantom::{PhantomOptions, generate};
use nephron::phase::Phase;
use nephron::volume::{Affine, Volume, Voxels};
use rand::Rng;

use crate::support::{nephron, rng, run};

/// Two patients of two phases each, with masks.
fn cohort(folder: &Path) {
    let phases = vec![Phase::Portal, Phase::Delayed];
    let options = PhantomOptions { phases, spacing: [6.0, 6.0, 8.0], ..PhantomOptions::default() };
    let patient = generate(&options).expect("a patient");
    for name in ["a", "b"] {
        patient.write(folder.join(name)).expect("written");
    }
}

fn diagnose_cohort(folder: &Path) -> Command {
    let mut command = nephron();
    command.args(["diagnose", "--device", "cpu", "--masks", "--cohort"]).arg(folder.join("in"));
    command.arg("-o").arg(folder.join("out"));
    command
}

/// Every patient of a cohort is processed although nobody reads the lines (fault: the rest was left out, with exit code 0), and
/// although the error of the first cannot be printed (fault: a panic).
#[test]
#[cfg(target_os = "linux")]
fn a_cohort_is_finished_whoever_reads_its_lines() {
    let folder = tempfile::tempdir().expect("a folder");
    cohort(&folder.path().join("in"));
    let is_done = |name: &str| folder.path().join("out").join(name).join("result.json").is_file();
    let mut child =
        diagnose_cohort(folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(is_done("a") && is_done("b"));
    fs::remove_file(folder.path().join("in/a/portal_mask.nii.gz")).expect("removed");
    for closed in [true, false] {
        fs::remove_dir_all(folder.path().join("out")).expect("removed");
        let mut command = diagnose_cohort(folder.path());
        let status = if closed {
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs");
            drop(child.stderr.take());
            child.wait()
        } else {
            let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("a device that is full");
            command.stdout(Stdio::null()).stderr(full).status()
        };
        assert_eq!(status.expect("it ends").code(), Some(1), "one patient failed, closed {closed}");
        assert!(is_done("b") && !is_done("a"));
    }
}

/// Starts a long write into `folder` and returns once bytes of it are on the disk, with the temporary file.
fn writing(folder: &Path) -> (Child, PathBuf) {
    let image = folder.join("image.nii");
    if !image.exists() {
        let mut rng = rng();
        let values: Vec<f32> = (0..160 * 160 * 160).map(|_| rng.random_range(0.0..1000.0)).collect();
        let volume = Volume::new([160; 3], Voxels::F32(values.into()), Affine::IDENTITY).expect("a volume");
        nifti::write(&image, &Image::new(volume)).expect("written");
    }
    let mut command = nephron();
    command.args(["resample", "--device", "cpu", "--spacing", "1,1,1"]).arg(&image).arg(folder.join("out/out.nii.gz"));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs");
    let started = Instant::now();
    loop {
        if let Some(file) = temporary(&folder.join("out"))
            && fs::metadata(&file).is_ok_and(|m| m.len() > 0)
        {
            return (child, file);
        }
        let ended = child.try_wait().expect("a child");
        assert!(ended.is_none() && started.elapsed() < Duration::from_secs(60), "no write was seen: {ended:?}");
    }
}

fn temporary(folder: &Path) -> Option<PathBuf> {
    let mut entries = fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path());
    entries.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".nephron-")))
}

/// A run that is stopped while it writes, with the temporary file. On a busy machine the write may be over before the run is stopped;
/// it is then done again.
#[cfg(unix)]
fn stopped(folder: &Path) -> (Child, PathBuf) {
    for _ in 0..20 {
        fs::write(folder.join("out/out.nii.gz"), "of an earlier run").expect("written");
        let (mut child, file) = writing(folder);
        if child.try_wait().expect("a child").is_none() {
            send("-STOP", &child);
            // The signal reaches every thread within this time.
            std::thread::sleep(Duration::from_millis(50));
            if file.exists() {
                return (child, file);
            }
        }
        child.kill().expect("killed");
        child.wait().expect("it ends");
    }
    panic!("no run could be stopped while it wrote");
}

#[cfg(unix)]
fn send(signal: &str, child: &Child) {
    let status = Command::new("kill").args([signal, &child.id().to_string()]).status().expect("kill runs");
    assert!(status.success());
}

#[test]
#[cfg(unix)]
fn a_signal_removes_the_file_that_is_being_written() {
    use std::os::unix::process::ExitStatusExt;
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    fs::create_dir(&out).expect("a folder");
    for (signal, number) in [("-INT", 2), ("-TERM", 15)] {
        let (mut child, _) = stopped(folder.path());
        send(signal, &child);
        let sent = Instant::now();
        send("-CONT", &child);
        let status = child.wait().expect("it ends");
        assert_eq!(status.signal(), Some(number), "a shell sees an interrupted program");
        assert!(sent.elapsed() < Duration::from_secs(1), "{:?}", sent.elapsed());
        assert_eq!(temporary(&out), None, "{signal}");
        assert_eq!(fs::read(out.join("out.nii.gz")).expect("the old file"), b"of an earlier run");
    }
}

#[test]
#[cfg(unix)]
fn the_file_of_a_killed_run_goes_with_the_next_write_to_the_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    fs::create_dir(&out).expect("a folder");
    let (mut child, file) = stopped(folder.path());
    let call = |name: &str| {
        let path = out.join(name).display().to_string();
        let (code, _, errors) = run(&["phantom", &path, "--phases", "P", "--spacing", "10,10,12"]);
        assert_eq!(code, Some(0), "{errors}");
        fs::write(out.join("small.nii"), fs::read(out.join(name).join("portal.nii.gz")).expect("an image"))
            .expect("written");
        let [from, to] =
            [out.join(name).join("portal.nii.gz"), out.join(format!("{name}.nii"))].map(|p| p.display().to_string());
        let (code, _, errors) = run(&["resample", &from, &to, "--spacing", "12,12,12"]);
        assert_eq!(code, Some(0), "{errors}");
    };
    let old = || {
        let file = File::options().write(true).open(&file).expect("the file");
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(60)).expect("an old file");
    };
    // Its writer is stopped and not dead.
    old();
    call("first");
    assert_eq!(temporary(&out).as_ref(), Some(&file));
    send("-KILL", &child);
    child.wait().expect("it ends");
    assert_eq!(temporary(&out).as_ref(), Some(&file), "nobody could remove it");
    old();
    call("second");
    assert_eq!(temporary(&out), None);
}

#[test]
#[cfg(unix)]
fn a_folder_that_another_run_writes_to_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = |name: &str| folder.path().join(name).display().to_string();
    cohort(&folder.path().join("in"));
    let [portal, delayed, mask, out] =
        ["in/a/portal.nii.gz", "in/a/delayed.nii.gz", "in/a/portal_mask.nii.gz", "out"].map(text);
    let held = FolderLock::new(&out).expect("free");
    fs::write(text("out/result.json"), "{}").expect("written");
    let register = ["register", "--fixed", &mask, "--moving", &mask, "-o", &out, "--max-iterations", "2"];
    let register = [&register[..], &["--space", "grid", "--resolution", "full"]].concat();
    fs::write(text("s.csv"), "case,A,B,truth\nx,0.5,0.5,A\ny,0.5,0.5,B\n").expect("written");
    let scores = text("s.csv");
    let patients = text("in");
    let calls: [&[&str]; 5] = [
        &["diagnose", "--masks", "--cohort", &patients, "-o", &out],
        &["diagnose", "--masks", "--portal", &portal, "--delayed", &delayed, "-o", &out],
        &register,
        &["phantom", &out, "--phases", "P", "--spacing", "10,10,12"],
        &["evaluate", "classification", "--scores", &scores, "-o", &out, "--bootstrap", "2"],
    ];
    for call in calls {
        let (code, printed, errors) = run(call);
        assert_eq!((code, printed.as_str(), errors.lines().count()), (Some(1), "", 1), "{call:?}: {errors}");
        assert!(errors.contains(&out) && errors.contains("another run is writing"), "{errors}");
        assert!(Path::new(&text("out/result.json")).exists(), "nothing of the other run is removed");
    }
    drop(held);
    for call in calls {
        let (code, _, errors) = run(call);
        assert_eq!(code, Some(0), "{call:?}: {errors}");
    }
}

/// A patient is of one seed: what another one left goes first, the truth before all else.
#[test]
fn a_phantom_replaces_the_whole_patient() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("p");
    let path = out.display().to_string();
    let call = |more: &[&str]| run(&[&["phantom", &path, "--spacing", "10,10,12"], more].concat());
    assert_eq!(call(&[]).0, Some(0));
    fs::write(out.join("notes.txt"), "mine").expect("written");
    assert_eq!(call(&["--seed", "6", "--phases", "P"]).0, Some(0));
    let mut names: Vec<_> = fs::read_dir(&out).expect("a folder").map(|e| e.expect("an entry").file_name()).collect();
    names.sort();
    assert_eq!(names, ["notes.txt", "portal.nii.gz", "portal_mask.nii.gz", "truth.json"]);
    // A run that fails leaves no truth that images of another seed could be taken for.
    fs::remove_file(out.join("portal.nii.gz")).expect("removed");
    fs::create_dir(out.join("portal.nii.gz")).expect("a folder");
    let (code, _, errors) = call(&["--seed", "7"]);
    assert!(code == Some(1) && errors.contains("portal.nii.gz") && !errors.contains(".nephron-"), "{errors}");
    assert!(!out.join("truth.json").exists());
}

/// A folder that cannot be written is found before the inputs are read.
#[test]
fn an_output_that_cannot_be_written_is_found_before_the_work() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("file"), "").expect("written");
    let below = folder.path().join("file/out").display().to_string();
    let transform = folder.path().join("t.tfm");
    nephron::registration::transform::write_itk(&transform, &Affine::IDENTITY).expect("written");
    cohort(folder.path());
    let [portal, mask, transform, reference] = ["a/portal.nii.gz", "a/portal_mask.nii.gz", "t.tfm", "a/delayed.nii.gz"]
        .map(|name| folder.path().join(name).display().to_string());
    let missing = folder.path().join("missing.nii").display().to_string();
    let file = format!("{below}.nii");
    let calls: [&[&str]; 4] = [
        &["warp", &missing, "--transform", &transform, "--like", &reference, "-o", &below],
        &["resample", &missing, &file, "--spacing", "1,1,1"],
        &["register", "--fixed", &missing, "--moving", &mask, "-o", &below],
        &["diagnose", "--masks", "--portal", &missing, "--delayed", &portal, "-o", &below],
    ];
    for call in calls {
        let (code, _, errors) = run(call);
        assert!(code == Some(1) && errors.contains("file/out") && errors.lines().count() == 1, "{call:?}: {errors}");
    }
}
