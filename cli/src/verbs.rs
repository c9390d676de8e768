//! The subcommands, and what clap makes of wrong calls.

use clap::{CommandFactory, Parser, Subcommand};

use crate::error::{Error, Result};
use crate::{
    bench, classify, completions, demo, devices, diagnose, evaluate, import, info, op, phantom, register, resample,
    segment, train, warp,
};

/// GPU kernels for 3D medical imaging, and a kidney-cancer CT pipeline built from them.
#[derive(Debug, Parser)]
#[command(name = "nephron", version, propagate_version = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  nephron demo
  nephron segment scan.nii.gz --model MODEL -o masks
  nephron diagnose --portal P.nii.gz --arterial A.nii.gz --model MODEL -o result";

#[derive(Debug, Subcommand)]
enum Verb {
    /// List backends and adapters, their limits and features, and why one is not available.
    Devices(devices::Args),
    /// Print shape, spacing, orientation, dtype and geometry source of an image.
    Info(info::Args),
    /// Resample an image onto a new grid.
    Resample(resample::Args),
    /// Segment kidneys and tumours.
    Segment(Box<segment::Args>),
    /// Train a model.
    Train(train::Args),
    /// Convert a model of another program, such as nnU-Net, to safetensors and JSON.
    Import(import::Args),
    /// Align a moving mask, and images with it, to a fixed mask.
    Register(Box<register::Args>),
    /// Resample images and masks through given transforms.
    Warp(warp::Args),
    /// Classify the tumours of aligned phases with masks.
    Classify(classify::Args),
    /// Run the whole pipeline: from scans to masks, aligned phases, probabilities and a report.
    Diagnose(Box<diagnose::Args>),
    /// Evaluate a cohort from the results of single cases.
    Evaluate(evaluate::Args),
    /// Make a synthetic multi-phase patient with ground truth.
    Phantom(phantom::Args),
    /// Run the whole pipeline on a synthetic patient.
    Demo(demo::Args),
    /// Run one operation on .npy arrays.
    Op(op::Args),
    /// Time operations and networks after checking each.
    Bench(bench::Args),
    /// Print the completions of a shell, such as for `source <(nephron completions bash)`.
    Completions(completions::Args),
    /// Write the manual pages.
    Man(completions::ManArgs),
}

impl Cli {
    /// Runs the subcommand.
    pub(crate) fn run(&self) -> Result<()> {
        match &self.verb {
            Verb::Devices(args) => args.json.run(devices::run),
            Verb::Info(args) => args.cpu.run(|json| info::run(args, json)),
            Verb::Resample(args) => args.device.run(|context| resample::run(args, context)),
            Verb::Segment(args) => args.device.run(|context| segment::run(args, context)),
            Verb::Train(args) => train::run(args),
            Verb::Import(args) => import::run(args),
            Verb::Register(args) => args.device.run(|context| register::run(args, context)),
            Verb::Warp(args) => args.device.run(|context| warp::run(args, context)),
            Verb::Classify(args) => args.device.run(|context| classify::run(args, context)),
            Verb::Diagnose(args) => args.device.run(|context| diagnose::run(args, context)),
            Verb::Evaluate(args) => evaluate::run(args),
            Verb::Phantom(args) => args.cpu.run(|json| phantom::run(args, json)),
            Verb::Demo(args) => args.device.run(|context| demo::run(args, context)),
            Verb::Op(args) => args.device.run(|context| op::run(args, context)),
            Verb::Bench(args) => args.device.run(|context| bench::run(args, context)),
            Verb::Completions(args) => completions::run(args),
            Verb::Man(args) => completions::man(args),
        }
    }
}

/// A usage error with clap's message on one line, without the usage text that follows it, and the help to read instead. `words` are
/// the arguments after the program's name.
pub(crate) fn usage(error: &clap::Error, words: &[String]) -> Error {
    let text = error.to_string();
    let end = ["\n\nUsage:", "\n\nFor more information"].iter().filter_map(|mark| text.find(mark)).min();
    let message = text[..end.unwrap_or(text.len())].trim_start_matches("error:");
    let parts = message.split("\n\n").flat_map(|part| part.split("\n  tip:").enumerate().map(tip));
    let parts = parts.map(|part| part.split_whitespace().collect::<Vec<_>>().join(" ")).filter(|part| !part.is_empty());
    let see = format!("see '{} --help'", called(words));
    Error::Usage(parts.chain([see]).collect::<Vec<_>>().join("; "))
}

/// A part of clap's message, of which all but the first are tips.
fn tip((place, text): (usize, &str)) -> String {
    if place == 0 { text.to_owned() } else { format!("tip: {text}") }
}

/// The subcommand of a call, such as `nephron evaluate segmentation`: the names that the arguments begin with.
fn called(words: &[String]) -> String {
    let (mut command, mut name) = (Cli::command(), String::from("nephron"));
    for word in words {
        let Some(verb) = command.find_subcommand(word) else { break };
        name = format!("{name} {word}");
        command = verb.clone();
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every subcommand with its full name, those of subcommands included.
    fn verbs() -> Vec<(String, clap::Command)> {
        let mut root = Cli::command();
        root.build();
        let (mut left, mut all) = (vec![(String::from("nephron"), root)], Vec::new());
        while let Some((name, command)) = left.pop() {
            for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
                left.push((format!("{name} {}", verb.get_name()), verb.clone()));
            }
            all.push((name, command));
        }
        all
    }

    #[test]
    fn every_help_ends_with_examples_that_are_right() {
        for (name, command) in verbs() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let mut lines = help.lines();
            assert_eq!(lines.next(), Some("Examples:"), "{name}");
            let examples: Vec<&str> = lines.map(str::trim).collect();
            assert!((1..=4).contains(&examples.len()), "{name}: {help}");
            for example in examples {
                // A shell takes the rest of the line.
                let call = example.split(" > ").next().unwrap_or_default();
                assert!(call.starts_with(&name), "{name}: {example}");
                if let Err(error) = Cli::try_parse_from(call.split_whitespace()) {
                    panic!("{example}: {error}");
                }
            }
        }
    }

    #[test]
    fn options_of_a_device_are_those_of_subcommands_that_open_one() {
        let opens = [
            "resample",
            "segment",
            "train segmentation",
            "train classification",
            "register",
            "warp",
            "classify",
            "diagnose",
            "demo",
            "op",
            "bench",
        ];
        for (name, command) in verbs() {
            let visible = |id: &str| command.get_arguments().any(|arg| arg.get_id() == id && !arg.is_hide_set());
            let is_leaf = command.get_subcommands().all(|verb| verb.get_name() == "help");
            let verb = name.trim_start_matches("nephron ");
            let of_device = ["device", "trace", "verbose"].map(visible);
            assert_eq!(of_device, [opens.contains(&verb); 3], "{name}");
            #[cfg(feature = "gpu")]
            assert_eq!(["dump", "tune", "tf32"].map(visible), [opens.contains(&verb); 3], "{name}");
            assert_eq!(
                visible("quiet"),
                ["segment", "train segmentation", "train classification", "diagnose", "demo"].contains(&verb),
                "{name}"
            );
            assert_eq!(visible("json"), is_leaf && !["completions", "man"].contains(&verb), "{name}");
            for option in ["--trace=t", "--verbose", "--quiet"].iter().filter(|_| is_leaf) {
                let known = opens.contains(&verb) && (*option != "--quiet" || visible("quiet"));
                let words = name.split(' ').chain([*option]);
                let error = Cli::try_parse_from(words).err().map(|error| error.kind());
                let unknown = error == Some(clap::error::ErrorKind::UnknownArgument);
                assert_eq!(unknown, !known, "{name} {option}: {error:?}");
            }
        }
    }

    #[test]
    fn a_wrong_call_is_one_line_that_names_the_help() {
        let message = |call: &str| {
            let words: Vec<String> = call.split(' ').map(str::to_owned).collect();
            let error = Cli::try_parse_from(&words).expect_err("a wrong call");
            usage(&error, &words[1..]).to_string()
        };
        assert_eq!(
            message("nephron info a.nii --help-x"),
            "unexpected argument '--help-x' found; tip: a similar argument exists: '--help'; see 'nephron info --help'"
        );
        let said = message("nephron evaluate registration");
        assert!(said.ends_with("; see 'nephron evaluate registration --help'"), "{said}");
        let said = message("nephron info a.nii --device cuda:1");
        assert!(said.contains("computes on the CPU: expected cpu") && said.contains("cuda:1"), "{said}");
        assert!(message("nephron nosuch").ends_with("; see 'nephron --help'"));
    }
}
