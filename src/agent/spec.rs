//! What a session must be to run anywhere.
//!
//! Pure, and the same for every backend. What fails here fails on each host, so the session ends at once instead of being
//! carried from one to the next. Admission refuses most of it before; a manifest of an earlier version, or one that came
//! past it, is told here. What may differ between hosts is not asked: accounts, files, session types.

use std::path::Path;

use super::backend::check_name;
use super::backend::files;
use crate::api::DcvSessionSpec;
use crate::permissions::Permissions;

/// Most arguments of an autorun program, as the schema has it.
const MAX_ARGUMENTS: usize = 200;
/// Longest argument in characters, as the schema has it.
const MAX_ARGUMENT_CHARACTERS: usize = 4096;
/// Most bytes of all arguments together: a quarter of what Linux gives a new program by default, the rest is its
/// environment's.
const MAX_ARGUMENTS_BYTES: usize = 512 << 10;

/// What is wrong with the spec whatever the host, in words for people.
pub fn fault(spec: &DcvSessionSpec) -> Option<String> {
    check(spec).err()
}

fn check(spec: &DcvSessionSpec) -> Result<(), String> {
    check_name(&spec.owner, None).map_err(|refusal| refusal.to_string())?;
    Permissions::parse(spec.permissions.as_deref()).map_err(|error| format!("permissions: {error}"))?;
    for (file, what) in [(&spec.init_file, "initFile"), (&spec.autorun_file, "autorunFile")] {
        if let Some(file) = file {
            files::relative(file, what).map_err(|refusal| refusal.to_string())?;
        }
    }
    if let Some(root) = &spec.storage_root {
        // Any home will do.
        files::storage_root(root, Path::new("/")).map_err(|refusal| refusal.to_string())?;
    }
    check_arguments(&spec.autorun_file_arguments)
}

fn check_arguments(arguments: &[String]) -> Result<(), String> {
    if arguments.len() > MAX_ARGUMENTS {
        return Err(format!("autorunFileArguments has more than {MAX_ARGUMENTS} arguments"));
    }
    if arguments.iter().any(|argument| argument.chars().count() > MAX_ARGUMENT_CHARACTERS) {
        return Err(format!("an argument of autorunFileArguments has more than {MAX_ARGUMENT_CHARACTERS} characters"));
    }
    if arguments.iter().any(|argument| argument.contains('\0')) {
        return Err("an argument of autorunFileArguments contains NUL".to_owned());
    }
    if arguments.iter().map(|argument| argument.len() + 1).sum::<usize>() > MAX_ARGUMENTS_BYTES {
        return Err(format!("autorunFileArguments has more than {MAX_ARGUMENTS_BYTES} bytes"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use serde_json::json;

    use super::*;

    fn told(changes: &Value) -> String {
        let mut spec = json!({"owner": "ann", "type": "VIRTUAL"});
        spec.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        fault(&serde_json::from_value(spec).unwrap()).unwrap_or_default()
    }

    #[test]
    fn what_no_host_can_run_is_said() {
        let long = "x".repeat(4097);
        let much = vec!["\u{e4}".repeat(4096); 100];
        for (changes, expected) in [
            (json!({}), ""),
            (json!({"owner": "-x"}), "the owner's name \"-x\" starts with a hyphen or contains a control character"),
            (
                json!({"owner": "a\nb"}),
                "the owner's name \"a\\nb\" starts with a hyphen or contains a control character",
            ),
            (
                json!({"permissions": "[permissions]\nbob allow flying"}),
                "permissions: line 2: unknown feature or alias \"flying\"",
            ),
            (
                json!({"permissions": "#import base.perm"}),
                "permissions: line 1: #import is not possible in a text that is given inline",
            ),
            (json!({"permissions": ""}), ""),
            (json!({"initFile": "a/../b"}), "initFile \"a/../b\" must be a relative path without .."),
            (json!({"initFile": "/a"}), ""),
            (json!({"autorunFile": ".."}), "autorunFile \"..\" must be a relative path without .."),
            (json!({"autorunFile": "a\0"}), "autorunFile \"a\\0\" must be a relative path without .."),
            (json!({"storageRoot": "files"}), "storageRoot \"files\" must be an absolute path, or start with %home%"),
            (json!({"storageRoot": "%home%/files"}), ""),
            (json!({"autorunFileArguments": vec!["x"; 201]}), "autorunFileArguments has more than 200 arguments"),
            (
                json!({"autorunFileArguments": [long]}),
                "an argument of autorunFileArguments has more than 4096 characters",
            ),
            (json!({"autorunFileArguments": ["a\0"]}), "an argument of autorunFileArguments contains NUL"),
            (json!({"autorunFileArguments": much}), "autorunFileArguments has more than 524288 bytes"),
            (json!({"autorunFileArguments": ["-x", "", "$(y)"]}), ""),
        ] {
            assert_eq!(told(&changes), expected, "{:.100}", changes.to_string());
        }
    }
}
