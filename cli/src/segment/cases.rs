//! Which files make a case, and what its mask is called.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::files::Format;
use crate::error::{Error, Result};
use crate::segmentation::names::numbered;
use nephron::error::Error as LibraryError;

/// An image of one or several channels and where its mask goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Case {
    /// How messages call it.
    pub(super) name: String,
    /// A file a channel, in the channels' order; or one file with all of them.
    pub(super) files: Vec<PathBuf>,
    /// Why it cannot be segmented, where its files do not fit the model: that costs this case alone.
    pub(super) problem: Option<String>,
    /// The mask.
    pub(super) mask: PathBuf,
    /// What files beside the mask begin with.
    pub(super) prefix: String,
}

/// Each file a case, its mask `<name>_mask.nii.gz` (or with the ending of a picture) in `output`; files of several channels,
/// `<name>_0000` and so on, together.
pub(super) fn from_files(files: &[PathBuf], (channels, format): (usize, Format), output: &Path) -> Result<Vec<Case>> {
    let stem = |file: &PathBuf| format.split(file).0;
    let case = |stem: String, files: Vec<PathBuf>| Case {
        mask: output.join(format!("{stem}_mask{}", format.split(&files[0]).1)),
        name: files[0].display().to_string(),
        prefix: stem,
        files,
        problem: None,
    };
    if channels == 1 {
        return Ok(files.iter().map(|file| case(stem(file), vec![file.clone()])).collect());
    }
    let (mut cases, mut parts) = (Vec::new(), BTreeMap::<(PathBuf, String), Vec<(usize, PathBuf)>>::new());
    for file in files {
        match numbered(&stem(file)) {
            None => cases.push(case(stem(file), vec![file.clone()])),
            Some((name, channel)) => {
                let folder = file.parent().unwrap_or(Path::new("")).to_path_buf();
                parts.entry((folder, name)).or_default().push((channel, file.clone()));
            }
        }
    }
    for ((_, name), found) in parts {
        let (files, problem) = complete(found, channels, format);
        cases.push(Case { problem, ..case(name, files) });
    }
    Ok(cases)
}

/// The cases of a folder as nnU-Net names them: `<case>_0000<ending>` with a number a channel; for a model of one channel
/// also `<case><ending>`. The mask is `<case>.nii.gz` in `output`, or has the ending of a picture.
pub(super) fn from_folder(
    folder: &Path,
    ending: &str,
    (channels, format): (usize, Format),
    output: &Path,
) -> Result<Vec<Case>> {
    if !format.endings().contains(&ending) {
        let expected = format.endings().join(", ");
        let reason = format!("the model's images end in {ending}, expected one of {expected} for its reader");
        return Err(LibraryError::Inputs(reason).into());
    }
    if folder.is_file() {
        return Err(LibraryError::file(folder, "is a file, -i takes a folder: give an image without -i").into());
    }
    let entries = std::fs::read_dir(folder).map_err(|e| LibraryError::io(folder, "cannot be read", e))?;
    let mut found = BTreeMap::<String, Vec<(usize, PathBuf)>>::new();
    for entry in entries {
        let path = entry.map_err(|e| LibraryError::io(folder, "cannot be read", e))?.path();
        let file_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(stem) = file_name.strip_suffix(ending).filter(|_| path.is_file()) else { continue };
        let (name, channel) = match numbered(stem) {
            Some(parts) => parts,
            // The colours of a picture are channels.
            None if channels == 1 || format == Format::Pictures => (stem.to_owned(), 0),
            None => {
                let reason = format!("expected a channel's number before {ending}, such as {stem}_0000{ending}");
                return Err(LibraryError::file(&path, reason).into());
            }
        };
        found.entry(name).or_default().push((channel, path));
    }
    if found.is_empty() {
        return Err(LibraryError::file(
            folder,
            format!("holds no images that end in {ending}, as the model's dataset.json names them"),
        )
        .into());
    }
    let case = |(name, files): (String, Vec<(usize, PathBuf)>)| {
        let (files, problem) = complete(files, channels, format);
        let ending = format.split(&files[0]).1;
        Case { mask: output.join(format!("{name}{ending}")), prefix: name.clone(), name, files, problem }
    };
    Ok(found.into_iter().map(case).collect())
}

/// The files in the channels' order, and what is wrong with them: each of 0, 1, ... must be there once. Pictures may be fewer
/// than the channels: how many colours each has is seen when they are read.
fn complete(mut found: Vec<(usize, PathBuf)>, channels: usize, format: Format) -> (Vec<PathBuf>, Option<String>) {
    found.sort();
    let files = if format == Format::Pictures { found.len().min(channels) } else { channels };
    let problem = if let Some(pair) = found.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let [first, second] = [&pair[0], &pair[1]].map(|(_, path)| path.display());
        Some(format!("expected one file of channel {:04}, found {first} and {second}", pair[0].0))
    } else if !found.iter().map(|(channel, _)| *channel).eq(0..files) {
        let list = |numbers: &[usize]| numbers.iter().map(|n| format!("{n:04}")).collect::<Vec<_>>().join(", ");
        let there: Vec<usize> = found.iter().map(|(channel, _)| *channel).collect();
        let expected = list(&(0..channels).collect::<Vec<_>>());
        Some(format!("expected files of the channels {expected}, found {}", list(&there)))
    } else {
        None
    };
    (found.into_iter().map(|(_, path)| path).collect(), problem)
}

/// Refuses outputs that would be written over an input or over one another; `outputs` lists a case's files.
pub(super) fn check_outputs(cases: &[Case], format: Format, outputs: impl Fn(&Case) -> Vec<PathBuf>) -> Result<()> {
    let place = |path: &Path| path.canonicalize().ok();
    let files = || cases.iter().flat_map(|case| &case.files);
    let spacings = files().filter_map(|file| format.image_spacing_file(file));
    let inputs: Vec<PathBuf> = files().cloned().chain(spacings).filter_map(|file| place(&file)).collect();
    let mut taken = BTreeMap::new();
    for case in cases {
        for output in outputs(case) {
            if place(&output).is_some_and(|output| inputs.contains(&output)) {
                return Err(Error::Usage(format!("{} is an input, choose another folder", output.display())));
            }
            if let Some(other) = taken.insert(output.clone(), case) {
                let [first, second] = [other, case].map(|case| case.files[0].display());
                let output = output.display();
                return Err(Error::Usage(format!("{first} and {second} would both be written to {output}")));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_nnunets_cases() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["b_0000.nii.gz", "b_0001.nii.gz", "a_x_0001.nii.gz", "a_x_0000.nii.gz", "notes.txt"] {
            std::fs::write(folder.path().join(name), "").expect("written");
        }
        let out = Path::new("out");
        let cases = from_folder(folder.path(), ".nii.gz", (2, Format::Volumes), out).expect("cases");
        let names: Vec<_> = cases.iter().map(|case| (case.name.as_str(), case.mask.clone())).collect();
        assert_eq!(names, [("a_x", out.join("a_x.nii.gz")), ("b", out.join("b.nii.gz"))]);
        assert_eq!(cases[1].files[1], folder.path().join("b_0001.nii.gz"));
        let problem = |channels: usize| {
            let cases = from_folder(folder.path(), ".nii.gz", (channels, Format::Volumes), out).expect("cases");
            cases[0].problem.clone().expect("a problem")
        };
        assert!(problem(1).contains("found 0000, 0001") && problem(3).contains("0002"), "{}", problem(3));
        let refused = |channels: usize| {
            from_folder(folder.path(), ".nii.gz", (channels, Format::Volumes), out).expect_err("refused").to_string()
        };
        assert!(
            from_folder(folder.path(), ".mha", (1, Format::Volumes), out)
                .expect_err("refused")
                .to_string()
                .contains(".mha")
        );
        std::fs::write(folder.path().join("c.nii.gz"), "").expect("written");
        assert!(refused(2).contains("c_0000.nii.gz"), "{}", refused(2));
    }

    #[test]
    fn files_of_several_channels_are_put_together() {
        let files: Vec<PathBuf> = ["x/a_0001.nii", "x/a_0000.nii", "y/four.nii.gz"].map(PathBuf::from).into();
        let cases = from_files(&files, (2, Format::Volumes), Path::new("o")).expect("cases");
        assert_eq!(cases[0].files, [PathBuf::from("y/four.nii.gz")]);
        assert_eq!(cases[1].files, [PathBuf::from("x/a_0000.nii"), PathBuf::from("x/a_0001.nii")]);
        assert_eq!(cases[1].mask, Path::new("o/a_mask.nii.gz"));
        assert!(cases.iter().all(|case| case.problem.is_none()));
        let twice: Vec<PathBuf> = ["a_0000.nii", "a_0001.nii", "a_0001.nii.gz"].map(PathBuf::from).into();
        let problem = from_files(&twice, (2, Format::Volumes), Path::new("o")).expect("cases")[0]
            .problem
            .clone()
            .expect("a problem");
        assert!(problem.contains("0001") && problem.contains("a_0001.nii.gz"), "{problem}");
        let alone = from_files(&files, (1, Format::Volumes), Path::new("o")).expect("cases");
        assert_eq!(alone.len(), 3);
        assert_eq!(alone[0].mask, Path::new("o/a_0001_mask.nii.gz"));
    }

    /// A coloured picture is one file of three channels, and its mask a picture.
    #[test]
    fn pictures_keep_their_format() {
        let files: Vec<PathBuf> = ["a_0000.png", "b.TIF"].map(PathBuf::from).into();
        let cases = from_files(&files, (3, Format::Pictures), Path::new("o")).expect("cases");
        let masks: Vec<_> = cases.iter().map(|case| (case.mask.clone(), case.problem.clone())).collect();
        assert_eq!(masks, [(PathBuf::from("o/b_mask.TIF"), None), (PathBuf::from("o/a_mask.png"), None)]);
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["c_0000.png", "d_0001.png"] {
            std::fs::write(folder.path().join(name), "").expect("written");
        }
        let cases = from_folder(folder.path(), ".png", (3, Format::Pictures), Path::new("o")).expect("cases");
        assert_eq!((cases[0].mask.clone(), &cases[0].problem), (PathBuf::from("o/c.png"), &None));
        assert!(cases[1].problem.as_ref().is_some_and(|problem| problem.contains("found 0001")), "{:?}", cases[1]);
        let refused = from_folder(folder.path(), ".png", (1, Format::Volumes), Path::new("o")).expect_err("refused");
        assert!(refused.to_string().contains(".png") && refused.to_string().contains(".nii.gz"), "{refused}");
    }
}
