//! `ringfence validate`.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::Args;

use super::Output;
use crate::{compile::compile, spec};

#[derive(Debug, Args)]
pub(super) struct ValidateArgs {
    /// Directory of YAML files
    dir: PathBuf,
    /// How faults are printed
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ValidateError {
    #[error("cannot read {}: {error}", dir.display())]
    Read { dir: PathBuf, error: io::Error },
    /// A wrong directory must not pass for a clean one.
    #[error("{} holds no *.yaml or *.yml file", .0.display())]
    Empty(PathBuf),
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

/// Prints the faults by file, line and column; yields whether there were none.
pub(super) fn run(args: &ValidateArgs, out: &mut impl Write) -> Result<bool, ValidateError> {
    let parsed = spec::read_directory(&args.dir).map_err(|error| ValidateError::Read { dir: args.dir.clone(), error })?;
    if parsed.objects.is_empty() && parsed.faults.is_empty() {
        return Err(ValidateError::Empty(args.dir.clone()));
    }
    let compiled = compile(&parsed.objects, &parsed.unread());
    let mut faults = parsed.faults;
    faults.extend(compiled.faults());
    // `serve` only tells of these; whoever asks for faults wants them mended.
    faults.extend(parsed.left_out);
    faults.sort();
    match args.output {
        Output::Text => faults.iter().try_for_each(|fault| writeln!(out, "{fault}"))?,
        Output::Json => {
            serde_json::to_writer_pretty(&mut *out, &faults).map_err(io::Error::from)?;
            writeln!(out)?;
        }
    }
    Ok(faults.is_empty())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn validate(files: &[(&str, &str)], output: Output) -> (Result<bool, String>, String) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let mut out = Vec::new();
        let args = ValidateArgs { dir: dir.path().to_owned(), output };
        let clean = run(&args, &mut out).map_err(|e| e.to_string().replace(&dir.path().display().to_string(), "DIR"));
        (clean, String::from_utf8(out).unwrap().replace(&dir.path().display().to_string(), "DIR"))
    }

    const PLATFORM: &str = "apiVersion: ringfence.dev/v1alpha1\nkind: Platform\nmetadata: {name: platform}\nspec: {inFlight: 0}\n";

    #[test]
    fn a_fault_is_one_line_and_one_json_object() {
        let (clean, text) = validate(&[("a.yaml", PLATFORM), (".hidden.yaml", "}"), ("notes.txt", "}")], Output::Text);
        assert_eq!(clean, Ok(false));
        assert_eq!(text, "DIR/a.yaml:4:18: Platform/platform: spec.inFlight: must be a whole number from 1 to 1000000\n");

        let (clean, json) = validate(&[("a.yaml", PLATFORM)], Output::Json);
        assert_eq!(clean, Ok(false));
        let wanted = serde_json::json!([{
            "file": "DIR/a.yaml", "line": 4, "col": 18, "kind": "Platform", "name": "platform",
            "path": "spec.inFlight", "message": "must be a whole number from 1 to 1000000",
        }]);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), wanted);
    }

    #[test]
    fn no_fault_is_silence() {
        let platform = PLATFORM.replace("inFlight: 0", "inFlight: 1");
        assert_eq!(validate(&[("a.yaml", &platform)], Output::Text), (Ok(true), String::new()));
        assert_eq!(validate(&[("a.yml", &platform)], Output::Json), (Ok(true), "[]\n".into()));
    }

    #[test]
    fn a_directory_without_objects_is_not_clean() {
        assert_eq!(validate(&[], Output::Text).0, Err("DIR holds no *.yaml or *.yml file".into()));
    }
}
