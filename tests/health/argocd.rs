//! What the scripts in `contrib/argocd` say, run as Argo CD runs them: with the base and table libraries only.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use serde::Deserialize;
use serde_json::Value;

/// Health and why.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Health {
    pub status: String,
    #[serde(default)]
    pub message: String,
}

/// What is in a script's reach beside `obj`.
const LIBRARIES: &str = "
local function environment(object)
  local env = {table = table, obj = object}
  for name in ('assert error getmetatable ipairs next pairs pcall rawequal rawget rawset select setmetatable tonumber tostring type unpack xpcall'):gmatch('%S+') do
    env[name] = _G[name]
  end
  env._G = env
  return env
end
function judge(script, object)
  local run = assert(loadfile(script))
  local result = setfenv(run, environment(object))()
  assert(type(result) == 'table', script .. ' returns no table')
  io.write(result.status or '', '\\0', result.message or '', '\\0')
end
";

/// What `script` says of each of `objects`.
///
/// # Panics
/// When the script fails on one.
pub fn health(script: &Path, objects: &[&Value]) -> Vec<Health> {
    let mut program = LIBRARIES.to_owned();
    for object in objects {
        let script = literal(&Value::from(script.to_str().expect("our paths are text")));
        writeln!(program, "judge({script}, {})", literal(object)).expect("text can be written to");
    }
    let mut lua = Command::new("lua5.1")
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("lua5.1 is installed: hack/setup does it");
    lua.stdin.take().expect("it is a pipe").write_all(program.as_bytes()).expect("lua5.1 reads the program");
    let output = lua.wait_with_output().expect("lua5.1 ends");
    assert!(output.status.success(), "{} failed", script.display());
    let text = String::from_utf8(output.stdout).expect("messages are text");
    let words: Vec<_> = text.split('\0').collect();
    let found = words.chunks_exact(2).map(|pair| Health { status: pair[0].to_owned(), message: pair[1].to_owned() });
    found.collect()
}

/// `value` as Lua writes it.
fn literal(value: &Value) -> String {
    match value {
        Value::Null => "nil".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => {
            let bytes = text.bytes().fold(String::new(), |mut out, byte| {
                if byte.is_ascii_alphanumeric() || byte == b' ' {
                    out.push(byte.into());
                } else {
                    write!(out, "\\{byte:03}").expect("text can be written to");
                }
                out
            });
            format!("\"{bytes}\"")
        }
        Value::Array(list) => format!("{{{}}}", list.iter().map(literal).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let entry = |(key, value): (&String, &Value)| {
                format!("[{}] = {}", literal(&Value::from(key.as_str())), literal(value))
            };
            format!("{{{}}}", map.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_script_gets_the_object_as_it_is_and_no_library_that_argo_cd_withholds() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("health.lua");
        fs::write(
            &script,
            "local seen = {}
             for _, name in ipairs({'string', 'math', 'io', 'os', 'debug', 'require', 'loadstring'}) do
               if _G[name] ~= nil then table.insert(seen, name) end
             end
             return {status = table.concat(seen), message = obj.text .. #obj.list .. tostring(obj.flag) .. obj.number}",
        )
        .unwrap();
        let object = json!({"text": "a \"b\"\n\\ä", "list": [1, 2], "flag": true, "number": 3, "none": null});
        let expected = Health { status: String::new(), message: "a \"b\"\n\\ä2true3".to_owned() };
        assert_eq!(health(&script, &[&object]), [expected]);
    }
}
