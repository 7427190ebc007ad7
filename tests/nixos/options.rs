//! The options of the module say what the commented example of the configuration says.

use std::fs;

use serde_json::{Value, json};
use snowbank::config::EXAMPLE;

use crate::nix::project;

/// Each setting of the example with its default and the words above it.
fn settings() -> Vec<Value> {
    let (mut section, mut words, mut last) = (String::new(), Vec::new(), String::new());
    let mut settings = Vec::new();
    for line in EXAMPLE.lines() {
        let commented = line.strip_prefix('#');
        let is_setting =
            commented.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
        match commented {
            Some(setting) if is_setting => {
                if !words.is_empty() {
                    last = words.join(" ");
                    words.clear();
                }
                let (key, value) = setting.split_once(" = ").unwrap();
                let table: toml::Table = format!("x = {value}").parse().unwrap();
                let default = serde_json::to_value(&table["x"]).unwrap();
                settings.push(json!({"section": section, "key": key, "default": default, "description": last}));
            }
            Some(comment) => words.push(comment.trim().to_owned()),
            None => {
                if let Some(name) = line.strip_prefix('[') {
                    let name = name.trim_end_matches(']');
                    section = name.strip_suffix(".default").unwrap_or(name).to_owned();
                }
                words.clear();
            }
        }
    }
    settings
}

/// With SNOWBANK_UPDATE set it writes the file instead.
#[test]
fn the_options_of_the_module_are_the_settings_of_the_example() {
    let file = project().join("nixos/modules/settings.json");
    let text = serde_json::to_string_pretty(&settings()).unwrap() + "\n";
    if std::env::var_os("SNOWBANK_UPDATE").is_some() {
        fs::write(&file, &text).unwrap();
    }
    let kept: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(kept, Value::Array(settings()), "run the test once with SNOWBANK_UPDATE=1");
    assert!(settings().len() > 70);
    assert!(settings().iter().all(|one| one["description"].as_str().unwrap().len() > 10));
}
